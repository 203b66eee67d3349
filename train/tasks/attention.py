"""Where a model with attention looks, drawn for the report."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx

from train import figures
from train.report import Section
from zoo.functional.attention import attention, attention_weights
from zoo.layers import Stack

NUM_DRAWN = 24  # tokens of a text that still can be read beside a figure
NUM_HEADS = 4


def seen(model: Any, run: Callable[[Any], Any]) -> list[jax.Array]:
    """The weights of every attention of a model, in the order in which they are computed.

    Args:
        model: of one without attention there are none.
        run: calls the model it is given on one text, as a batch of one, as the task does.

    Returns:
        [1, N, T, S] of each, also of layers that are scanned or rematerialised.
    """
    found: list[jax.Array] = []

    def showing(q, k, v, mask=None, bias=None):
        found.append(attention_weights(q, k, mask, bias))
        return attention(q, k, v, mask, bias)

    shown = nnx.view(model, attention=showing, raise_if_not_found=False)
    for _, module in nnx.iter_modules(shown):
        if isinstance(module, Stack):
            module.remat = False  # of the view alone: there is no backward pass
    with jax.disable_jit():  # makes a scan a loop, whose weights are numbers that can be kept
        run(shown)
    return found


def sections(
    layers: Sequence[jax.Array],
    words: Sequence[str],
    looked_at: Sequence[str] | None = None,
    *,
    title: str = "Attention",
) -> list[Section]:
    """The heads of the first and the last layer over one text.

    Args:
        layers: weights [1, N, T', S'] of each, of which the first T and S are drawn.
        words: that look, T.
        looked_at: S words, where they are others.
        title: what comes before the number of the layer.
    """
    columns = words if looked_at is None else looked_at
    return [
        Section(
            f"{title} in layer {layer + 1}",
            "Each row is a token that looks, each column a token it may look at; darker is more "
            f"weight. The first {min(NUM_HEADS, layers[layer].shape[1])} heads, on held-out text, "
            "of which a part is shown where it is long.",
            figures.attention_figure(
                np.asarray(layers[layer][0, :NUM_HEADS, : len(words), : len(columns)]),
                words,
                columns,
            ),
        )
        for layer in sorted({0, len(layers) - 1})
        if layers
    ]

"""Where a model with attention looks, drawn for the report."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.core
import numpy as np
from flax import nnx

from train import figures
from train.report import Section
from zoo.functional.attention import attention, attention_weights

NUM_DRAWN = 24  # tokens of a text that still can be read beside a figure
NUM_HEADS = 4


def sections(model: Any, run: Callable[[Any], Any], words: Sequence[str]) -> list[Section]:
    """The heads of the first and the last layer over one text.

    Args:
        model: whose attention is drawn; of one without, or with scanned layers, nothing is.
        run: calls the model it is given on that text, as a batch of one.
        words: the text, a word for each token.
    """
    seen: list[jax.Array] = []

    def showing(q, k, v, mask=None, bias=None):
        seen.append(attention_weights(q, k, mask, bias))
        return attention(q, k, v, mask, bias)

    run(nnx.view(model, attention=showing, raise_if_not_found=False))
    if any(isinstance(weights, jax.core.Tracer) for weights in seen):
        return []
    return [
        Section(
            f"Attention in layer {layer + 1}",
            "Each row is a token, each column a token it may look at; darker is more weight. "
            f"The first {min(NUM_HEADS, seen[layer].shape[1])} heads, on held-out text.",
            figures.attention_figure(np.asarray(seen[layer][0, :NUM_HEADS]), words),
        )
        for layer in sorted({0, len(seen) - 1})
        if seen
    ]

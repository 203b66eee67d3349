"""The training step of the recipe bible-gpt."""

import numpy as np

from benchmarks import classifier, products
from benchmarks.entry import Entry, Promise
from zoo.models.gpt import GPTConfig

CONFIG = GPTConfig.nano()
SHAPE = (12, 64)  # sequences, tokens


def shape(quick: bool) -> tuple[int, int]:
    """Of the batch of tokens."""
    return (2, 16) if quick else SHAPE


def prepare(quick: bool) -> dict[str, np.ndarray]:
    """Weights and a batch."""
    tokens = np.random.default_rng(0).integers(0, CONFIG.vocab_size, shape(quick), np.int32)
    return classifier.prepare(CONFIG, {"inputs": tokens, "targets": np.roll(tokens, -1, axis=1)})


def _flax():
    from benchmarks.twins.flax_gpt import GPT

    return GPT


def _torch():
    from benchmarks.twins.torch_gpt import GPT

    return GPT


ENTRY = Entry(
    name="gpt",
    summary="A training step of the 4-layer GPT, 12 sequences of 64 characters, Adam, float32.",
    unit="training step",
    prepare=prepare,
    flops=lambda quick: classifier.training_flops(CONFIG, np.zeros(shape(quick), np.int32)),
    competitors=classifier.competitors(CONFIG, _flax, _torch)
    | {products.ALONE: products.competitor(lambda arrays: classifier.traced(CONFIG, arrays))},
    timed_per_turn=5,
    promises=(
        Promise(
            text="a GPT step takes at most 0.65 of PyTorch's eager time",
            against="torch",
            at_least_ratio=1 / 0.65,
        ),
        Promise(
            text="a GPT step takes at most 0.85 of torch.compile's time",
            against="torch.compile",
            at_least_ratio=1 / 0.85,
        ),
    ),
)

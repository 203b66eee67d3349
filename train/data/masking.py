"""Words hidden for a masked language model to find (Devlin et al. 2019, section 3.1)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

REPLACED, RANDOM = 0.8, 0.1  # of the chosen tokens; the rest stay as they are


class Masked(NamedTuple):
    """Token rows with some tokens hidden; M is the same for every row."""

    tokens: Int[Array, "B T"]
    """What the model sees."""
    positions: Int[Array, "B M"]
    """Where the chosen tokens stand."""
    targets: Int[Array, "B M"]
    """The chosen tokens."""
    chosen: Bool[Array, "B M"]
    """False where a row shorter than T has fewer of them."""


def num_chosen(length: Array, rate: float) -> Array:
    """How many tokens of a text of this length are chosen: its share, and at least one."""
    return jnp.maximum(1, jnp.round(rate * length)).astype(jnp.int32)


def mask_words(
    key: Array,
    tokens: Int[Array, "B T"],
    maskable: Bool[Array, "B T"],
    *,
    rate: float,
    mask_token: int,
    vocab_size: int,
) -> Masked:
    """Chooses tokens at random; 80 % become [MASK], 10 % any token, 10 % stay.

    Args:
        key: decides everything.
        tokens: what is hidden from.
        maskable: False for padding and marks, which are never chosen.
        rate: the share that is chosen; the paper's is 0.15.
        mask_token: the number of [MASK].
        vocab_size: V, of which the random tokens are drawn.
    """
    where, how, which = jax.random.split(key, 3)
    # The M largest of random scores are a choice without repetition, as quick as a sort.
    scores = jnp.where(maskable, jax.random.uniform(where, tokens.shape), -1.0)
    most = max(1, round(rate * tokens.shape[1]))
    _, positions = jax.lax.top_k(scores, most)
    chosen = jnp.arange(most) < jnp.minimum(
        num_chosen(maskable.sum(1), rate), maskable.sum(1)
    ).reshape(-1, 1)
    targets = jnp.take_along_axis(tokens, positions, axis=1)
    u: Float[Array, "B M"] = jax.random.uniform(how, positions.shape)
    others = jax.random.randint(which, positions.shape, 0, vocab_size, tokens.dtype)
    seen = jnp.where(u < REPLACED, mask_token, jnp.where(u < REPLACED + RANDOM, others, targets))
    rows = jnp.arange(len(tokens))[:, None]
    hidden = tokens.at[rows, positions].set(jnp.where(chosen, seen, targets))
    return Masked(hidden, positions, targets, chosen)

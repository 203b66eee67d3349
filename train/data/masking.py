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


def num_chosen(length: int, rate: float) -> int:
    """How many tokens of a text of this length are chosen: its share, and at least one."""
    return min(length, max(1, round(rate * length)))


def mask_words(
    key: Array,
    tokens: Int[Array, "B T"],
    maskable: Bool[Array, "B T"],
    *,
    rate: float,
    mask_token: int,
    vocab_size: int,
    longest: int | None = None,
) -> Masked:
    """Chooses tokens at random; 80 % become [MASK], 10 % any token, 10 % stay.

    Args:
        key: decides everything.
        tokens: what is hidden from.
        maskable: False for padding and marks, which are never chosen.
        rate: the share that is chosen; the paper's is 0.15.
        mask_token: the number of [MASK].
        vocab_size: V, of which the random tokens are drawn.
        longest: the most places of a row that are maskable, by default T; M is the share of these.
    """
    where, how, which = jax.random.split(key, 3)
    # The M largest of random scores are a choice without repetition, as quick as a sort.
    scores = jnp.where(maskable, jax.random.uniform(where, tokens.shape), -1.0)
    num_tokens = tokens.shape[1]
    most = num_chosen(num_tokens if longest is None else longest, rate)
    _, positions = jax.lax.top_k(scores, most)
    by_length = jnp.array([num_chosen(length, rate) for length in range(num_tokens + 1)])
    chosen = jnp.arange(most) < by_length[maskable.sum(1)][:, None]
    targets = jnp.take_along_axis(tokens, positions, axis=1)
    u: Float[Array, "B M"] = jax.random.uniform(how, positions.shape)
    others = jax.random.randint(which, positions.shape, 0, vocab_size, tokens.dtype)
    seen = jnp.where(u < REPLACED, mask_token, jnp.where(u < REPLACED + RANDOM, others, targets))
    rows = jnp.arange(len(tokens))[:, None]
    hidden = tokens.at[rows, positions].set(jnp.where(chosen, seen, targets))
    return Masked(hidden, positions, targets, chosen)

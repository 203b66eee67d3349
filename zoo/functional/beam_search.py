"""Beam search: the likeliest continuations, K hypotheses at a time, with a penalty on length.

    score(Y) = log P(Y) / lp(Y),    lp(Y) = ((5 + |Y|) / 6)^α       (Wu et al. 2016, eq. 14)

With α = 0 the score is the probability, which favours what is short; with α = 1, about the mean of
a token. |Y| counts the end token. Wu et al.'s coverage penalty is left out.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float, Int

from zoo.functional.generate import check_fits

Step = Callable[[Int[Array, "N 1"], Any], tuple[Float[Array, "N 1 V"], Any]]


class Search(NamedTuple):
    """Where a search stands: of each of B sequences, K hypotheses that go on and K that ended."""

    num_tokens: Int[Array, ""]  # t, of each hypothesis that goes on
    tokens: Int[Array, "B K T"]
    log_probs: Float[Array, "B K"]  # -inf where there are fewer than K
    ended_tokens: Int[Array, "B K T"]
    ended_scores: Float[Array, "B K"]  # best first; -inf where there are fewer than K
    last: Int[Array, "B*K 1"]  # token of each hypothesis that goes on
    caches: Any


def beam_search(
    step: Step,
    caches: Any,
    first: Int[Array, " B"],
    *,
    beam_size: int,
    max_tokens: int,
    end_token: int,
    alpha: float = 0.6,
    batch_axes: Any = 0,
) -> tuple[Int[Array, "B K T"], Float[Array, "B K"]]:
    """The best `beam_size` = K continuations of each sequence, best first, and their scores.

    Of all continuations by one token, the 2K likeliest are kept: at least K of them do not end. One
    that ends counts where it is among the first K. A search stops when K hypotheses have ended (as
    in fairseq, Ott et al. 2019), or at `max_tokens`, where all end. With K = 1 this is greedy
    search. All shapes are fixed, so that it compiles once.

    Args:
        step: next tokens and caches to logits and caches, as a model's `step`; N = B K rows.
        caches: of B sequences, with room for `max_tokens` more tokens; any tree of arrays.
        first: the token that each sequence goes on from; the caches do not hold it yet.
        beam_size: K.
        max_tokens: T, the most new tokens.
        end_token: ends a hypothesis, and fills what comes after it.
        alpha: strength of the length penalty.
        batch_axes: of every array in the caches, a number or a tree of them; 1 where those of all
            layers are stacked. None where the K hypotheses of a sequence, K successive rows, share
            one: it is neither repeated nor moved.

    Raises:
        ValueError: a number is less than 1, or `max_tokens` more than an empty cache has room for.
    """
    if beam_size < 1 or max_tokens < 1:
        raise ValueError(f"{beam_size=} and {max_tokens=} must be at least 1")
    check_fits(caches, max_tokens, f"{max_tokens=} new ones")
    batch_size = first.shape[0]
    filled = jnp.full((batch_size, beam_size, max_tokens), end_token, first.dtype)
    none = jnp.full((batch_size, beam_size), -jnp.inf)
    search = Search(
        num_tokens=jnp.zeros((), jnp.int32),
        tokens=filled,
        log_probs=none.at[:, 0].set(0),  # K equal hypotheses would stay equal
        ended_tokens=filled,
        ended_scores=none,
        last=jnp.repeat(first, beam_size)[:, None],
        caches=_of_all(lambda c, axis: jnp.repeat(c, beam_size, axis), batch_axes, caches),
    )
    go_on = partial(_go_on, step, end_token=end_token, alpha=alpha, axes=batch_axes)
    search = lax.while_loop(
        lambda search: (search.num_tokens < max_tokens) & ~jnp.all(_full(search)), go_on, search
    )
    return search.ended_tokens, search.ended_scores


def length_penalty(num_tokens: Int[Array, ""] | int, alpha: float) -> Float[Array, ""]:
    """`lp = ((5 + |Y|) / 6)^α` (Wu et al. 2016, eq. 14)."""
    return ((5.0 + jnp.asarray(num_tokens)) / 6.0) ** alpha


def _go_on(step: Step, search: Search, *, end_token: int, alpha: float, axes: Any) -> Search:
    """All hypotheses by one token."""
    batch_size, beam_size, max_tokens = search.tokens.shape
    logits, caches = step(search.last, search.caches)
    logits = logits[:, -1].astype(jnp.float32)
    log_probs = logits - logsumexp(logits, -1, keepdims=True)
    vocab_size = logits.shape[-1]
    candidates = search.log_probs[..., None] + log_probs.reshape(batch_size, beam_size, vocab_size)
    log_probs, places = lax.top_k(candidates.reshape(batch_size, -1), 2 * beam_size)
    parents, new = places // vocab_size, (places % vocab_size).astype(search.tokens.dtype)
    tokens = _pick(search.tokens, parents).at[..., search.num_tokens].set(new)
    num_tokens = search.num_tokens + 1

    # Those that end: a search that already has K takes no more.
    ends = ((new == end_token) | (num_tokens == max_tokens)) & ~_full(search)[:, None]
    ends &= jnp.arange(2 * beam_size) < beam_size
    scores = jnp.where(ends, log_probs / length_penalty(num_tokens, alpha), -jnp.inf)
    scores = jnp.concatenate([search.ended_scores, scores], 1)
    ended_scores, best = lax.top_k(scores, beam_size)
    ended_tokens = _pick(jnp.concatenate([search.ended_tokens, tokens], 1), best)

    # Those that go on.
    log_probs, best = lax.top_k(jnp.where(new == end_token, -jnp.inf, log_probs), beam_size)
    parents = _pick(parents, best)
    rows = (jnp.arange(batch_size)[:, None] * beam_size + parents).reshape(-1)
    return Search(
        num_tokens=num_tokens,
        tokens=_pick(tokens, best),
        log_probs=log_probs,
        ended_tokens=ended_tokens,
        ended_scores=ended_scores,
        last=_pick(new, best).reshape(-1, 1),
        caches=_of_all(lambda c, axis: jnp.take(c, rows, axis), axes, caches),
    )


def _of_all(function: Callable[[Array, int], Array], axes: Any, caches: Any) -> Any:
    """`function(array, axis of its batch)` of every array that hypotheses do not share."""

    def of_part(axis: int | None, part: Any) -> Any:
        return part if axis is None else jax.tree.map(lambda array: function(array, axis), part)

    return jax.tree.map(of_part, axes, caches, is_leaf=lambda axis: axis is None)


def _full(search: Search) -> Array:
    """Of each sequence, whether K hypotheses have ended."""
    return jnp.all(search.ended_scores > -jnp.inf, -1)


def _pick(x: Array, places: Int[Array, "B J"]) -> Array:
    """Hypotheses by number, in each sequence."""
    return jnp.take_along_axis(x, places.reshape(*places.shape, *[1] * (x.ndim - 2)), 1)

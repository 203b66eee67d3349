"""Answer spans from start and end logits, as BERT's (Devlin et al. 2019, sections 4.2 and 4.3).

    score(i, j) = S_i + E_j   for i <= j,
    no answer = S_0 + E_0     at the first token, [CLS]  (SQuAD 2.0, section 4.3),

and the answer is the best span where `max score(i, j) > no answer + τ`.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int


class SpanAnswers(NamedTuple):
    """The best spans of each text, best first.

    Where there are fewer than N, the rest score -inf, and their places mean nothing.
    """

    start: Int[Array, "B N"]  # first token
    end: Int[Array, "B N"]  # last token, itself in the span
    score: Float[Array, "B N"]
    no_answer: Float[Array, " B"]  # score of there being none

    def answered(self, threshold: float = 0.0) -> Bool[Array, " B"]:
        """Whether the best span beats no answer by more than τ, which is tuned on held-out data."""
        return self.score[:, 0] > self.no_answer + threshold


def best_spans(
    start: Float[Array, "B T"],
    end: Float[Array, "B T"],
    may_answer: Bool[Array, "B T"] | None = None,
    *,
    num_best: int = 1,
    max_length: int = 30,
) -> SpanAnswers:
    """The `num_best` likeliest spans of at most `max_length` tokens.

    Args:
        start: logits S of each token being an answer's first.
        end: logits E of each token being an answer's last.
        may_answer: the tokens that an answer may lie in, the passage's; by default all but the
            first, [CLS], which stands for no answer.
        num_best: N.
        max_length: the most tokens of a span; 30 in BERT's published evaluation.
    """
    if num_best < 1 or max_length < 1:
        raise ValueError(f"{num_best=} and {max_length=} must be at least 1")
    batch_size, num_tokens = start.shape
    # A span is its start and its length - 1, so that no more than T · max_length are looked at.
    longest = min(max_length, num_tokens)
    if num_best > num_tokens * longest:
        raise ValueError(
            f"{num_best=} spans of at most {max_length} tokens do not exist in {num_tokens} tokens"
        )
    if may_answer is None:
        may_answer = jnp.broadcast_to(jnp.arange(num_tokens) > 0, start.shape)
    starts = jnp.where(may_answer, start, -jnp.inf)
    ends = jnp.where(may_answer, end, -jnp.inf)
    ends = jnp.pad(ends, ((0, 0), (0, longest - 1)), constant_values=-jnp.inf)
    last = jnp.arange(num_tokens)[:, None] + jnp.arange(longest)  # [T, longest]
    scores = starts[:, :, None] + ends[:, last]
    score, place = lax.top_k(scores.reshape(batch_size, -1), num_best)
    first = place // longest
    return SpanAnswers(first, first + place % longest, score, start[:, 0] + end[:, 0])

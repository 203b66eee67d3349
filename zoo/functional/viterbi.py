"""Viterbi decoding: the best sequence of tags among those that are allowed (Viterbi 1967).

    δ_0(j) = s_0(j)  where a sequence may start with j,
    δ_t(j) = s_t(j) + max_i δ_{t-1}(i)  over the tags i that j may follow,

and the best sequence is read backwards from the best last tag. With the rules of `bio_rules`, every
decoded sequence is a valid BIO labelling of spans (He et al. 2017, "Deep semantic role labeling",
section 2.2).
"""

from collections.abc import Sequence

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int


def viterbi(
    scores: Float[Array, "B T K"],
    may_follow: Bool[Array, "K K"],
    may_start: Bool[Array, " K"],
    lengths: Int[Array, " B"] | None = None,
) -> tuple[Int[Array, "B T"], Float[Array, " B"]]:
    """The allowed sequence of tags with the largest sum of scores, and that sum.

    Args:
        scores: of each of K tags at each token, such as logits or log-probabilities.
        may_follow: True at [i, j] where tag j may come right after tag i.
        may_start: True at the tags that a sequence may start with.
        lengths: of each sequence, at least 1; tags after it repeat its last. None: all are T long.

    Where no sequence is allowed the sum is -inf.
    """
    num_tokens, num_tags = scores.shape[1:]
    if lengths is None:
        lengths = jnp.full(len(scores), num_tokens)
    scores = scores.astype(jnp.float32)
    first = jnp.where(may_start, scores[:, 0], -jnp.inf)
    follow = jnp.where(may_follow, 0.0, -jnp.inf)

    def forward(best, step):  # best [B, K]: δ, of sequences that end with each tag
        now, inside = step
        paths = best[:, :, None] + follow
        after = jnp.max(paths, 1) + now
        # Behind the end nothing changes, and each tag points to itself.
        came_from = jnp.where(inside[:, None], jnp.argmax(paths, 1), jnp.arange(num_tags))
        return jnp.where(inside[:, None], after, best), came_from

    inside = jnp.arange(1, num_tokens)[:, None] < lengths
    best, came_from = lax.scan(forward, first, (jnp.moveaxis(scores, 1, 0)[1:], inside))

    def backward(tag, came_from):
        before = jnp.take_along_axis(came_from, tag[:, None], 1)[:, 0]
        return before, tag

    first_tag, others = lax.scan(backward, jnp.argmax(best, 1), came_from, reverse=True)
    tags = jnp.concatenate([first_tag[None], others])
    return jnp.moveaxis(tags, 0, 1), jnp.max(best, 1)


def bio_rules(tags: Sequence[str]) -> tuple[Bool[Array, "K K"], Bool[Array, " K"]]:
    """`may_follow` and `may_start` of tags named O, B-x and I-x.

    I-x goes on with a span of x, so it may follow only B-x and I-x, and starts nothing
    (Ramshaw & Marcus 1995).

    Raises:
        ValueError: a name is none of these, or stands twice.
    """
    wrong = [tag for tag in tags if tag != "O" and (tag[:2] not in ("B-", "I-") or not tag[2:])]
    if wrong:
        raise ValueError(f"tag {wrong[0]!r} is none of O, B-x and I-x; rename it")
    if len(set(tags)) < len(tags):
        raise ValueError(f"a tag stands twice among {list(tags)}; give each its own name")
    goes_on = {tag: (f"B-{tag[2:]}", tag) for tag in tags if tag.startswith("I-")}
    may_follow = [[after not in goes_on or tag in goes_on[after] for after in tags] for tag in tags]
    return jnp.array(may_follow), jnp.array([tag not in goes_on for tag in tags])

"""Text from a model that keeps a cache: one pass over the prompts, then one token at a time."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

Step = Callable[[Int[Array, "B T"], Any], tuple[Float[Array, "B T V"], Any]]
Choose = Callable[[Float[Array, "B V"], Key[Array, ""]], Int[Array, " B"]]


def generate(
    step: Step,
    caches: Any,
    prompts: Int[Array, "B P"],
    lengths: Int[Array, " B"],
    num_tokens: int,
    choose: Choose,
    key: Key[Array, ""],
) -> Int[Array, "B num_tokens"]:
    """The tokens that follow each prompt.

    Args:
        step: `model.step`, from tokens and caches to logits and caches.
        caches: `model.empty_caches(B, n)` with n of at least `P + num_tokens`.
        prompts: padded on the right; what stands there is never seen.
        lengths: of each prompt, at least 1.
        num_tokens: how many tokens to write.
        choose: from the logits of the next token to that token.
        key: one seed for all draws.
    """
    logits, caches = step(prompts, caches)
    # What the padding wrote lies beyond each row's length: the next tokens overwrite it. A state
    # that has no length cannot be rewound, so there the prompts must all be whole.
    caches = set_lengths(caches, lengths)
    logits = jnp.take_along_axis(logits, (lengths - 1)[:, None, None], axis=1)[:, 0]

    def body(carry, key):
        logits, caches = carry
        token = choose(logits, key)
        logits, caches = step(token[:, None], caches)
        return (logits[:, 0], caches), token

    keys = jax.random.split(key, num_tokens)
    _, tokens = jax.lax.scan(body, (logits, caches), keys)
    return tokens.T


def set_lengths(caches: Any, lengths: Int[Array, " B"]) -> Any:
    """Every cache of the tree with the lengths given; a state without a length stays as it is."""

    def is_cache(node: Any) -> bool:
        return hasattr(node, "length")

    def set_length(cache: Any) -> Any:
        if not is_cache(cache):
            return cache
        length = jnp.broadcast_to(lengths, cache.length.shape).astype(cache.length.dtype)
        return dataclasses.replace(cache, length=length)

    return jax.tree.map(set_length, caches, is_leaf=is_cache)

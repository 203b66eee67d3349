"""Text from a model that keeps a cache: one pass over the prompts, then one token at a time."""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Float, Int, Key

# Of a state that has no length, `step` may also take `lengths`, of the pieces that it reads.
Step = Callable[..., tuple[Float[Array, "B T V"], Any]]  # of tokens [B, T] and caches
Choose = Callable[[Float[Array, "B V"], Key[Array, ""]], Int[Array, " B"]]


def generate(
    step: Step,
    caches: Any,
    prompts: Int[Array, "B P"],
    lengths: Int[Array, " B"] | None,
    num_tokens: int,
    choose: Choose,
    key: Key[Array, ""],
) -> Int[Array, "B num_tokens"]:
    """The tokens that follow each prompt.

    Args:
        step: `model.step`, from tokens and caches to logits and caches.
        caches: `model.empty_caches(B, n)` with n of at least `P + num_tokens`.
        prompts: padded on the right; what stands there is never seen.
        lengths: of each prompt, 1 to P; None where all are whole.
        num_tokens: how many tokens to write.
        choose: from the logits of the next token to that token.
        key: one seed for all draws.

    Raises:
        ValueError: the caches are too small, a length is not in 1 .. P, or prompts may be padded
            and the padding cannot be left out: the state has no length, and `step` takes none.
    """
    size = prompts.shape[1]
    check_fits(caches, size + num_tokens, f"prompts of {size} tokens and {num_tokens=} new ones")
    logits, caches = _read(step, caches, prompts, _unequal(lengths, size))

    def body(carry, key):
        logits, caches = carry
        token = choose(logits, key)
        logits, caches = step(token[:, None], caches)
        return (logits[:, 0], caches), token

    keys = jax.random.split(key, num_tokens)
    _, tokens = jax.lax.scan(body, (logits, caches), keys)
    return tokens.T


def _read(
    step: Step, caches: Any, prompts: Int[Array, "B P"], lengths: Int[Array, " B"] | None
) -> tuple[Float[Array, "B V"], Any]:
    """The logits after each prompt's own last token, and the caches there."""
    if lengths is None:
        logits, caches = step(prompts, caches)
        return logits[:, -1], caches
    if any(map(_has_length, _nodes(caches))):
        logits, caches = step(prompts, caches)
        # What the padding wrote lies beyond each row's length: the next tokens overwrite it.
        caches = set_lengths(caches, lengths)
    elif "lengths" in inspect.signature(step).parameters:
        logits, caches = step(prompts, caches, lengths=lengths)
    else:
        raise ValueError(
            "prompts whose lengths may differ, but the state of this model has no length to set "
            "back, so that it would read the padding; give prompts of equal lengths and "
            "lengths=None, or a step that takes lengths"
        )
    return jnp.take_along_axis(logits, (lengths - 1)[:, None, None], axis=1)[:, 0], caches


def _unequal(lengths: Int[Array, " B"] | None, num_tokens: int) -> Int[Array, " B"] | None:
    """The lengths, or None where all are known to be whole."""
    if lengths is None or num_tokens == 1:
        return None
    if isinstance(lengths, Tracer):  # known only at run time
        return lengths
    numbers = jax.device_get(lengths)
    if numbers.min() < 1 or numbers.max() > num_tokens:
        raise ValueError(
            f"lengths={numbers.tolist()} must lie in 1 .. {num_tokens}, as prompts have "
            f"{num_tokens} tokens with their padding, and text goes on from at least one"
        )
    return None if (numbers == num_tokens).all() else lengths


def check_fits(caches: Any, num_tokens: int, wanted: str) -> None:
    """Raise ValueError unless every cache has room for so many tokens in all.

    Args:
        caches: any tree; a state without a length has room for everything.
        num_tokens: those that stand there already and those to come.
        wanted: what they are, as the error names them.
    """
    for cache in filter(_has_length, _nodes(caches)):
        if num_tokens > cache.capacity:
            raise ValueError(
                f"{wanted} do not fit into a cache of {cache.capacity}; make it for {num_tokens} "
                "tokens, or ask for fewer"
            )


def set_lengths(caches: Any, lengths: Int[Array, " B"]) -> Any:
    """Every cache of the tree with the lengths given; a state without a length stays as it is."""

    def set_length(cache: Any) -> Any:
        if not _has_length(cache):
            return cache
        length = jnp.broadcast_to(lengths, cache.length.shape).astype(cache.length.dtype)
        return dataclasses.replace(cache, length=length)

    return jax.tree.map(set_length, caches, is_leaf=_has_length)


def _has_length(node: Any) -> bool:
    """Whether it is a cache whose rows have lengths, as `zoo.layers.KVCache`."""
    return hasattr(node, "length")


def _nodes(caches: Any) -> list[Any]:
    """The caches of a tree, and what else stands beside them."""
    return jax.tree.leaves(caches, is_leaf=_has_length)

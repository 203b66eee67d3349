"""The next token from its logits: greedy, by temperature, among the top k, within probability p."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

Logits = Float[Array, "*B V"]


def keep_top_k(logits: Logits, k: int) -> Logits:
    """All but the k largest become -inf (Fan et al. 2018); those equal to the k-th stay."""
    smallest = jax.lax.top_k(logits, min(k, logits.shape[-1]))[0][..., -1:]
    return jnp.where(logits >= smallest, logits, -jnp.inf)


def keep_top_p(logits: Logits, p: float) -> Logits:
    """The fewest tokens whose probability reaches p stay (Holtzman et al. 2020, eq. 2)."""
    if p == 1:  # all: rounded, the sum of many shares may reach 1 before the last
        return logits
    order = jnp.argsort(-logits, axis=-1)
    ranked = jnp.take_along_axis(logits, order, axis=-1)
    shares = jnp.exp(ranked - jnp.max(ranked, -1, keepdims=True))
    shares = shares / jnp.sum(shares, -1, keepdims=True)
    before = jnp.cumsum(shares, -1) - shares  # of all that are likelier: the first always stays
    kept = jnp.take_along_axis(before < p, jnp.argsort(order, axis=-1), axis=-1)
    return jnp.where(kept, logits, -jnp.inf)


def sample(
    logits: Logits,
    key: Key[Array, ""],
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
) -> Int[Array, "*B"]:
    """A token drawn from `softmax(logits / temperature)` after the cuts; the largest at 0."""
    if temperature < 0:
        raise ValueError(f"{temperature=} must be 0 (greedy) or more")
    if top_k is not None and top_k < 1:
        raise ValueError(f"{top_k=} must be at least 1")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"{top_p=} must lie in (0, 1]")
    if temperature == 0:
        return jnp.argmax(logits, axis=-1)
    logits = logits.astype(jnp.float32) / temperature
    if top_k is not None:
        logits = keep_top_k(logits, top_k)
    if top_p is not None:
        logits = keep_top_p(logits, top_p)
    return jax.random.categorical(key, logits, axis=-1)

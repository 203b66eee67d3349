"""Embedding: a table of vectors, looked up by number."""

from jaxtyping import Array, Float, Int


def embed(tokens: Int[Array, "*B"], table: Float[Array, "V D"]) -> Float[Array, "*B D"]:
    """`y = onehot(tokens) E`, by lookup. Tokens lie in [0, V)."""
    return table[tokens]

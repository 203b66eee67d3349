"""The embedding layer."""

from functools import partial

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from zoo.functional.embed import embed
from zoo.functional.init import Initializer, normal

small_normal = partial(normal, stddev=0.02)


class Embed(nnx.Module):
    """One learned vector for each of `num_embeddings` tokens.

    The table is N(0, 0.02²) at first, as in BERT and GPT-2. An output layer that shares it takes
    the array, `logits = x @ embed.table.T`, never the module.
    """

    def __init__(
        self,
        num_embeddings: int,
        dim: int,
        *,
        rngs: nnx.Rngs,
        table_init: Initializer = small_normal,
    ):
        table = table_init(rngs.params(), (num_embeddings, dim), jnp.float32)
        self.table = nnx.Param(table, axes=("vocab", "embed"))

    def __call__(self, tokens: Int[Array, "*B"]) -> Float[Array, "*B D"]:
        """Tokens lie in [0, num_embeddings). Models refuse others by `check_tokens`; in compiled
        code, which cannot raise, one that is too large stands for the last."""
        return embed(tokens, self.table[...])

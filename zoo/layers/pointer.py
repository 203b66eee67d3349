"""A pointer into the source: it lets a decoder copy what its vocabulary hardly knows."""

from dataclasses import replace

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from zoo.functional.attention import attention_weights
from zoo.functional.ops import Ops
from zoo.functional.pointer import pointer_mixture
from zoo.layers.linear import Linear
from zoo.layers.memory import Memory


class Pointer(nnx.Module):
    """Mixes words of the vocabulary with words of the source (See et al. 2017, eq. 8 and 9).

        k_s = h_s W_k + h_{s-1} W_p,    a = softmax((y W_q) kᵀ / √D),    g = σ(y w_g + b_g)
        p(v) = g softmax(logits)_v + (1 - g) Σ_{s: x_s = v} a_s

    Differs from the paper: the decoder's attention, which has many heads here, is not used again;
    g sees y alone, which in a Transformer has read source and last word; and a key also tells what
    stands before it (h_0 = 0), so that after a copied word the next one is easily found.
    """

    def __init__(self, dim: int, *, rngs: nnx.Rngs, ops: Ops = Ops()):
        self.query = Linear(dim, dim, use_bias=False, rngs=rngs, ops=ops)
        self.key = Linear(dim, dim, use_bias=False, rngs=rngs, ops=ops)
        self.key_before = Linear(dim, dim, use_bias=False, rngs=rngs, ops=ops)
        self.gate = Linear(dim, 1, rngs=rngs, ops=ops)

    def keys(self, memory: Memory) -> Memory:
        """k in place of the vectors h: what is computed once for a source."""
        before = jnp.pad(memory.vectors[:, :-1], ((0, 0), (1, 0), (0, 0)))
        return replace(memory, vectors=self.key(memory.vectors) + self.key_before(before))

    def __call__(
        self, y: Float[Array, "B T D"], logits: Float[Array, "B T V"], keys: Memory
    ) -> Float[Array, "B T V"]:
        """Logits of the mixture, from the decoder's outputs and their logits.

        Successive rows may share a source, as the hypotheses of a search do.
        """
        shape, num_sources = logits.shape, keys.tokens.shape[0]
        y, logits = (x.reshape(num_sources, -1, x.shape[-1]) for x in (y, logits))
        one_head = self.query(y)[:, :, None], keys.vectors[:, :, None]
        weights = attention_weights(*one_head, keys.mask())[:, 0]
        mixed = pointer_mixture(logits, self.gate(y)[..., 0], weights, keys.tokens)
        return mixed.reshape(shape)

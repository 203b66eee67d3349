"""Multi-head attention and its key/value cache."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from zoo.functional.attention import Bias, Mask, Visible
from zoo.functional.init import Initializer, glorot_uniform
from zoo.functional.ops import Ops
from zoo.layers.linear import Linear

Rotate = Callable[[Float[Array, "B T N H"]], Float[Array, "B T N H"]]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class KVCache:
    """Keys and values of the tokens seen so far; each row of the batch has its own length.

    A scan over layers stacks the caches of all along a first axis.
    """

    k: Float[Array, "*L B S K H"]
    v: Float[Array, "*L B S K H"]
    length: Int[Array, "*L B"]  # tokens already written, at positions 0 .. length-1

    @classmethod
    def empty(cls, shape: tuple[int, int, int, int], dtype=jnp.float32) -> "KVCache":
        """A cache of shape (batch, tokens, key/value heads, head width) that holds nothing yet."""
        return cls(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype), jnp.zeros(shape[0], jnp.int32))

    @property
    def capacity(self) -> int:
        """How many tokens a row has room for."""
        return self.k.shape[-3]

    def positions(self, num_tokens: int) -> Int[Array, "B T"]:
        """Where the next tokens will stand."""
        return self.length[:, None] + jnp.arange(num_tokens)

    def write(self, k: Float[Array, "B T K H"], v: Float[Array, "B T K H"]) -> "KVCache":
        """The cache with more tokens.

        What would lie beyond its end is dropped: how many tokens stand there already is known only
        at run time, so that the caller keeps within it.

        Raises:
            ValueError: there are more tokens than an empty cache has room for, or the keys are of
                another batch, number of heads or width than the cache.
        """
        if k.shape[1] > self.capacity:
            raise ValueError(
                f"{k.shape[1]} tokens do not fit into a cache of {self.capacity}; shorten the "
                "prompt, or make the cache for all tokens, prompt included"
            )
        if k.shape != (self.k.shape[0], k.shape[1], *self.k.shape[2:]):
            raise ValueError(
                f"keys of shape {k.shape} do not fit into a cache of shape {self.k.shape}; all but "
                "the number of tokens must be equal: make the cache for this batch and this model"
            )
        rows, places = jnp.arange(k.shape[0])[:, None], self.positions(k.shape[1])
        return KVCache(
            self.k.at[rows, places].set(k.astype(self.k.dtype), mode="drop"),
            self.v.at[rows, places].set(v.astype(self.v.dtype), mode="drop"),
            self.length + k.shape[1],
        )

    def mask(self, num_tokens: int) -> Visible:
        """What the last `num_tokens` written may see: themselves and all before them."""
        positions = self.length[:, None] - num_tokens + jnp.arange(num_tokens)
        return (jnp.arange(self.k.shape[1]) <= positions[..., None])[:, None]


class MultiHeadAttention(nnx.Module):
    """`concat(head_1 .. head_N) W_O`, with `head_n = attention(x W_Q, x W_K, x W_V)` on its slice.

    Vaswani et al. 2017, section 3.2.2. The three products are one, as one large product is faster
    than three. Its columns are `N / K + 2` parts of K heads: queries, of which the heads that share
    a key head are K columns of heads apart, then keys, then values.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        rngs: nnx.Rngs,
        num_kv_heads: int | None = None,
        use_bias: bool = True,
        kernel_init: Initializer = glorot_uniform,
        out_init: Initializer | None = None,
        ops: Ops = Ops(),
    ):
        num_kv_heads = num_kv_heads or num_heads
        if dim % num_heads or num_heads % num_kv_heads:
            raise ValueError(
                f"{num_heads=} must divide {dim=}, and {num_kv_heads=} must divide {num_heads=}"
            )
        self.num_heads, self.num_kv_heads = num_heads, num_kv_heads
        self.head_dim = dim // num_heads
        self.num_parts = num_heads // num_kv_heads + 2
        width = self.num_parts * num_kv_heads * self.head_dim
        self.qkv = Linear(
            dim,
            width,
            rngs=rngs,
            use_bias=use_bias,
            kernel_init=kernel_init,
            axes=("embed", "heads"),
            parts=self.num_parts,
            ops=ops,
        )
        self.out = Linear(
            dim,
            dim,
            rngs=rngs,
            use_bias=use_bias,
            kernel_init=out_init or kernel_init,
            axes=("heads", "embed"),
            ops=ops,
        )
        self.attention = ops.attention
        self.dense = ops.dense

    def __call__(
        self,
        x: Float[Array, "B T D"],
        mask: Mask | Visible | None = None,
        *,
        bias: Bias | None = None,
        rotate: Rotate | None = None,
        memory: Float[Array, "B S D"] | None = None,
    ) -> Float[Array, "B T D"]:
        """Self-attention, or cross-attention where `memory` gives what is looked at.

        Args:
            x: what asks.
            mask: rules, or an array that is True where a query may look.
            bias: added to the scores.
            rotate: applied to queries and keys, as `zoo.functional.position.rotary`.
            memory: what is looked at, `x` itself by default.
        """
        if memory is None:
            q, k, v = self._split(self.qkv(x))
        else:
            q, k, v = self.queries(x), *self.keys_and_values(memory)
        if rotate is not None:
            q, k = rotate(q), rotate(k)
        return self.attend(q, k, v, mask, bias)

    def step(
        self,
        x: Float[Array, "B T D"],
        cache: KVCache,
        *,
        bias: Bias | None = None,
        rotate: Rotate | None = None,
    ) -> tuple[Float[Array, "B T D"], KVCache]:
        """Causal self-attention of the next tokens over all in the cache and themselves."""
        q, k, v = self._split(self.qkv(x))
        if rotate is not None:
            q, k = rotate(q), rotate(k)
        cache = cache.write(k, v)
        mask = cache.mask(x.shape[1])
        return self.attend(q, cache.k.astype(x.dtype), cache.v.astype(x.dtype), mask, bias), cache

    def attend(
        self,
        q: Float[Array, "B T N H"],
        k: Float[Array, "B S K H"],
        v: Float[Array, "B S K H"],
        mask: Mask | Visible | None = None,
        bias: Bias | None = None,
    ) -> Float[Array, "B T D"]:
        """Attention in every head, then `W_O`."""
        heads = self.attention(q, k, v, mask, bias)
        return self.out(heads.reshape(*heads.shape[:2], -1))

    def queries(self, x: Float[Array, "B T D"]) -> Float[Array, "B T N H"]:
        """`x W_Q`, by head."""
        return self._queries(self._project(x, slice(None, -2)))

    def keys_and_values(
        self, memory: Float[Array, "B S D"]
    ) -> tuple[Float[Array, "B S K H"], Float[Array, "B S K H"]]:
        """`memory W_K` and `memory W_V`, by head: what a decoder computes once for a source."""
        kv = self._by_head(self._project(memory, slice(-2, None)))
        return kv[:, :, 0], kv[:, :, 1]

    def _project(self, x: Float[Array, "B T D"], parts: slice) -> Float[Array, "B T P C"]:
        """The product with some parts of the columns alone."""
        if x.shape[-1] != self.qkv.in_dim:
            raise ValueError(
                f"x has {x.shape[-1]} features, MultiHeadAttention expects {self.qkv.in_dim}, in "
                "what asks and in what is looked at"
            )
        kernel, bias = self.qkv.part(parts)
        bias = None if bias is None else bias.astype(x.dtype)
        y = self.dense(x, kernel.astype(x.dtype), bias)
        return y.reshape(*x.shape[:2], -1, self.num_kv_heads * self.head_dim)

    def _split(self, qkv: Float[Array, "B T P C"]) -> tuple[Array, Array, Array]:
        heads = self._by_head(qkv)
        return self._queries(qkv[:, :, :-2]), heads[:, :, -2], heads[:, :, -1]

    def _queries(self, parts: Float[Array, "B T G C"]) -> Float[Array, "B T N H"]:
        """Those that share a key head beside each other."""
        shape = *parts.shape[:2], self.num_heads, self.head_dim
        return self._by_head(parts).swapaxes(2, 3).reshape(shape)

    def _by_head(self, parts: Float[Array, "B T P C"]) -> Float[Array, "B T P K H"]:
        return parts.reshape(*parts.shape[:3], self.num_kv_heads, self.head_dim)

    def set_view(self, attention: Callable[..., Array] | None = None):
        """For `nnx.view`: another attention function, such as one that also shows its weights."""
        if attention is not None:
            self.attention = attention

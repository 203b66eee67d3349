"""A mixture of experts: many feed-forward networks, of which each token passes through few."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Float

from zoo.functional.activation import silu, softmax
from zoo.functional.init import Initializer, glorot_uniform
from zoo.functional.ops import Ops
from zoo.layers.linear import Linear
from zoo.layers.norm import unsynced


class Experts(nnx.Module):
    """`y = Σ_i g_i(x) E_i(x)` over the k likeliest of E experts, each a SwiGLU network.

    The router's `p = softmax(x W_g)` says how likely each expert is; g is p over the chosen k,
    made to sum to 1 (Shazeer et al. 2017, eq. 1 to 5; the softmax and the networks as in Mixtral,
    Jiang et al. 2024, section 2.1).

    The tokens are sorted by expert, and each expert takes its own in one grouped product: no token
    is dropped, and no expert computes one that did not choose it. Differs from Shazeer et al.: no
    noise on the router, and Switch's simpler loss for balance.

    A view with `sync=f` passes the pair that `imbalance` takes through `f`, so that the balance can
    be that of a batch across all devices, as with `BatchNorm`.
    """

    def __init__(
        self,
        dim: int,
        hidden_dim: int,
        *,
        num_experts: int,
        experts_per_token: int,
        rngs: nnx.Rngs,
        kernel_init: Initializer = glorot_uniform,
        out_init: Initializer | None = None,
        ops: Ops = Ops(),
    ):
        if not 1 <= experts_per_token <= num_experts:
            raise ValueError(f"{experts_per_token=} must lie in 1 .. {num_experts=}")

        def draw(init: Initializer, axes: tuple[str, str], *shape: int) -> nnx.Param:
            keys = jax.random.split(rngs.params(), num_experts)  # each expert by itself
            values = jax.vmap(lambda key: init(key, shape, jnp.float32))(keys)
            return nnx.Param(values, axes=("experts", *axes))

        self.router = Linear(
            dim, num_experts, rngs=rngs, use_bias=False, kernel_init=kernel_init, ops=ops
        )
        self.up = draw(kernel_init, ("embed", "mlp"), dim, 2 * hidden_dim)
        self.down = draw(out_init or kernel_init, ("mlp", "embed"), hidden_dim, dim)
        self.hidden_dim = hidden_dim
        self.num_experts = num_experts
        self.experts_per_token = experts_per_token
        self.sync = unsynced

    def __call__(self, x: Float[Array, "B T D"]) -> tuple[Float[Array, "B T D"], Float[Array, ""]]:
        """What the chosen experts make of each token, and `imbalance` of these choices."""
        tokens = x.reshape(-1, x.shape[-1])
        # In float32: a bfloat16 softmax would choose other experts.
        probabilities = softmax(self.router(tokens).astype(jnp.float32))
        gates, chosen = lax.top_k(probabilities, self.experts_per_token)
        gates = gates / jnp.sum(gates, -1, keepdims=True)
        counts = jnp.zeros(self.num_experts, jnp.int32).at[chosen.reshape(-1)].add(1)

        order = jnp.argsort(chosen.reshape(-1))  # of all choices, by expert
        rows = order // self.experts_per_token  # whose choice each is
        up = lax.ragged_dot(tokens[rows], self.up.astype(x.dtype), counts)
        hidden = silu(up[:, : self.hidden_dim]) * up[:, self.hidden_dim :]
        down = lax.ragged_dot(hidden, self.down.astype(x.dtype), counts)
        weighted = down * gates.reshape(-1)[order][:, None].astype(x.dtype)
        y = jnp.zeros_like(tokens).at[rows].add(weighted)
        shares, means = self.sync((counts / len(tokens), jnp.mean(probabilities, 0)))
        return y.reshape(x.shape), imbalance(shares, means)

    def set_view(self, sync: Callable[[Any], Any] | None = None):
        """For `nnx.view`: average across devices what the balance is measured by."""
        if sync is not None:
            self.sync = sync


def imbalance(shares: Float[Array, " E"], means: Float[Array, " E"]) -> Float[Array, ""]:
    """`E Σ_i f_i P_i` (Fedus et al. 2022, "Switch Transformers", eq. 4 to 6, without its α).

    f_i is the share of the tokens that chose expert i, and P_i its mean probability over all of
    them: k where k experts a token are chosen evenly, and more where some are preferred. Only P has
    a gradient.
    """
    return len(shares) * jnp.dot(shares, means)

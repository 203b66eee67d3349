"""Values and gradients of a module, in a form in which two modules can be compared."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array


class Result(NamedTuple):
    """What a module computes from an input, and how a fixed weighting of that depends on all."""

    output: Array
    input_gradient: Array
    gradients: dict[str, Array]  # of each parameter, by dotted path
    statistics: dict[str, Array]  # every other array after the call, by dotted path


def random(*shape: int, seed: int = 0) -> Array:
    """Standard normal float32 numbers."""
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape, np.float32))


def weighting(shape: tuple[int, ...]) -> np.ndarray:
    """A fixed cotangent: what multiplies the output to make a number whose gradient is taken."""
    return np.cos(np.arange(np.prod(shape), dtype=np.float32)).reshape(shape)


def run(module: nnx.Module, x: Array, **call: Any) -> Result:
    """The module's output, gradients and statistics; the module itself stays as it is."""
    graphdef, params, rest = nnx.split(module, nnx.Param, ...)

    @jax.jit
    def forward_and_backward(params, rest, x):
        def forward(params, x):
            own = jax.tree.map(lambda leaf: leaf, rest)  # variables that this trace may change
            live = nnx.merge(graphdef, params, own)
            y = live(x, **call)
            return y, nnx.split(live, nnx.Param, ...)[2]

        y, backward, rest = jax.vjp(forward, params, x, has_aux=True)
        return y, *backward(weighting(y.shape).astype(y.dtype)), rest

    y, param_grads, x_grad, rest = forward_and_backward(params, rest, x)
    return Result(y, x_grad, by_path(param_grads), by_path(rest))


def by_path(state: Any) -> dict[str, Array]:
    """A state as a dict from dotted path to array."""
    return {
        ".".join(map(str, path)): variable[...]
        for path, variable in nnx.to_flat_state(state)
        if not jax.dtypes.issubdtype(variable.dtype, jax.dtypes.prng_key)
    }


def randomize(module: nnx.Module, seed: int = 0) -> None:
    """Give every parameter and statistic a random value, variances positive ones."""
    generator = np.random.default_rng(seed)
    state = nnx.state(module)
    for path, variable in nnx.to_flat_state(state):
        noise = jnp.asarray(0.3 * generator.standard_normal(variable.shape, np.float32))
        positive = path[-1] in ("scale", "var", "std")
        variable.set_value(1 + jnp.abs(noise) if positive else noise)
    nnx.update(module, state)

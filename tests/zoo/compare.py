"""Values and gradients of a module, in a form in which two modules can be compared."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

import zoo

Module = TypeVar("Module", bound=nnx.Module)


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


def run(module: nnx.Module, x: Array) -> Result:
    """The module's output, gradients and statistics; the module itself stays as it is."""
    graphdef, params, rest = nnx.split(module, nnx.Param, ...)
    y, param_grads, x_grad, rest = _forward_and_backward(graphdef, params, rest, x)
    return Result(y, x_grad, by_path(param_grads), by_path(rest))


@partial(jax.jit, static_argnums=0)  # compiled once for all modules of equal structure
def _forward_and_backward(graphdef, params, rest, x):
    def forward(params, x):
        own = jax.tree.map(lambda leaf: leaf, rest)  # variables that this trace may change
        live = nnx.merge(graphdef, params, own)
        y = live(x)
        return y, nnx.split(live, nnx.Param, ...)[2]

    y, backward, rest = jax.vjp(forward, params, x, has_aux=True)
    return y, *backward(weighting(y.shape).astype(y.dtype)), rest


def run_on_tokens(module: nnx.Module, *inputs: Any) -> tuple[Array, dict[str, Array]]:
    """The output for inputs that have no gradient, and the gradient of each parameter."""
    graphdef, params, rest = nnx.split(module, nnx.Param, ...)

    @jax.jit
    def forward_and_backward(params, *inputs):
        y, backward = jax.vjp(lambda p: nnx.merge(graphdef, p, rest)(*inputs), params)
        return y, *backward(weighting(y.shape).astype(y.dtype))

    y, gradients = forward_and_backward(params, *inputs)
    return y, by_path(gradients)


def output_shape(module: nnx.Module, *shape: int) -> tuple[int, ...]:
    """The shape of the module's output for a float32 input of a shape; nothing is computed."""
    x = jax.ShapeDtypeStruct(shape, jnp.float32)
    return nnx.eval_shape(lambda module, x: module(x), module, x).shape


def count_parameters(model: nnx.Module) -> int:
    """How many numbers a model learns, which may be an abstract one."""
    return sum(p.size for p in jax.tree.leaves(nnx.state(model, nnx.Param)))


def preset_size(name: str) -> int:
    """How many numbers a preset of repeated blocks learns.

    Two depths tell a block's size, as building all blocks would take long even abstractly.
    """

    def size(num_layers: int) -> int:
        def build():
            return zoo.create(name, rngs=nnx.Rngs(0), num_layers=num_layers, scan=False)

        return count_parameters(nnx.eval_shape(build))

    return size(1) + (zoo.config(name).num_layers - 1) * (size(2) - size(1))


def by_path(state: Any) -> dict[str, Array]:
    """A state as a dict from dotted path to array."""
    return {
        ".".join(map(str, path)): variable[...]
        for path, variable in nnx.to_flat_state(state)
        if not jnp.issubdtype(variable.dtype, jax.dtypes.prng_key)
    }


def randomized(build: Callable[[], Module], seed: int = 0) -> Module:
    """The module that `build()` makes, every parameter and statistic a random number.

    It is built abstractly and filled by NumPy, since compiling JAX's generators for each shape
    would take most of the time of the tests. Scales and variances are positive.
    """
    module = nnx.eval_shape(build)
    generator = np.random.default_rng(seed)
    state = nnx.state(module)
    for path, variable in nnx.to_flat_state(state):
        noise = jnp.asarray(0.3 * generator.standard_normal(variable.shape, np.float32))
        positive = path[-1] in ("scale", "var", "std")
        variable.set_value(1 + jnp.abs(noise) if positive else noise)
    nnx.update(module, state)
    return module

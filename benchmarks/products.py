"""The matrix products of a program and nothing else: its time cannot fall below theirs.

They are found in what JAX traced of the program, and computed by the same compiler as often as
there, on operands that stay in the cache and without anything that moves or changes them.
"""

from collections import Counter
from typing import Any

import numpy as np

from benchmarks.entry import Competitor

ALONE = "its products"


class Products:
    """A runner that computes them and has no value of a unit to give.

    Args:
      jaxpr: of one unit of the program; its products are of float32 arrays.
    """

    def __init__(self, jaxpr: Any):
        import jax
        import jax.numpy as jnp

        import kernels
        from train import flops

        kernels.keep_freed_memory()  # as every run does
        alike, times = {}, Counter()
        for equation, repeated in flops.products(jaxpr):
            name = f"{[str(variable.aval) for variable in equation.invars]} {equation.params}"
            alike[name] = equation
            times[name] += repeated
        self.equations = [(equation, times[name]) for name, equation in alike.items()]

        rng = np.random.default_rng(0)
        self.operands = [
            [
                jnp.asarray(rng.standard_normal(variable.aval.shape, np.float32))
                for variable in equation.invars
            ]
            for equation, _ in self.equations
        ]
        lowered = jax.jit(self._all).lower(self.operands)
        self.work = lowered.compile(compiler_options=kernels.compiler_options())

    def _all(self, operands: list[list[Any]]) -> Any:
        import jax.numpy as jnp

        before = jnp.zeros(())
        for (equation, times), pair in zip(self.equations, operands, strict=True):
            before = _repeated(equation, times, pair, before)
        return before

    def advance(self) -> list[float]:
        """All of them once."""
        import jax

        jax.block_until_ready(self.work(self.operands))
        return [0.0]


def _repeated(equation: Any, times: int, pair: list[Any], before: Any) -> Any:
    """One number of the last of so many products, each of which waits for the one before it."""
    from jax import lax

    left, right = pair
    first = (0,) * left.ndim

    def product(_, carry):
        left, before = carry
        left = left.at[first].set(1 / (1 + before**2))  # or equal ones would be computed once
        y = equation.primitive.bind(left, right, **equation.params)
        return left, y[(0,) * y.ndim]

    return lax.fori_loop(0, times, product, (left, before))[1]


def competitor(traced: Any) -> Competitor:
    """Of an entry: the products of what `traced(arrays)`, a jaxpr, computes."""
    return Competitor(
        build=lambda arrays: Products(traced(arrays)),
        what="nothing else, by the same compiler",
        part=True,
    )

"""The products of a program alone: all of them, as often as there, and in loops that compute."""

import re

import jax
import jax.numpy as jnp
from jax import lax

from benchmarks.products import Products
from train import flops

TRIPS, ROWS, DIM, OUT = 7, 8, 16, 24


def program(x, w, out):
    """`TRIPS` products in a loop, one after it, and much that is no product."""
    last, _ = lax.scan(lambda h, _: (jnp.tanh(h @ w), None), x, length=TRIPS)
    return jnp.sort(jnp.exp(last @ out), axis=-1)


def test_all_products_and_nothing_else():
    shapes = (ROWS, DIM), (DIM, DIM), (DIM, OUT)
    jaxpr = jax.make_jaxpr(program)(*map(jnp.ones, shapes))
    alone = Products(jaxpr)

    found = {equation.outvars[0].aval.shape: times for equation, times in alone.equations}
    assert found == {(ROWS, DIM): TRIPS, (ROWS, OUT): 1}
    assert flops.count(jax.make_jaxpr(alone._all)(alone.operands)) == flops.count(jaxpr)
    assert flops.count(jaxpr) == 2 * ROWS * DIM * (TRIPS * DIM + OUT)
    assert len(alone.advance()) == 1


def test_each_is_computed_in_each_trip():
    """XLA must find no product that is the same in all trips, nor a part that nobody needs."""

    def repeated(x):
        return lax.fori_loop(0, 64, lambda _, h: jnp.tanh(h @ x), x)

    text = Products(jax.make_jaxpr(repeated)(jnp.ones((256, 256)))).work.as_text()
    assert text
    (loop,) = [line for line in text.splitlines() if " while(" in line]
    assert '"known_trip_count":{"n":"64"}' in loop
    (body,) = re.findall(r"body=%?([\w.]+)", loop)
    (inside,) = re.findall(rf"^%?{re.escape(body)} .*?^}}", text, re.M | re.S)
    called = re.findall(r"calls=%?([\w.]+)", inside)
    computed = [
        inside,
        *re.findall(rf"^%?(?:{'|'.join(map(re.escape, called))}) .*?^}}", text, re.M | re.S),
    ]
    assert any("f32[256,256]{1,0} dot(" in part for part in computed)

"""Larger and smaller maps without any parameter, channels last."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def upsample(x: Float[Array, "B I J C"], times: int = 2) -> Float[Array, "B I2 J2 C"]:
    """`y[i, j] = x[i // times, j // times]`: each pixel becomes a square of equal ones."""
    return jnp.repeat(jnp.repeat(x, times, axis=1), times, axis=2)


def space_to_depth(x: Float[Array, "B I J C"], side: int) -> Float[Array, "B I2 J2 D"]:
    """Squares of `side` x `side` pixels become one pixel of `side² · C` channels.

    Row by row within a square, the channels of a pixel together.
    """
    num, height, width, channels = x.shape
    if height % side or width % side:
        raise ValueError(f"{height} x {width} pixels cannot be cut in squares of {side} x {side}")
    x = x.reshape(num, height // side, side, width // side, side, channels)
    return x.swapaxes(2, 3).reshape(num, height // side, width // side, side * side * channels)


def depth_to_space(x: Float[Array, "B I J D"], side: int) -> Float[Array, "B I2 J2 C"]:
    """The inverse of `space_to_depth` (Shi et al. 2016, "pixel shuffle")."""
    num, height, width, depth = x.shape
    if depth % side**2:
        raise ValueError(f"{depth} channels are no squares of {side} x {side} pixels")
    channels = depth // side**2
    x = x.reshape(num, height, width, side, side, channels).swapaxes(2, 3)
    return x.reshape(num, height * side, width * side, channels)

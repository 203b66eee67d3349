"""Positions, which attention by itself does not see: added, rotated in, or as a bias."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Num


def sinusoidal(num_positions: int, dim: int) -> Float[Array, "T D"]:
    """`PE(t, 2i) = sin(t / 10000^(2i/D))`, and cos at 2i+1 (Vaswani et al. 2017, section 3.5)."""
    return sinusoids(jnp.arange(num_positions), dim)


def sinusoids(positions: Num[Array, " T"], dim: int) -> Float[Array, "T D"]:
    """The same at any positions, such as the times of a diffusion model."""
    if dim % 2:
        raise ValueError(f"{dim=} must be even: sines and cosines come in pairs")
    angles = positions[:, None] * _frequencies(dim, 10000.0)
    return jnp.stack([jnp.sin(angles), jnp.cos(angles)], -1).reshape(len(positions), dim)


def rotary(
    x: Float[Array, "B T N H"],
    positions: Int[Array, "#B T"],
    *,
    base: float = 10000.0,
    interleaved: bool = False,
) -> Float[Array, "B T N H"]:
    """Turns pair i of each head by the angle `t · base^(-2i/H)` (Su et al. 2021, eq. 34).

    The product of a rotated query and a rotated key depends on the distance of their positions.
    The angles are float32, as a bfloat16 position is exact only up to 256.

    Args:
        x: queries or keys.
        positions: t of each token.
        base: larger turns the last pairs more slowly, for longer contexts.
        interleaved: pair i is (2i, 2i+1), as in the paper; else (i, i + H/2), as in Llama.
    """
    if x.shape[-1] % 2:
        raise ValueError(f"a head is {x.shape[-1]} wide; rotation turns pairs, so it must be even")
    angles = positions[..., None] * _frequencies(x.shape[-1], base)  # [B, T, H/2]
    cos, sin = jnp.cos(angles)[:, :, None, :], jnp.sin(angles)[:, :, None, :]
    if interleaved:
        a, b = x[..., ::2], x[..., 1::2]
    else:
        a, b = jnp.split(x, 2, axis=-1)
    turned = a * cos - b * sin, a * sin + b * cos
    y = jnp.stack(turned, -1).reshape(x.shape) if interleaved else jnp.concatenate(turned, -1)
    return y.astype(x.dtype)


def alibi(
    num_heads: int, num_keys: int, positions: Int[Array, "#B T"] | None = None
) -> Float[Array, "#B N T S"]:
    """`-m · (t - s)`: a penalty on distance, steeper for each earlier head (Press et al. 2022).

    The slopes m are `2^(-8n/N)` for n = 1 .. N, where N is a power of two. Else they are those of
    the power of two below N, then every second one of the power above, as in the authors' program.
    It is meant for causal attention; keys after the query are left at 0, for the mask to hide.

    Args:
        num_heads: N.
        num_keys: S; key s stands at position s, as in a cache.
        positions: t of each query; 0 .. S-1 by default.
    """
    queries = jnp.arange(num_keys)[None] if positions is None else positions
    distance = jnp.maximum(queries[..., None] - jnp.arange(num_keys), 0)  # [B, T, S]
    return -_slopes(num_heads)[:, None, None] * distance[:, None]


def _slopes(num_heads: int) -> Float[Array, " N"]:
    power = 2 ** (num_heads.bit_length() - 1)
    exponents = [n / power for n in range(1, power + 1)]
    exponents += [n / (2 * power) for n in range(1, 2 * power, 2)][: num_heads - power]
    return 2.0 ** (-8 * jnp.array(exponents))


def _frequencies(dim: int, base: float) -> Float[Array, " half"]:
    return base ** (-jnp.arange(0, dim, 2, dtype=jnp.float32) / dim)

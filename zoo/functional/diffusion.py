"""From noise to data and back: the process of DDPM, the straight line of flow matching.

Both mix an image x₀ with noise ε ~ N(0, I) and learn to tell one from the other:

    DDPM            x_t = √ᾱ_t x₀ + √(1-ᾱ_t) ε     a network predicts ε         (Ho et al. 2020)
    flow matching   x_t = (1-t) ε + t x₀           a network predicts x₀ - ε    (Lipman et al. 2023)

For DDPM t runs from 0 (the image) to T (noise); for flow matching from 0 (noise) to 1 (the image).
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

Images = Float[Array, "B *I"]
Rows = Float[Array, " B"]


def cosine_schedule(
    num_steps: int, *, offset: float = 0.008, largest_beta: float = 0.999
) -> Float[np.ndarray, " levels"]:
    """ᾱ_0 .. ᾱ_T, with `ᾱ_t = f(t) / f(0)` and `f(t) = cos²((t/T + s) / (1 + s) · π/2)`.

    Nichol & Dhariwal 2021, eq. 17. No step forgets more than β = 0.999 of the variance, without
    which the last would forget all.
    """
    way = np.arange(num_steps + 1) / num_steps
    f = np.cos((way + offset) / (1 + offset) * math.pi / 2) ** 2
    kept = np.maximum(f[1:] / f[:-1], 1 - largest_beta)
    return np.concatenate([[1.0], np.cumprod(kept)]).astype(np.float32)


def diffuse(image: Images, noise: Images, alpha_bar: Rows) -> Images:
    """`x_t = √ᾱ_t x₀ + √(1-ᾱ_t) ε` (Ho et al. 2020, eq. 4)."""
    alpha_bar = _beside(alpha_bar, image)
    return jnp.sqrt(alpha_bar) * image + jnp.sqrt(1 - alpha_bar) * noise


def denoise(x: Images, noise: Images, alpha_bar: Rows) -> Images:
    """`x₀ = (x_t - √(1-ᾱ_t) ε) / √ᾱ_t`: what the image was, if ε was the noise (eq. 15)."""
    alpha_bar = _beside(alpha_bar, x)
    return (x - jnp.sqrt(1 - alpha_bar) * noise) / jnp.sqrt(alpha_bar)


def posterior(
    image: Images, x: Images, alpha_bar: Rows, alpha_bar_before: Rows
) -> tuple[Images, Float[Array, "B ..."]]:
    """Mean and variance of `q(x_s | x_t, x₀)` for s < t (Ho et al. 2020, eq. 6 and 7).

        mean = √ᾱ_s (1-α) / (1-ᾱ_t) · x₀ + √α (1-ᾱ_s) / (1-ᾱ_t) · x_t
        variance = (1-ᾱ_s) / (1-ᾱ_t) · (1-α),     α = ᾱ_t / ᾱ_s

    The paper has s = t-1; a longer step is the same product of steps.

    Args:
        image: x₀.
        x: x_t.
        alpha_bar: ᾱ_t.
        alpha_bar_before: ᾱ_s.
    """
    now, before = _beside(alpha_bar, x), _beside(alpha_bar_before, x)
    alpha = now / before
    mean = jnp.sqrt(before) * (1 - alpha) * image + jnp.sqrt(alpha) * (1 - before) * x
    return mean / (1 - now), (1 - before) / (1 - now) * (1 - alpha)


def interpolate(image: Images, noise: Images, t: Rows) -> Images:
    """`x_t = (1-t) ε + t x₀` (Lipman et al. 2023, eq. 22 with σ = 0; Liu et al. 2023)."""
    t = _beside(t, image)
    return (1 - t) * noise + t * image


def guide(conditional: Images, unconditional: Images, scale: float) -> Images:
    """Classifier-free guidance, `u + w (c - u)`: beyond what the class says where w > 1.

    Ho & Salimans 2022, eq. 6, whose w is one less.
    """
    return unconditional + scale * (conditional - unconditional)


def euler(velocity: Callable[[Images, Rows], Images], x: Images, num_steps: int) -> Images:
    """From t = 0 to 1 along `dx/dt = v(x, t)`, by `x ← x + v(x, t)/N`."""

    def step(x: Array, t: Array) -> tuple[Array, None]:
        return x + velocity(x, jnp.full(len(x), t)) / num_steps, None

    return jax.lax.scan(step, x, jnp.arange(num_steps) / num_steps)[0]


def heun(velocity: Callable[[Images, Rows], Images], x: Images, num_steps: int) -> Images:
    """The same by `x ← x + (v(x, t) + v(x̂, t+1/N)) / 2N` with Euler's step x̂: two looks a step."""

    def step(x: Array, t: Array) -> tuple[Array, None]:
        before = velocity(x, jnp.full(len(x), t))
        after = velocity(x + before / num_steps, jnp.full(len(x), t + 1 / num_steps))
        return x + (before + after) / (2 * num_steps), None

    return jax.lax.scan(step, x, jnp.arange(num_steps) / num_steps)[0]


def _beside(rows: Rows, images: Images) -> Float[Array, "B ..."]:
    """Numbers of rows as they multiply images."""
    return rows.astype(images.dtype).reshape(-1, *[1] * (images.ndim - 1))

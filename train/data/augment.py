"""Augmentation on the device: pure functions of a key, compiled into the training step.

Each example gets its own shift, crop, flip and hole; mixup mixes the batch with a permutation of
itself. Random numbers come from one key a step, one split of it an operation, so an operation that
is switched on never changes what the others draw.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, UInt8

from train.data.config import AugmentConfig

# I rows and J columns of pixels: equal in most sets, and nothing here needs them to be.
Images = Float[Array, "B I J C"] | UInt8[Array, "B I J C"]
Probabilities = Float[Array, "B V"]


def augment(
    config: AugmentConfig, key: PRNGKeyArray, images: Images, targets: Probabilities
) -> tuple[Images, Probabilities]:
    """Applies what ``config`` switches on, in the order of its fields.

    Args:
        config: static under ``jit``.
        key: a fresh key each step.
        images: float [B, I, J, C] or uint8; the dtype stays, except that mixup makes float32.
        targets: class probabilities [B, V] (one-hot labels).

    Raises:
        ValueError: when a shift, padding or square does not fit into the image.
    """
    check_sizes(config, images.shape[1], images.shape[2])
    keys = jax.random.split(key, 5)
    if config.shift:
        images = random_shift(keys[0], images, config.shift)
    if config.crop_padding:
        images = pad_and_crop(keys[1], images, config.crop_padding)
    if config.flip:
        images = horizontal_flip(keys[2], images)
    if config.cutout:
        images = cutout(keys[3], images, config.cutout)
    if config.mixup:
        images, targets = mixup(keys[4], images, targets, config.mixup)
    return images, targets


def random_shift(key: PRNGKeyArray, images: Images, largest: int) -> Images:
    """Translates each image by (dy, dx), both uniform on -largest .. largest.

    ``y[i, j] = x[i - dy, j - dx]``, 0 where that lies outside (LeCun et al. 1998, "Gradient-based
    learning applied to document recognition", sec. III, distorts digits so).
    """
    offsets = _offsets(key, len(images), largest)
    return _windows(images, largest, offsets, "constant")


def pad_and_crop(key: PRNGKeyArray, images: Images, padding: int) -> Images:
    """Pads each side by mirroring (the edge pixel not repeated) and crops a window of the old size.

    The window's corner is uniform on 0 .. 2*padding along both axes (He et al. 2015, "Deep
    residual learning for image recognition", sec. 4.2, who pad by 4 with zeros; a mirrored border
    adds no edge that the photo does not have).
    """
    return _windows(images, padding, _offsets(key, len(images), padding), "reflect")


def horizontal_flip(key: PRNGKeyArray, images: Images) -> Images:
    """Mirrors each image left to right with probability 1/2: ``y[i, j] = x[i, J - 1 - j]``."""
    chosen: Bool[Array, " B"] = jax.random.bernoulli(key, 0.5, (len(images),))
    return jnp.where(chosen[:, None, None, None], images[:, :, ::-1], images)


def cutout(key: PRNGKeyArray, images: Images, side: int) -> Images:
    """Sets a square of each image to 0 (DeVries & Taylor 2017, "Improved regularization of CNNs").

    The square covers rows ``cy - side//2 .. cy - side//2 + side - 1`` and columns likewise; its
    centre is uniform over the pixels, so near the border a part of it falls outside, as published.
    """
    count, height, width, _ = images.shape
    row_key, column_key = jax.random.split(key)
    rows = _covered(jax.random.randint(row_key, (count,), 0, height), height, side)
    columns = _covered(jax.random.randint(column_key, (count,), 0, width), width, side)
    hole = rows[:, :, None] & columns[:, None, :]
    return jnp.where(hole[..., None], jnp.zeros((), images.dtype), images)


def mixup(
    key: PRNGKeyArray, images: Images, targets: Probabilities, alpha: float
) -> tuple[Float[Array, "B I J C"], Probabilities]:
    """Mixes the batch with a permutation of itself (Zhang et al. 2018, "mixup", eq. 1).

    ``x = lam x_i + (1 - lam) x_p(i)`` and ``y = lam y_i + (1 - lam) y_p(i)`` with one
    ``lam ~ Beta(alpha, alpha)`` and one permutation p a batch, as the authors' code has it.
    """
    lam_key, order_key = jax.random.split(key)
    lam = symmetric_beta(lam_key, alpha)
    partner = jax.random.permutation(order_key, len(images))
    images = images.astype(jnp.float32)
    mixed = lam * images + (1 - lam) * images[partner]
    return mixed, (lam * targets + (1 - lam) * targets[partner]).astype(targets.dtype)


def symmetric_beta(key: PRNGKeyArray, alpha: float) -> Float[Array, ""]:
    """One draw of Beta(alpha, alpha), exact for every alpha > 0.

    ``jax.random.beta`` rejects in a loop that takes XLA seconds to compile; this takes two uniform
    numbers. With ``w = U^(1/alpha)`` and ``c = cos(2 pi V)``, ``T^2 = 2 alpha c^2 (1 - w) / w`` is
    the square of a t variate with 2 alpha degrees of freedom (Bailey 1994, "Polar generation of
    random variates with the t-distribution"), and ``(1 + T / sqrt(2 alpha + T^2)) / 2`` is
    Beta(alpha, alpha).
    """
    u, v = jax.random.uniform(key, (2,), minval=jnp.finfo(jnp.float32).tiny)
    log_w, c = jnp.log(u) / alpha, jnp.cos(2 * jnp.pi * v)
    spread = -jnp.expm1(log_w) * c**2  # 1 - w without cancellation where w is near 1
    return (1 + jnp.sign(c) * jnp.sqrt(spread / (jnp.exp(log_w) + spread))) / 2


def _offsets(key: PRNGKeyArray, count: int, largest: int) -> Int[Array, "B 2"]:
    return jax.random.randint(key, (count, 2), -largest, largest + 1)


def _windows(images: Images, padding: int, offsets: Int[Array, "B 2"], mode: str) -> Images:
    """The old-size window of each padded image, moved by minus its offset from the centre."""
    _, height, width, channels = images.shape
    padded = jnp.pad(images, ((0, 0), (padding, padding), (padding, padding), (0, 0)), mode=mode)

    def window(image: Array, offset: Array) -> Array:
        start = (padding - offset[0], padding - offset[1], 0)
        return jax.lax.dynamic_slice(image, start, (height, width, channels))

    return jax.vmap(window)(padded, offsets)


def _covered(centres: Int[Array, " B"], size: int, side: int) -> Bool[Array, "B size"]:
    distance = jnp.arange(size)[None, :] - (centres[:, None] - side // 2)
    return (distance >= 0) & (distance < side)


def check_sizes(config: AugmentConfig, height: int, width: int) -> None:
    """Raises ValueError unless every distance of ``config`` fits into such an image."""
    shorter = min(height, width)
    for name in ("shift", "crop_padding", "cutout"):
        if getattr(config, name) >= shorter:
            raise ValueError(
                f"augmentation {name}={getattr(config, name)} must be smaller than the image's "
                f"shorter side, {shorter}"
            )

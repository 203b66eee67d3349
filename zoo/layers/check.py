"""Checks at a model's front door, so that a wrong input or setting is named in one line."""

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array


def check_input(owner: object, x: Array, **axes: int) -> None:
    """Raise unless `x` is a floating-point batch with the named axes after the first, in order.

        check_input(self, images, height=28, width=28, channels=1)

    Raises:
        TypeError: `x` holds no floating-point numbers.
        ValueError: an axis is missing, or its size is wrong; size 0 in `axes` stands for any.
    """
    model = type(owner).__name__
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(
            f"{model} wants floating-point inputs, got {x.dtype}; put zoo.layers.Standardize in "
            "front of it, or convert the inputs to float32"
        )
    wants = ", ".join(f"{name}={size}" if size else name for name, size in axes.items())
    if x.ndim != 1 + len(axes):
        raise ValueError(
            f"{model} wants inputs [batch, {wants}], {1 + len(axes)} axes; got {x.ndim} axes, "
            f"shape {x.shape}"
        )
    for axis, (name, size) in enumerate(axes.items(), start=1):
        if size and x.shape[axis] != size:
            raise ValueError(
                f"{model} wants inputs [batch, {wants}]; axis {axis} ({name}) is {x.shape[axis]} "
                f"instead of {size}, shape {x.shape}; build the model for this shape with "
                f"{model}Config.for_data"
            )


def named_axes(shape: tuple[int, ...]) -> dict[str, int]:
    """The axes of one example, named for `check_input`."""
    if len(shape) == 3:
        return dict(zip(("height", "width", "channels"), shape, strict=True))
    return {f"feature axis {axis}": size for axis, size in enumerate(shape, start=1)}


def check_tokens(owner: object, tokens: Array, vocab_size: int, context: int | None = None) -> None:
    """Raise unless `tokens` is a batch of numbers in [0, vocab_size), no longer than the context.

    Which numbers they are is seen only outside of compiled code, which cannot raise: inside it they
    are not known, and the check costs nothing.

    Raises:
        TypeError: `tokens` holds no integers.
        ValueError: it is not [batch, tokens], has more tokens than the context, or holds one that
            the vocabulary has not.
    """
    model = type(owner).__name__
    if not jnp.issubdtype(tokens.dtype, jnp.integer):
        raise TypeError(
            f"{model} wants token numbers, integers; got {tokens.dtype}: encode the text first"
        )
    if tokens.ndim != 2:
        raise ValueError(
            f"{model} wants tokens [batch, tokens], 2 axes; got {tokens.ndim}, shape {tokens.shape}"
        )
    if context is not None and tokens.shape[1] > context:
        raise ValueError(
            f"{model} has a context of {context} tokens, got {tokens.shape[1]}, shape "
            f"{tokens.shape}; shorten the text, or build the model with a larger context"
        )
    if isinstance(tokens, Tracer) or not getattr(tokens, "is_fully_addressable", True):
        return
    numbers = jax.device_get(tokens)  # in NumPy, as a trace around this call would record JAX's
    outside = numbers[(numbers < 0) | (numbers >= vocab_size)]
    if outside.size:
        raise ValueError(
            f"{model} has a vocabulary of {vocab_size}, tokens 0 to {vocab_size - 1}; got token "
            f"{outside[0]}: the tokenizer does not fit; encode the text with the one that the "
            "model was trained with, or build the model with the tokenizer's vocab_size"
        )


def check_room(owner: object, num_tokens: int, context: int) -> None:
    """Raise ValueError when a cache would hold more tokens than the context."""
    if num_tokens > context:
        raise ValueError(
            f"{num_tokens=} is more than the context of {context} that this "
            f"{type(owner).__name__} is made for; shorten the prompt or ask for fewer new tokens"
        )


def check_source_lengths(lengths: Array | None, num_sources: int) -> None:
    """Raise ValueError unless every source has its length; None stands for whole sources."""
    if lengths is not None and lengths.shape != (num_sources,):
        raise ValueError(
            f"source_lengths has shape {lengths.shape}, {num_sources} sources want ({num_sources},)"
        )


def check_pairs(num_targets: int, num_sources: int) -> None:
    """Raise ValueError unless there are as many targets as encoded sources."""
    if num_targets != num_sources:
        raise ValueError(
            f"{num_targets} targets for {num_sources} sources; repeat the sources so that each "
            "target has its own"
        )


def check_data_shape(owner: object, input_shape: tuple[int, ...], num_axes: int, axes: str) -> None:
    """Raise ValueError unless one example has so many axes."""
    if len(input_shape) != num_axes:
        raise ValueError(
            f"{type(owner).__name__} is for examples of shape ({axes}), "
            f"the data's are of shape {input_shape}"
        )


def check_positive(**sizes: int | tuple[int, ...]) -> None:
    """Raise ValueError unless every size, and every entry of a tuple of sizes, is at least 1."""
    for name, size in sizes.items():
        if min(size if isinstance(size, tuple) else (size,), default=1) < 1:
            raise ValueError(f"{name}={size} must be at least 1")


def check_rate(**rates: float) -> None:
    """Raise ValueError unless every rate lies in [0, 1)."""
    for name, rate in rates.items():
        if not 0 <= rate < 1:
            raise ValueError(f"{name}={rate} must lie in [0, 1)")


def check_choice(value: str, choices: tuple[str, ...], name: str) -> None:
    """Raise ValueError unless the value is one of the choices."""
    if value not in choices:
        raise ValueError(f"{name}={value!r} must be one of {', '.join(choices)}")

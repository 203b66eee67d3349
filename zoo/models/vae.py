"""Variational autoencoder (Kingma & Welling 2014): a code that is a distribution.

    z ~ N(0, I),   x | z ~ N(μ(z), σ² I),   q(z | x) = N(m(x), diag s²(x))

    log p(x) ≥ ELBO = E_q[log p(x | z)] - KL(q(z | x) ‖ N(0, I))

E gives m and log s², D gives μ. With classes y all of them are told y, so that the prior may
generate the class that is asked for (Sohn et al. 2015, with a prior that does not know y).

Differs from the paper: the networks are convolutions (`zoo.layers.codec`) where it has one dense
layer, and σ is learned as one number (Rybkin et al. 2021), where it gives every pixel its own.
"""

from dataclasses import dataclass, replace

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, Num

from zoo.functional.activation import ACTIVATIONS, tanh
from zoo.functional.ops import Ops
from zoo.layers import Decoder, Embed, Encoder, Linear
from zoo.layers.check import check_choice, check_data_shape, check_input, check_positive, named_axes
from zoo.layers.codec import check_halvings


@dataclass(frozen=True, kw_only=True)
class VAEConfig:
    """Sizes of an encoder; the decoder mirrors them."""

    input_shape: tuple[int, ...] = (28, 28, 1)  # of one image, whose values lie in [-1, 1]
    latent_dim: int = 32  # of z
    conv_dims: tuple[int, ...] = (32, 64)  # channels; each convolution halves the side
    hidden_dims: tuple[int, ...] = (256,)  # widths of dense layers after the convolutions
    num_classes: int | None = None  # None: images without classes
    activation: str = "relu"  # a name in zoo.functional.activation.ACTIVATIONS

    def __post_init__(self):
        check_positive(
            input_shape=self.input_shape,
            latent_dim=self.latent_dim,
            conv_dims=self.conv_dims,
            hidden_dims=self.hidden_dims,
        )
        if self.num_classes is not None:
            check_positive(num_classes=self.num_classes)
        check_choice(self.activation, tuple(ACTIVATIONS), "activation")
        check_halvings(self.input_shape, len(self.conv_dims))

    def for_data(self, input_shape: tuple[int, ...], num_classes: int) -> "VAEConfig":
        """This config for images of that shape, of so many classes if of any."""
        check_data_shape(self, input_shape, 3, "height, width, channels")
        classes = None if self.num_classes is None else num_classes
        return replace(self, input_shape=input_shape, num_classes=classes)


class VAE(nnx.Module):
    """From images to distributions of codes, and from codes to images."""

    def __init__(self, config: VAEConfig, *, rngs: nnx.Rngs, ops: Ops = Ops()):
        self.config = config
        latent, classes = config.latent_dim, config.num_classes
        sizes = config.input_shape, config.conv_dims, config.hidden_dims, config.activation
        self.classes = Embed(classes, latent, rngs=rngs) if classes else None
        told = latent if classes else 0
        self.encoder = Encoder(*sizes, rngs=rngs, ops=ops)
        self.to_moments = Linear(self.encoder.out_dim + told, 2 * latent, rngs=rngs, ops=ops)
        self.decoder = Decoder(latent + told, *sizes, rngs=rngs, ops=ops)
        self.log_sigma = nnx.Param(jnp.zeros(()))  # of the pixels around μ(z)

    def __call__(
        self,
        x: Num[Array, "..."],
        noise: Float[Array, "B Z"],
        labels: Int[Array, " B"] | None = None,
    ) -> tuple[Float[Array, "B *I"], Float[Array, "B Z"], Float[Array, "B Z"]]:
        """μ(z) for one z of each image's q, and the moments m and log s² of q.

        Args:
            x: images `[B, *input_shape]` in [-1, 1].
            noise: standard normal, which makes `z = m + s · noise` (the paper's section 2.4).
            labels: the classes of the images, if the model is told any.
        """
        mean, log_var = self.encode(x, labels)
        z = mean + jnp.exp(log_var / 2) * noise
        return self.decode(z, labels), mean, log_var

    def encode(
        self, x: Num[Array, "..."], labels: Int[Array, " B"] | None = None
    ) -> tuple[Float[Array, "B Z"], Float[Array, "B Z"]]:
        """m and log s² of q(z | x)."""
        check_input(self, x, **named_axes(self.config.input_shape))
        mean, log_var = jnp.split(self.to_moments(self._told(self.encoder(x), labels)), 2, axis=-1)
        return mean, log_var

    def decode(
        self, z: Float[Array, "B Z"], labels: Int[Array, " B"] | None = None
    ) -> Float[Array, "B *I"]:
        """μ(z), in [-1, 1]."""
        return tanh(self.decoder(self._told(z, labels)))

    def _told(self, x: Float[Array, "B D"], labels: Int[Array, " B"] | None) -> Array:
        if (labels is None) != (self.classes is None):
            wants = "no labels" if labels is not None else "a label for each row"
            raise ValueError(f"num_classes={self.config.num_classes}: this VAE wants {wants}")
        if self.classes is None or labels is None:
            return x
        return jnp.concatenate([x, self.classes(labels).astype(x.dtype)], axis=-1)

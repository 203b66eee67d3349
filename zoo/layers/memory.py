"""What an encoder hands to a decoder."""

from dataclasses import dataclass

import jax
from jaxtyping import Array, Float, Int

from zoo.functional.attention import Mask


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Memory:
    """An encoded source."""

    vectors: Float[Array, "B S D"]  # one for each token, from all of the source
    tokens: Int[Array, "B S"]
    lengths: Int[Array, " B"] | None  # what follows is padding; None where there is none

    def mask(self) -> Mask | None:
        """Hides the padding from attention."""
        return None if self.lengths is None else Mask(lengths=self.lengths)

"""`Ops`: which implementation of each operation a model uses.

The defaults are this package's functions, the mathematics as the papers print it. The `kernels`
package offers faster ones with the same signatures, proved equal; a model takes either:

    zoo.create("resnet18", rngs=rngs, ops=kernels.best())
"""

from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Array

from zoo.functional.attention import attention
from zoo.functional.conv import conv, conv_transpose
from zoo.functional.cross_entropy import linear_cross_entropy, softmax_cross_entropy
from zoo.functional.dense import dense
from zoo.functional.norm import batch_norm, group_norm, layer_norm, rms_norm
from zoo.functional.pooling import max_pool
from zoo.functional.recurrent import lstm

Op = Callable[..., Array]
SequenceOp = Callable[..., tuple[Array, tuple[Array, Array]]]  # outputs, and the state left


@dataclass(frozen=True)
class Ops:
    """One callable an operation; each has the signature of the function that it defaults to."""

    dense: Op = dense
    conv: Op = conv
    conv_transpose: Op = conv_transpose
    max_pool: Op = max_pool
    attention: Op = attention
    lstm: SequenceOp = lstm
    batch_norm: Op = batch_norm
    layer_norm: Op = layer_norm
    group_norm: Op = group_norm
    rms_norm: Op = rms_norm
    softmax_cross_entropy: Op = softmax_cross_entropy
    linear_cross_entropy: Op = linear_cross_entropy

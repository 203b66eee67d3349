"""Parameters that lie in pieces on the devices of a mesh, and are whole where a layer reads them.

Along `fsdp` a parameter is cut to save memory and not to share the work: a layer that reads it
gathers the pieces, and of its gradient each device gets the sum of its own piece (Rajbhandari et
al. 2020, "ZeRO", stage 3; Zhao et al. 2023, "PyTorch FSDP"). In a scan over layers that is one
layer at a time. Left to itself, XLA would often cut the activations instead.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec


class Sharded(nnx.Param):
    """A parameter that lies as its metadata ``lies`` says, a sharding of its last axes.

    A scan takes the first axis away, of the layers, which never is cut.
    """

    def get_value(self, **index: Any) -> Any:
        pieces: Any = super().get_value()
        lies: NamedSharding = self.get_metadata("lies")
        cut = tuple(lies.spec)[-pieces.ndim :]
        whole = [None if axis == "fsdp" else axis for axis in cut]
        shardings = [NamedSharding(lies.mesh, PartitionSpec(*axes)) for axes in (whole, cut)]
        value: Any = _gather(pieces, *shardings)
        return value[index["index"]] if index else value

    def __getattr__(self, name: str) -> Any:
        # NNX asks the array itself for its methods, such as `astype`, and that is in pieces.
        if name in self.get_metadata() or name in ("shape", "dtype", "ndim", "size"):
            return super().__getattr__(name)
        return getattr(self.get_value(), name)


def sharded(objects: Any, lies: Callable[[str, nnx.Param], NamedSharding]) -> Any:
    """A copy of NNX objects, whose parameters with named axes are :class:`Sharded`.

    Args:
      objects: models and what else belongs to a step.
      lies: where a parameter lies, from its path and itself.
    """
    copy, found = nnx.clone(objects), {}
    for path, node in nnx.iter_graph(copy):
        if not isinstance(node, nnx.Module):
            continue
        for name, variable in vars(node).items():
            if isinstance(variable, nnx.Param) and "axes" in variable.get_metadata():
                if id(variable) not in found:  # which two modules may share
                    place = "/".join(map(str, (*path, name)))
                    metadata: dict[str, Any] = {**variable.get_metadata()}
                    metadata["lies"] = lies(place, variable)
                    found[id(variable)] = Sharded(variable.get_raw_value(), **metadata)
                setattr(node, name, found[id(variable)])
    return copy


@partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _gather(pieces: jax.Array, whole: NamedSharding, cut: NamedSharding) -> jax.Array:
    del cut
    return jax.lax.with_sharding_constraint(pieces, whole)


def _gather_forward(pieces, whole, cut):
    return _gather(pieces, whole, cut), None


def _gather_backward(whole, cut, _, gradient):
    # Whole first: the sum over devices and the cut become one reduce-scatter, and XLA does not cut
    # the activations, from which the gradient comes, in the same way.
    summed = jax.lax.with_sharding_constraint(gradient, whole)
    return (jax.lax.with_sharding_constraint(summed, cut),)


_gather.defvjp(_gather_forward, _gather_backward)

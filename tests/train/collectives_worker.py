"""`python -m tests.train.collectives_worker`: the text of a program for eight CPU devices."""

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import AxisType, PartitionSpec

AXIS = "device"


def program(x):
    """Every kind of collective, in no loop, in one of five trips and in one of three in two."""

    def five(x, _):
        x = x + 0.5 * lax.psum(x, AXIS)
        everything = lax.all_gather(x, AXIS, tiled=True)
        return x + lax.psum_scatter(everything, AXIS, tiled=True), None

    def two(x, _):
        return lax.scan(three, x, None, length=3)

    def three(x, _):
        return lax.all_to_all(x, AXIS, 0, 0, tiled=True), None

    x, _ = lax.scan(five, x, None, length=5)
    x = lax.ppermute(x, AXIS, [(i, (i + 1) % 8) for i in range(8)])
    x, _ = lax.scan(two, x, None, length=2)
    return x, lax.psum(x.sum(), AXIS)


def main() -> None:
    jax.config.update("jax_num_cpu_devices", 8)
    mesh = jax.make_mesh((8,), (AXIS,), axis_types=(AxisType.Auto,))
    rows = PartitionSpec(AXIS)
    mapped = jax.shard_map(
        program, mesh=mesh, in_specs=rows, out_specs=(rows, PartitionSpec()), check_vma=False
    )
    lowered = jax.jit(mapped).lower(jax.ShapeDtypeStruct((128, 16), jnp.float32))
    print(lowered.compile().as_text())


if __name__ == "__main__":
    main()

"""Hardware to compile for without having it: the vendors' own compilers run on any machine.

    os.environ |= target("v5e").environment()    # before JAX is imported
    device = target("v5e").devices()[0]
    place = jax.sharding.SingleDeviceSharding(device)
    with target("v5e").tracing():
        compiled = jax.jit(f).lower(jax.ShapeDtypeStruct(shape, dtype, sharding=place)).compile()

A program that compiles is one that those chips accept, and `compiled.memory_analysis()` is what it
takes of each device's memory. What it does not tell is how fast it runs.

TPUs are named with the shape of the slice, `v5e:2x4`, and GPUs with their number, `h100x8`; a name
alone stands for the smallest there is. JAX is imported late, so that the environment can be set.
"""

import importlib.metadata
import os
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

from train.errors import UserError
from train.options import nearest

# The slice that a chip's name alone stands for: one host.
SMALLEST = {
    "h100": "1",
    "v4": "2x2x1",
    "v5e": "2x2",
    "v5p": "2x2x1",
    "v6e": "2x2",
    "tpu7x": "2x2x1",
}

H100 = "NVIDIA H100 80GB HBM3"
# What XLA would ask the device for, in the text format of its GpuTargetConfig.
H100_CONFIG = f"""
gpu_device_info {{
  threads_per_block_limit: 1024  threads_per_warp: 32  threads_per_core_limit: 2048
  shared_memory_per_block: 49152  shared_memory_per_core: 233472
  shared_memory_per_block_optin: 232448
  core_count: 132  fpus_per_core: 128  clock_rate_ghz: 1.98
  block_dim_limit_x: 2147483647  block_dim_limit_y: 65535  block_dim_limit_z: 65535
  memory_bandwidth: 3352320000000  l2_cache_size: 52428800  device_memory_size: 84929347584
  cuda_compute_capability {{ major: 9 }}
  registers_per_core_limit: 65536  registers_per_block_limit: 65536
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 7 }}
runtime_version {{ major: 12 minor: 9 patch: 0 }}
device_description_str: "{H100}"
"""

# Platform, as `kernels.best` names it -> the extra that installs its compiler, and the packages.
COMPILERS = {
    "gpu": (
        "gpu-aot",
        ("jax-cuda12-plugin", "jax-cuda12-pjrt", "nvidia-cuda-nvcc-cu12", "nvidia-cudnn-cu12"),
    ),
    "tpu": ("tpu-aot", ("libtpu",)),
}
CPU_FOR_THE_REST = {
    "JAX_PLATFORMS": "cpu",  # arrays live there: there is no such device
    "JAX_ENABLE_COMPILATION_CACHE": "false",  # programs cannot be loaded again without it either
}
ENVIRONMENT = {
    "gpu": {"JAX_SKIP_CUDA_CONSTRAINTS_CHECK": "1", "CUDA_VISIBLE_DEVICES": "-1"},
    "tpu": {  # nobody is asked which TPU this machine has, and two processes may load its library
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_WORKER_HOSTNAMES": "localhost",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    },
}
# Autotuning would run candidates on the device. Without it XLA takes tiles that do not fit every
# product, and gives up where they do not; so all products go to cuBLAS, which wants 32 MB itself.
NO_AUTOTUNING = "--xla_gpu_autotune_level=0 --xla_gpu_enable_triton_gemm=false"


@dataclass(frozen=True)
class Target:
    """Some chips of one kind."""

    chip: str
    shape: str  # "2x4" of TPUs, "8" GPUs

    def __str__(self) -> str:
        return f"{self.chip}{'x' if self.platform == 'gpu' else ':'}{self.shape}"

    @property
    def platform(self) -> Literal["gpu", "tpu"]:
        """As `kernels.best` takes it."""
        return "gpu" if self.chip == "h100" else "tpu"

    def environment(self) -> dict[str, str]:
        """Variables that must be set before JAX is imported."""
        variables = CPU_FOR_THE_REST | ENVIRONMENT[self.platform]
        if self.platform == "gpu":
            variables["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {NO_AUTOTUNING}".strip()
        return variables

    def missing(self) -> str | None:
        """What keeps this target from being compiled for here, and the remedy; None if nothing."""
        extra, packages = COMPILERS[self.platform]
        absent = [package for package in packages if not _version(package)]
        if absent:
            return f"{self.chip} needs {', '.join(absent)}; pip install '.[{extra}]'"
        jaxlib = _version("jaxlib")
        plugin = _version("jax-cuda12-plugin") if self.platform == "gpu" else jaxlib
        if plugin != jaxlib:
            return (
                f"{self.chip} needs jax-cuda12-plugin in jaxlib's version, {jaxlib}, not {plugin}; "
                f"pip install '.[{extra}]'"
            )
        return None

    def devices(self) -> Sequence[Any]:
        """The devices of the slice, which programs can be compiled for and cannot run on.

        Raises:
          UserError: a package is missing, or there is no slice of this shape.
        """
        if problem := self.missing():
            raise UserError(problem)
        import jax
        from jax.experimental import topologies

        if self.platform == "gpu":
            wanted = {"platform": "cuda", "topology_name": self.chip}
            # Slices x hosts x devices.
            wanted |= {"topology": f"1x1x{self.shape}", "target_config": H100_CONFIG}
        else:
            wanted = {"platform": "tpu", "topology_name": f"{self.chip}:{self.shape}"}
        try:
            return topologies.get_topology_desc(**wanted).devices
        except (jax.errors.JaxRuntimeError, ValueError) as error:
            reason = str(error).split("\n")[0]
            raise UserError(f"{self.chip} has no slice of shape {self.shape}: {reason}") from error

    def tracing(self) -> AbstractContextManager[Any]:
        """To be entered around `lower`: Pallas asks which GPU it writes for while it traces."""
        if self.platform == "tpu":
            return nullcontext()
        import jax

        device = jax.sharding.AbstractDevice(device_kind=H100, num_cores=None, platform="cuda")
        mesh = jax.sharding.AbstractMesh((1,), ("device",), abstract_device=device)
        return jax.sharding.use_abstract_mesh(mesh)


def target(name: str) -> Target:
    """`h100`, `h100x8`, `v5e`, `v5e:2x4`, `v5p:4x4x4` and so on.

    Raises:
      UserError: no such chip, or not the form of a shape.
    """
    chip, _, shape = name.partition("x" if name.startswith("h100") else ":")
    if chip not in SMALLEST:
        raise UserError(nearest("target", chip, SMALLEST))
    if chip == name:
        return Target(chip, SMALLEST[chip])
    axes = SMALLEST[chip].count("x") + 1
    if not re.fullmatch("x".join([r"[1-9]\d*"] * axes), shape):
        example = "h100x8" if chip == "h100" else f"{chip}:{SMALLEST[chip]}"
        raise UserError(f"target {name!r} has not the form of {example!r}")
    return Target(chip, shape)


def measured(compiled: Any) -> dict[str, int | float | None]:
    """Bytes of a compiled program on one device, and its FLOPs where the compiler counts them.

    `bytes` is what it takes in all: results that are written over arguments (`alias`) count once.
    """
    memory = compiled.memory_analysis()
    parts = {
        "argument_bytes": memory.argument_size_in_bytes,
        "output_bytes": memory.output_size_in_bytes,
        "alias_bytes": memory.alias_size_in_bytes,
        "temp_bytes": memory.temp_size_in_bytes,
    }
    total = sum(parts.values()) - 2 * parts["alias_bytes"]  # in the sum once too often itself
    flops = (compiled.cost_analysis() or {}).get("flops")  # CUDA's compiler tells nothing
    return {"bytes": total, **parts, "flops": flops if flops and flops > 0 else None}


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None

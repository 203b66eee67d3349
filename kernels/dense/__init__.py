"""The dense map, `[..., in_dim] · [in_dim, out_dim] -> [..., out_dim]`:

    y = x W + b

The reference is `zoo.functional.dense.dense`. Backends:

| file | platform | serves |
|---|---|---|
| `xla.py` | any; chosen on CPUs | everything |
"""

from kernels.dense.xla import dense

__all__ = ["dense"]

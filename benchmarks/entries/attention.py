"""Attention forwards and backwards at the named shapes of `kernels.attention.specs`.

Each has an entry of its own, in a module that calls `entry`; only the batch, and of long sequences
the heads or the tokens, are fewer than the name says. The value of a unit has a number for the
outputs and for each gradient, those of q, k and v, so that all of them must agree.

What several cores do together on one device are parts of single products and sums, and between them
they wait for each other. So where there are rows or heads for it, each core is a device here, with
its own.
"""

import math
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from benchmarks.entry import OURS, Arrays, Competitor, Entry, Promise
from kernels.attention.specs import SPECS, AttentionSpec

JAX_NN, TORCH = "jax.nn", "torch"
ONE_DEVICE = "one device"
ROWS, HEADS = 0, 2  # axes of q
DOCUMENTS = 4  # in each row, where rows hold several


def entry(
    name: str, batch: int, *, kv_heads: int | None = None, tokens: int | None = None
) -> Entry:
    """The benchmark of a named shape, with so many sequences.

    Args:
        name: of the shape, in SPECS.
        batch: sequences.
        kv_heads: of keys, with the queries' heads that belong to them; default: all.
        tokens: of a sequence; default: as many as the shape has.
    """
    spec = SPECS[name]
    spec = replace(spec, batch=batch, tokens=tokens or spec.tokens)
    spec = _with_kv_heads(spec, kv_heads or spec.kv_heads)
    one = Competitor(build=partial(_ours, spec), what="kernels.best()")
    many = Competitor(build=partial(_ours_shared, spec), what="kernels.best(), a device a core")
    ways = {OURS: (one, "")}
    if shared := parts(batch, spec.heads, spec.kv_heads, 2) > 1:
        ways = {OURS: (many, ", with a device a core"), ONE_DEVICE: (one, ", on one device")}
    level_with_torch = "at least level with PyTorch's scaled_dot_product_attention"
    return Entry(
        name=f"attention-{name}",
        summary=_summary(name, spec) + (", ours with a device a core." if shared else "."),
        unit="forward and backward pass",
        prepare=partial(prepare, spec),
        flops=partial(flops, spec),
        competitors={
            **{way: competitor for way, (competitor, _) in ways.items()},
            JAX_NN: Competitor(build=partial(_jax_nn, spec), what="dot_product_attention, jax.jit"),
            TORCH: Competitor(
                build=partial(Torch, spec),
                requires=("torch",),
                what="scaled_dot_product_attention, eager",
            ),
        },
        promises=(
            Promise(
                text="at least level with jax.nn.dot_product_attention",
                of=ONE_DEVICE if shared else OURS,  # as that is on one
                against=JAX_NN,
                at_least_ratio=1.0,
            ),
            *(
                Promise(text=level_with_torch + how, of=way, against=TORCH, at_least_ratio=1.0)
                for way, (_, how) in ways.items()
            ),
        ),
    )


def _summary(name: str, spec: AttentionSpec) -> str:
    rules = {"causal": spec.causal, "padded": spec.lengths, "of several documents": spec.segments}
    keys = "" if spec.heads == spec.kv_heads else f" on {spec.kv_heads} of keys"
    return (
        f"Attention of {name}: {spec.heads} heads of {spec.width}{keys}, {spec.batch} x "
        f"{spec.tokens:,} tokens, {''.join(f'{rule}, ' for rule, holds in rules.items() if holds)}"
        "with gradients, float32"
    )


def shared_axis(batch: int) -> int:
    """What devices share of q, k and v: rows, or of a single row its heads."""
    return ROWS if batch > 1 else HEADS


def parts(batch: int, heads: int, kv_heads: int, devices: int) -> int:
    """Among how many of the devices that axis can be shared.

    A device has whole groups of heads with those of keys, or all have the only one of keys.
    """
    if shared_axis(batch) == ROWS:
        return math.gcd(batch, devices)
    return math.gcd(heads if kv_heads == 1 else kv_heads, devices)


def sized(spec: AttentionSpec, quick: bool) -> AttentionSpec:
    """A quick one has as many tokens as a block of our kernel has queries."""
    if not quick:
        return spec
    spec = _with_kv_heads(spec, min(spec.kv_heads, 2))
    return replace(spec, batch=min(spec.batch, 2), tokens=256, width=16)


def _with_kv_heads(spec: AttentionSpec, kv_heads: int) -> AttentionSpec:
    return replace(spec, heads=spec.heads // spec.kv_heads * kv_heads, kv_heads=kv_heads)


def prepare(spec: AttentionSpec, quick: bool) -> dict[str, np.ndarray]:
    """q, k, v and what comes back, `[B, T, N or K, H]`; lengths `[B]`, segments `[B, T]`."""
    spec, rng = sized(spec, quick), np.random.default_rng(0)
    heads = {"q": spec.heads, "k": spec.kv_heads, "v": spec.kv_heads, "back": spec.heads}
    arrays: dict[str, np.ndarray] = {
        part: rng.standard_normal((spec.batch, spec.tokens, n, spec.width), np.float32)
        for part, n in heads.items()
    }
    rows, tokens = np.arange(spec.batch, dtype=np.int32), np.arange(spec.tokens, dtype=np.int32)
    if spec.lengths:  # from all tokens down to somewhat more than half
        arrays["lengths"] = spec.tokens - rows * (spec.tokens // (2 * spec.batch))
    if spec.segments:
        documents = tokens // (spec.tokens // DOCUMENTS)
        arrays["segments"] = np.broadcast_to(documents, (spec.batch, spec.tokens))
    return arrays


def visible(spec: AttentionSpec, arrays: Arrays) -> np.ndarray:
    """Whether a query sees a key, `[B, T, S]`."""
    (batch, tokens), places = arrays["q"].shape[:2], np.arange(arrays["q"].shape[1])
    seen = np.ones((batch, tokens, tokens), bool)
    if spec.causal:
        seen &= places <= places[:, None]
    if spec.lengths:
        seen &= places < arrays["lengths"][:, None, None]
    if spec.segments:
        seen &= arrays["segments"][:, :, None] == arrays["segments"][:, None]
    return seen


def flops(spec: AttentionSpec, quick: bool) -> float:
    """Two products of H numbers for each pair that a head sees, each with two gradients."""
    sizes = sized(spec, quick)
    pairs = visible(spec, prepare(spec, quick)).sum()
    return 3.0 * 2 * 2 * float(pairs) * sizes.heads * sizes.width


class Jax:
    """`function(q, k, v, lengths, segments)`, differentiated, in one program.

    On several devices each has a part of the rows, or if there is one of the heads.
    """

    def __init__(self, function: Callable[..., Any], arrays: Arrays, devices: int = 1):
        import jax
        from jax.sharding import NamedSharding, PartitionSpec

        import kernels

        kernels.keep_freed_memory()  # as every run does
        self.axis = shared_axis(len(arrays["q"]))
        mesh, everywhere = jax.make_mesh((devices,), ("part",)), PartitionSpec()
        cut = PartitionSpec(*[None] * self.axis, "part")
        alike = bool(arrays["k"].shape[self.axis] % devices)  # the only head of keys
        where = {
            part: everywhere if (alike and part in "kv") or array.ndim <= self.axis else cut
            for part, array in arrays.items()
        }

        def work(arrays):
            rules = arrays.get("lengths"), arrays.get("segments")
            y, pullback = jax.vjp(
                lambda *q_k_v: function(*q_k_v, *rules), *(arrays[part] for part in "qkv")
            )
            d_q, *d_k_v = pullback(arrays["back"])
            found = y, d_q, *(jax.lax.psum(d_k_v, "part") if alike else d_k_v)
            return found, jax.numpy.array([sum(map(middle_of, found))])

        step = jax.shard_map(
            work,
            mesh=mesh,
            in_specs=(where,),
            out_specs=(tuple(where[part] for part in ("q", *"qkv")), PartitionSpec("part")),
            check_vma=False,
        )
        self.arrays = {
            part: jax.device_put(array, NamedSharding(mesh, where[part]))
            for part, array in arrays.items()
        }
        lowered = jax.jit(step).lower(self.arrays)
        self.work = lowered.compile(compiler_options=kernels.compiler_options())

    def advance(self) -> list[float]:
        """All of it once."""
        import jax

        _, values = jax.block_until_ready(self.work(self.arrays))
        of_each = np.asarray(values)  # the last device has the last row, or each some heads of it
        return [float(of_each[-1] if self.axis == ROWS else of_each.mean())]


class Torch:
    """`scaled_dot_product_attention`, heads before tokens; what is no causal mask is an array."""

    def __init__(self, spec: AttentionSpec, arrays: Arrays):
        import torch

        torch.set_num_threads(len(os.sched_getaffinity(0)))
        *q_k_v, self.back = (
            torch.from_numpy(arrays[part]).transpose(1, 2) for part in ("q", "k", "v", "back")
        )
        self.q_k_v = [x.requires_grad_() for x in q_k_v]
        self.rules: dict[str, Any] = {"enable_gqa": spec.heads != spec.kv_heads}
        if not (spec.lengths or spec.segments):
            self.rules["is_causal"] = spec.causal
        else:
            self.rules["attn_mask"] = torch.from_numpy(visible(spec, arrays))[:, None]

    def advance(self) -> list[float]:
        """All of it once."""
        import torch

        q, k, v = self.q_k_v
        y = torch.nn.functional.scaled_dot_product_attention(q, k, v, **self.rules)
        found = [y.detach(), *torch.autograd.grad(y, self.q_k_v, self.back)]
        return [float(sum(middle_of(part.transpose(1, 2).numpy()) for part in found))]


def middle_of(part: Any) -> Any:
    """The mean size of the numbers of a token of the last row: a mean of all would take long."""
    return abs(part[-1, part.shape[1] // 2]).mean()


def _ours(spec: AttentionSpec, arrays: Arrays) -> Jax:
    return _best(spec, arrays, 1)


def _ours_shared(spec: AttentionSpec, arrays: Arrays) -> Jax:
    (batch, _, heads, _), kv_heads = arrays["q"].shape, arrays["k"].shape[2]
    return _best(spec, arrays, parts(batch, heads, kv_heads, len(os.sched_getaffinity(0))))


def _best(spec: AttentionSpec, arrays: Arrays, devices: int) -> Jax:
    import jax

    import kernels
    from zoo.functional.attention import Mask

    jax.config.update("jax_num_cpu_devices", devices)  # before JAX looks for them
    attention = kernels.best().attention

    def function(q, k, v, lengths, segments):
        documents = None if segments is None else (segments, segments)
        return attention(q, k, v, Mask(causal=spec.causal, lengths=lengths, segments=documents))

    return Jax(function, arrays, devices)


def _jax_nn(spec: AttentionSpec, arrays: Arrays) -> Jax:
    import jax

    def function(q, k, v, lengths, segments):
        same = None if segments is None else segments[:, None, :, None] == segments[:, None, None]
        return jax.nn.dot_product_attention(
            q, k, v, mask=same, is_causal=spec.causal, key_value_seq_lengths=lengths
        )

    return Jax(function, arrays)

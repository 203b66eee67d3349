"""Optimisers from a config: optax chains a gradient through clipping, the rule and the schedule.

The rules, with gradient g and learning rate α (Goodfellow et al. 2016, chapter 8):

    gradient-descent  θ ← θ - α g
    momentum          v ← μ v + g,  θ ← θ - α v                              (Polyak 1964)
    adam              m ← β₁m + (1-β₁)g,  v ← β₂v + (1-β₂)g²,
                      θ ← θ - α m̂ / (√v̂ + ε)                     (Kingma and Ba 2015)
                      with m̂ = m / (1-β₁ᵗ) and v̂ = v / (1-β₂ᵗ) at step t
    adamw             adam, and θ ← θ - α λ θ on matrices (Loshchilov and Hutter 2019)
    muon              Nesterov momentum, then the nearest orthogonal matrix by Newton-Schulz
                      iterations, for matrices; adamw for the rest    (Jordan et al. 2024)
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Float

from train.muon import muon


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """How parameters move, and how the learning rate changes over the run."""

    name: Literal["gradient-descent", "momentum", "adam", "adamw", "muon"] = "adam"
    peak_lr: float = 1e-3  # α after warm-up
    schedule: Literal["constant", "linear", "cosine"] = "constant"  # the way down from the peak
    warmup_steps: int = 0  # linear from 0 to the peak
    final_lr_fraction: float = 0.0  # of the peak, where linear and cosine end
    momentum: float = 0.9  # μ of momentum and muon
    beta1: float = 0.9  # Adam's first-moment decay
    beta2: float = 0.999  # Adam's second-moment decay
    epsilon: float = 1e-8  # Adam's ε
    weight_decay: float = 0.0  # λ, decoupled; only adamw and muon take it
    clip_norm: float | None = None  # largest global gradient norm; None: no clipping
    ema_decay: float | None = None  # evaluate with an average of the weights; None: with the last

    def __post_init__(self):
        if not 0 < self.peak_lr < math.inf:
            raise ValueError(f"peak_lr={self.peak_lr} must be positive and finite")
        if self.warmup_steps < 0:
            raise ValueError(f"warmup_steps={self.warmup_steps} must not be negative")
        if not 0 <= self.final_lr_fraction <= 1:
            raise ValueError(f"final_lr_fraction={self.final_lr_fraction} must lie in [0, 1]")
        for field in ("momentum", "beta1", "beta2"):
            if not 0 <= (value := getattr(self, field)) < 1:
                raise ValueError(f"{field}={value} must lie in [0, 1)")
        if not 0 < self.epsilon < math.inf:
            raise ValueError(f"epsilon={self.epsilon} must be positive and finite")
        if not 0 <= self.weight_decay < math.inf:
            raise ValueError(f"weight_decay={self.weight_decay} must be finite and not negative")
        if self.weight_decay and self.name not in ("adamw", "muon"):
            raise ValueError(
                f"weight_decay={self.weight_decay} has no effect with name={self.name!r}; "
                "use adamw or muon"
            )
        if self.clip_norm is not None and not 0 < self.clip_norm < math.inf:
            raise ValueError(
                f"clip_norm={self.clip_norm} must be positive and finite, or None for no clipping"
            )
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise ValueError(f"ema_decay={self.ema_decay} must lie in (0, 1), or be None")


def learning_rate(config: OptimConfig, total_steps: int) -> optax.Schedule:
    """The learning rate of each step, counted from 0: warm-up, then the way down."""
    end = config.peak_lr * config.final_lr_fraction
    decay_steps = max(total_steps - config.warmup_steps, 1)
    if config.schedule == "constant":
        after = optax.constant_schedule(config.peak_lr)
    elif config.schedule == "linear":
        after = optax.linear_schedule(config.peak_lr, end, decay_steps)
    else:
        after = optax.cosine_decay_schedule(config.peak_lr, decay_steps, config.final_lr_fraction)
    if not config.warmup_steps:
        return after
    warmup = optax.linear_schedule(0.0, config.peak_lr, config.warmup_steps)
    return optax.join_schedules([warmup, after], [config.warmup_steps])


def _marks(marks: Sequence[Any]) -> Callable[[Any], Any]:
    """``marks``, one a parameter, in the form of a tree of parameters."""
    return lambda params: jax.tree.unflatten(jax.tree.structure(params), marks)


class AverageState(NamedTuple):
    average: Any  # the same structure as the parameters


def average_weights(decay: float) -> optax.GradientTransformation:
    """Keeps e ← d·e + (1-d)·θ of the *updated* parameters; leaves the updates as they are.

    It must be the last link of a chain: only there are the updates final
    (Polyak and Juditsky 1992; the exponential form: Tarvainen and Valpola 2017).
    """

    def init(params):
        return AverageState(jax.tree.map(jnp.copy, params))

    def update(updates, state, params=None):
        assert params is not None, "the average is of the parameters: pass them to update"
        moved = optax.apply_updates(params, updates)
        return updates, AverageState(optax.incremental_update(moved, state.average, 1 - decay))

    return optax.GradientTransformation(init, update)


def transformation(
    config: OptimConfig, total_steps: int, ranks: Sequence[int]
) -> optax.GradientTransformation:
    """The optax chain of ``config``: clip, rule and schedule, average.

    Args:
      config: rule and schedule.
      total_steps: of the run.
      ranks: how many axes each parameter has as its layer made it. What a rule does with it depends
        on that, and not on how many it has where it lies in pieces on many devices.
    """
    lr = learning_rate(config, total_steps)
    adam: dict[str, Any] = {"b1": config.beta1, "b2": config.beta2, "eps": config.epsilon}

    def adamw(ranks: Sequence[int]) -> optax.GradientTransformation:
        # Weight decay pulls weights to 0; biases and norm scales have no reason to be small.
        decayed = _marks([rank > 1 for rank in ranks])
        return optax.adamw(lr, **adam, weight_decay=config.weight_decay, mask=decayed)

    rule = {
        "gradient-descent": lambda: optax.sgd(lr),
        "momentum": lambda: optax.sgd(lr, momentum=config.momentum),
        "adam": lambda: optax.adam(lr, **adam),
        "adamw": lambda: adamw(ranks),
        "muon": lambda: optax.partition(
            {
                "matrix": muon(lr, config.momentum, config.weight_decay),
                "other": adamw([rank for rank in ranks if rank != 2]),
            },
            _marks(["matrix" if rank == 2 else "other" for rank in ranks]),
        ),
    }[config.name]()
    clip = [optax.clip_by_global_norm(config.clip_norm)] if config.clip_norm else []
    average = [average_weights(config.ema_decay)] if config.ema_decay else []
    return optax.chain(*clip, rule, *average)


class Optimizer(nnx.Optimizer):
    """``nnx.Optimizer`` over the parameters of one model, built from a config."""

    def __init__(self, model: nnx.Module, config: OptimConfig, total_steps: int):
        ranks = [parameter.ndim for parameter in jax.tree.leaves(nnx.state(model, nnx.Param))]
        super().__init__(model, transformation(config, total_steps, ranks), wrt=nnx.Param)
        self.schedule = learning_rate(config, total_steps)

    def learning_rate(self) -> Float[Array, ""]:
        """The learning rate that the next update uses."""
        return jnp.asarray(self.schedule(self.step[...]), jnp.float32)

    def averaged(self, model: nnx.Module) -> nnx.Module:
        """``model`` with the averaged weights where the config asks for them, else ``model``."""

        def is_average(node: Any) -> bool:
            return isinstance(node, AverageState)

        states = [s for s in jax.tree.leaves(self.opt_state, is_leaf=is_average) if is_average(s)]
        if not states:
            return model
        graphdef, params, rest = nnx.split(model, nnx.Param, ...)
        average = jax.tree.unflatten(jax.tree.structure(params), jax.tree.leaves(states[0]))
        return nnx.merge(graphdef, average, rest)

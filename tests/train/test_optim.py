"""Every rule against its formula in numpy, schedules at given steps, averages, and bad configs."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from tests.close import assert_close
from train.muon import orthogonal
from train.optim import OptimConfig, Optimizer, learning_rate
from zoo.layers import Conv, Linear

LR, STEPS = 0.1, 6
MATRICES = ("dense/kernel", "wide/kernel")


class Net(nnx.Module):
    """Matrices, a vector and a convolution's kernel: the shapes that rules tell apart."""

    def __init__(self):
        self.dense = Linear(4, 3, rngs=nnx.Rngs(0))
        nnx.update(self.dense, {"bias": jnp.arange(1.0, 4.0)})
        self.wide = Linear(3, 40, rngs=nnx.Rngs(2), use_bias=False)
        self.conv = Conv(2, 3, 3, rngs=nnx.Rngs(1), use_bias=False)


def flat(state) -> dict[str, np.ndarray]:
    pairs = nnx.to_flat_state(
        nnx.state(state, nnx.Param) if isinstance(state, nnx.Module) else state
    )
    return {"/".join(map(str, path)): np.asarray(leaf[...], np.float64) for path, leaf in pairs}


def gradients(model: nnx.Module, seed: int = 0) -> list:
    """Six fixed gradients, shaped as the parameters."""
    generator = np.random.default_rng(seed)

    def one():
        return jax.tree.map(
            lambda p: jnp.asarray(generator.normal(size=p.shape), jnp.float32),
            nnx.state(model, nnx.Param),
        )

    return [one() for _ in range(STEPS)]


def trained(config: OptimConfig, seed: int = 0) -> tuple[Net, Optimizer, list, list[dict]]:
    """A net after six updates, its optimiser, the gradients, and the parameters after each."""
    model = Net()
    optimizer = Optimizer(model, config, STEPS)
    grads, path = gradients(model, seed), [flat(model)]
    for grad in grads:
        optimizer.update(model, grad)
        path.append(flat(model))
    return model, optimizer, grads, path


def follow(rule, grads) -> list[dict]:
    """The parameters after each step where ``rule(name, theta, g, t, memory)`` gives the next."""
    theta, memory = flat(Net()), {}
    path = [theta]
    for t, grad in enumerate(grads, start=1):
        theta = {
            name: rule(name, theta[name], g, t, memory.setdefault(name, {}))
            for name, g in flat(grad).items()
        }
        path.append(theta)
    return path


def adam_rule(corrected: bool = True, decay: float = 0.0):
    """Kingma and Ba 2015, algorithm 1; without the correction, the formula of the design."""

    def rule(name, theta, g, t, memory):
        m = memory["m"] = 0.9 * memory.get("m", 0) + 0.1 * g
        v = memory["v"] = 0.999 * memory.get("v", 0) + 0.001 * g**2
        if corrected:
            m, v = m / (1 - 0.9**t), v / (1 - 0.999**t)
        shrink = decay * theta if theta.ndim > 1 else 0
        return theta - LR * (m / (np.sqrt(v) + 1e-8) + shrink)

    return rule


def momentum_rule(name, theta, g, t, memory):
    v = memory["v"] = 0.8 * memory.get("v", 0) + g
    return theta - LR * v


RULES = {
    "gradient-descent": ({}, lambda name, theta, g, t, memory: theta - LR * g),
    "momentum": ({"momentum": 0.8}, momentum_rule),
    "adam": ({}, adam_rule()),
    "adamw": ({"weight_decay": 0.3}, adam_rule(decay=0.3)),
}


@pytest.mark.parametrize("name", RULES)
def test_rule_is_its_formula(name):
    fields, rule = RULES[name]
    _, _, grads, path = trained(OptimConfig(name=name, peak_lr=LR, **fields))
    for ours, theirs in zip(path, follow(rule, grads), strict=True):
        assert_close(ours, theirs)


def test_adam_corrects_its_bias_and_the_short_formula_does_not():
    """Both stand in the documentation. Without correction the first step is (1-β₁)/√(1-β₂) ≈ 3.16
    times as long; the two meet when βᵗ has died away."""
    _, _, grads, path = trained(OptimConfig(name="adam", peak_lr=LR))
    plain = follow(adam_rule(corrected=False), grads)
    for name, start in path[0].items():
        ratio = (plain[1][name] - start) / (path[1][name] - start)
        np.testing.assert_allclose(ratio, 0.1 / math.sqrt(0.001), rtol=1e-3)


def test_adam_takes_its_constants_from_the_config():
    config = OptimConfig(name="adam", peak_lr=LR, beta1=0.5, beta2=0.6, epsilon=0.25)

    def rule(name, theta, g, t, memory):
        m = memory["m"] = 0.5 * memory.get("m", 0) + 0.5 * g
        v = memory["v"] = 0.6 * memory.get("v", 0) + 0.4 * g**2
        return theta - LR * (m / (1 - 0.5**t)) / (np.sqrt(v / (1 - 0.6**t)) + 0.25)

    _, _, grads, path = trained(config)
    assert_close(path[-1], follow(rule, grads)[-1])


def test_decay_pulls_matrices_and_leaves_vectors():
    """With a gradient of zero nothing but the decay moves a parameter."""
    for name in ("adamw", "muon"):
        model = Net()
        optimizer = Optimizer(model, OptimConfig(name=name, peak_lr=LR, weight_decay=0.5), 1)
        before = flat(model)
        optimizer.update(model, jax.tree.map(jnp.zeros_like, nnx.state(model, nnx.Param)))
        after = flat(model)
        assert_close(after["dense/kernel"], (1 - LR * 0.5) * before["dense/kernel"])
        assert_close(after["conv/kernel"], (1 - LR * 0.5) * before["conv/kernel"])
        assert np.array_equal(after["dense/bias"], before["dense/bias"]), name


@pytest.mark.parametrize(("clip_norm", "scale"), [(0.5, 0.1), (50.0, 1.0)])
def test_clipping_scales_all_gradients_together(clip_norm, scale):
    model = Net()
    config = OptimConfig(name="gradient-descent", peak_lr=1.0, clip_norm=clip_norm)
    optimizer = Optimizer(model, config, 1)
    before, grad = flat(model), gradients(model)[0]
    norm = math.sqrt(sum(float((g**2).sum()) for g in flat(grad).values()))
    grad = jax.tree.map(lambda g: g * (5.0 / norm), grad)  # of global norm 5
    optimizer.update(model, grad)
    assert_close(
        {name: before[name] - value for name, value in flat(model).items()},
        {name: scale * g for name, g in flat(grad).items()},
    )


def newton_schulz(x):
    """Five of the published iterations, each with the whole matrix (Jordan et al. 2024)."""
    if x.shape[0] > x.shape[1]:
        return newton_schulz(x.T).T
    x = x / np.linalg.norm(x)
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x


@pytest.mark.parametrize("shape", [(4, 4), (3, 40), (40, 3)])
def test_orthogonal_is_the_published_iteration(shape):
    matrix = np.random.default_rng(0).normal(size=shape)
    matrix[0] *= 100  # one strong direction: the others start far below 1
    assert_close(orthogonal(jnp.asarray(matrix, jnp.float32)), newton_schulz(matrix))
    assert np.array_equal(orthogonal(jnp.zeros(shape)), np.zeros(shape))


def test_muon_is_its_formula():
    def rule(name, theta, g, t, memory):
        if theta.ndim != 2:
            return theta
        v = memory["v"] = 0.8 * memory.get("v", 0) + g
        scale = math.sqrt(max(1, theta.shape[1] / theta.shape[0]))
        return theta - LR * (scale * newton_schulz(g + 0.8 * v) + 0.3 * theta)

    config = OptimConfig(name="muon", peak_lr=LR, momentum=0.8, weight_decay=0.3)
    _, _, grads, path = trained(config)
    for ours, theirs in zip(path, follow(rule, grads), strict=True):
        assert_close({m: ours[m] for m in MATRICES}, {m: theirs[m] for m in MATRICES})


def test_muon_begins_as_optax_does():
    """The first step; later ones differ, as optax divides two averages by two corrections."""
    model = Net()
    optimizer, theirs = Optimizer(model, OptimConfig(name="muon", peak_lr=LR), STEPS), {}
    before, grad = flat(model), flat(gradients(model)[0])
    optimizer.update(model, gradients(model)[0])
    for name in MATRICES:
        kernel, rule = jnp.asarray(before[name], jnp.float32), optax.contrib.muon(LR)
        update, _ = rule.update(jnp.asarray(grad[name], jnp.float32), rule.init(kernel), kernel)
        theirs[name] = np.asarray(update)
    assert_close({name: flat(model)[name] - before[name] for name in theirs}, theirs)


def test_muon_makes_the_update_of_a_matrix_nearly_orthogonal():
    """Five Newton-Schulz iterations bring the singular values near 1 (0.7 to 1.2 as published)."""
    model = Net()
    optimizer = Optimizer(model, OptimConfig(name="muon", peak_lr=LR, momentum=0.9), STEPS)
    grads = gradients(model)
    # One direction a hundred times as strong as the others, which plain descent would follow.
    grads[0].dense.kernel[...] += 100 * jnp.outer(jnp.ones(4), jnp.ones(3))
    before = flat(model)
    optimizer.update(model, grads[0])
    step = (before["dense/kernel"] - flat(model)["dense/kernel"]) / LR
    singular = np.linalg.svd(step, compute_uv=False)
    scale = singular.mean()
    assert np.all((singular / scale > 0.6) & (singular / scale < 1.4)), singular
    assert 0.5 < scale < 1.5  # max(1, rows / columns)^0.5 times the published 0.7 to 1.2
    gradient = np.linalg.svd(flat(grads[0])["dense/kernel"], compute_uv=False)
    assert gradient[0] / gradient[-1] > 50
    # Vectors, and kernels of convolutions, move by Adam: its first step is the learning rate.
    for name in ("dense/bias", "conv/kernel"):
        np.testing.assert_allclose(np.abs(before[name] - flat(model)[name]), LR, rtol=1e-3)


def test_muon_takes_epsilon():
    moved = []
    for epsilon in (1e-8, 1.0):
        model = Net()
        optimizer = Optimizer(model, OptimConfig(name="muon", peak_lr=LR, epsilon=epsilon), 1)
        before = flat(model)["dense/bias"]
        optimizer.update(model, gradients(model)[0])
        moved.append(np.abs(flat(model)["dense/bias"] - before).max())
    assert moved[1] < 0.9 * moved[0]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, {0: 2.0, 7: 2.0, 99: 2.0}),
        ({"warmup_steps": 4}, {0: 0.0, 1: 0.5, 3: 1.5, 4: 2.0, 50: 2.0}),
        ({"schedule": "linear"}, {0: 2.0, 25: 1.5, 50: 1.0, 100: 0.0, 150: 0.0}),
        ({"schedule": "linear", "final_lr_fraction": 0.5}, {0: 2.0, 50: 1.5, 100: 1.0}),
        ({"schedule": "cosine"}, {0: 2.0, 25: 1 + math.cos(math.pi / 4), 50: 1.0, 100: 0.0}),
        (
            {"schedule": "cosine", "warmup_steps": 20, "final_lr_fraction": 0.1},
            {0: 0.0, 10: 1.0, 20: 2.0, 60: 1.1, 100: 0.2},
        ),
        ({"schedule": "linear", "warmup_steps": 100}, {50: 1.0, 99: 1.98, 100: 2.0}),
    ],
)
def test_schedule(fields, expected):
    schedule = learning_rate(OptimConfig(peak_lr=2.0, **fields), 100)
    for step, value in expected.items():
        assert abs(np.asarray(schedule(step)) - value) < 1e-6, step


def test_the_schedule_is_what_the_update_uses():
    config = OptimConfig(name="gradient-descent", peak_lr=0.4, schedule="linear", warmup_steps=2)
    model = Net()
    optimizer = Optimizer(model, config, STEPS)
    ones = jax.tree.map(jnp.ones_like, nnx.state(model, nnx.Param))
    for expected in (0.0, 0.2, 0.4, 0.3, 0.2, 0.1):
        before = flat(model)["dense/bias"]
        assert_close(optimizer.learning_rate(), expected)
        optimizer.update(model, ones)
        np.testing.assert_allclose(before - flat(model)["dense/bias"], expected, atol=1e-6)


def test_average_follows_its_recurrence():
    decay = 0.7
    config = OptimConfig(name="adam", peak_lr=LR, ema_decay=decay, clip_norm=1.0)
    model, optimizer, _, path = trained(config)
    average = path[0]
    for theta in path[1:]:
        average = {name: decay * average[name] + (1 - decay) * theta[name] for name in theta}
    found = optimizer.averaged(model)
    assert_close(flat(found), average)
    assert_close(flat(model), path[-1])  # asking for the average leaves the model alone
    x = jnp.ones((2, 4))
    expected = np.ones((2, 4)) @ average["dense/kernel"] + average["dense/bias"]
    assert isinstance(found, Net)
    assert_close(found.dense(x), expected)


def test_the_average_does_not_change_the_training():
    without = trained(OptimConfig(name="momentum", peak_lr=LR))[3]
    beside = trained(OptimConfig(name="momentum", peak_lr=LR, ema_decay=0.9))[3]
    assert all(np.array_equal(without[-1][name], beside[-1][name]) for name in without[-1])


def test_without_an_average_the_model_itself_is_evaluated():
    model, optimizer, _, _ = trained(OptimConfig())
    assert optimizer.averaged(model) is model


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"peak_lr": 0.0}, "peak_lr=0.0 must be positive"),
        ({"warmup_steps": -1}, "warmup_steps=-1 must not be negative"),
        ({"final_lr_fraction": 1.5}, r"final_lr_fraction=1.5 must lie in \[0, 1\]"),
        ({"momentum": 1.0}, r"momentum=1.0 must lie in \[0, 1\)"),
        ({"beta1": -0.1}, r"beta1=-0.1 must lie in \[0, 1\)"),
        ({"beta2": 1.0}, r"beta2=1.0 must lie in \[0, 1\)"),
        ({"epsilon": 0.0}, "epsilon=0.0 must be positive"),
        ({"weight_decay": -1.0}, "weight_decay=-1.0 must be finite and not negative"),
        ({"weight_decay": 0.1}, "weight_decay=0.1 has no effect with name='adam'; use adamw"),
        ({"clip_norm": 0.0}, "clip_norm=0.0 must be positive"),
        ({"ema_decay": 1.0}, r"ema_decay=1.0 must lie in \(0, 1\)"),
    ],
)
def test_bad_config(fields, says):
    with pytest.raises(ValueError, match=says):
        OptimConfig(**fields)


@pytest.mark.parametrize("field", ["peak_lr", "epsilon", "weight_decay", "clip_norm"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_numbers_must_be_finite(field, value):
    with pytest.raises(ValueError, match=field):
        OptimConfig(name="adamw", **{field: value})

"""Skip-gram against PyTorch: the loss with its gradient, and the updates of a whole step."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import zoo
from tests.close import assert_close
from tests.train import tiny
from tests.zoo.compare import random
from train.losses import negative_sampling
from train.sync import Sync
from train.tasks import make_task

torch = pytest.importorskip("torch")


def torch_loss(score, noise):
    """Equation 4, pair by pair."""
    sigmoid = torch.nn.functional.logsigmoid
    return -sigmoid(score) - sigmoid(-noise).sum(-1)


def test_the_loss_and_its_gradient_are_those_of_pytorch():
    scores, noise = random(7, seed=1), random(7, 5, seed=2)
    tensors = [torch.tensor(np.asarray(x), requires_grad=True) for x in (scores, noise)]
    expected = torch_loss(*tensors)
    expected.sum().backward()
    assert_close(negative_sampling(scores, noise), expected)
    gradients = jax.grad(lambda *x: negative_sampling(*x).sum(), argnums=(0, 1))(scores, noise)
    for ours, theirs in zip(gradients, tensors, strict=True):
        assert_close(ours, theirs.grad)
    # In closed form: σ(z) - 1 for the pair, σ(z) for noise.
    assert_close(gradients[0], jax.nn.sigmoid(scores) - 1)
    assert_close(gradients[1], jax.nn.sigmoid(noise))


def test_a_step_is_the_updates_of_pytorch():
    from benchmarks.twins.torch_word2vec import SkipGram as TorchSkipGram

    task: Any = make_task(tiny.recipe("word2vec"), zoo.Ops())
    objects = task.build(nnx.Rngs(0))
    model, config = objects["model"], task.config
    model.contexts.table[...] = 0.1 * random(*model.contexts.table.shape)
    words, contexts = (np.asarray(table.table[...]) for table in (model.words, model.contexts))
    twin = TorchSkipGram(words, contexts, config.window, config.negatives)
    batch = task.data.train.gather(np.arange(8))
    lr = task.recipe.optim.peak_lr
    done = [
        twin.update({name: rows[i : i + 4] for name, rows in batch.items()}, lr) for i in (0, 4)
    ]
    metrics = task.train_step(objects, jax.tree.map(jnp.asarray, batch), Sync())
    assert_close(metrics["train/loss"], np.divide(*np.sum(done, axis=0)))
    assert_close(model.words.table[...], twin.words, kind="composite")
    assert_close(model.contexts.table[...], twin.contexts, kind="composite")
    moved = (np.asarray(model.words.table[...]) != words).any(1)
    assert 0 < moved.sum() < len(moved)
    assert int(objects["optimizer"].step[...]) == 1

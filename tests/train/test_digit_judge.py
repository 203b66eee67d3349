"""The judge of generated digits: its weights are those released, and it knows digits."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kernels
from tests.close import assert_close
from train import digit_judge
from train.data import DataConfig, embedded, load
from train.digit_judge import DigitJudge
from train.errors import UserError


@pytest.fixture(scope="module")
def judge():
    return DigitJudge(kernels.best())


@pytest.fixture(scope="module")
def held_out():
    return load(DataConfig()).eval.arrays()


def test_it_is_the_recorded_network(judge, held_out):
    """As accurate on the held-out digits as the recorded run of digits-convnet."""
    _, probabilities = jax.jit(judge)(held_out["inputs"])
    right = np.asarray(probabilities).argmax(-1) == held_out["targets"]
    path = embedded.FOLDER.parents[2] / "benchmarks" / "results" / "digits-convnet.json"
    recorded = json.loads(path.read_text())["metrics"]["eval/accuracy"]
    assert right.mean() == pytest.approx(recorded, abs=1e-9)
    assert_close(probabilities.sum(-1), np.ones(1000))


def test_features_come_before_the_last_layer(judge, held_out):
    images = held_out["inputs"][:600]  # more than one chunk, and not a whole number of them
    features = judge.features(images)
    assert features.shape == (600, 128)
    classifier = judge.model.classifier
    logits = features @ np.asarray(classifier.kernel[...]) + np.asarray(classifier.bias[...])
    assert_close(jax.nn.softmax(jnp.asarray(logits)), judge(jnp.asarray(images))[1])


def test_other_weights_are_refused(monkeypatch, tmp_path):
    """A file that was exchanged, and one that is gone; nothing is unpickled or run."""
    name = digit_judge.WEIGHTS
    content = bytearray((embedded.FOLDER / name).read_bytes())
    content[-1] ^= 1
    (tmp_path / name).write_bytes(bytes(content))
    monkeypatch.setattr(embedded, "FOLDER", tmp_path)
    with pytest.raises(UserError, match=r"digits_convnet.safetensors is corrupt: its SHA-256"):
        DigitJudge(kernels.best())
    (tmp_path / name).unlink()
    with pytest.raises(UserError, match=r"digits_convnet.safetensors cannot be read"):
        DigitJudge(kernels.best())

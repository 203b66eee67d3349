"""Models by name."""

import subprocess
import sys

import pytest
from flax import nnx

import zoo
from zoo.registry import MODELS


def test_every_name_builds():
    for name in zoo.names():
        model = nnx.eval_shape(lambda name=name: zoo.create(name, rngs=nnx.Rngs(0)))
        assert type(model).__name__ == MODELS[name].model
        assert type(model).__module__ == f"zoo.models.{MODELS[name].module}"


def test_overrides_reach_the_config(rngs):
    model = zoo.create("linear-regression", rngs=rngs, num_features=4, num_outputs=2)
    assert model.linear.kernel.shape == (4, 2)


def test_equal_seeds_give_equal_models():
    first, second, other = (
        zoo.create("mlp", rngs=nnx.Rngs(seed), input_shape=(3,), hidden_dims=(3,), num_classes=3)
        for seed in (0, 0, 1)
    )
    assert (first.classifier.kernel[...] == second.classifier.kernel[...]).all()
    assert (first.classifier.kernel[...] != other.classifier.kernel[...]).all()


def test_a_wrong_name_is_answered_with_the_nearest(rngs):
    with pytest.raises(ValueError, match="unknown model 'resnet-18'; did you mean 'resnet18'"):
        zoo.create("resnet-18", rngs=rngs)
    with pytest.raises(ValueError, match="unknown model 'zzz'; known are linear-regression, "):
        zoo.create("zzz", rngs=rngs)


def test_a_wrong_field_is_answered_with_the_nearest(rngs):
    with pytest.raises(ValueError, match="MLPConfig has no field 'hidden_dim'; did you mean"):
        zoo.create("mlp", rngs=rngs, hidden_dim=3)


def test_every_row_says_what_it_is():
    assert all(row.summary for row in MODELS.values())


def test_importing_zoo_does_not_import_jax():
    code = "import sys, zoo; print('jax' in sys.modules, sorted(dir(zoo)) == sorted(zoo.__all__))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False True\n"


def test_an_unknown_attribute_is_answered_with_the_known_ones():
    with pytest.raises(AttributeError, match="no attribute 'creat'; it has Ops, "):
        _ = zoo.creat  # pyright: ignore[reportAttributeAccessIssue] # what the test is about

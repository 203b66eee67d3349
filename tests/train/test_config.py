"""Recipes to JSON and back, what is refused on the way, and how two configs are told apart."""

import dataclasses
import json
from pathlib import Path

import pytest

from train.config import CheckpointConfig, Recipe, differences, from_json, to_json
from train.data import DataConfig
from train.errors import UserError
from train.recipes import RECIPES

MLP = RECIPES["digits-mlp"].load()


def through_json(recipe: Recipe) -> Recipe:
    return from_json(RECIPES[recipe.name].load(), json.loads(json.dumps(to_json(recipe))))


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_survives_json(name):
    recipe = RECIPES[name].load()
    assert through_json(recipe) == recipe
    assert type(through_json(recipe).model) is type(recipe.model)


def test_changed_fields_survive_json():
    changed = dataclasses.replace(
        MLP,
        model=dataclasses.replace(MLP.model, hidden_dims=(7, 5, 3), dropout_rate=0.0),
        data=DataConfig(
            name="a+tfds:b", weights=(0.25, 4.0), data_dir=Path("some/where"), resize=8
        ),
        optim=dataclasses.replace(MLP.optim, clip_norm=0.1 + 0.2, ema_decay=0.999, peak_lr=3e-4),
        checkpoint=CheckpointConfig(every=7, keep=1),
        seed=2**63,
    )
    assert through_json(changed) == changed
    assert isinstance(through_json(changed).data.data_dir, Path)
    # An optional field that the recipe sets can go back to None.
    base = dataclasses.replace(MLP, optim=dataclasses.replace(MLP.optim, clip_norm=5.0))
    assert from_json(base, to_json(MLP)) == MLP


def test_fields_stand_in_the_order_of_their_declaration():
    assert list(to_json(MLP)) == [field.name for field in dataclasses.fields(Recipe)]


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"stepz": 3}, "config has no field 'stepz'; it has name, model"),
        ({"optim": {"lr": 3}}, "optim has no field 'lr'; it has name, peak_lr"),
        ({"optim": 3}, "optim is 3; expected an object with fields"),
        ({"steps": 0}, "config: steps=0 must be at least 1"),
        ({"optim": {"peak_lr": -1.0}}, "optim: peak_lr=-1.0 must be positive"),
        ({"data": {"name": "a+"}}, "data: self.name='a[+]' has an empty part"),
        ({"steps": "many"}, "steps is 'many'; expected a value like 1000"),
        ({"data": {"deduplicate": 1}}, "data.deduplicate is 1; expected a value like True"),
    ],
)
def test_what_does_not_fit_is_named(values, says):
    with pytest.raises(UserError, match=says) as caught:
        from_json(MLP, values)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"steps": 0}, "steps=0 must be at least 1"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"num_microbatches": 0}, "num_microbatches=0"),
        ({"num_microbatches": 3}, "num_microbatches=3 must divide batch_size=64"),
        ({"eval_every": 0}, "eval_every=0"),
        ({"eval_batch_size": -1}, "eval_batch_size=-1"),
        ({"log_every": 0}, "log_every=0"),
        ({"seed": -1}, "seed=-1 must not be negative"),
    ],
)
def test_bad_recipe(fields, says):
    with pytest.raises(ValueError, match=says):
        dataclasses.replace(MLP, **fields)


@pytest.mark.parametrize("fields", [{"every": 0}, {"keep": 0}])
def test_bad_checkpoint_config(fields):
    with pytest.raises(ValueError, match="must be at least 1"):
        CheckpointConfig(**fields)


def test_differences_name_the_leaves():
    other = dataclasses.replace(
        MLP,
        steps=7,
        model=dataclasses.replace(MLP.model, hidden_dims=(4,)),
        optim=dataclasses.replace(MLP.optim, clip_norm=1.0),
    )
    assert differences(to_json(MLP), to_json(MLP)) == []
    assert differences(to_json(MLP), to_json(other)) == [
        "model.hidden_dims: [256, 128], [4]",
        "optim.clip_norm: None, 1.0",
        "steps: 1000, 7",
    ]
    assert differences({"a": 1}, {"a": 1, "b": {"c": 2}}) == ["b: None, {'c': 2}"]

"""A recipe for a model of `zoo.registry` alone, and data of which only the sizes are known.

`python -m train plan gpt3-175b` compiles a training step without a data set: the model is trained
as models of its kind are, on windows as long as its context, with as many tokens as its vocabulary,
or on images with as many classes as it tells apart; by AdamW, in bfloat16 with float32 parameters.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from train.config import Recipe
from train.data import AugmentConfig, DataConfig, TextConfig
from train.errors import UserError
from train.optim import OptimConfig
from train.recipes import RECIPES
from train.tasks.classification import ClassificationConfig
from train.tasks.language_model import LanguageModelConfig
from train.tasks.masked_words import MaskedWordsConfig
from zoo.registry import MODELS, config

Shapes = dict[str, tuple[tuple[int, ...], str]]  # input -> shape of one row, and dtype

LANGUAGE_MODELS = ("GPTConfig", "LlamaConfig", "LSTMLanguageModelConfig")
CLASSIFIERS = ("ConvNetConfig", "ResNetConfig")
TOKENS_PER_DEVICE = 2048  # of a batch that nobody has chosen
IMAGES_PER_DEVICE = 64


@dataclass(frozen=True)
class Vocabulary:
    """What a task asks of a tokenizer, where there are no words."""

    size: int

    def get_vocab_size(self) -> int:
        return self.size

    def token_to_id(self, token: str) -> int:
        """Any number will do."""
        return 0


@dataclass(frozen=True)
class TextSizes:
    """In the place of `train.data.text.RunningText`."""

    name: str
    tokenizer: Vocabulary
    window: int

    def frequencies(self) -> np.ndarray:
        return np.full(self.tokenizer.size, 1 / self.tokenizer.size)

    def shapes(self) -> Shapes:
        """Of a batch, without its first axis."""
        return dict.fromkeys(("inputs", "targets"), ((self.window,), "int32"))


@dataclass(frozen=True)
class ImageSizes:
    """In the place of `train.data.Dataset`."""

    name: str
    input_shape: tuple[int, int, int]
    num_classes: int

    @property
    def mean(self) -> np.ndarray:
        return np.zeros(self.input_shape[-1:], np.float32)

    @property
    def std(self) -> np.ndarray:
        return np.ones(self.input_shape[-1:], np.float32)

    def shapes(self) -> Shapes:
        """Of a batch, without its first axis."""
        return {"inputs": (self.input_shape, "uint8"), "targets": ((), "int32")}


def preset_recipe(name: str) -> Recipe:
    """How a model of `zoo.names()` is trained; the size of its batch is that of one device.

    Raises:
      UserError: models of its kind are trained by recipes alone.
    """
    model = config(name)
    kind = type(model).__name__
    shared: dict[str, Any] = {"name": name, "model": model, "compute_dtype": "bfloat16"}
    optim = OptimConfig(name="adamw", peak_lr=1e-4, weight_decay=0.1, clip_norm=1.0)
    window = getattr(model, "context", LanguageModelConfig().window)
    if kind in LANGUAGE_MODELS:
        task: Any = LanguageModelConfig(window=window, baseline="none")
    elif kind == "BERTConfig":
        task = MaskedWordsConfig(window=window, baseline="none")
    elif kind in CLASSIFIERS:
        task = ClassificationConfig(augment=AugmentConfig(), baseline="none")
        return Recipe(
            **shared, task=task, data=DataConfig(), optim=optim, batch_size=IMAGES_PER_DEVICE
        )
    else:
        trained = [n for n, row in RECIPES.items() if _module(row.model) == _module(name)]
        hint = f"plan the recipe {', '.join(trained)}" if trained else "no recipe trains it"
        raise UserError(f"model {name!r} is of no kind to be planned without data; {hint}")
    found = Recipe(**shared, task=task, data=TextConfig(), optim=optim)
    return replace(found, batch_size=rows_per_device(found))


def rows_per_device(recipe: Recipe) -> int:
    """Of a preset's batch where nobody has chosen another."""
    window = getattr(recipe.task, "window", None)
    return max(1, TOKENS_PER_DEVICE // window) if window else IMAGES_PER_DEVICE


def sizes(recipe: Recipe) -> TextSizes | ImageSizes:
    """What a task has to know of the data of a preset."""
    model = recipe.model
    if isinstance(recipe.task, LanguageModelConfig):
        return TextSizes(recipe.name, Vocabulary(model.vocab_size), recipe.task.window)
    if isinstance(recipe.task, MaskedWordsConfig):  # the first token of a window is a mark
        return TextSizes(recipe.name, Vocabulary(model.vocab_size), recipe.task.window - 1)
    square = 32 if getattr(model, "stem", "imagenet") == "cifar" else 224
    height, width = getattr(model, "image_size", (square, square))
    return ImageSizes(recipe.name, (height, width, model.in_channels), model.num_classes)


def rematerialised(recipe: Recipe) -> Recipe | None:
    """The recipe with activations that are computed twice; None where that is no choice."""
    if getattr(recipe.model, "remat", None) is not False:
        return None
    return replace(recipe, model=replace(recipe.model, remat=True))


def _module(model: str) -> str:
    return MODELS[model].module

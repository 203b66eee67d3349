"""The models by name: one literal table, and the functions that build from it."""

import dataclasses
import difflib
import importlib
from dataclasses import dataclass
from typing import Any

from flax import nnx

from zoo.functional.ops import Ops


@dataclass(frozen=True)
class Preset:
    """Where a named model lives; the module is imported when the model is first asked for."""

    module: str  # below zoo.models
    model: str  # class; its config is the class of that name plus "Config"
    preset: str  # classmethod of the config, or "" for its defaults
    summary: str


MODELS: dict[str, Preset] = {
    "linear-regression": Preset("linear", "LinearRegression", "", "one matrix product"),
    "logistic-regression": Preset(
        "linear", "LogisticRegression", "", "one matrix product, softmax"
    ),
    "mlp": Preset("mlp", "MLP", "", "dense 256-128-10"),
    "convnet-32-64": Preset("convnet", "ConvNet", "convnet_32_64", "3x3 conv 32-64, dense 128-10"),
    "convnet-64-128": Preset(
        "convnet", "ConvNet", "convnet_64_128", "3x3 conv 64-128, dense 128-10"
    ),
    "resnet18": Preset("resnet", "ResNet", "resnet18", "18 layers, ImageNet stem"),
    "resnet34": Preset("resnet", "ResNet", "resnet34", "34 layers, ImageNet stem"),
    "resnet50": Preset("resnet", "ResNet", "resnet50", "50 layers, bottlenecks, ImageNet stem"),
    "resnet18-cifar": Preset("resnet", "ResNet", "resnet18_cifar", "18 layers, CIFAR stem"),
    "resnet34-cifar": Preset("resnet", "ResNet", "resnet34_cifar", "34 layers, CIFAR stem"),
    "resnet50-cifar": Preset("resnet", "ResNet", "resnet50_cifar", "50 layers, CIFAR stem"),
    "stacked-lstm": Preset("lstm", "StackedLSTM", "stacked_64_32_16", "LSTM 64-32-16, dense"),
    "lstm-classifier": Preset(
        "lstm", "LSTMClassifier", "sentiment", "embedding, LSTM of 100, one logit"
    ),
    "lstm-lm": Preset("lstm", "LSTMLanguageModel", "characters", "2 LSTMs of 256 for characters"),
    "lstm-lm-medium": Preset("lstm", "LSTMLanguageModel", "ptb_medium", "2 LSTMs of 650"),
    "lstm-lm-large": Preset("lstm", "LSTMLanguageModel", "ptb_large", "2 LSTMs of 1500"),
    "seq2seq-nano": Preset(
        "seq2seq", "LSTMSeq2Seq", "nano", "LSTMs with attention, 2 + 2 layers of 192"
    ),
    "seq2seq-luong": Preset(
        "seq2seq", "LSTMSeq2Seq", "luong", "LSTMs with attention, 4 + 4 layers of 1000"
    ),
    "dcgan-28": Preset("gan", "GAN", "dcgan_28", "generator and discriminator for 28 pixels"),
    "dcgan-64": Preset("gan", "GAN", "dcgan_64", "generator and discriminator for 64 pixels"),
    "autoencoder": Preset(
        "autoencoder", "Autoencoder", "convolutional", "convolutions to a code of 32 and back"
    ),
    "autoencoder-dense": Preset(
        "autoencoder", "Autoencoder", "dense", "784-1000-500-250-30 and back"
    ),
    "vae": Preset("vae", "VAE", "", "convolutions to 32 Gaussians and back"),
    "unet-digits": Preset("diffusion", "UNet", "digits", "2 levels of 32 and 64 for 28 pixels"),
    "unet-cifar10": Preset("diffusion", "UNet", "cifar10", "4 levels of 128 to 256 for 32 pixels"),
    "word2vec": Preset("word2vec", "SkipGram", "", "two tables of 100 numbers a word"),
    "gpt-nano": Preset("gpt", "GPT", "nano", "4 layers of 128 for characters"),
    "gpt2-small": Preset("gpt", "GPT", "gpt2_small", "12 layers of 768"),
    "gpt2-medium": Preset("gpt", "GPT", "gpt2_medium", "24 layers of 1024"),
    "gpt2-large": Preset("gpt", "GPT", "gpt2_large", "36 layers of 1280"),
    "gpt2-xl": Preset("gpt", "GPT", "gpt2_xl", "48 layers of 1600"),
    "gpt3-175b": Preset("gpt", "GPT", "gpt3_175b", "96 layers of 12288"),
    "llama-nano": Preset("llama", "Llama", "nano", "4 layers of 128 for characters"),
    "smollm2-135m": Preset("llama", "Llama", "smollm2_135m", "30 layers of 576"),
    "llama-8b": Preset("llama", "Llama", "llama_8b", "Llama 3, 32 layers of 4096"),
    "llama-70b": Preset("llama", "Llama", "llama_70b", "Llama 3, 80 layers of 8192"),
    "mixtral-8x7b": Preset("llama", "Llama", "mixtral_8x7b", "32 layers of 4096, 2 of 8 experts"),
    "bert-nano": Preset("bert", "BERT", "nano", "4 layers of 128 for small texts"),
    "minilm": Preset("bert", "BERT", "minilm", "6 layers of 384"),
    "bert-base": Preset("bert", "BERT", "base", "12 layers of 768"),
    "bert-large": Preset("bert", "BERT", "large", "24 layers of 1024"),
    "transformer-nano": Preset(
        "transformer", "Transformer", "nano", "encoder-decoder, 3 + 3 layers of 128"
    ),
    "transformer-base": Preset(
        "transformer", "Transformer", "base", "encoder-decoder, 6 + 6 layers of 512"
    ),
    "transformer-big": Preset(
        "transformer", "Transformer", "big", "encoder-decoder, 6 + 6 layers of 1024"
    ),
}


def names() -> list[str]:
    """The names that `create` knows."""
    return list(MODELS)


def config(name: str, **overrides: Any) -> Any:
    """The named preset's config, with fields replaced.

    Raises:
        ValueError: no such model or no such field (the nearest name is given), or a bad value.
    """
    if name not in MODELS:
        raise ValueError(f"unknown model {name!r}{_nearest(name, names())}")
    row = MODELS[name]
    config_class = getattr(_module(row), f"{row.model}Config")
    preset = getattr(config_class, row.preset)() if row.preset else config_class()
    fields = [field.name for field in dataclasses.fields(preset)]
    for field in overrides:
        if field not in fields:
            raise ValueError(
                f"{config_class.__name__} has no field {field!r}{_nearest(field, fields)}"
            )
    return dataclasses.replace(preset, **overrides)


def build(config: Any, *, rngs: nnx.Rngs, ops: Ops = Ops()) -> Any:
    """The model that a config describes: the class beside `XConfig` named `X`."""
    config_class = type(config)
    module = importlib.import_module(config_class.__module__)
    return getattr(module, config_class.__name__.removesuffix("Config"))(config, rngs=rngs, ops=ops)


def create(name: str, *, rngs: nnx.Rngs, ops: Ops = Ops(), **overrides: Any) -> Any:
    """Build a named model, for example `create("resnet18", rngs=nnx.Rngs(0), num_classes=10)`.

    Args:
        name: one of `names()`.
        rngs: the stream `params` draws the initial parameters.
        ops: which implementation of each operation to use; the reference by default.
        **overrides: config fields to change.

    Raises:
        ValueError: no such model or no such field (the nearest name is given), or a bad value.
    """
    return build(config(name, **overrides), rngs=rngs, ops=ops)


def _module(row: Preset) -> Any:
    return importlib.import_module(f"zoo.models.{row.module}")


def _nearest(name: str, known: list[str]) -> str:
    match = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {match[0]!r}?" if match else f"; known are {', '.join(known)}"

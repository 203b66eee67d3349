"""The literal table of recipes. A new recipe is one file in this folder and one row here.

The table holds only words and numbers, so that ``python -m train list`` answers without importing
JAX; :meth:`Row.load` imports the recipe itself.
"""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from train.config import Recipe


@dataclass(frozen=True)
class Relative:
    """A threshold measured against the baseline of the same run: ``times · baseline + plus``."""

    times: float = 1.0
    plus: float = 0.0

    def __str__(self) -> str:
        factor = "baseline" if self.times == 1 else f"{self.times:g} x baseline"
        return (
            factor
            if not self.plus
            else f"{factor} {'+' if self.plus > 0 else '-'} {abs(self.plus):g}"
        )


@dataclass(frozen=True, kw_only=True)
class Row:
    """What a recipe is expected to reach, and where it is written."""

    about: str  # one line for `list` and `--help`
    module: str  # holds RECIPE
    model: str
    task: str
    dataset: str
    metric: str  # of the evaluation split, after the last step
    direction: Literal["max", "min"]  # which way the metric is better
    threshold: float | Relative
    seconds: int  # expected training time on 2 CPU cores
    least: Mapping[str, float] = field(default_factory=dict)  # other metrics, and what they need

    def load(self) -> "Recipe":
        """The recipe itself."""
        return importlib.import_module(self.module).RECIPE

    def threshold_value(self, baseline: float | None) -> float | None:
        """The threshold as a number; None when it is relative and there is no baseline."""
        if not isinstance(self.threshold, Relative):
            return self.threshold
        if baseline is None:
            return None
        return self.threshold.times * baseline + self.threshold.plus

    def passed(self, metrics: Mapping[str, float], baseline: float | None) -> bool | None:
        """Whether the metrics meet the threshold, and beat a baseline that is not part of it."""
        value = metrics[self.metric]
        threshold = self.threshold_value(baseline)
        if threshold is None:
            return None
        sign = 1 if self.direction == "max" else -1
        beats = (
            baseline is None
            or isinstance(self.threshold, Relative)
            or sign * value > sign * baseline
        )
        enough = all(metrics[name] >= needed for name, needed in self.least.items())
        return sign * value >= sign * threshold and beats and enough


RECIPES: dict[str, Row] = {
    "linear-diabetes": Row(
        about="Linear regression by gradient descent, against its closed form",
        module="train.recipes.linear_diabetes",
        model="linear-regression",
        task="regression",
        dataset="diabetes",
        metric="rmse",
        direction="min",
        threshold=Relative(times=1.005),
        seconds=10,
    ),
    "logistic-cancer": Row(
        about="Logistic regression on 30 measurements of cell nuclei",
        module="train.recipes.logistic_cancer",
        model="logistic-regression",
        task="classification",
        dataset="breast_cancer",
        metric="accuracy",
        direction="max",
        threshold=Relative(plus=-0.01),
        seconds=10,
    ),
    "digits-mlp": Row(
        about="A multilayer perceptron on handwritten digits",
        module="train.recipes.digits_mlp",
        model="mlp",
        task="classification",
        dataset="mnist_5k",
        metric="accuracy",
        direction="max",
        threshold=0.93,
        seconds=20,
    ),
    "digits-convnet": Row(
        about="Two convolutions and two dense layers on handwritten digits",
        module="train.recipes.digits_convnet",
        model="convnet-32-64",
        task="classification",
        dataset="mnist_5k",
        metric="accuracy",
        direction="max",
        threshold=0.98,
        seconds=60,
    ),
    "digits-resnet": Row(
        about="ResNet-18 with the CIFAR stem on handwritten digits",
        module="train.recipes.digits_resnet",
        model="resnet18-cifar",
        task="classification",
        dataset="mnist_5k",
        metric="accuracy",
        direction="max",
        threshold=0.985,
        seconds=720,
    ),
    "digits-gan": Row(
        about="A DCGAN that draws handwritten digits",
        module="train.recipes.digits_gan",
        model="dcgan-28",
        task="adversarial",
        dataset="mnist_5k",
        metric="digit_fid",
        direction="min",
        threshold=22.8,  # 1.1 times the PyTorch twin's mean of three seeds
        seconds=400,
        least={"smallest_class_share": 0.03},
    ),
    "digits-cgan": Row(
        about="The same DCGAN, told which digit to draw",
        module="train.recipes.digits_cgan",
        model="dcgan-28",
        task="adversarial",
        dataset="mnist_5k",
        metric="digit_fid",
        direction="min",
        threshold=Relative(),
        seconds=600,
        least={"smallest_class_share": 0.03},
    ),
    "digits-wgan-gp": Row(
        about="A Wasserstein GAN with gradient penalty that draws digits",
        module="train.recipes.digits_wgan_gp",
        model="dcgan-28",
        task="adversarial",
        dataset="mnist_5k",
        metric="digit_fid",
        direction="min",
        threshold=Relative(),
        seconds=1000,
        least={"smallest_class_share": 0.03},
    ),
    "digits-autoencoder": Row(
        about="Digits through a code of 32 numbers and back",
        module="train.recipes.digits_autoencoder",
        model="autoencoder",
        task="reconstruction",
        dataset="mnist_5k",
        metric="mse",
        direction="min",
        threshold=Relative(times=0.8),
        seconds=60,
    ),
    "digits-vae": Row(
        about="A variational autoencoder: digits explained by 32 Gaussian numbers",
        module="train.recipes.digits_vae",
        model="vae",
        task="variational",
        dataset="mnist_5k",
        metric="elbo",
        direction="max",
        threshold=Relative(),
        seconds=120,
    ),
    "digits-diffusion": Row(
        about="A U-Net that turns noise into handwritten digits",
        module="train.recipes.digits_diffusion",
        model="unet-digits",
        task="diffusion",
        dataset="mnist_5k",
        metric="digit_fid",
        direction="min",
        threshold=Relative(),
        seconds=900,
        least={"smallest_class_share": 0.03},
    ),
    "vowels-lstm": Row(
        about="Stacked LSTMs that know a speaker by two vowels",
        module="train.recipes.vowels_lstm",
        model="stacked-lstm",
        task="sequence-classification",
        dataset="japanese_vowels",
        metric="accuracy",
        direction="max",
        threshold=0.95,
        seconds=60,
    ),
    "sentiment-lstm": Row(
        about="An LSTM that tells kind reviews from unkind ones",
        module="train.recipes.sentiment_lstm",
        model="lstm-classifier",
        task="text-classification",
        dataset="vader",
        metric="accuracy",
        direction="max",
        threshold=Relative(plus=-0.03),
        seconds=180,
    ),
    "bible-bert": Row(
        about="A small BERT that finds hidden words",
        module="train.recipes.bible_bert",
        model="bert-nano",
        task="masked-words",
        dataset="bible",
        metric="loss",
        direction="min",
        threshold=Relative(plus=-2.0),
        seconds=600,
    ),
    "intents-srl": Row(
        about="A small BERT that finds the roles in commands to a house",
        module="train.recipes.intents_srl",
        model="bert-nano",
        task="tagging",
        dataset="intents",
        metric="span_f1",
        direction="max",
        threshold=0.9,
        seconds=240,
    ),
    "bible-gpt": Row(
        about="A small GPT that writes English, character by character",
        module="train.recipes.bible_gpt",
        model="gpt-nano",
        task="language-model",
        dataset="bible",
        metric="nats_per_char",
        direction="min",
        threshold=1.67,
        seconds=90,
    ),
    "bible-llama": Row(
        about="A small Llama that writes English, character by character",
        module="train.recipes.bible_llama",
        model="llama-nano",
        task="language-model",
        dataset="bible",
        metric="nats_per_char",
        direction="min",
        threshold=1.67,
        seconds=90,
    ),
    "bible-lstm-lm": Row(
        about="Two LSTMs that write English, character by character",
        module="train.recipes.bible_lstm_lm",
        model="lstm-lm",
        task="language-model",
        dataset="bible",
        metric="nats_per_char",
        direction="min",
        threshold=Relative(),
        seconds=300,
    ),
    "cloze-qa": Row(
        about="A small BERT that finds the phrase left out of a verse",
        module="train.recipes.cloze_qa",
        model="bert-nano",
        task="question-answering",
        dataset="bible_cloze",
        metric="exact_match",
        direction="max",
        threshold=Relative(),
        seconds=600,
    ),
    "word2vec": Row(
        about="Skip-gram word vectors from the Bible and descriptions of programs",
        module="train.recipes.word2vec",
        model="word2vec",
        task="word-vectors",
        dataset="bible+debian_synopsis",
        metric="wordsim_spearman",
        direction="max",
        threshold=Relative(plus=-0.02),
        seconds=180,
    ),
    "translate-en-es": Row(
        about="A Transformer that translates English verses into Spanish",
        module="train.recipes.translate_en_es",
        model="transformer-nano",
        task="sequence-to-sequence",
        dataset="bible",
        metric="bleu",
        direction="max",
        threshold=5.0,
        seconds=3600,
    ),
    "translate-lstm": Row(
        about="Two LSTMs with attention that translate the same verses",
        module="train.recipes.translate_lstm",
        model="seq2seq-nano",
        task="sequence-to-sequence",
        dataset="bible",
        metric="bleu",
        direction="max",
        threshold=Relative(),
        seconds=3600,
    ),
    "synopsis": Row(
        about="A Transformer that sums up a program's description in one line",
        module="train.recipes.synopsis",
        model="transformer-nano",
        task="sequence-to-sequence",
        dataset="debian_synopsis",
        metric="rouge_l",
        direction="max",
        threshold=Relative(),
        seconds=1800,
    ),
}

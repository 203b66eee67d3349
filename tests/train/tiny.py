"""Every recipe at a size that compiles and runs in seconds, and a folder of tiny data."""

from pathlib import Path

import numpy as np

from tests.train.data.folders import F, write_set
from train.cli import run_options
from train.config import Recipe
from train.options import parse

_SHORT = "--steps 8 --eval-every 4 --checkpoint.every 2 --log-every 1 --task.baseline none"
_DIGITS = (
    f"{_SHORT} --batch-size 16 --eval-batch-size 30 "
    "--data.train-split train[:200] --data.eval-split test[:50]"
)
_VERSES = (
    f"{_SHORT} --batch-size 8 --eval-batch-size 16 --task.window 16 "
    "--data.train-split verses[:200] --data.eval-split verses[-20:]"
)
_PAIRS = (
    f"{_SHORT} --batch-size 8 --eval-batch-size 8 --task.beam-size 2 --data.vocab-size 300 "
    "--data.train-split train[:60] --data.eval-split test[:12] "
    "--data.max-tokens 24 --data.max-target-tokens 16"
)
_SMALL_TRANSFORMER = "--model.num-layers 2 --model.num-heads 2 --model.dim 16 --model.hidden-dim 32"
_SMALL_CODEC = "--model.conv-dims 4 6 --model.hidden-dims 16"
_SMALL_GAN = "--model.width 4 --model.latent-dim 6 --task.samples-per-image 2"
_FIELDS = {
    "linear-diabetes": f"{_SHORT} --batch-size 50",
    "logistic-cancer": f"{_SHORT} --batch-size 50",
    "digits-mlp": f"{_DIGITS} --model.hidden-dims 16 12",
    "digits-convnet": f"{_DIGITS} --model.conv-dims 4 4 --model.dense-dim 16",
    "digits-resnet": f"{_DIGITS} --model.stage-sizes 1 1 --model.width 4",
    "digits-gan": f"{_DIGITS} {_SMALL_GAN}",
    "digits-cgan": f"{_DIGITS} {_SMALL_GAN}",
    "digits-wgan-gp": f"{_DIGITS} {_SMALL_GAN} --task.discriminator-steps 2",
    "digits-autoencoder": f"{_DIGITS} {_SMALL_CODEC} --model.code-dim 5",
    "digits-vae": f"{_DIGITS} {_SMALL_CODEC} --model.latent-dim 5 --task.samples-per-image 2",
    "digits-diffusion": (
        f"{_DIGITS} --model.width 4 --model.num-groups 2 --model.multipliers 1 "
        "--model.attention False --task.samples-per-image 2 --task.sample-steps 2"
    ),
    "vowels-lstm": f"{_SHORT} --batch-size 10 --eval-batch-size 40 --model.hidden-dims 6 4",
    "sentiment-lstm": (
        f"{_SHORT} --batch-size 10 --eval-batch-size 20 --model.lstm-dim 6 --model.embed-dim 4 "
        "--data.vocab-size 300 --data.train-split train[:100] --data.eval-split test[:30]"
    ),
    "intents-srl": (
        f"{_SHORT} --batch-size 10 --eval-batch-size 20 --model.num-layers 2 --model.num-heads 2 "
        "--model.dim 16 --model.hidden-dim 24 --data.vocab-size 300 "
        "--data.train-split train[:100] --data.eval-split test[:30]"
    ),
    "cloze-qa": (
        f"{_SHORT} --batch-size 8 --eval-batch-size 8 --model.num-layers 2 --model.num-heads 2 "
        "--model.dim 16 --model.hidden-dim 24 --data.vocab-size 400 "
        "--data.train-split train[:100] --data.eval-split test[:30]"
    ),
    "bible-bert": (
        f"{_VERSES} --model.num-layers 2 --model.num-heads 2 --model.dim 16 --model.hidden-dim 24 "
        "--data.vocab-size 400"
    ),
    "bible-gpt": f"{_VERSES} --model.num-layers 2 --model.num-heads 2 --model.dim 16",
    "bible-llama": (
        f"{_VERSES} --model.num-layers 2 --model.num-heads 2 --model.num-kv-heads 1 "
        "--model.dim 16 --model.hidden-dim 24"
    ),
    "bible-lstm-lm": f"{_VERSES} --model.dim 16",
    "word2vec": (
        f"{_SHORT} --batch-size 8 --eval-batch-size 200 --model.dim 8 --task.passes 1 "
        "--task.noise-words 8 --data.splits verses[:3000] test"
    ),
    "translate-en-es": f"{_PAIRS} {_SMALL_TRANSFORMER}",
    "translate-lstm": f"{_PAIRS} --model.dim 16",
    "synopsis": f"{_PAIRS} {_SMALL_TRANSFORMER}",
}


def fields(name: str, *more: str) -> list[str]:
    """The command-line fields that make recipe ``name`` tiny, and the words of ``more``."""
    return " ".join([_FIELDS[name], *more]).split()


def recipe(name: str, *more: str) -> Recipe:
    """The recipe that ``run NAME`` makes of :func:`fields`."""
    kind, default = run_options(name)
    return parse(kind, "run", fields(name, *more), default).recipe


def images(root: Path, side: int = 8) -> Path:
    """A prepared set of grey images in three classes."""
    generator = np.random.default_rng(0)

    def split(count: int) -> list[dict]:
        shape = (side, side, 1)
        return [
            {"image": generator.integers(0, 256, shape, np.uint8), "label": i % 3}
            for i in range(count)
        ]

    features = {
        "image": F.Tensor(shape=(side, side, 1), dtype=np.uint8),
        "label": F.ClassLabel(num_classes=3),
    }
    return write_set(root, features, {"train": split(40), "test": split(20)})


def tree(folder: Path) -> dict[Path, tuple[int, int]]:
    """Every path below a folder, with its size and the time it was last written."""
    return {p: (p.lstat().st_size, p.lstat().st_mtime_ns) for p in folder.rglob("*")}

"""Word vectors as the recipe word2vec learns them: ours against gensim, and PyTorch beside them.

A unit is a pass over every twentieth text of the recipe, with the vocabulary of all. The value of a
pass is how many words were learnt from. It differs a little, since each competitor draws for itself
which of the frequent words it leaves out, and a pass over blocks ends with a whole batch.
"""

import dataclasses
import os
from typing import Any

import numpy as np

from benchmarks.entry import OURS, Arrays, Competitor, Entry, Promise
from train.data.words import Draws, SkipGramSource, Vocabulary

EVERY = 20
PASSES = 40  # that have draws of their own, enough for a measurement


def recipe() -> Any:
    """The recipe, whose settings all competitors share."""
    from train.recipes import RECIPES

    return RECIPES["word2vec"].load()


def prepare(quick: bool) -> dict[str, np.ndarray]:
    """The words with their counts, and the numbers of the words of some texts."""
    from train.data.words import count_words, read_texts

    config = recipe().data
    del quick  # in less text the last batch, which is whole, would be too large a share
    texts = read_texts(config)
    vocabulary = count_words(texts, config.min_count)
    index = vocabulary.index
    numbers = [[index[word] for word in text if word in index] for text in texts[::EVERY]]
    return {
        "words": np.array(vocabulary.words),
        "counts": vocabulary.counts,
        "tokens": np.concatenate([np.array(text, np.int32) for text in numbers]),
        "lengths": np.array([len(text) for text in numbers]),
    }


def known(arrays: Arrays) -> Vocabulary:
    """The vocabulary of the arrays."""
    return Vocabulary(tuple(arrays["words"].tolist()), arrays["counts"])


def texts_of(arrays: Arrays) -> list[np.ndarray]:
    """The numbers of the words of each text."""
    return np.split(arrays["tokens"], np.cumsum(arrays["lengths"])[:-1])


class Blocks:
    """The blocks of PASSES passes, and how many batches one pass has."""

    def __init__(self, arrays: Arrays):
        from train.data import train_batches

        self.recipe = recipe()
        task = self.recipe.task
        names = {field.name for field in dataclasses.fields(Draws)} - {"passes", "seed"}
        settings = {name: getattr(task, name) for name in names}
        draws = Draws(**settings, passes=PASSES, seed=0)
        self.source = SkipGramSource(texts_of(arrays), known(arrays), draws)
        size = self.recipe.batch_size
        self.batches = train_batches(self.source, batch_size=size, seed=0)
        self.per_pass = round(len(self.source) / PASSES / size)
        self.words_per_pass = self.per_pass * size * task.block


class Ours(Blocks):
    """The task's own step, compiled as `train` compiles it."""

    def __init__(self, arrays: Arrays):
        from flax import nnx

        import kernels
        from train.data.dataset import ArraySource
        from train.data.words import WordText
        from train.step import Program
        from train.tasks.word_vectors import WordVectors

        kernels.keep_freed_memory()  # as every run does
        super().__init__(arrays)
        vocabulary = known(arrays)
        text = WordText("some", self.source, ArraySource({}), vocabulary, texts=[])
        task = WordVectors(self.recipe, text, kernels.best())
        self.program = Program(task.build(nnx.Rngs(0)))
        self.program.compile_train(task.train_step, next(self.batches))

    def advance(self) -> list[float]:
        """One pass."""
        import jax

        for _ in range(self.per_pass):
            self.program.train(next(self.batches))
        jax.block_until_ready(self.program.leaves)
        return [float(self.words_per_pass)]


class Torch(Blocks):
    """The same updates of the same blocks, eagerly."""

    def __init__(self, arrays: Arrays):
        import torch

        from benchmarks.twins.torch_word2vec import SkipGram

        super().__init__(arrays)
        torch.set_num_threads(len(os.sched_getaffinity(0)))
        task, shape = self.recipe.task, (len(arrays["words"]), self.recipe.model.dim)
        start = np.random.default_rng(0).uniform(-0.5, 0.5, shape) / shape[1]
        zeros = np.zeros(shape, np.float32)
        self.model = SkipGram(start.astype(np.float32), zeros, task.window, task.negatives)
        self.size = task.update_size

    def advance(self) -> list[float]:
        """One pass."""
        for _ in range(self.per_pass):
            batch = next(self.batches)
            for start in range(0, self.recipe.batch_size, self.size):
                blocks = {name: rows[start : start + self.size] for name, rows in batch.items()}
                self.model.update(blocks, self.recipe.optim.peak_lr)
        return [float(self.words_per_pass)]


class Gensim:
    """gensim's own program, with a thread a core."""

    def __init__(self, arrays: Arrays):
        from gensim.models import Word2Vec

        from train.text_baselines import gensim_settings

        chosen = recipe()
        words = arrays["words"].tolist()
        self.texts = [[words[i] for i in text] for text in texts_of(arrays)]
        self.lr = chosen.optim.peak_lr
        self.model = Word2Vec(
            **gensim_settings(chosen), min_count=1, workers=len(os.sched_getaffinity(0))
        )
        self.model.build_vocab_from_freq(dict(zip(words, arrays["counts"].tolist(), strict=True)))

    def advance(self) -> list[float]:
        """One pass."""
        trained, _ = self.model.train(
            self.texts,
            total_examples=len(self.texts),
            epochs=1,
            start_alpha=self.lr,
            end_alpha=self.lr,
        )
        return [float(trained)]


ENTRY = Entry(
    name="word2vec",
    summary="A pass of skip-gram over 97,000 words, 16,000 different ones, 100 numbers each.",
    unit="pass",
    prepare=prepare,
    competitors={
        OURS: Competitor(build=Ours, what="noise shared in blocks"),
        "gensim": Competitor(build=Gensim, requires=("gensim",), what="a thread a core"),
        "torch": Competitor(build=Torch, requires=("torch",), what="eager, the same blocks"),
    },
    timed_per_turn=3,
    tolerance=0.03,
    promises=(
        Promise(
            text="word vectors learn from at least half as many words a second as gensim",
            against="gensim",
            at_least_ratio=0.5,
        ),
    ),
)

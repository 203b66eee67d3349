"""Text as numbered words: a vocabulary, and the blocks from which word vectors are learnt.

What skip-gram draws at random is drawn here, once for each pass over the text: which frequent words
are left out, how far each word looks, and the noise words. All of it is a function of the seed and
the pass, so a row of :class:`SkipGramSource` is the same whenever it is asked for.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

import numpy as np

from train.data import records
from train.data.config import WordsConfig
from train.data.dataset import ArraySource, Batch, Cleaning
from train.data.prepare import folder_of
from train.errors import UserError

_WORD = re.compile(r"[^\W\d_]+")  # letters of any alphabet
_KEEP, _REACH, _NOISE = range(3)  # what is drawn, each from a stream of its own


@dataclass(frozen=True)
class Vocabulary:
    """The known words, the most frequent first, and how often each occurs."""

    words: tuple[str, ...]
    counts: np.ndarray
    """[V], int64."""

    def __len__(self) -> int:
        return len(self.words)

    @cached_property
    def index(self) -> dict[str, int]:
        """The number of each word."""
        return {word: number for number, word in enumerate(self.words)}

    def known(self, words: Sequence[str]) -> list[int] | None:
        """The numbers of words, lower-cased; None where one of them is not known."""
        numbers = [self.index.get(word.lower()) for word in words]
        return None if None in numbers else [number for number in numbers if number is not None]

    def keep_probability(self, sample: float) -> np.ndarray:
        """[V]: ``min(1, √(t/f) + t/f)`` for a word of frequency f and ``sample`` t; 0 keeps all.

        The paper prints ``√(t/f)`` (Mikolov et al. 2013, eq. 5); this is what the authors' program
        and gensim compute.
        """
        if not sample:
            return np.ones(len(self))
        ratio = sample * self.counts.sum() / self.counts
        return np.minimum(1, np.sqrt(ratio) + ratio)

    def noise_distribution(self, power: float) -> np.ndarray:
        """[V]: the frequencies to a power, 3/4 in the paper (section 2.2), over their sum."""
        weights = self.counts.astype(np.float64) ** power
        return weights / weights.sum()


def words_of(text: str) -> list[str]:
    """The words of a text: unbroken runs of letters, lower-cased."""
    return _WORD.findall(text.lower())


def count_words(texts: Iterable[Sequence[str]], min_count: int) -> Vocabulary:
    """The words that occur ``min_count`` times or more; equally frequent ones by the alphabet.

    Raises:
        UserError: there is no such word.
    """
    counts = Counter(word for text in texts for word in text)
    known = sorted((-n, word) for word, n in counts.items() if n >= min_count)
    if len(known) < 2:
        most = max(counts.values(), default=0)
        raise UserError(
            f"{len(known)} of {len(counts)} words occur data.min_count={min_count} times or more "
            f"(the most frequent {most} times); two are needed: give more text or a smaller count"
        )
    return Vocabulary(tuple(w for _, w in known), np.array([-n for n, _ in known], np.int64))


@dataclass(frozen=True, kw_only=True)
class Draws:
    """What is drawn at random for skip-gram, and how."""

    window: int
    """Words look up to a distance that is uniform on 1 ... window."""
    sample: float
    """t of :meth:`Vocabulary.keep_probability`."""
    noise_power: float
    """Of :meth:`Vocabulary.noise_distribution`."""
    noise_words: int
    """N, drawn for each block."""
    block: int
    """T, words of a block."""
    passes: int
    """Over the text; each has draws of its own."""
    seed: int


class SkipGramSource:
    """Blocks of T successive words with what is drawn for them; the passes follow each other.

    A row holds

    ``words`` [T + 2W]   the block, with as many words as a window reaches before and after it
    ``before`` [T]       how many of the words before it each word of the block is paired with
    ``after`` [T]        likewise after it
    ``noise`` [N]        words of the noise distribution, for the whole block

    Pairs never cross the end of a text, and words that are left out make room: those around them
    move together (as in the authors' program). What is left at the end of the last pass, less than
    a block, belongs to no row.
    """

    in_memory: ClassVar[bool] = True

    def __init__(self, texts: Sequence[np.ndarray], vocabulary: Vocabulary, draws: Draws):
        self.block, self.window = block, window = draws.block, draws.window
        every = np.concatenate(texts)
        owner = np.repeat(np.arange(len(texts)), [len(text) for text in texts])
        keep = vocabulary.keep_probability(draws.sample)[every]
        parts = [self._pass(every, owner, keep, draws, number) for number in range(draws.passes)]
        words, before, after = (np.concatenate(column) for column in zip(*parts, strict=True))
        rows = len(words) // block
        self._words = np.pad(words, window)
        self._before = before[: rows * block].reshape(rows, block)
        self._after = after[: rows * block].reshape(rows, block)
        ends = np.cumsum(vocabulary.noise_distribution(draws.noise_power))
        places = _uniform(draws.seed, 0, _NOISE, rows * draws.noise_words) * ends[-1]
        noise = np.searchsorted(ends, places, side="right").astype(np.int32)
        self._noise = noise.reshape(rows, draws.noise_words)

    @staticmethod
    def _pass(
        every: np.ndarray, owner: np.ndarray, keep: np.ndarray, draws: Draws, number: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The words of one pass, and how many each is paired with before and after it."""
        kept = _uniform(draws.seed, number, _KEEP, len(every)) < keep
        words, owner = every[kept], owner[kept]
        reach = _uniform(draws.seed, number, _REACH, len(words)) * draws.window
        reach = reach.astype(np.int64) + 1
        place = np.arange(len(words))
        first = np.searchsorted(owner, owner, side="left")  # of the same text
        last = np.searchsorted(owner, owner, side="right") - 1
        before, after = np.minimum(reach, place - first), np.minimum(reach, last - place)
        return words, before.astype(np.int32), after.astype(np.int32)

    def __len__(self) -> int:
        return len(self._noise)

    def gather(self, indices: np.ndarray) -> Batch:
        """The rows at ``indices``."""
        places = indices[:, None] * self.block + np.arange(self.block + 2 * self.window)
        return {
            "words": self._words[places],
            "before": self._before[indices],
            "after": self._after[indices],
            "noise": self._noise[indices],
        }

    def arrays(self) -> Batch:
        """All rows, in as much memory as they take."""
        return self.gather(np.arange(len(self)))


def _uniform(seed: int, number: int, stream: int, count: int) -> np.ndarray:
    """[count] numbers in [0, 1) of one pass and stream, the same in all versions of numpy."""
    # The third word of the counter keeps these apart from the streams that order the rows.
    bits = np.random.Philox(key=[seed, number], counter=[0, 0, 1, stream])
    return (bits.random_raw(count) >> np.uint64(11)) * 2.0**-53


@dataclass(frozen=True)
class WordText:
    """A text in words, ready for skip-gram."""

    name: str
    train: SkipGramSource
    eval: ArraySource
    """Every known word: ``inputs`` [B] its number, ``targets`` [B] how often it occurs."""
    vocabulary: Vocabulary
    texts: list[list[str]]
    """The words of every text, the unknown ones too."""
    cleaning: Cleaning = field(default_factory=Cleaning)


def read_texts(config: WordsConfig) -> list[list[str]]:
    """The words of every text of the sets, in order.

    Raises:
        UserError: a set, a split or a column is not there.
    """
    texts: list[list[str]] = []
    columns = config.columns or ("",) * len(config.names)
    splits = config.splits or ("train",) * len(config.names)
    for name, column, wanted in zip(config.names, columns, splits, strict=True):
        prepared, (found,) = records.open_columns(
            folder_of(name, config.data_dir), records.Wanted("text", column, "columns")
        )
        for split in wanted.split("+"):
            reader = records.RecordReader(prepared, split.strip(), chosen_with="--data.splits")
            texts += [words_of(text) for text in reader.read(range(len(reader)))[found].tolist()]
    return texts


def load_words(config: WordsConfig, draws: Draws) -> WordText:
    """Reads a text, counts its words, and draws what skip-gram needs.

    Args:
        config: what to read.
        draws: what is drawn, and how.

    Raises:
        UserError: one line that says what is wrong with the configuration or the data.
    """
    texts = read_texts(config)
    vocabulary = count_words(texts, config.min_count)
    index = vocabulary.index
    numbers = [np.array([index[w] for w in text if w in index], np.int32) for text in texts]
    source = SkipGramSource(numbers, vocabulary, draws)
    if not len(source):
        raise UserError(
            f"the text of {config.name!r} has {sum(map(len, numbers))} known words, not enough for "
            f"one block of {draws.block}; give more text or a smaller task.block"
        )
    every = {"inputs": np.arange(len(vocabulary), dtype=np.int32), "targets": vocabulary.counts}
    return WordText(
        name=config.name,
        train=source,
        eval=ArraySource(every),
        vocabulary=vocabulary,
        texts=texts,
        cleaning=Cleaning(train_rows=len(texts), missing_dropped=sum(not text for text in texts)),
    )

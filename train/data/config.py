"""What data a run uses and how it augments them, as frozen values; importing this is cheap."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

TFDS_PREFIX = "tfds:"


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Names the data and how they are cleaned and resized.

    Raises:
        ValueError: naming the field, its value and the rule.
    """

    name: str = "mnist_5k"
    """An embedded set (mnist_5k, diabetes, breast_cancer), tfds:NAME, or several joined by +."""
    weights: tuple[float, ...] = ()
    """Share of each source when several are joined; empty means in proportion to their sizes."""
    data_dir: Path | None = None
    """A prepared TFDS folder (one with dataset_info.json), or the folder that holds such sets."""
    train_split: str = "train"
    """Split to learn from; TFDS slices such as train[:80%] work too."""
    eval_split: str = "test"
    """Split to measure on; rows of it that also occur in the train split leave the train split."""
    deduplicate: bool = True
    """Remove repeated rows from the train split, and train rows that the eval split holds."""
    missing: Literal["error", "drop", "repair"] = "error"
    """Rows with missing values: stop, leave them out, or fill in the train split's median."""
    resize: int | None = None
    """Side of the square that images are scaled and centre-cropped to."""

    def __post_init__(self):
        if not all(self.names):
            raise ValueError(f"{self.name=} has an empty part; write A, tfds:B or A+tfds:B")
        if self.weights and len(self.weights) != len(self.names):
            raise ValueError(
                f"{self.weights=} has {len(self.weights)} values for {len(self.names)} sources "
                f"in {self.name=}; give one each, or none"
            )
        if any(not 0 < weight < float("inf") for weight in self.weights):
            raise ValueError(f"{self.weights=} must all be positive and finite")
        if self.missing not in ("error", "drop", "repair"):
            raise ValueError(f"{self.missing=} must be error, drop or repair")
        if self.resize is not None and self.resize < 1:
            raise ValueError(f"{self.resize=} must be at least 1 pixel")

    @property
    def names(self) -> tuple[str, ...]:
        """The sources, in order."""
        return tuple(part.strip() for part in self.name.split("+"))


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """Names running text and how it is cut into tokens.

    Raises:
        ValueError: naming the field, its value and the rule.
    """

    name: str = "bible"
    """An embedded set (bible), or tfds:NAME."""
    column: str = ""
    """The feature that holds the text; not needed where there is only one."""
    data_dir: Path | None = None
    """A prepared TFDS folder (one with dataset_info.json), or the folder that holds such sets."""
    train_split: str = "train"
    """Split to learn from; TFDS slices such as train[:80%] work too."""
    eval_split: str = "test"
    """Split to measure on."""
    tokenizer: Literal["byte", "character", "word", "bpe", "wordpiece"] = "bpe"
    """Bytes and characters as they are, or words or pieces of them learnt from the train split."""
    vocab_size: int = 4096
    """At most so many words or pieces; characters and bytes are as many as there are."""

    def __post_init__(self):
        if self.vocab_size < 258:
            raise ValueError(f"{self.vocab_size=} must be at least 258: all bytes and two marks")


@dataclass(frozen=True, kw_only=True)
class LabelledTextConfig(TextConfig):
    """Names texts that have a class each, and how they are cut into tokens.

    Raises:
        ValueError: naming the field, its value and the rule.
    """

    target: str = ""
    """The feature that holds the class; not needed where there is only one."""
    max_tokens: int = 256
    """Longer texts are cut there; how many were is in result.json."""
    deduplicate: bool = True
    """Remove repeated texts from the train split, and those that the eval split holds."""

    def __post_init__(self):
        super().__post_init__()
        if self.max_tokens < 1:
            raise ValueError(f"{self.max_tokens=} must be at least 1")


@dataclass(frozen=True, kw_only=True)
class TaggedTextConfig(LabelledTextConfig):
    """Names sentences that have a tag for each word, and how words are cut into tokens.

    ``column`` and ``target`` are the features that hold the words and their tags.

    Raises:
        ValueError: naming the field, its value and the rule.
    """

    frame: str = ""
    """The feature that says what a sentence is about, a class; empty: the network is not told."""

    def __post_init__(self):
        super().__post_init__()
        if self.frame and self.max_tokens < 2:
            raise ValueError(f"{self.max_tokens=} must be at least 2: one is the frame's")


@dataclass(frozen=True, kw_only=True)
class WordsConfig:
    """Names the text that words are taken from, and which of them are known.

    Raises:
        ValueError: naming the field, its value and the rule.
    """

    name: str = "bible"
    """An embedded set, tfds:NAME, or several joined by +."""
    columns: tuple[str, ...] = ()
    """The feature that holds the text, one a set; empty where each has only one."""
    splits: tuple[str, ...] = ()
    """What is read of each set, such as train[:80%]+test; empty means train."""
    data_dir: Path | None = None
    """A prepared TFDS folder (one with dataset_info.json), or the folder that holds such sets."""
    min_count: int = 5
    """Words that occur less often are left out of the text."""

    def __post_init__(self):
        if not all(self.names):
            raise ValueError(f"{self.name=} has an empty part; write A, tfds:B or A+tfds:B")
        for field in ("columns", "splits"):
            values = getattr(self, field)
            if values and len(values) != len(self.names):
                raise ValueError(
                    f"{field}={values} has {len(values)} values for {len(self.names)} sets in "
                    f"name={self.name!r}; give one each, or none"
                )
        if self.min_count < 1:
            raise ValueError(f"min_count={self.min_count} must be at least 1")

    @property
    def names(self) -> tuple[str, ...]:
        """The sets, in order."""
        return tuple(part.strip() for part in self.name.split("+"))


@dataclass(frozen=True, kw_only=True)
class PairedTextConfig(TextConfig):
    """Names pairs of texts, the second made from the first, and how both are cut into tokens.

    Raises:
        ValueError: naming the field, its value and the rule.
    """

    target: str = ""
    """The feature to be written; `column` is what it is written from."""
    max_tokens: int = 128
    """Longer sources are cut there; how many texts were cut is in result.json."""
    max_target_tokens: int = 128
    """Longer targets are cut there, and so is what a model writes."""
    deduplicate: bool = True
    """Remove repeated pairs from the train split, and those whose source the eval split holds."""

    def __post_init__(self):
        if self.vocab_size < 260:
            raise ValueError(f"{self.vocab_size=} must be at least 260: all bytes and four marks")
        for name in ("max_tokens", "max_target_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")


@dataclass(frozen=True, kw_only=True)
class AnsweredTextConfig(TextConfig):
    """Names passages with questions that spans of them answer, as SQuAD has them.

    Raises:
        ValueError: naming the field, its value and the rule.
    """

    column: str = "context"
    """The feature that holds the passage."""
    eval_split: str = ""
    """Split to measure on; empty: `test`, or `validation` of a set that has no `test`, as SQuAD."""
    question: str = "question"
    """The feature that holds the question."""
    target: str = "answers"
    """The feature that holds the answers: a sequence of `text` and `answer_start`."""
    max_tokens: int = 384
    """Question, passage and their marks; a longer passage is read through several windows."""
    max_question_tokens: int = 64
    """Longer questions are cut there; how many were is in result.json."""
    stride: int = 128
    """From one window on a passage to the next, in tokens."""
    deduplicate: bool = True
    """Remove repeated questions from the train split, and those that the eval split holds."""

    def __post_init__(self):
        super().__post_init__()
        for name in ("max_question_tokens", "stride"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        if self.max_tokens < self.max_question_tokens + 4:
            raise ValueError(
                f"{self.max_tokens=} must be at least 4 more than {self.max_question_tokens=}: "
                "three marks and one token of the passage"
            )


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Which augmentations, and how strong; all are off by default.

    Raises:
        ValueError: naming the field, its value and the rule.
    """

    shift: int = 0
    """Largest translation in pixels along either axis; what comes into view is 0."""
    crop_padding: int = 0
    """Pixels of mirrored border added on each side before a crop of the old size."""
    flip: bool = False
    """Mirror left and right with probability 1/2."""
    cutout: int = 0
    """Side of a square of zeros around a random pixel, clipped at the border."""
    mixup: float = 0.0
    """Alpha of the Beta(alpha, alpha) that weights mix with; 0 means no mixing."""

    def __post_init__(self):
        for name in ("shift", "crop_padding", "cutout"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)} must be 0 (off) or more pixels")
        if not 0 <= self.mixup < float("inf"):
            raise ValueError(f"{self.mixup=} must be 0 (off) or a finite positive alpha")

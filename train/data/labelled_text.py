"""Texts with a class each: read, cleaned, cut into tokens."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from tokenizers import Tokenizer

from train.data import clean, records
from train.data.config import LabelledTextConfig
from train.data.dataset import Batch, Cleaning
from train.data.prepare import folder_of
from train.data.sequences import Ragged, SequenceSource
from train.data.tokenizer import encode, train_tokenizer
from train.errors import UserError


@dataclass(frozen=True)
class LabelledText:
    """Texts in tokens, split in two, with the tokenizer that cut them."""

    name: str
    train: SequenceSource
    eval: SequenceSource
    train_texts: list[str]
    """As they were before, row for row."""
    eval_texts: list[str]
    tokenizer: Tokenizer
    class_names: tuple[str, ...]
    cleaning: Cleaning

    @property
    def num_classes(self) -> int:
        return len(self.class_names)


def load_labelled_text(
    config: LabelledTextConfig, tokenizer: Tokenizer | None = None
) -> LabelledText:
    """Reads, cleans and tokenises texts with class labels.

    Args:
        config: what to read.
        tokenizer: to use instead of one trained on the train split.

    Raises:
        UserError: one line that says what is wrong with the configuration or the data.
    """
    prepared, (column, label) = records.open_columns(
        folder_of(config.name, config.data_dir),
        records.Wanted("text", config.column),
        records.Wanted("label", config.target, "target", key=1),
    )
    names = tuple(prepared.features[label].names)
    count = dict.fromkeys(Cleaning.__dataclass_fields__, 0)
    parts: list[Batch] = []
    for kind, split in (("train", config.train_split), ("eval", config.eval_split)):
        reader = records.RecordReader(prepared, split)
        raw = reader.read(range(len(reader)))
        count[f"{kind}_rows"] = len(reader)
        columns = {"texts": raw[column], "targets": raw[label].astype(np.int64)}
        some = np.array([bool(text.strip()) for text in columns["texts"]], bool)
        count["missing_dropped"] += int((~some).sum())
        columns = {name: values[some] for name, values in columns.items()}
        compared = {"inputs": as_bytes(columns["texts"]), "targets": columns["targets"]}
        clean.treat_faults(compared, len(names), "error", reader.where)
        parts.append({**columns, **compared})
    train, held_out = parts
    if config.deduplicate:
        train, held_out = clean.without_repeats(train, held_out, count)
    for split, part in ((config.train_split, train), (config.eval_split, held_out)):
        if not len(part["targets"]):
            raise UserError(f"split {split!r} of {prepared.folder} has no text left to use")
    texts = [part["texts"].tolist() for part in (train, held_out)]
    tokenizer = tokenizer or train_tokenizer(config.tokenizer, config.vocab_size, texts[0])
    sources = []
    for part, lines in zip((train, held_out), texts, strict=True):
        tokens, cut = truncated(encode(tokenizer, lines), config.max_tokens)
        count["truncated"] += cut
        targets = part["targets"].astype(np.int32)
        sources.append(SequenceSource({"inputs": Ragged(tokens), "targets": targets}))
    return LabelledText(
        name=config.name,
        train=sources[0],
        eval=sources[1],
        train_texts=texts[0],
        eval_texts=texts[1],
        tokenizer=tokenizer,
        class_names=names,
        cleaning=Cleaning(**count),
    )


def as_bytes(texts: Sequence[str] | np.ndarray) -> np.ndarray:
    """Texts as a column whose rows can be compared bit for bit."""
    column = np.empty(len(texts), np.object_)
    for i, text in enumerate(texts):
        column[i] = np.frombuffer(text.encode(), np.uint8)
    return column


def truncated(tokens: Sequence[np.ndarray], longest: int) -> tuple[list[np.ndarray], int]:
    """Each text's first tokens, and how many texts had more."""
    return [row[:longest] for row in tokens], sum(len(row) > longest for row in tokens)

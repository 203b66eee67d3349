"""Texts with a class each: read, cleaned, cut into tokens."""

from dataclasses import dataclass

import numpy as np
from tokenizers import Tokenizer

from train.data import clean, records
from train.data.config import LabelledTextConfig
from train.data.dataset import Batch, Cleaning
from train.data.prepare import folder_of
from train.data.sequences import Ragged, SequenceSource
from train.data.splits import Counts, as_bytes, drop_empty, read_splits
from train.data.tokenizer import encode, train_tokenizer, truncated

OTHER_SPLIT = f"choose another split with {records.CHOSEN_WITH}"


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

    def check(raw: Batch, where: str, count: Counts) -> Batch:
        columns = {"texts": raw[column], "targets": raw[label].astype(np.int64)}
        some = [bool(text.strip()) for text in columns["texts"]]
        columns = drop_empty(columns, some, count)
        compared = {"inputs": as_bytes(columns["texts"]), "targets": columns["targets"]}
        clean.treat_faults(compared, len(names), "error", where, fix=OTHER_SPLIT)
        return {**columns, **compared}

    train, held_out, count = read_splits(prepared, config, check, "text")
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

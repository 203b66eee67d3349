"""Pairs of texts, the second written from the first: read, cleaned, cut into tokens."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from train.data import records
from train.data.config import PairedTextConfig
from train.data.dataset import Batch, Cleaning
from train.data.prepare import folder_of
from train.data.sequences import Ragged, SequenceSource
from train.data.splits import Counts, as_bytes, drop_empty, read_splits
from train.data.tokenizer import BEGIN, END, encode, train_tokenizer, truncated
from train.errors import UserError

SIDES = ("source", "target")


@dataclass(frozen=True)
class PairedText:
    """Pairs in tokens, split in two, with the one tokenizer that cut both sides.

    A row of a source has two ragged columns: ``source``, the text and its end mark, and ``target``,
    which also has a begin mark. A text that was cut has no end mark, as it does not end there.
    """

    name: str
    train: SequenceSource
    eval: SequenceSource
    eval_texts: dict[str, list[str]]
    """The held-out texts of each side as they were before, whole, row for row."""
    tokenizer: Tokenizer
    cleaning: Cleaning


def load_pairs(config: PairedTextConfig, tokenizer: Tokenizer | None = None) -> PairedText:
    """Reads, cleans and tokenises pairs of texts.

    The held-out pairs come in the order of their sources' lengths: what is written in one batch
    then ends at about the same step.

    Args:
        config: what to read.
        tokenizer: to use instead of one trained on both sides of the train split.

    Raises:
        UserError: one line that says what is wrong with the configuration or the data.
    """
    folder = folder_of(config.name, config.data_dir)
    try:
        prepared, (source, target) = _open(folder, config.column, config.target)
    except UserError as error:
        raise UserError(f"{error}{_own_pair(folder)}") from error
    if source == target:
        raise UserError(
            f"source and target are both {source!r} of {prepared.folder}; name two features with "
            "--data.column and --data.target"
        )

    def check(raw: Batch, where: str, count: Counts) -> Batch:
        del where
        texts = {"source": raw[source], "target": raw[target]}
        pairs = zip(texts["source"], texts["target"], strict=True)
        texts = drop_empty(texts, [bool(a.strip() and b.strip()) for a, b in pairs], count)
        compared = {"inputs": as_bytes(texts["source"]), "targets": as_bytes(texts["target"])}
        return {**texts, **compared}

    train, held_out, count = read_splits(prepared, config, check, "pair")
    if tokenizer is None:
        both = [text for side in SIDES for text in train[side].tolist()]
        tokenizer = train_tokenizer(config.tokenizer, config.vocab_size, both, (BEGIN, END))
    tokens = [_tokens(part, config, tokenizer, count) for part in (train, held_out)]
    order = np.argsort([len(row) for row in tokens[1]["source"]], kind="stable")
    return PairedText(
        name=config.name,
        train=_source(tokens[0], np.arange(len(train["source"]))),
        eval=_source(tokens[1], order),
        eval_texts={side: held_out[side][order].tolist() for side in SIDES},
        tokenizer=tokenizer,
        cleaning=Cleaning(**count),
    )


def _open(folder: Path, source: str = "", target: str = "") -> tuple[records.Prepared, list[str]]:
    return records.open_columns(
        folder,
        records.Wanted("text", source),
        records.Wanted("text", target, "target", key=1),
    )


def _own_pair(folder: Path) -> str:
    """The end of a message about wrong names: the flags for the pair that a set itself names."""
    with contextlib.suppress(UserError):
        _, (source, target) = _open(folder)
        if source != target:
            return f"; its own pair is --data.column {source} --data.target {target}"
    return ""


def marked(
    tokenizer: Tokenizer, texts: Sequence[str], side: str, longest: int
) -> tuple[list[np.ndarray], int]:
    """The tokens of texts with the marks of their side, and how many texts were cut.

    Args:
        tokenizer: of the pairs.
        texts: of one side.
        side: "source" or "target".
        longest: the most tokens of a text, marks not counted.
    """
    whole = encode(tokenizer, texts)
    begin = np.array([mark(tokenizer, BEGIN)] if side == "target" else [], np.int32)
    ends = np.array([mark(tokenizer, END)], np.int32), np.array([], np.int32)
    rows, cut = truncated(whole, longest)
    rows = [
        np.concatenate([begin, row, ends[len(text) > longest]])
        for row, text in zip(rows, whole, strict=True)
    ]
    return rows, cut


def mark(tokenizer: Tokenizer, name: str) -> int:
    """The number of a mark.

    Raises:
        UserError: the tokenizer has none, as it was made for something else.
    """
    number = tokenizer.token_to_id(name)
    if number is None:
        raise UserError(f"the tokenizer has no {name} mark, so it was not made for pairs of texts")
    return number


def _tokens(
    part: Batch, config: PairedTextConfig, tokenizer: Tokenizer, count: dict[str, int]
) -> dict[str, list[np.ndarray]]:
    tokens = {}
    for side, longest in zip(SIDES, (config.max_tokens, config.max_target_tokens), strict=True):
        tokens[side], cut = marked(tokenizer, part[side].tolist(), side, longest)
        count["truncated"] += cut
    return tokens


def _source(tokens: dict[str, list[np.ndarray]], order: np.ndarray) -> SequenceSource:
    return SequenceSource({side: Ragged([rows[i] for i in order]) for side, rows in tokens.items()})

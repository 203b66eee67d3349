"""Sentences with a tag for each word: read, cleaned, cut into tokens."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from train.data import records
from train.data.config import TaggedTextConfig
from train.data.dataset import Batch, Cleaning
from train.data.prepare import folder_of
from train.data.sequences import Ragged, SequenceSource
from train.data.splits import Counts, as_bytes, drop_empty, read_splits
from train.data.tokenizer import UNKNOWN, train_tokenizer
from train.errors import UserError
from zoo.functional.viterbi import bio_rules


@dataclass(frozen=True)
class TaggedText:
    """Tagged sentences in tokens, split in two, with the tokenizer that cut them.

    Sources have ``inputs``, tokens with the frame's first where there are frames; ``words``, the
    place among them of each word's first token; and ``targets``, the tag of each word. A word of
    which the tokenizer leaves nothing, as of a zero-width space, is its unknown token.
    """

    name: str
    train: SequenceSource
    eval: SequenceSource
    train_words: list[list[str]]
    """As they were before, row for row."""
    eval_words: list[list[str]]
    tokenizer: Tokenizer
    tags: tuple[str, ...]
    """O, B-x and I-x, of which I-x goes on with a span of x."""
    frames: tuple[str, ...]
    """What a sentence may be about, each a token of its own; empty where that is not given."""
    cleaning: Cleaning


def load_tagged_text(config: TaggedTextConfig, tokenizer: Tokenizer | None = None) -> TaggedText:
    """Reads, cleans and tokenises sentences with tags.

    Args:
        config: what to read.
        tokenizer: to use instead of one trained on the train split.

    Raises:
        UserError: one line that says what is wrong with the configuration or the data.
    """
    wanted = [
        records.Wanted("words", config.column),
        records.Wanted("tags", config.target, "target", key=1),
    ]
    if config.frame:
        wanted.append(records.Wanted("label", config.frame, "frame"))
    folder = folder_of(config.name, config.data_dir)
    prepared, (column, target, *frame) = records.open_columns(folder, *wanted)
    tags = tuple(prepared.features[target].feature.names)
    try:
        bio_rules(tags)
    except ValueError as error:
        raise UserError(f"feature {target!r} of {folder}: {error}") from error
    frames = tuple(f"[{name}]" for name in prepared.features[frame[0]].names) if frame else ()

    def check(raw: Batch, where: str, count: Counts) -> Batch:
        _check_tags(raw[column], raw[target], tags, where)
        about = raw[frame[0]] if frame else np.zeros(len(raw[column]), np.int64)
        columns = {"words": raw[column], "targets": raw[target], "frames": about}
        names = [f"{where}: row {row}" for row in range(len(about))]
        columns["where"] = np.array(names, np.object_)
        columns = drop_empty(columns, [len(words) > 0 for words in raw[column]], count)
        rows = zip(columns["frames"], columns["words"], strict=True)
        return {**columns, "inputs": as_bytes([f"{i} {' '.join(words)}" for i, words in rows])}

    train, held_out, count = read_splits(prepared, config, check, "sentence")
    if tokenizer is None:
        sentences = [" ".join(words) for words in train["words"]]
        tokenizer = train_tokenizer(config.tokenizer, config.vocab_size, sentences)
        tokenizer.add_special_tokens(list(frames))
    sources = [
        _source(tokenizer, frames, part, config.max_tokens, count) for part in (train, held_out)
    ]
    return TaggedText(
        name=config.name,
        train=sources[0],
        eval=sources[1],
        train_words=train["words"].tolist(),
        eval_words=held_out["words"].tolist(),
        tokenizer=tokenizer,
        tags=tags,
        frames=frames,
        cleaning=Cleaning(**count),
    )


def _check_tags(sentences: np.ndarray, tags: np.ndarray, names: Sequence[str], where: str) -> None:
    """Raises UserError unless each word has one of the tags, and each span starts with a B- tag."""
    may_follow, may_start = (np.asarray(rule) for rule in bio_rules(names))
    for row, (words, marks) in enumerate(zip(sentences, tags, strict=True)):
        if len(words) != len(marks):
            raise UserError(
                f"{where}: row {row} has {len(words)} words and {len(marks)} tags; each word "
                "needs one"
            )
        if wrong := [mark for mark in marks if not 0 <= mark < len(names)]:
            raise UserError(
                f"{where}: row {row} has tag {wrong[0]}, tags must lie in 0..{len(names) - 1}; "
                "mend the set"
            )
        allowed = np.r_[may_start[marks[:1]], may_follow[marks[:-1], marks[1:]]]
        if not allowed.all():
            first = int(np.argmin(allowed))
            name = names[marks[first]]
            raise UserError(
                f"{where}: row {row} starts a span with tag {name!r} at word {first} "
                f"({words[first]!r}); the first word of a span must have B-{name[2:]}: write the "
                "set's tags so (IOB2)"
            )


def _source(
    tokenizer: Tokenizer,
    frames: Sequence[str],
    part: dict[str, np.ndarray],
    max_tokens: int,
    count: dict[str, int],
) -> SequenceSource:
    numbers = [_frame(tokenizer, frame) for frame in frames]
    unknown = tokenizer.token_to_id(UNKNOWN)
    nothing = [] if unknown is None else [unknown]
    encoded = tokenizer.encode_batch(
        part["words"].tolist(), is_pretokenized=True, add_special_tokens=False
    )
    inputs, places, targets = [], [], []
    for i, (encoding, frame) in enumerate(zip(encoded, part["frames"], strict=True)):
        pieces: list[list[int]] = [[] for _ in part["words"][i]]
        owners: list[Any] = encoding.word_ids  # a number each, as no special token was added
        for token, word in zip(encoding.ids, owners, strict=True):
            pieces[word].append(token)
        pieces = [tokens or nothing for tokens in pieces]
        if [] in pieces:
            raise UserError(
                f"{part['where'][i]} has word {part['words'][i][pieces.index([])]!r}, of which the "
                f"tokenizer leaves nothing, and it has no {UNKNOWN} to stand for it; mend the set, "
                "or use --data.tokenizer word"
            )
        start = [numbers[frame]] if numbers else []
        tokens = np.array([*start, *itertools.chain(*pieces)], np.int32)
        # Of each word, where its first token is.
        first = np.cumsum([len(start), *map(len, pieces[:-1])])
        first = first[first < max_tokens]
        count["truncated"] += len(tokens) > max_tokens
        inputs.append(tokens[:max_tokens])
        places.append(first.astype(np.int32))
        targets.append(np.asarray(part["targets"][i])[: len(first)].astype(np.int32))
    columns: dict[str, Any] = {"inputs": inputs, "words": places, "targets": targets}
    return SequenceSource({name: Ragged(rows) for name, rows in columns.items()})


def _frame(tokenizer: Tokenizer, frame: str) -> int:
    """The number of a frame's mark."""
    number = tokenizer.token_to_id(frame)
    if number is None:
        raise UserError(
            f"the tokenizer has no {frame} mark, so it was not made for sentences about that; use "
            "the data of its run, or train a model on these"
        )
    return number

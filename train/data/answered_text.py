"""Passages with questions that spans of them answer, as SQuAD has them: read, cut into tokens."""

import dataclasses
from dataclasses import dataclass

import numpy as np
from tokenizers import Tokenizer

from train.data import records
from train.data.config import AnsweredTextConfig
from train.data.dataset import Batch, Cleaning
from train.data.prepare import folder_of
from train.data.sequences import Ragged, SequenceSource
from train.data.splits import Counts, as_bytes, drop_empty, read_splits
from train.data.tokenizer import train_tokenizer
from train.errors import UserError

START, BETWEEN = "[CLS]", "[SEP]"
FIRST, LAST = 1, 2  # bits of a target: an answer's first token, and its last


@dataclass(frozen=True)
class Question:
    """A held-out question as it was before it was cut into tokens."""

    passage: str
    question: str
    answers: tuple[str, ...]
    """Any of them is right; empty where the passage does not answer it."""


@dataclass(frozen=True)
class AnsweredText:
    """Questions and passages in tokens, split in two, with the tokenizer that cut them.

    A row is a question and a window on its passage, ``[CLS] question [SEP] passage [SEP]``: its
    tokens are ``inputs``; ``passages`` is the place of the passage's first token; and ``targets``
    marks of each token whether an answer starts (FIRST) or ends (LAST) there, both at [CLS] where
    no answer is in the window. Passages that fit have one row, longer ones several.
    """

    name: str
    train: SequenceSource
    eval: SequenceSource
    questions: list[Question]
    """The held-out ones."""
    owners: np.ndarray
    """[R], the question of each held-out row."""
    offsets: list[np.ndarray]
    """[P, 2] of each held-out row: where in the passage each token of it starts and ends."""
    tokenizer: Tokenizer
    unanswerable: bool
    """Whether some questions have no answer."""
    cleaning: Cleaning

    def span(self, row: int, first: int, last: int) -> str:
        """What the tokens from ``first`` to ``last`` of a held-out row say in the passage."""
        begin = int(self.eval.columns["passages"][row])
        offsets = self.offsets[row]
        start, end = offsets[first - begin, 0], offsets[last - begin, 1]
        return self.questions[self.owners[row]].passage[start:end]


def load_answered_text(
    config: AnsweredTextConfig, tokenizer: Tokenizer | None = None
) -> AnsweredText:
    """Reads, checks and tokenises passages with questions and answers.

    Args:
        config: what to read.
        tokenizer: to use instead of one trained on the train split.

    Raises:
        UserError: one line that says what is wrong with the configuration or the data.
    """
    prepared, (passage, question, texts, places) = records.open_columns(
        folder_of(config.name, config.data_dir),
        records.Wanted("text", config.column),
        records.Wanted("text", config.question, "question"),
        records.Wanted("words", f"{config.target}/text", "target"),
        records.Wanted("places", f"{config.target}/answer_start", "target"),
    )
    if not config.eval_split:
        config = dataclasses.replace(config, eval_split=_held_out(prepared))

    def check(raw: Batch, where: str, count: Counts) -> Batch:
        columns = {"passages": raw[passage], "questions": raw[question]}
        columns |= {"answers": raw[texts], "places": raw[places]}
        _check_answers(columns, where)
        pairs = list(zip(columns["passages"], columns["questions"], strict=True))
        columns = drop_empty(columns, [bool(a.strip() and b.strip()) for a, b in pairs], count)
        pairs = zip(columns["passages"], columns["questions"], strict=True)
        compared = {"inputs": as_bytes([f"{b}\n{a}" for a, b in pairs])}
        return {**columns, **compared, "targets": as_bytes([*map(str, columns["answers"])])}

    train, held_out, count = read_splits(prepared, config, check, "question")
    if tokenizer is None:
        both = [*train["questions"].tolist(), *dict.fromkeys(train["passages"].tolist())]
        tokenizer = train_tokenizer(config.tokenizer, config.vocab_size, both)
    if tokenizer.token_to_id(START) is None or tokenizer.token_to_id(BETWEEN) is None:
        raise UserError(
            f"tokenizer {config.tokenizer!r} has no {START} and {BETWEEN} to put around a question "
            "and its passage; use --data.tokenizer wordpiece"
        )
    source, *_ = _windows(tokenizer, train, config, count)
    eval_source, owners, offsets = _windows(tokenizer, held_out, config, count)
    rows = zip(held_out["passages"], held_out["questions"], held_out["answers"], strict=True)
    answers = [*train["answers"], *held_out["answers"]]
    return AnsweredText(
        name=config.name,
        train=source,
        eval=eval_source,
        questions=[Question(a, b, tuple(c)) for a, b, c in rows],
        owners=owners,
        offsets=offsets,
        tokenizer=tokenizer,
        unanswerable=any(not len(texts) for texts in answers),
        cleaning=Cleaning(**count),
    )


def _held_out(prepared: records.Prepared) -> str:
    """The split to measure on: SQuAD's own test split is not public, only its validation split."""
    splits = prepared.info.splits
    for name in ("test", "validation"):
        if name in splits:
            return name
    raise UserError(
        f"{prepared.folder} has no split test or validation to measure on; it has "
        f"{', '.join(sorted(splits))}: choose with {records.CHOSEN_WITH}"
    )


def _check_answers(columns: Batch, where: str) -> None:
    """Raises UserError unless each answer stands in its passage where it is said to."""
    rows = zip(columns["passages"], columns["answers"], columns["places"], strict=True)
    for row, (passage, answers, places) in enumerate(rows):
        if len(answers) != len(places):
            raise UserError(f"{where}: row {row} has {len(answers)} answers, {len(places)} starts")
        for answer, place in zip(answers, places, strict=True):
            if not answer or place < 0 or passage[place:][: len(answer)] != answer:
                raise UserError(
                    f"{where}: row {row} has answer {answer!r} at {place}, where its passage has "
                    f"{passage[max(place, 0) :][: max(len(answer), 1)]!r}; mend the set"
                )


def _windows(
    tokenizer: Tokenizer, part: Batch, config: AnsweredTextConfig, count: Counts
) -> tuple[SequenceSource, np.ndarray, list[np.ndarray]]:
    """The rows of a split; the question of each; and where its tokens stand in the passage."""
    start, between = tokenizer.token_to_id(START), tokenizer.token_to_id(BETWEEN)
    questions, passages = (
        tokenizer.encode_batch(part[name].tolist(), add_special_tokens=False)
        for name in ("questions", "passages")
    )
    inputs, begins, targets, owners, offsets = [], [], [], [], []
    for owner, (asked, encoded) in enumerate(zip(questions, passages, strict=True)):
        question = [start, *asked.ids[: config.max_question_tokens], between]
        count["truncated"] += len(asked.ids) > config.max_question_tokens
        tokens, places = np.array(encoded.ids), np.array(encoded.offsets).reshape(-1, 2)
        answers = zip(part["answers"][owner], part["places"][owner], strict=True)
        spans = [_tokens_of(places, int(at), int(at) + len(answer)) for answer, at in answers]
        room = config.max_tokens - len(question) - 1
        step = min(config.stride, room)
        for begin in range(0, max(len(tokens) - room, 0) + step, step):
            window = tokens[begin : begin + room]
            inputs.append(np.array([*question, *window, between], np.int32))
            begins.append(len(question))
            targets.append(_marks(len(inputs[-1]), len(question), len(window), begin, spans))
            owners.append(owner)
            offsets.append(places[begin : begin + room])
    columns = {"inputs": Ragged(inputs), "targets": Ragged(targets)}
    source = SequenceSource({**columns, "passages": np.array(begins, np.int32)})
    return source, np.array(owners), offsets


def _tokens_of(places: np.ndarray, start: int, end: int) -> tuple[int, int]:
    """The first and the last token that a span of characters touches."""
    first = np.searchsorted(places[:, 1], start, side="right")
    return int(first), int(np.searchsorted(places[:, 0], end, side="left")) - 1


def _marks(
    length: int, question: int, window: int, begin: int, spans: list[tuple[int, int]]
) -> np.ndarray:
    """The targets of a row whose window has so many tokens of the passage from ``begin`` on."""
    marks = np.zeros(length, np.int32)
    inside = [(a - begin, b - begin) for a, b in spans if begin <= a and b < begin + window]
    for first, last in inside:
        marks[question + first] |= FIRST
        marks[question + last] |= LAST
    if not inside:
        marks[0] = FIRST | LAST
    return marks

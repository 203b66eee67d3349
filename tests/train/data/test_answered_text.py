"""Passages with questions: windows, marks, spans as text, what is refused; cloze questions."""

import numpy as np
import pytest

from tests.train.data.folders import F, write_set
from train.data import AnsweredTextConfig
from train.data.answered_text import FIRST, LAST, load_answered_text
from train.data.builders.cloze import BLANK, cloze
from train.errors import UserError

FEATURES = {
    "id": F.Text(),
    "title": F.Text(),
    "context": F.Text(),
    "question": F.Text(),
    "answers": F.Sequence({"text": F.Text(), "answer_start": F.Scalar(dtype=np.int32)}),
}  # as TFDS's own set `squad` has them


def row(context, question, *answers, starts=None):
    found = [context.index(answer) for answer in answers] if starts is None else starts
    return {
        "id": question,
        "title": "t",
        "context": context,
        "question": question,
        "answers": {"text": list(answers), "answer_start": found},
    }


RIVER = "The river Xingu rises in the south. It flows north, and it meets the Amazon near Porto."
PLAIN = [{"text": "a", "other": "b"}]
ROWS = [
    row(RIVER, "Which river is it?", "Xingu"),
    row(RIVER, "Where does it end?", "the Amazon", "near Porto"),
    row(RIVER, "Where does it rise?", "in the south"),
]


def squad(root, train, test):
    return write_set(root, FEATURES, {"train": train, "test": test}, name="squad", keys=None)


def config(folder, **fields):
    fields = {"max_tokens": 64, "max_question_tokens": 16, **fields}
    return AnsweredTextConfig(
        name="tfds:squad", data_dir=folder, tokenizer="wordpiece", vocab_size=400, **fields
    )


def marked(data, i):
    """The answers that the marks of a held-out row stand for, in order."""
    targets = data.eval.columns["targets"][i]
    first, last = np.flatnonzero(targets & FIRST), np.flatnonzero(targets & LAST)
    return [data.span(i, int(a), int(b)) for a, b in zip(first, last, strict=True)]


def test_a_row_is_a_question_and_its_passage(tmp_path):
    data = load_answered_text(config(squad(tmp_path, ROWS, ROWS[:2])))
    assert not data.unanswerable and len(data.eval) == len(data.questions) == 2
    batch = data.eval.gather(np.arange(2))
    length, begin = int(batch["inputs_lengths"][1]), int(batch["passages"][1])
    tokens = [data.tokenizer.id_to_token(int(token)) for token in batch["inputs"][1, :length]]
    assert tokens[0] == "[CLS]" and tokens[-1] == "[SEP]" and tokens[begin - 1] == "[SEP]"
    assert data.tokenizer.decode(batch["inputs"][1, 1:begin].tolist()) == "where does it end?"
    assert data.span(1, begin, length - 2) == RIVER  # as it was, capitals and all
    assert marked(data, 0) == ["Xingu"] and marked(data, 1) == ["the Amazon", "near Porto"]
    assert data.questions[1].answers == ("the Amazon", "near Porto")


def test_long_passages_are_seen_whole_through_windows(tmp_path):
    folder = squad(tmp_path, ROWS, ROWS[1:])
    wide = load_answered_text(config(folder))
    data = load_answered_text(config(folder, max_tokens=28, stride=6))
    assert data.eval.longest["inputs"] <= 28 < wide.eval.longest["inputs"]
    for asked in range(2):
        rows = np.flatnonzero(data.owners == asked)
        places = [data.offsets[i] for i in rows]
        assert len(rows) > 1
        assert {tuple(p) for p in np.concatenate(places)} == {tuple(p) for p in wide.offsets[asked]}
        for i in rows.tolist():  # an answer that is cut in two is in neither window
            start, end = data.offsets[i][0, 0], data.offsets[i][-1, 1]
            whole = [
                text
                for text in data.questions[asked].answers
                if start <= RIVER.index(text) and RIVER.index(text) + len(text) <= end
            ]
            none = data.eval.columns["targets"][i][0] == FIRST | LAST
            assert none == (not whole)
            assert none or marked(data, i) == whole


def test_what_has_no_answer_and_what_is_cut(tmp_path):
    none = row(RIVER, "How deep is it?")
    data = load_answered_text(config(squad(tmp_path, [*ROWS, none], ROWS), max_question_tokens=4))
    assert data.unanswerable
    assert data.cleaning.train_in_eval == 3
    assert data.cleaning.truncated == 4  # all that are left have more
    kept = load_answered_text(config(tmp_path / "squad" / "1.0.0", deduplicate=False))
    assert len(kept.train) == 4
    assert kept.train.columns["targets"][3].tolist()[0] == FIRST | LAST


def test_it_is_measured_on_the_split_that_there_is(tmp_path):
    def folder(name, **splits):
        return write_set(tmp_path, FEATURES, splits, name=name, keys=None)

    public = folder("squad", train=ROWS, validation=ROWS[1:])  # as SQuAD's own is not
    assert len(load_answered_text(config(public)).questions) == 2
    both = folder("both", train=ROWS, validation=ROWS[1:], test=ROWS[:1])
    assert len(load_answered_text(config(both)).questions) == 1
    assert len(load_answered_text(config(both, eval_split="validation")).questions) == 2
    with pytest.raises(UserError, match="no split 'test'; it has train, validation"):
        load_answered_text(config(public, eval_split="test"))  # what is asked for is not replaced
    with pytest.raises(
        UserError, match=r"no split test or validation .* it has dev, train: .* --data\.eval-split"
    ):
        load_answered_text(config(folder("other", train=ROWS, dev=ROWS)))


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (
            row(RIVER, "q", "Xingu", starts=[3]),
            "answer 'Xingu' at 3, where its passage has ' rive'",
        ),
        (row(RIVER, "q", "Nile", starts=[900]), "answer 'Nile' at 900, where its passage has ''"),
        (row(RIVER, "q", "", starts=[0]), "answer '' at 0"),
        (row(RIVER, "q", "Porto", starts=[-6]), "answer 'Porto' at -6"),
    ],
)
def test_answers_stand_where_they_are_said_to(tmp_path, wrong, says):
    with pytest.raises(UserError, match=says) as caught:
        load_answered_text(config(squad(tmp_path, [*ROWS, wrong], ROWS)))
    assert "row 3" in str(caught.value) and "\n" not in str(caught.value)


def test_other_sets_and_tokenizers_are_refused(tmp_path):
    folder = write_set(
        tmp_path, {"text": F.Text(), "other": F.Text()}, {"train": PLAIN, "test": PLAIN}
    )
    with pytest.raises(UserError, match=r"no text feature 'context'; it has other, text: --data\."):
        load_answered_text(config(folder))
    folder = squad(tmp_path, ROWS, ROWS[:1])
    word = AnsweredTextConfig(name="tfds:squad", data_dir=folder, tokenizer="word", vocab_size=300)
    with pytest.raises(
        UserError, match=r"no \[CLS\] and \[SEP\] .* use --data.tokenizer wordpiece"
    ):
        load_answered_text(word)
    for fields, says in [
        ({"max_tokens": 19}, "must be at least 4 more than"),
        ({"stride": 0}, "stride=0 must be at least 1"),
    ]:
        with pytest.raises(ValueError, match=says):
            config(folder, **fields)


# --- Questions that nobody had to write -----------------------------------------------------------


def test_the_longest_repeated_phrase_is_left_out():
    passage = (
        "The house of Israel stood. Moses spoke to the house of Israel by night, and it heard."
    )
    made = cloze(passage, "Then Moses went from the house of Israel, and Moses wept.", "a")
    assert made is not None
    assert made["question"] == f"Then Moses went from the {BLANK}, and Moses wept."
    places = made["answers"]["answer_start"]
    assert made["answers"]["text"] == ["house of Israel"] * 2
    assert [passage[place:][:15] for place in places] == ["house of Israel"] * 2


def test_phrases_are_whole_words_within_punctuation_marks():
    assert cloze("He caught nothing. And it is so.", "The cat is so and it is not.", "a") is None
    assert cloze("Salt, water.", "Salt water.", "a") != cloze("Salt water.", "Salt water.", "a")
    made = cloze("Moses’ staff; the king’s son.", "A king’s son spoke.", "a")
    assert made is not None and made["question"] == f"A {BLANK} spoke."


def test_a_digest_of_the_name_chooses_among_phrases():
    passage, sentence = "Adam saw Eve and Cain.", "Cain, Eve, Adam."
    made = [cloze(passage, sentence, name) for name in "abcdefgh"]
    assert {row["answers"]["text"][0] for row in made if row} == {"Adam", "Eve", "Cain"}
    assert made == [cloze(passage, sentence, name) for name in "abcdefgh"]

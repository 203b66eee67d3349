"""Tokenizers and windows of running text: round trips, the reference's counts, wrong input."""

import numpy as np
import pytest

from tests.train.data.folders import F, write_set
from train.data import TextConfig
from train.data.text import WindowSource, load_text
from train.data.tokenizer import encode, load_tokenizer, train_tokenizer, unknown_parts
from train.errors import UserError

LINES = ["In the beginning God created the heavens and the earth.\n", "“Día” — naïve, 3½ 好\n"] * 20


@pytest.mark.parametrize("kind", ["byte", "character", "bpe"])
def test_text_comes_back(kind):
    tokenizer = train_tokenizer(kind, 300, LINES)
    for line, ids in zip(LINES[:2], encode(tokenizer, LINES[:2]), strict=True):
        assert tokenizer.decode(ids.tolist()) == line
        assert len(ids) == {"byte": len(line.encode()), "character": len(line)}.get(kind, len(ids))


def test_bpe_merges_what_is_frequent_and_keeps_to_its_size():
    tokenizer = train_tokenizer("bpe", 300, LINES)
    assert tokenizer.get_vocab_size() <= 300
    assert len(encode(tokenizer, LINES[:1])[0]) < len(LINES[0])
    unseen = "wholly other: ж\n"
    assert tokenizer.decode(encode(tokenizer, [unseen])[0].tolist()) == unseen


def test_wordpiece_lowers_and_marks_what_it_does_not_know():
    tokenizer = train_tokenizer("wordpiece", 300, LINES)
    ids = encode(tokenizer, ["THE heavens 龍"])[0]
    assert tokenizer.decode(ids.tolist(), skip_special_tokens=False) == "the heavens [UNK]"
    assert unknown_parts(tokenizer, "the 龍") == ["龍"]


@pytest.mark.parametrize(
    ("kind", "unknown"),
    [
        ("byte", []),
        ("bpe", []),
        ("character", ["D", "z", "龍"]),
        ("word", ["Dazed", "龍"]),
        ("wordpiece", ["Dazed", "龍"]),
    ],
)
def test_what_is_unknown_is_named_as_it_was_cut(kind, unknown):
    tokenizer = train_tokenizer(kind, 300, ["in the beginning God created"] * 20)
    assert unknown_parts(tokenizer, "in THE 龍 Dazed 龍".replace("THE", "the")) == unknown


def test_wordpiece_keeps_to_its_size_and_to_the_frequent_letters():
    rare = [chr(0x4E00 + i) for i in range(400)]
    lines = [*LINES, " ".join(rare)]
    tokenizer = train_tokenizer("wordpiece", 300, lines)
    assert tokenizer.get_vocab_size() == 300
    assert tokenizer.to_str() == train_tokenizer("wordpiece", 300, lines).to_str()
    assert unknown_parts(tokenizer, "God created the heavens 好 naïve") == []
    assert unknown_parts(tokenizer, "".join(rare)) != []


@pytest.mark.parametrize("kind", ["byte", "character", "word", "bpe", "wordpiece"])
def test_marks_in_a_text_are_text(kind, tmp_path):
    marks = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[BOS]", "[EOS]"]
    lines = [*LINES, "[ ] pad unk cls sep mask bos eos PADUNKCLSSEPMASKBOSEOS\n" * 5]
    tokenizer = train_tokenizer(kind, 300, lines, ("[BOS]", "[EOS]"))
    path = tmp_path / "tokenizer.json"
    path.write_text(tokenizer.to_str())
    for ours in (tokenizer, load_tokenizer(path)):
        (ids,) = encode(ours, [f"In the {' '.join(marks)} beginning"])
        assert not set(ids.tolist()) & {ours.token_to_id(mark) for mark in marks}
        (ids,) = encode(ours, ["In the [EOS]"])
        assert ours.decode(ids.tolist()).lower().replace(" ", "") == "inthe[eos]"


@pytest.mark.parametrize("kind", ["byte", "character", "bpe", "wordpiece"])
def test_one_file_holds_a_tokenizer(kind, tmp_path):
    tokenizer = train_tokenizer(kind, 300, LINES)
    path = tmp_path / "tokenizer.json"
    path.write_text(tokenizer.to_str())
    again = train_tokenizer(kind, 300, LINES)
    assert again.to_str() == tokenizer.to_str(), "the same text gives the same tokenizer"
    for ours, theirs in zip(
        encode(load_tokenizer(path), LINES[:2]), encode(tokenizer, LINES[:2]), strict=True
    ):
        assert np.array_equal(ours, theirs)


@pytest.mark.parametrize("content", [None, "{", '{"model": "pickle"}'])
def test_a_damaged_tokenizer_is_named(content, tmp_path):
    path = tmp_path / "tokenizer.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=r"tokenizer\.json"):
        load_tokenizer(path)


@pytest.mark.parametrize(("stride", "rows"), [(1, 17), (3, 6), (4, 5)])
def test_windows(stride, rows):
    tokens = np.arange(21, dtype=np.int32)
    source = WindowSource(tokens, 4, stride)
    assert len(source) == rows
    every = source.arrays()
    assert every["inputs"][:, 0].tolist() == [stride * i for i in range(rows)]
    assert (every["targets"] == every["inputs"] + 1).all() and every["targets"].max() <= 20
    assert len(WindowSource(tokens[:4], 4, 1)) == 0


def write(tmp_path, train, test, **features):
    features = features or {"text": F.Text()}
    name = next(iter(features))
    rows = {"train": [{name: t} for t in train], "test": [{name: t} for t in test]}
    return write_set(tmp_path, features, rows, keys=None)


def test_a_prepared_set_of_text(tmp_path):
    folder = write(tmp_path, ["one two", "", "three"], [" ", "two three one"])
    config = TextConfig(data_dir=folder, tokenizer="character")
    text = load_text(config, window=4)
    decoded = text.tokenizer.decode(text.train.tokens.tolist())
    assert decoded == "one two\nthree\n"
    assert text.cleaning.missing_dropped == 2 and text.cleaning.train_rows == 2
    assert text.chars_per_token == 1.0


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        ([""], ["a b c d e"], "has no text"),
        (["a b c d e"], ["abc"], "has 4 tokens, fewer than one window of 4"),
        ([b"caf\xe9 is longer"], ["a b c d e"], r"not UTF-8 \(byte 0xe9"),
    ],
)
def test_text_that_does_not_do(tmp_path, train, test, message):
    folder = write(tmp_path, train, test)
    with pytest.raises(UserError, match=message):
        load_text(TextConfig(data_dir=folder, tokenizer="character"), window=4)


def test_a_column_that_is_not_there(tmp_path):
    folder = write(tmp_path, ["a b c d e"], ["a b c d e"])
    with pytest.raises(UserError, match="has no text feature 'en'; it has text"):
        load_text(TextConfig(data_dir=folder, column="en"), window=4)


def test_wrong_settings():
    with pytest.raises(ValueError, match="at least 258"):
        TextConfig(vocab_size=10)

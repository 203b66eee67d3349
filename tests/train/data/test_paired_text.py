"""Pairs of texts: marks, what is cut and cleaned, sets of translations, wrong input."""

import numpy as np
import pytest

from tests.train.data.folders import F, write_set
from train.data import PairedTextConfig, TextConfig, train_batches
from train.data.paired_text import load_pairs
from train.data.tokenizer import BEGIN, END, train_tokenizer
from train.errors import UserError

PAIRS = [(f"number {i} of them", f"número {i}") for i in range(20)]
HELD_OUT = [("a somewhat longer source", "largo"), ("short", "corto y bien")]


def write(root, train, test, features=None, keys=("en", "es")):
    features = features or {"en": F.Text(), "es": F.Text()}
    names = list(features)
    splits = {
        split: [dict(zip(names, pair, strict=True)) for pair in pairs]
        for split, pairs in (("train", train), ("test", test))
    }
    return write_set(root, features, splits, keys=keys)


def config(folder, **fields):
    return PairedTextConfig(data_dir=folder, vocab_size=300, **fields)


def test_rows_carry_their_marks_and_come_back(tmp_path):
    data = load_pairs(config(write(tmp_path, PAIRS, HELD_OUT)))
    begin, end = (data.tokenizer.token_to_id(name) for name in (BEGIN, END))
    batch = data.eval.gather(np.arange(2))
    assert data.eval_texts["source"] == ["short", "a somewhat longer source"]  # shortest first
    for row, text in enumerate(data.eval_texts["target"]):
        target = batch["target"][row, : batch["target_lengths"][row]].tolist()
        assert target[0] == begin and target[-1] == end
        assert data.tokenizer.decode(target) == text
        source = batch["source"][row, : batch["source_lengths"][row]].tolist()
        assert source[-1] == end and source.count(end) == 1 and begin not in source
    assert set(next(train_batches(data.train, batch_size=4, seed=0))) == {
        *("source", "source_lengths", "target", "target_lengths")
    }


def test_one_tokenizer_of_at_most_the_size_asked_for(tmp_path):
    tokenizer = load_pairs(config(write(tmp_path, PAIRS, HELD_OUT))).tokenizer
    assert tokenizer.get_vocab_size() <= 300
    assert "número" in "".join(tokenizer.decode([i]) for i in tokenizer.encode("número").ids)
    texts = [text for pair in PAIRS for text in pair]
    plain = train_tokenizer("bpe", 300, texts)
    assert plain.token_to_id(BEGIN) is None, "language models have no marks"
    assert plain.to_str() == train_tokenizer("bpe", 300, texts, ()).to_str()


def test_what_is_cut_is_counted_and_has_no_end(tmp_path):
    folder = write(tmp_path, PAIRS, HELD_OUT)
    whole = load_pairs(config(folder, tokenizer="character"))
    cut = load_pairs(config(folder, tokenizer="character", max_tokens=5, max_target_tokens=7))
    assert whole.cleaning.truncated == 0
    # Every train source and one held-out one; "número 0" ... has 8 or 9, "corto y bien" has 12.
    assert cut.cleaning.truncated == len(PAIRS) + 1 + len(PAIRS) + 1
    end = cut.tokenizer.token_to_id(END)
    batch = cut.eval.gather(np.arange(2))
    assert batch["source_lengths"].tolist() == [5, 6]  # 5 of the longer one; "short" and its end
    assert batch["source"][0, 4] != end and batch["source"][1, 5] == end
    assert batch["target_lengths"].tolist() == [7, 8]  # begin, "largo" and end; begin and 7
    assert batch["target"][0, 6] == end and batch["target"][1, 7] != end


def test_cleaning_is_counted(tmp_path):
    train = [*PAIRS, PAIRS[0], ("number 0 of them", "otro"), ("", "x"), ("y", " "), HELD_OUT[0]]
    cleaning = load_pairs(config(write(tmp_path, train, [*HELD_OUT, ("z", "")]))).cleaning
    assert cleaning.train_rows == 25 and cleaning.eval_rows == 3
    assert cleaning.missing_dropped == 3
    assert cleaning.train_duplicates == 1, "another target makes another pair"
    assert cleaning.train_in_eval == 1
    kept = load_pairs(config(tmp_path / "tiny" / "1.0.0", deduplicate=False))
    assert len(kept.train) == 23 and kept.cleaning.train_duplicates == 0


def test_a_set_of_translations_as_tfds_has_them(tmp_path):
    """`tfds:wmt14_translate/de-en` is one Translation feature, with German as the input."""
    features = F.Translation(languages=("de", "en"))
    data = load_pairs(config(write(tmp_path, PAIRS, HELD_OUT, features, ("de", "en"))))
    assert data.eval_texts["target"] == ["corto y bien", "largo"]
    other = load_pairs(config(tmp_path / "tiny" / "1.0.0", column="en", target="de"))
    assert other.eval_texts["source"] == ["largo", "corto y bien"]


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"column": "fr"}, "no text feature 'fr'; it has (en, es|es, en): --data.column"),
        ({"column": "fr"}, "; its own pair is --data.column en --data.target es$"),
        ({"target": "fr"}, "no text feature 'fr'; it has (en, es|es, en): --data.target"),
        ({"column": "es"}, "source and target are both 'es'"),
        ({"eval_split": "valid"}, "has no split 'valid'"),
        ({"eval_split": "test[:0]"}, "has no rows; at least one is needed"),
    ],
)
def test_wrong_names(tmp_path, fields, says):
    folder = write(tmp_path, PAIRS, HELD_OUT)
    with pytest.raises(UserError, match=says):
        load_pairs(config(folder, **fields))


def test_a_set_without_a_pair_of_its_own_is_advised_none(tmp_path):
    with pytest.raises(UserError, match=r"it has en, es: --data\.column$"):
        load_pairs(config(write(tmp_path, PAIRS, HELD_OUT, keys=None)))


def test_a_split_of_empty_texts_only(tmp_path):
    with pytest.raises(UserError, match=r"split 'train' .* has no pair left"):
        load_pairs(config(write(tmp_path, [("a", "")], HELD_OUT)))


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"max_tokens": 0}, "max_tokens=0 must be at least 1"),
        ({"max_target_tokens": -1}, "max_target_tokens=-1 must be at least 1"),
        ({"vocab_size": 259}, "at least 260"),
    ],
)
def test_wrong_settings(fields, says):
    assert issubclass(PairedTextConfig, TextConfig)
    with pytest.raises(ValueError, match=says):
        PairedTextConfig(**fields)

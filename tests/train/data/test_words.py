"""Words, their counts, and what skip-gram draws: against gensim, a plain loop, and chi-square."""

import dataclasses

import numpy as np
import pytest
from scipy.stats import chisquare

from tests.close import assert_close
from tests.train.data.folders import F, write_set
from train.data import WordsConfig, eval_batches, train_batches
from train.data.words import (
    Draws,
    SkipGramSource,
    Vocabulary,
    count_words,
    load_words,
    words_of,
)
from train.errors import UserError

DRAWS = Draws(
    window=3, sample=0.0, noise_power=0.75, noise_words=5, block=4, passes=2, seed=0
)  # fmt: skip


def vocabulary(size: int = 50) -> Vocabulary:
    """Words w0, w1, ... whose counts fall as Zipf's law has it."""
    counts = (10_000 / np.arange(1, size + 1)).astype(np.int64)
    return Vocabulary(tuple(f"w{i}" for i in range(size)), counts)


def texts(lengths=(7, 1, 0, 12, 30), size: int = 50) -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [generator.integers(0, size, length).astype(np.int32) for length in lengths]


def source(**changes) -> SkipGramSource:
    return SkipGramSource(texts(), vocabulary(), dataclasses.replace(DRAWS, **changes))


def test_words_are_runs_of_letters():
    assert words_of("God's 2 WORDS; naïve-día x86_64.") == [
        "god", "s", "words", "naïve", "día", "x",
    ]  # fmt: skip


def test_counts_go_down_and_ties_by_the_alphabet():
    found = count_words([["b", "a", "c", "c"], ["a", "b", "d"]], 2)
    assert found.words == ("a", "b", "c") and found.counts.tolist() == [2, 2, 2]
    assert found.known(["A", "c"]) == [0, 2] and found.known(["a", "d"]) is None


def test_frequent_words_are_left_out_as_by_gensim():
    from gensim.models import Word2Vec

    ours = vocabulary(200)
    sentences = [[w] * int(n) for w, n in zip(ours.words, ours.counts, strict=True)]
    for sample in (1e-3, 1e-2):
        theirs = Word2Vec(sample=sample, min_count=1, vector_size=1)
        theirs.build_vocab(sentences)
        chances = [theirs.wv.get_vecattr(word, "sample_int") for word in ours.words]
        assert_close(ours.keep_probability(sample), np.array(chances) / (2**32 - 1))
    assert (ours.keep_probability(0.0) == 1).all()


def test_the_share_left_is_the_probability():
    every = np.zeros(200_000, np.int32)
    most = Vocabulary(("the", "of"), np.array([600_000, 400_000]))
    kept = len(SkipGramSource([every], most, dataclasses.replace(DRAWS, sample=1e-2, passes=1)))
    expected = most.keep_probability(1e-2)[0] * len(every)
    assert abs(4 * kept - expected) < 4 * expected**0.5  # four standard deviations


def test_noise_has_the_distribution_of_counts_to_a_power():
    every = np.zeros(40_000, np.int32)
    known = vocabulary()
    rows = SkipGramSource([every], known, dataclasses.replace(DRAWS, passes=1)).arrays()
    drawn = np.bincount(rows["noise"].ravel(), minlength=len(known))
    weights = known.counts**0.75
    assert drawn.sum() == 50_000
    assert chisquare(drawn, drawn.sum() * weights / weights.sum()).pvalue > 0.01
    assert chisquare(drawn, drawn.sum() * known.counts / known.counts.sum()).pvalue < 1e-9


def test_windows_reach_every_distance_equally_often():
    rows = SkipGramSource(
        [np.zeros(60_000, np.int32)], vocabulary(), dataclasses.replace(DRAWS, passes=1)
    ).arrays()
    reach = np.bincount(rows["after"].ravel()[:-10], minlength=4)[1:]
    assert chisquare(reach).pvalue > 0.01


def test_pairs_are_those_of_a_plain_loop():
    """The rows, put together, against a loop over texts with the same draws."""
    block, window = 3, DRAWS.window
    rows = source(block=block).arrays()
    found = []
    for words, before, after in zip(rows["words"], rows["before"], rows["after"], strict=True):
        for t in range(block):
            near = [*range(-before[t], 0), *range(1, after[t] + 1)]
            found += [(words[window + t], words[window + t + d]) for d in near]

    expected = []
    for number in range(DRAWS.passes):
        bits = np.random.Philox(key=[DRAWS.seed, number], counter=[0, 0, 1, 1])
        for text in texts():
            for place, word in enumerate(text):
                reach = 1 + int((int(bits.random_raw()) >> 11) / 2**53 * window)
                low, high = max(place - reach, 0), min(place + reach, len(text) - 1)
                expected += [(word, text[i]) for i in range(low, high + 1) if i != place]
    # 100 words are 33 blocks and one word, which has no pair but with those before it.
    assert len(expected) - window <= len(found) < len(expected)
    assert found == expected[: len(found)]


def test_a_row_is_the_same_whenever_it_is_asked_for():
    first, again = source(sample=1e-3), source(sample=1e-3)
    order = np.array([3, 0, 3])
    for name, column in first.gather(order).items():
        assert np.array_equal(column, again.arrays()[name][order]), name
    for changes in ({"seed": 1}, {"window": 2}, {"noise_power": 0.0}, {"sample": 0.0}):
        other = source(**{"sample": 1e-3, **changes}).gather(order)
        assert any(not np.array_equal(other[n], c) for n, c in first.gather(order).items()
                   if other[n].shape == c.shape)  # fmt: skip


def test_passes_have_draws_of_their_own():
    one, two = source(passes=1, block=1), source(passes=2, block=1)
    assert len(two) == 2 * len(one) == 100
    rows = two.arrays()
    assert np.array_equal(rows["before"][:50], one.arrays()["before"])
    assert not np.array_equal(rows["before"][:50], rows["before"][50:])
    assert not np.array_equal(rows["noise"][:50], rows["noise"][50:])


def test_the_draws_are_the_same_in_every_version():
    row = source(sample=1e-3).gather(np.array([1]))
    assert {name: column[0].tolist() for name, column in row.items()} == {
        "words": [25, 40, 32, 45, 30, 36, 40, 33, 42, 27],
        "before": [2, 3, 1, 0],
        "after": [2, 1, 0, 1],
        "noise": [32, 32, 44, 1, 1],
    }


def test_batches_go_on_from_a_saved_position():
    batches = train_batches(source(), batch_size=3, seed=5)
    for _ in range(12):  # into the second epoch
        next(batches)
    position, expected = batches.get_state(), [next(batches) for _ in range(4)]
    again = train_batches(source(), batch_size=3, seed=5)
    again.set_state(position)
    for batch in expected:
        other = next(again)
        assert all(np.array_equal(batch[name], other[name]) for name in batch)


def write(tmp_path, *lines, **more):
    rows = [{"text": line} for line in lines]
    features = {"text": F.Text()} | {name: F.Text() for name in more}
    rows = [row | {name: value for name, value in more.items()} for row in rows]
    return write_set(tmp_path, features, {"train": rows, "test": rows[:1]}, keys=None)


def test_a_prepared_set_of_text(tmp_path):
    folder = write(tmp_path, "The cat and the dog", "", "the dog sat")
    config = WordsConfig(data_dir=folder, min_count=2, splits=("train+test",))
    data = load_words(config, DRAWS)
    assert data.vocabulary.words == ("the", "dog", "and", "cat")
    assert data.vocabulary.counts.tolist() == [5, 3, 2, 2]
    assert data.texts[2] == ["the", "dog", "sat"]
    assert (data.cleaning.train_rows, data.cleaning.missing_dropped) == (4, 1)
    (batch,) = eval_batches(data.eval, batch_size=4)
    assert batch["inputs"].tolist() == [0, 1, 2, 3]


def test_texts_that_do_not_do(tmp_path):
    folder = write(tmp_path, "one two three", "one four", note="one")
    with pytest.raises(UserError, match=r"not one text feature; it has .*--data.columns"):
        load_words(WordsConfig(data_dir=folder), DRAWS)
    config = WordsConfig(data_dir=folder, columns=("text",))
    with pytest.raises(UserError, match=r"1 of 4 words occur data\.min_count=2 times or more"):
        load_words(dataclasses.replace(config, min_count=2), DRAWS)
    with pytest.raises(UserError, match=r"0 of 4 words .*the most frequent 2 times"):
        load_words(config, DRAWS)
    with pytest.raises(UserError, match=r"has 5 known words, not enough for one block of 64"):
        load_words(
            dataclasses.replace(config, min_count=1),
            dataclasses.replace(DRAWS, block=64, passes=1),
        )
    with pytest.raises(UserError, match=r"has no split 'tset'; it has .* with --data\.splits$"):
        load_words(dataclasses.replace(config, splits=("train+tset",)), DRAWS)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"min_count": 0}, "min_count=0 must be at least 1"),
        ({"name": "bible+"}, "has an empty part"),
        ({"splits": ("train", "test")}, "has 2 values for 1 sets in name='bible'"),
        ({"columns": ("a", "b")}, "has 2 values for 1 sets"),
    ],
)
def test_wrong_values_are_named(changes, says):
    with pytest.raises(ValueError, match=says):
        WordsConfig(**changes)

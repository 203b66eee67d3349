"""What a model of text must beat, by somebody else's code on the same split."""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Set
from typing import Any

import numpy as np

from train import metrics
from train.config import Recipe
from train.data.answered_text import AnsweredText, Question
from train.data.labelled_text import LabelledText
from train.data.paired_text import PairedText
from train.data.tagged_text import TaggedText
from train.data.text import RunningText
from train.data.words import WordText
from train.errors import UserError
from train.metrics import accuracy, bleu, rouge_l
from train.task import Baseline


def tf_idf(data: LabelledText) -> Baseline:
    """Accuracy of a linear classifier on the words and pairs of words of a text.

    Counts are damped (1 + log) and weighted by how rare a word is (Manning et al. 2008, ch. 6).
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    x, x_eval = words.fit_transform(data.train_texts), words.transform(data.eval_texts)
    fitted = LogisticRegression(C=10, max_iter=1000).fit(x, data.train.columns["targets"])
    value = accuracy(np.asarray(data.eval.columns["targets"]), fitted.predict(x_eval))
    return Baseline("TF-IDF + LogisticRegression", value)


def frequent_tags(data: TaggedText) -> Baseline:
    """F1 of spans where each word has the tag that it has most often in the train split."""
    counts: dict[str, Counter[int]] = defaultdict(Counter)
    seen = data.train.arrays()
    rows = zip(data.train_words, seen["targets"], seen["targets_lengths"], strict=True)
    for words, tags, length in rows:
        for word, tag in zip(words, tags[:length], strict=False):  # of a sentence that was cut
            counts[word][int(tag)] += 1
    best = {
        word: data.tags[min(tags, key=lambda t: (-tags[t], t))] for word, tags in counts.items()
    }
    held_out = data.eval.arrays()
    lengths = held_out["targets_lengths"]
    target = [
        [data.tags[tag] for tag in row[:n]]
        for row, n in zip(held_out["targets"], lengths, strict=True)
    ]
    predicted = [
        [best.get(word, "O") for word in words[:n]]
        for words, n in zip(data.eval_words, lengths, strict=True)
    ]
    return Baseline("most frequent tag of a word", metrics.spans(target, predicted)["span_f1"])


def unigram(data: RunningText) -> Baseline:
    """Nats a token by how often each stands in the train split."""
    losses = -np.log(data.frequencies())
    return Baseline("unigram", float(losses[data.eval.tokens].mean()))


def interpolated_ngram(data: RunningText, order: int) -> Baseline:
    """Nats a character of an n-gram model whose orders are mixed (Jelinek & Mercer 1980).

    `p(x | h) = Σ_k λ_k p_k(x | last k tokens of h) + λ_uniform / V`; the λ are those that EM finds
    on the last tenth of the train split with counts of the rest, and the counts of all are used.
    """
    tokens, held_out = data.train.tokens.astype(np.int64), data.eval.tokens.astype(np.int64)
    vocab_size = data.tokenizer.get_vocab_size()
    if vocab_size**order >= 2**63:
        raise UserError(
            f"a {order}-gram of {vocab_size} tokens has no number of 64 bits; use "
            "--data.tokenizer character, or --task.baseline none"
        )
    cut = len(tokens) * 9 // 10
    parts = _ngram_probabilities(tokens[:cut], tokens[cut:], vocab_size, order)
    mix = np.full(order + 1, 1 / (order + 1))
    for _ in range(50):
        share = mix * parts
        mix = (share / share.sum(1, keepdims=True)).mean(0)
    probabilities = _ngram_probabilities(tokens, held_out, vocab_size, order) @ mix
    loss = -np.log(probabilities).mean() / data.chars_per_token
    return Baseline(f"interpolated {order}-gram", float(loss))


def _ngram_probabilities(
    seen: np.ndarray, text: np.ndarray, vocab_size: int, order: int
) -> np.ndarray:
    """[T, order + 1]: the probability of each token after the first by each order, uniform last.

    An order whose context was never seen says 0.
    """
    columns = []
    for length in range(1, order + 1):
        codes, counts = np.unique(_codes(seen, length, vocab_size), return_counts=True)
        heads, starts = np.unique(codes // vocab_size, return_index=True)
        totals = np.add.reduceat(counts, starts)
        asked = _codes(text, length, vocab_size)
        found = counts[_place(codes, asked)] * (codes[_place(codes, asked)] == asked)
        total = totals[_place(heads, asked // vocab_size)]
        # The first tokens of the text have no context of this length.
        columns.append(np.pad(found / total, (length - 1, 0))[order - 1 :])
    uniform = np.full(len(text) - order + 1, 1 / vocab_size)
    return np.stack([*columns, uniform], axis=1)


def _codes(tokens: np.ndarray, length: int, vocab_size: int) -> np.ndarray:
    """Every run of so many tokens as one number."""
    codes = np.zeros(len(tokens) - length + 1, np.int64)
    for offset in range(length):
        codes = codes * vocab_size + tokens[offset : len(tokens) - length + 1 + offset]
    return codes


def _place(table: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    return np.minimum(np.searchsorted(table, wanted), len(table) - 1)


def gensim_vectors(data: WordText, recipe: Recipe) -> np.ndarray:
    """[V, D]: the vectors that gensim learns from the same text with the same settings.

    One thread, since two would race for the tables and end differently each time; the words are
    numbered by their counts and not by a hash, so nothing depends on PYTHONHASHSEED.
    """
    from gensim.models import Word2Vec

    model = Word2Vec(
        data.texts,
        **gensim_settings(recipe),
        min_count=recipe.data.min_count,
        alpha=recipe.optim.peak_lr,
        min_alpha=recipe.optim.peak_lr * recipe.optim.final_lr_fraction,
        epochs=recipe.task.passes,
        seed=recipe.seed,
        workers=1,
    )
    return model.wv[list(data.vocabulary.words)]


def gensim_settings(recipe: Recipe) -> dict[str, Any]:
    """What gensim calls the settings of a recipe of word vectors."""
    config = recipe.task
    return {
        "sg": 1,  # skip-gram
        "hs": 0,  # negative sampling
        "vector_size": recipe.model.dim,
        "window": config.window,
        "negative": config.negatives,
        "ns_exponent": config.noise_power,
        "sample": config.sample,
    }


def sliding_window(data: AnsweredText) -> Baseline:
    """Exact match of the phrase whose neighbours in the passage the question has too.

    After Richardson et al. (2013, algorithm 1): a word that they share counts `log(1 + 1/n)`, n
    being how often the passage has it. Neighbours are the 2, 3, 5 or 10 words on either side,
    whichever scores best; phrases have at most four words, and no stop word at either end.
    """
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    answers = [question.answers for question in data.questions]
    scores = {}
    for width in (2, 3, 5, 10):
        found = [_best_phrase(row, width, ENGLISH_STOP_WORDS) for row in data.questions]
        scores[width] = metrics.squad(answers, found)["exact_match"]
    best = max(scores, key=lambda width: scores[width])
    return Baseline(f"overlap of {best} words on either side", scores[best])


def _best_phrase(row: Question, width: int, stop: Set[str]) -> str:
    places = list(re.finditer(r"\w+(?:[’'-]\w+)*|[^\w\s]", row.passage))
    words = [place.group().lower() for place in places]
    counts = Counter(words)
    asked = set(re.findall(r"\w+(?:[’'-]\w+)*", row.question.lower()))
    weight = [math.log(1 + 1 / counts[word]) if word in asked else 0.0 for word in words]
    full = [word[0].isalnum() and word not in stop for word in words]
    best, span = -1.0, (0, 0)
    for first in range(len(words)):
        for last in range(first, min(first + 4, len(words))):
            if not words[last][0].isalnum():
                break
            if full[first] and full[last]:
                around = weight[max(first - width, 0) : first] + weight[last + 1 :][:width]
                if (score := sum(around)) > best:
                    best, span = score, (places[first].start(), places[last].end())
    return row.passage[slice(*span)]


def copied_source(data: PairedText) -> Baseline:
    """BLEU of the sources as they are: what names, numbers and punctuation marks alone score."""
    value = bleu(data.eval_texts["target"], data.eval_texts["source"])
    return Baseline("the source, copied", value)


def first_words(data: PairedText) -> Baseline:
    """ROUGE-L of how a source begins: the best of its first sentence and its first 12 or 8 words.

    Beginnings are what summaries are compared with (See et al. 2017, "lead-3").
    """
    starts = {
        "first sentence": lambda text: re.split(r"(?<=[.!?])\s", text, maxsplit=1)[0],
        "first 12 words": lambda text: " ".join(text.split()[:12]),
        "first 8 words": lambda text: " ".join(text.split()[:8]),
    }
    sources, references = data.eval_texts["source"], data.eval_texts["target"]
    scores = {name: rouge_l(references, [*map(cut, sources)]) for name, cut in starts.items()}
    best = max(scores, key=lambda name: scores[name])
    return Baseline(f"{best} of the source", scores[best])

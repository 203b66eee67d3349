"""How good predictions are: the metrics of a whole split, on the host, in float64.

Arguments come in scikit-learn's order, the target first, and the values agree with it; vectors
have one entry an example. All about classes is read off the confusion matrix, which adds up over
pieces of a split: ``confusion_matrix(first) + confusion_matrix(second)``.

What is 0/0 counts as 0: the precision of a class that was never predicted, the recall of a class
without examples, the F1 of a class with neither. A mean over classes ("macro") leaves out the
classes that are neither predicted nor present.
"""

import re
import string
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike


def accuracy(target: ArrayLike, predicted: ArrayLike) -> float:
    """The share of examples whose predicted class is the true one, ``1/B Σ [ŷ = y]``."""
    target, predicted = _vectors(target, predicted)
    return float(np.mean(target == predicted))


def confusion_matrix(
    target: ArrayLike, predicted: ArrayLike, num_classes: int
) -> Int[np.ndarray, "V V"]:
    """``M[i, j]``: how many examples of class ``i`` were predicted as class ``j``.

    Raises:
      ValueError: a class outside ``0 ... num_classes - 1``.
    """
    target, predicted = _vectors(target, predicted)
    for name, classes in (("target", target), ("predicted", predicted)):
        _check_classes(name, classes, num_classes)
    cells = target.astype(np.int64) * num_classes + predicted
    counts = np.bincount(cells, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes)


def precision_per_class(matrix: Int[np.ndarray, "V V"]) -> Float[np.ndarray, "V"]:
    """Of what was called class v, the share that is: ``TP / (TP + FP)``."""
    return _ratio(np.diag(matrix), matrix.sum(0))


def recall_per_class(matrix: Int[np.ndarray, "V V"]) -> Float[np.ndarray, "V"]:
    """Of what is class v, the share that was called so: ``TP / (TP + FN)``."""
    return _ratio(np.diag(matrix), matrix.sum(1))


def f1_per_class(matrix: Int[np.ndarray, "V V"]) -> Float[np.ndarray, "V"]:
    """The harmonic mean of precision and recall: ``2 TP / (2 TP + FP + FN)``."""
    return _ratio(2 * np.diag(matrix), matrix.sum(0) + matrix.sum(1))


def precision(matrix: Int[np.ndarray, "V V"]) -> float:
    """Macro precision: the mean of :func:`precision_per_class` over the classes that occur."""
    return _macro(precision_per_class(matrix), matrix)


def recall(matrix: Int[np.ndarray, "V V"]) -> float:
    """Macro recall: the mean of :func:`recall_per_class` over the classes that occur."""
    return _macro(recall_per_class(matrix), matrix)


def f1(matrix: Int[np.ndarray, "V V"]) -> float:
    """Macro F1: the mean of :func:`f1_per_class` over the classes that occur."""
    return _macro(f1_per_class(matrix), matrix)


def rmse(target: ArrayLike, predicted: ArrayLike) -> float:
    """Root of the mean squared error, ``√(1/B Σ (ŷ - y)²)``, in the target's unit."""
    target, predicted = _vectors(target, predicted, dtype=np.float64)
    return float(np.sqrt(np.mean((predicted - target) ** 2)))


def mae(target: ArrayLike, predicted: ArrayLike) -> float:
    """Mean absolute error, ``1/B Σ |ŷ - y|``, in the target's unit."""
    target, predicted = _vectors(target, predicted, dtype=np.float64)
    return float(np.mean(np.abs(predicted - target)))


def r2(*, target: ArrayLike, predicted: ArrayLike) -> float:
    """The share of the target's variance that is explained, ``1 - Σ (ŷ - y)² / Σ (y - ȳ)²``.

    By name only, because exchanged arguments would give another number and no error. Where the
    target is constant the ratio does not exist: 1 if the predictions are exact, else 0.
    """
    target, predicted = _vectors(target, predicted, dtype=np.float64)
    residual = np.sum((target - predicted) ** 2)
    total = np.sum((target - target.mean()) ** 2)
    return float(1 - residual / total) if total else float(residual == 0)


def roc_curve(
    target: ArrayLike, scores: ArrayLike
) -> tuple[Float[np.ndarray, "P"], Float[np.ndarray, "P"]]:
    """False and true positive rates as the threshold falls, from (0, 0) to (1, 1).

    Args:
      target: [B], 1 or true for a positive example, else 0.
      scores: [B], higher for what looks positive. Equal scores pass the threshold together.

    Raises:
      ValueError: a target that is neither 0 nor 1, only one of the two classes, or a NaN score.
    """
    target, scores = _vectors(target, scores)
    if not np.isin(target, (0, 1)).all():
        wrong = target[~np.isin(target, (0, 1))][0]
        raise ValueError(
            f"target holds {wrong}; a binary target is 0 or 1 (did you swap arguments?)"
        )
    if np.isnan(scores).any():
        raise ValueError(
            f"{np.isnan(scores).sum()} of {len(scores)} scores are NaN; no order exists"
        )
    if target.min() == target.max():
        raise ValueError(
            f"every target is {int(target[0])}; a ROC curve needs positive and negative examples"
        )
    order = np.argsort(-scores, kind="stable")
    last_of_ties = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    positives = np.cumsum(target[order], dtype=np.float64)[last_of_ties]
    negatives = last_of_ties + 1 - positives
    false_rate, true_rate = negatives / negatives[-1], positives / positives[-1]
    return np.append(0.0, false_rate), np.append(0.0, true_rate)


def auroc(target: ArrayLike, scores: ArrayLike) -> float:
    """Area under the ROC curve: ``P(s⁺ > s⁻) + ½ P(s⁺ = s⁻)`` (Hanley and McNeil 1982).

    s⁺ and s⁻ are the scores of a positive and a negative example drawn at random. With a column of
    scores a class, the mean over the classes that have examples of each one against the rest; for
    two classes whose scores add up to 1 that is the binary area.

    Args:
      target: [B], classes; 0 or 1 where the scores are a vector.
      scores: [B], or [B V] with one column a class.

    Raises:
      ValueError: as :func:`roc_curve`; fewer than two classes have examples; a class outside
        the columns.
    """
    target, scores = np.asarray(target), np.asarray(scores)
    if scores.ndim != 2:
        false_rate, true_rate = roc_curve(target, scores)
        return float(np.trapezoid(true_rate, false_rate))
    _check_classes("target", target, scores.shape[1])
    present = np.unique(target)
    if len(present) < 2:
        raise ValueError(
            f"every target is {present.tolist()}; AUROC needs two classes with examples"
        )
    return float(np.mean([auroc(target == v, scores[:, v]) for v in present]))


def bleu(references: Sequence[str], written: Sequence[str]) -> float:
    """BLEU of a whole corpus (Papineni et al. 2002), 0 to 100, as sacreBLEU has it (Post 2018).

    The geometric mean of the shares of written 1- to 4-grams that the reference has too, times
    `exp(1 - r/c)` where the c written words are fewer than the r of the references. Words are cut
    by the library's tokenizer "13a", and capitals count.
    """
    import sacrebleu

    return float(sacrebleu.corpus_bleu(list(written), [list(references)]).score)


def rouge_l(references: Sequence[str], written: Sequence[str]) -> float:
    """ROUGE-L (Lin 2004, section 3.1), 0 to 1: the mean F1 of longest common subsequences of words.

    Words are what rouge-score takes for such, lower-cased runs of a to z and digits: it is made for
    English. They are not stemmed.
    """
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"])
    pairs = zip(references, written, strict=True)
    return float(np.mean([scorer.score(a, b)["rougeL"].fmeasure for a, b in pairs]))


def squad(answers: Sequence[Sequence[str]], predicted: Sequence[str]) -> dict[str, float]:
    """Exact match and F1 of answers, 0 to 1 (Rajpurkar et al. 2016, section 6.1).

    Lower case, without punctuation marks, "a", "an" and "the", an answer is one of those wanted, or
    it is not; F1 is that of the words that it shares with the one that is most like it. Where none
    is wanted, only the empty answer is right.

    Args:
      answers: those wanted of each question.
      predicted: one for each question.
    """
    exact, overlap = [], []
    for wanted, answer in zip(answers, predicted, strict=True):
        got = _answer_words(answer)
        rows = [_answer_words(text) for text in wanted or [""]]
        exact.append(got in rows)
        overlap.append(max(_overlap(row, got) for row in rows))
    return {"exact_match": float(np.mean(exact)), "answer_f1": float(np.mean(overlap))}


def _answer_words(text: str) -> list[str]:
    text = "".join(c for c in text.lower() if c not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", text).split()


def _overlap(wanted: list[str], got: list[str]) -> float:
    shared = (Counter(wanted) & Counter(got)).total()
    return 2 * shared / (len(wanted) + len(got)) if wanted and got else float(wanted == got)


def _vectors(target: ArrayLike, predicted: ArrayLike, dtype: type | None = None):
    """Both as vectors of one length; ``[B]`` against ``[B, 1]`` would broadcast to ``[B, B]``."""
    target, predicted = np.asarray(target, dtype), np.asarray(predicted, dtype)
    if target.ndim != 1 or target.shape != predicted.shape:
        raise ValueError(
            f"target has shape {target.shape} and its prediction {predicted.shape}; "
            "both must be vectors with one entry an example"
        )
    if not len(target):
        raise ValueError("there are no examples; a metric needs at least one")
    return target, predicted


def _check_classes(name: str, classes: np.ndarray, num_classes: int) -> None:
    if not np.issubdtype(classes.dtype, np.integer):
        raise ValueError(f"{name} has dtype {classes.dtype}; classes are integers")
    outside = classes[(classes < 0) | (classes >= num_classes)]
    if outside.size:
        raise ValueError(
            f"{name} holds class {outside[0]}; {num_classes=} allows 0 to {num_classes - 1}"
        )


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0)


def _macro(per_class: np.ndarray, matrix: np.ndarray) -> float:
    occurs = matrix.sum(0) + matrix.sum(1) > 0
    if not occurs.any():
        raise ValueError("the confusion matrix is empty; a mean over classes needs an example")
    return float(per_class[occurs].mean())


def spans(target: list[list[str]], predicted: list[list[str]]) -> dict[str, float]:
    """Precision, recall and F1 of the spans that BIO tags mark, by seqeval.

    A span counts only with the right kind and both ends; an I- tag that follows no span of its kind
    marks none (seqeval's strict mode).

    Args:
      target: the tags of each sentence, by name.
      predicted: likewise.
    """
    # Its import brings scikit-learn's along, which takes a second.
    from seqeval.metrics import f1_score, precision_score, recall_score
    from seqeval.scheme import IOB2

    scores: dict[str, Any] = {"f1": f1_score, "precision": precision_score, "recall": recall_score}
    how = {"mode": "strict", "scheme": IOB2, "zero_division": 0}
    return {f"span_{k}": float(f(target, predicted, **how)) for k, f in scores.items()}

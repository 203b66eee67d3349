"""The metrics against scikit-learn, and against their definitions where scikit-learn has none."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from train import metrics

TOLERANCE = 1e-12
labels = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=40)
reals = st.floats(-1e3, 1e3, width=32)
pairs_of_reals = st.lists(st.tuples(reals, reals), min_size=2, max_size=40)


def assert_agree(actual, expected) -> None:
    np.testing.assert_allclose(actual, expected, rtol=TOLERANCE, atol=TOLERANCE)


@settings(max_examples=40)  # scikit-learn takes milliseconds a call
@given(labels)
def test_class_metrics_equal_scikit_learn(pairs):
    target, predicted = np.array(pairs).T
    matrix = metrics.confusion_matrix(target, predicted, 5)
    np.testing.assert_array_equal(matrix, sk.confusion_matrix(target, predicted, labels=range(5)))
    assert_agree(metrics.accuracy(target, predicted), sk.accuracy_score(target, predicted))
    for name in ("precision", "recall", "f1"):
        oracle = getattr(sk, f"{name}_score")
        per_class = getattr(metrics, f"{name}_per_class")(matrix)
        kw = {"zero_division": 0}
        assert_agree(per_class, oracle(target, predicted, labels=range(5), average=None, **kw))
        assert_agree(
            getattr(metrics, name)(matrix), oracle(target, predicted, average="macro", **kw)
        )


def test_confusion_matrices_of_pieces_add_up():
    rng = np.random.default_rng(0)
    target, predicted = rng.integers(0, 3, (2, 50))
    whole = metrics.confusion_matrix(target, predicted, 3)
    first = metrics.confusion_matrix(target[:20], predicted[:20], 3)
    assert (first + metrics.confusion_matrix(target[20:], predicted[20:], 3) == whole).all()


def test_absent_classes_count_nothing():
    matrix = metrics.confusion_matrix([0, 0, 1], [0, 0, 0], 4)  # 2 and 3 never occur
    assert_agree(metrics.precision_per_class(matrix), [2 / 3, 0, 0, 0])
    assert_agree(metrics.recall_per_class(matrix), [1, 0, 0, 0])
    assert_agree(metrics.recall(matrix), 0.5)
    assert_agree(metrics.f1(matrix), 0.4)


@given(pairs_of_reals)
def test_regression_metrics_equal_scikit_learn(pairs):
    target, predicted = np.array(pairs, np.float64).T
    assert_agree(metrics.rmse(target, predicted), sk.root_mean_squared_error(target, predicted))
    assert_agree(metrics.mae(target, predicted), sk.mean_absolute_error(target, predicted))
    assert_agree(metrics.r2(target=target, predicted=predicted), sk.r2_score(target, predicted))


def test_float32_predictions_are_summed_in_float64():
    target = np.full(10_000, 1e4, np.float32)
    assert_agree(metrics.mae(target, target + np.float32(1 / 64)), 1 / 64)


def test_r2_of_a_constant_target_follows_its_convention():
    assert metrics.r2(target=[2.0, 2.0], predicted=[2.0, 2.0]) == 1
    assert metrics.r2(target=[2.0, 2.0], predicted=[2.0, 3.0]) == 0


# Few distinct scores, so that ties within a class and between classes are common.
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=2, max_size=40))
def test_binary_auroc_equals_its_definition_and_scikit_learn(pairs):
    target, scores = np.array([p[0] for p in pairs]), np.array([p[1] / 5 for p in pairs])
    if target.all() or not target.any():
        with pytest.raises(ValueError, match="positive and negative"):
            metrics.auroc(target, scores)
        return
    difference = scores[target][:, None] - scores[~target]
    assert_agree(metrics.auroc(target, scores), ((difference > 0) + 0.5 * (difference == 0)).mean())
    assert_agree(metrics.auroc(target, scores), sk.roc_auc_score(target, scores))
    false_rate, true_rate, _ = sk.roc_curve(target, scores, drop_intermediate=False)
    assert_agree(np.array(metrics.roc_curve(target, scores)), np.array([false_rate, true_rate]))


def _probabilities(rng, num, classes):
    scores = rng.integers(1, 6, (num, classes)).astype(np.float64)  # small integers: many ties
    return scores / scores.sum(1, keepdims=True)


@pytest.mark.parametrize("classes", [3, 7])
def test_one_vs_rest_auroc_equals_scikit_learn(classes):
    rng = np.random.default_rng(classes)
    target = np.append(np.arange(classes), rng.integers(0, classes, 60))
    scores = _probabilities(rng, len(target), classes)
    assert_agree(metrics.auroc(target, scores), sk.roc_auc_score(target, scores, multi_class="ovr"))


def test_one_vs_rest_auroc_of_two_classes_is_the_binary_one():
    rng = np.random.default_rng(0)
    target, scores = np.arange(40) % 2, _probabilities(rng, 40, 2)
    assert_agree(metrics.auroc(target, scores), sk.roc_auc_score(target, scores[:, 1]))


def test_one_vs_rest_auroc_leaves_out_classes_without_examples():
    rng = np.random.default_rng(1)
    target, scores = np.arange(40) % 2, _probabilities(rng, 40, 4)
    each = [sk.roc_auc_score(target == v, scores[:, v]) for v in (0, 1)]
    assert_agree(metrics.auroc(target, scores), np.mean(each))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.accuracy([], []), "no examples"),
        (lambda: metrics.rmse(np.zeros(3), np.zeros((3, 1))), r"\(3,\).*\(3, 1\)"),
        (lambda: metrics.confusion_matrix([0, 3], [0, 1], 3), "target holds class 3"),
        (lambda: metrics.confusion_matrix([0, 1], [0, -1], 3), "predicted holds class -1"),
        (lambda: metrics.confusion_matrix([0.0], [0.0], 3), "dtype float64"),
        (lambda: metrics.precision(np.zeros((2, 2), int)), "empty"),
        (lambda: metrics.auroc([1, 1], [0.2, 0.3]), "every target is 1"),
        (lambda: metrics.auroc([2, 2], np.ones((2, 3))), r"every target is \[2\]"),
        (lambda: metrics.auroc([0, 3], np.ones((2, 3))), "target holds class 3"),
        (lambda: metrics.auroc([0, 1], [np.nan, 0.1]), "1 of 2 scores are NaN"),
        (lambda: metrics.auroc([0.2, 0.7], [0, 1]), "swap"),
    ],
)
def test_errors_name_the_value(call, message):
    with pytest.raises(ValueError, match=message):
        call()

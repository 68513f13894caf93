"""Scores, intervals and tests agree with scikit-learn and SciPy."""

import numpy as np
import pytest
from scipy.stats import binomtest, bootstrap
from sklearn.metrics import accuracy_score, precision_recall_fscore_support

from rocbert_hf.data.scores import classification_scores, confusion_matrices
from rocbert_hf.evaluation.metrics import Bootstrap, mcnemar


@pytest.mark.parametrize("num_labels", [2, 3, 7])
@pytest.mark.parametrize("n", [1, 5, 200])
def test_scores_are_those_of_scikit_learn(num_labels, n):
    rng = np.random.default_rng(num_labels * n)
    labels, predictions = rng.integers(num_labels, size=(2, n))
    scores = classification_scores(confusion_matrices(labels, predictions, num_labels))
    average = {"average": "binary"} if num_labels == 2 else {"average": "macro"}
    precision, recall, f1, _ = precision_recall_fscore_support(labels, predictions, zero_division=0, **average)
    expected = {"accuracy": accuracy_score(labels, predictions), "f1": f1, "precision": precision, "recall": recall}
    assert {name: float(score) for name, score in scores.items()} == pytest.approx(expected)


@pytest.mark.parametrize("positive", [0, 1, None])
def test_of_two_labels_the_named_one_is_scored_or_both(positive):
    labels, predictions = np.random.default_rng(0).integers(2, size=(2, 40))
    labels[:8] = 1  # not as many of the one as of the other
    scores = classification_scores(confusion_matrices(labels, predictions, 2), positive)
    average = {"average": "macro"} if positive is None else {"average": "binary", "pos_label": positive}
    precision, recall, f1, _ = precision_recall_fscore_support(labels, predictions, **average)
    assert [float(scores[name]) for name in ("precision", "recall", "f1")] == pytest.approx([precision, recall, f1])


@pytest.mark.parametrize("confidence", [0.95, 0.8])
def test_intervals_are_those_of_scipy(confidence):
    values = np.random.default_rng(0).random(80) ** 2
    estimate = Bootstrap(seed=1, resamples=5000, confidence=confidence).mean(values)
    options = {"n_resamples": 5000, "method": "percentile", "confidence_level": confidence}
    expected = bootstrap((values,), np.mean, rng=0, **options).confidence_interval
    assert estimate.value == pytest.approx(values.mean())
    assert (estimate.low, estimate.high) == pytest.approx((expected.low, expected.high), abs=0.005)


def test_interval_of_an_accuracy_is_that_of_its_zeros_and_ones():
    rng = np.random.default_rng(0)
    labels, predictions = rng.integers(2, size=(2, 60))
    of_scores = Bootstrap(seed=3).scores(labels, predictions, 2)["accuracy"]
    of_mean = Bootstrap(seed=3).mean(labels == predictions)
    assert vars(of_scores) == pytest.approx(vars(of_mean))


def test_same_seed_same_interval_and_chunks_change_nothing(monkeypatch):
    values = np.random.default_rng(0).random(50)
    whole = Bootstrap(seed=5).mean(values)
    assert Bootstrap(seed=5).mean(values) == whole
    assert Bootstrap(seed=6).mean(values) != whole
    monkeypatch.setattr(Bootstrap, "CHUNK", 700)
    assert Bootstrap(seed=5).mean(values) == whole


def test_nothing_measured_is_no_number():
    assert Bootstrap().mean([]).to_dict() == {"value": None, "low": None, "high": None}


@pytest.mark.parametrize(("only_first", "only_second"), [(0, 0), (1, 0), (3, 12), (40, 22), (500, 400)])
def test_mcnemar_is_the_exact_binomial_test(only_first, only_second):
    first = np.array([True] * only_first + [False] * only_second + [True] * 5 + [False] * 3)
    second = np.array([False] * only_first + [True] * only_second + [True] * 5 + [False] * 3)
    n = only_first + only_second
    expected = binomtest(only_first, n).pvalue if n else 1.0
    assert mcnemar(first, second) == pytest.approx(expected)
    assert mcnemar(second, first) == mcnemar(first, second)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"resamples": 0}, "resamples must be a whole number of at least 1, got 0"),
        ({"resamples": 0.5}, "resamples"),
        ({"seed": -1}, "seed must be a whole number of at least 0, got -1"),
        ({"confidence": 1.0}, "confidence"),
    ],
)
def test_bad_options_are_named(options, named):
    with pytest.raises(ValueError, match=named):
        Bootstrap(**options)

"""Scores of a classifier's predictions, for its training and for measuring its robustness."""

from __future__ import annotations

import numpy as np

SCORES = ("accuracy", "f1", "precision", "recall")


def classification_scores(confusion: np.ndarray, positive: int | None = 1) -> dict[str, np.ndarray]:
    """Accuracy, F1, precision and recall from confusion matrices. A ratio of nothing counts as 0, as in scikit-learn.

    Args:
        confusion: (..., labels, labels) counts: rows are right labels, columns are predictions.
        positive: the label whose F1, precision and recall are meant if there are two labels, as for a filter that is to
            find something; None: their means over the labels (macro). With more labels they are always macro.

    Returns:
        Name -> (...) scores.
    """
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    of_label, predicted = confusion.sum(-1), confusion.sum(-2)
    precision, recall = ratio(hits, predicted), ratio(hits, of_label)
    f1 = ratio(2 * hits, of_label + predicted)
    if confusion.shape[-1] == 2 and positive is not None:
        precision, recall, f1 = (score[..., positive] for score in (precision, recall, f1))
    else:
        # a label that is neither there nor predicted is no part of the mean
        seen = (of_label + predicted) > 0
        precision, recall, f1 = (ratio((score * seen).sum(-1), seen.sum(-1)) for score in (precision, recall, f1))
    accuracy = ratio(hits.sum(-1), of_label.sum(-1))
    return dict(zip(SCORES, (accuracy, f1, precision, recall), strict=True))


def confusion_matrices(labels: np.ndarray, predictions: np.ndarray, num_labels: int) -> np.ndarray:
    """Counts (..., num_labels, num_labels) of (right label, prediction) pairs along the last axis of both (..., n)."""
    labels, predictions = np.asarray(labels), np.asarray(predictions)
    cells = num_labels**2
    pairs = (labels * num_labels + predictions).reshape(-1, labels.shape[-1])
    shifted = pairs + cells * np.arange(len(pairs))[:, None]
    counts = np.bincount(shifted.ravel(), minlength=cells * len(pairs))
    return counts.reshape(*labels.shape[:-1], num_labels, num_labels)


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """numerator / denominator, 0 where the denominator is 0."""
    numerator, denominator = np.broadcast_arrays(
        np.asarray(numerator, dtype=np.float64), np.asarray(denominator, dtype=np.float64)
    )
    return np.divide(numerator, denominator, out=np.zeros(denominator.shape), where=denominator > 0)

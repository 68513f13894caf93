"""Scores of predictions, how sure they are, and whether two classifiers differ."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..data.scores import SCORES, classification_scores, confusion_matrices


@dataclass(frozen=True)
class Estimate:
    """A number and the interval that holds it with the given confidence; NaN where nothing was measured."""

    value: float
    low: float
    high: float

    def to_dict(self) -> dict[str, float | None]:
        return {name: None if math.isnan(value) else round(value, 6) for name, value in vars(self).items()}


class Bootstrap:
    """95% percentile intervals by drawing the examples anew (Efron and Tibshirani, 1993).

    Every call draws the same examples for the same n, so that differences between classifiers are paired.

    Args:
        seed: of the draws.
        resamples: how many.
        confidence: of the intervals.
    """

    CHUNK = 1 << 22  # drawn numbers that are held at a time

    def __init__(self, seed: int = 0, resamples: int = 1000, confidence: float = 0.95):
        for argument, value, least in (("seed", seed, 0), ("resamples", resamples, 1)):
            if not isinstance(value, int) or value < least:
                raise ValueError(f"{argument} must be a whole number of at least {least}, got {value!r}")
        if not 0 < confidence < 1:
            raise ValueError(f"confidence must lie between 0 and 1, got {confidence}")
        self.seed = seed
        self.resamples = resamples
        self.confidence = confidence

    def scores(self, labels: Sequence[int], predictions: Sequence[int], num_labels: int) -> dict[str, Estimate]:
        """`classification_scores` with intervals."""
        labels, predictions = np.asarray(labels, dtype=np.int64), np.asarray(predictions, dtype=np.int64)

        def statistic(rows: np.ndarray) -> np.ndarray:
            scores = classification_scores(confusion_matrices(labels[rows], predictions[rows], num_labels))
            return np.stack([scores[name] for name in SCORES], axis=-1)

        return dict(zip(SCORES, self._estimates(statistic, len(labels)), strict=True))

    def mean(self, values: Sequence[float]) -> Estimate:
        """The mean of values with its interval."""
        values = np.asarray(values, dtype=np.float64)
        return self._estimates(lambda rows: values[rows].mean(-1)[..., None], len(values))[0]

    def _estimates(self, statistic: Callable[[np.ndarray], np.ndarray], n: int) -> list[Estimate]:
        """Estimates of a statistic that maps row numbers (draws, n) to values (draws, k)."""
        if n == 0:
            return [Estimate(math.nan, math.nan, math.nan)] * len(SCORES)
        rng = np.random.default_rng(self.seed)
        whole = statistic(np.arange(n)[None])[0]
        size = max(1, self.CHUNK // n)
        drawn = [
            statistic(rng.integers(n, size=(min(size, self.resamples - start), n)))
            for start in range(0, self.resamples, size)
        ]
        tail = (1 - self.confidence) / 2
        low, high = np.quantile(np.concatenate(drawn), (tail, 1 - tail), axis=0)
        return [Estimate(*map(float, numbers)) for numbers in zip(whole, low, high, strict=True)]


def mcnemar(right_of_first: Sequence[bool], right_of_second: Sequence[bool]) -> float:
    """p-value of McNemar's exact test: are two classifiers right equally often, on the same examples?

    Two-sided; only examples that exactly one of them gets right count, whose number is binomial under the null
    hypothesis.
    """
    first, second = np.asarray(right_of_first, dtype=bool), np.asarray(right_of_second, dtype=bool)
    if first.shape != second.shape:
        raise ValueError(f"both must answer the same examples, got {len(first)} and {len(second)}")
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    n, fewer = only_first + only_second, min(only_first, only_second)
    tail = sum(math.comb(n, k) for k in range(fewer + 1))
    return min(1.0, 2 * tail / 2**n)

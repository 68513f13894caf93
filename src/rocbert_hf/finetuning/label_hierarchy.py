"""Labels that are paths, such as "payment/card/declined": right at which level, and mistaken for which neighbour."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

SEPARATOR = "/"


@dataclass(frozen=True)
class LabelHierarchy:
    """What lies above each label.

    A label that is shorter than others counts as itself at the levels that it lacks. A "/" before the first name makes no level.

    Args:
        labels: paths, by their numbers.
    """

    labels: tuple[str, ...]

    @classmethod
    def of(cls, labels: Sequence[str]) -> LabelHierarchy | None:
        """The hierarchy of the labels; None if none of them is a path of two levels or more."""
        return cls(tuple(labels)) if any(SEPARATOR in label.strip(SEPARATOR) for label in labels) else None

    @property
    def depth(self) -> int:
        return max(len(_names(label)) for label in self.labels)

    def ancestors(self, level: int) -> tuple[str, ...]:
        """Of each label, its path down to a level, from 1 on."""
        return tuple(SEPARATOR.join(_names(label)[:level]) for label in self.labels)

    def ancestor_numbers(self, level: int) -> np.ndarray:
        """(labels,), the number of each label's ancestor at a level; numbers in alphabetical order."""
        return np.unique(self.ancestors(level), return_inverse=True)[1]

    def accuracy_by_level(self, labels: Sequence[int], predictions: Sequence[int]) -> dict[str, float]:
        """`accuracy_level_1`, `accuracy_level_2` ...: the share of predictions whose path is right down to there."""
        labels, predictions = np.asarray(labels), np.asarray(predictions)
        return {
            f"accuracy_level_{level}": float((numbers[labels] == numbers[predictions]).mean())
            for level in range(1, self.depth + 1)
            for numbers in [self.ancestor_numbers(level)]
        }

    def sibling_errors(self, labels: Sequence[int], predictions: Sequence[int]) -> tuple[int, int, Counter]:
        """(errors, those of them that stay below one parent, (right label, predicted label) of these and how often)."""
        parents = [SEPARATOR.join(_names(label)[:-1]) for label in self.labels]
        wrong = [(int(right), int(said)) for right, said in zip(labels, predictions, strict=True) if right != said]
        siblings = [pair for pair in wrong if parents[pair[0]] and parents[pair[0]] == parents[pair[1]]]
        return len(wrong), len(siblings), Counter((self.labels[right], self.labels[said]) for right, said in siblings)


def _names(label: str) -> list[str]:
    """The names of a path; what is before the first one stays with it."""
    path = label.lstrip(SEPARATOR)
    first, *others = path.split(SEPARATOR)
    return [label.removesuffix(path) + first, *others]


class HierarchicalLoss:
    """Cross entropy at the upper levels, where a path's probability is the sum of its labels'.

    Args:
        hierarchy: of the labels.
        weight: of each level above the last.

    Raises:
        ValueError: the weight is negative.
    """

    def __init__(self, hierarchy: LabelHierarchy, weight: float = 1.0):
        if not weight >= 0:
            raise ValueError(f"weight must not be negative, got {weight}")
        self.weight = weight
        self.levels = [torch.tensor(hierarchy.ancestor_numbers(level)) for level in range(1, hierarchy.depth)]

    def __call__(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The losses (n,) of logits (n, labels) and right labels (n,), all levels together."""
        log_probabilities = logits.log_softmax(-1)
        total = torch.zeros_like(log_probabilities[:, 0])
        for level in self.levels:
            of_label = level.to(logits.device)
            related = of_label[labels][:, None] == of_label[None]
            total = total - self.weight * log_probabilities.masked_fill(~related, -torch.inf).logsumexp(-1)
        return total

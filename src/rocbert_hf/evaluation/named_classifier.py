"""What an evaluation knows of a classifier: its labels, and what tells it from others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..attackers.victim import Classifier, Query, probabilities_of


@dataclass
class NamedClassifier:
    """A classifier with what an evaluation knows of it.

    Args:
        name: for reports.
        classifier: answers lists of texts, or of pairs.
        labels: names of its labels by number; None when it does not say.
        fingerprint: what tells it from another one of the same name; None when nothing does.
        order: the columns of its answer in the order of the task's labels; None for as they are.
    """

    name: str
    classifier: Classifier
    labels: tuple[str, ...] | None
    fingerprint: str | None
    order: tuple[int, ...] | None = None

    def __call__(self, queries: list[Query]) -> np.ndarray:
        answer = probabilities_of(self.classifier, queries)
        if self.order is None:
            return answer
        return answer[:, self.order]


def label_names_of(classifier: Classifier) -> tuple[str, ...] | None:
    """The names of a classifier's labels by number; "0", "1" ... if they have no names, None if it does not say.

    Raises:
        ValueError: its config does not number them from 0.
    """
    config = getattr(getattr(classifier, "model", None), "config", None)
    if config is None:
        return None
    if sorted(config.id2label) != list(range(config.num_labels)):
        raise ValueError(f"a classifier's config must number its labels from 0, got id2label={config.id2label}")
    names = tuple(str(config.id2label[number]) for number in range(config.num_labels))
    if all(name == f"LABEL_{number}" for number, name in enumerate(names)):
        return tuple(map(str, range(max(len(names), 2))))
    return names

"""Attacked text as training data: plain lists, or a `datasets` map."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice
from typing import Any

from .synthesizer import AdversarialSynthesizer


def augment(
    texts: Sequence[str],
    labels: Sequence[Any] | None = None,
    n: int = 4,
    seed: int = 0,
    synthesizer: AdversarialSynthesizer | str | Mapping[str, Any] = "paper",
    keep_source: bool = True,
    num_workers: int = 0,
) -> tuple[list[str], list[Any] | None]:
    """Every text with `n` attacked forms, and its label with each.

    Attacked forms of one text are all different; only where its characters do not allow as many they are repeated.

    Args:
        texts: the texts.
        labels: one label per text, copied to its attacked forms; None without labels.
        n: attacked forms per text.
        seed: another seed, other forms.
        synthesizer: an `AdversarialSynthesizer`, or a preset or config to make one of.
        keep_source: put each text itself before its attacked forms.
        num_workers: processes to share the work among.

    Returns:
        (texts, labels), each n + 1 times as long (n times without the sources); labels None when none were given.

    Example::

        >>> texts, labels = augment(["这家店的服务很好", "菜太咸了"], [1, 0], n=2)
        >>> len(texts), labels
        (6, [1, 1, 1, 0, 0, 0])
    """
    if isinstance(texts, str):
        raise ValueError("texts must be a list of strings, got one string")
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    if labels is not None and len(labels) != len(texts):
        raise ValueError(f"labels must have one entry per text ({len(texts)}), got {len(labels)}")
    if not isinstance(synthesizer, AdversarialSynthesizer):
        synthesizer = AdversarialSynthesizer(synthesizer)
    forms = [[text] for text in texts]
    left = list(range(len(texts)))
    for attempt in range(3 * n):  # a text with few characters may give the same form more than once
        left = [i for i in left if len(forms[i]) <= n]
        attacked = synthesizer.attack_batch([texts[i] for i in left], _sub_seed(seed, attempt), num_workers)
        for i, form in zip(left, attacked, strict=True):
            if form.text not in forms[i]:
                forms[i].append(form.text)
    for row in forms:
        row += islice(cycle(row[1:] or row), n + 1 - len(row))
    rows = [(form, i) for i, row in enumerate(forms) for form in row[0 if keep_source else 1 :]]
    return [form for form, _ in rows], None if labels is None else [labels[i] for _, i in rows]


def _sub_seed(seed: int, number: int) -> int:
    """A seed of its own for each round, so that neighbouring seeds share none."""
    return int.from_bytes(hashlib.blake2b(f"{seed}/{number}".encode(), digest_size=7).digest(), "little")


@dataclass
class AttackColumn:
    """`dataset.map(AttackColumn(), batched=True)` adds the attacked form of a text column.

    Args:
        column: the column to attack.
        into: the new column of attacked texts.
        edits: also a column of the edits (their spans and attacks), under this name; None leaves it out.
        seed: as for `AdversarialSynthesizer.attack`.
        synthesizer: an `AdversarialSynthesizer`, or a preset or config to make one of.
    """

    column: str = "text"
    into: str = "attacked_text"
    edits: str | None = None
    seed: int = 0
    synthesizer: AdversarialSynthesizer | str | Mapping[str, Any] = field(default="paper")

    def __post_init__(self) -> None:
        if not isinstance(self.synthesizer, AdversarialSynthesizer):
            self.synthesizer = AdversarialSynthesizer(self.synthesizer)

    def __call__(self, batch: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
        attacked = self.synthesizer.attack_batch(_texts(batch, self.column), self.seed)
        columns: dict[str, list[Any]] = {self.into: [form.text for form in attacked]}
        if self.edits is not None:
            columns[self.edits] = [form.to_dict()["edits"] for form in attacked]
        return columns


@dataclass
class AugmentRows:
    """`dataset.map(AugmentRows(n=4), batched=True)` puts `n` attacked copies behind every row.

    All other columns are copied. Arguments as for `augment`.
    """

    column: str = "text"
    n: int = 4
    seed: int = 0
    synthesizer: AdversarialSynthesizer | str | Mapping[str, Any] = field(default="paper")
    keep_source: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.synthesizer, AdversarialSynthesizer):
            self.synthesizer = AdversarialSynthesizer(self.synthesizer)

    def __call__(self, batch: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
        texts = _texts(batch, self.column)
        forms, rows = augment(texts, range(len(texts)), self.n, self.seed, self.synthesizer, self.keep_source)
        return {name: forms if name == self.column else [batch[name][i] for i in rows] for name in batch}


def _texts(batch: Mapping[str, Sequence[Any]], column: str) -> Sequence[str]:
    if column not in batch:
        raise ValueError(f"column must be among the dataset's columns {list(batch)}, got {column!r}")
    if isinstance(batch[column], str):
        raise ValueError("map needs batched=True")
    return batch[column]

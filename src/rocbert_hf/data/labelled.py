"""Labelled texts of any file or dataset with named columns."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..files import unpacked_name
from .tables import Row, read_rows, table_format

if TYPE_CHECKING:
    from datasets import Dataset


_NUMBER = re.compile(r"[+-]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][+-]?[0-9]+)?")
_WHOLE = re.compile(r"([+-]?[0-9]+)[.]0+")  # what pandas makes of a column of whole numbers with a gap in it


@dataclass(frozen=True)
class Columns:
    """Where a table has its texts and labels.

    `text_pair` is None for single texts, `attacked` if nobody has attacked them.
    """

    text: str = "text"
    text_pair: str | None = None
    label: str = "label"
    attacked: str | None = None

    @property
    def named(self) -> tuple[str, ...]:
        names = (self.text, self.text_pair, self.label, self.attacked)
        return tuple(name for name in names if name is not None)


@dataclass(frozen=True)
class LabelledTexts:
    """Texts, or pairs of texts, and a label each, in the order of their source.

    Args:
        name: of the task or file, for messages and reports.
        texts: the texts.
        labels: as they are written in the source, without spaces around them; but 1.0 is 1 if all are numbers.
        pairs: the second texts; None for single texts.
        names: all labels of the source, in their order, of which these rows may have a part; None for those that occur.
        attacked: an attacked form of each text that somebody has already made, or None.
        numbered: the source itself numbers its labels in the order of `names`, as a `ClassLabel` of datasets does.
    """

    name: str
    texts: tuple[str, ...]
    labels: tuple[str, ...]
    pairs: tuple[str, ...] | None = None
    names: tuple[str, ...] | None = None
    numbered: bool = False
    attacked: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.texts)

    def label_names(self) -> tuple[str, ...]:
        """All labels of the source: by number if all are numbers, else in alphabetical order.

        If the source has an order of its own, in that order.
        """
        if self.names is not None:
            return self.names
        names = set(self.labels)
        return tuple(sorted(names, key=lambda name: (int(name), name)) if _are_numbers(names) else sorted(names))

    def check_classes(self) -> None:
        """Raises ValueError where all labels are numbers, and some have decimals: they are scores, not names of classes."""
        if self.names is not None or not all(map(_NUMBER.fullmatch, self.labels)):
            return
        if broken := sorted({label for label in self.labels if not float(label).is_integer()}):
            raise ValueError(
                f"labels of {self.name} must name classes, and they are numbers with decimals ({listed(broken, 3)}): a "
                "score cannot be learnt here; names of classes, such as 1.2 of a numbering, need a letter, as in c1.2"
            )

    def rows(self, numbers: Iterable[int]) -> LabelledTexts:
        """These rows alone, in this order; the names of labels that none of them has are kept."""
        numbers = list(numbers)
        pairs, attacked = (
            None if column is None else tuple(column[i] for i in numbers) for column in (self.pairs, self.attacked)
        )
        return replace(
            self,
            texts=tuple(self.texts[i] for i in numbers),
            labels=tuple(self.labels[i] for i in numbers),
            pairs=pairs,
            attacked=attacked,
            names=self.label_names(),
        )

    def sample(self, limit: int | None, seed: int = 0) -> LabelledTexts:
        """At most `limit` rows drawn at random (files are often sorted by label), in the order of the source."""
        if limit is not None and limit < 1:
            raise ValueError(f"limit must be at least 1, got {limit}")
        if limit is None or limit >= len(self):
            return self
        return self.rows(sorted(random.Random(seed).sample(range(len(self)), limit)))

    def split(self, share: float, seed: int = 0) -> tuple[LabelledTexts, LabelledTexts]:
        """Two parts drawn at random: the rest, and a `share` of the rows. Of two rows or more, each part gets one at least."""
        size = max(1, min(round(share * len(self)), len(self) - 1))
        held_out = set(random.Random(seed).sample(range(len(self)), size))
        return (
            self.rows(i for i in range(len(self)) if i not in held_out),
            self.rows(sorted(held_out)),
        )

    def label_ids(self, names: Sequence[str], or_numbers: bool = True) -> list[int]:
        """The number of each row's label in `names`, which are a classifier's.

        Args:
            names: by number.
            or_numbers: if no label is among the names, and these are no numbers themselves, labels may be numbers from 0 to
                below len(names).

        Raises:
            ValueError: a label is unknown.
        """
        ids = {name: number for number, name in enumerate(names)}
        ids = dict(zip(_without_decimals(names), ids.values(), strict=True)) | ids  # as `read_labelled` has them
        if or_numbers and not ids.keys() & set(self.labels) and not _are_numbers(names):
            ids = {str(number): number for number in range(len(names))}
        unseen = sorted(set(self.labels) - ids.keys())
        if unseen:
            raise ValueError(
                f"labels of {self.name} must be among the {len(names)} that the model was trained on "
                f"({listed(names)}), got {listed(unseen)}"
            )
        return [ids[label] for label in self.labels]

    def balanced(self, per_label: int, seed: int = 0) -> LabelledTexts:
        """`per_label` rows of each label, drawn at random, in the order of the source.

        Raises:
            ValueError: a label has fewer.
        """
        chosen: list[int] = []
        rng = random.Random(seed)
        for name in dict.fromkeys(sorted(self.labels)):
            of_label = [i for i, label in enumerate(self.labels) if label == name]
            if len(of_label) < per_label:
                raise ValueError(f"{self.name} must have {per_label} rows of each label, has {len(of_label)} of {name}")
            chosen += rng.sample(of_label, per_label)
        return self.rows(sorted(chosen))


def read_labelled(
    source: str | os.PathLike, columns: Columns | None = None, split: str = "test", name: str | None = None
) -> LabelledTexts:
    """Labelled texts of a file or of a dataset of the Hub.

    Args:
        source: a file, see `rocbert_hf.data.tables`; or the id of a dataset as `owner/name` or `owner/name:config`, or a
            folder that `datasets` loads.
        columns: their names.
        split: of a dataset.
        name: for messages and reports; by default that of the source.

    Raises:
        OSError: there is no such file, or it cannot be read.
        ValueError: it is empty, lacks a column, or has a row without text or label.
    """
    columns = columns or Columns()
    path = Path(source)
    if table_format(path) is not None or path.is_file():
        name = name or unpacked_name(path).stem
        rows, names = _checked_rows(read_rows(path), columns, str(path)), None
    else:
        name = name or (path.name if path.is_dir() else str(source))
        dataset = _dataset(str(source), split)
        names = _classes(dataset).get(columns.label)
        rows = _checked_rows(_dataset_records(dataset, str(source)), columns, str(source))
    texts, pairs, labels, attacked = [], [], [], []
    for text, pair, label, attacked_form in rows:
        texts.append(text)
        pairs.append(pair)
        labels.append(label)
        attacked.append(attacked_form)
    if not texts:
        raise ValueError(f"{source} is empty: it must have at least one row")
    pairs = tuple(pairs) if columns.text_pair else None
    return LabelledTexts(
        name,
        tuple(texts),
        tuple(labels if names is not None else _without_decimals(labels)),
        pairs,
        names,
        numbered=names is not None,
        attacked=tuple(attacked) if columns.attacked else None,
    )


def _dataset(source: str, split: str) -> Dataset:
    from datasets import load_dataset

    name, _, config = source.partition(":")
    try:
        return load_dataset(name, config or None, split=split)
    except Exception as error:  # datasets raises errors of its own and of what is below it
        raise OSError(f"{source} is neither a file nor a dataset that can be loaded: {error}") from error


def _classes(dataset: Dataset) -> dict[str, tuple[str, ...]]:
    """Column -> the names of its classes in the order of their numbers."""
    from datasets import ClassLabel

    return {
        key: tuple(name.strip() for name in of.names)
        for key, of in dataset.features.items()
        if isinstance(of, ClassLabel)
    }


def _dataset_records(dataset: Dataset, source: str) -> Iterator[Row]:
    classes = _classes(dataset)
    for number, record in enumerate(dataset, start=1):
        for key, names in classes.items():
            if record[key] is not None and record[key] >= 0:  # -1: not labelled
                record[key] = names[record[key]]
        yield Row(f"{source} row {number}", record)


def _checked_rows(
    records: Iterator[Row], columns: Columns, source: str
) -> Iterator[tuple[str, str | None, str, str | None]]:
    """(text, text_pair, label, attacked form) of every record."""
    for where, record in records:
        missing = [name for name in columns.named if name not in record]
        if missing:
            raise ValueError(f"{source} must have the columns {listed(columns.named)}, but has {listed(list(record))}")
        text, label = record[columns.text], record[columns.label]
        pair = record[columns.text_pair] if columns.text_pair else None
        attacked = record[columns.attacked] if columns.attacked else None
        for name, value in ((columns.text, text), (columns.text_pair, pair), (columns.attacked, attacked)):
            if name is not None and (not isinstance(value, str) or not value.strip()):
                raise ValueError(f"{where}: {name} must be a string with a text in it, got {value!r}")
        if isinstance(label, float) and label.is_integer():
            label = int(label)
        if not isinstance(label, (str, int)) or (isinstance(label, str) and not label.strip()):
            raise ValueError(f"{where}: {columns.label} must be a string or an integer, got {label!r}")
        yield text, pair, str(int(label) if isinstance(label, bool) else label).strip(), attacked


def _are_numbers(names: Iterable[str]) -> bool:
    return all(name.removeprefix("-").isdecimal() for name in names)


def _without_decimals(labels: Sequence[str]) -> list[str]:
    """1.0 as 1 if all labels are numbers."""
    if not all(map(_NUMBER.fullmatch, labels)):
        return list(labels)
    return [str(int(whole[1])) if (whole := _WHOLE.fullmatch(label)) else label for label in labels]


def listed(names: Sequence[str], shown: int = 10) -> str:
    left = len(names) - shown
    return ", ".join(map(str, names[:shown])) + (f" and {left} more" if left > 0 else "")

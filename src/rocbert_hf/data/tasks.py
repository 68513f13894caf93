"""Labelled texts: the tasks of the paper's section 5 by name, and any file or dataset with named columns."""

from __future__ import annotations

import csv
import json
import os
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..files import DECOMPRESSION_ERRORS, OPENERS, json_object

if TYPE_CHECKING:
    from datasets import Dataset

FORMATS = (".tsv", ".csv", ".jsonl", ".json")


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
        labels: as they are written in the source.
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
        """All labels of the source: in the order of their numbers where all are numbers, else in alphabetical order.

        Where the source has an order of its own, in that.
        """
        if self.names is not None:
            return self.names
        names = set(self.labels)
        numbers = all(name.lstrip("-").isdecimal() for name in names)
        return tuple(sorted(names, key=int) if numbers else sorted(names))

    def rows(self, numbers: Iterable[int]) -> LabelledTexts:
        """These rows alone, in this order; of labels that none of them has the names are kept."""
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
        """Two parts drawn at random: the larger one, and a `share` of the rows (at least one)."""
        held_out = set(random.Random(seed).sample(range(len(self)), max(1, round(share * len(self)))))
        return (
            self.rows(i for i in range(len(self)) if i not in held_out),
            self.rows(sorted(held_out)),
        )

    def label_ids(self, names: Sequence[str]) -> list[int]:
        """The number of each row's label in `names`, which are a classifier's.

        Where no label is among the names, but all are numbers from 0 to below len(names), they are taken as numbers.

        Raises:
            ValueError: a label is unknown.
        """
        ids = {name: number for number, name in enumerate(names)}
        if not ids.keys() & set(self.labels):
            ids = {str(number): number for number in range(len(names))}
        unseen = sorted(set(self.labels) - ids.keys())
        if unseen:
            raise ValueError(
                f"labels of {self.name} must be among the {len(names)} that the model was trained on "
                f"({_listed(names)}), got {_listed(unseen)}"
            )
        return [ids[label] for label in self.labels]


@dataclass(frozen=True)
class Task:
    """A public task: what its files look like, and how to finetune on it.

    Args:
        about: what is to be told.
        folder: where its files are, in the data folder: `train.tsv.gz`, `dev.tsv.gz`, `test.tsv.gz`.
        columns: of the files.
        labels: as they are written in the files, in the order of their numbers.
        test_split: the labelled split to measure on.
        train_rows: train on the first so many rows only; None for all.
        max_length: tokens that hold nearly all of its texts.
    """

    about: str
    folder: str
    columns: Columns = Columns()
    labels: tuple[str, ...] | None = ("0", "1")
    test_split: str = "test"
    train_rows: int | None = None
    max_length: int = 128

    def read(self, data_dir: str | os.PathLike, split: str | None = None) -> LabelledTexts:
        """The labelled texts of a split, by default the one to measure on.

        Raises:
            OSError: there is no such file. ValueError: it is not as the task describes it.
        """
        split = split or self.test_split
        file = self.file(data_dir, split)
        if file is None:
            raise OSError(
                f"there is no {split} file of this task in {data_dir}: looked for "
                f"{self.folder}/{split}{{{','.join(FORMATS)}}}, also compressed"
            )
        rows = read_labelled(file, self.columns, name=f"{self.folder} {split}")
        if split == "train" and self.train_rows is not None:
            rows = rows.rows(range(min(self.train_rows, len(rows))))
        if self.labels is not None:
            rows.label_ids(self.labels)
            rows = replace(rows, names=self.labels)
        return rows

    def file(self, data_dir: str | os.PathLike, split: str) -> Path | None:
        """The file of a split in the data folder or its folder `tasks`; None when there is none."""
        root = Path(data_dir)
        for folder in (root / self.folder, root / "tasks" / self.folder):
            for suffix in FORMATS:
                for packed in ("", *OPENERS):
                    file = folder / f"{split}{suffix}{packed}"
                    if file.is_file():
                        return file
        return None


PAIR = Columns("text_a", "text_b")
CHNSENTICORP = Task("sentiment of reviews of hotels, books and computers", "chnsenticorp", max_length=256)
TASKS: dict[str, Task] = {
    "chnsenticorp": CHNSENTICORP,
    # 2,000 labelled reviews, as in the paper's section 5
    "chnsenticorp_2k": replace(CHNSENTICORP, train_rows=2000),
    "tnews": Task("topic of a news title, 15 of them", "tnews", labels=None),
    "afqmc": Task("do two questions to a bank ask the same", "afqmc", PAIR),
    "csl": Task("are the keywords those of the abstract", "csl", PAIR, max_length=256),
    "cmnli": Task("does one sentence follow from another", "cmnli", PAIR, ("contradiction", "entailment", "neutral")),
    "cold": Task("is a comment offensive", "cold"),
    "toxicn": Task("is a comment toxic", "toxicn", test_split="dev"),
    "waimai": Task("sentiment of reviews of meals that were delivered", "waimai"),
    "thucnews_titles": Task("topic of a news title, 10 of them", "thucnews_titles", labels=None),
    "iflytek": Task("what an app is for, of its description, 119 kinds", "iflytek", labels=None, max_length=256),
    "csldcp": Task("field of a paper, of its abstract, 67 of them", "csldcp", labels=None, max_length=256),
}


def task_of(name: str) -> Task:
    """The task of that name.

    Raises:
        ValueError: there is none.
    """
    if name not in TASKS:
        raise ValueError(f"task must be one of {', '.join(TASKS)}, got {name!r}")
    return TASKS[name]


def read_labelled(
    source: str | os.PathLike, columns: Columns | None = None, split: str = "test", name: str | None = None
) -> LabelledTexts:
    """Labelled texts of a file or of a dataset of the Hub.

    Args:
        source: a `.tsv` or `.csv` with a header, a `.jsonl`, or a `.json` with a list of objects, also with .gz, .xz or
            .bz2 behind; or the id of a dataset as `owner/name` or `owner/name:config`, or a folder that `datasets` loads.
        columns: their names.
        split: of a dataset.
        name: for messages and reports; by default that of the source.

    Raises:
        OSError: there is no such file, or it cannot be read.
        ValueError: it is empty, lacks a column, or has a row without text or label.
    """
    columns = columns or Columns()
    path = Path(source)
    packed = path.suffix in OPENERS
    suffix = Path(path.stem).suffix if packed else path.suffix
    if suffix in FORMATS:
        name = name or Path(path.stem if packed else path.name).stem
        if not path.is_file():
            raise OSError(f"there is no file {path}")
        rows, names = _checked_rows(_records(path, suffix), columns, str(path)), None
    elif path.is_file():
        raise ValueError(f"a file must end in {', '.join(FORMATS)} (or these with {', '.join(OPENERS)}), got {path}")
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
        tuple(labels),
        pairs,
        names,
        numbered=names is not None,
        attacked=tuple(attacked) if columns.attacked else None,
    )


def _records(path: Path, suffix: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(where, record) of every row of a file."""
    opener = OPENERS.get(path.suffix, open)
    try:
        # newlines inside quoted fields of a CSV are the csv module's to see
        with opener(path, "rt", encoding="utf-8-sig", newline="" if suffix == ".csv" else "\n") as lines:
            if suffix == ".json":
                yield from _json_records(lines.read(), path)
            elif suffix == ".jsonl":
                for number, line in enumerate(lines, start=1):
                    if line.strip():
                        yield f"{path} line {number}", json_object(line, f"{path} line {number}")
            else:
                yield from _table_records(lines, path, suffix)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8: {error.reason}") from error
    except csv.Error as error:
        raise ValueError(f"{path} is not a table: {error}") from error
    except DECOMPRESSION_ERRORS as error:
        raise OSError(f"{path} is damaged: {error}") from error


def _table_records(lines: Iterable[str], path: Path, suffix: str) -> Iterator[tuple[str, Mapping[str, str]]]:
    if suffix == ".tsv":  # quotes in it are the text's own
        table: Iterator[list[str]] = (line.rstrip("\r\n").split("\t") for line in lines)
    else:
        table = csv.reader(lines, strict=True)
    header = next(table, None)
    if not header or header == [""]:
        raise ValueError(f"{path} is empty: it must have a header and at least one row")
    for number, fields in enumerate(table, start=2):
        if not any(fields):
            continue
        if len(fields) != len(header):
            raise ValueError(f"{path} row {number} must have {len(header)} fields, got {len(fields)}")
        yield f"{path} row {number}", dict(zip(header, fields, strict=True))


def _json_records(text: str, path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    try:
        records = json.loads(text) if text.strip() else []
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(records, list):
        raise ValueError(f"{path} must hold a list of objects, got {type(records).__name__}")
    for number, record in enumerate(records, start=1):
        if not isinstance(record, dict):
            raise ValueError(f"{path} entry {number} must be an object, got {type(record).__name__}")
        yield f"{path} entry {number}", record


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

    return {key: tuple(of.names) for key, of in dataset.features.items() if isinstance(of, ClassLabel)}


def _dataset_records(dataset: Dataset, source: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    classes = _classes(dataset)
    for number, record in enumerate(dataset, start=1):
        for key, names in classes.items():
            if record[key] is not None and record[key] >= 0:  # -1: not labelled
                record[key] = names[record[key]]
        yield f"{source} row {number}", record


def _checked_rows(
    records: Iterator[tuple[str, Mapping[str, Any]]], columns: Columns, source: str
) -> Iterator[tuple[str, str | None, str, str | None]]:
    """(text, text_pair, label, attacked form) of every record."""
    for where, record in records:
        missing = [name for name in columns.named if name not in record]
        if missing:
            raise ValueError(
                f"{source} must have the columns {_listed(columns.named)}, but has {_listed(list(record))}"
            )
        text, label = record[columns.text], record[columns.label]
        pair = record[columns.text_pair] if columns.text_pair else None
        attacked = record[columns.attacked] if columns.attacked else None
        for name, value in ((columns.text, text), (columns.text_pair, pair), (columns.attacked, attacked)):
            if name is not None and (not isinstance(value, str) or not value.strip()):
                raise ValueError(f"{where}: {name} must be a string with a text in it, got {value!r}")
        if not isinstance(label, (str, int)) or label == "":
            raise ValueError(f"{where}: {columns.label} must be a string or an integer, got {label!r}")
        yield text, pair, str(int(label) if isinstance(label, bool) else label), attacked


def _listed(names: Sequence[str], shown: int = 10) -> str:
    left = len(names) - shown
    return ", ".join(map(str, names[:shown])) + (f" and {left} more" if left > 0 else "")

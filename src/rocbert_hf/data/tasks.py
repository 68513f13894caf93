"""The public tasks by name: those of the paper's section 5, and a few like them. A new one is a line of `TASKS`."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from ..files import OPENERS
from .labelled import Columns, LabelledTexts, read_labelled
from .tables import FORMATS


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
    columns: Columns = Columns()  # noqa: RUF009 - it is frozen
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

"""Where the text of a run comes from: files, folders, datasets of the Hub, and their shares in a mixture."""

import glob
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path

from ...files import OPENERS
from .readers import TEXT_SUFFIXES, DatasetRows, TableRows, TextFiles, check_suffix, suffix_of

# Tables by suffix: of which kind they are. `ROWS` are read by this package, others by the `datasets` library.
ROWS = "rows"
TABLE_FORMATS = {".parquet": "parquet", ".arrow": "arrow", ".csv": ROWS, ".tsv": ROWS}
# What lies beside the data in a folder: names of the `datasets` library and of the Hub.
METADATA = ("config.json", "dataset_dict.json", "dataset_info.json", "dataset_infos.json", "state.json")


@dataclass(frozen=True)
class TextSource:
    """Where sentences come from, and their share in a mixture.

    Args:
        location: files, or glob patterns of files: plain text (`.txt`, or no suffix), `.json` or `.jsonl` with one object
            a line, `.csv` or `.tsv` with a header, each also `.gz`, `.xz`, `.bz2`, `.zst`; or `.parquet`, `.arrow`; or a
            folder of such files; or the name of a dataset on the Hub. Several files are one corpus, read once an epoch.
        column: of the text, in everything but plain text.
        weight: this source's share of the sentences is its weight over the sum of the weights; None counts as 1.
        config, split: of a dataset of the `datasets` library.

    A line of plain text, and a row of anything else, is a document. It is cut by `split_sentences`: neighbouring
    sentences of one document are packed together up to the model's length, and nothing is packed across documents,
    because a pair of unrelated texts is no sentence whose attacked form could be told from others'.
    """

    location: str | tuple[str, ...]
    column: str = "text"
    weight: float | None = None
    config: str | None = None
    split: str = "train"

    def __post_init__(self):
        if isinstance(self.location, str | PathLike):
            object.__setattr__(self, "location", (str(self.location),))
        else:
            object.__setattr__(self, "location", tuple(map(str, self.location)))
        if not self.location:
            raise ValueError("a text source needs a file, a folder or the name of a dataset, got none")
        if self.weight is not None and not 0 < self.weight < math.inf:
            raise ValueError(f"the weight of {self.name} must be above 0 and finite, got {self.weight}")

    def __str__(self) -> str:
        """As `parse` reads it."""
        short = (name for name, source in SOURCES.items() if source.name == self.name)
        return next(short, self.name) + ("" if self.weight is None else f"={self.weight:g}")

    @property
    def name(self) -> str:
        return ", ".join(self.location) + (f":{self.config}" if self.config else "")

    @classmethod
    def parse(cls, text: str, column: str = "text") -> "TextSource":
        """From a command line: a name in `SOURCES`, a file, folder or pattern, or `owner/dataset[:config]`; and `=weight`.

        Example:
            >>> TextSource.parse("wikipedia=0.3"), TextSource.parse("allenai/c4:zh=0.7"), TextSource.parse("news/*.txt.gz")
        """
        location, equals, weight = ("", "", text) if Path(text).exists() else text.rpartition("=")
        try:
            location, weight = (location, float(weight)) if equals else (text, None)
        except ValueError:
            raise ValueError(f"a source is a location or location=weight with a number, got {text!r}") from None
        if location in SOURCES:
            return replace(SOURCES[location], weight=weight)
        if Path(location).exists() or ":" not in location:
            return cls(location, column, weight)
        location, _, config = location.rpartition(":")
        return cls(location, column, weight, config)


# The kinds of text the paper pretrains on (section 5.1): as the Hub has them today, and THUCTC's news, which are handed out
# as an archive after a registration and not on the Hub: unpack it, and start the run beside its folder.
SOURCES = {
    "thuctc": TextSource("THUCNews"),
    "wikipedia": TextSource("wikimedia/wikipedia", config="20231101.zh"),
    "common_crawl": TextSource("allenai/c4", config="zh"),
}


def open_source(source: TextSource, max_length: int = 126, seed: int = 0, rank: int = 0, world_size: int = 1):
    """A `TextFiles`, `TableRows` or `DatasetRows` for a source; bad lines are skipped and counted.

    Args:
        max_length: characters of a sentence at most.
        seed: of the order of the files, which is another one in each epoch.
        rank, world_size: read this process's share only.

    Raises:
        OSError: there is no such file, folder or dataset, or the Hub cannot be reached.
        ValueError: there is no text in it, or no such column, or its files are of several kinds or of an unknown one.
    """
    share = {"column": source.column, "max_length": max_length, "rank": rank, "world_size": world_size}
    location = source.location[0]
    if len(source.location) == 1 and Path(location).is_dir():
        files = _data_files(Path(location))
        if not files or _format(files) not in (None, ROWS):
            return DatasetRows(_load_dataset(location, source.config, split=source.split), source.name, **share)
        return _open_files(files, source, seed, share)
    files = [file for pattern in source.location for file in _matches(pattern)]
    if not files:
        if (
            len(source.location) == 1
            and re.fullmatch(r"[\w.-]+/[\w.-]+", location)
            and suffix_of(Path(location)) not in TEXT_SUFFIXES
        ):
            return DatasetRows(_load_dataset(location, source.config, split=source.split), source.name, **share)
        raise FileNotFoundError(
            f"the corpus {source.name} does not exist: expected files, a folder, owner/dataset on the Hub, or one of "
            f"{', '.join(SOURCES)}"
        )
    return _open_files(files, source, seed, share)


def _open_files(files: list[str], source: TextSource, seed: int, share: dict):
    """Files of one kind."""
    kind = _format(files)
    if kind is None:
        return TextFiles(files, on_error="skip", shuffle_seed=seed, **share)
    if kind == ROWS:
        return TableRows(files, source.name, **share)
    return DatasetRows(_load_dataset(kind, data_files=files, split=source.split), source.name, **share)


def _format(files: Sequence[str]) -> str | None:
    """What the `datasets` library calls the format of tables; None for text.

    Raises:
        ValueError: they are of several kinds, or of an unknown one.
    """
    paths = [Path(file) for file in files]
    for path in paths:
        if _table_kind(path) is None:
            check_suffix(path, TABLE_FORMATS)
    formats = {_table_kind(path): path for path in paths}
    if len(formats) > 1:
        raise ValueError(
            f"the files of one source must be of one kind, got {' and '.join(map(str, formats.values()))}: make them "
            "two sources, or name the files by a pattern"
        )
    return formats.popitem()[0]


def _table_kind(path: Path) -> str | None:
    """The value in `TABLE_FORMATS`, None if it is no table; only rows may be packed."""
    kind = TABLE_FORMATS.get(suffix_of(path))
    return None if path.suffix.lower() in OPENERS and kind != ROWS else kind


def _data_files(folder: Path) -> list[str]:
    """The files below a folder that are read as text or tables; not hidden ones, nor what describes the others."""
    return sorted(
        str(path)
        for path in folder.rglob("*")
        if (suffix_of(path) in TEXT_SUFFIXES or _table_kind(path) is not None)
        and path.name not in METADATA
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
    )


def _matches(pattern: str) -> list[str]:
    return [pattern] if Path(pattern).is_file() else sorted(file for file in glob.glob(pattern) if Path(file).is_file())


def _load_dataset(*args, **kwargs):
    from datasets import load_dataset

    return load_dataset(*args, streaming=True, **kwargs)

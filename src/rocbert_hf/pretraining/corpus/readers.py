"""Sentences from text files and datasets, read lazily, one line or row at a time.

`TextFiles` reads plain text and JSON lines, packed or not, always UTF-8; `TableRows` tables, likewise; `DatasetRows` whatever
the `datasets` library can stream, from the Hub or a disk; `SentencesInMemory` a list. All have what `SentenceBatches` needs
of a source:

- `next_sentences()`: the epoch and the sentences of the next line or row that has any, or None once at the end of each
  epoch; the call after that begins the next epoch;
- `state_dict()` and `load_state_dict()`: the exact position in every shard, as JSON;
- `buffer_size`: how many sentences to shuffle together, None for all;
- `skipped`: how many lines were left out, by reason;
- `fingerprint()`: what tells this corpus from another, so that a run is not resumed on the wrong one.
"""

import copy
import json
import logging
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from os import PathLike
from pathlib import Path

import numpy as np

from ...data.tables import BadRow, Row, rows_and_faults
from ...files import DECOMPRESSION_ERRORS, MAX_BLANK_LINES, MAX_LINE_BYTES, OPENERS, is_damage
from .splitter import split_sentences

logger = logging.getLogger(__name__)

BUFFER_SENTENCES = 65_536
JSON_SUFFIXES = (".json", ".jsonl")  # one object per line
TEXT_SUFFIXES = (".txt", *JSON_SUFFIXES)
MAX_CHARACTERS = 1_000_000  # of a line; more is no text that someone wrote, and would fill the memory
MAX_CONTROL_SHARE = 0.1
MAX_BAD_LINES_AT_START = 10_000
CONTROLS = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\ufffd\ufffe\uffff]")
SURROGATE = re.compile("[\ud800-\udfff]")


class _BadLine(Exception):
    """A line or row that cannot be used; `reason` is short and the same for all lines of its kind."""

    def __init__(self, reason: str, detail: str):
        super().__init__(detail)
        self.reason = reason


def read_sentences(
    files: str | PathLike | Iterable[str | PathLike],
    column: str = "text",
    max_length: int = 126,
    on_error: str = "raise",
) -> Iterator[str]:
    """Read the sentences of a corpus once, line by line, without holding it in memory.

    Args:
        files: one path or several, each also packed (`.gz`, `.xz`, `.bz2`): `.json` and `.jsonl` files hold one object a
            line; `.txt` files, and those without a suffix, one document, paragraph or sentence.
        column: the key of the text in JSON lines.
        max_length: characters; longer lines are cut by `split_sentences`. The tokenizer's length less its two special
            tokens.
        on_error: "raise" at the first bad line, or "skip" bad lines.

    Raises:
        OSError: a file cannot be opened, or (with "raise") decompressed.
        ValueError: a line is bad, or there is no sentence at all; the message names the file, the line and the fix.
            Raised when the reading gets there. Or a file's name has another suffix.
    """
    reader = TextFiles(files, column, max_length, on_error)
    while (found := reader.next_sentences()) is not None:
        yield from found[1]


def checksum_of(sentences: Sequence[str]) -> str:
    """In words, how many they are and a checksum, to tell them from others by."""
    checksum = 0
    for sentence in sentences:
        checksum = zlib.crc32(sentence.encode("utf-8", "surrogatepass"), checksum)
    return f"{len(sentences)} sentences, checksum {checksum:08x}"


class SentencesInMemory:
    """A list of sentences, again and again."""

    buffer_size = None  # to shuffle all of them takes no other memory

    def __init__(self, sentences: Sequence[str]):
        self.sentences = sentences
        self.skipped: Counter[str] = Counter()
        self.epoch = self.index = 0

    def next_sentences(self) -> tuple[int, list[str]] | None:
        if self.index == len(self.sentences):
            self.epoch, self.index = self.epoch + 1, 0
            return None
        self.index += 1
        return self.epoch, [self.sentences[self.index - 1]]

    def state_dict(self) -> dict:
        return {"epoch": self.epoch, "index": self.index}

    def load_state_dict(self, state: dict) -> None:
        self.epoch, self.index = state["epoch"], state["index"]

    def fingerprint(self) -> str:
        return checksum_of(self.sentences)


class _Documents:
    """What `TextFiles` and `DatasetRows` share: documents are checked, cut, and counted where they are bad."""

    buffer_size = BUFFER_SENTENCES

    def __init__(self, name: str, max_length: int, on_error: str, rank: int, world_size: int):
        if on_error not in ("raise", "skip"):
            raise ValueError(f"on_error must be 'raise' or 'skip', got {on_error!r}")
        self.name, self.max_length, self.on_error = name, max_length, on_error
        self.rank, self.world_size = rank, world_size
        self.epoch = self.given = 0
        self.skipped: Counter[str] = Counter()
        self._told: set[str] = set()

    def _sentences(self, text: str) -> list[str]:
        """The sentences of one document; none if it is blank.

        Raises:
            _BadLine: it is too long, or not text.
        """
        if len(text) > MAX_CHARACTERS:
            raise _BadLine("too long", f"{len(text):,} characters in a line, more than {MAX_CHARACTERS:,}")
        if CONTROLS.search(text) and len(CONTROLS.findall(text)) > MAX_CONTROL_SHARE * len(text):
            raise _BadLine("control characters", "over a tenth are control or replacement characters")
        if SURROGATE.search(text):
            raise _BadLine("half a character", "half of a surrogate pair (\\ud800 to \\udfff) is no character")
        return split_sentences(text, self.max_length)

    def _skip(self, error: _BadLine, place: str) -> None:
        """Count a bad line, and say so at the first of its kind.

        Raises:
            ValueError: bad lines are not to be skipped, or there is nothing else.
        """
        if self.on_error == "raise":
            raise ValueError(f"{place}: {error}") from None
        if error.reason not in self._told:
            self._told.add(error.reason)
            logger.warning("%s: %s; skipped, and further ones like it are only counted", place, error)
        self.skipped[error.reason] += 1
        if not self.given and self.skipped.total() >= MAX_BAD_LINES_AT_START:
            raise ValueError(f"{self.name}: the first {self.skipped.total():,} lines cannot be used ({self._counts()})")

    def _end_epoch(self) -> None:
        if not self.given:
            bad = f"; bad lines were skipped: {self._counts()}" if self.skipped else ""
            raise ValueError(
                f"the corpus is empty ({self.name}): expected UTF-8 text with one sentence, paragraph or document per "
                f"line or row{bad}"
            )
        self.epoch += 1

    def _counts(self) -> str:
        return ", ".join(f"{reason}: {count:,}" for reason, count in self.skipped.items())

    def _state(self) -> dict:
        return {"epoch": self.epoch, "given": self.given, "skipped": dict(self.skipped)}

    def _load(self, state: dict) -> None:
        self.epoch, self.given, self.skipped = state["epoch"], state["given"], Counter(state["skipped"])


class TextFiles(_Documents):
    """The sentences of text files, again and again; see `read_sentences` for the arguments.

    Args:
        shuffle_seed: read the files in an order that it fixes, another one in each epoch; default, as given.
        rank, world_size: read this process's share: whole files where there are at least as many as processes, else
            every `world_size`-th line of each that is not blank.

    The position is the byte and line in a file. To get there again costs no time in a plain file; a packed one is
    unpacked up to there.
    """

    def __init__(
        self,
        files: str | PathLike | Iterable[str | PathLike],
        column: str = "text",
        max_length: int = 126,
        on_error: str = "raise",
        shuffle_seed: int | None = None,
        rank: int = 0,
        world_size: int = 1,
    ):
        self.files = [Path(file) for file in ([files] if isinstance(files, str | PathLike) else files)]
        for path in self.files:
            if not path.is_file():
                raise FileNotFoundError(f"the corpus file {path} does not exist")
            check_suffix(path)
        super().__init__(", ".join(map(str, self.files)) or "no file given", max_length, on_error, rank, world_size)
        self.column = column
        self.shuffle_seed = shuffle_seed
        self.whole_files = len(self.files) >= world_size
        self.shard = self.files[rank::world_size] if self.whole_files else self.files
        self.file = self.offset = self.line = self.documents = 0  # documents: lines of the file that are not blank
        self._order: list[Path] = []
        self._is_json = False
        self._stream = None
        self._blank = 0  # lines one after the other

    def next_sentences(self) -> tuple[int, list[str]] | None:
        while self._open():
            path = self._order[self.file]
            try:
                document = self._next_document(path)
                if document is None:
                    self._to_file(self.file + 1)
                    continue
                if sentences := self._sentences(document):
                    self.given += 1
                    return self.epoch, sentences
            except _BadLine as error:
                self._skip(error, f"{path}, line {self.line}")
            except (OSError, *DECOMPRESSION_ERRORS) as error:
                if not is_damage(error):
                    raise
                if self.on_error == "raise":
                    raise OSError(
                        f"{path}: cannot be decompressed ({error}); download or pack the file again"
                    ) from error
                self._skip(_BadLine("damaged file", f"cannot be decompressed from here on ({error})"), str(path))
                self._to_file(self.file + 1)
        self._end_epoch()
        self._to_file(0)
        return None

    def state_dict(self) -> dict:
        return {
            **self._state(),
            "file": self.file,
            "offset": self.offset,
            "line": self.line,
            "documents": self.documents,
        }

    def load_state_dict(self, state: dict) -> None:
        self._load(state)
        self._to_file(state["file"])
        self.offset, self.line, self.documents = state["offset"], state["line"], state["documents"]

    def fingerprint(self) -> str:
        size = sum(path.stat().st_size for path in self.files)
        names = zlib.crc32("\n".join(path.name for path in self.files).encode("utf-8", "surrogateescape"))
        column = f", column {self.column}" if any(suffix_of(path) in JSON_SUFFIXES for path in self.files) else ""
        return f"{len(self.files)} files, {size} bytes, checksum of their names {names:08x}{column}"

    def _open(self) -> bool:
        """Whether there is a line to read in this epoch, as far as can be told; if so, its file is open there."""
        if self._stream is None:
            if self.file >= len(self.shard):
                return False
            self._order = self.shard
            if self.shuffle_seed is not None:
                order = np.random.default_rng((self.shuffle_seed, self.epoch)).permutation(len(self.shard))
                self._order = [self.shard[i] for i in order]
            path = self._order[self.file]
            self._is_json = suffix_of(path) in JSON_SUFFIXES
            self._stream = OPENERS.get(path.suffix.lower(), open)(path, "rb")
            if path.suffix.lower() in OPENERS:
                _unpack_up_to(self.offset, self._stream)
            else:
                self._stream.seek(self.offset)
        return True

    def _to_file(self, number: int) -> None:
        if self._stream is not None:
            self._stream.close()
        self._stream = None
        self.file, self.offset, self.line, self.documents = number, 0, 0, 0

    def _next_document(self, path: Path) -> str | None:
        """The text of this process's next line, None at the file's end.

        Raises:
            _BadLine: it is too long, not UTF-8, or not JSON with the column.
        """
        while line := self._stream.readline(MAX_LINE_BYTES):
            self.line += 1
            self.offset += len(line)
            self._blank = self._blank + 1 if line.isspace() else 0
            if self._blank > MAX_BLANK_LINES:
                raise ValueError(f"{path}, line {self.line}: over {MAX_BLANK_LINES:,} lines in a row are blank")
            complete = len(line) < MAX_LINE_BYTES or line.endswith(b"\n")
            if not complete:
                while rest := self._stream.readline(MAX_LINE_BYTES):
                    self.offset += len(rest)
                    if rest.endswith(b"\n"):
                        break
            if not self.whole_files:
                self.documents += bool(line.decode("utf-8", "replace").strip())
                if self.documents % self.world_size != self.rank:
                    continue
            if not complete:
                raise _BadLine("too long", f"more than {MAX_LINE_BYTES:,} bytes in a line")
            text = _decode(line, path, first=self.line == 1)
            return _column(text, self.column) if self._is_json and text.strip() else text
        return None


class DatasetRows(_Documents):
    """The sentences of a stream of the `datasets` library, again and again.

    Args:
        dataset: a `datasets.IterableDataset` (`load_dataset(..., streaming=True)`), not shuffled.
        name: for messages.
        column: of the text.
        max_length: characters of a sentence at most.
        rank, world_size: read this process's share, as `datasets.distributed.split_dataset_by_node` makes it.

    The position is the dataset's own `state_dict`.

    Raises:
        ValueError: there is no such column.
    """

    def __init__(
        self, dataset, name: str, column: str = "text", max_length: int = 126, rank: int = 0, world_size: int = 1
    ):
        super().__init__(name, max_length, "skip", rank, world_size)
        if dataset.column_names is not None:
            if column not in dataset.column_names:
                raise ValueError(f"{name}: {_no_text(dict.fromkeys(dataset.column_names), column)}")
            dataset = dataset.select_columns([column])
        if world_size > 1:
            from datasets.distributed import split_dataset_by_node

            dataset = split_dataset_by_node(dataset, rank, world_size)
        self.column = column
        self.dataset = dataset
        self.beginning = copy.deepcopy(dataset.state_dict())
        self.position = self.beginning
        self.row = 0
        self._rows: Iterator[dict] | None = None

    def next_sentences(self) -> tuple[int, list[str]] | None:
        if self._rows is None:
            self.dataset.load_state_dict(copy.deepcopy(self.position))
            self._rows = iter(self.dataset)
        for row in self._rows:
            self.row += 1
            where, values = self._place_and_values(row)
            try:
                if isinstance(values, BadRow):
                    raise _BadLine(values.reason, values.detail)
                if sentences := self._sentences(_text_of(values, self.column)):
                    self.given += 1
                    return self.epoch, sentences
            except _BadLine as error:
                self._skip(error, where)
        self._end_epoch()
        self._rows, self.position, self.row = None, self.beginning, 0
        return None

    def _place_and_values(self, row: dict) -> tuple[str, dict | BadRow]:
        """Where a row of the stream is, for messages, and what it holds."""
        return f"{self.name}, row {self.row}", row

    def state_dict(self) -> dict:
        position = self.position if self._rows is None else self.dataset.state_dict()
        return {**self._state(), "position": copy.deepcopy(position), "row": self.row}

    def load_state_dict(self, state: dict) -> None:
        self._load(state)
        self._rows, self.position, self.row = None, state["position"], state["row"]

    def fingerprint(self) -> str:
        return f"{self.name}, {self.dataset.num_shards} shards, column {self.column}"


class TableRows(DatasetRows):
    """The sentences of `.csv` or `.tsv` files, streamed through the `datasets` library, which shares them and keeps the
    position; see `DatasetRows` for the other arguments."""

    def __init__(self, files: Sequence[str], name: str, **options):
        from datasets import IterableDataset

        super().__init__(IterableDataset.from_generator(_table_rows, gen_kwargs={"files": files}), name, **options)

    def _place_and_values(self, row: dict) -> tuple[str, dict | BadRow]:
        found: Row | BadRow = row["row"]
        return found.where, found if isinstance(found, BadRow) else found.values


def _table_rows(files: Sequence[str]) -> Iterator[dict]:
    return ({"row": row} for file in files for row in rows_and_faults(file))


def _unpack_up_to(offset: int, stream) -> None:
    """Go to a byte of a packed file by the reads that `readline` makes: what is got of a damaged file depends on them."""
    position = 0
    while position < offset and (ahead := stream.peek(1)):
        position += len(stream.read(min(len(ahead), offset - position)))


def suffix_of(path: Path) -> str:
    """What a file's name says about its content: the last suffix in lower case, without that of the packing."""
    name = path.stem if path.suffix.lower() in OPENERS else path.name
    return Path(name).suffix.lower()


def check_suffix(path: Path, others: Iterable[str] = ()) -> None:
    """
    Args:
        others: suffixes that are allowed too, for the message.

    Raises:
        ValueError: the file does not end as text files do.
    """
    if suffix_of(path) not in ("", *TEXT_SUFFIXES):
        raise ValueError(
            f"a corpus file must end in {', '.join(TEXT_SUFFIXES)}, each also with {', '.join(OPENERS)}, "
            f"{''.join(f'or in {suffix}, ' for suffix in others)}or have no suffix if it is plain text, got {path}"
        )


def _decode(line: bytes, path: Path, first: bool) -> str:
    try:
        return line.decode("utf-8-sig" if first else "utf-8")
    except UnicodeDecodeError as error:
        raise _BadLine(
            "not UTF-8",
            f"not UTF-8 (byte 0x{line[error.start]:02x} at position {error.start}). Convert the file first, for "
            f"example from GB18030: iconv -f GB18030 -t UTF-8 {path.name} > utf8-{path.name}",
        ) from None


def _column(line: str, column: str) -> str:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        told = getattr(error, "msg", error)
        raise _BadLine(
            "not JSON", f"not JSON ({told}); a {' or '.join(JSON_SUFFIXES)} file holds one object per line"
        ) from None
    return _text_of(row, column)


def _text_of(row, column: str) -> str:
    if not isinstance(row, dict) or not isinstance(row.get(column), str):
        raise _BadLine("no text", _no_text(row, column))
    return row[column]


def _no_text(row, column: str) -> str:
    if isinstance(row, dict) and column in row:
        return f"no text in column {column!r}, found {type(row[column]).__name__}"
    found = sorted(row) if isinstance(row, dict) else type(row).__name__
    return f"no text column {column!r}, found {found}; name the column that holds the text"

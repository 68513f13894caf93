"""Results on disk: lines that survive a kill, and what each belongs to."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

from ..files import json_object, lock


class Cell(NamedTuple):
    """One model under one attacker on one task, by their names; `summary.CLEAN` is the attacker of no attack."""

    task: str
    attacker: str
    model: str

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Cell:
        """The cell that a line of `examples.jsonl` belongs to."""
        return cls(*(record.get(name) for name in cls._fields))


class JsonLines:
    """A file with one JSON object per line; each is flushed when it is appended.

    Used as a context for appending, by one process at a time. A last line without its end is what a killed process
    leaves: it is taken off.
    """

    def __init__(self, file: Path):
        self.file = file
        self._stream: IO[bytes] | None = None

    def read(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """(line number, object) of every whole line.

        Raises:
            ValueError: a line is no JSON object.
        """
        if not self.file.exists():
            return
        with self.file.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if not line.endswith(b"\n"):
                    return
                yield number, json_object(line, f"{self.file} line {number}")

    def __enter__(self) -> JsonLines:
        self._stream = self.file.open("ab")
        try:
            lock(self._stream, self.file)
        except OSError:
            self._stream.close()
            raise
        size = self.file.stat().st_size
        if size:
            with self.file.open("rb") as stream:
                whole = _end_of_last_line(stream, size)
            if whole < size:
                self._stream.truncate(whole)
        return self

    def __exit__(self, *_: Any) -> None:
        self._stream.close()

    def append(self, record: dict[str, Any]) -> None:
        self._stream.write(json.dumps(record, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n")
        self._stream.flush()


def _end_of_last_line(stream: IO[bytes], size: int, chunk: int = 1 << 16) -> int:
    """The position behind the last line end."""
    end = size
    while end:
        start = max(0, end - chunk)
        stream.seek(start)
        at = stream.read(end - start).rfind(b"\n")
        if at >= 0:
            return start + at + 1
        end = start
    return 0

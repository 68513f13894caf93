"""Rows of tables that a user brings: one reader and one writer for all commands.

| suffix | a row |
|---|---|
| `.csv` | a record of RFC 4180, with a header; quoted fields may hold line ends |
| `.tsv` | a line, with a header; quotes are the text's own |
| `.jsonl` | a line with a JSON object |
| `.json` | an object of a list; a file that begins with an object is read as `.jsonl` |
| `.txt` | a line; its only column is `text` |

Each may be packed (`.gz`, `.xz`, `.bz2`, `.zst`). A byte order mark, CRLF line ends, blank lines and spaces around the names
in a header are all right.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

from ..files import (
    OPENERS,
    SAVE_AS_UTF8,
    damage_named,
    is_damage,
    json_object,
    json_value,
    open_packed,
    text_lines,
    unpacked_name,
)

FORMATS = (".tsv", ".csv", ".jsonl", ".json", ".txt")
NOT_UTF8 = re.compile("[\udc80-\udcff]")  # as `text_lines` gives such bytes
MAX_JSON_BYTES = 256_000_000  # a JSON list must be in memory as a whole


class Row(NamedTuple):
    """A row of a table.

    Attributes:
        where: file and line, for errors.
        values: column -> value: text, or what JSON had there.
    """

    where: str
    values: dict[str, Any]


class BadRow(NamedTuple):
    """What is in the place of a row that cannot be read.

    Attributes:
        where: file and line, for errors.
        reason: short, and the same for all rows of its kind.
        detail: what is wrong, to be read after `where`.
    """

    where: str
    reason: str
    detail: str


def table_format(source: str | os.PathLike) -> str | None:
    """The suffix of a table's name that says how it is written, without that of its packing; None if it is no table."""
    suffix = unpacked_name(source).suffix.lower()
    return suffix if suffix in FORMATS else None


def read_rows(source: str | os.PathLike, keep_blank: bool = False) -> Iterator[Row]:
    """The rows of a table, one after the other.

    Args:
        source: a file with a name as in the table above, or a pipe with such a name.
        keep_blank: a blank line of a `.txt` is a row too, so that the numbers of lines stay.

    Raises:
        OSError: there is no such file, or it cannot be read or unpacked.
        ValueError: its suffix is unknown, or a row is wrong; the message names the file and the line.
    """
    path, form = Path(source), table_format(source)
    if not path.exists() or path.is_dir():
        raise OSError(f"there is no file {path}")
    if form is None:
        raise ValueError(f"a file must end in {', '.join(FORMATS)} (or these with {', '.join(OPENERS)}), got {path}")
    with open_packed(path) as stream:
        yield from _rows(stream, form, str(path), keep_blank)


def rows_and_faults(source: str | os.PathLike) -> Iterator[Row | BadRow]:
    """The rows of a `.csv` or `.tsv` as `read_rows` gives them, and a `BadRow` where that would stop; then the next ones.

    Nothing follows a header that cannot be read, nor the place where a packed file is damaged. A file without rows gives
    none.

    Raises:
        OSError: there is no such file, or it cannot be read.
        ValueError: over a million lines in a row are blank.
    """
    name = str(source)
    try:
        with open_packed(source) as stream:
            yield from _table_rows(text_lines(stream, name, forgiving=True), table_format(source), name)
    except OSError as error:
        if not is_damage(error.__cause__):
            raise
        yield BadRow(name, "damaged file", f"cannot be decompressed from here on ({error.__cause__})")


def text_of(row: Row, column: str = "text") -> str:
    """The text that a row has in a column.

    Raises:
        ValueError: there is no such column, or no string in it.
    """
    if column not in row.values:
        raise ValueError(f"{row.where}: column must be one of {', '.join(row.values)}, got {column!r}")
    if not isinstance(row.values[column], str):
        raise ValueError(f"{row.where}: {column} must be a string, got {row.values[column]!r}")
    return row.values[column]


def rows_of_lines(stream: IO[bytes], name: str) -> Iterator[Row]:
    """Plain text from a stream, such as stdin, as `read_rows` reads a `.txt` with `keep_blank`.

    Raises:
        ValueError: a line is too long or not UTF-8; the message names `name` and the line.
    """
    return _rows(stream, ".txt", name, keep_blank=True)


def table_text(rows: Iterable[Mapping[str, Any]], form: str) -> Iterator[str]:
    """Rows as the text of a table, piece by piece: `read_rows` reads the same rows from it.

    Args:
        rows: column -> value. All have the columns of the first one; `.jsonl` and `.json` may differ in that.
        form: one of `FORMATS`. A `.txt` has the column `text` alone.
    """
    if form == ".json":
        before = "["
        for values in rows:
            yield f"{before}\n{json.dumps(values, ensure_ascii=False)}"
            before = ","
        yield "[]\n" if before == "[" else "\n]\n"
    elif form == ".jsonl":
        yield from (json.dumps(values, ensure_ascii=False) + "\n" for values in rows)
    elif form == ".txt":
        yield from (values["text"] + "\n" for values in rows)
    else:
        as_line = _csv_line if form == ".csv" else _tsv_line
        for number, values in enumerate(rows):
            yield (as_line(values) if number == 0 else "") + as_line(values.values())


def _csv_line(fields: Iterable[str]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(fields)
    return line.getvalue()


def _tsv_line(fields: Iterable[str]) -> str:
    return "\t".join(fields) + "\n"


def _rows(stream: IO[bytes], form: str, name: str, keep_blank: bool) -> Iterator[Row]:
    if form == ".json":
        stream = io.BufferedReader(stream)
        with damage_named(name):
            beginning = stream.peek(1024).removeprefix(codecs.BOM_UTF8).lstrip()
        if not beginning.startswith(b"{"):
            yield from _json_rows(stream, name)
            return
        form = ".jsonl"
    lines = text_lines(stream, name)
    if form == ".jsonl":
        for number, line in lines:
            if line.strip():
                yield Row(f"{name} line {number}", json_object(line, f"{name} line {number}"))
    elif form == ".txt":
        for number, line in lines:
            if keep_blank or line.strip():
                yield Row(f"{name} line {number}", {"text": line.rstrip("\r\n")})
    else:
        empty = True
        for row in _table_rows(lines, form, name):
            if isinstance(row, BadRow):
                raise ValueError(f"{row.where} {row.detail}")
            empty = False
            yield row
        if empty:
            raise ValueError(f"{name} is empty: it must have a header and at least one row")


def _json_rows(stream: IO[bytes], name: str) -> Iterator[Row]:
    with damage_named(name):
        content = stream.read(MAX_JSON_BYTES + 1)
    if len(content) > MAX_JSON_BYTES:
        raise ValueError(
            f"{name} holds more than {MAX_JSON_BYTES:,} bytes of JSON: write it as .jsonl, one row per line"
        )
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{name} is not UTF-8 ({error.reason}): {SAVE_AS_UTF8}") from error
    records = json_value(text, name) if text.strip() else []
    if not isinstance(records, list):
        raise ValueError(f"{name} must hold a list of objects, got {type(records).__name__}")
    for number, record in enumerate(records, start=1):
        if not isinstance(record, dict):
            raise ValueError(f"{name} entry {number} must be an object, got {type(record).__name__}")
        yield Row(f"{name} entry {number}", record)


def _table_rows(lines: Iterable[tuple[int, str]], form: str, name: str) -> Iterator[Row | BadRow]:
    header: list[str] | None = None
    for record in _tsv_fields(lines, name) if form == ".tsv" else _csv_fields(lines, name):
        if isinstance(record, BadRow):
            yield record
            if header is None:
                return
            continue
        where, fields = record
        if not any(field.strip() for field in fields):
            continue
        if header is None:
            header = [field.strip() for field in fields]  # "text, label" has the columns text and label
            if len(set(header)) < len(header):
                yield BadRow(
                    name, "columns of one name", f"must have columns of different names, got {', '.join(header)}"
                )
                return
        elif len(fields) != len(header):
            yield BadRow(where, "not the header's fields", f"must have {len(header)} fields, got {len(fields)}")
        else:
            yield Row(where, dict(zip(header, fields, strict=True)))


def _tsv_fields(lines: Iterable[tuple[int, str]], name: str) -> Iterator[tuple[str, list[str]] | BadRow]:
    """(where it is, fields) of each line."""
    for number, line in lines:
        fields = line.rstrip("\r\n").split("\t")
        yield _not_utf8(fields, f"{name} line {number}") or (f"{name} line {number}", fields)


def _csv_fields(lines: Iterable[tuple[int, str]], name: str) -> Iterator[tuple[str, list[str]] | BadRow]:
    """(where its last line is, fields) of each record."""
    # line ends inside quoted fields are the csv module's to see
    table = csv.reader((line for _, line in lines), strict=True)
    while True:
        begin = table.line_num + 1
        try:
            fields = next(table)
        except StopIteration:
            return
        except csv.Error as error:  # the next record begins on the next line
            several = begin < table.line_num
            where = f"{name} lines {begin} to {table.line_num}" if several else f"{name} line {begin}"
            # of a carriage return alone, Python says that the file must be opened in another mode
            reason = "a carriage return must have a line feed behind it" if "new-line" in str(error) else error
            yield BadRow(where, "not a row", f"{'are' if several else 'is'} not a row of a table: {reason}")
            continue
        yield _not_utf8(fields, f"{name} line {table.line_num}") or (f"{name} line {table.line_num}", fields)


def _not_utf8(fields: Iterable[str], where: str) -> BadRow | None:
    found = next((found for field in fields if (found := NOT_UTF8.search(field))), None)
    return found and BadRow(where, "not UTF-8", f"is not UTF-8 (byte 0x{ord(found[0]) - 0xDC00:02x})")

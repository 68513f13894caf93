"""Sentences from text files, read lazily: plain text or JSONL, gzip or xz compressed or not, always UTF-8."""

import gzip
import json
import lzma
import re
import zlib
from collections.abc import Iterable, Iterator
from os import PathLike
from pathlib import Path

OPENERS = {".gz": gzip.open, ".xz": lzma.open}
SENTENCE = re.compile(r"[^。！？!?…；;\n]*[。！？!?…；;\n]*[”’」』）)]*")  # up to its end marks and closing quotes
CLAUSE = re.compile(r"[^，,、：:\s]*[，,、：:\s]*")


def read_sentences(
    files: str | PathLike | Iterable[str | PathLike], column: str = "text", max_length: int = 126
) -> Iterator[str]:
    """Read the sentences of a corpus, line by line, without holding it in memory.

    Args:
        files: one path or several; `.jsonl` files (also `.jsonl.gz`, `.jsonl.xz`) hold one object a line, every other
            file is plain text, one document, paragraph or sentence a line.
        column: the key of the text in JSONL files.
        max_length: characters; longer lines are cut by `split_sentences`. The tokenizer's length less its two special
            tokens.

    Raises:
        OSError: a file cannot be opened or decompressed.
        ValueError: a line is not UTF-8, not JSON, or lacks `column`, or there is no sentence at all; the message names
            the file, the line and the fix. Raised when the reading gets there.
    """
    files = [files] if isinstance(files, str | PathLike) else list(files)
    paths = [Path(file) for file in files]
    empty = True
    for path in paths:
        if not path.is_file():
            raise FileNotFoundError(f"the corpus file {path} does not exist")
    for path in paths:
        for text in _texts(path, column):
            for sentence in split_sentences(text, max_length):
                empty = False
                yield sentence
    if empty:
        named = ", ".join(map(str, paths)) or "no file given"
        raise ValueError(
            f"the corpus is empty ({named}): expected UTF-8 text files with one sentence or paragraph a line"
        )


def split_sentences(text: str, max_length: int) -> list[str]:
    """Cut a text into stretches of whole sentences, each at most `max_length` characters.

    Short texts come back whole: neighbouring sentences stay together as long as they fit, which is how the text is
    packed into the model's length. A sentence that is too long is cut after a comma or space, and where there is none,
    at `max_length`. Joined, the pieces give the text back but for white space at their ends.
    """
    if max_length < 1:
        raise ValueError(f"max_length must be at least 1 character, got {max_length}")
    text = text.strip()
    if len(text) <= max_length:
        return [text] if text else []
    pieces = []
    for sentence in SENTENCE.findall(text):
        clauses = [sentence] if len(sentence) <= max_length else CLAUSE.findall(sentence)
        for clause in clauses:
            pieces += [clause[i : i + max_length] for i in range(0, len(clause), max_length)]
    packed = [""]
    for piece in pieces:
        if len(packed[-1]) + len(piece) <= max_length:
            packed[-1] += piece
        else:
            packed.append(piece)
    return [stripped for stretch in packed if (stripped := stretch.strip())]


def _texts(path: Path, column: str) -> Iterator[str]:
    """Texts of one file's lines."""
    is_json = ".jsonl" in path.suffixes[-2:]
    for number, line in enumerate(_lines(path), start=1):
        text = _decode(line, path, number)
        if is_json and text.strip():
            text = _column(text, column, path, number)
        yield text


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with OPENERS.get(path.suffix, open)(path, "rb") as stream:
            yield from stream
    except (EOFError, lzma.LZMAError, zlib.error, gzip.BadGzipFile) as error:
        raise OSError(f"{path}: cannot be decompressed ({error}); download or pack the file again") from error


def _decode(line: bytes, path: Path, number: int) -> str:
    try:
        return line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}, line {number}: not UTF-8 (byte 0x{line[error.start]:02x} at position {error.start}). Convert the "
            f"file first, for example from GB18030: iconv -f GB18030 -t UTF-8 {path.name} > {path.stem}.utf8{path.suffix}"
        ) from None


def _column(line: str, column: str, path: Path, number: int) -> str:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path}, line {number}: not JSON ({error.msg}); a .jsonl file holds one object a line"
        ) from None
    if not isinstance(row, dict) or not isinstance(row.get(column), str):
        found = sorted(row) if isinstance(row, dict) else type(row).__name__
        raise ValueError(
            f"{path}, line {number}: no text column {column!r}, found {found}; name the column that holds the text"
        )
    return row[column]

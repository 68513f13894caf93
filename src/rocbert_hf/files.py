"""Files: packed ones are read like others, and what is written appears under its name only when it is whole."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

OPENERS = {".gz": gzip.open, ".xz": lzma.open, ".bz2": bz2.open}
DECOMPRESSION_ERRORS = (EOFError, lzma.LZMAError, zlib.error, gzip.BadGzipFile)


def is_damage(error: Exception) -> bool:
    """Whether a packed file's reading failed because of what is in the file, and not of the disk or the network.

    bz2 tells damage as a plain `OSError`, which unlike the operating system's own has no number.
    """
    return isinstance(error, DECOMPRESSION_ERRORS) or (type(error) is OSError and error.errno is None)


def json_object(line: str | bytes, where: str) -> dict[str, Any]:
    """
    The object that a line holds.

    Raises:
        ValueError: it is not JSON, or no object; the message begins with `where`.
    """
    try:
        record = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{where} is not JSON: {error}") from error
    if not isinstance(record, dict):
        raise ValueError(f"{where} must be an object, got {type(record).__name__}")
    return record


@contextmanager
def written_whole(file: Path, binary: bool = False) -> Iterator[IO]:
    """A text file (UTF-8), or a binary one, that appears under its name only when all of it was written."""
    file = file.resolve()
    options = {"encoding": "utf-8", "errors": "surrogatepass", "newline": "\n"}
    options = {"mode": "wb"} if binary else {"mode": "w", **options}
    if file.exists() and not file.is_file():  # /dev/stdout, a named pipe: nothing to replace
        with file.open(**options) as stream:
            yield stream
        return
    with tempfile.NamedTemporaryFile(dir=file.parent, prefix=f"{file.name}.", delete=False, **options) as stream:
        temporary = Path(stream.name)
        try:
            yield stream
        except BaseException:
            temporary.unlink()
            raise
    umask = os.umask(0)
    os.umask(umask)
    temporary.chmod(0o666 & ~umask)  # as any new file; temporary ones are private
    temporary.replace(file)


def write_whole(file: Path, content: str | bytes) -> None:
    """Write a file so that it is never there in part."""
    with written_whole(file, binary=isinstance(content, bytes)) as stream:
        stream.write(content)


@contextmanager
def staged_folder(output_dir: Path) -> Iterator[Path]:
    """
    A new folder whose files are moved into `output_dir`, beside what is there, when all of them are written.

    JSON files, which describe the others, are moved last.
    """
    output_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".unfinished-", dir=output_dir) as staging:
        yield Path(staging)
        files = [path for path in Path(staging).rglob("*") if path.is_file()]
        for file in sorted(files, key=lambda path: (path.suffix == ".json", path)):
            target = output_dir / file.relative_to(staging)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(file, target)

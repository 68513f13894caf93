"""Files: packed ones are read like others, and what is written appears under its name only when it is whole."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import json
import lzma
import os
import re
import shutil
import sys
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

DECOMPRESSION_ERRORS = (EOFError, lzma.LZMAError, zlib.error, gzip.BadGzipFile)
# Bytes of a line. More is no text that someone wrote, and a packed file of 200 KB can hold a line of gigabytes. A Chinese
# character takes 6 bytes in JSON that is escaped to ASCII.
MAX_LINE_BYTES = 8_000_000
MAX_BLANK_LINES = 1_000_000  # one after the other
MAX_JSON_LEVELS = 50  # of lists and objects in each other, in a file that is one JSON value
JSON_NAMES = {dict: "object", list: "list"}
OWN_DESCRIPTOR = re.compile(r"/(?:dev|proc/self)/fd/(\d+)|/dev/std(out|err)")  # a file that this process has open
LFS_POINTER = "version https://git-lfs"
SAVE_AS_UTF8 = "save it as UTF-8 (Excel calls it CSV UTF-8)"


def _open_zst(file: str | os.PathLike, mode: str = "rb", **text: Any) -> IO:
    """A file packed by Zstandard: by Python itself from 3.14 on, before that by the package zstandard."""
    if sys.version_info >= (3, 14):
        from compression import zstd

        return zstd.open(file, mode, **text)
    try:
        import zstandard
    except ImportError as error:
        raise OSError(
            f"{file}: .zst needs Python 3.14, or the package zstandard (pip install zstandard); .gz, .xz and .bz2 need nothing"
        ) from error
    return zstandard.open(file, mode, **text)


# By suffix: how a packed file is opened. Each takes (file, mode).
OPENERS = {".gz": gzip.open, ".xz": lzma.open, ".bz2": bz2.open, ".zst": _open_zst}


# ------------------------------------------------------------------------------------------------ reading


def unpacked_name(file: str | os.PathLike) -> Path:
    """The name without the suffix of its packing: `train.tsv` of `train.tsv.gz`."""
    file = Path(file)
    return file.with_suffix("") if file.suffix.lower() in OPENERS else file


def open_packed(file: str | os.PathLike) -> IO[bytes]:
    """A file to read bytes from; unpacked if its suffix is one of `OPENERS`."""
    return OPENERS.get(Path(file).suffix.lower(), open)(file, "rb")


def is_damage(error: Exception) -> bool:
    """Whether a packed file's reading failed because of what is in the file, and not of the disk or the network.

    bz2 tells damage as a plain `OSError`, which unlike the operating system's own has no number; Zstandard has an error of
    its own.
    """
    return (
        type(error).__name__ == "ZstdError"
        or isinstance(error, DECOMPRESSION_ERRORS)
        or (type(error) is OSError and error.errno is None)
    )


@contextmanager
def damage_named(name: str | os.PathLike) -> Iterator[None]:
    """What unpacking finds wrong in a file is an OSError that names the file."""
    try:
        yield
    except Exception as error:
        if not is_damage(error):
            raise
        raise OSError(f"{name} is damaged: {error}") from error


def text_lines(
    stream: IO[bytes], name: str | os.PathLike, max_bytes: int = MAX_LINE_BYTES, forgiving: bool = False
) -> Iterator[tuple[int, str]]:
    """The lines of UTF-8 text, with their ends, and their numbers from 1.

    Only a line feed ends a line: `str.splitlines` would also split at U+2028 and others, which are part of a text. A byte
    order mark at the beginning is left out.

    Args:
        stream: is read line by line, so that no more than one line is in memory.
        name: of the file, for errors.
        max_bytes: of a line.
        forgiving: leave out what is too long of a line, and give bytes that are not UTF-8 as halves of surrogate pairs
            (`surrogateescape`), instead of an error.

    Raises:
        ValueError: a line is longer, or not UTF-8, or over a million lines in a row are blank.
        OSError: a packed file is damaged, or cannot be read.
    """
    number = blank = 0
    while True:
        number += 1
        with damage_named(name):
            line = stream.readline(max_bytes + 1)
        if not line:
            return
        if len(line) > max_bytes and forgiving:
            with damage_named(name):
                rest = line
                while rest and not rest.endswith(b"\n"):
                    rest = stream.readline(max_bytes + 1)
            line = line[:max_bytes].decode("utf-8", "ignore").encode()  # not cut within a character
        elif len(line) > max_bytes:
            raise ValueError(f"{name} line {number} is longer than {max_bytes:,} bytes, which is no text to work on")
        blank = blank + 1 if line.isspace() else 0
        if blank > MAX_BLANK_LINES:
            raise ValueError(f"{name} line {number}: over {MAX_BLANK_LINES:,} lines in a row are blank")
        try:
            encoding, errors = "utf-8-sig" if number == 1 else "utf-8", "surrogateescape" if forgiving else "strict"
            yield number, line.decode(encoding, errors)
        except UnicodeDecodeError as error:
            raise ValueError(f"{name} line {number} is not UTF-8 ({error.reason}): {SAVE_AS_UTF8}") from error


def json_object(line: str | bytes, where: str) -> dict[str, Any]:
    """
    The object that a line holds.

    Raises:
        ValueError: it is not JSON, or no object; the message begins with `where`.
    """
    record = json_value(line, where)
    if not isinstance(record, dict):
        raise ValueError(f"{where} must be an object, got {type(record).__name__}")
    return record


def json_value(text: str | bytes, where: str) -> Any:
    """
    What a JSON text holds.

    Raises:
        ValueError: it is not JSON, or nested deeper than Python can read; the message begins with `where`.
    """
    try:
        return json.loads(text)
    except ValueError as error:
        raise ValueError(f"{where} is not JSON: {error}") from error
    except RecursionError as error:
        raise ValueError(f"{where} is not usable JSON: it is nested too deeply") from error


def read_json(file: Path, kind: type | tuple[type, ...] = dict) -> Any:
    """What a JSON file holds.

    Args:
        file: UTF-8 text.
        kind: `dict` for an object, `list` for a list, or both.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not JSON, holds something else, or has more than 50 levels of lists and objects.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not JSON: it is not UTF-8 ({error.reason})") from error
    except OSError as error:
        raise OSError(f"{file} cannot be read ({error.strerror})") from error
    if text.startswith(LFS_POINTER):
        raise ValueError(f"{file} is not JSON but a Git LFS pointer; run `git lfs pull` in the repository it is from")
    content = json_value(text, str(file))
    if not isinstance(content, kind):
        kinds = " or ".join(JSON_NAMES[one] for one in (kind if isinstance(kind, tuple) else (kind,)))
        raise ValueError(f"{file} must hold a JSON {kinds}, it holds a {type(content).__name__}")
    if not _nested_at_most(content, MAX_JSON_LEVELS):
        raise ValueError(f"{file} is nested too deeply: it may have {MAX_JSON_LEVELS} levels")
    return content


def _nested_at_most(content: Any, levels: int) -> bool:
    inner = content.values() if isinstance(content, dict) else content
    return levels > 0 and all(_nested_at_most(one, levels - 1) for one in inner if isinstance(one, dict | list))


# ------------------------------------------------------------------------------------------------ writing


@contextmanager
def written_whole(file: Path, binary: bool = False) -> Iterator[IO]:
    """A text file (UTF-8), or a binary one, that appears under its name only when all of it was written.

    It is packed if its suffix is one of `OPENERS`. It keeps the mode of the file that it replaces. A pipe or terminal
    (`/dev/stdout`, a process substitution) is written to directly. If the block ends with an error - SIGTERM is one in the
    commands of this package - nothing is left behind, and a file that was there is as it was.

    Half of a surrogate pair, which UTF-8 cannot hold, is written as `\\udc80`: in JSON that is the same text.

    Raises:
        OSError: the folder does not exist, a folder has the file's name, the disk is full, ...
    """
    with _bytes_written_whole(file) as raw, ExitStack() as streams:
        packed = file.suffix.lower() in OPENERS
        stream = streams.enter_context(OPENERS[file.suffix.lower()](raw, "wb")) if packed else raw
        if binary:
            yield stream
        else:
            text = io.TextIOWrapper(stream, encoding="utf-8", errors="backslashreplace", newline="\n")
            try:
                yield text
                text.flush()
            finally:
                with contextlib.suppress(OSError):
                    text.detach()  # or the wrapper would close the file


@contextmanager
def _bytes_written_whole(file: Path) -> Iterator[IO[bytes]]:
    if own := OWN_DESCRIPTOR.fullmatch(str(file.absolute())):
        # what the shell has opened, a file too: its other content must stay
        descriptor = own[1] or {"out": 1, "err": 2}[own[2]]
        with os.fdopen(os.dup(int(descriptor)), "wb") as stream:
            yield stream
        return
    file = file.resolve()
    if file.is_dir():
        raise OSError(f"{file} is a folder: name a file")
    if file.exists() and not file.is_file():  # a named pipe: there is nothing to replace
        with file.open("wb") as stream:
            yield stream
        return
    with tempfile.NamedTemporaryFile("wb", dir=file.parent, prefix=f".{file.name}.", delete=False) as stream:
        temporary = Path(stream.name)
        try:
            yield stream
            stream.flush()
            os.chmod(temporary, file.stat().st_mode & 0o7777 if file.exists() else 0o666 & ~_umask())
            os.replace(temporary, file)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def _umask() -> int:
    """What the permissions of new files lack; temporary ones are private."""
    umask = os.umask(0)
    os.umask(umask)
    return umask


def write_whole(file: Path, content: str | bytes) -> None:
    """Write a file so that it is never there in part; see `written_whole`."""
    with written_whole(file, binary=isinstance(content, bytes)) as stream:
        stream.write(content)


def write_json(file: Path, content: Any) -> None:
    """Write a JSON file so that it is never there in part."""
    write_whole(file, json.dumps(content, ensure_ascii=False, indent=1) + "\n")


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it, if need be.

    Raises:
        OSError: a file has its name or that of one above it, or it may not be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        file = next(path for path in (folder, *folder.parents) if path.exists())
        raise OSError(f"{folder} cannot be a folder: {file} is a file") from error


@contextmanager
def new_folder(output: Path) -> Iterator[Path]:
    """A temporary folder that becomes `output` when all of it was written, and vanishes otherwise.

    An empty folder that is there stays, and gets what is in the temporary one, JSON files last: it may be the current folder,
    a link or a mount point, which nothing can replace.

    Raises:
        OSError: `output` exists and is not empty.
    """
    is_there = output.is_dir()
    if is_there and any(output.iterdir()):
        raise OSError(f"{output} exists and is not empty")
    staging = Path(tempfile.mkdtemp(prefix=f".{output.name}-", dir=output if is_there else output.absolute().parent))
    try:
        yield staging
        if is_there:
            for path in sorted(staging.iterdir(), key=lambda path: (path.suffix == ".json", path)):
                os.replace(path, output / path.name)
            staging.rmdir()
        else:
            staging.chmod(0o777 & ~_umask())
            os.replace(staging, output)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


@contextmanager
def staged_folder(output_dir: Path) -> Iterator[Path]:
    """
    A new folder whose files are moved into `output_dir`, beside what is there, when all of them are written.

    JSON files, which describe the others, are moved last.
    """
    make_folder(output_dir)
    with tempfile.TemporaryDirectory(prefix=".unfinished-", dir=output_dir) as staging:
        yield Path(staging)
        files = [path for path in Path(staging).rglob("*") if path.is_file()]
        for file in sorted(files, key=lambda path: (path.suffix == ".json", path)):
            target = output_dir / file.relative_to(staging)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(file, target)


# ------------------------------------------------------------------------------------------------ one process at a time


_held: set[int] = set()


def _let_go_in_child() -> None:
    """A worker process that outlives a killed run would hold the folder."""
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go_in_child)


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Keep other processes that ask for it away from a folder, which is made if need be; no file is left in it.

    The system gives the lock back when the process ends, however it ends.

    Raises:
        OSError: another process has it.
    """
    make_folder(folder)
    if os.name == "nt":  # Windows opens no folders
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        lock(descriptor, folder)
        _held.add(descriptor)
        yield
    finally:
        _held.discard(descriptor)
        os.close(descriptor)


def lock(stream: IO | int, name: str | os.PathLike) -> None:
    """Keep other processes away from an open file until it is closed, if the system can.

    Args:
        stream: the file, or its descriptor.
        name: for the error.

    Raises:
        OSError: another process was there first.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        return
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise OSError(f"another process is writing {name}: wait until it has ended, or choose another") from error
    except OSError:  # a network file system that locks no folders
        return

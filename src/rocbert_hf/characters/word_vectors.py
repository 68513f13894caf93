"""Word vectors from a file, for the synonym attack and TextFooler."""

from __future__ import annotations

import codecs
import gzip
import hashlib
import io
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from os import PathLike
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ..files import write_whole

# How the file of vectors in an archive may be named.
VECTOR_NAMES = (".vector", ".vectors", ".vec", ".bin", ".safetensors", "vectors.txt")


class WordVectors:
    """Unit-length word vectors and their nearest neighbours by cosine.

    Anything with `index_to_key` (list of words) and `vectors` (words, size), such as gensim's `KeyedVectors`, can be
    wrapped by `WordVectors.from_keyed_vectors`; files in the word2vec and GloVe formats are read by `WordVectors.read`.

    Args:
        words: the vocabulary, most frequent first.
        vectors: (words, size), any float type.

    Raises:
        ValueError: there is not one vector for each word, or one holds what is no finite number.
    """

    def __init__(self, words: list[str], vectors: np.ndarray):
        if vectors.ndim != 2 or len(words) != len(vectors):
            raise ValueError(f"vectors must be of shape (words, size) = ({len(words)}, size), got {vectors.shape}")
        vectors = np.asarray(vectors, dtype=np.float32)
        wrong = ~np.isfinite(vectors).all(axis=1)
        if wrong.any():
            raise ValueError(f"vectors must hold finite numbers, that of {words[int(wrong.argmax())]!r} does not")
        self.words = words
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        self.vectors = vectors / np.maximum(norms, 1e-12)
        self._rows = {word: row for row, word in reversed(list(enumerate(words)))}
        self.neighbours = lru_cache(maxsize=1 << 14)(self._neighbours)

    def __reduce__(self):
        return type(self), (self.words, self.vectors)

    @property
    def fingerprint(self) -> str:
        """A hash of the words and their vectors."""
        return hashlib.blake2b("\n".join(self.words).encode() + self.vectors.tobytes(), digest_size=8).hexdigest()

    def __contains__(self, word: str) -> bool:
        return word in self._rows

    def _neighbours(self, word: str, threshold: float, limit: int = 20) -> tuple[tuple[str, float], ...]:
        """(other word, cosine) above `threshold`, nearest first, at most `limit`; empty for an unknown word."""
        row = self._rows.get(word)
        if row is None:
            return ()
        cosines = self.vectors @ self.vectors[row]
        above = np.flatnonzero(cosines > threshold)
        above = above[np.argsort(-cosines[above], kind="stable")]
        found = ((self.words[i], float(cosines[i])) for i in above.tolist() if self.words[i] != word)
        return tuple(pair for pair, _ in zip(found, range(limit), strict=False))

    @classmethod
    def from_keyed_vectors(cls, keyed_vectors, keep: Callable[[str], bool] | None = None) -> WordVectors:
        """Vectors of an object with `index_to_key` and `vectors`; `keep` selects words, to save memory."""
        words = list(keyed_vectors.index_to_key)
        if keep is None:
            return cls(words, keyed_vectors.vectors)
        rows = [row for row, word in enumerate(words) if keep(word)]
        return cls([words[row] for row in rows], keyed_vectors.vectors[rows])

    @classmethod
    def read(
        cls, file: str | PathLike, keep: Callable[[str], bool] | None = None, limit: int | None = None
    ) -> WordVectors:
        """Read vectors in any of the formats below; which one it is, the content says and not the name.

        - what `write` writes (safetensors),
        - word2vec text (a header line, then `word x1 x2 ...`) and GloVe text (no header),
        - word2vec binary, such as `synonyms/data/words.vector` of the Synonyms project,
        - a gzip file of one of these,
        - a wheel, an sdist or another zip or tar archive that holds one file of vectors.

        Millions of words need gigabytes; `keep` and `limit` hold only what is needed.

        Args:
            file: the path.
            keep: which words to hold.
            limit: read at most this many words from the start.

        Raises:
            OSError: when the file cannot be read.
            ValueError: when the content has none of the formats, or a line does not have its file's format.
        """
        file = Path(file)
        words, vectors = [], []
        try:
            with open_vectors(file) as stream:
                for number, (word, vector) in enumerate(_rows(stream, file)):
                    if limit is not None and number >= limit:
                        break
                    if keep is None or keep(word):
                        words.append(word)
                        vectors.append(vector)
        except (EOFError, zlib.error) as error:
            raise ValueError(f"{file} is damaged: {error}") from error
        if not words:
            raise ValueError(f"file must hold word vectors, found none to keep in {file}")
        try:
            return cls(words, np.stack(vectors))
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from error

    def write(self, file: str | PathLike) -> None:
        """Write them as safetensors that `read` reads: half precision, words as UTF-8 with line ends between.

        The file appears whole or not at all.

        Raises:
            ValueError: a word has a line end in it.
        """
        from safetensors.numpy import save

        if any("\n" in word for word in self.words):
            raise ValueError("words must not have line ends in them")
        words = np.frombuffer("\n".join(self.words).encode("utf-8", "surrogatepass"), dtype=np.uint8)
        write_whole(Path(file), save({"vectors": self.vectors.astype(np.float16), "words": words}))


@contextmanager
def open_vectors(file: Path) -> Iterator[BinaryIO]:
    """The bytes of the vectors in a file: unpacked if it is a gzip file, found if it is an archive."""
    if not file.is_file():
        raise OSError(f"there is no file {file}")
    with file.open("rb") as plain:
        start = plain.peek(4)[:4]
        plain.seek(0)
        if start == b"PK\x03\x04":
            with zipfile.ZipFile(plain) as archive:
                name = _member_with_vectors(archive.namelist(), file)
                with archive.open(name) as stream, io.BufferedReader(stream) as buffered:
                    yield buffered
            return
        if tarfile.is_tarfile(file):
            with tarfile.open(file) as archive:
                names = [member.name for member in archive.getmembers() if member.isfile()]
                with archive.extractfile(_member_with_vectors(names, file)) as stream:
                    yield io.BufferedReader(stream)
            return
        if start[:2] == b"\x1f\x8b":
            with gzip.open(plain) as stream:
                yield io.BufferedReader(stream)
            return
        yield plain


def _member_with_vectors(names: list[str], file: Path) -> str:
    found = [name for name in names if Path(name).name.endswith(VECTOR_NAMES)]
    if len(found) != 1:
        raise ValueError(
            f"{file} must hold one file whose name ends in {', '.join(VECTOR_NAMES)}, it holds {len(found) or 'none'}"
        )
    return found[0]


def _rows(stream: BinaryIO, file: Path) -> Iterator[tuple[str, np.ndarray]]:
    """(word, vector) in the order of the file, whatever format its first bytes show."""
    if stream.peek(3)[:3] == codecs.BOM_UTF8:
        stream.read(3)
    start = stream.peek(1 << 12)[: 1 << 12]
    if start[8:9] == b"{":
        return _read_safetensors(stream, file)
    header, _, body = start.partition(b"\n")
    counts = header.split()
    if len(counts) == 2 and all(field.isdigit() for field in counts):
        # behind the first word of a binary file come bytes that are no text of numbers
        line, whole, _ = body.partition(b"\n")
        numbers = line.rstrip().split(b" ")[1:]
        seen = numbers[-int(counts[1]) :] if whole else numbers[:-1]
        if not seen or not all(map(_is_number, seen)):
            return _read_binary(stream, file)
    return _read_text(stream, file)


def _is_number(field: bytes) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True


def _read_safetensors(stream: BinaryIO, file: Path) -> Iterator[tuple[str, np.ndarray]]:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        tensors = load(stream.read())
        words = bytes(tensors["words"]).decode("utf-8", "surrogatepass").split("\n")
        vectors = tensors["vectors"]
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise ValueError(f"{file} is not a file of vectors that `rocbert vectors` wrote: {error}") from error
    if vectors.ndim != 2 or len(words) != len(vectors):
        raise ValueError(f"{file} must hold one vector for each of its {len(words)} words, got shape {vectors.shape}")
    yield from zip(words, vectors, strict=True)


def _read_text(stream: BinaryIO, file: Path) -> Iterator[tuple[str, np.ndarray]]:
    size, count, read = None, 0, 0
    for number, line in enumerate(stream, start=1):
        fields = line.decode("utf-8", "replace").rstrip().split(" ")
        if number == 1 and len(fields) == 2 and all(field.isdigit() for field in fields):
            count, size = map(int, fields)  # the word2vec header
            continue
        size = size or len(fields) - 1
        try:
            # from the right: some tables have words with spaces in them
            vector = np.array(fields[-size:], dtype=np.float32)
        except ValueError as error:
            raise ValueError(f"{file} line {number} must be a word and {size} numbers: {error}") from error
        word = " ".join(fields[:-size])
        if not word or len(vector) != size:
            raise ValueError(f"{file} line {number} must be a word and {size} numbers, got {len(fields)} fields")
        read += 1
        yield word, vector
    if read < count:
        raise ValueError(f"{file} ends after {read} of {count} words")


def _read_binary(stream: BinaryIO, file: Path) -> Iterator[tuple[str, np.ndarray]]:
    header = stream.readline().split()
    if len(header) != 2 or not all(field.isdigit() for field in header):
        raise ValueError(f"{file} must begin with the number of words and the vector size, got {header[:4]}")
    count, size = map(int, header)
    if not 1 <= size <= 1 << 16:
        raise ValueError(f"{file} must have vectors of 1 to 65,536 numbers, its first line says {size}")
    for number in range(count):
        name = bytearray()
        while (byte := stream.read(1)) not in (b" ", b""):
            name += byte
            if len(name) > 10_000:
                raise ValueError(f"{file} has no word of vector {number}: 10,000 bytes without a space")
        data = stream.read(4 * size)
        if len(data) != 4 * size:
            raise ValueError(f"{file} ends after {number} of {count} words")
        yield name.decode("utf-8", "replace").strip("\n"), np.frombuffer(data, dtype="<f4")

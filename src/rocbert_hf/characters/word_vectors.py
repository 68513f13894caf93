"""Word vectors from a file, for the synonym attack."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from functools import lru_cache
from os import PathLike
from pathlib import Path
from typing import BinaryIO

import numpy as np


class WordVectors:
    """Unit-length word vectors and their nearest neighbours by cosine.

    Anything with `index_to_key` (list of words) and `vectors` (words, size), such as gensim's `KeyedVectors`, can be
    wrapped by `WordVectors.from_keyed_vectors`; files in the word2vec and GloVe formats are read by `WordVectors.read`.

    Args:
        words: the vocabulary, most frequent first.
        vectors: (words, size), any float type.
    """

    def __init__(self, words: list[str], vectors: np.ndarray):
        if vectors.ndim != 2 or len(words) != len(vectors):
            raise ValueError(f"vectors must be of shape (words, size) = ({len(words)}, size), got {vectors.shape}")
        self.words = words
        vectors = np.asarray(vectors, dtype=np.float32)
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
        """Read word2vec text (a header line, then `word x1 x2 ...`), GloVe text (no header) or word2vec binary (`.bin`).

        Tencent's and the Synonyms project's vectors come in these formats. Millions of words need gigabytes; `keep`
        and `limit` hold only what is needed.

        Args:
            file: the path; a name that ends in `.bin` is read as binary. Plain files only, unpack archives first.
            keep: which words to hold.
            limit: read at most this many words from the start.

        Raises:
            OSError: when the file cannot be read.
            ValueError: when a line does not have the format.
        """
        file = Path(file)
        with file.open("rb") as stream:
            rows = _read_binary(stream, file) if file.suffix == ".bin" else _read_text(stream, file)
            words, vectors = [], []
            for number, (word, vector) in enumerate(rows):
                if limit is not None and number >= limit:
                    break
                if keep is None or keep(word):
                    words.append(word)
                    vectors.append(vector)
        if not words:
            raise ValueError(f"file must hold word vectors, found none to keep in {file}")
        return cls(words, np.stack(vectors))


def _read_text(stream: BinaryIO, file: Path) -> Iterator[tuple[str, np.ndarray]]:
    size = None
    for number, line in enumerate(stream, start=1):
        fields = line.decode("utf-8", "replace").rstrip().split(" ")
        if number == 1 and len(fields) == 2 and all(field.isdigit() for field in fields):
            size = int(fields[1])  # the word2vec header: number of words, vector size
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
        yield word, vector


def _read_binary(stream: BinaryIO, file: Path) -> Iterator[tuple[str, np.ndarray]]:
    header = stream.readline().split()
    if len(header) != 2 or not all(field.isdigit() for field in header):
        raise ValueError(f"{file} must begin with the number of words and the vector size, got {header[:4]}")
    count, size = map(int, header)
    for number in range(count):
        name = bytearray()
        while (byte := stream.read(1)) not in (b" ", b""):
            name += byte
        data = stream.read(4 * size)
        if len(data) != 4 * size:
            raise ValueError(f"{file} ends after {number} of {count} words")
        yield name.decode("utf-8", "replace").strip("\n"), np.frombuffer(data, dtype="<f4")

"""The tokenizer's fast way: token ids of many texts by one look-up per character.

This file is uploaded to the Hub as it is, so it imports nothing else of the package.
"""

from __future__ import annotations

import os
import re
import sys
import threading
from collections.abc import Sequence

import numpy as np
from tokenizers import Tokenizer

# Truncation and padding are settings of the backend, which all threads share: a call sets them and encodes under this lock.
_lock = threading.RLock()


def backend_lock() -> threading.RLock:
    """The lock under which a call sets truncation and padding and encodes."""
    return _lock


def _renew_lock() -> None:
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):  # a thread of the parent may have held it, and has no copy here to release it
    os.register_at_fork(after_in_child=_renew_lock)

DROPPED, BY_BACKEND, UNASKED = -1, -2, -3


def without_surrogates(text):
    """A text, or nested lists of texts, with U+FFFD for lone surrogates, which the backend cannot take."""
    if isinstance(text, str):
        return re.sub("[\ud800-\udfff]", "\ufffd", text)
    return type(text)(map(without_surrogates, text)) if isinstance(text, (list, tuple)) else text


class CodePointTable:
    """Token ids of whole texts by one look-up per character, for a backend to which each character is its own token.

    What becomes of a character is asked from the backend when it is first met, so the two cannot differ. A text that
    may hold an added token is left to the backend.

    Args:
        backend: encodes.
        unk: its id of unknown characters.
        twins: unknown character -> a number past all token ids, which stands for it instead of `unk`.
    """

    def __init__(self, backend: Tokenizer, unk: int, twins: dict[str, int]):
        self.backend = backend
        self.unk = unk
        self.twins = twins
        self.added_tokens = backend.get_added_tokens_decoder()
        self.ids = np.full(sys.maxunicode + 1, UNASKED, dtype=np.int32)
        # the backend looks for special tokens in the text as it is, for others in what the normalizer makes of it
        self.literal = [token.content for token in self.added_tokens.values() if not token.normalized]
        self.starts_of_literal = sorted({ord(token[0]) for token in self.literal})
        normalized = [token.content for token in self.added_tokens.values() if token.normalized]
        self.starts_of_normalized = {next(filter(None, self._encode(token)), [DROPPED])[0] for token in normalized}

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        texts = [without_surrogates(text) for text in texts]
        with backend_lock():
            if self.backend.truncation is not None:
                self.backend.no_truncation()
            if self.backend.padding is not None:
                self.backend.no_padding()
            if self.backend.encode_special_tokens:
                self.backend.encode_special_tokens = False
            encodings = self.backend.encode_batch(texts, add_special_tokens=False)
        return [self._with_twins(text, encoding) for text, encoding in zip(texts, encodings, strict=True)]

    def _with_twins(self, text: str, encoding) -> list[int]:
        ids = encoding.ids
        if self.unk not in ids:
            return ids
        places = zip(ids, encoding.offsets, strict=True)
        return [self.twins.get(text[start:end], i) if i == self.unk else i for i, (start, end) in places]

    def _ask(self, code_points: np.ndarray) -> None:
        for point, ids in zip(code_points, self._encode([chr(point) for point in code_points]), strict=True):
            starts_token = not self.starts_of_normalized.isdisjoint(ids or [DROPPED])
            self.ids[point] = BY_BACKEND if starts_token or len(ids) > 1 else ids[0] if ids else DROPPED

    def __call__(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Token ids of all texts, (tokens,), and where each text's end, (texts,)."""
        code_points = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), dtype="<u4")
        ends = np.cumsum(np.fromiter(map(len, texts), dtype=np.int64, count=len(texts)))
        ids = self.ids.take(code_points)
        if UNASKED in ids:
            self._ask(np.unique(code_points[ids == UNASKED]))
            ids = self.ids.take(code_points)
        starts = np.logical_or.reduce([code_points == start for start in self.starts_of_literal])
        doubtful = set(np.searchsorted(ends, np.flatnonzero(starts), "right").tolist())
        by_backend = {i for i in doubtful if any(token in texts[i] for token in self.literal)}
        by_backend.update(np.searchsorted(ends, np.flatnonzero(ids == BY_BACKEND), "right").tolist())
        if by_backend:
            rows = np.split(ids, ends[:-1])
            for i, row in zip(by_backend, self._encode([texts[i] for i in by_backend]), strict=True):
                rows[i] = np.array(row, dtype=np.int32)
            ids, ends = np.concatenate(rows), np.cumsum([len(row) for row in rows])
        dropped = np.flatnonzero(ids < 0)
        return np.delete(ids, dropped), ends - np.searchsorted(dropped, ends)

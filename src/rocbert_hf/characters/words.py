"""Words: segmentation, frequencies, parts of speech (jieba's dictionary) and synonyms (the packaged thesaurus)."""

from __future__ import annotations

import importlib.util
import math
import re
import sys
from collections import defaultdict
from functools import cache
from pathlib import Path

from ..resources import thesaurus

__all__ = ["part_of_speech", "segment", "synonyms_of", "word_frequencies"]

# jieba's own blocks: within one, words may form; outside, every character stands alone
_BLOCKS = re.compile(r"([\u4E00-\u9FD5a-zA-Z0-9+#&\._%\-]+)")
_BETWEEN_BLOCKS = re.compile(r"\r\n|[\s\S]")
_LETTERS_AND_DIGITS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")


@cache
def _dictionary() -> tuple[dict[str, int], dict[str, str]]:
    """Word -> frequency and word -> part of speech, in the order of jieba's dictionary.

    The file is read directly: importing jieba and preparing its own tables takes seconds and writes to a shared
    temporary folder.
    """
    package = importlib.util.find_spec("jieba")
    if package is None or package.origin is None:
        raise OSError("jieba is not installed, and its dictionary is needed: pip install jieba")
    columns = Path(package.origin).with_name("dict.txt").read_text(encoding="utf-8").split()
    words = columns[0::3]
    return dict(zip(words, map(int, columns[1::3]), strict=True)), dict(
        zip(words, map(sys.intern, columns[2::3]), strict=True)
    )


def word_frequencies() -> dict[str, int]:
    """Word -> how often it was counted, for the 349,046 words of jieba's dictionary. Shared: do not change it."""
    return _dictionary()[0]


def part_of_speech(word: str) -> str:
    """The word's tag in jieba's dictionary (`n` noun, `v` verb, `a` adjective, `nr` person, `ns` place, `m` number ...).

    `"x"`, jieba's tag for what it does not know, when the word is not in the dictionary.
    """
    return _dictionary()[1].get(word, "x")


@cache
def _segmentation_tables() -> tuple[dict[str, float], dict[str, tuple[int, ...]], float]:
    """Log probability of every word, the lengths of the words that begin with two characters, and a floor."""
    frequencies = word_frequencies()
    # the arithmetic and its order are jieba's, so that ties fall the same way
    log_total = math.log(sum(frequencies.values()))
    scores = {word: math.log(frequency) - log_total for word, frequency in frequencies.items() if frequency}
    lengths: dict[str, set[int]] = defaultdict(set)
    for word in scores:
        if len(word) > 1:
            lengths[word[:2]].add(len(word))
    by_beginning = {beginning: tuple(sorted(found)) for beginning, found in lengths.items()}
    return scores, by_beginning, math.log(1) - log_total


def _most_probable_words(block: str) -> list[str]:
    """Split a block into the words whose probabilities have the largest product; the later, longer word wins a tie."""
    scores, by_beginning, floor = _segmentation_tables()
    lengths_of, score_of = by_beginning.get, scores.get
    size = len(block)
    best = [0.0] * (size + 1)  # log probability of the rest of the block from each position on
    ends = [0] * size
    for start in range(size - 1, -1, -1):
        end = start + 1
        lengths = lengths_of(block[start : start + 2])
        if lengths is None:
            best[start] = score_of(block[start], floor) + best[end]
            ends[start] = end
            continue
        score = score_of(block[start], -math.inf) + best[end]
        for length in lengths:
            stop = start + length
            if stop > size:
                break
            candidate = score_of(block[start:stop])
            if candidate is not None and candidate + best[stop] >= score:
                score = candidate + best[stop]
                end = stop
        if score == -math.inf:
            score = floor + best[end]
        best[start] = score
        ends[start] = end

    words = []
    start = 0
    while start < size:
        end = ends[start]
        words.append(block[start:end])
        start = end
    return words


def _join_letters_and_digits(words: list[str]) -> list[str]:
    joined: list[str] = []
    open_run = False
    for word in words:
        single = word in _LETTERS_AND_DIGITS
        if single and open_run:
            joined[-1] += word
        else:
            joined.append(word)
        open_run = single
    return joined


def segment(text: str) -> list[str]:
    """Split text into words; joined they give the text back.

    Equals `jieba.lcut(text, HMM=False)` (the most probable path through jieba's dictionary), several times faster.
    """
    words: list[str] = []
    for number, piece in enumerate(_BLOCKS.split(text)):
        if number % 2 == 0:
            words += _BETWEEN_BLOCKS.findall(piece)
        elif piece.isascii() or not _LETTERS_AND_DIGITS.isdisjoint(piece):
            words += _join_letters_and_digits(_most_probable_words(piece))
        else:
            words += _most_probable_words(piece)
    return words


@cache
def _synonyms() -> dict[tuple[str, str | None], tuple[str, ...]]:
    found: dict[tuple[str, str | None], dict[str, None]] = defaultdict(dict)
    for tag, words in thesaurus():
        for word in words:
            others = dict.fromkeys(other for other in words if other != word)
            found[word, tag].update(others)
            found[word, None].update(others)
    return {key: tuple(words) for key, words in found.items()}


def synonyms_of(word: str, pos: str | None = None) -> tuple[str, ...]:
    """Words of the same meaning from the packaged thesaurus, `()` when it does not have the word.

    Args:
        word: the word to replace.
        pos: only the synonyms of this part of speech, in the thesaurus's tags; every one when None.
    """
    return _synonyms().get((word, pos), ())

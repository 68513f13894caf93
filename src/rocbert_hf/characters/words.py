"""Words: segmentation, frequencies, parts of speech (jieba's dictionary), synonyms and opposites (packaged lists)."""

from __future__ import annotations

import importlib.util
import math
import re
import sys
from collections import defaultdict
from collections.abc import Callable
from functools import cache, lru_cache
from pathlib import Path

from ..resources import antonyms, thesaurus

__all__ = ["is_opposite", "part_of_speech", "segment", "synonyms_of", "word_frequencies"]

_LETTERS_AND_DIGITS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
# jieba forms words of these characters only; every other one stands alone
_WORD_CHARACTERS = frozenset(map(chr, range(0x4E00, 0x9FD6))) | _LETTERS_AND_DIGITS | frozenset("+#&._%-")


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


class _Lexicon(dict):
    """jieba's dictionary, arranged for the search of `_most_probable_words`; scores are log probabilities.

    Character -> (its score, {second character: the pair's score}), or None where it is in no word. A character's words
    are arranged when it is first met: all of them at once would take longer than a short text does.

    lengths: first three characters -> lengths of the words that begin so.
    scores: of the words of three or more characters.
    """

    def __init__(self):
        super().__init__()
        self.frequencies = word_frequencies()
        # the arithmetic and its order are jieba's, so that ties fall the same way
        log_total = math.log(sum(self.frequencies.values()))
        self.log_probability = cache(lambda frequency: math.log(frequency) - log_total)  # one object for equal ones
        self.words_of: dict[str, list[str]] = defaultdict(list)
        for word in self.frequencies:
            self.words_of[word[0]].append(word)
        self.lengths: dict[str, tuple[int, ...]] = {}
        self.scores: dict[str, float] = {}

    def __missing__(self, character: str) -> tuple[float, dict[str, float]] | None:
        self[character] = known = self._arrange(character) if character in _WORD_CHARACTERS else None
        return known

    def _arrange(self, character: str) -> tuple[float, dict[str, float]]:
        seconds: dict[str, float] = {}
        lengths: dict[str, int] = defaultdict(int)  # bit n is set when there is a word of n characters
        for word in self.words_of.get(character, ()):
            frequency = self.frequencies[word]
            if len(word) == 1 or not frequency or not _WORD_CHARACTERS.issuperset(word):
                continue
            log_probability = self.log_probability(frequency)
            if len(word) == 2:
                seconds[word[1]] = log_probability
            else:
                self.scores[word] = log_probability
                seconds.setdefault(word[1], -math.inf)  # begins a word but is none
                lengths[word[:3]] |= 1 << len(word)
        self.lengths.update((beginning, _set_bits(bits)) for beginning, bits in lengths.items())
        return self.log_probability(self.frequencies.get(character) or 1), seconds


@cache
def _set_bits(bits: int) -> tuple[int, ...]:
    return tuple(n for n in range(bits.bit_length()) if bits >> n & 1)


_lexicon = cache(_Lexicon)


def _most_probable_words(text: str) -> list[str]:
    """Split into the words whose probabilities have the largest product; of equals, the longer first word.

    From the last character to the first, the best way on from each is that of a word and the best way on from its end.
    """
    lexicon = _lexicon()
    lengths, scores = lexicon.lengths, lexicon.scores
    size = len(text)
    best = [0.0] * (size + 1)  # log probability of the best words from each position to the end of its run
    ends = {}  # start -> end of the best word, where it is longer than one character
    start, after = size, ""
    best_next = best_after_next = 0.0
    for character in reversed(text):
        start -= 1
        known = lexicon[character]
        if known is None:  # no word crosses it, and jieba begins to add anew
            best_next, after = 0.0, ""
            continue
        score, seconds = known
        score += best_next
        if after in seconds:
            candidate = seconds[after] + best_after_next
            if candidate >= score:
                score = candidate
                ends[start] = start + 2
            for length in lengths.get(text[start : start + 3], ()):
                end = start + length
                if end > size:
                    break
                candidate = scores.get(text[start:end], -math.inf) + best[end]
                if candidate >= score:
                    score = candidate
                    ends[start] = end
        best[start] = score
        best_after_next, best_next, after = best_next, score, character

    words = []
    start = 0
    while start < size:
        end = ends.get(start, start + 1)
        words.append(text[start:end])
        start = end
    return words


def _join(words: list[str], joins: Callable[[str, str], bool]) -> list[str]:
    """Put a word to the one before it where `joins(word before, word)`."""
    joined = words[:1]
    last = words[0]
    for word in words[1:]:
        if joins(last, word):
            joined[-1] += word
        else:
            joined.append(word)
        last = word
    return joined


def segment(text: str) -> list[str]:
    """Split text into words; joined they give the text back.

    Equals `jieba.lcut(text, HMM=False)` (the most probable path through jieba's dictionary), several times faster.
    """
    words = _most_probable_words(text)
    if not _LETTERS_AND_DIGITS.isdisjoint(text):
        words = _join(words, lambda last, word: last in _LETTERS_AND_DIGITS and word in _LETTERS_AND_DIGITS)
    if "\r\n" in text:
        words = _join(words, lambda last, word: last == "\r" and word == "\n")
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


NEGATIONS = frozenset("不没无未勿")
# words that negate nothing, though they are written with a negation
_NOT_NEGATED = re.compile("不[错俗赖凡仅但光断停时久过管论愧禁妨料然少止已]|不得不|无[论比限数敌非]|没事|未来")
_DEGREES = frozenset("很太极最更较挺超")


def is_opposite(word: str, other: str) -> bool:
    """Whether the other word turns the meaning of the word round, as neighbours among word vectors often do.

    That is

    - a packaged antonym of the word or of one of its synonyms, or a synonym of that antonym (喜欢, 讨厌), also behind a word
      of degree (很好, 极差);
    - a word with one other character, which is the antonym of the word's (黑人, 白人);
    - a word with one negation more or less (不能, 能够). Negations are counted by their characters, but for common words that
      negate nothing (不错, 不断).

    The packaged synonyms of a word are never its opposites (勇敢, 无畏).
    """
    if other in synonyms_of(word):
        return False
    return (
        other in _opposites(word)
        or _without_degree(other) in _opposites(_without_degree(word))
        or _is_turned_in_one_character(word, other)
        or _is_negated(other) != _is_negated(word)
    )


def _without_degree(word: str) -> str:
    return word[1:] if len(word) > 1 and word[0] in _DEGREES else word


def _is_turned_in_one_character(word: str, other: str) -> bool:
    if len(word) != len(other):
        return False
    changed = [(old, new) for old, new in zip(word, other, strict=True) if old != new]
    return len(changed) == 1 and changed[0][1] in antonyms().get(changed[0][0], ())


def _is_negated(word: str) -> bool:
    return not _NOT_NEGATED.fullmatch(word) and sum(character in NEGATIONS for character in word) % 2 == 1


@lru_cache(maxsize=1 << 16)
def _opposites(word: str) -> frozenset[str]:
    alike = {word, *synonyms_of(word)}
    found = {opposite for one in alike for opposite in antonyms().get(one, ())}
    return frozenset(found.union(*map(synonyms_of, found)) - alike)

"""Sounds of characters: toneless pinyin, with `v` for ü."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from functools import cache, lru_cache

from ..resources import character_readings, vocabulary

__all__ = ["homophones_of", "pinyin_of", "readings_of"]


def readings_of(char: str) -> tuple[str, ...]:
    """Toneless readings of a Chinese character of the vocabulary, most common first: 行 -> xing, hang, heng."""
    common, rare = character_readings().get(char, ((), ()))
    return common + rare


def _common_readings(char: str, max_readings: int) -> tuple[str, ...]:
    return character_readings().get(char, ((), ()))[0][:max_readings]


@cache
def _characters_by_reading(max_readings: int) -> dict[str, tuple[str, ...]]:
    found: dict[str, list[str]] = defaultdict(list)
    for char in vocabulary():  # Chinese characters stand there by frequency
        for reading in _common_readings(char, max_readings):
            found[reading].append(char)
    return {reading: tuple(chars) for reading, chars in found.items()}


@lru_cache(maxsize=1 << 14)
def homophones_of(char: str, max_readings: int = 2) -> tuple[str, ...]:
    """Other vocabulary characters that share one of the character's most common readings, most frequent first.

    Args:
        char: any character; `()` when it has no known reading.
        max_readings: how many readings of a polyphone count, of this character and of the others (2 in the paper);
            readings that hardly occur never do.
    """
    if max_readings < 1:
        raise ValueError(f"max_readings={max_readings}: at least one reading must count")
    readings = _common_readings(char, max_readings)
    if len(readings) == 1:
        return tuple(other for other in _characters_by_reading(max_readings)[readings[0]] if other != char)
    sharing = {other for reading in readings for other in _characters_by_reading(max_readings)[reading]} - {char}
    return tuple(sorted(sharing, key=_rank().__getitem__))


@cache
def _rank() -> dict[str, int]:
    return {char: number for number, char in enumerate(vocabulary())}


def _toneless(syllable: str) -> str:
    letters = unicodedata.normalize("NFD", syllable).replace("u\u0308", "v")
    return "".join(letter for letter in letters if not unicodedata.combining(letter))


@cache
def _first_readings() -> dict[str, str]:
    """The reading that pypinyin gives a character outside of any phrase."""
    from pypinyin.constants import PINYIN_DICT

    toneless = cache(_toneless)
    return {chr(code): toneless(readings.split(",", 1)[0]) for code, readings in PINYIN_DICT.items()}


@cache
def _phrase_lengths() -> dict[str, tuple[int, ...]]:
    """The lengths of pypinyin's phrases that begin with two characters, longest first."""
    from pypinyin.constants import PHRASES_DICT

    lengths: dict[str, set[int]] = defaultdict(set)
    for phrase in PHRASES_DICT:
        lengths[phrase[:2]].add(len(phrase))
    return {beginning: tuple(sorted(found, reverse=True)) for beginning, found in lengths.items()}


@lru_cache(maxsize=1 << 16)
def _phrase_reading(phrase: str) -> tuple[str, ...] | None:
    """Toneless syllables of a phrase of pypinyin's, None when it is none."""
    from pypinyin.constants import PHRASES_DICT

    syllables = PHRASES_DICT.get(phrase)
    return None if syllables is None else tuple(_toneless(readings[0]) for readings in syllables)


def pinyin_of(text: str) -> list[str | None]:
    """The toneless reading of each character in its context, None for what is not Chinese.

    As pypinyin's `lazy_pinyin` reads: the longest phrase of its dictionary that begins at a character gives the
    readings (银行 -> yin hang), outside of phrases a character has its first reading.
    """
    first_reading_of, lengths_of = _first_readings().get, _phrase_lengths().get
    readings: list[str | None] = []
    start, size = 0, len(text)
    while start < size:
        for length in lengths_of(text[start : start + 2], ()):
            phrase = _phrase_reading(text[start : start + length]) if start + length <= size else None
            if phrase is not None:
                readings += phrase
                start += length
                break
        else:
            readings.append(first_reading_of(text[start]))
            start += 1
    return readings

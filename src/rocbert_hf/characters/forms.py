"""Other code points and other written forms of the same character."""

from __future__ import annotations

import unicodedata
from functools import cache

from ..resources import path

_RADICALS = ((0x2F00, 0x2FD5), (0x2E80, 0x2EF3))  # Kangxi radicals, CJK radicals supplement
_WIDTHS = (0xFF01, 0xFFEE)  # halfwidth and fullwidth forms


@cache
def _forms() -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
    """Character -> (traditional forms, variants)."""
    rows = (line.split("\t") for line in path("character_forms.tsv").read_text(encoding="utf-8").splitlines())
    return {character: (tuple(traditional), tuple(variants)) for character, traditional, variants in rows}


def traditional_forms_of(character: str) -> tuple[str, ...]:
    """Traditional forms of a simplified character, commonest first: 绕 → 繞, 发 → 發 髮.

    `()` for a character that is mostly its own traditional form, as 家 (傢 stands in a few words alone).
    """
    return _forms().get(character, ((), ()))[0]


def variants_of(character: str) -> tuple[str, ...]:
    """Forms of other regions, Japanese ones above all: 对 → 対, 为 → 為; of a traditional character its simplified form."""
    return _forms().get(character, ((), ()))[1]


def _normalised(first: int, last: int) -> dict[str, tuple[str, ...]]:
    """Character -> code points from `first` to `last` that Unicode's NFKC makes that character."""
    found: dict[str, list[str]] = {}
    for code in range(first, last + 1):
        normal = unicodedata.normalize("NFKC", chr(code))
        if len(normal) == 1 and normal != chr(code):
            found.setdefault(normal, []).append(chr(code))
    return {character: tuple(forms) for character, forms in found.items()}


@cache
def _radicals() -> dict[str, tuple[str, ...]]:
    kangxi, supplement = (_normalised(*block) for block in _RADICALS)
    return {character: kangxi.get(character, ()) + supplement.get(character, ()) for character in (kangxi | supplement)}


@cache
def _width_forms() -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for normal, forms in _normalised(*_WIDTHS).items():
        for character in (normal, *forms):
            found[character] = tuple(other for other in (normal, *forms) if other != character)
    return found


def radicals_of(character: str) -> tuple[str, ...]:
    """The Kangxi and other radicals that look like a character but are code points of their own: 金 → ⾦."""
    return _radicals().get(character, ())


def width_forms_of(character: str) -> tuple[str, ...]:
    """The full-width form of a half-width character and the other way round: a → ａ, 。 → ｡, １ → 1."""
    return _width_forms().get(character, ())

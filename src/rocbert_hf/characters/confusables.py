"""Characters that look the same as another one: other code points, and the digits and signs that people write for letters."""

from __future__ import annotations

from functools import cache

from ..resources import confusable_characters

__all__ = ["confusables_of"]

# What people type for a letter or a digit, with the keys of any keyboard. Unicode's confusables have few of these: there
# i is no 1, and s no 5.
_AS_TYPED = {
    "a": "@4", "b": "68", "e": "3", "g": "9q", "i": "1l!|", "l": "1i|", "o": "0", "q": "9g", "s": "5$", "t": "7+", "u": "v",
    "v": "u", "z": "2", "A": "4@", "B": "8", "E": "3", "G": "6", "I": "1l|!", "L": "1", "O": "0", "S": "5$", "T": "7", "Z": "2",
    "0": "oO", "1": "liI|", "2": "zZ", "3": "eE", "4": "aA", "5": "sS", "6": "bG", "7": "tT", "8": "B", "9": "gq",
}  # fmt: skip


@cache
def confusables_of(char: str) -> tuple[str, ...]:
    """Other characters that look the same or nearly so: o -> 0 ο о օ ..., i -> 1 l ..., 力 -> ⼒ カ.

    First what people type in its place, then other code points: Unicode's confusables (UTS 39), compatibility ideographs,
    radicals, and mathematical, circled and full-width alphabets; if the vocabulary has some of these code points, only
    these.
    """
    return tuple(dict.fromkeys((*_AS_TYPED.get(char, ""), *confusable_characters().get(char, ()))))

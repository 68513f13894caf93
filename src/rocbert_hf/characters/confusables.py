"""Code points that look the same as a character."""

from __future__ import annotations

from ..resources import confusable_characters

__all__ = ["confusables_of"]


def confusables_of(char: str) -> tuple[str, ...]:
    """Other code points drawn the same or nearly so: o -> ο о օ ..., 力 -> ⼒ カ.

    From Unicode's confusables (UTS 39), compatibility ideographs, radicals, and mathematical, circled and full-width
    alphabets; only those of the vocabulary where it has any.
    """
    return confusable_characters().get(char, ())

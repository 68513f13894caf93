"""Characters that nobody sees, but that steer what is seen: they are written out wherever text of others is shown."""

from __future__ import annotations

import re
import unicodedata

# Letters by their category, but blank in every typeface: fillers of Hangul and of Braille.
_BLANK = "\u115f\u1160\u2800\u3164\uffa0"
# Controls, formats (of no width, or turning the direction of writing around), halves of surrogate pairs, private and
# unassigned code points, and the separators of lines and paragraphs.
_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_CANDIDATES = re.compile(rf"[^\x20-\x7e\n\t\u3400-\u9fff\u3000-\u3020\uff01-\uff60]|[{_BLANK}]")


def mark_unseen(text: str) -> str:
    """The text with every character that cannot be seen, or that steers a terminal or the direction of writing, named.

    A zero-width space becomes <U+200B>, ESC <U+001B>, a right-to-left override <U+202E>. Spaces of all widths, tabs and
    line feeds stay as they are.
    """
    return _CANDIDATES.sub(_named, text)


def _named(match: re.Match) -> str:
    character = match[0]
    unseen = character in _BLANK or unicodedata.category(character) in _CATEGORIES
    return f"<U+{ord(character):04X}>" if unseen else character

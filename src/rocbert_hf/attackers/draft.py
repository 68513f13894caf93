"""A text under attack: its words, and the changes made to them so far."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import accumulate
from typing import NamedTuple

from ..attacks.attacked_text import AttackedText, Edit
from ..characters.words import segment


class Change(NamedTuple):
    """`form` in the place of the source characters [start, end); `attack` names the kind of change."""

    start: int
    end: int
    form: str
    attack: str


class Words:
    """A source text and its words.

    Args:
        text: the source.
        words: its words; joined they give the text. By default jieba's.
    """

    def __init__(self, text: str, words: Sequence[str] | None = None):
        self.text = text
        self.words = segment(text) if words is None else words
        self.starts = list(accumulate(map(len, self.words), initial=0))

    def __len__(self) -> int:
        return len(self.words)

    def span(self, index: int) -> tuple[int, int]:
        """(start, end) of a word in the text."""
        return self.starts[index], self.starts[index + 1]

    def without(self, index: int) -> str:
        """The text with a word deleted."""
        start, end = self.span(index)
        return self.text[:start] + self.text[end:]


class Draft:
    """A source with some changes made: what a search has got so far.

    Args:
        source: the words of the source.
        changes: sorted, without overlaps, none across the border of a word.
    """

    def __init__(self, source: Words, changes: tuple[Change, ...] = ()):
        self.source = source
        self.changes = changes

    def __add__(self, change: Change) -> Draft:
        return Draft(self.source, tuple(sorted((*self.changes, change))))

    def render(self, start: int, end: int, change: Change | None = None) -> str:
        """The source characters [start, end), a range of whole words, as they read now; with one more change."""
        changes = self.changes if change is None else sorted((*self.changes, change))
        pieces, at = [], start
        for made in changes:
            if start <= made.start and made.end <= end:
                pieces += (self.source.text[at : made.start], made.form)
                at = made.end
        return "".join((*pieces, self.source.text[at:end]))

    def with_change(self, change: Change | None = None) -> str:
        """The whole text, with one more change."""
        return self.render(0, len(self.source.text), change)

    @property
    def text(self) -> str:
        return self.with_change()

    @cached_property
    def attacked_characters(self) -> int:
        """Characters of the source that the changes replace."""
        return sum(change.end - change.start for change in self.changes)

    def attacked(self) -> AttackedText:
        edits, at_source, at_text = [], 0, 0
        for start, end, form, attack in self.changes:
            text_start = at_text + start - at_source
            at_source, at_text = end, text_start + len(form)
            edits.append(Edit((start, end), (text_start, at_text), (attack,)))
        return AttackedText(self.source.text, self.text, tuple(edits))

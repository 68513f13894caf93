"""What an attack did to a text: `AttackedText`, its edits, and everything that must follow the characters that moved."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from ..characters.unseen import mark_unseen
from ..web_page import html_text

if TYPE_CHECKING:
    from rich.text import Text

# A run of Chinese characters: CJK ideographs of the unified and compatibility blocks, and 〇.
CHINESE = re.compile("[〇\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af]+")

# One colour an attack, so that a report can be read at a glance; attacks that are not listed share the last one.
COLOURS = {
    "phonetic": "#1b6ca8",
    "to_pinyin": "#1b6ca8",
    "initials": "#1b6ca8",
    "near_phonetic": "#1b6ca8",
    "emoji": "#1b6ca8",
    "visual": "#a8431b",
    "split": "#a8431b",
    "unicode": "#a8431b",
    "traditional": "#a8431b",
    "variant": "#a8431b",
    "radical": "#a8431b",
    "width": "#a8431b",
    "synonym": "#2e7d32",
}
OTHER_COLOUR = "#7b3fa0"


class Edit(NamedTuple):
    """One attacked place.

    `source_span` and `text_span` are half-open (start, end) positions in characters (code points) of the source and of
    the attacked text; `attacks` names what was applied there, in order.
    """

    source_span: tuple[int, int]
    text_span: tuple[int, int]
    attacks: tuple[str, ...]


@dataclass(frozen=True)
class AttackedText:
    """A text, its attacked form, and the edits between them.

    Edits are sorted and do not overlap; outside them both strings are equal, so edits and the pieces between them tile
    both strings exactly.

    Args:
        source: the text before the attack.
        text: the text after it.
        edits: where they differ.

    Raises:
        ValueError: when the edits do not tile the two strings.

    Example::

        >>> attacked = AttackedText("科比", "禾斗比", (Edit((0, 1), (0, 2), ("split",)),))
        >>> attacked.align_labels(["B-PER", "E-PER"])
        ['B-PER', 'M-PER', 'E-PER']
    """

    source: str
    text: str
    edits: tuple[Edit, ...] = ()

    def __post_init__(self) -> None:
        at_source = at_text = 0
        for edit in self.edits:
            (start, end), (text_start, text_end), _ = edit
            if not (at_source <= start <= end and at_text <= text_start <= text_end):
                raise ValueError(f"edits must be sorted and must not overlap, got {edit} after position {at_source}")
            if self.source[at_source:start] != self.text[at_text:text_start]:
                raise ValueError(f"source and text differ outside the edits, before {edit}")
            at_source, at_text = end, text_end
        if at_source > len(self.source) or self.source[at_source:] != self.text[at_text:]:
            raise ValueError(f"source and text differ outside the edits, after source position {at_source}")

    def pieces(self) -> Iterator[tuple[str, str, Edit | None]]:
        """(source piece, text piece, edit or None where both are equal), in order; joined they give both strings."""
        at = 0
        for edit in self.edits:
            (start, end), (text_start, text_end), _ = edit
            if start > at:
                yield self.source[at:start], self.source[at:start], None
            yield self.source[start:end], self.text[text_start:text_end], edit
            at = end
        if at < len(self.source):
            yield self.source[at:], self.source[at:], None

    def revert(self, edits: Iterable[Edit] | None = None) -> str:
        """The text with these edits undone; with all of them (the default) that is the source."""
        undone = set(self.edits if edits is None else edits)
        if unknown := undone.difference(self.edits):
            raise ValueError(f"edits must be among this text's edits, got {sorted(unknown)}")
        return "".join(before if edit is None or edit in undone else after for before, after, edit in self.pieces())

    @cached_property
    def boundaries(self) -> tuple[int, ...]:
        """(len(source) + 1,) text position of every boundary between source characters.

        Character i of the source became `text[boundaries[i]:boundaries[i + 1]]`: empty where it was deleted, several
        characters where it was split. Inside an edit of several characters positions are shared out in proportion;
        characters put between two others belong to the left one (at the very start, to the first).
        """
        found: list[int] = []
        at_text = 0
        for before, after, edit in self.pieces():
            if edit is None:
                found.extend(range(at_text, at_text + len(before)))
            else:
                found.extend(at_text + i * len(after) // len(before) for i in range(len(before)))
            at_text += len(after)
        if found:
            found[0] = 0
        return (*found, len(self.text)) if self.source else (0,)

    def span_in_text(self, start: int, end: int) -> tuple[int, int]:
        """The text span of the source characters [start, end): an answer, an entity, a word."""
        if not 0 <= start <= end <= len(self.source):
            raise ValueError(f"start and end must lie in 0..{len(self.source)} in order, got ({start}, {end})")
        return self.boundaries[start], self.boundaries[end]

    def align_words(self, words: Sequence[str]) -> list[str]:
        """The words of the source as they stand in the attacked text, for whole-word masking.

        Args:
            words: the source, segmented: joined they give the source.

        Returns:
            One string per word, "" for a deleted one; joined they give the text.
        """
        if "".join(words) != self.source:
            raise ValueError("words must give the source when joined")
        aligned, at = [], 0
        for word in words:
            start, end = self.span_in_text(at, at + len(word))
            aligned.append(self.text[start:end])
            at += len(word)
        return aligned

    def align_labels(
        self, labels: Sequence[Any], scheme: str | None = None, names: Sequence[str] | None = None
    ) -> list[Any]:
        """Labels of the source's characters carried over to the text's characters.

        Every new character takes the label of the source character it came from (a split character's parts both do).
        Labels that look like chunk tags ("B-PER", "O") are kept valid: of a grown single-character entity the first
        part is B and the last E; an entity whose first character was deleted still begins with B.

        Args:
            labels: (len(source),) one label per character; strings or, with `names`, their integers.
            scheme: "BIO", "BMES" or "BIOES"; by default recognised from the labels (BMES where only B, E and S occur).
                "plain" copies labels as they are.
            names: the label strings by integer, when labels are integers.

        Returns:
            (len(text),) labels of the kind that came in.
        """
        if len(labels) != len(self.source):
            raise ValueError(
                f"labels must have one entry per character of the source ({len(self.source)}), got {len(labels)}"
            )
        if scheme not in (None, "plain", *MIDDLE_TAG):
            raise ValueError(f"scheme must be one of {[*MIDDLE_TAG, 'plain']} or None, got {scheme!r}")
        if names is not None:
            ids = {name: index for index, name in enumerate(names)}
            return [ids[tag] for tag in self.align_labels([names[label] for label in labels], scheme)]
        scheme = scheme or _recognise_scheme(labels)
        boundaries = self.boundaries
        if scheme == "plain":
            sizes = [boundaries[i + 1] - boundaries[i] for i in range(len(labels))]
            return [label for label, size in zip(labels, sizes, strict=True) for _ in range(size)]
        aligned: list[str] = ["O"] * len(self.text)
        for start, end, entity in _chunks(labels):
            start, end = boundaries[start], boundaries[end]
            aligned[start:end] = _tags(end - start, entity, scheme)
        return aligned

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and strings, for JSON; `from_dict` reads it back."""
        edits = [{"source_span": list(e[0]), "text_span": list(e[1]), "attacks": list(e[2])} for e in self.edits]
        return {"source": self.source, "text": self.text, "edits": edits}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> AttackedText:
        """The inverse of `to_dict`.

        Raises:
            ValueError: when a key is missing or the edits do not fit the strings.
        """
        try:
            edits = tuple(
                Edit(tuple(e["source_span"]), tuple(e["text_span"]), tuple(e["attacks"])) for e in record["edits"]
            )
            return cls(record["source"], record["text"], edits)
        except (KeyError, TypeError) as error:
            raise ValueError(f"record must have source, text and edits as to_dict writes them: {error!r}") from error

    def to_html(self) -> str:
        """An HTML fragment: the text with every edit marked, its source above and its attacks in a tooltip."""
        parts = []
        for before, after, edit in self.pieces():
            if edit is None:
                parts.append(html_text(after))
                continue
            before, after, attacks = mark_unseen(before), visible(after), ", ".join(edit.attacks)
            parts.append(
                f'<ruby class="edit" style="color:{colour_of(edit)}" title="{html.escape(f"{before} → {after} ({attacks})")}">'
                f"{html.escape(after)}<rt>{html.escape(before)}</rt></ruby>"
            )
        return "".join(parts)

    def __rich__(self) -> Text:
        """The text for `rich.print`: edits coloured, each followed by its source and its attacks."""
        from rich.text import Text

        line = Text()
        for before, after, edit in self.pieces():
            if edit is None:
                line.append(mark_unseen(after))
            else:
                line.append(visible(after), style=f"bold {colour_of(edit)}")
                line.append(f"[{mark_unseen(before)}:{'+'.join(edit.attacks)}]", style="dim")
        return line


def colour_of(edit: Edit) -> str:
    """The colour that marks an edit: that of its last attack."""
    return COLOURS.get(edit.attacks[-1], OTHER_COLOUR) if edit.attacks else OTHER_COLOUR


def visible(form: str) -> str:
    """What an edit put there, as a reader can see it: nothing is ∅, spaces too are written out, as <U+3000>."""
    return "".join(char if char.isprintable() else f"<U+{ord(char):04X}>" for char in mark_unseen(form)) or "∅"


MIDDLE_TAG = {"BIO": "I", "BMES": "M", "BIOES": "I"}


def _recognise_scheme(labels: Sequence[Any]) -> str:
    """ "BIO", "BMES", "BIOES", or "plain" for labels that are not chunk tags."""
    kinds = set()
    for label in labels:
        if not isinstance(label, str) or not (
            label == "O" or (len(label) > 2 and label[0] in "BIMES" and label[1] == "-")
        ):
            return "plain"
        kinds.add(label[0])
    if kinds <= {"O", "B", "I"}:
        return "BIO"
    return "BIOES" if "I" in kinds else "BMES"


def _chunks(tags: Sequence[str]) -> Iterator[tuple[int, int, str]]:
    """(start, end, entity) of every chunk in a tag sequence of any of the schemes; a stray I, M or E opens one."""
    start, entity = 0, None
    for at, tag in enumerate([*tags, "O"]):
        kind, name = tag[0], tag[2:]
        if entity is not None and (kind in "OBS" or name != entity):
            yield start, at, entity
            entity = None
        if kind != "O" and entity is None:
            start, entity = at, name
        if kind in "ES" and entity is not None:
            yield start, at + 1, entity
            entity = None


def _tags(length: int, entity: str, scheme: str) -> list[str]:
    """Chunk tags of an entity of `length` characters."""
    if length == 0:
        return []
    kinds = ["B"] + [MIDDLE_TAG[scheme]] * (length - 1)
    if scheme != "BIO":
        kinds[-1] = "E" if length > 1 else "S"
    return [f"{kind}-{entity}" for kind in kinds]

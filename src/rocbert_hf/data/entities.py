"""Named entities: spans of characters with a type, the tags that spell them out, and long texts cut between them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

SCHEMES = ("BIO", "BMES", "IOBES")
# first, middle, last and only tag of an entity
KINDS = {"BIO": "BIIB", "BMES": "BMES", "IOBES": "BIES"}
SENTENCE_END = re.compile(r"[。！？!?；;\n]+[」』”’）)》]*")
CLAUSE_END = re.compile(r"[，,、：:\s]+")
JOINER = "\u200d"
# what emoji are, and what may follow one before a joiner: a colour of skin, a variation selector
SYMBOLS, AFTER_SYMBOLS = ("So", "Sm"), ("So", "Sm", "Sk", "Mn")


class Entity(NamedTuple):
    """The characters [start, end) of a text, and what they name."""

    start: int
    end: int
    type: str


@dataclass(frozen=True)
class EntityText:
    """
    A text and its entities.

    Args:
        text: at least one character.
        entities: sorted by their start; they do not overlap.
        where: the file and line that it was read from, for messages.

    Raises:
        ValueError: the text is empty; a span lies outside it, is empty, overlaps another one, or begins or ends inside a
            character (between a letter and the accent on it).
    """

    text: str
    entities: tuple[Entity, ...] = ()
    where: str = ""

    def __post_init__(self) -> None:
        where = f"{self.where}: " if self.where else ""
        if not self.text:
            raise ValueError(f"{where}the sentence is empty")
        before = Entity(0, 0, "")
        for entity in self.entities:
            if not 0 <= entity.start < entity.end <= len(self.text):
                raise ValueError(
                    f"{where}the span of an entity must lie in 0..{len(self.text)} and hold at least one character, got "
                    f"{entity.start}..{entity.end}"
                )
            if entity.start < before.end:
                raise ValueError(
                    f"{where}entities must be sorted and must not overlap, got {_shown(self.text, before)} and "
                    f"{_shown(self.text, entity)}"
                )
            for edge in (entity.start, entity.end):
                if edge < len(self.text) and joins(self.text, edge):
                    raise ValueError(
                        f"{where}the span {entity.start}..{entity.end} splits a character: U+"
                        f"{ord(self.text[edge]):04X} at {edge} belongs to the one before it"
                    )
            before = entity

    def tags(self, scheme: str, offsets: Sequence[tuple[int, int]] | None = None) -> list[str]:
        """
        One tag per character, or per token.

        Args:
            scheme: "BIO", "BMES" or "IOBES".
            offsets: the (start, end) characters of each token; default: each character is one. A token belongs to an
                entity if it has at least one character of it.

        Returns:
            One tag per token, "O" outside all entities.
        """
        first, middle, last, only = KINDS[_checked(scheme)]
        offsets = [(at, at + 1) for at in range(len(self.text))] if offsets is None else offsets
        tags = ["O"] * len(offsets)
        for start, end, type_ in self.entities:
            tokens = [i for i, (a, b) in enumerate(offsets) if a < end and b > start and a < b]
            for i in tokens:
                tags[i] = f"{middle}-{type_}"
            if tokens:
                tags[tokens[-1]] = f"{last}-{type_}"
                tags[tokens[0]] = f"{first if len(tokens) > 1 else only}-{type_}"
        return tags


@dataclass(frozen=True)
class EntityTexts:
    """
    Texts with their entities, in the order of their source.

    Args:
        name: of the file, for messages and reports.
        texts: them.
        scheme: the scheme that the source's tags follow; None if it has spans instead of tags.
    """

    name: str
    texts: tuple[EntityText, ...]
    scheme: str | None = None

    def __len__(self) -> int:
        return len(self.texts)

    def types(self) -> tuple[str, ...]:
        """All types that occur, in alphabetical order."""
        return tuple(sorted({entity.type for text in self.texts for entity in text.entities}))

    def check_types(self, known: Sequence[str]) -> None:
        """
        Raises:
            ValueError: an entity has a type that is not among the known ones; the message names file and line.
        """
        for text in self.texts:
            for entity in text.entities:
                if entity.type not in known:
                    raise ValueError(
                        f"{text.where or self.name}: the type of an entity must be one of {', '.join(known)}, got "
                        f"{entity.type!r}"
                    )


def label_names(types: Sequence[str], scheme: str) -> tuple[str, ...]:
    """The tags of these types in the scheme: "O", then those of each type."""
    kinds = dict.fromkeys(KINDS[_checked(scheme)])
    return ("O", *(f"{kind}-{type_}" for type_ in types for kind in kinds))


def entities_of(
    tags: Sequence[str], scheme: str, offsets: Sequence[tuple[int, int]] | None = None
) -> tuple[Entity, ...]:
    """
    The entities that tags spell out, read strictly: what does not begin with B (or is S) and go on as it must is none.

    Args:
        tags: one per token.
        scheme: "BIO", "BMES" or "IOBES".
        offsets: the (start, end) characters of each token; default: each character is one.

    Returns:
        Entities in characters.
    """
    ends_open = _checked(scheme) == "BIO"
    spans: list[tuple[int, int, str]] = []
    start, type_ = None, ""
    for at, tag in enumerate([*tags, "O"]):
        kind, name = tag[0], tag[2:]
        if start is not None and (kind in "OBS" or name != type_):
            if ends_open:
                spans.append((start, at, type_))
            start = None
        if kind == "B":
            start, type_ = at, name
        elif kind == "S":
            spans.append((at, at + 1, name))
        elif kind == "E" and start is not None:
            spans.append((start, at + 1, type_))
            start = None
    if offsets is None:
        return tuple(Entity(*span) for span in spans)
    return tuple(Entity(offsets[a][0], offsets[b - 1][1], name) for a, b, name in spans)


def check_tags(tags: Sequence[str], scheme: str, places: Sequence[str]) -> None:
    """
    Check one sentence's tags.

    Args:
        tags: of one sentence.
        scheme: that they must follow.
        places: file and line of each tag.

    Raises:
        ValueError: a tag cannot follow the one before it, or an entity does not end.
    """
    opens = {"BIO": "", "BMES": "BM", "IOBES": "BI"}[scheme]
    before = "O"
    for tag, place in zip([*tags, "O"], [*places, places[-1]], strict=True):
        inside = before[0] in ("B", "I", "M") and before[2:] == tag[2:]
        if tag[0] in ("I", "M", "E") and not inside:
            raise ValueError(f"{place}: {tag} cannot follow {before} in the scheme {scheme}")
        if before[0] in opens and tag[0] not in ("I", "M", "E"):
            raise ValueError(f"{place}: the entity that {before} belongs to has no end in the scheme {scheme}")
        before = tag


def cut(text: EntityText, limit: int, offsets: Sequence[tuple[int, int]] | None = None) -> list[tuple[int, EntityText]]:
    """
    Cut a long text into pieces, each as long as it may be, at sentence ends, and never inside an entity.

    If a sentence is too long itself, it is cut after a comma or a space, and if there is none, between two entities.

    Args:
        text: what to cut.
        limit: tokens per piece, without special tokens.
        offsets: the (start, end) characters of each token of the text; default: each character is one.

    Returns:
        (position of its first character in the text, piece); joined, the pieces give the text.

    Raises:
        ValueError: an entity alone has more than `limit` tokens, or `limit` is below 1.
    """
    if limit < 1:
        raise ValueError(f"limit must be at least 1, got {limit}")
    offsets = [(at, at + 1) for at in range(len(text.text))] if offsets is None else offsets
    if len(offsets) <= limit:
        return [(0, text)]
    pieces, start = [], 0
    while start < len(text.text):
        rest = [span for span in offsets if span[0] >= start]
        # the first character that a piece from here can no longer hold
        reach = len(text.text) if len(rest) <= limit else rest[limit][0]
        end = reach if reach == len(text.text) else _cut_before(text, start, reach)
        if end <= start:
            raise ValueError(
                f"{text.where + ': ' if text.where else ''}an entity must fit into {limit} tokens, got a longer one at "
                f"{start}: {text.text[start : start + 20]!r}"
            )
        pieces.append((start, _piece(text, start, end)))
        start = end
    return pieces


def _cut_before(text: EntityText, start: int, reach: int) -> int:
    """The best place to cut in start < place <= reach; `start` if there is none."""

    def free(place: int) -> bool:
        inside = any(entity.start < place < entity.end for entity in text.entities)
        return start < place <= reach and not inside and not joins(text.text, place)

    for pattern in (SENTENCE_END, CLAUSE_END):
        places = [found.end() for found in pattern.finditer(text.text, start, reach)]
        if found := [place for place in places if free(place)]:
            return found[-1]
    return next((place for place in range(reach, start, -1) if free(place)), start)


def _piece(text: EntityText, start: int, end: int) -> EntityText:
    inside = (e for e in text.entities if start <= e.start and e.end <= end)
    entities = tuple(Entity(e.start - start, e.end - start, e.type) for e in inside)
    return replace(text, text=text.text[start:end], entities=entities)


def joins(text: str, at: int) -> bool:
    """Whether the character at this place is part of the one before: an accent, a variation selector, half of an emoji.

    A zero-width joiner makes one emoji of two. Between other characters it joins nothing.
    """
    if at <= 0 or at >= len(text):
        return False
    if unicodedata.category(text[at]) in ("Mn", "Me"):
        return True
    if JOINER not in (text[at], text[at - 1]):
        return False
    before, after = text[:at].rstrip(JOINER)[-1:], text[at:].lstrip(JOINER)[:1]
    return (
        before != "" != after
        and unicodedata.category(before) in AFTER_SYMBOLS
        and unicodedata.category(after) in SYMBOLS
    )


def pieces_of(text: str, entities: Sequence[Entity]) -> Iterator[tuple[str, Entity | None]]:
    """The text in order, piece by piece: those of an entity with it, the others with None."""
    at = 0
    for entity in entities:
        if entity.start > at:
            yield text[at : entity.start], None
        yield text[entity.start : entity.end], entity
        at = entity.end
    if at < len(text):
        yield text[at:], None


def _shown(text: str, entity: Entity) -> str:
    return f"{text[entity.start : entity.end]!r} ({entity.start}..{entity.end})"


def _checked(scheme: str) -> str:
    if scheme not in SCHEMES:
        raise ValueError(f"scheme must be one of {', '.join(SCHEMES)}, got {scheme!r}")
    return scheme

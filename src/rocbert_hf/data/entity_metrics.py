"""
How well entities are found: strict precision, recall and F1, and errors by kind.

An entity counts as found if its characters and its type are exactly right: what seqeval computes in strict mode. The
kinds of errors are those of nervaluate, after SemEval 2013 task 9. Both are compared with these libraries in the tests.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .entities import Entity

NOTHING = "(none)"


@dataclass(frozen=True)
class EntityScores:
    """
    Args:
        right: entities found exactly.
        found: entities found.
        present: entities that there are.
    """

    right: int
    found: int
    present: int

    @property
    def precision(self) -> float:
        """Share of the entities found that are right; 0 if none was found."""
        return self.right / self.found if self.found else 0.0

    @property
    def recall(self) -> float:
        """Share of the entities present that were found; 0 if there is none."""
        return self.right / self.present if self.present else 0.0

    @property
    def f1(self) -> float:
        """Harmonic mean of both."""
        total = self.found + self.present
        return 2 * self.right / total if total else 0.0

    def to_dict(self) -> dict[str, float]:
        """Counts and shares, for JSON."""
        shares = {"precision": self.precision, "recall": self.recall, "f1": self.f1}
        return {**shares, "right": self.right, "found": self.found, "present": self.present}


@dataclass(frozen=True)
class EntityErrors:
    """
    What became of the entities that there are, and what else was found.

    Args:
        correct: exactly right.
        boundary: right type, and the characters overlap without being the same.
        type: the same characters under another type.
        both: the characters overlap, and the type is another one.
        missed: nothing was found there.
        spurious: found where there is nothing.
    """

    correct: int
    boundary: int
    type: int
    both: int
    missed: int
    spurious: int


def entity_scores(
    gold: Sequence[Iterable[Entity]], found: Sequence[Iterable[Entity]], type_: str | None = None
) -> EntityScores:
    """
    Strict scores over all texts (micro average).

    Args:
        gold, found: the entities of each text.
        type_: count entities of this type alone.

    Raises:
        ValueError: the numbers of texts differ.
    """
    if len(gold) != len(found):
        raise ValueError(f"gold and found must have as many texts, got {len(gold)} and {len(found)}")
    right = n_found = present = 0
    for gold_, found_ in zip(gold, found, strict=True):
        of_gold, of_found = (
            {entity for entity in entities if type_ in (None, entity.type)} for entities in (gold_, found_)
        )
        right += len(of_gold & of_found)
        n_found += len(of_found)
        present += len(of_gold)
    return EntityScores(right, n_found, present)


def matched(gold: Iterable[Entity], found: Iterable[Entity]) -> list[tuple[Entity | None, Entity | None]]:
    """
    Pairs of an entity and what was found for it; None where there is no counterpart.

    Exact matches are paired first, then the same characters, then the found ones in their order with the first entity
    that they overlap and that has no counterpart yet.
    """
    left = sorted(gold)
    pairs: list[tuple[Entity | None, Entity | None]] = []
    rest = sorted(found)
    for fits in (_same, _same_characters, _overlap):
        unmatched = []
        for entity in rest:
            match = next((other for other in left if fits(other, entity)), None)
            if match is None:
                unmatched.append(entity)
            else:
                left.remove(match)
                pairs.append((match, entity))
        rest = unmatched
    return [*pairs, *((entity, None) for entity in left), *((None, entity) for entity in rest)]


def entity_errors(gold: Sequence[Iterable[Entity]], found: Sequence[Iterable[Entity]]) -> EntityErrors:
    """Counts of `kind_of_error` over all texts."""
    counts = Counter(
        kind_of_error(a, b) for gold_, found_ in zip(gold, found, strict=True) for a, b in matched(gold_, found_)
    )
    return EntityErrors(**{name: counts[name] for name in EntityErrors.__dataclass_fields__})


def kind_of_error(gold: Entity | None, found: Entity | None) -> str:
    """The field of `EntityErrors` that a pair of `matched` counts in."""
    if gold is None:
        return "spurious"
    if found is None:
        return "missed"
    if gold == found:
        return "correct"
    if _same_characters(gold, found):
        return "type"
    return "boundary" if gold.type == found.type else "both"


def type_confusion(gold: Sequence[Iterable[Entity]], found: Sequence[Iterable[Entity]]) -> dict[tuple[str, str], int]:
    """How often an entity of a type (or nothing) was found as one of a type (or not at all: `NOTHING`)."""
    pairs = (pair for gold_, found_ in zip(gold, found, strict=True) for pair in matched(gold_, found_))
    return dict(Counter((a.type if a else NOTHING, b.type if b else NOTHING) for a, b in pairs))


def _same(a: Entity, b: Entity) -> bool:
    return a == b


def _same_characters(a: Entity, b: Entity) -> bool:
    return (a.start, a.end) == (b.start, b.end)


def _overlap(a: Entity, b: Entity) -> bool:
    return a.start < b.end and b.start < a.end

"""
How well a tagger finds entities, in clean texts and in attacked ones: scores, errors, a report and a file of predictions.

Attacked texts keep their gold entities: every attack says which characters became which, and the spans follow them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..attacks.attacked_text import AttackedText
from ..attacks.kinds import ATTACKS, ZeroWidth
from ..attacks.synthesizer import AdversarialSynthesizer
from ..data.entities import Entity, EntityText, EntityTexts, joins, pieces_of
from ..data.entity_files import read_entities
from ..data.entity_metrics import (
    EntityErrors,
    EntityScores,
    entity_errors,
    entity_scores,
    kind_of_error,
    matched,
    type_confusion,
)
from ..files import make_folder, write_json, write_whole
from ..finetuning.tagger import EntityTagger
from ..options import REQUIRED, option
from ..torch_device import checked_device
from ..web_page import html_page, html_text

CLEAN = "clean"
ALL_ATTACKS = "all"
UNREAD = "".join(ZeroWidth.marks)  # what tokenizers drop, so that no tagger can find it


@dataclass
class TaggerEvaluationOptions:
    """What to measure, and where to put it."""

    model: str = option(REQUIRED, "folder or Hub id of the tagger")
    test_file: str = option(REQUIRED, "labelled texts: columns, .jsonl with spans, a saved dataset, or demo")
    output_dir: Path = option(Path("tagger_report"), "folder for the report and the predictions", short="-o")
    attacks: list[str] = option(
        [],
        "also measure on attacked texts: attacks with commas between, each by itself; all: the nine of the paper mixed",
        choices=[ALL_ATTACKS, *ATTACKS],
        separator=",",
    )
    ratio: float = option(0.15, "mean share of the characters that are attacked")
    seed: int = option(0, "seed of the attacks")
    limit: int | None = option(None, "texts to measure on, from the first on", unset="all")
    skip_malformed: bool = option(False, "leave out sentences whose tags break the scheme, instead of stopping")
    device: str | None = option(None, "device, such as cuda or cpu", unset="a GPU if there is one")

    def __post_init__(self):
        if not 0 < self.ratio <= 1:
            raise ValueError(f"ratio must be above 0 and at most 1, got {self.ratio}")
        if self.ratio != type(self).ratio and not self.attacks:
            raise ValueError(f"ratio needs attacks, got {self.ratio} without them")
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"limit must be at least 1, got {self.limit}")
        checked_device(self.device)


@dataclass(frozen=True)
class TaggedSet:
    """
    A test set, clean or attacked, and what the tagger found in it.

    Args:
        name: "clean", or of the attack.
        texts: with their gold entities.
        found: the tagger's, of each text.
        sources: what the texts were before the attack; empty for clean ones.
    """

    name: str
    texts: tuple[EntityText, ...]
    found: tuple[tuple[Entity, ...], ...]
    sources: tuple[AttackedText, ...] = field(default=())

    @property
    def gold(self) -> list[tuple[Entity, ...]]:
        return [text.entities for text in self.texts]

    def scores(self, type_: str | None = None) -> EntityScores:
        """Strict scores, of all types or of one."""
        return entity_scores(self.gold, self.found, type_)

    def errors(self) -> EntityErrors:
        """Errors by kind."""
        return entity_errors(self.gold, self.found)


def attacked_entities(text: EntityText, attacked: AttackedText) -> EntityText | None:
    """
    The attacked text with the gold entities where their characters now are, without characters of no width at their ends.

    Returns:
        None if nothing is left of the text or of one of its entities: there would be nothing to find.

    Raises:
        ValueError: `attacked` is of another text.
    """
    if attacked.source != text.text:
        raise ValueError(f"attacked must be of the text {text.text!r}, it is of {attacked.source!r}")
    spans = []
    for entity in text.entities:
        start, end = attacked.span_in_text(entity.start, entity.end)
        spans.append((start, start + len(attacked.text[start:end].rstrip(UNREAD)), entity.type))
    if not attacked.text.strip() or any(start == end for start, end, _ in spans):
        return None
    # an inserted accent belongs to the character before it, and so to that one's entity
    return EntityText(
        attacked.text, tuple(Entity(*span) for span in _whole_characters(attacked.text, spans)), text.where
    )


def _whole_characters(text: str, spans: Sequence[tuple[int, int, str]]) -> Iterable[tuple[int, int, str]]:
    for start, end, type_ in spans:
        while start > 0 and joins(text, start):
            start -= 1
        while joins(text, end):
            end += 1
        yield start, end, type_


def evaluate_tagger(
    tagger: EntityTagger,
    texts: EntityTexts,
    attacks: Sequence[str] = (),
    ratio: float = 0.15,
    seed: int = 0,
) -> list[TaggedSet]:
    """
    What the tagger finds in the texts, and in each attacked form of them.

    Args:
        tagger: to be measured.
        texts: with gold entities.
        attacks: names of attacks; "all" is the paper's mixture.
        ratio: mean share of the characters that are attacked (Eq. 1).
        seed: the same seed attacks in the same way.

    Returns:
        The clean set first, then one per attack.

    Raises:
        ValueError: a type of the texts is unknown to the tagger, or there is no such attack.
    """
    texts.check_types(tagger.types())
    synthesizers = {
        name: AdversarialSynthesizer({"ratio": ratio, **({} if name == ALL_ATTACKS else {"attacks": [name]})})
        for name in attacks
    }
    sets = [TaggedSet(CLEAN, texts.texts, tuple(tagger([text.text for text in texts.texts])))]
    for name, synthesizer in synthesizers.items():
        kept, sources = [], []
        for text in texts.texts:
            attacked = synthesizer.attack(text.text, seed)
            if (moved := attacked_entities(text, attacked)) is not None:
                kept.append(moved)
                sources.append(attacked)
        found = tagger([text.text for text in kept])
        sets.append(TaggedSet(name, tuple(kept), tuple(found), tuple(sources)))
    return sets


def run_tagger_evaluation(options: TaggerEvaluationOptions) -> dict[str, Any]:
    """
    Measure, and write report.html, predictions.jsonl and scores.json.

    Returns:
        What scores.json holds.

    Raises:
        ValueError, OSError: the tagger or the texts cannot be used.
    """
    texts = read_entities(options.test_file, split="test", skip_malformed=options.skip_malformed)
    texts = EntityTexts(texts.name, texts.texts[: options.limit], texts.scheme)
    tagger = EntityTagger.from_pretrained(options.model, options.device)
    make_folder(options.output_dir)
    sets = evaluate_tagger(tagger, texts, options.attacks, options.ratio, options.seed)
    scores = summary(sets)
    write_whole(options.output_dir / "report.html", report(sets, texts.name, options.model))
    write_whole(options.output_dir / "predictions.jsonl", "".join(predictions(sets)))
    write_json(options.output_dir / "scores.json", scores)
    for name, part in scores.items():
        print("{:12} precision {precision:.4f}  recall {recall:.4f}  F1 {f1:.4f}".format(name, **part["all"]))
    print(f"report in {options.output_dir / 'report.html'}")
    return scores


def summary(sets: Sequence[TaggedSet]) -> dict[str, Any]:
    """By set: scores of all types and of each, errors by kind, and the number of texts."""
    types = sorted({entity.type for part in sets for gold in part.gold for entity in gold})
    return {
        part.name: {
            "all": part.scores().to_dict(),
            "types": {type_: part.scores(type_).to_dict() for type_ in types},
            "errors": vars(part.errors()),
            "texts": len(part.texts),
        }
        for part in sets
    }


def predictions(sets: Sequence[TaggedSet]) -> Iterable[str]:
    """A JSON line per text: the set, the text, the gold entities and those that were found."""
    for part in sets:
        for text, found in zip(part.texts, part.found, strict=True):
            spans = [[entity._asdict() for entity in entities] for entities in (text.entities, found)]
            record = {"set": part.name, "text": text.text, "entities": spans[0], "found": spans[1]}
            yield json.dumps(record, ensure_ascii=False) + "\n"


# ---------------------------------------------------------------------------------------------- report

_STYLE = """
li { margin: .6em 0; overflow-wrap: anywhere; line-height: 2; }
.gold { border-bottom: 3px solid #2e7d32; } .wrong { background: #fbe3d6; }
.gold.wrong { background: #fff3c4; } .kind { display: block; font-size: .85em; color: #666; line-height: 1.5; }
sub { color: #777; font-size: .65em; }
"""


def report(sets: Sequence[TaggedSet], name: str, model: str, shown: int = 50) -> str:
    """
    One HTML page that needs nothing from elsewhere: scores by type and by attack, errors, confusion, wrong sentences.

    Args:
        sets: of `evaluate_tagger`.
        name: of the texts; model: of the tagger.
        shown: wrong sentences of the clean set, at most.
    """
    clean = sets[0]
    types = sorted({entity.type for gold in clean.gold for entity in gold})
    rows = [_score_row("all", clean.scores())] + [_score_row(type_, clean.scores(type_)) for type_ in types]
    head = ("type", "precision", "recall", "F1", "present", "found", "right")
    blocks = [
        f"<h1>Entities found in {html_text(name)}</h1>",
        f"<p>{html_text(model)}, {len(clean.texts):,} texts. An entity counts as found if its characters and its type are "
        "exactly right.</p>",
        "<h2>Scores by type</h2>",
        _table(head, rows),
        "<h2>Errors by kind</h2>",
        _table(("kind", "entities"), [(kind, str(count)) for kind, count in vars(clean.errors()).items()]),
        "<h2>Which type was taken for which</h2>",
        _confusion(type_confusion(clean.gold, clean.found)),
    ]
    if len(sets) > 1:
        attacked = [(*_score_row(part.name, part.scores())[:4], str(len(part.texts))) for part in sets]
        blocks += ["<h2>Clean and attacked</h2>", _table(("texts", "precision", "recall", "F1", "number"), attacked)]
    wrong = [(t, f) for t, f in zip(clean.texts, clean.found, strict=True) if set(t.entities) != set(f)]
    blocks += [
        f"<h2>Wrong sentences ({len(wrong):,} of {len(clean.texts):,})</h2>",
        "<p>Underlined: what should be found. Red: found wrongly. Yellow: missed, or found in part.</p>",
        "<ol>" + "".join(f"<li>{_sentence(text, found)}</li>" for text, found in wrong[:shown]) + "</ol>",
    ]
    return html_page(f"Entities found in {name}", "\n".join(blocks), _STYLE)


def _score_row(name: str, scores: EntityScores) -> tuple[str, ...]:
    shares = (f"{value:.4f}" for value in (scores.precision, scores.recall, scores.f1))
    return (name, *shares, str(scores.present), str(scores.found), str(scores.right))


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["<tr>" + "".join(f"<th>{html_text(cell)}</th>" for cell in head) + "</tr>"]
    for first, *others in rows:
        cells = "".join(f'<td class="number">{html_text(cell)}</td>' for cell in others)
        lines.append(f"<tr><td>{html_text(first)}</td>{cells}</tr>")
    return "<table>" + "".join(lines) + "</table>"


def _confusion(counts: dict[tuple[str, str], int]) -> str:
    rows, columns = (sorted({pair[side] for pair in counts}) for side in (0, 1))
    cells = [(row, *(str(counts.get((row, column), 0)) for column in columns)) for row in rows]
    return _table(("is / found as", *columns), cells)


def _sentence(text: EntityText, found: Sequence[Entity]) -> str:
    gold, wrong = set(text.entities), set(found) - set(text.entities)
    inside = [entity for entity in found if entity in wrong]
    marks = []
    for piece, entity in pieces_of(text.text, text.entities):
        if entity is None:
            marks.append(html_text(piece))
        else:
            missed = "" if entity in found else " wrong"
            marks.append(f'<span class="gold{missed}">{html_text(piece)}</span><sub>{html_text(entity.type)}</sub>')
    kinds = [
        f"{kind_of_error(a, b)}: {_said(text.text, a)} → {_said(text.text, b)}"
        for a, b in matched(gold, found)
        if a != b
    ]
    if inside:
        marks.append('<span class="kind">found: ')
        marks += [
            f'<span class="wrong">{html_text(piece)}</span><sub>{html_text(entity.type)}</sub> '
            for piece, entity in pieces_of(text.text, inside)
            if entity is not None
        ]
        marks.append("</span>")
    return "".join(marks) + f'<span class="kind">{html_text("; ".join(kinds))}</span>'


def _said(text: str, entity: Entity | None) -> str:
    return "nothing" if entity is None else f"{text[entity.start : entity.end]} ({entity.type})"

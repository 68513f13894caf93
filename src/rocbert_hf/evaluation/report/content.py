"""What a report says: sections of sentences, tables, charts and examples, whatever they are written as."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ...attackers import AttackerSpec
from ...attacks.attacked_text import AttackedText
from ...data.scores import SCORES
from ..summary import CLEAN

SHOWN_EXAMPLES = 4  # of a model and attacker
# If an attacker had nothing to try on a larger share of the texts, the report's first lines say so.
FEW_CANDIDATES = 0.1
SHOWN_LABELS = 10  # columns that a table has room for


@dataclass(frozen=True)
class Measured:
    """A number in a table, as text, with its interval."""

    value: str
    interval: str = ""
    best: bool = False


@dataclass
class Table:
    """The first columns name what a row is of."""

    header: list[str]
    rows: list[list[str | Measured]]
    note: str = ""


@dataclass(frozen=True)
class Shown:
    """An attacked text, and what the model said before and after."""

    verdict: str
    attacked: AttackedText


@dataclass
class Section:
    """A part of the report, under its heading."""

    title: str
    level: int = 2
    text: list[str] = field(default_factory=list)
    code: str = ""
    tables: list[Table] = field(default_factory=list)
    charts: list[tuple[str, str]] = field(default_factory=list)  # (file name, what it shows)
    examples: list[tuple[str, list[Shown]]] = field(default_factory=list)  # (whose, what)


@dataclass(frozen=True)
class Groups:
    """The attackers by name, in the parts of a report that they belong to.

    Args:
        main: as they are.
        by_ratio: what a chart by ratio is of -> (ratio, name), sorted.
        alone: attack -> name of ADV with this attack alone.
    """

    main: tuple[str, ...]
    by_ratio: Mapping[str, tuple[tuple[float, str], ...]]
    alone: Mapping[str, str]

    @classmethod
    def of(cls, report: Mapping[str, Any]) -> Groups:
        main, by_ratio, alone = [], {}, {}
        for name, fields in report["attackers"].items():
            spec = None if fields is None else AttackerSpec(**fields)
            if spec is not None and spec.ratio is not None:
                by_ratio.setdefault(str(replace(spec, ratio=None)), []).append((spec.ratio, name))
            elif spec is not None and spec.attack is not None and spec.draws == 1:
                alone[spec.attack] = name
            else:
                main.append(name)
        return cls(tuple(main), {base: tuple(sorted(found)) for base, found in by_ratio.items()}, alone)

    @property
    def headline(self) -> tuple[str, ...]:
        """Those that the first lines speak of: the main ones, and ratios of others; all if there is no main one."""
        with_ratio = [(base, name) for base, found in self.by_ratio.items() for _, name in found]
        if not self.main:
            return (*self.alone.values(), *(name for _, name in with_ratio))
        return (*self.main, *(name for base, name in with_ratio if base not in self.main))


def sections_of(report: Mapping[str, Any], records: Sequence[Mapping[str, Any]]) -> Iterable[Section]:
    """The report, section by section.

    Args:
        report: as `summary.summarise` makes it.
        records: the lines of `examples.jsonl`, for the examples.
    """
    groups = Groups.of(report)
    yield Section("How robust are these classifiers?", 1, text=opening_lines(report))
    for task, about in report["tasks"].items():
        yield Section(f"{task}: {about['examples']:,} texts, {len(about['labels'])} labels")
        yield from _of_task(report, groups, task)
        if shown := list(_examples(report, groups, [record for record in records if record["task"] == task])):
            yield Section("Examples", 3, examples=shown)
    yield Section("Settings", code=json.dumps(report["settings"], ensure_ascii=False, indent=1))


def _of_task(report: Mapping[str, Any], groups: Groups, task: str) -> Iterable[Section]:
    name = slug(task)
    if groups.main or not report["attackers"]:
        yield Section(
            "Accuracy",
            3,
            tables=[_accuracy_table(report, task, groups.main)],
            charts=[(f"accuracy-{name}.png", "accuracy by attacker, with 95% intervals")],
        )
    yield Section("All scores", 3, tables=[_scores_table(report, task, groups.headline)])
    if groups.headline:
        yield Section("What the attacks took", 3, tables=[_attacks_table(report, task, groups.headline)])
    if groups.alone:
        yield Section(
            "By attack: ADV with one attack alone",
            3,
            tables=[_accuracy_table(report, task, list(groups.alone.values()))],
            charts=[(f"attacks-{name}.png", "accuracy by attack")],
        )
    for base, found in groups.by_ratio.items():
        names = [name for _, name in found]
        yield Section(
            f"By share of the characters attacked: {base}",
            3,
            tables=[_accuracy_table(report, task, names), _shares_table(report, task, names)],
            charts=[(f"ratio-{name}-{slug(base)}.png", f"accuracy by ratio under {base}")],
        )
    if report["attackers"] and len(report["tasks"][task]["labels"]) <= SHOWN_LABELS:
        yield Section("Which labels hold", 3, tables=[_kept_table(report, task)])
    if groups.headline:
        yield Section("Which edits worked", 3, tables=[_edits_table(report, task, groups.headline)])
    if len(report["models"]) > 1:
        yield Section("Do the models differ?", 3, tables=[_significance_table(report, task)])


# -------------------------------------------------------------------------------------------------- the first lines


def opening_lines(report: Mapping[str, Any]) -> list[str]:
    """The result in sentences, after what would make it misread."""
    groups = Groups.of(report)
    return [*_warnings(report, groups), *_results(report, groups), *_differences(report, groups)]


def _warnings(report: Mapping[str, Any], groups: Groups) -> Iterable[str]:
    for task, of_models in report["clean"].items():
        for model, numbers in of_models.items():
            labels = report["tasks"][task]["labels"]
            given = [label for label, count in zip(labels, numbers["predictions"], strict=True) if count]
            if len(given) == 1 and report["tasks"][task]["examples"] > 1:
                yield (
                    f"Careful: {model} gives every text of {task} the label {given[0]}. If it does so whatever it reads, "
                    "no attack can change its answer, and what follows says nothing about its robustness."
                )
    for task, of_attackers in report["attacked"].items():
        variants = []
        for attacker, of_models in of_attackers.items():
            nothing = sum(numbers["without_candidates"] for numbers in of_models.values())
            attacked = sum(
                numbers["outcomes"][status] for numbers in of_models.values() for status in ("success", "failed")
            )
            if not attacked or nothing / attacked < FEW_CANDIDATES:
                continue
            if attacker not in groups.headline:
                variants.append(f"{attacker} ({nothing} of {attacked})")
                continue
            spec = report["attackers"][attacker]
            synonyms = spec is not None and spec["name"] == "textfooler"
            yield (
                f"Careful: {attacker} found nothing that it could change in {nothing} of {attacked} attacks on {task}, "
                "which count as failed"
                + ("; give it more synonyms (--synonyms) for an attack at full strength." if synonyms else ".")
            )
        if variants:
            yield (
                f"Careful: {', '.join(variants)} found nothing to change in so many of the attacks on {task}, which count as "
                "failed."
            )


def _results(report: Mapping[str, Any], groups: Groups) -> Iterable[str]:
    for task in report["tasks"]:
        for model in report["models"]:
            clean = report["clean"][task][model]["accuracy"]
            right = f"{model} is right on {_percent(clean['value'])}% of the texts of {task}"
            if not groups.headline:
                yield f"{right}; nothing was attacked."
                continue
            of_attackers = {name: report["attacked"][task][name][model] for name in groups.headline}
            worst = min(of_attackers, key=lambda name: of_attackers[name]["accuracy"]["value"])
            attacked = of_attackers[worst]
            rate = attacked["success_rate"]["value"]
            yield (
                f"{right}; under its worst attacker, {worst}, on {_percent(attacked['accuracy']['value'])}%"
                + (f" ({_percent(rate)}% of the attacks succeed)" if rate is not None else "")
                + _worse_variant(report["attacked"][task], model, worst, groups)
                + "."
            )


def _worse_variant(of_attackers: Mapping[str, Any], model: str, worst: str, groups: Groups) -> str:
    """Which attacker that the first lines do not speak of is worse than the worst of those, and how bad."""
    accuracy = {name: of_models[model]["accuracy"]["value"] for name, of_models in of_attackers.items()}
    variant = min((name for name in accuracy if name not in groups.headline), key=accuracy.get, default=worst)
    if accuracy[variant] >= accuracy[worst]:
        return ""
    return f", and under the variant {variant} on {_percent(accuracy[variant])}%"


def _differences(report: Mapping[str, Any], groups: Groups) -> Iterable[str]:
    for found in report["significance"]:
        if found["attacker"] in groups.headline and found["p_value"] < 0.05:
            first, second = found["models"]
            difference = found["accuracy_difference"]["value"]
            better, worse = (first, second) if difference > 0 else (second, first)
            yield (
                f"On {found['task']} under {found['attacker']} {better} is right more often than {worse}, "
                f"by {_percent(abs(difference))} points (p {_p_value(found['p_value'])})."
            )


# --------------------------------------------------------------------------------------------------------- tables


def _accuracy_table(report: Mapping[str, Any], task: str, attackers: Sequence[str]) -> Table:
    columns = {CLEAN: report["clean"][task], **{name: report["attacked"][task][name] for name in attackers}}
    best = {
        name: max(of_model["accuracy"]["value"] for of_model in column.values()) for name, column in columns.items()
    }
    rows: list[list[str | Measured]] = []
    for model in report["models"]:
        accuracies = {name: column[model]["accuracy"] for name, column in columns.items()}
        cells = [
            measured(accuracy, best=len(report["models"]) > 1 and accuracy["value"] == best[name])
            for name, accuracy in accuracies.items()
        ]
        rows.append([model, *cells])
    return Table(["accuracy, %", *columns], rows, "In brackets the 95% interval (bootstrap). Bold: best of its column.")


def _scores_table(report: Mapping[str, Any], task: str, attackers: Sequence[str]) -> Table:
    rows: list[list[str | Measured]] = []
    for name in (CLEAN, *attackers):
        of_models = report["clean"][task] if name == CLEAN else report["attacked"][task][name]
        for model, numbers in of_models.items():
            rows.append([name, model, *(measured(numbers[score]) for score in SCORES)])
    labels = report["tasks"][task]["labels"]
    what = f"of the label {labels[1]}" if len(labels) == 2 else "means over the labels (macro)"
    note = (
        f"F1, precision and recall, in %, are {what}. A text that was wrong before an attack counts as wrong after it."
    )
    return Table(["attacker", "model", *SCORES], rows, note)


def _attacks_table(report: Mapping[str, Any], task: str, attackers: Sequence[str]) -> Table:
    rows: list[list[str | Measured]] = []
    for name in attackers:
        for model, numbers in report["attacked"][task][name].items():
            outcomes = numbers["outcomes"]
            rows.append(
                [
                    name,
                    model,
                    measured(numbers["success_rate"]),
                    *(Measured(str(outcomes[status])) for status in ("success", "failed", "skipped")),
                    Measured(str(numbers["without_candidates"])),
                    Measured(_percent(numbers["perturbed_share"]["value"])),
                    Measured(_decimal(numbers["similarity"]["value"], 2)),
                    Measured(_decimal(numbers["queries"]["value"], 1)),
                ]
            )
    header = ["attacker", "model", "success rate, %", "succeeded", "failed", "skipped", "nothing to try"]
    note = (
        "Skipped: wrong before the attack. Success rate: of the others. Nothing to try: of the failed ones, those where "
        "the attacker had no change to make. Share of the characters attacked and similarity "
        f"(by {report['settings']['encoder']}): means of the successful attacks; queries: mean of all."
    )
    return Table([*header, "characters attacked, %", "similarity", "queries per text"], rows, note)


def _shares_table(report: Mapping[str, Any], task: str, attackers: Sequence[str]) -> Table:
    rows: list[list[str | Measured]] = [
        [model, *(measured(report["attacked"][task][name][model]["attempted_share"]) for name in attackers)]
        for model in report["models"]
    ]
    return Table(["characters attacked, %", *attackers], rows, "Mean of all attacks, also of those that failed.")


def _kept_table(report: Mapping[str, Any], task: str) -> Table:
    rows: list[list[str | Measured]] = [
        [attacker, model, *(Measured(_percent(share)) for share in numbers["kept"])]
        for attacker, of_models in report["attacked"][task].items()
        for model, numbers in of_models.items()
    ]
    note = (
        "Of the texts of each label that were right before the attack, the share that still is, in %. A model that gives "
        "one label to all that looks attacked keeps that label and loses the others."
    )
    return Table(["attacker", "model", *map(str, report["tasks"][task]["labels"])], rows, note)


def _edits_table(report: Mapping[str, Any], task: str, attackers: Sequence[str]) -> Table:
    rows: list[list[str | Measured]] = []
    for name in attackers:
        of_models = report["attacked"][task][name]
        texts = Counter()
        for numbers in of_models.values():
            texts.update({edit: counts["texts"] for edit, counts in numbers["edits"].items()})
        for edit, _ in texts.most_common():
            cells = []
            for model in report["models"]:
                counts = of_models[model]["edits"].get(edit, {"texts": 0, "successes": 0})
                share = f" ({_percent(counts['successes'] / counts['texts'])}%)" if counts["texts"] else ""
                cells.append(f"{counts['successes']} of {counts['texts']}{share}")
            rows.append([name, edit, *cells])
    note = "Of the attacked texts in which an edit of that kind occurs, perhaps beside others: how many flipped."
    return Table(["attacker", "edit", *report["models"]], rows, note)


def _significance_table(report: Mapping[str, Any], task: str) -> Table:
    rows: list[list[str | Measured]] = [
        [
            found["attacker"],
            " vs. ".join(found["models"]),
            Measured(f"{100 * found['accuracy_difference']['value']:+.1f}", _interval(found["accuracy_difference"])),
            Measured(str(found["only_first_right"])),
            Measured(str(found["only_second_right"])),
            Measured(_p_value(found["p_value"])),
        ]
        for found in report["significance"]
        if found["task"] == task
    ]
    note = (
        "Accuracy of the first less that of the second, in points, with the 95% interval of the paired bootstrap; p of "
        "McNemar's exact test, not corrected for the number of comparisons."
    )
    return Table(["attacker", "models", "difference", "only first right", "only second right", "p"], rows, note)


# ------------------------------------------------------------------------------------------------------- examples


def _examples(
    report: Mapping[str, Any], groups: Groups, records: Sequence[Mapping[str, Any]]
) -> Iterable[tuple[str, list[Shown]]]:
    """Of each attacker and model the first successful attacks."""
    for attacker in groups.headline:
        for model in report["models"]:
            found = [
                Shown(_verdict(record, report["tasks"][record["task"]]["labels"]), AttackedText.from_dict(record))
                for record in records
                if (record["attacker"], record["model"], record["status"]) == (attacker, model, "success")
            ]
            if found:
                yield f"{attacker} against {model}", found[:SHOWN_EXAMPLES]


def _verdict(record: Mapping[str, Any], labels: Sequence[str]) -> str:
    before, after = labels[record["prediction_before"]], labels[record["prediction"]]
    sure = max(record["probabilities_before"]), max(record["probabilities_after"])
    return f"{before} ({sure[0]:.0%}) → {after} ({sure[1]:.0%})"


# -------------------------------------------------------------------------------------------------------- numbers


def measured(estimate: Mapping[str, float | None], best: bool = False) -> Measured:
    """An estimate of a share, in percent."""
    return Measured(_percent(estimate["value"]), _interval(estimate), best)


def slug(name: str) -> str:
    """A name as part of the name of a file."""
    return re.sub(r"[^\w.-]+", "-", name)


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def _decimal(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _interval(estimate: Mapping[str, float | None]) -> str:
    return "" if estimate["low"] is None else f"[{_percent(estimate['low'])}, {_percent(estimate['high'])}]"


def _p_value(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"

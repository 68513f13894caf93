"""From the outcome of every example to the numbers of a report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import combinations
from typing import Any

import numpy as np

from ..attackers import AttackerSpec
from ..attacks.attacked_text import AttackedText
from .metrics import Bootstrap, Estimate, mcnemar
from .records import Cell

CLEAN = "clean"  # the column of a report that no attacker has


def perturbed_share(attacked: AttackedText) -> float:
    """Share of the source's characters that were attacked; an edit that only puts something in counts as one."""
    characters = sum(max(edit.source_span[1] - edit.source_span[0], 1) for edit in attacked.edits)
    return characters / len(attacked.source) if attacked.source else 0.0


def summarise(
    records: Sequence[Mapping[str, Any]],
    specs: Mapping[str, AttackerSpec | None],
    settings: Mapping[str, Any],
    bootstrap: Bootstrap,
) -> dict[str, Any]:
    """The report of an evaluation, for JSON.

    Args:
        records: a line of `examples.jsonl` each, all that the settings name.
        specs: the attackers by name, in their order; None for one that has no spec. Empty if nothing was attacked.
        settings: of the evaluator.
        bootstrap: makes the intervals.

    Returns:
        `tasks`, `models` and `attackers` in their order; `clean[task][model]` and `attacked[task][attacker][model]`
        with estimates (value, low, high) of the scores. Clean ones also have

        - `predictions`: how many texts got each label, in the order of the labels;

        and attacked ones

        - `success_rate`: of the texts that were right before, share that is wrong after the attack;
        - `kept`: of the texts of each label that were right before, share that still is, in the order of the labels; None
          for a label without such texts;
        - `perturbed_share`, `similarity`: of successful attacks, means;
        - `attempted_share`: share of the characters, mean of all attacks whether they succeeded or not;
        - `queries`: per text that was attacked, mean;
        - `outcomes`: how many succeeded, failed, and were skipped since they were wrong before;
        - `without_candidates`: of the failed ones, those where the attacker had nothing to try;
        - `edits`: by attack, in how many attacked texts it occurs, and how many of these attacks succeeded;

        `significance`: for every two models, on each task clean and under each attacker, the difference of their
        accuracies (paired bootstrap), on how many texts only one of them is right, and the p-value of McNemar's test.
    """
    cells = _by_cell(records)
    tasks, columns, models = (list(dict.fromkeys(names)) for names in zip(*cells, strict=True))
    report: dict[str, Any] = {
        "settings": settings,
        "tasks": {name: settings["tasks"][name] for name in tasks},
        "models": models,
        "attackers": {name: None if spec is None else asdict(spec) for name, spec in specs.items()},
        "clean": {},
        "attacked": {},
        "significance": [],
    }
    for task in tasks:
        labels = settings["tasks"][task]["labels"]
        # what a model says of a text before the attack is the same under every attacker
        clean = {model: cells[Cell(task, columns[0], model)] for model in models}
        report["clean"][task] = {
            model: _scores(rows, "prediction_before", len(labels), bootstrap)
            | {"predictions": _predictions(rows, len(labels))}
            for model, rows in clean.items()
        }
        report["attacked"][task] = {
            attacker: {
                model: _scores(cells[Cell(task, attacker, model)], "prediction", len(labels), bootstrap)
                | _attack_numbers(cells[Cell(task, attacker, model)], len(labels), bootstrap)
                for model in models
            }
            for attacker in specs
        }
        right = {CLEAN: {model: _right(rows, "prediction_before") for model, rows in clean.items()}}
        right |= {
            attacker: {model: _right(cells[Cell(task, attacker, model)], "prediction") for model in models}
            for attacker in specs
        }
        report["significance"] += [
            {"task": task, "attacker": attacker, "models": [one, other]}
            | _compare(of_models[one], of_models[other], bootstrap)
            for attacker, of_models in right.items()
            for one, other in combinations(models, 2)
        ]
    return report


def timing(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Seconds and queries of every cell; apart from the report, since no two runs take the same time."""
    return [
        {
            **cell._asdict(),
            "examples": len(rows),
            "seconds": round(sum(row["seconds"] for row in rows), 3),
            "queries": sum(row["queries"] for row in rows),
        }
        for cell, rows in _by_cell(records).items()
    ]


def _by_cell(records: Sequence[Mapping[str, Any]]) -> dict[Cell, list[Mapping[str, Any]]]:
    cells: dict[Cell, list[Mapping[str, Any]]] = {}
    for record in records:
        cells.setdefault(Cell.of(record), []).append(record)
    return cells


def _predictions(records: Sequence[Mapping], num_labels: int) -> list[int]:
    counts = Counter(record["prediction_before"] for record in records)
    return [counts[number] for number in range(num_labels)]


def _scores(records: Sequence[Mapping], column: str, num_labels: int, bootstrap: Bootstrap) -> dict[str, Any]:
    labels, predictions = [record["label"] for record in records], [record[column] for record in records]
    return _as_dicts(bootstrap.scores(labels, predictions, num_labels))


def _attack_numbers(records: Sequence[Mapping], num_labels: int, bootstrap: Bootstrap) -> dict[str, Any]:
    attacked = [record for record in records if record["status"] != "skipped"]
    succeeded = [record for record in attacked if record["status"] == "success"]
    estimates = {
        "success_rate": bootstrap.mean([record["status"] == "success" for record in attacked]),
        "perturbed_share": bootstrap.mean([record["perturbed"] for record in succeeded]),
        "attempted_share": bootstrap.mean([record["perturbed"] for record in attacked]),
        "similarity": bootstrap.mean([record["similarity"] for record in succeeded]),
        "queries": bootstrap.mean([record["queries"] for record in attacked]),
    }
    outcomes = Counter(record["status"] for record in records)
    return _as_dicts(estimates) | {
        # then only the text as it is was asked for
        "without_candidates": sum(record["status"] == "failed" and record["queries"] == 1 for record in attacked),
        "outcomes": {status: outcomes[status] for status in ("success", "failed", "skipped")},
        "kept": _kept(attacked, num_labels),
        "edits": _edits(attacked),
    }


def _kept(attacked: Sequence[Mapping], num_labels: int) -> list[float | None]:
    texts = Counter(record["label"] for record in attacked)
    failed = Counter(record["label"] for record in attacked if record["status"] == "failed")
    return [round(failed[label] / texts[label], 6) if texts[label] else None for label in range(num_labels)]


def _edits(attacked: Sequence[Mapping]) -> dict[str, dict[str, int]]:
    texts, successes = Counter(), Counter()
    for record in attacked:
        names = {name for edit in record["edits"] for name in edit["attacks"]}
        texts.update(names)
        if record["status"] == "success":
            successes.update(names)
    return {name: {"texts": count, "successes": successes[name]} for name, count in sorted(texts.items())}


def _right(records: Sequence[Mapping], column: str) -> np.ndarray:
    return np.array([record[column] == record["label"] for record in records])


def _compare(first: np.ndarray, second: np.ndarray, bootstrap: Bootstrap) -> dict[str, Any]:
    return {
        "accuracy_difference": bootstrap.mean(first.astype(float) - second).to_dict(),
        "only_first_right": int((first & ~second).sum()),
        "only_second_right": int((second & ~first).sum()),
        "p_value": round(mcnemar(first, second), 6),
    }


def _as_dicts(estimates: Mapping[str, Estimate]) -> dict[str, dict[str, float | None]]:
    return {name: estimate.to_dict() for name, estimate in estimates.items()}

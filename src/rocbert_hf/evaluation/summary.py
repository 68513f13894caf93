"""From the outcome of every example to the numbers of a report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from ..attacks.attacked_text import AttackedText
from .metrics import Bootstrap, Estimate, mcnemar

CLEAN = "clean"  # the column of a report that no attacker has


def perturbed_share(attacked: AttackedText) -> float:
    """Share of the source's characters that were attacked; an edit that only puts something in counts as one."""
    characters = sum(max(edit.source_span[1] - edit.source_span[0], 1) for edit in attacked.edits)
    return characters / len(attacked.source) if attacked.source else 0.0


def summarise(
    records: Sequence[Mapping[str, Any]], settings: Mapping[str, Any], bootstrap: Bootstrap
) -> dict[str, Any]:
    """The report of an evaluation, for JSON.

    Args:
        records: a line of `examples.jsonl` each, all that the settings name.
        settings: of the evaluator.
        bootstrap: makes the intervals.

    Returns:
        `tasks`, `models` and `attackers` in their order; `clean[task][model]` and `attacked[task][attacker][model]`
        with estimates (value, low, high) of the scores, and of attacks also of

        - `success_rate`: of the texts that were right before, share that is wrong after the attack;
        - `perturbed_share`, `similarity`: of successful attacks, means;
        - `queries`: a text that was attacked, mean;
        - `outcomes`: how many succeeded, failed, and were skipped since they were wrong before;
        - `edits`: by attack, in how many attacked texts it occurs, and how many of these attacks succeeded;

        `significance`: for every two models, on each task clean and under each attacker, the difference of their
        accuracies (paired bootstrap), on how many texts only one of them is right, and the p-value of McNemar's test.
    """
    cells: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for record in records:
        cells.setdefault((record["task"], record["attacker"], record["model"]), []).append(record)
    tasks, attackers, models = (list(dict.fromkeys(names)) for names in zip(*cells, strict=True))
    report: dict[str, Any] = {
        "settings": settings,
        "tasks": {name: settings["tasks"][name] for name in tasks},
        "models": models,
        "attackers": attackers,
        "clean": {},
        "attacked": {},
        "significance": [],
    }
    for task in tasks:
        num_labels = len(settings["tasks"][task]["labels"])
        first = attackers[0]
        report["clean"][task] = {
            model: _scores(cells[task, first, model], "prediction_before", num_labels, bootstrap) for model in models
        }
        report["attacked"][task] = {
            attacker: {
                model: _scores(cells[task, attacker, model], "prediction", num_labels, bootstrap)
                | _attack_numbers(cells[task, attacker, model], bootstrap)
                for model in models
            }
            for attacker in attackers
        }
        for attacker, column in [(first, "prediction_before"), *((name, "prediction") for name in attackers)]:
            right = {model: _right(cells[task, attacker, model], column) for model in models}
            name = CLEAN if column == "prediction_before" else attacker
            report["significance"] += [
                {"task": task, "attacker": name, "models": [one, other]} | _compare(right[one], right[other], bootstrap)
                for one, other in combinations(models, 2)
            ]
    return report


def timing(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Seconds and queries of every cell; apart from the report, since no two runs take the same time."""
    cells: dict[tuple[str, str, str], list[float]] = {}
    for record in records:
        total = cells.setdefault((record["task"], record["attacker"], record["model"]), [0.0, 0, 0])
        for position, value in enumerate((record["seconds"], record["queries"], 1)):
            total[position] += value
    return [
        {
            "task": task,
            "attacker": attacker,
            "model": model,
            "examples": examples,
            "seconds": round(seconds, 3),
            "queries": queries,
        }
        for (task, attacker, model), (seconds, queries, examples) in cells.items()
    ]


def _scores(records: Sequence[Mapping], column: str, num_labels: int, bootstrap: Bootstrap) -> dict[str, Any]:
    labels, predictions = [record["label"] for record in records], [record[column] for record in records]
    return _as_dicts(bootstrap.scores(labels, predictions, num_labels))


def _attack_numbers(records: Sequence[Mapping], bootstrap: Bootstrap) -> dict[str, Any]:
    attacked = [record for record in records if record["status"] != "skipped"]
    succeeded = [record for record in attacked if record["status"] == "success"]
    estimates = {
        "success_rate": bootstrap.mean([record["status"] == "success" for record in attacked]),
        "perturbed_share": bootstrap.mean([record["perturbed"] for record in succeeded]),
        "similarity": bootstrap.mean([record["similarity"] for record in succeeded]),
        "queries": bootstrap.mean([record["queries"] for record in attacked]),
    }
    outcomes = Counter(record["status"] for record in records)
    return _as_dicts(estimates) | {
        "outcomes": {status: outcomes[status] for status in ("success", "failed", "skipped")},
        "edits": _edits(attacked),
    }


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

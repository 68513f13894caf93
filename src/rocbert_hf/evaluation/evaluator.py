"""How right classifiers stay under attack: every model against every attacker on every task, example by example."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..attackers import AttackerSpec
from ..attackers.constraints import Encoder, character_bags
from ..attackers.driver import Attacker, AttackOutcome, Example
from ..attackers.given import NoAttack
from ..attackers.spec import settings_of
from ..attackers.victim import Classifier
from ..data.labelled import LabelledTexts
from ..files import make_folder, read_json, write_json
from .metrics import Bootstrap
from .named_classifier import NamedClassifier
from .preparation import PreparedTask, digest, prepare, victim_of
from .records import Cell, JsonLines
from .report import write_report
from .sentence_similarity import similarity
from .summary import CLEAN, perturbed_share, summarise

LONG_TEXTS = ("error", "cut")
VERSION = 5  # of what a line means, and of how texts are attacked; another one is not mixed in


class RobustnessEvaluator:
    """Attack classifiers, and report how right they are before and after.

    Every outcome is a line of `examples.jsonl` in the output folder, written as soon as it is known. An evaluation that
    was stopped, however it was, goes on with the next missing line when it is run again, and ends with the same report.
    Models, attackers and tasks may be added to a folder; anything else that differs from what is there is an error.

    Args:
        models: name -> a classifier: a folder or Hub id of a transformers sequence classifier, a text-classification
            pipeline, a `ModelClassifier`, or anything callable on a list of strings (of pairs of strings, for a task of
            pairs) that gives probabilities. Where a classifier fits one task alone, name -> {task: classifier}.
            Classifiers that name their labels are matched by these names; the others give them in the same order.
        attackers: `AttackerSpec`s; or name, or `AttackerSpec`, -> an `Attacker`. Without any the models are only asked
            about the texts as they are.
        tasks: name -> labelled texts, or examples whose labels are the classifiers' numbers.
        output_dir: the folder for `examples.jsonl`, `settings.json`, `report.json`, `report.md`, `report.html`, the
            charts, and `timing.json` (apart from the report, which is the same however long it took).
        seed: of attacks and intervals.
        batch_size: texts of one call of a classifier, at most.
        num_workers: calls of a classifier at the same time, each in a thread of its own: for an endpoint that is waited
            for. The outcomes do not depend on it.
        encoder: texts -> vectors, for the similarity of attacked texts to their sources, such as
            `SentenceTransformer.encode` or a `MeanPooledEncoder`. The default, `character_bags`, works offline and
            compares what is written, not what is meant: a homophone counts as a change of its character.
        long_texts: what to do with texts of more tokens than a model reads: "error", or "cut" them to what the model
            with the shortest reach reads, so that nothing is attacked that a model does not see. Needs a model whose
            tokenizer is known.
        resamples: of the bootstrap.
        progress: show a progress bar.

    Raises:
        ValueError: something does not fit; nothing was attacked then. OSError: the output folder cannot be made.

    Example::

        >>> evaluator = RobustnessEvaluator({"mine": "my-classifier"}, [AttackerSpec("adv")], {"reviews": rows}, "report")
        >>> evaluator.run()["attacked"]["reviews"]["adv"]["mine"]["accuracy"]["value"]
    """

    def __init__(
        self,
        models: Mapping[str, Any],
        attackers: Sequence[AttackerSpec] | Mapping[AttackerSpec | str, Attacker],
        tasks: Mapping[str, LabelledTexts | Sequence[Example]],
        output_dir: str | os.PathLike,
        seed: int = 0,
        batch_size: int = 64,
        num_workers: int = 1,
        encoder: Encoder | None = None,
        long_texts: str = "error",
        resamples: int = 1000,
        progress: bool = True,
    ):
        if long_texts not in LONG_TEXTS:
            raise ValueError(f"long_texts must be one of {', '.join(LONG_TEXTS)}, got {long_texts!r}")
        for argument, number in (("batch_size", batch_size), ("num_workers", num_workers)):
            if number < 1:
                raise ValueError(f"{argument} must be at least 1, got {number}")
        for argument, given in (("models", models), ("tasks", tasks)):
            if not given:
                raise ValueError(f"{argument} must not be empty")
        self.bootstrap = Bootstrap(seed, resamples)
        if not isinstance(attackers, Mapping):
            for spec in attackers:
                if not isinstance(spec, AttackerSpec):
                    raise ValueError(f"attackers must be AttackerSpecs, or attackers by name in a dict, got {spec!r}")
            attackers = {spec: spec.build() for spec in attackers}
        self.specs = {str(key): key if isinstance(key, AttackerSpec) else None for key in attackers}
        if CLEAN in self.specs:
            raise ValueError(f"attackers must not be called {CLEAN!r}, as the texts without an attack are")
        self.attackers: dict[str, Attacker] = {str(key): attacker for key, attacker in attackers.items()}
        self.encoder = character_bags if encoder is None else encoder
        self.seed = seed
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.long_texts = long_texts
        self.progress = progress
        self.tasks: dict[str, PreparedTask] = {}
        loaded: dict[str, Classifier] = {}
        for task, rows in tasks.items():
            victims = {name: victim_of(name, model, task, loaded) for name, model in models.items()}
            self.tasks[task] = prepare(task, rows, victims, long_texts)
        self.output_dir = Path(output_dir)
        self.settings = self._settings()

    def run(self) -> dict[str, Any]:
        """Attack what has not been attacked yet, write the reports and return what `report.json` holds.

        Raises:
            ValueError: the folder holds results of other settings, or a classifier's answers cannot be used. The
                outcomes before that are kept.
            OSError: another process is evaluating into the same folder.
        """
        make_folder(self.output_dir)
        with JsonLines(self.output_dir / "examples.jsonl") as lines:
            settings = _settings_joined(self.output_dir / "settings.json", self.settings)
            done = self._done(lines)
            _remove_unfinished(self.output_dir)
            write_json(self.output_dir / "settings.json", settings)
            for cell in self._cells():
                self._attack(cell, done, lines)
            records = [
                done[cell, index] for cell in self._cells() for index in range(len(self.tasks[cell.task].examples))
            ]
            report = summarise(records, self.specs, self.settings, self.bootstrap)
            write_report(report, records, self.output_dir)
        return report

    def _cells(self) -> Iterator[Cell]:
        for task, prepared in self.tasks.items():
            for attacker in self.attackers or (CLEAN,):
                for model in prepared.victims:
                    yield Cell(task, attacker, model)

    def _attack(self, cell: Cell, done: dict[tuple[Cell, int], dict], lines: JsonLines) -> None:
        """Attack the examples of a cell that are not done, and keep each outcome as soon as it is known."""
        prepared = self.tasks[cell.task]
        total = len(prepared.examples)
        left = [i for i in range(total) if (cell, i) not in done]
        if not left:
            return
        outcomes = self.attackers.get(cell.attacker, NoAttack()).attack_batch(
            prepared.victims[cell.model],
            [prepared.examples[i] for i in left],
            self.seed,
            self.batch_size,
            num_workers=self.num_workers,
        )
        if self.progress:
            from tqdm.auto import tqdm

            what = f"{cell.task}: {cell.attacker} against {cell.model}"
            outcomes = tqdm(outcomes, total=total, initial=total - len(left), unit="example", desc=what)
        settings, attacked = self._digest_of(cell), 0
        try:
            for index, outcome in zip(left, outcomes, strict=True):
                record = {**cell._asdict(), "index": index, "cell": settings, **_record(outcome, self.encoder)}
                lines.append(record)
                done[cell, index] = record
                attacked += 1
        except ValueError as error:
            raise ValueError(
                f"{cell.model} under {cell.attacker} on {cell.task}, after {total - len(left) + attacked} of {total} "
                f"examples: {error} (the outcomes so far are kept in {lines.file})"
            ) from error

    def _done(self, lines: JsonLines) -> dict[tuple[Cell, int], dict]:
        """The records that are there, by cell and number of the example."""
        digests = {cell: self._digest_of(cell) for cell in self._cells()}
        done = {}
        for number, record in lines.read():
            cell = Cell.of(record)
            if cell in digests and record.get("cell") != digests[cell]:
                raise ValueError(
                    f"{lines.file} line {number} was measured with other settings than these ({', '.join(cell)}): "
                    "give another output folder"
                )
            done[cell, record.get("index")] = record
        return done

    def _settings(self) -> dict[str, Any]:
        return {
            "version": VERSION,
            "seed": self.seed,
            "long_texts": self.long_texts,
            "encoder": getattr(self.encoder, "name", getattr(self.encoder, "__name__", type(self.encoder).__name__)),
            "resamples": self.bootstrap.resamples,
            "attackers": {name: settings_of(attacker) for name, attacker in self.attackers.items()},
            "tasks": {name: task.describe() for name, task in self.tasks.items()},
            "models": {
                f"{model} on {name}": _identity(victim)
                for name, task in self.tasks.items()
                for model, victim in task.victims.items()
            },
        }

    def _digest_of(self, cell: Cell) -> str:
        """A hash of all that the outcomes of a cell depend on."""
        settings = _that_decide(self.settings)
        depends = [settings[name] for name in ("version", "seed", "long_texts")]
        depends += [getattr(self.encoder, "fingerprint", settings["encoder"])]
        depends += [settings["attackers"].get(cell.attacker), settings["tasks"][cell.task]]
        depends += [settings["models"][f"{cell.model} on {cell.task}"]]
        return digest(json.dumps(depends, sort_keys=True))


# ----------------------------------------------------------------------------------------------- records and settings


def _record(outcome: AttackOutcome, encoder: Encoder) -> dict[str, Any]:
    attacked = outcome.attacked
    changed = attacked.text != attacked.source
    return {
        "status": outcome.status,
        "label": outcome.label,
        "prediction_before": int(np.argmax(outcome.probabilities_before)),
        "prediction": outcome.prediction,
        "probabilities_before": [round(value, 6) for value in outcome.probabilities_before],
        "probabilities_after": [round(value, 6) for value in outcome.probabilities_after],
        "queries": outcome.queries,
        "perturbed": round(perturbed_share(attacked), 6),
        "similarity": round(similarity(encoder, attacked), 6) if changed else 1.0,
        "seconds": round(outcome.seconds, 4),
        **attacked.to_dict(),
    }


def _settings_joined(file: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """The settings together with those of earlier runs in the same folder, which must agree with them."""
    if not file.is_file():
        return settings
    try:
        earlier = read_json(file)
        joined = {
            name: {**earlier[name], **value} if isinstance(value, dict) else value for name, value in settings.items()
        }
        earlier, settings = _that_decide(earlier), _that_decide(settings)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{file} is not what an evaluation writes: {error!r}; give another output folder") from error
    for name, value in settings.items():
        both = (
            {key: (earlier[name][key], value[key]) for key in value if key in earlier[name]}
            if isinstance(value, dict)
            else {"": (earlier[name], value)}
        )
        for key, (before, now) in both.items():
            if before != now:
                what = f"{name} {key}".strip()
                raise ValueError(
                    f"{file.parent} holds results of other settings: {what} was {_short(before)} and is {_short(now)}; "
                    "give another output folder"
                )
    return joined


def _remove_unfinished(folder: Path) -> None:
    """Remove the temporary files of a run that was killed while it wrote its report."""
    for file in folder.iterdir():
        if _UNFINISHED.fullmatch(file.name):
            file.unlink()


# what `files.written_whole` calls a file of this folder until it is whole
_UNFINISHED = re.compile(
    r"\.?((report|settings|timing)\.(json|md|html)|(accuracy|attacks|ratio)-.*\.png)\.[a-z0-9_]{8}"
)


def _identity(victim: NamedClassifier) -> str | None:
    """What tells a victim, with its order of labels, from another one of the same name."""
    if victim.order is None:
        return victim.fingerprint
    return f"{victim.fingerprint} with the labels {', '.join(map(str, victim.order))}"


def _that_decide(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings without the names of labels: a model that is added may know better ones."""
    tasks = {name: {**task, "labels": len(task["labels"])} for name, task in settings["tasks"].items()}
    return {**settings, "tasks": tasks}


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 200 else text[:200] + " ..."

"""How right classifiers stay under attack: every model against every attacker on every task, example by example."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np

from ..attackers import AttackerSpec, ModelClassifier
from ..attackers.constraints import Encoder, character_bags
from ..attackers.driver import Attacker, AttackOutcome, Example
from ..attackers.spec import settings_of
from ..attackers.victim import Classifier, Query, as_victim, device_for, fingerprint_of, model_fingerprint
from ..attacks import AttackedText
from ..checkpoints import loading
from ..data.tasks import LabelledTexts
from ..files import write_whole
from .metrics import Bootstrap
from .named_classifier import NamedClassifier, label_names_of
from .records import JsonLines
from .report import write_report
from .summary import perturbed_share, summarise

LONG_TEXTS = ("error", "cut")
VERSION = 3  # of what a line means; another one is not mixed in


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
        attackers: `AttackerSpec`s, or name -> an `Attacker`.
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
        attackers: Sequence[AttackerSpec] | Mapping[str, Attacker],
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
        for argument, given in (("models", models), ("attackers", attackers), ("tasks", tasks)):
            if not given:
                raise ValueError(f"{argument} must not be empty")
        self.bootstrap = Bootstrap(seed, resamples)
        self.attackers = (
            dict(attackers) if isinstance(attackers, Mapping) else {str(spec): spec.build() for spec in attackers}
        )
        self.encoder = character_bags if encoder is None else encoder
        self.seed = seed
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.long_texts = long_texts
        self.progress = progress
        self.tasks: dict[str, _PreparedTask] = {}
        loaded: dict[str, Classifier] = {}
        for task, rows in tasks.items():
            victims = {name: _victim(name, model, task, loaded) for name, model in models.items()}
            self.tasks[task] = _prepare(task, rows, victims, long_texts)
        self.output_dir = Path(output_dir)
        self.settings = self._settings()

    def run(self) -> dict[str, Any]:
        """Attack what has not been attacked yet, write the reports and return what `report.json` holds.

        Raises:
            ValueError: the folder holds results of other settings, or a classifier's answers cannot be used. The
                outcomes before that are kept.
            OSError: another process is evaluating into the same folder.
        """
        self.output_dir.mkdir(parents=True, exist_ok=True)
        settings = _settings_joined(self.output_dir / "settings.json", self.settings)
        with JsonLines(self.output_dir / "examples.jsonl") as lines:
            done = self._done(lines)
            write_whole(self.output_dir / "settings.json", json.dumps(settings, ensure_ascii=False, indent=1))
            for task, attacker, model in self._cells():
                self._attack(task, attacker, model, done, lines)
        records = [
            done[task, attacker, model, index]
            for task, attacker, model in self._cells()
            for index in range(len(self.tasks[task].examples))
        ]
        report = summarise(records, self.settings, self.bootstrap)
        write_report(report, records, self.output_dir)
        return report

    def _cells(self) -> Iterator[tuple[str, str, str]]:
        for task, prepared in self.tasks.items():
            for attacker in self.attackers:
                for model in prepared.victims:
                    yield task, attacker, model

    def _attack(self, task: str, attacker: str, model: str, done: dict[tuple, dict], lines: JsonLines) -> None:
        prepared = self.tasks[task]
        left = [i for i in range(len(prepared.examples)) if (task, attacker, model, i) not in done]
        if not left:
            return
        cell = self._cell(task, attacker, model)
        outcomes = self.attackers[attacker].attack_batch(
            prepared.victims[model],
            [prepared.examples[i] for i in left],
            self.seed,
            self.batch_size,
            num_workers=self.num_workers,
        )
        if self.progress:
            from tqdm.auto import tqdm

            outcomes = tqdm(
                outcomes,
                total=len(prepared.examples),
                initial=len(prepared.examples) - len(left),
                unit="example",
                desc=f"{task}: {attacker} against {model}",
            )
        attacked = 0
        try:
            for index, outcome in zip(left, outcomes, strict=True):
                record = {"task": task, "attacker": attacker, "model": model, "index": index, "cell": cell}
                record |= _record(outcome, self.encoder)
                lines.append(record)
                done[task, attacker, model, index] = record
                attacked += 1
        except ValueError as error:
            at = len(prepared.examples) - len(left) + attacked
            raise ValueError(
                f"{model} under {attacker} on {task}, after {at} of {len(prepared.examples)} examples: {error} "
                f"(the outcomes so far are kept in {lines.file})"
            ) from error

    def _done(self, lines: JsonLines) -> dict[tuple, dict]:
        """The records that are there, by (task, attacker, model, index)."""
        cells = {names: self._cell(*names) for names in self._cells()}
        done = {}
        for number, record in lines.read():
            names = record.get("task"), record.get("attacker"), record.get("model")
            if names in cells and record.get("cell") != cells[names]:
                raise ValueError(
                    f"{lines.file} line {number} was measured with other settings than these ({', '.join(names)}): "
                    "give another output folder"
                )
            done[(*names, record.get("index"))] = record
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

    def _cell(self, task: str, attacker: str, model: str) -> str:
        """A hash of all that the outcomes of one model under one attacker on one task depend on."""
        settings = _that_decide(self.settings)
        depends = [settings[name] for name in ("version", "seed", "long_texts")]
        depends += [getattr(self.encoder, "fingerprint", settings["encoder"])]
        depends += [settings["attackers"][attacker], settings["tasks"][task], settings["models"][f"{model} on {task}"]]
        return _digest(json.dumps(depends, sort_keys=True))


class MeanPooledEncoder:
    """Texts as the mean of a transformers encoder's last hidden states, for `RobustnessEvaluator(encoder=...)`.

    Args:
        model: folder or Hub id of an encoder.
        device: where to compute; by default a GPU, if there is one.
        max_length: tokens a text is cut at; by default what the model allows.
    """

    def __init__(self, model: str | os.PathLike, device: str | None = None, max_length: int | None = None):
        from transformers import AutoModel, AutoTokenizer

        self.name = str(model)
        self.tokenizer = AutoTokenizer.from_pretrained(model)
        self.model, found = AutoModel.from_pretrained(model, output_loading_info=True)
        self.model.to(device_for(device)).eval()
        self._made_up = frozenset(found["missing_keys"])  # such as the pooler, which the mean does not ask
        limits = (max_length, getattr(self.model.config, "max_position_embeddings", None))
        self.max_length = min(limit for limit in (*limits, self.tokenizer.model_max_length) if limit)

    @property
    def fingerprint(self) -> str:
        """A hash of the model, its tokenizer and its reach."""
        return model_fingerprint(self.model, self.tokenizer, self.max_length, leave_out=self._made_up)

    def __call__(self, texts: list[str]) -> np.ndarray:
        """float32 (texts, hidden)."""
        import torch

        inputs = self.tokenizer(texts, padding=True, truncation=True, max_length=self.max_length, return_tensors="pt")
        inputs = inputs.to(self.model.device)
        with torch.inference_mode():
            hidden = self.model(**inputs).last_hidden_state.float()
        mask = inputs["attention_mask"][..., None]
        return ((hidden * mask).sum(1) / mask.sum(1)).cpu().numpy()


# ------------------------------------------------------------------------------------------------- victims and tasks


@dataclass(frozen=True)
class _PreparedTask:
    examples: tuple[Example, ...]
    labels: tuple[str, ...]
    victims: dict[str, NamedClassifier]

    def describe(self) -> dict[str, Any]:
        rows = [[example.text, example.text_pair, example.label] for example in self.examples]
        return {"examples": len(rows), "labels": list(self.labels), "digest": _digest(json.dumps(rows))}


def _victim(name: str, model: Any, task: str, loaded: dict[str, Classifier]) -> NamedClassifier:
    if isinstance(model, Mapping):
        if task not in model:
            raise ValueError(f"models: {name} has no classifier for the task {task!r}, only for {', '.join(model)}")
        model = model[task]
    if isinstance(model, (str, os.PathLike)):
        # one that several tasks use is loaded once
        if str(model) not in loaded:
            with loading("models: " + name, model):
                loaded[str(model)] = ModelClassifier(model)
        model = loaded[str(model)]
    if not callable(model):
        raise ValueError(f"models: {name} must be a folder, a Hub id or callable, got {type(model).__name__}")
    try:
        model = as_victim(model)
    except ValueError as error:
        raise ValueError(f"models: {name}: {error}") from error
    return NamedClassifier(name, model, label_names_of(model), fingerprint_of(model))


def _prepare(
    task: str, rows: LabelledTexts | Sequence[Example], victims: dict[str, NamedClassifier], long_texts: str
) -> _PreparedTask:
    """The task's examples in numbers, and its victims with their answers in one order of labels."""
    if not len(rows):
        raise ValueError(f"tasks: {task} must have at least one example")
    if isinstance(rows, LabelledTexts):
        query = rows.texts[0] if rows.pairs is None else (rows.texts[0], rows.pairs[0])
    else:
        rows = _checked_texts(task, rows)
        query = rows[0].text if rows[0].text_pair is None else (rows[0].text, rows[0].text_pair)
    sizes = {name: _number_of_labels(victim, query) for name, victim in victims.items()}
    names = _names_of_labels(task, rows, victims, min(sizes.values()))
    for name, size in sizes.items():
        if victims[name].labels is None and size != len(names):
            raise ValueError(f"models: {name} gives {size} probabilities a text, but {task} has {len(names)} labels")
    victims = {name: _in_order(victim, names) for name, victim in victims.items()}
    if isinstance(rows, LabelledTexts):
        pairs = rows.pairs or [None] * len(rows)
        examples = [Example(*row) for row in zip(rows.texts, rows.label_ids(names), pairs, strict=True)]
    else:
        examples = _checked_labels(task, rows, len(names))
    for victim in victims.values():
        examples = _within_reach(task, examples, victim, long_texts)
    return _PreparedTask(tuple(examples), tuple(names), victims)


def _checked_texts(task: str, examples: Sequence[Example]) -> list[Example]:
    """The examples, all single texts or all pairs."""
    paired = examples[0].text_pair is not None
    for number, example in enumerate(examples):
        texts = [example.text] if example.text_pair is None else [example.text, example.text_pair]
        if not all(isinstance(text, str) for text in texts):
            raise ValueError(f"tasks: texts must be strings, got {texts!r} in example {number} of {task}")
        if (example.text_pair is not None) != paired:
            raise ValueError(
                f"tasks: the examples of {task} must all have a text_pair or none of them, but examples 0 and "
                f"{number} differ in that"
            )
    return list(examples)


def _checked_labels(task: str, examples: Sequence[Example], num_labels: int) -> list[Example]:
    """The examples with their labels as Python's integers, which JSON can hold."""
    for number, example in enumerate(examples):
        if not isinstance(example.label, Integral) or not 0 <= example.label < num_labels:
            raise ValueError(
                f"tasks: labels of {task} must be numbers from 0 to {num_labels - 1}, got {example.label!r} in "
                f"example {number}"
            )
    return [replace(example, label=int(example.label)) for example in examples]


def _number_of_labels(victim: NamedClassifier, query: Query) -> int:
    """How many probabilities a victim gives, which must be as many as it has labels, where it says what these are."""
    size = victim([query]).shape[1]
    if victim.labels is not None and size != len(victim.labels):
        raise ValueError(
            f"models: {victim.name} gives {size} probabilities a text, but its config has {len(victim.labels)} labels "
            f"({', '.join(victim.labels)})"
        )
    return size


def _names_of_labels(
    task: str, rows: LabelledTexts | Sequence[Example], victims: Mapping[str, NamedClassifier], size: int
) -> tuple[str, ...]:
    """What the labels of a task are called, in the order of their numbers, whatever the order of the victims.

    Args:
        task: its name.
        rows: of the task.
        victims: by name. Where one of them has names for its labels, these hold.
        size: how many labels there are, where no victim says.
    """
    known = [victim.labels for victim in victims.values() if victim.labels is not None]
    named = [labels for labels in known if labels != _numbers(len(labels))]
    if named:
        return named[0]
    size = len(known[0]) if known else size
    if not isinstance(rows, LabelledTexts):
        return _numbers(size)
    names = rows.label_names()
    if len(names) == size and (rows.numbered or not known):
        return names
    if known or ("0" in names and all(name.isdecimal() for name in names)):
        return _numbers(size)
    raise ValueError(
        f"models give {size} probabilities a text, but {task} has {len(names)} labels ({', '.join(names)}), and nothing "
        "says which is which: give classifiers that name their labels, or labels from 0 up"
    )


def _numbers(size: int) -> tuple[str, ...]:
    return tuple(map(str, range(size)))


def _in_order(victim: NamedClassifier, names: Sequence[str]) -> NamedClassifier:
    """The victim with its answers in the order of these labels; labels without names are in that order already."""
    if victim.labels in (None, tuple(names)):
        return victim
    if sorted(victim.labels) == sorted(names):
        return replace(victim, order=tuple(victim.labels.index(name) for name in names))
    if victim.labels == _numbers(len(names)):
        return victim
    raise ValueError(
        f"models must have the same labels, but {victim.name} has {', '.join(victim.labels)} "
        f"where another has {', '.join(names)}"
    )


def _within_reach(task: str, examples: list[Example], victim: NamedClassifier, long_texts: str) -> list[Example]:
    """The examples, none longer than the model reads."""
    tokenizer = getattr(victim.classifier, "tokenizer", None)
    reach = getattr(victim.classifier, "max_length", None)
    if tokenizer is None or reach is None:
        return examples
    paired = examples[0].text_pair is not None
    columns = [[example.text for example in examples]]
    if paired:
        columns.append([example.text_pair for example in examples])
    lengths = [len(ids) for ids in tokenizer(*columns, truncation=False, verbose=False)["input_ids"]]
    long = [i for i, length in enumerate(lengths) if length > reach]
    if not long:
        return examples
    if long_texts == "error":
        raise ValueError(
            f"{len(long)} of the {len(examples)} texts of {task} are longer than the {reach} tokens that {victim.name} "
            f"reads, the longest has {max(lengths)}: long_texts='cut' (--cut) cuts them to what is read"
        )
    examples = list(examples)
    for i in long:
        examples[i] = _cut(examples[i], tokenizer, reach)
    return examples


def _cut(example: Example, tokenizer: Any, reach: int) -> Example:
    """The example as far as a model reads it; of a pair the longer text is cut first, as tokenizers do."""
    pair = () if example.text_pair is None else ([example.text_pair],)
    encoded = tokenizer([example.text], *pair, truncation=True, max_length=reach, return_offsets_mapping=True)
    sequences = encoded.sequence_ids(0)
    ends = [0, 0]
    for sequence, (_, end) in zip(sequences, encoded["offset_mapping"][0], strict=True):
        if sequence is not None:
            ends[sequence] = max(ends[sequence], int(end))
    text_pair = None if example.text_pair is None else example.text_pair[: ends[1]]
    return replace(example, text=example.text[: ends[0]], text_pair=text_pair)


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


def similarity(encoder: Callable[[list[str]], Any], attacked: AttackedText) -> float:
    """Cosine between an attacked text and its source, by an encoder; 0 where either has no direction."""
    vectors = np.asarray(encoder([attacked.source, attacked.text]), dtype=np.float64)
    if vectors.ndim != 2 or len(vectors) != 2:
        raise ValueError(f"encoder must return one vector for each of the 2 texts, got shape {vectors.shape}")
    norms = np.linalg.norm(vectors, axis=1).prod()
    return float(vectors[0] @ vectors[1] / norms) if norms else 0.0


def _settings_joined(file: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """The settings together with those of earlier runs in the same folder, which must agree with them."""
    if not file.is_file():
        return settings
    try:
        earlier = json.loads(file.read_text(encoding="utf-8"))
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


def _identity(victim: NamedClassifier) -> str | None:
    """What tells a victim, with its labels in the order that they are in, from another of its name."""
    if victim.order is None:
        return victim.fingerprint
    return f"{victim.fingerprint} with the labels {', '.join(map(str, victim.order))}"


def _that_decide(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings but for what labels are called: a model that is added may know better names."""
    tasks = {name: {**task, "labels": len(task["labels"])} for name, task in settings["tasks"].items()}
    return {**settings, "tasks": tasks}


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 200 else text[:200] + " ..."


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()

"""An evaluation as options: what `rocbert evaluate` and `examples/run_robustness.py` are told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..attackers import AttackerSpec, ModelClassifier
from ..attackers.spec import SYNONYMS, synonyms_from
from ..attacks import PRESETS
from ..checkpoints import checked_device, loading
from ..data.tasks import TASKS, Columns, LabelledTexts, read_labelled, task_of
from ..defences.spelling import Corrector, SpellChecked, corrector_of
from .evaluator import MeanPooledEncoder, RobustnessEvaluator


@dataclass
class EvaluationArguments:
    """Which classifiers to attack, how, and on what."""

    model: list[str] = field(
        default_factory=list,
        metadata={"help": "folder or Hub id, or name=folder; {task} in it stands for the task's name"},
    )
    task: list[str] = field(default_factory=list, metadata={"help": f"of {', '.join(TASKS)}"})
    data_dir: str | None = field(
        default=None, metadata={"help": "folder with the files of the tasks: DIR/chnsenticorp/test.tsv.gz ..."}
    )
    data: list[str] = field(
        default_factory=list,
        metadata={"help": ".tsv, .csv, .jsonl or .json (also packed), or a dataset of the Hub as owner/name:config"},
    )
    split: str | None = field(default=None, metadata={"help": "split to read; default: the task's, or test"})
    text_column: str = field(default="text", metadata={"help": "of --data"})
    pair_column: str | None = field(
        default=None, metadata={"help": "of --data: the second text of a pair, which is not attacked"}
    )
    label_column: str = field(default="label", metadata={"help": "of --data"})
    limit: int | None = field(default=None, metadata={"help": "texts to attack, drawn at random; default: all"})
    attackers: list[str] = field(
        default_factory=lambda: ["adv", "textfooler", "argot"], metadata={"help": "adv, textfooler, argot"}
    )
    attacks: list[str] = field(
        default_factory=list,
        metadata={"help": "also ADV with one attack alone, each of these; all: the nine of the paper"},
    )
    ratio: list[str] = field(
        default_factory=list, metadata={"help": "also every attacker with at most these shares of the characters"}
    )
    max_share: float = field(default=0.2, metadata={"help": "share of the characters that may be attacked"})
    query_budget: int = field(default=2000, metadata={"help": "queries a text"})
    synonyms: str | None = field(
        default=None,
        metadata={"help": f"of textfooler and argot: {SYNONYMS}; default: the packaged thesaurus, small"},
    )
    defence: list[str] = field(
        default_factory=list,
        metadata={"help": "also every model behind spelling=DIR_OR_ID (a masked language model), or pycorrector"},
    )
    encoder: str | None = field(
        default=None,
        metadata={"help": "folder or Hub id of the encoder that measures similarity; default: by characters"},
    )
    output_dir: str = field(
        default="robustness", metadata={"help": "folder for the report and the outcomes; run again, it goes on there"}
    )
    cut: bool = field(default=False, metadata={"help": "cut texts that are longer than a model reads"})
    max_length: int | None = field(default=None, metadata={"help": "tokens a model reads; default: all it can"})
    batch_size: int = field(default=64, metadata={"help": "texts of one forward pass"})
    num_workers: int = field(
        default=1, metadata={"help": "calls of a model at the same time, each in a thread; the outcomes stay the same"}
    )
    device: str | None = field(default=None, metadata={"help": "cpu, cuda, ...; default: a GPU if there is one"})
    seed: int = field(default=0, metadata={"help": "of the sample, the attacks and the intervals"})

    def __post_init__(self):
        for name in ("model", "task", "data", "attackers", "attacks", "ratio", "defence"):
            value = getattr(self, name)
            setattr(self, name, [value] if isinstance(value, str) else [str(item) for item in value])
        for name in ("task", "attackers", "attacks", "ratio"):  # also with commas between
            parts = ",".join(getattr(self, name)).split(",")
            setattr(self, name, [part.strip() for part in parts if part.strip()])
        for name, least in (("batch_size", 1), ("num_workers", 1), ("max_length", 1), ("query_budget", 1), ("seed", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        if not self.model:
            raise ValueError("give at least one model")
        if not self.task and not self.data:
            raise ValueError(f"give data, or a task of {', '.join(TASKS)}")
        if self.task and self.data_dir is None:
            raise ValueError("a task needs data_dir, the folder with its files")

    def attacker_specs(self) -> list[AttackerSpec]:
        """All attackers that are asked for, each once."""
        attacks = list(PRESETS["paper"]["attacks"]) if self.attacks == ["all"] else self.attacks
        named = [AttackerSpec.parse(text) for text in self.attackers]
        alone = [AttackerSpec("adv", attack=attack) for attack in attacks]
        by_ratio = [replace(spec, ratio=ratio) for spec in named for ratio in map(_number, self.ratio)]
        return list(dict.fromkeys([*named, *alone, *by_ratio]))


def evaluate(arguments: EvaluationArguments, progress: bool = True) -> dict[str, Any]:
    """Run, or go on with, an evaluation; the report is in the output folder and returned.

    Raises:
        ValueError, OSError: something that was given does not fit or cannot be read; nothing was attacked then. A
            classifier's answers may also be found wrong on the way; the outcomes before that are kept.
    """
    checked_device(arguments.device)
    with _loading_named("the model of synonyms", arguments.synonyms, "masked_lm="):
        synonyms = None if arguments.synonyms is None else synonyms_from(arguments.synonyms, arguments.device)
    attackers = {
        str(spec): spec.build(arguments.max_share, arguments.query_budget, synonyms)
        for spec in arguments.attacker_specs()
    }
    tasks = _read_tasks(arguments)
    models = _load_models(arguments, list(tasks))
    with _loading_named("the encoder", arguments.encoder):
        encoder = None if arguments.encoder is None else MeanPooledEncoder(arguments.encoder, arguments.device)
    evaluator = RobustnessEvaluator(
        models,
        attackers,
        tasks,
        arguments.output_dir,
        seed=arguments.seed,
        batch_size=arguments.batch_size,
        num_workers=arguments.num_workers,
        encoder=encoder,
        long_texts="cut" if arguments.cut else "error",
        progress=progress,
    )
    return evaluator.run()


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"ratio must be numbers, got {text!r}") from None


def _read_tasks(arguments: EvaluationArguments) -> dict[str, LabelledTexts]:
    tasks = {name: task_of(name).read(arguments.data_dir, arguments.split) for name in arguments.task}
    columns = Columns(arguments.text_column, arguments.pair_column, arguments.label_column)
    for source in arguments.data:
        rows = read_labelled(source, columns, arguments.split or "test")
        if rows.name in tasks:
            raise ValueError(f"two of the data are called {rows.name}")
        tasks[rows.name] = rows
    return {name: rows.sample(arguments.limit, arguments.seed) for name, rows in tasks.items()}


def _load_models(arguments: EvaluationArguments, tasks: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Name -> task -> classifier; each folder is loaded once."""
    models: dict[str, dict[str, Any]] = {}
    loaded: dict[str, ModelClassifier] = {}
    correctors = _load_correctors(arguments)
    for spec in arguments.model:
        name, source = _named_model(spec, tasks)
        folders = {task: source.replace("{task}", task) for task in tasks}
        for folder in folders.values():
            if folder not in loaded:
                loaded[folder] = _load(folder, arguments)
        classifiers = {name: {task: loaded[folder] for task, folder in folders.items()}}
        for defence, corrector in correctors.items():
            classifiers[f"{name} + {defence}"] = {
                task: SpellChecked(loaded[folder], corrector) for task, folder in folders.items()
            }
        for name in classifiers.keys() & models.keys():
            raise ValueError(f"two models are called {name}: name them, as in one={source}")
        models |= classifiers
    return models


def _named_model(spec: str, tasks: Sequence[str]) -> tuple[str, str]:
    """(name, folder or Hub id) of "name=folder", or of a folder, which may have = in it, or Hub id alone."""
    name, equals, source = spec.partition("=")
    if equals and "/" not in name and not any(Path(spec.replace("{task}", task)).is_dir() for task in tasks):
        return name, source
    return Path(spec.replace("{task}", "")).name.strip("-_. ") or spec, spec


def _load_correctors(arguments: EvaluationArguments) -> dict[str, Corrector]:
    """Name -> corrector; where several are of one kind, the name has the folder of each."""
    specs = list(dict.fromkeys(arguments.defence))
    kinds = Counter(spec.partition("=")[0] for spec in specs)
    correctors: dict[str, Corrector] = {}
    for spec in specs:
        kind, _, source = spec.partition("=")
        with _loading_named("the model of the defence", spec, f"{kind}="):
            corrector = corrector_of(spec, arguments.device)
        name = corrector.name if kinds[kind] == 1 else f"{corrector.name} {Path(source).name}"
        if name in correctors:
            raise ValueError(f"two defences are called {name}: give folders of different names, got {', '.join(specs)}")
        correctors[name] = corrector
    return correctors


def _load(folder: str, arguments: EvaluationArguments) -> ModelClassifier:
    with loading("the model", folder):
        return ModelClassifier(
            folder, batch_size=arguments.batch_size, device=arguments.device, max_length=arguments.max_length
        )


def _loading_named(what: str, spec: str | None, prefix: str = ""):
    """`loading` of the checkpoint that stands behind the prefix; nothing where none does."""
    if spec is None or not spec.startswith(prefix) or spec == prefix:
        return nullcontext()
    return loading(what, spec.removeprefix(prefix))

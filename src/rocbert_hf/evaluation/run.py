"""An evaluation as options: what `rocbert evaluate` and `examples/run_robustness.py` are told, and what they do."""

from __future__ import annotations

import glob
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..attackers import AttackerSpec, GivenAttacks, ModelClassifier, SynonymSource
from ..attackers.driver import Attacker
from ..attacks import ATTACKS, PRESETS, CausalLMScorer, read_attacks
from ..attacks.config import ATTACKS_HELP, names_ratio
from ..attacks.selection import SCORERS
from ..checkpoints import loading
from ..data.labelled import Columns, LabelledTexts, read_labelled
from ..data.tables import table_format
from ..data.tasks import TASKS, task_of
from ..defences.defence_spec import CorrectorSpec
from ..defences.spelling import Corrector, SpellChecked
from ..options import REQUIRED, check_choices, option
from ..torch_device import checked_device, device_for
from .evaluator import RobustnessEvaluator
from .sentence_similarity import MeanPooledEncoder


@dataclass(frozen=True)
class NamedModel:
    """A classifier to evaluate.

    Args:
        name: for reports.
        source: folder or Hub id; {task} in it stands for the name of the task.
    """

    name: str
    source: str

    @classmethod
    def parse(cls, text: str) -> NamedModel:
        """What the command line names: "name=source", or a source alone, whose last part is then the name."""
        name, equals, source = text.partition("=")
        # a folder may have "=" in its name
        if equals and "/" not in name and not glob.glob(glob.escape(text).replace("{task}", "*")):
            return cls(name, source)
        return cls(Path(text.replace("{task}", "")).name.strip("-_. ") or text, text)


@dataclass
class EvaluationData:
    """The labelled texts"""

    task: list[str] = option([], "public tasks, with commas between", choices=TASKS, separator=",")
    data_dir: Path | None = option(
        None, "folder with the files of the tasks, such as DATA_DIR/chnsenticorp/test.tsv.gz"
    )
    data: list[str] = option(
        [], "files (.tsv, .csv, .jsonl or .json, also packed), or datasets of the Hub as owner/name:config"
    )
    split: str | None = option(None, "split to read", unset="the one that the task measures on, or test")
    text_column: str = option("text", "column of --data with the text to attack")
    pair_column: str | None = option(
        None, "column of --data with the second text of a pair, which is not attacked", unset="single texts"
    )
    label_column: str = option("label", "column of --data with the right label")
    attacked_column: str | None = option(
        None,
        "column of --data with an attacked form of the text that you have already; it is measured as the attacker `given`",
    )
    limit: int | None = option(None, "texts to attack per task, drawn at random", unset="all")

    def __post_init__(self) -> None:
        check_choices(self)
        if not self.task and not self.data:
            raise ValueError(f"give data, or a task of {', '.join(TASKS)}")
        if self.task and self.data_dir is None:
            raise ValueError("a task needs data_dir, the folder with its files")
        if not self.task and self.data_dir is not None:
            raise ValueError("data_dir is the folder of the tasks' files, and no task is given: leave data_dir out")
        columns = {name: getattr(self, name) for name in ("text_column", "pair_column", "label_column")}
        named = [name for name, column in columns.items() if column != getattr(type(self), name)]
        if named and not self.data:
            raise ValueError(f"{', '.join(named)} needs data: a task has columns of its own")
        files = [source for source in self.data if table_format(source) is not None or Path(source).is_file()]
        if self.split is not None and not self.task and len(files) == len(self.data):
            raise ValueError(f"split is of a task or a dataset, and a file is read as a whole: {files[0]} is a file")
        if self.task and self.attacked_column:
            raise ValueError("attacked_column is a column of data, and a task has none; evaluate the task on its own")

    def read(self, seed: int) -> dict[str, LabelledTexts]:
        """Name -> the labelled texts of each task and file, as many as are asked for.

        Raises:
            OSError: there is no such file. ValueError: it does not hold what it should.
        """
        tasks = {name: task_of(name).read(self.data_dir, self.split) for name in self.task}
        columns = Columns(self.text_column, self.pair_column, self.label_column, self.attacked_column)
        for source in self.data:
            rows = read_labelled(source, columns, self.split or "test")
            if rows.name in tasks:
                raise ValueError(f"two of the data are called {rows.name}")
            tasks[rows.name] = rows
        return {name: rows.sample(self.limit, seed) for name, rows in tasks.items()}


@dataclass
class EvaluationModels:
    """The classifiers"""

    model: list[NamedModel] = option(
        REQUIRED,
        "classifiers: a folder or Hub id, or NAME=FOLDER; {task} in it stands for the name of the task",
        parse=NamedModel.parse,
        short="-m",
    )
    defence: list[CorrectorSpec] = option(
        [],
        "also every model behind a spelling corrector: spelling=DIR_OR_ID (a masked language model), or pycorrector",
        parse=CorrectorSpec.parse,
    )
    max_length: int | None = option(None, "tokens that a model reads", unset="all that it can")

    def __post_init__(self) -> None:
        if not self.model:
            raise ValueError("give at least one model")
        if self.max_length is not None and self.max_length < 1:
            raise ValueError(f"max_length must be at least 1, got {self.max_length}")

    def load(self, tasks: Sequence[str], batch_size: int, device: str | None) -> dict[str, dict[str, Any]]:
        """Name -> task -> classifier; each folder is loaded once.

        Raises:
            OSError: one cannot be loaded. ValueError: one is no classifier, or two have the same name.
        """
        models: dict[str, dict[str, Any]] = {}
        loaded: dict[str, ModelClassifier] = {}
        correctors = self._correctors(device)
        for spec in self.model:
            folders = {task: spec.source.replace("{task}", task) for task in tasks}
            for folder in dict.fromkeys(folders.values()):
                if folder not in loaded:
                    with loading("the model", folder):
                        loaded[folder] = ModelClassifier(
                            folder, batch_size=batch_size, device=device, max_length=self.max_length
                        )
            classifiers = {spec.name: {task: loaded[folder] for task, folder in folders.items()}}
            for defence, corrector in correctors.items():
                classifiers[f"{spec.name} + {defence}"] = {
                    task: SpellChecked(loaded[folder], corrector) for task, folder in folders.items()
                }
            for name in classifiers.keys() & models.keys():
                raise ValueError(f"two models are called {name}: name them, as in one={spec.source}")
            models |= classifiers
        return models

    def _correctors(self, device: str | None) -> dict[str, Corrector]:
        """Name -> corrector; if several are of one kind, the name has the folder of each."""
        specs = list(dict.fromkeys(self.defence))
        kinds = Counter(spec.kind for spec in specs)
        correctors: dict[str, Corrector] = {}
        for spec in specs:
            name = spec.kind if kinds[spec.kind] == 1 else f"{spec.kind} {Path(spec.source).name}"
            if name in correctors:
                sources = ", ".join(str(spec.source) for spec in specs)
                raise ValueError(f"two defences are called {name}: give folders of different names, got {sources}")
            correctors[name] = spec.load(device)
        return correctors


@dataclass
class EvaluationAttackers:
    """The attackers"""

    attackers: list[AttackerSpec] | None = option(
        [AttackerSpec("adv"), AttackerSpec("textfooler"), AttackerSpec("argot")],
        "adv, textfooler, argot, with commas between; adv:wild is ADV with another preset, adv:split with one attack alone, "
        "adv*20 the worst of 20 draws, argot@0.1 attacks at most a tenth of the characters; none: only clean texts",
        parse=AttackerSpec.parse,
        separator=",",
    )
    each_attack: list[str] = option(
        [],
        "also ADV with each of these attacks alone, with commas between; all: the nine of the paper",
        choices=["all", *ATTACKS],
        separator=",",
    )
    ratio: list[float] = option(
        [],
        "also every one of --attackers with each of these shares of the characters, with commas between",
        separator=",",
    )
    max_share: float = option(0.2, "share of the characters that may be attacked; one character always may be")
    query_budget: int = option(2000, "queries per text, at most")
    attacks: str = option(
        "paper",
        f"what ADV draws its attacks from: {ATTACKS_HELP}",
    )
    scorer: str | None = option(
        None,
        f"what scores the words of Eq. 2 in ADV: {', '.join(SCORERS)}, or the folder or Hub id of a causal language model",
        unset="as in --attacks",
    )
    synonyms: SynonymSource | None = option(
        None,
        "synonyms of textfooler and argot: masked_lm=DIR_OR_ID or vectors=FILE",
        parse=SynonymSource.parse,
        unset="the packaged thesaurus, which is small",
    )

    def __post_init__(self) -> None:
        check_choices(self)
        if self.query_budget < 1:
            raise ValueError(f"query_budget must be at least 1, got {self.query_budget}")
        specs = self.specs()
        with_attacks = [spec for spec in specs if spec.takes("attacks")]
        for name, given, is_used in (
            ("ratio", bool(self.ratio), bool(self.attackers)),
            ("scorer", self.scorer is not None, bool(with_attacks)),
            ("attacks", self.attacks != "paper", any(spec.preset is None for spec in with_attacks)),
            ("max_share", self.max_share != type(self).max_share, any(spec.ratio is None for spec in specs)),
            ("synonyms", self.synonyms is not None, any(spec.takes("synonyms") for spec in specs)),
        ):
            if given and not is_used:
                raise ValueError(f"{name} would do nothing: no attacker that is asked for uses it")

    def specs(self) -> list[AttackerSpec]:
        """All attackers that are asked for, each once."""
        named = self.attackers or []
        attacks = PRESETS["paper"]["attacks"] if "all" in self.each_attack else self.each_attack
        alone = [AttackerSpec("adv", attack=attack) for attack in attacks]
        by_ratio = [replace(spec, ratio=ratio) for spec in named for ratio in self.ratio]
        return list(dict.fromkeys([*named, *alone, *by_ratio]))

    def build(self, device: str | None) -> dict[AttackerSpec | str, Attacker]:
        """The attackers.

        Raises:
            OSError: a model or file that they need cannot be loaded. ValueError: it is not of the kind that they need, or
                a number is out of range.
        """
        synonyms = None if self.synonyms is None else self.synonyms.load(device)
        config = self._attack_config()
        if config["scorer"] in SCORERS:
            scorer = SCORERS[config["scorer"]]()
        else:  # loaded once for all attackers
            with loading("the scorer", config["scorer"]):
                scorer = CausalLMScorer.from_pretrained(config["scorer"])
            scorer.model.to(device_for(device))
        return {spec: spec.build(self.max_share, self.query_budget, synonyms, config, scorer) for spec in self.specs()}

    def _attack_config(self) -> dict[str, Any]:
        """What ADV draws from; a ratio is in it only if a file gave one."""
        config = read_attacks(self.attacks)
        if not names_ratio(self.attacks):
            del config["ratio"]
        return config if self.scorer is None else {**config, "scorer": self.scorer}


@dataclass
class EvaluationRun:
    """The run"""

    output_dir: Path = option(
        Path("robustness"), "folder for the report and the outcomes; a run that was stopped goes on there", short="-o"
    )
    encoder: str | None = option(
        None, "folder or Hub id of the encoder that measures similarity", unset="similarity by characters"
    )
    cut: bool = option(False, "cut texts that are longer than a model reads")
    batch_size: int = option(64, "texts per forward pass")
    num_workers: int = option(1, "calls of a model at the same time, each in a thread; the outcomes stay the same")
    device: str | None = option(None, "device, such as cpu or cuda", unset="a GPU if there is one")
    seed: int = option(0, "of the sample, the attacks and the intervals")

    def __post_init__(self) -> None:
        for name, least in (("batch_size", 1), ("num_workers", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        checked_device(self.device)

    def evaluator(
        self,
        models: dict[str, Any],
        attackers: dict[AttackerSpec | str, Attacker],
        tasks: dict[str, LabelledTexts],
        progress: bool,
    ) -> RobustnessEvaluator:
        """The evaluator of these models."""
        encoder = None
        if self.encoder is not None:
            with loading("the encoder", self.encoder):
                encoder = MeanPooledEncoder(self.encoder, self.device)
        return RobustnessEvaluator(
            models,
            attackers,
            tasks,
            self.output_dir,
            seed=self.seed,
            batch_size=self.batch_size,
            num_workers=self.num_workers,
            encoder=encoder,
            long_texts="cut" if self.cut else "error",
            progress=progress,
        )


OPTIONS = (EvaluationData, EvaluationModels, EvaluationAttackers, EvaluationRun)


def evaluate(
    data: EvaluationData,
    models: EvaluationModels,
    attackers: EvaluationAttackers,
    run: EvaluationRun,
    progress: bool = True,
) -> dict[str, Any]:
    """Run, or go on with, an evaluation; the report is in the output folder and returned.

    Raises:
        ValueError, OSError: something that was given does not fit or cannot be read; nothing was attacked then. A
            classifier's answers may also be found wrong on the way; the outcomes before that are kept.
    """
    built = attackers.build(run.device)
    if data.attacked_column is not None:
        built[GivenAttacks.name] = GivenAttacks()
    tasks = data.read(run.seed)
    loaded = models.load(list(tasks), run.batch_size, run.device)
    return run.evaluator(loaded, built, tasks, progress).run()

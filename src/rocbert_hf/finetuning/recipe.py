"""What all finetuning recipes share: seeds, folders that are never mixed up, resuming, results and the model card."""

from __future__ import annotations

import json
import shutil
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ..characters.unseen import mark_unseen
from ..files import locked_folder, read_json, write_json, write_whole
from ..options import as_plain, option
from .processes import first_process_first, first_process_speaks, in_first_process

SETTINGS = "finetune_settings.json"
RESULTS = "all_results.json"
CHECKPOINTS = "checkpoints"
REPORTS = ("report.html", "report.md", "report.json")


@dataclass
class FinetuningOptions:
    """What kind of task to finetune for, with how many seeds, and where to put the results."""

    task_type: str | None = option(
        None,
        "kind of task: classification, tagging or semi-supervised",
        unset="semi-supervised with --unlabelled, else classification",
    )
    output_dir: Path = option(Path("finetuned"), "folder for everything that the run writes", short="-o")
    seeds: list[int] = option([0], "one run per seed; several runs get a folder each: seed-0, seed-1, ...")
    resume: bool = option(False, "go on with an interrupted run from its last finished epoch")
    overwrite: bool = option(False, "delete a model or an interrupted run that is in the output folder already")

    def __post_init__(self):
        self.output_dir = Path(self.output_dir)
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds must name at least one, and none twice, got {self.seeds}")
        if min(self.seeds) < 0:
            raise ValueError(f"seeds must not be negative, got {self.seeds}")
        if self.resume and self.overwrite:
            raise ValueError("give either resume or overwrite")


class FinetuningRecipe(ABC):
    """How to finetune on one kind of task.

    A subclass is one file, and one line in `rocbert_hf.finetuning.RECIPES`.

    Attributes:
        OPTIONS: the dataclasses that it is made from, in the order of its arguments. No two fields of them have one name.
    """

    OPTIONS: ClassVar[tuple[type, ...]]

    @abstractmethod
    def read(self) -> str:
        """Read and check all rows.

        Returns:
            What was read, in a line for the user.

        Raises:
            ValueError, OSError: a file cannot be used.
        """

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """All that the resulting model depends on, as JSON has it: options, and checksums of the rows.

        An interrupted run goes on only with equal settings.
        """

    @abstractmethod
    def train(self, seed: int, folder: Path, resume: bool) -> tuple[Any, Any, dict[str, Any]]:
        """Train once, with checkpoints in `folder / "checkpoints"`, from the last of them if `resume` is true.

        Returns:
            (model, tokenizer, results): results maps "arguments", "training" and the measured parts ("dev", "test") to
            names and values.
        """


def finetune(recipe: FinetuningRecipe, run: FinetuningOptions) -> dict[str, Any]:
    """Finetune once per seed, measure and save.

    Under a launcher of several processes each of them calls this; all train, and the first one prints and writes.

    A folder gets the model, its tokenizer, all_results.json, trainer_state.json and a model card. With several seeds each
    has a folder of its own, and the folder above them gets the means and standard deviations.

    Returns:
        What all_results.json holds.

    Raises:
        ValueError: the output folder holds a finished model, or a run with other settings. OSError: another process
            works there. Both before any work is done.
    """
    with first_process_speaks(), ExitStack() as stack:
        print(mark_unseen(first_process_first(recipe.read)))
        folders = {
            seed: run.output_dir if len(run.seeds) == 1 else run.output_dir / f"seed-{seed}" for seed in run.seeds
        }
        settings = recipe.settings()

        def begin() -> None:
            stack.enter_context(locked_folder(run.output_dir))
            if len(folders) > 1:
                _check_folder_of_seeds(run)
            for seed, folder in folders.items():
                _check_folder(folder, {**settings, "seed": seed}, run)
            if run.overwrite:
                _remove_results(run.output_dir)

        in_first_process(begin)
        results = {
            seed: _finetune_once(recipe, {**settings, "seed": seed}, folder, run) for seed, folder in folders.items()
        }
        if len(results) == 1:
            return results[run.seeds[0]]
        summary = {"arguments": {**settings, "seeds": run.seeds}, **over_seeds(list(results.values()))}
        in_first_process(lambda: write_json(run.output_dir / RESULTS, summary))
        _show(summary)
        return summary


def over_seeds(results: list[Mapping[str, Any]]) -> dict[str, dict[str, dict[str, float]]]:
    """Part -> score -> its mean and standard deviation over several results of one recipe."""
    return {
        part: {
            name: {
                "mean": float(np.mean([result[part][name] for result in results])),
                "std": float(np.std([result[part][name] for result in results], ddof=1)),
            }
            for name in results[0][part]
        }
        for part in ("dev", "test")
        if part in results[0]
    }


def _check_folder_of_seeds(run: FinetuningOptions) -> None:
    """Raises ValueError where the means over the seeds would take the place of other results."""
    folder = run.output_dir
    if (folder / SETTINGS).exists():
        raise ValueError(f"{folder} holds a run of one seed: name another output_dir for several seeds")
    if _holds_model(folder) and not (run.resume or run.overwrite):
        raise ValueError(f"{folder} holds results already: name another output_dir, or give --resume or --overwrite")


def _holds_model(folder: Path) -> bool:
    """Whether there is a model or its results, of whatever training."""
    return any((folder / name).exists() for name in (RESULTS, "config.json"))


def _check_folder(folder: Path, settings: Mapping[str, Any], run: FinetuningOptions) -> None:
    """Raises ValueError where a run in this folder would mix with what is there."""
    if run.overwrite or not (folder / SETTINGS).exists():
        if not run.overwrite and _holds_model(folder):
            raise ValueError(f"{folder} holds a model already: name another output_dir, or give --overwrite")
        return
    if not _holds_model(folder) and not any((folder / CHECKPOINTS).rglob("checkpoint-*")):
        return  # it ended before its first checkpoint, such as for want of the model: there is nothing to go on from
    finished = (folder / RESULTS).exists()
    if not run.resume:
        what = "a finished model" if finished else "an interrupted run; go on with --resume"
        raise ValueError(f"{folder} holds {what}; to begin anew give --overwrite")
    before = read_json(folder / SETTINGS)
    for name in sorted({*before, *settings}):
        if before.get(name) != settings.get(name):
            raise ValueError(
                f"the run in {folder} was begun with {name}={before.get(name)!r}, not {settings.get(name)!r}: resume it "
                "with its own settings"
            )


def _remove_results(folder: Path) -> None:
    """Removes what would tell of an earlier model beside the new one."""
    for name in (RESULTS, *REPORTS):
        (folder / name).unlink(missing_ok=True)


def _finetune_once(
    recipe: FinetuningRecipe, settings: Mapping[str, Any], folder: Path, run: FinetuningOptions
) -> dict[str, Any]:
    def begin() -> bool:
        if run.resume and (folder / RESULTS).exists():
            return True
        if run.overwrite:
            shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
            _remove_results(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / SETTINGS, dict(settings))
        return False

    if in_first_process(begin):
        print(f"{folder} is finished already: nothing was trained")
        return read_json(folder / RESULTS)
    model, tokenizer, results = recipe.train(settings["seed"], folder, run.resume)

    def save() -> None:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        # before the card, which describes what the folder holds
        shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
        write_whole(folder / "README.md", card_of(folder, results))
        write_json(folder / RESULTS, results)  # last: it says that the run is finished

    in_first_process(save)
    _show(results)
    print(f"saved in {folder}")
    return results


def card_of(folder: Path, results: Mapping[str, Any]) -> str:
    """The model card: a RoCBERT's own, or one that says of another model how it was made and how good it is."""
    from huggingface_hub import ModelCardData

    from ..hub.model_card import PIPELINES, model_card, table, without_folders

    config = read_json(folder / "config.json")
    if config["model_type"] == "rocbert":
        return model_card(folder, results=results)
    architecture = config["architectures"][0]
    task = next((task for head, task in PIPELINES.items() if architecture.endswith(head)), None)
    data = ModelCardData(language="zh", library_name="transformers", pipeline_tag=task)
    given = {name: value for name, value in results["arguments"].items() if value and not name.endswith("_dir")}
    chosen = {name: without_folders(value) for name, value in given.items()}
    tables = {"Options": chosen} | {f"Scores on {part}": results[part] for part in ("dev", "test") if part in results}
    blocks = [
        f"---\n{data.to_yaml()}\n---",
        f"# {folder.resolve().name}",
        f"`{architecture}`, finetuned with `rocbert finetune`.",
    ]
    for title, values in tables.items():
        blocks += [f"## {title}", table(["", ""], values.items())]
    return "\n\n".join(blocks) + "\n"


def _show(results: Mapping[str, Any]) -> None:
    print(json.dumps({part: results[part] for part in ("dev", "test") if part in results}, indent=1))


def save_history(trainer: Any, folder: Path) -> None:
    """Write what a transformers Trainer logged, once for all processes, to trainer_state.json."""
    if trainer.is_world_process_zero():
        trainer.state.save_to_json(str(folder / "trainer_state.json"))


def options_as_json(*options: Any) -> dict[str, Any]:
    """The fields of several filled dataclasses together, as JSON has them."""
    return {name: value for filled in options for name, value in as_plain(filled).items()}

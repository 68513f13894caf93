"""What do unlabelled texts, contrastive and adversarial training bring a classifier of few labelled texts?

    python benchmarks/semi_supervised.py --work-dir W --data-dir ../shared/data --model models/rocbert-small-zh
    python benchmarks/semi_supervised.py --work-dir W --report

Trains one classifier per task, method, seed and share of wrong labels: the ten combinations of table 3 of "ESimCSE
Unsupervised Contrastive Learning Jointly with UDA Semi-Supervised Learning for Large Label System Text Classification"
(2023), and FixMatch, SoftMatch and pseudo-labels. A cell is one JSON file in the folder: what is there is not measured
again, so that a run may be interrupted, and several may share a folder. `--report` prints the tables.

Of a task without unlabelled texts (iflytek), those train rows are unlabelled that are not labelled ones.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import random
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np
from transformers.utils import logging

from rocbert_hf.attackers import AttackerSpec, Example, ModelClassifier
from rocbert_hf.data import read_rows, task_of
from rocbert_hf.evaluation.embedding_attacks import EMBEDDING_ATTACKS, right_under_perturbation
from rocbert_hf.evaluation.metrics import Bootstrap
from rocbert_hf.files import read_json, write_json
from rocbert_hf.finetuning import StartOptions
from rocbert_hf.finetuning.classification import RowOptions
from rocbert_hf.finetuning.optimization import OptimizationOptions
from rocbert_hf.finetuning.semi_supervised import (
    MethodSpec,
    SemiSupervisedRecipe,
    UnlabelledOptions,
    largest_class,
    used_share,
)

BASELINE = "supervised"
TABLE_3 = (BASELINE, "fgm", "pgd", "uda", "esimcse", "uda+fgm", "uda+pgd", "uda+esimcse", "uda+esimcse+fgm")
METHODS = (*TABLE_3, "uda+esimcse+pgd", "fixmatch", "softmatch", "pseudo-labels")


class NoisyRecipe(SemiSupervisedRecipe):
    """The recipe of one cell: `labelled` rows at random, a share of their labels wrong, the others unlabelled."""

    def __init__(self, options: argparse.Namespace, task: str, method: str, seed: int, noise: float, folder: Path):
        self.cell = (options, task, seed, noise)
        rest = folder / "unlabelled.txt"
        recipe = MethodSpec.parse(method)
        rows = RowOptions(task=task, data_dir=str(options.data_dir))
        rest.write_text("".join(text.replace("\n", " ") + "\n" for text in unlabelled_of(options, task, seed)), "utf-8")
        super().__init__(
            StartOptions(model=str(options.model), max_length=options.max_length),
            rows,
            OptimizationOptions(
                learning_rate=options.learning_rate,
                head_learning_rate=options.head_learning_rate,
                batch_size=options.batch_size,
                epochs=options.epochs,
                patience=99,
                bf16=options.bf16,
            ),
            UnlabelledOptions(
                str(rest),
                recipe,
                unlabelled_ratio=options.ratio if recipe.needs_unlabelled else UnlabelledOptions.unlabelled_ratio,
                augmentation=options.augmentation if recipe.target not in (None, "pseudo-labels") else ["eda"],
                warm_up=options.warm_up if recipe.target is not None else None,
                confidence=options.confidence if recipe.target in ("uda", "fixmatch") else None,
                epsilon=options.epsilon if recipe.adversarial else None,
                # PGD's steps in proportion, as by default
                alpha=0.3 * options.epsilon if recipe.adversarial == "pgd" and options.epsilon else None,
            ),
        )

    def read(self) -> str:
        told = super().read()
        options, _, seed, noise = self.cell
        rng = random.Random(f"noise/{seed}")
        order = labelled_order(len(self.rows.train), seed)[: options.labelled]
        train = []
        for example in (self.rows.train[number] for number in order):
            other = rng.randrange(len(self.rows.labels) - 1)
            wrong = other + (other >= example.label)
            train.append(Example(example.text, wrong if rng.random() < noise else example.label))
        parts = {}
        for name in ("dev", "test"):  # files are often sorted by label
            rows = getattr(self.rows, name)
            parts[name] = random.Random(name).sample(rows, min(getattr(options, name), len(rows)))
        self.rows = dataclasses.replace(self.rows, train=train, **parts)
        return told


def labelled_order(rows: int, seed: int) -> list[int]:
    """Train rows in random order: the first ones are labelled."""
    return random.Random(f"rows/{seed}").sample(range(rows), rows)


def unlabelled_of(options: argparse.Namespace, task: str, seed: int) -> list[str]:
    described = task_of(task)
    file = described.file(options.data_dir, "unlabeled")
    if file is not None:
        texts = [row.values["text"] for row in read_rows(file)]
    else:
        train = described.read(options.data_dir, "train").texts
        texts = [train[number] for number in labelled_order(len(train), seed)[options.labelled :]]
    return texts[: options.unlabelled]


def measure(options: argparse.Namespace, task: str, method: str, seed: int, noise: float) -> dict:
    """Train a cell, and measure it on the test rows."""
    with tempfile.TemporaryDirectory() as folder:
        recipe = NoisyRecipe(options, task, method, seed, noise, Path(folder))
        recipe.read()
        trainer = recipe.trainer(seed, Path(folder) / "checkpoints")
        training = trainer.train()
        model, tokenizer, test = trainer.model, trainer.processing_class, recipe.rows.test
        classifier = ModelClassifier(model, tokenizer)
        labels = [example.label for example in test]
        predictions = classifier([example.text for example in test]).argmax(-1)
        attacked = test[: options.attacked]
        robust = {
            name: np.mean(right_under_perturbation(model, tokenizer, attacked, way)) if attacked else None
            for name, way in {"SA": None, **EMBEDDING_ATTACKS}.items()
        }
        for spec in options.attackers if attacked else []:
            outcomes = AttackerSpec.parse(spec).build().attack_batch(classifier, attacked, seed)
            robust[spec] = np.mean([outcome.status == "failed" for outcome in outcomes])
        return {
            "right": (predictions == labels).astype(int).tolist(),
            "robust": {name: None if value is None else float(value) for name, value in robust.items()},
            "largest_class": largest_class(model, tokenizer, recipe.unlabelled[:500]),
            "used": used_share(trainer.state.log_history),
            "steps": trainer.state.global_step,
            "seconds": training.metrics["train_runtime"],
        }


def cells(options: argparse.Namespace) -> Iterator[tuple[str, str, int, float]]:
    """Task, method, seed, noise; all seeds of one method before the next method."""
    for noise, task, method, seed in product(options.noise, options.tasks, options.methods, options.seeds):
        yield task, method, seed, noise


def report(folder: Path) -> str:
    """Tables in Markdown of all cells in the folder."""
    found: dict[tuple, dict[str, dict[int, dict]]] = defaultdict(lambda: defaultdict(dict))
    for file in sorted(folder.glob("*.json")):
        if file.name != "settings.json":
            cell = read_json(file)
            found[cell["task"], cell["noise"]][cell["method"]][cell["seed"]] = cell
    lines = []
    for (task, noise), methods in sorted(found.items()):
        lines += [f"\n{task}, {noise:.0%} of the labels wrong\n"]
        lines += ["| method | seeds | accuracy | against the baseline | SA / FGM / PGD | used | largest class |"]
        lines += ["|---|---|---|---|---|---|---|"]
        for method in sorted(methods, key=METHODS.index):
            lines.append(_row(method, methods[method], methods.get(BASELINE, {})))
    return "\n".join(lines)


def _row(method: str, seeds: dict[int, dict], baseline: dict[int, dict]) -> str:
    accuracy = np.mean([np.mean(cell["right"]) for cell in seeds.values()])
    shared, against = sorted(seeds.keys() & baseline.keys()), ""
    if shared and method != BASELINE:
        # per text, seeds averaged: the interval is over the texts
        gain = np.mean([np.subtract(seeds[s]["right"], baseline[s]["right"]) for s in shared], axis=0)
        of_seeds = ", ".join(
            f"{100 * (np.mean(seeds[s]['right']) - np.mean(baseline[s]['right'])):+.1f}" for s in shared
        )
        estimate = Bootstrap().mean(gain)
        against = (
            f"{100 * estimate.value:+.1f} ({100 * estimate.low:+.1f} to {100 * estimate.high:+.1f}); by seed {of_seeds}"
        )
    robust = " / ".join(
        "-" if None in values else f"{100 * np.mean(values):.1f}"
        for name in ("SA", *EMBEDDING_ATTACKS)
        for values in [[cell["robust"].get(name) for cell in seeds.values()]]
    )
    used, largest = (np.mean([cell[name] for cell in seeds.values()]) for name in ("used", "largest_class"))
    return f"| {method} | {len(seeds)} | {100 * accuracy:.1f} | {against} | {robust} | {used:.2f} | {largest:.2f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--work-dir", type=Path, required=True)
    parser.add_argument("--report", action="store_true", help="print the tables of what has been measured")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--tasks", nargs="+", default=["tnews", "iflytek"])
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--noise", nargs="+", type=float, default=[0.0, 0.1, 0.2], help="shares of wrong labels")
    parser.add_argument("--labelled", type=int, default=1185)
    parser.add_argument("--unlabelled", type=int, default=20_000)
    parser.add_argument("--dev", type=int, default=500)
    parser.add_argument("--test", type=int, default=2000)
    parser.add_argument("--attacked", type=int, default=200, help="test rows of the robust accuracy; 0 leaves it out")
    parser.add_argument("--attackers", nargs="*", default=["adv"], help="of the texts, besides FGM and PGD")
    parser.add_argument("--epochs", type=float, default=10)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--ratio", type=int, default=3, help="unlabelled texts per labelled text")
    parser.add_argument("--max-length", type=int, default=None)
    parser.add_argument("--learning-rate", type=float, default=None)
    parser.add_argument("--head-learning-rate", type=float, default=None)
    parser.add_argument("--confidence", type=float, default=None, help="of uda and fixmatch; default: the method's")
    parser.add_argument("--epsilon", type=float, default=None, help="of fgm and pgd; default: the method's, 1")
    parser.add_argument(
        "--warm-up", type=float, default=None, help="of unlabelled texts' weight; default: the method's"
    )
    parser.add_argument("--augmentation", nargs="+", default=["eda"])
    parser.add_argument("--bf16", action="store_true", help="train in mixed precision")
    options = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    if options.report:
        print(report(options.work_dir))
        return
    options.work_dir.mkdir(parents=True, exist_ok=True)
    chosen = ("tasks", "methods", "seeds", "noise", "work_dir", "report")
    settings = {name: str(value) for name, value in vars(options).items() if name not in chosen}
    if not (options.work_dir / "settings.json").exists():
        write_json(options.work_dir / "settings.json", settings)
    if (before := read_json(options.work_dir / "settings.json")) != settings:
        raise SystemExit(f"{options.work_dir} was begun with other settings: {json.dumps(before)}")
    for task, method, seed, noise in cells(options):
        file = options.work_dir / f"{task}-{method}-{seed}-{noise:g}.json"
        if not file.exists():
            result = measure(options, task, method, seed, noise)
            write_json(file, {"task": task, "method": method, "seed": seed, "noise": noise, **result})
            print(f"{file.stem}: {np.mean(result['right']):.3f} in {result['seconds']:.0f} s", flush=True)


if __name__ == "__main__":
    main()

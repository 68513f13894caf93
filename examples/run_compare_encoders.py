"""Which encoder stays right under attack once it is finetuned? Several encoders alike, several seeds, every attacker.

    python examples/run_compare_encoders.py --data-dir DATA --task chnsenticorp_2k toxicn --seeds 0 1 2 \
        --model ours=models/rocbert-small-zh source=multilingual-e5-small --worst-of 0 4 --output-dir headline \
        --attackers "adv*20,adv:wild*20,textfooler,argot" --query-budget 300

The first model is compared with the others. What is finished is kept: after a stop, run it again."""

import json
import sys
from collections import defaultdict
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np

from rocbert_hf.data import TASKS
from rocbert_hf.evaluation import Bootstrap
from rocbert_hf.evaluation import run as evaluation
from rocbert_hf.evaluation.run import NamedModel
from rocbert_hf.files import write_json, write_whole
from rocbert_hf.finetuning import FinetuningOptions, StartOptions, finetune
from rocbert_hf.finetuning.classification import AugmentationOptions, ClassificationRecipe, RowOptions
from rocbert_hf.finetuning.optimization import OptimizationOptions
from rocbert_hf.options import REQUIRED, option, parse_options


@dataclass
class Comparison:
    """What to compare."""

    model: list[NamedModel] = option(REQUIRED, "encoders as NAME=FOLDER, the first to prove", parse=NamedModel.parse)
    data_dir: Path = option(REQUIRED, "folder with the files of the tasks")
    task: list[str] = option(["chnsenticorp_2k"], "public tasks", choices=TASKS)
    seeds: list[int] = option([0, 1, 2], "one finetuning per seed")
    augment: list[int] = option([0], "attacked copies of each train row; several numbers: each of them")
    worst_of: list[int] = option([0], "train on the worst of so many attacked forms; several numbers: each of them")
    train_limit: int | None = option(None, "train rows to use per task, drawn at random", unset="all")
    limit: int = option(300, "texts to attack per task")
    max_length: int = option(64, "tokens per text; longer texts are cut")
    epochs: float | None = option(None, "passes over the train rows; default: by the size of the model")
    bf16: bool = option(False, "finetune in mixed precision")
    output_dir: Path = option(Path("comparison"), "folder for classifiers, outcomes and tables")


def finetuned(options: Comparison, task: str, model: NamedModel, augment: int, worst_of: int) -> list[NamedModel]:
    """Classifiers on one encoder, one per seed."""
    name = model.name + f", {augment} attacked copies" * bool(augment) + f", worst of {worst_of}" * bool(worst_of)
    folder = options.output_dir / "classifiers" / task / f"{model.name}-{augment}-{worst_of}"
    recipe = ClassificationRecipe(
        StartOptions(model=model.source, max_length=options.max_length),
        RowOptions(task=task, data_dir=str(options.data_dir), dev_limit=300, limit=options.train_limit),
        OptimizationOptions(epochs=options.epochs, bf16=options.bf16),
        AugmentationOptions(augment=augment, worst_of=worst_of),
    )
    finetune(recipe, FinetuningOptions(output_dir=folder, seeds=options.seeds, resume=True))
    folders = {seed: folder if len(options.seeds) == 1 else folder / f"seed-{seed}" for seed in options.seeds}
    return [NamedModel(f"{name} #{seed}", str(place)) for seed, place in folders.items()]


def right_rows(examples: Path, report: dict) -> dict[str, dict[str, np.ndarray]]:
    """Model -> attacker, or "clean" -> share of the seeds that are right on each text; outcomes not in the report are left out."""
    seen: dict[tuple[str, str], dict[tuple[str, int], bool]] = defaultdict(dict)
    for record in map(json.loads, examples.read_text(encoding="utf-8").splitlines()):
        if record["attacker"] not in report["attackers"] or record["model"] not in report["models"]:
            continue
        name, _, seed = record["model"].rpartition(" #")
        seen[name, record["attacker"]][seed, record["index"]] = record["status"] == "failed"
        seen[name, "clean"][seed, record["index"]] = record["prediction_before"] == record["label"]
    rights: dict[str, dict[str, np.ndarray]] = defaultdict(dict)
    for (name, attacker), outcomes in seen.items():
        rows = max(index for _, index in outcomes) + 1
        seeds = {seed for seed, _ in outcomes}
        rights[name][attacker] = np.mean([[outcomes[seed, row] for row in range(rows)] for seed in seeds], axis=0)
    return rights


def compared(rights: dict[str, dict[str, np.ndarray]]) -> tuple[list[str], dict]:
    """Lines of a Markdown table, and the same numbers as JSON. Intervals are over texts, and hold the seeds fixed."""
    first, *others = rights
    attackers = ["clean", *(name for name in rights[first] if name != "clean")]
    numbers = {name: {a: 100 * float(row[a].mean()) for a in attackers} for name, row in rights.items()}
    lines = ["| accuracy, % | " + " | ".join(attackers) + " |", "|---|" + "---:|" * len(attackers)]
    lines += [f"| {name} | " + " | ".join(f"{row[a]:.1f}" for a in attackers) + " |" for name, row in numbers.items()]
    differences = {}
    for other in others:
        found = {a: Bootstrap().mean(rights[first][a] - rights[other][a]) for a in attackers}
        differences[other] = {a: [100 * value for value in (e.value, e.low, e.high)] for a, e in found.items()}
        cells = (f"{value:+.1f} ({low:+.1f} to {high:+.1f})" for value, low, high in differences[other].values())
        lines.append(f"| {first} minus {other} | " + " | ".join(cells) + " |")
    return lines, {"accuracy": numbers, f"{first} minus": differences}


def main(argv: list[str] | None = None) -> None:
    options, attackers = parse_options((Comparison, evaluation.EvaluationAttackers), argv, description=__doc__)
    results, text = {}, []
    for task in options.task:
        ways = product(options.model, options.augment, options.worst_of)
        classifiers = [one for way in ways for one in finetuned(options, task, *way)]
        folder = options.output_dir / "outcomes" / task
        data = evaluation.EvaluationData(task=[task], data_dir=options.data_dir, limit=options.limit)
        models = evaluation.EvaluationModels(model=classifiers, max_length=options.max_length)
        report = evaluation.evaluate(data, models, attackers, evaluation.EvaluationRun(output_dir=folder, cut=True))
        lines, results[task] = compared(right_rows(folder / "examples.jsonl", report))
        text += [f"## {task}", "", *lines, ""]
    write_json(options.output_dir / "results.json", results)
    write_whole(options.output_dir / "table.md", "\n".join(text))
    print("\n".join(text))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("interrupted; run it again to go on")
    except (ValueError, OSError, FloatingPointError) as error:
        sys.exit(f"{Path(__file__).name}: {error}")

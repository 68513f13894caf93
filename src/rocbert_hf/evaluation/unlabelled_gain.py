"""What unlabelled text brought: a classifier that learnt from it, beside the same one that did not, and a report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..attackers import AttackerSpec, Example, ModelClassifier
from ..data.scores import classification_scores, confusion_matrices
from ..files import read_json, write_json
from ..finetuning import FinetuningOptions, finetune
from ..finetuning.processes import is_first_process
from ..finetuning.recipe import RESULTS
from ..finetuning.representation_hooks import encoder_of, sentence_representation
from ..finetuning.semi_supervised import SemiSupervisedRecipe
from ..options import default_of, option
from .embedding_attacks import EMBEDDING_ATTACKS, right_under_perturbation
from .metrics import Bootstrap

WITHOUT = "without-unlabelled"
# a label is doubted if the model gives another one at least this probability
DOUBT = 0.8


@dataclass
class GainOptions:
    """What the report tells."""

    compare: bool = option(True, "also train on the labelled texts alone, and tell the difference")
    attackers: list[AttackerSpec] = option(
        [AttackerSpec("adv")],
        "attackers to measure the robust accuracy under, besides FGM and PGD on the embeddings: adv, textfooler, argot",
        parse=AttackerSpec.parse,
        separator=",",
    )
    attacked_texts: int = option(200, "texts to measure the robust accuracy on, drawn at random; 0 to leave it out")
    plotted_texts: int = option(600, "texts in the plots of representations, drawn at random")

    def __post_init__(self):
        for name, least in (("attacked_texts", 0), ("plotted_texts", 5)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if not self.attacked_texts and self.attackers != default_of(type(self).__dataclass_fields__["attackers"]):
            raise ValueError("attackers would do nothing with attacked_texts 0, which leaves the robust accuracy out")


def finetune_and_compare(
    recipe: SemiSupervisedRecipe, run: FinetuningOptions, options: GainOptions | None = None
) -> dict[str, Any] | None:
    """Finetune with and without the unlabelled texts, measure both, and write report.html, report.md and report.json.

    The model is in the output folder (with several seeds in a folder each), the one to compare with in
    `without-unlabelled` below it.

    Returns:
        What report.json holds; None in all processes but the first, which measures and writes.

    Raises:
        ValueError, OSError: as `finetune`.
    """
    from .gain_report import write_gain_report

    options = options or GainOptions()
    finetune(recipe, run)
    folders = {"with": run.output_dir}
    if options.compare and recipe.unlabelled_options.recipe.needs_unlabelled:
        folders["without"] = run.output_dir / WITHOUT
        finetune(recipe.without_unlabelled(), replace(run, output_dir=folders["without"]))
    if not is_first_process():
        return None
    examples, part = (recipe.rows.dev, "dev") if recipe.rows.test is None else (recipe.rows.test, "test")
    models = {name: _measured_folder(recipe, folder, run.seeds, examples, options) for name, folder in folders.items()}
    report = {
        "method": str(recipe.unlabelled_options.recipe),
        "learns_from_answers": recipe.unlabelled_options.recipe.target is not None,
        "train": len(recipe.rows.train),
        "unlabelled": len(recipe.unlabelled),
        "labels": list(recipe.rows.labels),
        "part": part,
        "examples": len(examples),
        "seeds": run.seeds,
        "models": models,
        "gain": _gain(models) if len(models) == 2 else None,
    }
    for model in models.values():
        del model["right"]
    first = _folder_of(run.output_dir, run.seeds, run.seeds[0])
    log = read_json(first / "trainer_state.json")["log_history"]
    plotted = _sample(examples, options.plotted_texts)
    torch.manual_seed(0)
    points = {"before": _representations(*recipe.start_model(), plotted)}
    classifier = ModelClassifier(first)
    points["after"] = _representations(classifier.model, classifier.tokenizer, plotted)
    write_json(run.output_dir / "report.json", report)
    write_gain_report(report, log, points, [example.label for example in plotted], run.output_dir)
    print(f"the report is in {run.output_dir / 'report.html'}")
    return report


def _folder_of(folder: Path, seeds: Sequence[int], seed: int) -> Path:
    return folder if len(seeds) == 1 else folder / f"seed-{seed}"


def _measured_folder(
    recipe: SemiSupervisedRecipe, folder: Path, seeds: Sequence[int], examples: list[Example], options: GainOptions
) -> dict[str, Any]:
    """Scores of each seed's model and their means; what it takes for wrong, and how robust it is, of the first seed."""
    labels, rights, scores, first = [example.label for example in examples], [], [], {}
    places = [_folder_of(folder, seeds, seed) for seed in seeds]
    trainings = [read_json(place / RESULTS)["training"] for place in places]
    training = {
        "unlabelled_used": float(np.mean([each["unlabelled_used"] for each in trainings])),
        "largest_class": max(each["largest_class"] for each in trainings),
        "collapsed": [seed for seed, each in zip(seeds, trainings, strict=True) if each["collapsed"]],
    }
    for seed, place in zip(seeds, places, strict=True):
        classifier = ModelClassifier(place)
        predictions = classifier([example.text for example in examples]).argmax(-1)
        confusion = confusion_matrices(np.array(labels), predictions, len(recipe.rows.labels))
        scores.append({name: float(value) for name, value in classification_scores(confusion, recipe.positive).items()})
        if recipe.hierarchy is not None:
            scores[-1] |= recipe.hierarchy.accuracy_by_level(labels, predictions)
        rights.append((predictions == labels).tolist())
        if first:
            continue
        first = {
            "doubted": doubted_labels(classifier, recipe.rows.train, recipe.rows.labels),
            "robust": _robust(classifier, _sample(examples, options.attacked_texts), options, seed),
        }
        if recipe.hierarchy is not None:
            errors, siblings, pairs = recipe.hierarchy.sibling_errors(labels, predictions)
            first["siblings"] = {
                "errors": errors,
                "among": siblings,
                "pairs": [[*p, n] for p, n in pairs.most_common(10)],
            }
    means = {name: float(np.mean([each[name] for each in scores])) for name in scores[0]}
    return {"scores": means, "by_seed": scores, "right": rights, **training, **first}


def _gain(models: dict[str, Any]) -> dict[str, float]:
    """The difference of the accuracies, seeds averaged, with its interval over the texts."""
    ours, theirs = (np.array(models[name]["right"], dtype=float).mean(0) for name in ("with", "without"))
    return Bootstrap().mean(ours - theirs).to_dict()


def doubted_labels(
    classifier: ModelClassifier, examples: Sequence[Example], labels: Sequence[str], least: float = DOUBT
) -> list[dict[str, Any]]:
    """Train rows whose label the model doubts though it was trained on it, the surest first: look at them again.

    Args:
        classifier: the finished model.
        examples: its train rows.
        labels: names by number.
        least: probability of the other label.
    """
    probabilities = classifier([example.text for example in examples])
    found = [
        {"text": example.text, "label": labels[example.label], "model": labels[row.argmax()], "probability": row.max()}
        for example, row in zip(examples, probabilities, strict=True)
        if row.argmax() != example.label and row.max() >= least
    ]
    return sorted(found, key=lambda row: -row["probability"])


def _robust(classifier: ModelClassifier, examples: list[Example], options: GainOptions, seed: int) -> dict[str, float]:
    """Standard accuracy (SA), and robust accuracies (RA) by attack, on the same texts."""
    if not examples:
        return {}
    model, tokenizer = classifier.model, classifier.tokenizer
    methods = {"SA": None, **EMBEDDING_ATTACKS}
    found = {
        name: float(np.mean(right_under_perturbation(model, tokenizer, examples, method)))
        for name, method in methods.items()
    }
    for spec in options.attackers:
        outcomes = spec.build().attack_batch(classifier, examples, seed)
        found[str(spec)] = float(np.mean([outcome.status == "failed" for outcome in outcomes]))
    return found


def _sample(examples: Sequence[Example], number: int) -> list[Example]:
    """At most so many, the same for every model."""
    chosen = np.random.default_rng(0).permutation(len(examples))[:number]
    return [examples[i] for i in sorted(chosen)]


@torch.no_grad()
def _representations(model: Any, tokenizer: Any, examples: Sequence[Example], batch_size: int = 64) -> np.ndarray:
    """(n, hidden), as the head reads them."""
    encoder, found = encoder_of(model).eval(), []
    for start in range(0, len(examples), batch_size):
        texts = [example.text for example in examples[start : start + batch_size]]
        limit = tokenizer.model_max_length
        inputs = tokenizer(texts, truncation=True, max_length=limit, padding=True, return_tensors="pt").to(model.device)
        found.append(sentence_representation(encoder(**inputs)).float().cpu())
    return torch.cat(found).numpy()

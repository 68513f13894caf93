"""Text classification (section 5): any sequence classifier of transformers, on a public task or on your own rows."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import DataCollatorWithPadding, EarlyStoppingCallback, set_seed

from ..attackers import Example, ModelClassifier
from ..attackers.spec import AttackerSpec
from ..attacks import AdversarialSynthesizer
from ..attacks.config import ATTACKS_HELP, read_attacks
from ..data import TASKS, Columns, LabelledTexts, read_labelled, task_of
from ..data.scores import SCORES, classification_scores, confusion_matrices
from ..data.tokenized import tokenized
from ..defences import augmented, augmented_against
from ..files import read_json, write_json
from ..options import check_choices, option
from .optimization import HeadTrainer, OptimizationOptions, last_checkpoint, mean_loss
from .processes import in_first_process, is_first_process
from .recipe import CHECKPOINTS, FinetuningRecipe, options_as_json, save_history
from .starting_point import StartOptions
from .worst_of import AttackedCollator, AttackedTexts, WorstOfTrainer


def _shares(text: Any) -> tuple[float, float, float]:
    """ "8:1:1" as (0.8, 0.1, 0.1)."""
    try:
        parts = [float(part) for part in str(text).split(":")]
    except ValueError:
        parts = []
    if len(parts) != 3 or not all(0 < part < float("inf") for part in parts):
        raise ValueError(f"must be three numbers above 0 for train, dev and test, such as 8:1:1, got {text!r}")
    return tuple(part / sum(parts) for part in parts)


@dataclass
class RowOptions:
    """Which labelled rows to train and to measure on."""

    task: str | None = option(None, "a public task, with --data-dir", choices=TASKS)
    data_dir: str | None = option(None, "folder with the files of the public tasks")
    train_file: str | None = option(
        None,
        "rows of your own, instead of --task: .tsv, .csv, .jsonl or .json, also packed, or a dataset of the Hub as "
        "owner/name:config",
    )
    dev_file: str | None = option(
        None, "with --train-file: rows to stop early by", unset="a share of the train rows, see --dev-share"
    )
    test_file: str | None = option(
        None, "with --train-file: rows to measure on at the end", unset="those of the task, if there is one"
    )
    text_column: str = option("text", "column of the files that holds the text")
    pair_column: str | None = option(
        None, "column of the files that holds the second text of a pair", unset="single texts"
    )
    label_column: str = option("label", "column of the files that holds the label")
    dev_share: float = option(0.1, "share of the train rows to stop early by if there is no dev file")
    split: tuple | None = option(
        None,
        "divide the train rows at random into train, dev and test rows, in shares such as 8:1:1",
        parse=_shares,
        unset="no division",
    )
    limit: int | None = option(None, "train rows to use, drawn at random", unset="all")
    limit_per_label: int | None = option(None, "rows of each label to use, drawn at random before --split", unset="all")
    dev_limit: int | None = option(None, "dev rows to use, drawn at random", unset="all")
    positive_label: str | None = option(
        None,
        "of two labels, the one whose precision, recall and F1 are reported and chosen by",
        unset="their means over both labels",
    )
    metric: str = option("accuracy", "score of the dev rows to stop and choose by", choices=SCORES)

    def __post_init__(self):
        if (self.task is None) == (self.train_file is None):
            raise ValueError("give either task (with data_dir) or train_file")
        if self.task is not None and self.data_dir is None:
            raise ValueError("a task needs data_dir, the folder with its files")
        if self.task is None and self.data_dir is not None:
            raise ValueError("data_dir is the folder of a task's files, and train_file is no task: leave data_dir out")
        own = [name for name in ("dev_file", "test_file", "pair_column") if getattr(self, name) is not None]
        if self.task is not None and own:
            raise ValueError(f"{', '.join(own)} needs train_file: a task has files and columns of its own")
        check_choices(self)
        if not 0 < self.dev_share < 1:
            raise ValueError(f"dev_share must lie between 0 and 1, got {self.dev_share}")
        if self.split is not None and (self.dev_file or self.test_file):
            raise ValueError("split makes dev and test rows out of the train rows: leave dev_file and test_file out")
        if self.dev_share != type(self).dev_share and (self.dev_file or self.split is not None):
            there = "dev_file" if self.dev_file else "split"
            raise ValueError(f"dev_share divides the train rows if nothing else says which are dev rows: {there} does")
        for name in ("limit", "limit_per_label", "dev_limit"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")


@dataclass
class AugmentationOptions:
    """What is trained on: attacked texts beside the train rows, and how much each label counts."""

    worst_of: int = option(
        0,
        "in every step attack each text this many times afresh, and also train on the form that the classifier gets most "
        "wrong; the best epoch is the best on the dev rows and an attacked form of each of them; 0 for none",
    )
    agreement: float = option(
        5.0, "with --worst-of: weight of the difference between the answers to a text and its form"
    )
    augment: int = option(0, "attacked copies of each train row, made once")
    attacks: str = option("paper", f"what attacks these forms and copies: {ATTACKS_HELP}")
    augment_by: list[AttackerSpec] = option(
        [],
        "attackers, such as adv, textfooler and argot, with commas between: train once, attack the train rows against that "
        "classifier, and train again with what changed its answers (figure 2 of the paper)",
        parse=AttackerSpec.parse,
        separator=",",
    )
    class_weights: bool = option(False, "weigh each label by the inverse of its frequency")

    def __post_init__(self):
        for name in ("worst_of", "agreement", "augment"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        read_attacks(self.attacks)
        if self.agreement != type(self).agreement and not self.worst_of:
            raise ValueError(f"agreement needs worst_of, got {self.agreement} without it")
        if self.attacks != "paper" and not self.uses_attacks:
            raise ValueError(f"attacks needs worst_of or augment, got {self.attacks} without them")

    @property
    def uses_attacks(self) -> bool:
        """Whether `attacks` says anything about the result."""
        return bool(self.worst_of or self.augment)


@dataclass(frozen=True)
class ClassificationRows:
    """Rows with their labels as numbers, and the names of these numbers; `test` may be None."""

    labels: tuple[str, ...]
    train: list[Example]
    dev: list[Example]
    test: list[Example] | None
    name: str


class ClassificationRecipe(FinetuningRecipe):
    """Cross entropy on [CLS], one evaluation per epoch, the best epoch by the dev rows.

    Example::

        >>> recipe = ClassificationRecipe(
        ...     StartOptions(preset="tiny"), RowOptions(train_file="train.tsv"), OptimizationOptions(), AugmentationOptions()
        ... )
        >>> results = finetune(recipe, FinetuningOptions(output_dir="classifier"))  # doctest: +SKIP
    """

    OPTIONS = (StartOptions, RowOptions, OptimizationOptions, AugmentationOptions)

    def __init__(
        self,
        start: StartOptions,
        row_options: RowOptions,
        optimization: OptimizationOptions | None = None,
        augmentation: AugmentationOptions | None = None,
    ):
        self.start = start
        self.row_options = row_options
        self.optimization = optimization or OptimizationOptions()
        self.augmentation = augmentation or AugmentationOptions()
        self.rows: ClassificationRows | None = None
        self.positive: int | None = None

    def read(self) -> str:
        self.rows = rows = read_classification_rows(self.row_options)
        self.positive = positive_number(self.row_options, rows.labels)
        counts = (len(rows.train), len(rows.dev), len(rows.test or []))
        told = "{:,} train, {:,} dev, {:,} test rows; ".format(*counts) + f"{len(rows.labels)} labels"
        if len(rows.labels) == 2:
            scored = "both labels" if self.positive is None else f"the label {rows.labels[self.positive]}"
            told += f"; precision, recall and F1 are of {scored}"
        return told

    def settings(self) -> dict[str, Any]:
        options = options_as_json(self.start, self.row_options, self.optimization, self.augmentation)
        return {
            **options,
            "attacks": read_attacks(self.augmentation.attacks) if self.augmentation.uses_attacks else "",
            "rows": checksum(self.rows),
        }

    def train(self, seed: int, folder: Path, resume: bool) -> tuple[Any, Any, dict[str, Any]]:
        rows, augmentation, checkpoints = self.rows, self.augmentation, folder / CHECKPOINTS
        examples = rows.train
        if augmentation.augment:
            examples = augmented(examples, augmentation.augment, seed, read_attacks(augmentation.attacks))
        if augmentation.augment_by:
            examples = self._attacked_against(examples, seed, checkpoints / "before", resume)
        trainer, training = self._fit(examples, seed, checkpoints / "last", resume)
        save_history(trainer, folder)
        tokenizer, arguments = trainer.processing_class, trainer.args
        results = {
            "arguments": {
                **options_as_json(self.start, self.row_options, self.optimization, augmentation),
                "seed": seed,
                "train_file": self.row_options.train_file or f"{self.row_options.task} train",
                "attacks": augmentation.attacks if augmentation.uses_attacks else "",
                "learning_rate": arguments.learning_rate,
                "epochs": arguments.num_train_epochs,
                "batch_size": arguments.per_device_train_batch_size,
                "max_length": tokenizer.model_max_length,
            },
            "training": {
                "examples": len(examples),
                "epochs": trainer.state.epoch,
                "loss": mean_loss(trainer.state),
                "seconds": training.metrics["train_runtime"],
            },
            "dev": measured_on(trainer, rows.dev, tokenizer),
        }
        if rows.test is not None:
            results["test"] = measured_on(trainer, rows.test, tokenizer)
        return trainer.model, tokenizer, results

    def start_model(self) -> tuple[Any, Any]:
        """(model, tokenizer) before training; the head is drawn from torch's global generator."""
        task_length = task_of(self.row_options.task).max_length if self.row_options.task else 128
        return self.start.make("SequenceClassification", self.rows.labels, task_length)

    def _attacked_against(self, examples: list[Example], seed: int, folder: Path, resume: bool) -> list[Example]:
        """The examples, and what the attackers find against a classifier that is trained on them; kept in `folder`."""
        kept = folder / "found.json"
        if resume and kept.is_file():
            return [Example(*row) for row in read_json(kept, list)]
        trainer, _ = self._fit(examples, seed, folder, resume)
        classifier = ModelClassifier(trainer.model, trainer.processing_class)
        attackers = [spec.build() for spec in self.augmentation.augment_by]
        found = augmented_against(classifier, examples, attackers, seed, progress=is_first_process())
        print(f"{len(found) - len(examples):,} texts that changed the classifier's answer join the train rows")
        rows = [(example.text, example.label, example.text_pair) for example in found]
        in_first_process(lambda: write_json(kept, rows))
        return found

    def _fit(self, examples: list[Example], seed: int, folder: Path, resume: bool) -> tuple[HeadTrainer, Any]:
        """(trainer, what its training returned), with the checkpoints in `folder`."""
        set_seed(seed)
        rows = self.rows
        model, tokenizer = self.start_model()
        arguments = self.optimization.training_arguments(
            folder, seed, self.start, model.config.hidden_size, self.row_options.metric
        )
        dev = rows.dev
        if draws := self.augmentation.worst_of:
            synthesizer = AdversarialSynthesizer(read_attacks(self.augmentation.attacks))
            dataset, collator = AttackedTexts(examples, draws, seed), AttackedCollator(tokenizer, synthesizer)
            dev = augmented(dev, 1, seed, synthesizer)  # early stopping by the robust accuracy (Rice et al., ICML 2020)
        else:
            dataset, collator = tokenized_examples(examples, tokenizer), DataCollatorWithPadding(tokenizer)
        trainer = (partial(WorstOfTrainer, agreement=self.augmentation.agreement) if draws else HeadTrainer)(
            model,
            arguments,
            learning_rates=self.optimization.learning_rates,
            average_decay=self.optimization.average_decay,
            train_dataset=dataset,
            eval_dataset=tokenized_examples(dev, tokenizer),
            processing_class=tokenizer,
            data_collator=collator,
            compute_metrics=self.scores,
            compute_loss_func=weighted_loss(rows.train, len(rows.labels)) if self.augmentation.class_weights else None,
            callbacks=[EarlyStoppingCallback(self.optimization.patience)],
        )
        return trainer, trainer.train(resume_from_checkpoint=last_checkpoint(folder) if resume else None)

    def scores(self, prediction: Any) -> dict[str, float]:
        """Accuracy, F1, precision and recall of a transformers `EvalPrediction`."""
        logits = prediction.predictions[0] if isinstance(prediction.predictions, tuple) else prediction.predictions
        confusion = confusion_matrices(prediction.label_ids, logits.argmax(-1), logits.shape[-1])
        return {name: float(score) for name, score in classification_scores(confusion, self.positive).items()}


def read_classification_rows(options: RowOptions) -> ClassificationRows:
    """All rows, with their labels checked.

    Raises:
        ValueError, OSError: a file cannot be used, or there are too few rows or labels.
    """
    dev = test = names = None
    if options.task is not None:
        task = task_of(options.task)
        train, names = task.read(options.data_dir, "train"), task.labels
        if options.split is None:
            test = task.read(options.data_dir)
            # a dev split that is measured on is not what the training stops by
            if task.test_split != "dev" and task.file(options.data_dir, "dev"):
                if options.dev_share != RowOptions.dev_share:
                    raise ValueError(f"dev_share would do nothing: the task {options.task} has dev rows of its own")
                dev = task.read(options.data_dir, "dev")
    else:
        columns = Columns(options.text_column, options.pair_column, options.label_column)
        train = read_labelled(options.train_file, columns, "train")
        train.check_classes()
        dev = read_labelled(options.dev_file, columns, "validation") if options.dev_file else None
        test = read_labelled(options.test_file, columns, "test") if options.test_file else None
    labels = names or train.label_names()
    if len(labels) < 2:
        raise ValueError(f"labels of {train.name} must be at least two, got {', '.join(labels)} alone")
    if options.limit_per_label is not None:
        train = train.balanced(options.limit_per_label)
    if options.split is not None:
        train, dev, test = divided(train, options.split)
    train = train.sample(options.limit)
    if dev is None:
        if len(train) < 2:
            raise ValueError(f"{train.name} must have at least two rows, one of them to stop by, got {len(train)}")
        train, dev = train.split(options.dev_share)
    dev = dev.sample(options.dev_limit)
    # of a file without order of its own the numbers are alphabetical, which nobody means who writes numbers in another file
    or_numbers = options.task is not None or train.numbered
    parts = (None if rows is None else in_numbers(rows, labels, or_numbers) for rows in (train, dev, test))
    return ClassificationRows(labels, *parts, train.name)


def divided(rows: LabelledTexts, shares: Sequence[float]) -> tuple[LabelledTexts, LabelledTexts, LabelledTexts]:
    """Train, dev and test rows drawn at random in these shares of the whole.

    Raises:
        ValueError: a part would be empty.
    """
    train, test = rows.split(shares[2])
    if len(train) >= 2:
        train, dev = train.split(shares[1] / (shares[0] + shares[1]))
    if len(rows) < 3 or not len(train):
        raise ValueError(f"split needs at least three rows, got {len(rows)}")
    return train, dev, test


def positive_number(options: RowOptions, labels: Sequence[str]) -> int | None:
    """The number of the positive label, None for means over all labels.

    A public task whose labels are 0 and 1 means 1.

    Raises:
        ValueError: there is no such label, or there are more than two.
    """
    name = options.positive_label
    if name is None:
        return 1 if options.task is not None and tuple(labels) == ("0", "1") else None
    if len(labels) != 2:
        raise ValueError(f"positive_label is for two labels; there are {len(labels)}")
    if name not in labels:
        raise ValueError(f"positive_label must be one of {', '.join(labels)}, got {name!r}")
    return labels.index(name)


def in_numbers(rows: LabelledTexts, labels: Sequence[str], or_numbers: bool = True) -> list[Example]:
    """The rows with their labels as numbers of `labels`; see `LabelledTexts.label_ids`."""
    pairs = rows.pairs or [None] * len(rows)
    return [Example(*row) for row in zip(rows.texts, rows.label_ids(labels, or_numbers), pairs, strict=True)]


def checksum(rows: ClassificationRows) -> str:
    """A hash of all rows, in their order."""
    digest = hashlib.blake2b(digest_size=16)
    for part in (rows.train, rows.dev, rows.test or []):
        for example in part:
            digest.update(repr((example.text, example.text_pair, example.label)).encode("utf-8", "surrogatepass"))
        digest.update(b"\0")
    return digest.hexdigest()


def tokenized_examples(examples: Sequence[Example], tokenizer) -> list[dict[str, Any]]:
    """What a Trainer takes as a dataset; see `rocbert_hf.data.tokenized`."""
    pairs = [example.text_pair for example in examples] if examples[0].text_pair is not None else None
    labels = [example.label for example in examples]
    return tokenized([example.text for example in examples], labels, tokenizer, pairs)


def measured_on(
    trainer: HeadTrainer, examples: Sequence[Example], tokenizer, scores: Sequence[str] = SCORES
) -> dict[str, float]:
    """Loss and scores on these examples."""
    metrics = trainer.predict(tokenized_examples(examples, tokenizer), metric_key_prefix="test").metrics
    return {name: metrics[f"test_{name}"] for name in ("loss", *scores)}


def weighted_loss(examples: Sequence[Example], num_labels: int) -> Callable:
    """Cross entropy in which every label that occurs weighs the same in total.

    A label that does not occur weighs 1, so that the loss of dev rows with that label alone is a number.

    Returns:
        (outputs, labels, num_items_in_batch) -> loss, as Trainer's `compute_loss_func`.
    """
    counts = np.bincount([example.label for example in examples], minlength=num_labels)
    weights = np.divide(len(examples), counts * (counts > 0).sum(), out=np.ones(num_labels), where=counts > 0)
    weights = torch.tensor(weights, dtype=torch.float32)

    def loss(outputs, labels, num_items_in_batch=None):
        logits, of_label = outputs.logits.float(), weights.to(labels.device)
        if num_items_in_batch is None:
            return torch.nn.functional.cross_entropy(logits, labels, weight=of_label)
        # under gradient accumulation: the sum over all steps' rows, divided by their number
        total = torch.nn.functional.cross_entropy(logits, labels, weight=of_label, reduction="sum")
        return total / num_items_in_batch

    return loss

"""
Finetune a classifier on few labelled and many unlabelled texts: `rocbert finetune --unlabelled FILE`.

After "ESimCSE Unsupervised Contrastive Learning Jointly with UDA Semi-Supervised Learning for Large Label System Text
Classification" (2023); see `semi_supervised_trainer` for the loss.
"""

from __future__ import annotations

import copy
import hashlib
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from transformers import EarlyStoppingCallback, TrainingArguments, set_seed
from transformers.trainer_utils import IntervalStrategy

from ..attackers import ModelClassifier
from ..data import read_rows, task_of
from ..data.scores import SCORES
from ..data.tables import table_format
from ..options import REQUIRED, check_choices, default_of, option
from .adversarial import ADVERSARIAL_METHODS, AdversarialMethod, make_adversarial
from .classification import ClassificationRecipe, RowOptions, checksum, measured_on, tokenized_examples
from .consistency import ANNEALINGS, CONSISTENCY_LOSSES, TARGETS, ConsistencyTarget, make_target
from .esimcse import ESimCSE, GradedNegative, queue_size_for
from .label_hierarchy import HierarchicalLoss, LabelHierarchy
from .optimization import OptimizationOptions, last_checkpoint, mean_loss
from .recipe import CHECKPOINTS, options_as_json, save_history
from .representation_hooks import encoder_of
from .semi_supervised_trainer import SemiSupervisedObjective, SemiSupervisedTrainer
from .starting_point import StartOptions
from .text_augmentation import AUGMENTATIONS, WordRepetition, make_augmentation
from .unlabelled_texts import SemiSupervisedCollator, SemiSupervisedTexts

SUPERVISED, ESIMCSE = "supervised", "esimcse"
# the parts of a recipe, and what each may be
PARTS = {"target": tuple(TARGETS), "esimcse": (ESIMCSE,), "adversarial": tuple(ADVERSARIAL_METHODS)}
OF_TARGETS = ("confidence", "temperature", "warm_up")
# options that change nothing without their part
OPTIONS_OF = {
    "target": (*OF_TARGETS, "augmentation", "consistency", "consistency_weight", "mixup"),
    "esimcse": (
        "contrastive_share",
        "contrastive_temperature",
        "momentum",
        "queue_size",
        "dup_rate",
        "graded_negatives",
    ),
    "adversarial": ("epsilon", "alpha", "steps", "adversarial_weight"),
    "needs_unlabelled": ("unlabelled_ratio",),
}
# what must be in a recipe that has these
NAMES = {**PARTS, "needs_unlabelled": (*PARTS["target"], *PARTS["esimcse"])}
# unlabelled texts that the finished model is asked about, to see whether it says one label of all
ASKED = 2000


@dataclass(frozen=True)
class MethodSpec:
    """What to train with, as "uda+esimcse+pgd" says it.

    Args:
        target: of `TARGETS`; None to learn nothing from what the model says of unlabelled texts.
        esimcse: contrastive loss on unlabelled texts.
        adversarial: of `ADVERSARIAL_METHODS`, on labelled texts; None without.
    """

    target: str | None = None
    esimcse: bool = False
    adversarial: str | None = None

    @classmethod
    def parse(cls, text: str) -> MethodSpec:
        """Parts with + between, in any order; "supervised" alone for none of them.

        Raises:
            ValueError: a part is unknown, or two of one kind are given.
        """
        found: dict[str, Any] = {}
        for part in str(text).split("+") if text != SUPERVISED else []:
            for kind, names in PARTS.items():
                if part in names and kind not in found:
                    found[kind] = True if kind == "esimcse" else part
                    break
            else:
                raise ValueError(
                    f"must be {SUPERVISED}, or with + between at most one of {', '.join(TARGETS)}, {ESIMCSE}, and at most "
                    f"one of {', '.join(ADVERSARIAL_METHODS)}, got {text!r}"
                )
        return cls(**found)

    def __str__(self) -> str:
        parts = (self.target, ESIMCSE if self.esimcse else None, self.adversarial)
        return "+".join(part for part in parts if part) or SUPERVISED

    @property
    def needs_unlabelled(self) -> bool:
        return self.target is not None or self.esimcse


@dataclass
class UnlabelledOptions:
    """Which texts without labels to learn from, and how."""

    unlabelled: str = option(REQUIRED, "texts without labels: .txt, or a table with the text column")
    recipe: MethodSpec = option(
        MethodSpec("uda", True),  # the best that was measured: docs/results/semi_supervised.md
        "what to learn beside the labelled texts: one of uda, fixmatch, softmatch and pseudo-labels; esimcse; one of fgm, fgsm, "
        "pgd and freelb; with + between; or supervised for none of these",
        parse=MethodSpec.parse,
    )
    unlabelled_ratio: int = option(3, "unlabelled texts per labelled text")
    unlabelled_limit: int | None = option(None, "unlabelled texts to use, from the first on", unset="all")
    ignore_labels: bool = option(False, "read unlabelled texts from a file that has labels, without using these")
    augmentation: list[str] = option(
        ["eda"],
        "how to change an unlabelled text into one that must get the same answer; of several, one is drawn per text",
        choices=AUGMENTATIONS,
        separator=",",
    )
    consistency: str = option("kl", "how to compare the two answers", choices=CONSISTENCY_LOSSES)
    consistency_weight: float = option(1.0, "weight of the unlabelled texts' loss (lambda)")
    confidence: float | None = option(
        None,
        "least probability of an answer for its unlabelled text to count",
        unset="the method's own (uda 0.8, fixmatch 0.95)",
    )
    temperature: float | None = option(
        None, "with uda: the answers are divided by this, which sharpens them", unset="0.4"
    )
    warm_up: float | None = option(
        None,
        "share of the steps in which the unlabelled texts' weight rises from 0",
        unset="the method's: softmatch 0.3, pseudo-labels 0.4, others 0",
    )
    mixup: float = option(0.0, "mix representations of unlabelled texts in shares of Beta(X, X); 0 for no mixing")
    annealing: str | None = option(
        None,
        "leave out labelled texts that the model is sure of; the bar rises during the run, in this form",
        choices=ANNEALINGS,
        unset="none are left out",
    )
    adversarial_weight: float = option(
        1.0, "with fgm, fgsm or pgd: weight of the adversarial loss (alpha of the paper)"
    )
    epsilon: float | None = option(
        None, "with fgm, fgsm, pgd or freelb: size of the perturbation", unset="the method's own"
    )
    alpha: float | None = option(None, "with pgd or freelb: size of a step", unset="the method's own")
    steps: int | None = option(None, "with pgd or freelb: number of steps", unset="the method's own")
    contrastive_share: float = option(0.1, "with esimcse: its share of the loss (1 - w of the paper)")
    contrastive_temperature: float = option(0.05, "with esimcse: what cosines are divided by")
    momentum: float = option(
        0.995, "with esimcse: how slowly the copy of the encoder, which represents earlier texts, follows it"
    )
    queue_size: int | None = option(
        None, "with esimcse: number of earlier texts that serve as negatives", unset="2.5 times the texts per step"
    )
    dup_rate: float = option(0.32, "with esimcse: share of a text's characters that are repeated, at most")
    graded_negatives: bool = option(
        False, "with esimcse: also texts that eda makes as negatives, graded by edit distance"
    )
    level_weight: float = option(0.0, "with labels such as a/b/c: weight of the loss at each level above the last")

    def __post_init__(self):
        check_choices(self)
        for name, least in (("unlabelled_ratio", 1), ("unlabelled_limit", 1), ("queue_size", 0), ("level_weight", 0)):
            if (value := getattr(self, name)) is not None and value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        for name in ("adversarial_weight", "dup_rate"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        self._check_parts()
        self.objective()
        if self.recipe.target is not None:
            self.target(2)

    def _check_parts(self) -> None:
        """Raises ValueError where an option would change nothing."""
        defaults = default_options()
        given = [name for name, default in defaults.items() if getattr(self, name) != default]
        for part, names in OPTIONS_OF.items():
            unused = [name for name in names if name in given]
            if unused and not getattr(self.recipe, part):
                raise ValueError(f"{', '.join(unused)} needs {', '.join(NAMES[part])} in recipe, got {self.recipe}")
        if "augmentation" in given and not TARGETS[self.recipe.target].trains_on_augmented:
            raise ValueError(
                f"augmentation is not used by {self.recipe.target}, which learns from the texts themselves"
            )
        if "adversarial_weight" in given and self.recipe.adversarial == "freelb":
            raise ValueError("adversarial_weight is not used by freelb, which has no loss of the texts as they are")

    def target(self, labels: int) -> ConsistencyTarget:
        """The target, for so many labels."""
        return make_target(self.recipe.target, labels, **{name: getattr(self, name) for name in OF_TARGETS})

    def method(self) -> AdversarialMethod | None:
        """The adversarial method; None for none."""
        if self.recipe.adversarial is None:
            return None
        given = {"epsilon": self.epsilon, "alpha": self.alpha, "steps": self.steps}
        if self.recipe.adversarial != "freelb":
            given["weight"] = self.adversarial_weight
        return make_adversarial(self.recipe.adversarial, **given)

    def objective(self, **parts: Any) -> SemiSupervisedObjective:
        """What is minimised, with the parts that need a model."""
        return SemiSupervisedObjective(
            consistency=self.consistency,
            consistency_weight=self.consistency_weight,
            mixup=self.mixup,
            annealing=self.annealing,
            adversarial=self.method(),
            contrastive_share=self.contrastive_share,
            **parts,
        )


def default_options() -> dict[str, Any]:
    """The options of the parts of a recipe, as they are if nobody gives them."""
    default = {of.name: default_of(of) for of in fields(UnlabelledOptions)}
    return {name: default[name] for names in OPTIONS_OF.values() for name in names}


class SemiSupervisedRecipe(ClassificationRecipe):
    """Few labelled and many unlabelled texts; one evaluation per epoch of the labelled ones, the best by the dev rows.

    Example::

        >>> recipe = SemiSupervisedRecipe(
        ...     StartOptions(model="rocbert-small"),
        ...     RowOptions(train_file="tickets.csv"),
        ...     unlabelled_options=UnlabelledOptions("dump.txt", MethodSpec.parse("uda+esimcse+pgd")),
        ... )
        >>> results = finetune(recipe, FinetuningOptions(output_dir="classifier"))  # doctest: +SKIP
    """

    OPTIONS = (StartOptions, RowOptions, OptimizationOptions, UnlabelledOptions)

    def __init__(
        self,
        start: StartOptions,
        row_options: RowOptions,
        optimization: OptimizationOptions | None = None,
        unlabelled_options: UnlabelledOptions | None = None,
    ):
        super().__init__(start, row_options, optimization)
        if unlabelled_options is None:
            raise ValueError("unlabelled_options must say which texts without labels to learn from, got None")
        if row_options.pair_column or (row_options.task and task_of(row_options.task).columns.text_pair):
            raise ValueError(
                "semi-supervised training is of single texts: pair_column, and tasks of pairs, cannot be used"
            )
        self.unlabelled_options = unlabelled_options
        self.unlabelled: list[str] = []
        self.hierarchy: LabelHierarchy | None = None

    def without_unlabelled(self) -> SemiSupervisedRecipe:
        """The same recipe on the labelled texts alone, to compare with."""
        alone = copy.copy(self)
        method, default = replace(self.unlabelled_options.recipe, target=None, esimcse=False), default_options()
        unused = {
            name: default[name] for part in ("target", "esimcse", "needs_unlabelled") for name in OPTIONS_OF[part]
        }
        alone.unlabelled_options = replace(self.unlabelled_options, recipe=method, **unused)
        return alone

    def read(self) -> str:
        told = [super().read()]
        options, rows = self.unlabelled_options, self.rows
        self.unlabelled, repeated = read_unlabelled(options, self.row_options)
        told.append(
            f"{len(self.unlabelled):,} unlabelled texts"
            + (f" ({repeated:,} repeated ones left out)" if repeated else "")
        )
        if unmeasured := len(rows.labels) - len({example.label for example in rows.dev}):
            told.append(f"labels without a dev row, of which nothing is known while training: {unmeasured}")
        self.hierarchy = LabelHierarchy.of(rows.labels)
        if self.hierarchy is not None:
            told.append(f"labels are paths of up to {self.hierarchy.depth} levels")
        elif options.level_weight:
            raise ValueError(
                f"level_weight needs labels that are paths, such as a/b/c, got {', '.join(rows.labels[:3])}"
            )
        return "; ".join(told)

    def settings(self) -> dict[str, Any]:
        texts = hashlib.sha256("\0".join(self.unlabelled).encode("utf-8", "surrogatepass")).hexdigest()
        return {
            **options_as_json(self.start, self.row_options, self.optimization, self.unlabelled_options),
            "rows": checksum(self.rows),
            "unlabelled_texts": texts,
        }

    def train(self, seed: int, folder: Path, resume: bool) -> tuple[Any, Any, dict[str, Any]]:
        trainer = self.trainer(seed, folder / CHECKPOINTS)
        training = trainer.train(resume_from_checkpoint=last_checkpoint(folder / CHECKPOINTS) if resume else None)
        save_history(trainer, folder)
        tokenizer, arguments, rows = trainer.processing_class, trainer.args, self.rows
        share = largest_class(trainer.model, tokenizer, self.unlabelled)
        limit = collapse_limit([example.label for example in rows.train])
        if share > limit:
            print(f"collapsed: the model gives {share:.0%} of the unlabelled texts one label (limit: {limit:.0%})")
        results = {
            "arguments": {
                **options_as_json(self.start, self.row_options, self.optimization, self.unlabelled_options),
                "seed": seed,
                "train_file": self.row_options.train_file or f"{self.row_options.task} train",
                "learning_rate": arguments.learning_rate,
                "epochs": arguments.num_train_epochs,
                "batch_size": arguments.per_device_train_batch_size,
                "max_length": tokenizer.model_max_length,
            },
            "training": {
                "examples": len(rows.train),
                "unlabelled": len(self.unlabelled) if self.unlabelled_options.recipe.needs_unlabelled else 0,
                "unlabelled_used": used_share(trainer.state.log_history),
                "largest_class": share,
                "collapsed": share > limit,
                "epochs": trainer.state.epoch,
                "loss": mean_loss(trainer.state),
                "seconds": training.metrics["train_runtime"],
            },
            "dev": measured_on(trainer, rows.dev, tokenizer, self._scores),
        }
        if rows.test is not None:
            results["test"] = measured_on(trainer, rows.test, tokenizer, self._scores)
        return trainer.model, tokenizer, results

    def trainer(self, seed: int, folder: Path) -> SemiSupervisedTrainer:
        """The trainer of one run, with checkpoints in `folder`."""
        set_seed(seed)
        rows, options = self.rows, self.unlabelled_options
        model, tokenizer = self.start_model()
        uses = options.recipe.needs_unlabelled
        texts = SemiSupervisedTexts(
            [example.text for example in rows.train],
            [example.label for example in rows.train],
            self.unlabelled if uses else (),
            options.unlabelled_ratio,
            make_augmentation(options.augmentation, self.unlabelled),
            WordRepetition(options.dup_rate) if options.recipe.esimcse else None,
            GradedNegative() if options.recipe.esimcse and options.graded_negatives else None,
            seed,
        )
        arguments = self.optimization.training_arguments(
            folder, seed, self.start, model.config.hidden_size, self.row_options.metric
        )
        arguments.train_sampling_strategy = "random"  # grouping by length would make every item before training
        arguments.logging_strategy, arguments.logging_steps = IntervalStrategy.STEPS, 0.02  # of all steps
        return SemiSupervisedTrainer(
            model,
            arguments,
            objective=self._objective(model, arguments),
            learning_rates=self.optimization.learning_rates,
            average_decay=self.optimization.average_decay,
            train_dataset=texts,
            eval_dataset=tokenized_examples(rows.dev, tokenizer),
            processing_class=tokenizer,
            data_collator=SemiSupervisedCollator(tokenizer),
            compute_metrics=self.scores,
            callbacks=[EarlyStoppingCallback(self.optimization.patience)],
        )

    def _objective(self, model: Any, arguments: TrainingArguments) -> SemiSupervisedObjective:
        options, method = self.unlabelled_options, self.unlabelled_options.recipe
        parts: dict[str, Any] = {}
        if method.target is not None:
            parts["target"] = options.target(model.config.num_labels)
        if method.esimcse:
            texts_per_step = arguments.train_batch_size * arguments.world_size * options.unlabelled_ratio
            size = queue_size_for(texts_per_step) if options.queue_size is None else options.queue_size
            parts["esimcse"] = ESimCSE(encoder_of(model), size, options.momentum, options.contrastive_temperature)
        if options.level_weight:
            parts["hierarchy"] = HierarchicalLoss(self.hierarchy, options.level_weight)
        return options.objective(**parts)

    def scores(self, prediction: Any) -> dict[str, float]:
        """As for any classification, and the accuracy at each level of labels that are paths."""
        found = super().scores(prediction)
        if self.hierarchy is not None:
            logits = prediction.predictions[0] if isinstance(prediction.predictions, tuple) else prediction.predictions
            found |= self.hierarchy.accuracy_by_level(prediction.label_ids, logits.argmax(-1))
        return found

    @property
    def _scores(self) -> tuple[str, ...]:
        levels = range(1, self.hierarchy.depth + 1) if self.hierarchy is not None else ()
        return (*SCORES, *(f"accuracy_level_{level}" for level in levels))


def read_unlabelled(options: UnlabelledOptions, rows: RowOptions) -> tuple[list[str], int]:
    """(different texts in the order of the file, how many were left out as they had been there before).

    Raises:
        ValueError, OSError: the file cannot be read, has no text column or text, or has labels.
    """
    source = options.unlabelled
    name = "text" if table_format(source) == ".txt" else rows.text_column
    found: dict[str, None] = {}
    count = 0
    for where, values in read_rows(source):
        if name not in values:
            raise ValueError(f"unlabelled must have the column {name}, but {source} has {', '.join(values)}")
        if rows.label_column in values and not options.ignore_labels:
            raise ValueError(
                f"unlabelled must have no labels, but {source} has a column {rows.label_column}: name the file with "
                "train_file, or give ignore_labels"
            )
        text = values[name]
        if not isinstance(text, str):
            raise ValueError(f"{where}: {name} must be a string, got {text!r}")
        if text.strip():
            found[text] = None
            count += 1
        if len(found) == options.unlabelled_limit:
            break
    if not found:
        raise ValueError(f"unlabelled must have at least one text, {source} has none")
    return list(found), count - len(found)


def used_share(log: Sequence[Mapping[str, float]]) -> float:
    """The share of the unlabelled texts that the target gave a weight, over a whole training; 0 without target."""
    shares = [row["used"] for row in log if "used" in row]
    return sum(shares) / len(shares) if shares else 0.0


def largest_class(model: Any, tokenizer: Any, texts: Sequence[str]) -> float:
    """The share of the texts in the label that the model says most often: 1 if it says the same of all.

    Of many texts it is asked about some that are drawn at random, as files are often sorted by what they are about.
    """
    asked = random.Random(0).sample(texts, min(ASKED, len(texts)))
    predicted = ModelClassifier(model, tokenizer)(asked).argmax(-1)
    return max(Counter(predicted.tolist()).values()) / len(asked)


def collapse_limit(labels: Sequence[int]) -> float:
    """The share in one label from which on a model has collapsed: halfway from the most frequent label's to all."""
    return (1 + max(Counter(labels).values()) / len(labels)) / 2

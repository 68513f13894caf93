"""
Train a tagger of named entities: RoCBERT, or any token classifier of transformers, on a file of labelled texts.

After "Study on Chinese Named Entity Recognition Based on Dynamic Fusion and Adversarial Training" (2022): relative
positions, a mean of all layers, BiLSTM and CRF, and adversarial training, each of them an option.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForTokenClassification,
    AutoTokenizer,
    DataCollatorForTokenClassification,
    EarlyStoppingCallback,
    set_seed,
)

from ..checkpoints import loading, refuse_made_up_encoder, text_length
from ..configuration_rocbert import CLASSIFIER_HEADS, LAYER_FUSIONS, POSITION_EMBEDDING_TYPES, RoCBertConfig
from ..data.entities import SCHEMES, EntityText, EntityTexts, label_names
from ..data.entity_files import read_entities
from ..data.entity_metrics import entity_scores
from ..modeling_rocbert import RoCBertForTokenClassification
from ..options import REQUIRED, check_choices, option
from ..tokenization_rocbert import RoCBertTokenizer
from .adversarial import ADVERSARIAL_METHODS, AdversarialMethod, AdversarialTrainer, make_adversarial
from .optimization import HeadTrainer, OptimizationOptions, last_checkpoint, mean_loss
from .recipe import CHECKPOINTS, FinetuningRecipe, options_as_json, save_history
from .starting_point import StartOptions
from .tagger import LONGEST_PIECE, EntityTagger, scores_of_rows, tagged_rows

# `--preset bilstm`: the network without an encoder that NER papers compare with
NO_ENCODER = "bilstm"
BILSTM_SIZES = {"num_hidden_layers": 0, "hidden_size": 100, "num_attention_heads": 1, "intermediate_size": 100}
# learning rates of a checkpoint's encoder and of the head: the paper's, and what an encoder up to 512 wide needs
BASE_RATES, SMALL_RATES, SMALL = (5e-5, 1e-4), (2e-4, 2e-3), 512
SCRATCH_HEAD_RATE = 1e-3


@dataclass
class EntityRowOptions:
    """Which texts to train and to measure on."""

    train_file: str = option(REQUIRED, "columns (BMES, BIO, IOBES), .jsonl with spans, a saved dataset, or demo")
    dev_file: str | None = option(
        None, "texts to choose the best epoch by", unset="a share of the train texts, see --dev-share"
    )
    test_file: str | None = option(None, "texts to measure on at the end")
    dev_share: float = option(0.1, "share of the train texts to choose by if there is no dev file")
    limit: int | None = option(None, "train texts to use, from the first on", unset="all")
    file_scheme: str | None = option(None, "tags of the files", choices=SCHEMES, unset="recognised")
    scheme: str | None = option(
        None, "tags that the model learns", choices=SCHEMES, unset="those of the train file, or BMES if it has spans"
    )
    skip_malformed: bool = option(False, "leave out sentences whose tags break the scheme, instead of stopping")

    def __post_init__(self):
        check_choices(self)
        if not 0 < self.dev_share < 1:
            raise ValueError(f"dev_share must lie between 0 and 1, got {self.dev_share}")
        if self.dev_share != type(self).dev_share and self.dev_file:
            raise ValueError(
                "dev_share divides the train texts if nothing else says which are dev texts: dev_file does"
            )
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"limit must be at least 1, got {self.limit}")


@dataclass
class TaggerOptions:
    """What the tagger is made of. `--preset bilstm` has vectors of 100 numbers instead of an encoder."""

    classifier_head: str = option("bilstm_crf", "what is above the encoder", choices=CLASSIFIER_HEADS)
    position_embedding_type: str | None = option(
        None, "positions in the encoder", choices=POSITION_EMBEDDING_TYPES, unset="as the model has them"
    )
    max_relative_position: int | None = option(
        None, "clip the distance of relative positions to this many tokens", unset="as the model does"
    )
    layer_fusion: str | None = option(
        None,
        "what the encoder puts out: dynamic is a learned mean of all layers",
        choices=LAYER_FUSIONS,
        unset="its last layer",
    )

    def __post_init__(self):
        check_choices(self)


@dataclass
class TaggingOptimization(OptimizationOptions):
    """How to train the tagger."""

    learning_rate: float | None = option(
        None, "highest learning rate of the encoder", unset="by the size of the model; for a base-size checkpoint 5e-5"
    )
    head_learning_rate: float | None = option(
        None,
        "highest learning rate of BiLSTM and classifier",
        unset="by the size of the model; for a base-size checkpoint 1e-4",
    )
    crf_learning_rate: float = option(0.5, "highest learning rate of the CRF's transitions")
    epochs: float | None = option(8.0, "passes over the train texts, at most")
    batch_size: int | None = option(16, "texts per step, in each process")
    warmup_ratio: float = option(0.05, "share of the steps in which the learning rates rise")
    adversarial: str | None = option(
        None, "adversarial training on perturbed embeddings, by this method", choices=ADVERSARIAL_METHODS, unset="none"
    )
    epsilon: float | None = option(None, "with --adversarial: size of the perturbation", unset="the method's own")
    alpha: float | None = option(None, "with --adversarial pgd or freelb: size of a step", unset="the method's own")
    steps: int | None = option(None, "with --adversarial pgd or freelb: number of steps", unset="the method's own")

    def __post_init__(self):
        super().__post_init__()
        check_choices(self)
        if not self.crf_learning_rate > 0:
            raise ValueError(f"crf_learning_rate must be above 0, got {self.crf_learning_rate}")
        self.method()

    def method(self) -> AdversarialMethod | None:
        """The adversarial method; None for plain training."""
        given = {"epsilon": self.epsilon, "alpha": self.alpha, "steps": self.steps}
        if self.adversarial is not None:
            return make_adversarial(self.adversarial, **given)
        if unused := [name for name, value in given.items() if value is not None]:
            raise ValueError(f"{', '.join(unused)} needs adversarial, one of {', '.join(ADVERSARIAL_METHODS)}")
        return None


@dataclass(frozen=True)
class TaggingTexts:
    """Labelled texts of a run; `test` may be None."""

    train: tuple[EntityText, ...]
    dev: tuple[EntityText, ...]
    test: tuple[EntityText, ...] | None
    types: tuple[str, ...]
    scheme: str


class TaggingTrainer(AdversarialTrainer, HeadTrainer):
    """`AdversarialTrainer` and `HeadTrainer` in one; transitions do not decay."""

    def get_decay_parameter_names(self, model) -> list[str]:
        return [name for name in super().get_decay_parameter_names(model) if "transitions" not in name]


class TaggingRecipe(FinetuningRecipe):
    """One tag per token; one evaluation per epoch, the best epoch by strict F1 on the dev texts.

    Example::

        >>> recipe = TaggingRecipe(StartOptions(preset="tiny"), EntityRowOptions(train_file="demo"))
        >>> results = finetune(recipe, FinetuningOptions(output_dir="tagger"))  # doctest: +SKIP
    """

    OPTIONS = (StartOptions, EntityRowOptions, TaggerOptions, TaggingOptimization)

    def __init__(
        self,
        start: StartOptions,
        row_options: EntityRowOptions,
        tagger_options: TaggerOptions | None = None,
        optimization: TaggingOptimization | None = None,
    ):
        self.start = start
        self.row_options = row_options
        self.tagger_options = tagger_options or TaggerOptions()
        self.optimization = optimization or TaggingOptimization()
        rate, head = self.optimization.crf_learning_rate, self.tagger_options.classifier_head
        if rate != TaggingOptimization.crf_learning_rate and "crf" not in head:
            raise ValueError(f"crf_learning_rate needs a classifier_head with a CRF, got {rate} and {head}")
        self.texts: TaggingTexts | None = None

    def read(self) -> str:
        self.texts = texts = read_texts(self.row_options)
        counts = (len(texts.train), len(texts.dev), len(texts.test or ()))
        return "{:,} train, {:,} dev, {:,} test texts; ".format(*counts) + f"{', '.join(texts.types)}; {texts.scheme}"

    def settings(self) -> dict[str, Any]:
        rows = hashlib.sha256(repr(self.texts).encode("utf-8", "surrogatepass")).hexdigest()
        return {
            **options_as_json(self.start, self.row_options, self.tagger_options, self.optimization),
            "rows": rows,
        }

    def train(self, seed: int, folder: Path, resume: bool) -> tuple[Any, Any, dict[str, Any]]:
        set_seed(seed)
        texts, start = self.texts, self.start
        labels = label_names(texts.types, texts.scheme)
        model, tokenizer = make_tagger(start, self.tagger_options, labels, texts.scheme)
        optimization, head_rate = self.optimization, SCRATCH_HEAD_RATE
        if start.model is not None:
            encoder_rate, head_rate = SMALL_RATES if model.config.hidden_size <= SMALL else BASE_RATES
            optimization = dataclasses.replace(optimization, learning_rate=optimization.learning_rate or encoder_rate)
        head_rate = optimization.head_learning_rate or head_rate
        arguments = optimization.training_arguments(
            folder / CHECKPOINTS, seed, start, model.config.hidden_size, metric="f1"
        )
        rows = {
            name: tagged_rows(part, tokenizer, labels, texts.scheme, tokenizer.model_max_length)
            for name, part in (("train", texts.train), ("dev", texts.dev))
        }
        if blank := [name for name, part in rows.items() if not part]:
            raise ValueError(f"{blank[0]} texts must have at least one token, they have spaces alone")
        trainer = TaggingTrainer(
            model,
            arguments,
            adversarial=optimization.method(),
            learning_rates={"": head_rate, "tagger.crf.": optimization.crf_learning_rate},
            average_decay=optimization.average_decay,
            train_dataset=rows["train"],
            eval_dataset=rows["dev"],
            processing_class=tokenizer,
            data_collator=DataCollatorForTokenClassification(tokenizer),
            compute_metrics=lambda predicted: scores_of_rows(predicted, labels, texts.scheme),
            preprocess_logits_for_metrics=lambda logits, _: logits.argmax(-1),
            callbacks=[EarlyStoppingCallback(optimization.patience)],
        )
        training = trainer.train(resume_from_checkpoint=last_checkpoint(folder / CHECKPOINTS) if resume else None)
        save_history(trainer, folder)
        tagger = EntityTagger(model, tokenizer, texts.scheme)
        results = {
            "arguments": {
                **options_as_json(start, self.row_options, self.tagger_options, optimization),
                "seed": seed,
                "types": texts.types,
                "scheme": texts.scheme,
                "learning_rate": arguments.learning_rate,
                "head_learning_rate": head_rate,
                "max_length": tokenizer.model_max_length,
            },
            "training": {
                "epochs": trainer.state.epoch,
                "loss": mean_loss(trainer.state),
                "seconds": training.metrics["train_runtime"],
            },
            "dev": measured_tags(tagger, texts.dev),
        }
        if texts.test is not None:
            results["test"] = measured_tags(tagger, texts.test)
        return model, tokenizer, results


def read_texts(options: EntityRowOptions) -> TaggingTexts:
    """
    The texts of a run.

    Raises:
        ValueError, OSError: see `read_entities`; or the dev or test texts have a type that the train texts have not.
    """

    def read(source: str | None, split: str) -> EntityTexts | None:
        return source and read_entities(source, options.file_scheme, split, options.skip_malformed)

    train = read(options.train_file, "train")
    dev, test = read(options.dev_file, "validation"), read(options.test_file, "test")
    if options.file_scheme and not any(part.scheme for part in (train, dev, test) if part):
        raise ValueError(f"file_scheme would do nothing: {train.name} has spans, which need no scheme")
    types = train.types()
    if not types:
        raise ValueError(f"{train.name} must have at least one entity, it has none")
    for part in (dev, test):
        if part:
            part.check_types(types)
    kept, held_out = (train.texts, dev.texts) if dev else _held_out(train, options.dev_share)
    scheme = options.scheme or train.scheme or "BMES"
    return TaggingTexts(kept[: options.limit], held_out, test.texts if test else None, types, scheme)


def _held_out(train: EntityTexts, share: float) -> tuple[tuple[EntityText, ...], tuple[EntityText, ...]]:
    """Texts at equal distances are held out, so that the split needs no seed."""
    if len(train) < 2:
        raise ValueError(f"{train.name} must have at least two texts, one of them to choose by, got {len(train)}")
    due = [int(number * share) for number in range(len(train) + 1)]
    held_out = [i for i in range(len(train)) if due[i + 1] > due[i]] or [len(train) - 1]
    kept = sorted(set(range(len(train))).difference(held_out))
    return tuple(train.texts[i] for i in kept), tuple(train.texts[i] for i in held_out)


def make_tagger(start: StartOptions, options: TaggerOptions, labels: Sequence[str], scheme: str) -> tuple[Any, Any]:
    """
    (model, tokenizer) for these tags; the tokenizer's `model_max_length` is the length that texts are cut to.

    With `architecture="bert"` the encoder is RoCBERT's without sound and shape, so that it can have every head.

    Raises:
        ValueError: an option is RoCBERT's, and the checkpoint is of another kind; or an encoder's, and there is none.
    """
    named = {"id2label": dict(enumerate(labels)), "label2id": {label: number for number, label in enumerate(labels)}}
    given = {name: value for name, value in dataclasses.asdict(options).items() if value is not None}
    ours = {**given, "tagging_scheme": scheme}
    if start.preset is not None:
        if start.architecture == "bert":
            ours["fusion"] = "none"
        if start.preset == NO_ENCODER:
            if of_encoder := sorted({"position_embedding_type", "max_relative_position", "layer_fusion"} & set(given)):
                raise ValueError(f"{', '.join(of_encoder)} needs an encoder, and the preset {NO_ENCODER} has none")
            ours |= {**BILSTM_SIZES, "fusion": "none", "position_embedding_type": "functional_relative"}
            config = RoCBertConfig(**ours, **named)
        else:
            config = RoCBertConfig.from_preset(start.preset, **ours, **named)
        tokenizer, model = RoCBertTokenizer(), RoCBertForTokenClassification(config)
    else:
        tokenizer, model = _from_checkpoint(start.model, ours, named)
    if options.max_relative_position is not None and model.config.position_embedding_type != "functional_relative":
        raise ValueError("max_relative_position needs position_embedding_type functional_relative")
    tokenizer.model_max_length = text_length(model, tokenizer, start.max_length, LONGEST_PIECE)
    return model, tokenizer


def _from_checkpoint(source: str, ours: dict[str, Any], named: dict[str, Any]) -> tuple[Any, Any]:
    with loading("the model", source):
        tokenizer = AutoTokenizer.from_pretrained(source)
        config = AutoConfig.from_pretrained(source)
        if config.model_type == RoCBertConfig.model_type:
            config = RoCBertConfig.from_dict({**config.to_dict(), **ours, **named})
        else:
            if set(ours) != {"classifier_head", "tagging_scheme"} or ours["classifier_head"] != "linear":
                raise ValueError(
                    f"{', '.join(sorted(set(ours) - {'tagging_scheme'}))} are options of RoCBERT, and this is a "
                    f"{config.model_type}: give --classifier-head linear alone, or `rocbert convert` it first"
                )
            config = AutoConfig.from_pretrained(source, **named)
        # in single precision, however it is kept: steps of AdamW are too small for half precision
        model, found = AutoModelForTokenClassification.from_pretrained(
            source, config=config, dtype=torch.float32, ignore_mismatched_sizes=True, output_loading_info=True
        )
        refuse_made_up_encoder(found, f"{model.base_model_prefix}.")
    return tokenizer, model


def measured_tags(tagger: EntityTagger, texts: Sequence[EntityText]) -> dict[str, float]:
    """Strict scores of the tagger on labelled texts."""
    found = tagger([text.text for text in texts])
    return entity_scores([text.entities for text in texts], found).to_dict()

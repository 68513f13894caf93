"""How a head is trained on an encoder: separate learning rates, and where the computing is done."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import Trainer, TrainerCallback, TrainerState, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from ..configuration_rocbert import RoCBertConfig
from ..files import read_json
from ..options import option
from ..pretraining.optimizer import parameter_groups
from .epochs import EpochDependent, FollowEpoch
from .processes import in_first_process
from .starting_point import StartOptions
from .weight_average import WeightAverage


@dataclass
class OptimizationOptions:
    """How to train."""

    learning_rate: float | None = option(None, "highest learning rate", unset="by the size of the model")
    head_learning_rate: float | None = option(None, "highest learning rate of the head", unset="as --learning-rate")
    epochs: float | None = option(None, "passes over the train rows, at most", unset="by the size of the model")
    batch_size: int | None = option(None, "texts per step, in each process", unset="by the size of the model")
    warmup_ratio: float = option(0.1, "share of the steps in which the learning rate rises")
    weight_decay: float = option(0.01, "of AdamW, on all weights but biases, norms and the transitions of a CRF")
    patience: int = option(3, "stop after this many epochs without improvement on the dev rows")
    average_decay: float | None = option(
        None,
        "measure and keep an exponential moving average of the weights, which keeps this share of itself per step, such as 0.998",
        unset="no average",
    )
    bf16: bool = option(False, "mixed precision with bfloat16, on a GPU or a CPU")

    def __post_init__(self):
        for name in ("learning_rate", "head_learning_rate", "epochs", "batch_size", "patience"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be above 0, got {value}")
        if not 0 <= self.warmup_ratio < 1:  # the Trainer takes 1 for one step
            raise ValueError(f"warmup_ratio must be at least 0 and below 1, got {self.warmup_ratio}")
        if self.average_decay is not None and not 0 < self.average_decay < 1:
            raise ValueError(f"average_decay must lie between 0 and 1, got {self.average_decay}")
        if not self.weight_decay >= 0:
            raise ValueError(f"weight_decay must not be negative, got {self.weight_decay}")

    @property
    def learning_rates(self) -> dict[str, float]:
        """For `HeadTrainer`: the head's, if it has one of its own."""
        return {} if self.head_learning_rate is None else {"": self.head_learning_rate}

    def training_arguments(
        self, folder: Path, seed: int, start: StartOptions, hidden_size: int, metric: str
    ) -> TrainingArguments:
        """transformers' arguments: one evaluation and one checkpoint per epoch, the best by `metric` in the end.

        Args:
            folder: for the checkpoints.
            metric: a score of the dev rows, the higher the better.
        """
        learning_rate, epochs, batch_size = start.defaults(hidden_size)
        batch_size = self.batch_size or batch_size
        return TrainingArguments(
            str(folder),
            seed=seed,
            learning_rate=self.learning_rate or learning_rate,
            num_train_epochs=self.epochs or epochs,
            per_device_train_batch_size=batch_size,
            per_device_eval_batch_size=2 * batch_size,
            warmup_steps=self.warmup_ratio,
            weight_decay=self.weight_decay,
            train_sampling_strategy="group_by_length",
            eval_strategy="epoch",
            save_strategy="epoch",
            logging_strategy="epoch",
            save_total_limit=1,
            load_best_model_at_end=True,
            metric_for_best_model=metric,
            greater_is_better=True,
            restore_callback_states_from_checkpoint=True,
            bf16=self.bf16,
            use_cpu=not torch.accelerator.is_available(),  # else bf16 is refused
            dataloader_pin_memory=torch.cuda.is_available(),
            report_to="none",
        )


class HeadTrainer(Trainer):
    """transformers' Trainer, with separate learning rates for the encoder and other parts, datasets that need the epoch, and
    an average of the weights.

    Many heads of transformers take the number of labels of a step and make no use of it: a Trainer then multiplies their loss,
    which is a mean, by the number of processes and of accumulated batches. Here it is a mean with any model.

    Args:
        learning_rates: prefix of a parameter's name -> its learning rate; "" for all that is not in the encoder. What no
            prefix fits has `args.learning_rate`; of several that fit, the longest counts.
        average_decay: of a `WeightAverage`, which is what is measured during training and what a checkpoint has as its
            model; the best checkpoint's is left in the model in the end. Resuming is exact. None for no average.

    Raises:
        ValueError: an average is asked for without `load_best_model_at_end`, or where a process has a part of the weights.
        FloatingPointError: while training, the loss on the dev rows is no finite number.
    """

    def __init__(
        self,
        *args: Any,
        learning_rates: Mapping[str, float] | None = None,
        average_decay: float | None = None,
        **kwargs: Any,
    ):
        super().__init__(*args, **kwargs)
        if self.accelerator.unwrap_model(self.model).config.model_type != RoCBertConfig.model_type:
            self.model_accepts_loss_kwargs = False
        self.learning_rates = dict(learning_rates or {})
        self.average = None
        if average_decay is not None:
            if not self.args.load_best_model_at_end or self.is_deepspeed_enabled or self.is_fsdp_enabled:
                raise ValueError("average_decay needs load_best_model_at_end, and the whole model in each process")
            self.average = WeightAverage(self.model, average_decay)
            self.add_callback(_FollowWeights(self.average))
        if isinstance(self.train_dataset, EpochDependent):
            self.add_callback(FollowEpoch(self.train_dataset))

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        if self.optimizer is None and self.learning_rates:
            optimizer_class, settings = self.get_optimizer_cls_and_kwargs(self.args, self.model)
            decayed = set(self.get_decay_parameter_names(self.model))
            rate = learning_rate_of(self.model, self.args.learning_rate, self.learning_rates)
            groups = parameter_groups(self.model, rate, lambda name, _: name in decayed, self.args.weight_decay)
            self.optimizer = optimizer_class(groups, **settings)
        return super().create_optimizer(model)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        with self._with_average(self.is_in_train):
            metrics = super().evaluate(*args, **kwargs)
        loss = metrics.get("eval_loss", 0.0)
        if self.is_in_train and not math.isfinite(loss):  # the scores of such a model are those of one label
            raise FloatingPointError(
                f"the training diverged: after epoch {self.state.epoch:.3g} the loss on the dev rows is {loss}; lower "
                "learning_rate"
            )
        return metrics

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        with self._with_average(_internal_call):  # of a checkpoint
            super().save_model(output_dir, _internal_call)
        if self.average is not None and _internal_call and self.args.should_save:
            self.average.save_last(self.model, Path(output_dir))

    def _with_average(self, wanted: bool) -> AbstractContextManager:
        return self.average.in_place_of(self.model) if self.average is not None and wanted else nullcontext()

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        if self.average is not None:
            self.average.resume(self.model, Path(resume_from_checkpoint))


class _FollowWeights(TrainerCallback):
    def __init__(self, average: WeightAverage):
        self.average = average

    def on_step_end(self, args, state, control, model, **kwargs):
        self.average.update(model)


def learning_rate_of(model: nn.Module, learning_rate: float, others: Mapping[str, float]) -> Callable[[str], float]:
    """The learning rate by the name of a parameter.

    Args:
        model: a model of transformers; its encoder is under `base_model_prefix`.
        learning_rate: of the encoder.
        others: see `HeadTrainer`.
    """
    encoder = f"{model.base_model_prefix}."

    def rate(name: str) -> float:
        fitting = [prefix for prefix in others if name.startswith(prefix) and (prefix or not name.startswith(encoder))]
        return others[max(fitting, key=len)] if fitting else learning_rate

    return rate


def mean_loss(state: TrainerState) -> float:
    """Of the steps that a training has logged, those before an interruption too, which a Trainer's own mean leaves out."""
    rows = [(row["step"], row["loss"]) for row in state.log_history if "loss" in row]
    steps = [after - before for before, after in pairwise([0, *(step for step, _ in rows)])]
    return sum(count * loss for count, (_, loss) in zip(steps, rows, strict=True)) / max(sum(steps), 1)


def last_checkpoint(folder: Path) -> str | None:
    """The last whole checkpoint of a Trainer; the folder of one that was being written is left out and removed."""

    def find() -> str | None:
        while folder.is_dir() and (found := get_last_checkpoint(str(folder))) is not None:
            state = Path(found) / "trainer_state.json"  # the Trainer writes it last
            if state.is_file():
                with suppress(ValueError):
                    read_json(state)
                    return found
            shutil.rmtree(found)
        return None

    return in_first_process(find)

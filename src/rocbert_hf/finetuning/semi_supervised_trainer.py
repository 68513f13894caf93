r"""
Semi-supervised training of any sequence classifier: `SemiSupervisedTrainer`.

After "ESimCSE Unsupervised Contrastive Learning Jointly with UDA Semi-Supervised Learning for Large Label System Text
Classification" (2023):

    L     = w L_UDA + (1 - w) L_sim
    L_UDA = supervised + lambda consistency + alpha adversarial

Where we differ: the terms are means over a micro-batch, and each may be left out or exchanged (FixMatch, SoftMatch or
pseudo-labels for UDA); without L_sim w is 1.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import TrainerCallback
from transformers.integrations import is_deepspeed_zero3_enabled

from .adversarial import AdversarialMethod, AdversarialTrainer
from .consistency import (
    ANNEALINGS,
    CONSISTENCY_LOSSES,
    ConsistencyTarget,
    annealing_threshold,
    consistency_loss,
    supervised_loss,
)
from .esimcse import ESimCSE
from .label_hierarchy import HierarchicalLoss
from .optimization import HeadTrainer
from .representation_hooks import encoder_of, mixed_representations, seen_representations
from .unlabelled_texts import STREAMS

STATE = "semi_supervised.safetensors"


@dataclass
class SemiSupervisedObjective:
    """What `SemiSupervisedTrainer` minimises. All of it may be left out; then it is cross entropy on the labelled texts.

    Args:
        target: what unlabelled texts are to be answered with, such as `UDATarget()`.
        consistency: "kl" or "cross-entropy"; see `consistency_loss`.
        consistency_weight: lambda.
        mixup: if above 0, the augmented texts' representations are mixed in pairs, and so are their targets, in shares
            drawn from Beta(mixup, mixup).
        annealing: "linear", "log" or "exp": labelled texts that the model is sure of stop teaching; see
            `annealing_threshold`.
        adversarial: on the labelled texts: `FGM`, `PGD` ...; its `weight` is alpha.
        esimcse: contrastive loss of the unlabelled texts.
        contrastive_share: 1 - w, the share of L_sim, if there is `esimcse`.
        hierarchy: further losses at the upper levels of labels such as "a/b/c".

    Raises:
        ValueError: a value is out of range.
    """

    target: ConsistencyTarget | None = None
    consistency: str = "kl"
    consistency_weight: float = 1.0
    mixup: float = 0.0
    annealing: str | None = None
    adversarial: AdversarialMethod | None = None
    esimcse: ESimCSE | None = None
    contrastive_share: float = 0.1
    hierarchy: HierarchicalLoss | None = None

    def __post_init__(self) -> None:
        if self.consistency not in CONSISTENCY_LOSSES:
            raise ValueError(f"consistency must be one of {', '.join(CONSISTENCY_LOSSES)}, got {self.consistency!r}")
        if self.annealing is not None and self.annealing not in ANNEALINGS:
            raise ValueError(f"annealing must be one of {', '.join(ANNEALINGS)}, got {self.annealing!r}")
        for name in ("consistency_weight", "mixup"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        if not 0 <= self.contrastive_share < 1:
            raise ValueError(f"contrastive_share must be at least 0 and below 1, got {self.contrastive_share}")


class SemiSupervisedTrainer(AdversarialTrainer, HeadTrainer):
    """
    A `Trainer` of a sequence classifier on labelled and unlabelled texts.

    A micro-batch has some labelled texts and a fixed number of unlabelled ones for each. All of it happens in
    `compute_loss` with one backward pass, so that gradient accumulation, loss scaling, several processes and DeepSpeed hold
    as they do in any other training (stage 2 without adversarial method, stage 3 without ESimCSE). Evaluation is as ever.

    A checkpoint has besides the Trainer's own files `semi_supervised.safetensors`: ESimCSE's queue and moving copy, and
    what `SoftMatchTarget` has learnt. Training resumes from it exactly.

    Each log has, besides the loss, the mean of every term (`supervised`, `adversarial`, `consistency`, `contrastive`), and
    of the unlabelled texts `used`, the share with a weight above 0, `largest_class`, the share in the label that is
    predicted most often, and `annealed`, the share of the labelled texts that taught nothing.

    Args:
        objective: what to minimise.
        train_dataset: `SemiSupervisedTexts`.
        data_collator: `SemiSupervisedCollator`.
        args, kwargs: of `HeadTrainer`.

    Raises:
        ValueError: one process is to train on several devices; the model has no encoder and head; or ESimCSE is to follow
            parameters that are divided among processes.

    Example::

        >>> texts = SemiSupervisedTexts(labelled, labels, unlabelled, augmentation=Attacked("paper"))
        >>> objective = SemiSupervisedObjective(target=UDATarget(), adversarial=PGD(weight=0.5))
        >>> trainer = SemiSupervisedTrainer(
        ...     model, args, objective=objective, train_dataset=texts, data_collator=SemiSupervisedCollator(tokenizer)
        ... )
    """

    def __init__(self, *args: Any, objective: SemiSupervisedObjective, **kwargs: Any):
        super().__init__(*args, adversarial=objective.adversarial, **kwargs)
        if self.args.n_gpu > 1:
            raise ValueError(
                f"semi-supervised training needs one process per device, got one process for {self.args.n_gpu}: start it "
                "with `accelerate launch` or `torchrun`"
            )
        if objective.esimcse is not None and (is_deepspeed_zero3_enabled() or self.is_fsdp_enabled):
            raise ValueError(
                "esimcse needs whole parameters in each process: use DeepSpeed stage 1 or 2, or no sharding of parameters"
            )
        encoder_of(self.model)
        self.args.remove_unused_columns = False  # the collator decides what the model gets
        self.model_accepts_loss_kwargs = False  # the terms are means over a micro-batch
        self.objective = objective
        for part in self._stateful().values():
            part.to(self.args.device)
        self._sums: dict[str, torch.Tensor] = defaultdict(lambda: torch.zeros(2, device=self.args.device))
        self._classes = torch.zeros(self.model.config.num_labels, dtype=torch.long, device=self.args.device)
        self._used_in_epoch = torch.zeros(2, dtype=torch.long, device=self.args.device)
        self._has_warned = False
        self.add_callback(_BetweenSteps(self))

    # -- the loss

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        inputs = dict(inputs)
        streams = {name: inputs.pop(name) for name in (*STREAMS, "grades") if name in inputs}
        if not model.training:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        objective = self.objective
        loss, outputs = self._supervised(model, inputs)
        if "unlabelled" in streams:
            logits, anchors = self._answers(model, streams["unlabelled"])
            if objective.target is not None and objective.consistency_weight:
                loss = loss + objective.consistency_weight * self._consistency(model, streams, logits)
            if objective.esimcse is not None:
                share = objective.contrastive_share
                loss = (1 - share) * loss + share * self._contrastive(model, streams, anchors)
        return (loss, outputs) if return_outputs else loss

    def _supervised(self, model: nn.Module, inputs: Mapping[str, Any]) -> tuple[torch.Tensor, Any]:
        """Supervised and adversarial term, and the outputs without perturbation."""
        objective, labels = self.objective, inputs["labels"]
        features = {name: value for name, value in inputs.items() if name != "labels"}
        threshold = annealing_threshold(objective.annealing, self._progress, self.model.config.num_labels)
        losses: list[torch.Tensor] = []

        def compute(model):
            outputs = model(**features)
            losses.append(
                supervised_loss(
                    outputs.logits, labels, threshold, self.args.label_smoothing_factor, objective.hierarchy
                )
            )
            return losses[-1], outputs

        if objective.adversarial is None:
            loss, outputs = compute(model)
        else:
            loss, outputs = self.adversarial_loss(model, compute, features.get("attention_mask"))
            self._note("adversarial", losses[-1])
        self._note("supervised", losses[0])
        if objective.annealing is not None:
            right = outputs.logits.detach().softmax(-1).gather(-1, labels[:, None])
            self._note("annealed", (right > threshold).float().mean())
        return loss, outputs

    def _answers(
        self, model: nn.Module, unlabelled: Mapping[str, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """What the frozen copy of the current parameters says of the texts: logits without gradient.

        And, for ESimCSE, the texts' representations with gradient, of the same pass.
        """
        if self.objective.esimcse is None:
            with torch.no_grad():
                logits, anchors = model(**unlabelled).logits, None
        else:
            logits, anchors = self._represented(model, unlabelled)
        logits = logits.detach()
        self._classes += torch.bincount(logits.argmax(-1), minlength=len(self._classes))
        return logits, anchors

    def _consistency(self, model: nn.Module, streams: Mapping[str, Any], logits: torch.Tensor) -> torch.Tensor:
        objective = self.objective
        objective.target.observe(self.accelerator.gather(logits))
        target, weight = objective.target(logits, self._progress)
        self._note("used", (weight > 0).float().mean())
        self._used_in_epoch += torch.stack([(weight > 0).sum(), torch.tensor(len(weight), device=weight.device)])
        inputs = streams["augmented" if objective.target.trains_on_augmented else "unlabelled"]
        if objective.mixup:
            order = torch.randperm(len(weight)).to(weight.device)
            share = torch.distributions.Beta(objective.mixup, objective.mixup).sample().item()
            with mixed_representations(self.accelerator.unwrap_model(model), order, share):
                answers = model(**inputs).logits
            target, weight = (share * part + (1 - share) * part[order] for part in (target, weight))
        else:
            answers = model(**inputs).logits
        loss = consistency_loss(answers, target, weight, objective.consistency)
        self._note("consistency", loss)
        return loss

    def _contrastive(self, model: nn.Module, streams: Mapping[str, Any], anchors: torch.Tensor) -> torch.Tensor:
        esimcse = self.objective.esimcse
        _, positives = self._represented(model, streams["positives"])
        negatives = self._represented(model, streams["negatives"])[1] if "negatives" in streams else None
        loss = esimcse(anchors, positives, negatives, streams.get("grades"))
        esimcse.push(self.accelerator.gather(esimcse.represent(streams["unlabelled"])))
        self._note("contrastive", loss)
        return loss

    def _represented(self, model: nn.Module, inputs: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        with seen_representations(self.accelerator.unwrap_model(model)) as seen:
            logits = model(**inputs).logits
        return logits, seen[-1]

    @property
    def _progress(self) -> float:
        return self.state.global_step / self.state.max_steps if self.state.max_steps > 0 else 0.0

    # -- what is logged

    def _note(self, name: str, value: torch.Tensor) -> None:
        self._sums[name] += torch.stack([value.detach().float(), torch.ones_like(value, dtype=torch.float32)])

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs and self._sums:
            for name, total in sorted(self._sums.items()):
                value, count = self.accelerator.reduce(total, "sum").tolist()
                logs[name] = value / count
            classes = self.accelerator.reduce(self._classes, "sum")
            if classes.any():
                logs["largest_class"] = (classes.max() / classes.sum()).item()
            self._sums.clear()
            self._classes.zero_()
        super().log(logs, start_time)

    def warn_if_none_was_used(self) -> None:
        """Warns, the first time, if the target gave no unlabelled text of this epoch a weight."""
        used, seen = self.accelerator.reduce(self._used_in_epoch, "sum").tolist()
        self._used_in_epoch.zero_()
        if seen and not used and not self._has_warned:
            self._has_warned = True
            warnings.warn(
                f"none of the {seen:,} unlabelled texts of epoch {self.state.epoch:.0f} counted: the model was never as "
                "sure as the confidence asks for; lower the confidence, or train longer on the labelled texts",
                stacklevel=2,
            )

    # -- checkpoints

    def _stateful(self) -> dict[str, nn.Module]:
        parts = {"target": self.objective.target, "esimcse": self.objective.esimcse}
        return {name: part for name, part in parts.items() if part is not None}

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        super().save_model(output_dir, _internal_call)
        state = {
            f"{name}.{key}": value.detach().cpu().clone().contiguous()
            for name, part in self._stateful().items()
            for key, value in part.state_dict().items()
        }
        if _internal_call and state and self.args.should_save:  # of a checkpoint
            save_file(state, Path(output_dir) / STATE)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is None or not any(part.state_dict() for part in self._stateful().values()):
            return
        file = Path(checkpoint) / STATE
        if not file.is_file():
            raise OSError(f"{checkpoint} has no {STATE}: it is not a checkpoint of this training")
        state = load_file(file)
        for name, part in self._stateful().items():
            prefix = f"{name}."
            part.load_state_dict({key[len(prefix) :]: state[key] for key in state if key.startswith(prefix)})


class _BetweenSteps(TrainerCallback):
    """What the trainer has to do after each optimizer step and each epoch."""

    def __init__(self, trainer: SemiSupervisedTrainer):
        self.trainer = trainer

    def on_step_end(self, args, state, control, **kwargs):
        if self.trainer.objective.esimcse is not None:
            model = self.trainer.accelerator.unwrap_model(self.trainer.model)
            self.trainer.objective.esimcse.follow(encoder_of(model))

    def on_epoch_end(self, args, state, control, **kwargs):
        self.trainer.warn_if_none_was_used()

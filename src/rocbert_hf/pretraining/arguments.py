"""Options of a pretraining run: one dataclass, filled from a YAML file and from flags that override it."""

from dataclasses import dataclass
from typing import Any

from ..attacks.config import ATTACKS_HELP, PRESETS, read_attacks
from ..losses_rocbert import NEGATIVES
from ..options import check_choices, option

PRECISIONS = ("auto", "no", "bf16", "fp16")
OBJECTIVES = ("multimodal", "mlm_only", "contrastive_only", "simcse", "correction")
ANCHORS = ("masked", "clean", "both")
SHARDINGS = ("sentences", "files")
TRACKERS = ("none", "tensorboard", "wandb")


def parse_attacks(given: str | dict[str, Any]) -> str | dict[str, Any]:
    """A preset's name as it is; names, a file or a mapping as the complete config; see `read_attacks` for the errors."""
    return given if isinstance(given, str) and given in PRESETS else read_attacks(given)


@dataclass
class PretrainingArguments:
    """How to train: objective, length of the run, optimizer, data, checkpoints, reports.

    Each field is a flag. Names are those of `transformers.TrainingArguments` where it has the thing.

    Raises:
        ValueError: a value is outside what is allowed, two do not fit, or the run would never end.
    """

    objective: str = option(
        "multimodal",
        "what to learn: multimodal is masked language modelling and contrastive loss; mlm_only and contrastive_only are "
        "one of the two; simcse is both, with dropout as the only difference between the two views of a sentence; "
        "correction restores the masked and the attacked characters of the attacked sentence",
        choices=OBJECTIVES,
    )
    anchor: str = option(
        "masked",
        "form of a sentence that its attacked form is compared with: masked, clean (which takes a third forward pass), or "
        "both (averaged, as in the authors' released code)",
        choices=ANCHORS,
    )
    negatives: str = option(
        "attacked",
        "what the anchor is told apart from: the attacked forms of the other sentences of the batch, their originals (with "
        "--anchor clean, this is Eq. 5 to the letter), or both",
        choices=NEGATIVES,
    )
    correct_attacked: bool = option(False, "also learn to predict what the attacked characters were")
    distill_from: str | None = option(
        None,
        "folder or Hub id of a sentence encoder as wide as the model; the attacked sentence learns to have that encoder's "
        "vector of the clean sentence, by mean pooling and by [CLS]",
    )
    distill_prefix: str = option("", "text that --distill-from needs before each sentence, such as 'query: ' for E5")
    distillation_weight: float = option(1.0, "weight of the loss of --distill-from")
    temperature: float = option(0.01, "what the cosines of the contrastive loss are divided by")
    max_steps: int | None = option(1000, "optimizer steps at most; none: as many as fit into --minutes")
    minutes: float | None = option(
        None, "stop after this many minutes, even if --max-steps is not reached", unset="no limit"
    )
    batch_size: int = option(64, "sentences per process and forward pass")
    gradient_accumulation_steps: int = option(1, "forward passes per optimizer step")
    global_batch_size: int | None = option(
        None,
        "sentences per optimizer step, of all processes together; sets --gradient-accumulation-steps",
        unset="what the other options make",
    )
    gradient_cache: bool = option(
        False,
        "contrast each sentence with all sentences of the optimizer step, instead of those of one forward pass; takes a "
        "second forward pass",
    )
    learning_rate: float = option(1e-4, "highest learning rate, reached at the end of the warm-up; it then falls to 0")
    channel_learning_rate: float | None = option(
        None,
        "highest learning rate of what a converted encoder has anew: fusion, sound, shape and the head of masked language "
        "modelling",
        unset="as --learning-rate",
    )
    warmup_ratio: float = option(0.04, "share of the run in which the learning rate rises")
    warmup_steps: int | None = option(None, "steps in which the learning rate rises, instead of --warmup-ratio")
    weight_decay: float = option(0.01, "weight decay of AdamW, on matrices only")
    max_grad_norm: float = option(1.0, "clip gradients to this norm")
    max_skipped_steps: int = option(
        15, "stop after this many skipped steps in a row; a step is skipped if a loss or gradient is not finite"
    )
    mixed_precision: str = option(
        "auto",
        "precision of the computation: bf16, fp16 or no; auto is bf16 on a GPU that has it, fp16 on other GPUs and no on a "
        "CPU; with DeepSpeed, its config decides",
        choices=PRECISIONS,
    )
    attn_implementation: str = option(
        "sdpa", "attention: sdpa, eager, or another name of transformers, such as flash_attention_2"
    )
    gradient_checkpointing: bool = option(False, "save memory: compute activations again in the backward pass")
    torch_compile: bool = option(False, "compile the encoder")
    max_length: int = option(128, "tokens per sentence, [CLS] and [SEP] included")
    pad_to_multiple_of: int | None = option(
        None, "pad sentences to a multiple of this many tokens", unset="8 in mixed precision, 1 in float32"
    )
    mlm_probability: float = option(0.15, "share of the tokens to mask")
    whole_word_probability: float = option(0.5, "share of the sentences masked by whole words instead of characters")
    attacks: str | dict[str, Any] = option(
        "paper",
        f"what attacks the sentences: {ATTACKS_HELP}",
        parse=parse_attacks,
    )
    num_workers: int = option(
        0, "DataLoader processes that attack, tokenize and mask; the run's results do not depend on it"
    )
    shard_by: str = option(
        "sentences",
        "sentences: every process reads all text and takes its share; files: each reads its own (for many machines)",
        choices=SHARDINGS,
    )
    shuffle_buffer: int = option(100_000, "sentences of streamed text that are shuffled together")
    seed: int = option(0, "seed of weights, order, attacks and masks")
    save_steps: int | None = option(None, "optimizer steps between two checkpoints", unset="no checkpoints by steps")
    save_minutes: float | None = option(None, "minutes between two checkpoints", unset="no checkpoints by time")
    save_total_limit: int = option(2, "checkpoints to keep, the last ones")
    resume_from_checkpoint: str | None = option(
        None,
        "checkpoint folder to go on from; last: the newest one in the output folder, if it has one",
        unset="begin anew",
    )
    logging_steps: int = option(10, "optimizer steps between two rows of log.jsonl")
    eval_steps: int | None = option(
        None, "optimizer steps between two measurements on the held-out sentences", unset="only at the end"
    )
    report_to: str = option(
        "tensorboard", "trackers that get the rows of log.jsonl: tensorboard, wandb, both (with a comma) or none"
    )

    def __post_init__(self):
        if self.max_steps is None and self.minutes is None:
            raise ValueError("the run would never end: give max_steps, minutes or both")
        for name in (
            "temperature",
            "max_steps",
            "minutes",
            "batch_size",
            "gradient_accumulation_steps",
            "global_batch_size",
            "learning_rate",
            "channel_learning_rate",
            "distillation_weight",
            "max_grad_norm",
            "max_skipped_steps",
            "pad_to_multiple_of",
            "shuffle_buffer",
            "save_steps",
            "save_minutes",
            "save_total_limit",
            "logging_steps",
            "eval_steps",
        ):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be above 0, got {value}")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed must lie between 0 and 2**32 - 1, got {self.seed}")
        if self.max_length < 3:
            raise ValueError(f"max_length must be at least 3 ([CLS], a token and [SEP]), got {self.max_length}")
        for name in ("warmup_ratio", "whole_word_probability"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie between 0 and 1, got {getattr(self, name)}")
        if not 0 <= self.mlm_probability < 1:
            raise ValueError(f"mlm_probability must be at least 0 and below 1, got {self.mlm_probability}")
        if self.weight_decay < 0 or self.num_workers < 0:
            raise ValueError("weight_decay and num_workers must not be negative")
        check_choices(self)
        if not self.trackers <= set(TRACKERS):
            raise ValueError(f"report_to must be of {', '.join(TRACKERS)}, got {self.report_to!r}")
        self._check_combinations()

    def _check_combinations(self) -> None:
        if self.warmup_steps is not None:
            if self.max_steps is None:
                raise ValueError("warmup_steps need max_steps; a run that the clock alone ends has warmup_ratio")
            if not 0 <= self.warmup_steps <= self.max_steps:
                raise ValueError(f"warmup_steps must lie between 0 and max_steps, got {self.warmup_steps}")
        if self.objective == "mlm_only" and not self.mlm_probability:
            raise ValueError(
                "mlm_probability must be above 0 with objective mlm_only, which learns nothing else, got 0"
            )
        if self.gradient_cache and not self.contrasts:
            raise ValueError(f"gradient_cache is for a contrastive loss, and objective {self.objective} has none")
        if (self.anchor, self.negatives) != ("masked", "attacked"):
            if not self.attacks_sentences:
                raise ValueError(
                    f"anchor and negatives are of attacked sentences, and objective {self.objective} has none"
                )
            if not self.contrasts:
                raise ValueError(
                    f"anchor and negatives are of a contrastive loss, and objective {self.objective} has none"
                )
        if self.distill_from is not None and not self.attacks_sentences:
            raise ValueError(f"distill_from is for attacked sentences, and objective {self.objective} has none")
        if self.distill_prefix and self.distill_from is None:
            raise ValueError(f"distill_prefix is for distill_from, which is not given; got {self.distill_prefix!r}")
        if self.correct_attacked and self.objective != "multimodal":
            raise ValueError(f"correct_attacked goes with objective multimodal, not with {self.objective}")

    @property
    def contrasts(self) -> bool:
        """Whether the objective has a contrastive loss."""
        return self.objective not in ("mlm_only", "correction")

    @property
    def attacks_sentences(self) -> bool:
        """Whether the objective has an attacked view."""
        return self.objective in ("multimodal", "contrastive_only", "correction")

    @property
    def collator_views(self) -> str:
        """What `DataCollatorForRoCBertPretraining` calls the views of the objective."""
        if self.objective == "simcse":
            return "simcse"
        if self.objective == "correction":
            return "attacked"
        return "two" if self.anchor == "masked" else "three"

    @property
    def trackers(self) -> set[str]:
        return {name.strip() for name in self.report_to.split(",")}

    def warmup_share(self) -> float:
        """Share of the run in which the learning rate rises."""
        return self.warmup_ratio if self.warmup_steps is None else self.warmup_steps / self.max_steps

    def padding_multiple(self, mixed_precision: str) -> int:
        """What sentences are padded to a multiple of, in "bf16", "fp16" or "no".

        Tensor Cores want multiples of 8 in mixed precision; oneDNN, on a CPU, makes a kernel for each length, and keeps
        it.
        """
        if self.pad_to_multiple_of is not None:
            return self.pad_to_multiple_of
        return 8 if mixed_precision != "no" and self.max_length % 8 == 0 else 1

    def accumulation(self, num_processes: int) -> int:
        """Forward passes an optimizer step, with so many processes.

        Raises:
            ValueError: `global_batch_size` is no multiple of what the processes take in one pass.
        """
        if self.global_batch_size is None:
            return self.gradient_accumulation_steps
        passes, rest = divmod(self.global_batch_size, self.batch_size * num_processes)
        if rest or not passes:
            raise ValueError(
                f"global_batch_size must be a multiple of batch_size times the number of processes "
                f"({self.batch_size} * {num_processes}), got {self.global_batch_size}"
            )
        return passes

"""What a finetuning starts from: a checkpoint, or random weights of a preset's size."""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..options import check_choices, option

ARCHITECTURES = ("rocbert", "bert")
SHARED_WITH_BERT = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
# the hidden size up to which they hold, learning rate, epochs, batch size
PRETRAINED_DEFAULTS = ((256, 3e-4, 10, 32), (512, 1e-4, 8, 32), (800, 3e-5, 5, 32), (float("inf"), 1e-5, 5, 16))
SCRATCH_DEFAULTS = ((256, 5e-4, 10, 32), (512, 3e-4, 10, 32), (float("inf"), 1e-4, 10, 32))


@dataclass
class StartOptions:
    """What to start from: a checkpoint (model), or random weights (preset)."""

    model: str | None = option(None, "folder or Hub id of the checkpoint to start from")
    preset: str | None = option(None, "or start from random weights of this size: tiny, mini, small, base or large")
    architecture: str = option(
        "rocbert", "with --preset: rocbert, or bert for a plain BERT of that size", choices=ARCHITECTURES
    )
    max_length: int | None = option(None, "tokens per text; longer texts are cut", unset="what suits the task")

    def __post_init__(self):
        if (self.model is None) == (self.preset is None):
            raise ValueError("give either model (to start from) or preset (from scratch)")
        check_choices(self)
        if self.model is not None and self.architecture != ARCHITECTURES[0]:
            raise ValueError(f"architecture needs preset: {self.model} has an architecture of its own")
        if self.max_length is not None and self.max_length < 3:
            raise ValueError(f"max_length must be at least 3 ([CLS], a token and [SEP]), got {self.max_length}")

    def defaults(self, hidden_size: int) -> tuple[float, int, int]:
        """(learning rate, epochs, batch size) that suit a model of this width."""
        table = SCRATCH_DEFAULTS if self.model is None else PRETRAINED_DEFAULTS
        return next(row[1:] for row in table if hidden_size <= row[0])

    def make(self, head: str, labels: Sequence[str], task_length: int = 128) -> tuple[Any, Any]:
        """A model with a head for these labels, and its tokenizer.

        Args:
            head: what transformers calls it, such as "SequenceClassification".
            labels: names of the labels by number.
            task_length: tokens that hold nearly all texts of the task, for `max_length` None.

        Returns:
            (model, tokenizer). The model has weights in single precision. The tokenizer's `model_max_length` is the length
            that the model is trained with, and it is saved.

        Raises:
            OSError, ValueError: the checkpoint cannot be loaded or cannot read `max_length` tokens, or there is no such preset.
        """
        import torch
        import transformers

        from .. import configuration_rocbert, modeling_rocbert
        from ..checkpoints import loading, refuse_made_up_encoder, text_length
        from ..tokenization_rocbert import RoCBertTokenizer

        named = {"id2label": dict(enumerate(labels)), "label2id": {name: number for number, name in enumerate(labels)}}
        if self.model is not None:
            if head == "SequenceClassification":  # the checkpoint may have been a regression
                named["problem_type"] = "single_label_classification"
            with loading("the model", self.model):
                tokenizer = transformers.AutoTokenizer.from_pretrained(self.model)
                # a checkpoint may be kept in half precision, but steps of AdamW are too small for it
                model, found = getattr(transformers, f"AutoModelFor{head}").from_pretrained(
                    self.model,
                    dtype=torch.float32,
                    num_labels=len(labels),
                    ignore_mismatched_sizes=True,
                    output_loading_info=True,
                    **named,
                )
                refuse_made_up_encoder(found, f"{model.base_model_prefix}.")
        else:
            config = configuration_rocbert.RoCBertConfig.from_preset(self.preset, **named)
            if self.architecture == "rocbert":
                tokenizer, model = RoCBertTokenizer(), getattr(modeling_rocbert, f"RoCBertFor{head}")(config)
            else:
                tokenizer = character_level_bert_tokenizer()
                sizes = {name: getattr(config, name) for name in SHARED_WITH_BERT}
                bert = transformers.BertConfig(vocab_size=len(tokenizer), **sizes, **named)
                model = getattr(transformers, f"BertFor{head}")(bert)
        tokenizer.model_max_length = text_length(model, tokenizer, self.max_length, task_length)
        return model, tokenizer


def character_level_bert_tokenizer():
    """transformers' BERT tokenizer over the same characters as ours, so that the two models differ in nothing else."""
    from transformers import BertTokenizer

    from ..resources import vocabulary

    pieces = [f"##{char}" for char in string.ascii_lowercase + string.digits]
    return BertTokenizer(vocab={token: number for number, token in enumerate([*vocabulary(), *pieces])})

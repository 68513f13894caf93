"""Distillation: an attacked sentence is to have the vector that a sentence encoder gives the clean one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from .arguments import PretrainingArguments
from .restoration import taken_inputs

TEACHER = "teacher_"  # what the names of its inputs begin with in a batch
MEASURED_AT_ONCE = 64  # sentences


@dataclass(frozen=True)
class TeacherInputs:
    """
    Texts as the teacher reads them; the part of it that a DataLoader's workers need.

    Args:
        tokenizer: the teacher's.
        prefix: what goes before every text.
        max_length: tokens of a text, special tokens included.
    """

    tokenizer: Any
    prefix: str = ""
    max_length: int = 128

    def __call__(self, texts: Sequence[str]) -> dict[str, torch.Tensor]:
        """What the tokenizer returns, `teacher_input_ids` and so on, (texts, sequence) each."""
        encoded = self.tokenizer(
            [self.prefix + text for text in texts],
            truncation=True,
            max_length=self.max_length,
            padding=True,
            return_tensors="pt",
        )
        return {f"{TEACHER}{name}": tensor for name, tensor in encoded.items()}


class SentenceTeacher:
    """
    A frozen sentence encoder with mean pooling, such as multilingual-e5-small, with a tokenizer of its own.

    Args:
        model: an encoder of transformers.
        inputs: how it reads texts.
        sentences: text to take from how much each dimension of the vectors varies; the loss is in units of that.

    Raises:
        ValueError: there are fewer than two sentences.
    """

    def __init__(self, model: torch.nn.Module, inputs: TeacherInputs, sentences: Sequence[str]):
        if len(sentences) < 2:
            raise ValueError(f"distillation needs at least 2 held-out sentences, got {len(sentences)}")
        self.model = model.eval().requires_grad_(False)
        self.inputs = inputs
        vectors = [
            self(inputs(sentences[i : i + MEASURED_AT_ONCE])) for i in range(0, len(sentences), MEASURED_AT_ONCE)
        ]
        self.scales = torch.cat(vectors).std(0).clamp(min=1e-6)

    @classmethod
    def from_pretrained(
        cls, name: str, sentences: Sequence[str], prefix: str = "", max_length: int = 128
    ) -> SentenceTeacher:
        """
        Raises:
            OSError, ValueError: the folder or Hub id cannot be loaded, or there are fewer than two sentences.
        """
        from transformers import AutoModel, AutoTokenizer

        from ..checkpoints import loading, refuse_made_up_encoder

        with loading("the encoder to distill from", name):
            model, found = AutoModel.from_pretrained(name, dtype=torch.float32, output_loading_info=True)
            refuse_made_up_encoder(found)
            inputs = TeacherInputs(AutoTokenizer.from_pretrained(name), prefix, max_length)
        return cls(model, inputs, sentences)

    def to(self, device: torch.device) -> SentenceTeacher:
        """Move it, in place."""
        self.model.to(device)
        self.scales = self.scales.to(device)
        return self

    @torch.no_grad()
    def __call__(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """(batch, hidden) in float32, of a batch that holds what `inputs` makes."""
        mask = batch[f"{TEACHER}attention_mask"]
        inputs = {name.removeprefix(TEACHER): tensor for name, tensor in batch.items() if name.startswith(TEACHER)}
        states = self.model(**taken_inputs(self.model, inputs, mask.device)).last_hidden_state.float()
        return (states * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True)

    def loss(self, vectors: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """
        Mean squared difference in standard deviations of each dimension: 1 is what the mean vector of all text would get.

        Args:
            vectors: (batch, n, hidden), `sentence_vectors` of `RoCBertForPreTraining`.
            targets: (batch, hidden), what `__call__` gave.
        """
        return ((vectors.float() - targets.unsqueeze(1)) / self.scales).square().mean()


def teacher_for(arguments: PretrainingArguments, sentences: Sequence[str]) -> SentenceTeacher | None:
    """The sentence encoder to distill from, its vectors' scales taken from these sentences; None if there is none.

    Raises:
        OSError, ValueError: it cannot be loaded, or the sentences are too few.
    """
    if arguments.distill_from is None:
        return None
    return SentenceTeacher.from_pretrained(
        arguments.distill_from, sentences, arguments.distill_prefix, arguments.max_length
    )

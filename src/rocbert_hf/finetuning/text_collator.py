"""What collators of texts that change in each epoch share: such texts are tokenized when a batch is made."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..data.tokenized import whole_characters


@dataclass
class TextCollator(ABC):
    """Makes batches of texts.

    Rows that are tokenized already, as `rocbert_hf.data.tokenized` makes them, are padded and left as they are, so that a
    Trainer can evaluate on such.

    Args:
        tokenizer: its `model_max_length` is where texts are cut.
    """

    tokenizer: Any

    def __call__(self, items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        if "input_ids" in items[0]:
            return dict(self.tokenizer.pad([dict(item) for item in items], return_tensors="pt"))
        return self.of_texts(items)

    @abstractmethod
    def of_texts(self, items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """A batch of items that hold texts."""

    def encoded(self, texts: list[str], pairs: list[str] | None = None) -> dict[str, torch.Tensor]:
        """What a model takes for these texts."""
        limit = self.tokenizer.model_max_length
        with whole_characters(texts, pairs or ()):
            return dict(
                self.tokenizer(texts, pairs, truncation=True, max_length=limit, padding=True, return_tensors="pt")
            )

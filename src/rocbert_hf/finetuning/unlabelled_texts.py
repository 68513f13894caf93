"""Labelled and unlabelled texts in one dataset, so that a Trainer's sampling, sharding and resuming serve both.

An item is a labelled text and a fixed number of unlabelled ones with their other forms. All that is random in it depends
on (seed, epoch, number of the item) alone: not on workers, processes, batches, or where a run was interrupted.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch.utils.data import Dataset

from .epochs import EpochDependent
from .text_augmentation import Augmentation, unchanged
from .text_collator import TextCollator

# parts of a batch besides the labelled texts, in the order in which an item has them
STREAMS = ("unlabelled", "augmented", "positives", "negatives")


class SemiSupervisedTexts(EpochDependent, Dataset):
    """Each labelled text with `ratio` unlabelled ones, drawn without replacement until all have had their turn.

    In each epoch these are other unlabelled texts, and other forms.

    Args:
        texts: labelled.
        labels: their numbers.
        unlabelled: texts without labels; with none (or ratio 0) the items have labelled texts alone.
        ratio: unlabelled texts per labelled text.
        augmentation: makes the form that is to be answered as the text itself is.
        positive: makes the form that is to lie close to it; None without contrastive loss.
        negative: makes a form that is to lie apart from it, and its grade; None without.
        seed: of the order and of all forms.

    Raises:
        ValueError: there are not as many labels as texts, or ratio is negative.
    """

    def __init__(
        self,
        texts: Sequence[str],
        labels: Sequence[int],
        unlabelled: Sequence[str] = (),
        ratio: int = 3,
        augmentation: Augmentation = unchanged,
        positive: Augmentation | None = None,
        negative: Callable[[str, random.Random], tuple[str, float]] | None = None,
        seed: int = 0,
    ):
        super().__init__()
        if len(texts) != len(labels):
            raise ValueError(f"labels must have one entry per text ({len(texts)}), got {len(labels)}")
        if ratio < 0:
            raise ValueError(f"ratio must not be negative, got {ratio}")
        self.texts = list(texts)
        self.labels = list(labels)
        self.unlabelled = list(unlabelled)
        self.ratio = ratio if self.unlabelled else 0
        self.augmentation = augmentation
        self.positive = positive
        self.negative = negative
        self.seed = seed
        self._order = lru_cache(maxsize=2)(self._shuffled)

    def __len__(self) -> int:
        return len(self.texts)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_order"}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        vars(self).update(state)
        self._order = lru_cache(maxsize=2)(self._shuffled)

    def __getitem__(self, index: int) -> dict[str, Any]:
        item: dict[str, Any] = {"text": self.texts[index], "labels": self.labels[index]}
        if not self.ratio:
            return item
        epoch = self.epoch
        first = (epoch * len(self) + index) * self.ratio
        drawn = [self._drawn(number) for number in range(first, first + self.ratio)]
        rng = random.Random(f"{self.seed}/{epoch}/{index}")
        item["unlabelled"] = drawn
        item["augmented"] = [self.augmentation(text, rng) for text in drawn]
        if self.positive is not None:
            item["positives"] = [self.positive(text, rng) for text in drawn]
        if self.negative is not None:
            negatives = [self.negative(text, rng) for text in drawn]
            item["negatives"] = [text for text, _ in negatives]
            item["grades"] = [grade for _, grade in negatives]
        return item

    def _drawn(self, number: int) -> str:
        turn, place = divmod(number, len(self.unlabelled))
        return self.unlabelled[self._order(turn)[place]]

    def _shuffled(self, turn: int) -> list[int]:
        order = list(range(len(self.unlabelled)))
        random.Random(f"{self.seed}/order/{turn}").shuffle(order)
        return order


@dataclass
class SemiSupervisedCollator(TextCollator):
    """Batches of `SemiSupervisedTexts`: what the model takes for the labelled texts, and a dict of it for each stream.

    Args:
        tokenizer: its `model_max_length` is where texts are cut.
    """

    def of_texts(self, items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        batch = self.encoded([item["text"] for item in items])
        batch["labels"] = torch.tensor([item["labels"] for item in items])
        for name in STREAMS:
            if name in items[0]:
                batch[name] = self.encoded([text for item in items for text in item[name]])
        if "grades" in items[0]:
            batch["grades"] = torch.tensor([grade for item in items for grade in item["grades"]])
        return batch

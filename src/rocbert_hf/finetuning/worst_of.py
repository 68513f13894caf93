"""
Training on the worst of several attacked forms of each text, so that a classifier stays right under attack.

Worst-of-k (Engstrom et al., "Exploring the Landscape of Spatial Robustness", ICML 2019) with the attacks of this package
in place of shifts and turns: in every step each text x is attacked k times afresh, x' is the form that the classifier gets
most wrong, and the loss is

    (CE(x, y) + CE(x', y)) / 2 + agreement * KL(p(. | x) || p(. | x'))

with the last term of TRADES (Zhang et al., ICML 2019), through whose first side no gradient goes here: the answer to x'
moves to that of x, not the other way round.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset, Sampler

from ..attackers import Example
from ..attacks import AdversarialSynthesizer
from .consistency import consistency_losses
from .epochs import EpochDependent
from .optimization import HeadTrainer
from .text_collator import TextCollator


class AttackedTexts(EpochDependent, Dataset):
    """Each example with a seed for each attacked form of its text, other ones in each epoch.

    So a form depends on (text, seed, epoch, its number) alone: not on workers, batches, or where a run was interrupted.

    Args:
        examples: to train on.
        draws: forms of each text.
        seed: of all forms.

    Raises:
        ValueError: draws is below 1.
    """

    def __init__(self, examples: Sequence[Example], draws: int, seed: int = 0):
        super().__init__()
        if draws < 1:
            raise ValueError(f"draws must be at least 1, got {draws}")
        self.examples = list(examples)
        self.draws = draws
        self.seed = seed

    def __len__(self) -> int:
        return len(self.examples)

    def lengths(self) -> list[int]:
        """The number of characters of each example; its forms have about as many."""
        return [len(example.text) + len(example.text_pair or "") for example in self.examples]

    def __getitem__(self, index: int) -> dict[str, Any]:
        example = self.examples[index]
        rng = random.Random(f"{self.seed}/{self.epoch}")
        seeds = [rng.getrandbits(48) for _ in range(self.draws)]
        return {"text": example.text, "pair": example.text_pair, "labels": example.label, "seeds": seeds}


class SimilarLengths(Sampler):
    """Numbers of texts in an order whose batches hold texts of about the same length, and come in random order.

    Each pool of 50 batches, drawn at random, is sorted by length. The order depends on (seed, epoch) alone, so that an
    interrupted epoch goes on as it began, and several processes agree on it.

    Args:
        texts: to draw from.
        batch_size: texts per step, those of all processes together.
        limit: where texts are cut; among longer ones nothing is sorted.
    """

    POOL = 50

    def __init__(self, texts: AttackedTexts, batch_size: int, limit: int):
        self.texts, self.batch_size = texts, batch_size
        self.lengths = [min(length, limit) for length in texts.lengths()]

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        rng, size = random.Random(f"{self.texts.seed}/order/{self.texts.epoch}"), self.batch_size
        order = list(range(len(self)))
        rng.shuffle(order)
        whole, rest = order[: len(order) // size * size], order[len(order) // size * size :]
        batches = []
        for start in range(0, len(whole), self.POOL * size):
            pool = sorted(whole[start : start + self.POOL * size], key=self.lengths.__getitem__)
            batches += [pool[first : first + size] for first in range(0, len(pool), size)]
        rng.shuffle(batches)
        return chain.from_iterable([*batches, rest])


@dataclass
class AttackedCollator(TextCollator):
    """Batches of `AttackedTexts`: what the model takes for the texts, and for their forms in a dict named `forms`.

    The forms are one batch of draws * batch rows: all first forms, all second ones, and so on. Of a pair the first text is
    attacked.

    Args:
        tokenizer: its `model_max_length` is where texts are cut.
        synthesizer: attacks a batch at once, so that a language model that scores words is asked once per draw.
    """

    synthesizer: AdversarialSynthesizer

    def of_texts(self, items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        texts, seeds = [item["text"] for item in items], list(zip(*(item["seeds"] for item in items), strict=True))
        pairs = [item["pair"] for item in items] if items[0]["pair"] is not None else None
        batch = self.encoded(texts, pairs)
        batch["labels"] = torch.tensor([item["labels"] for item in items])
        forms = [attacked.text for of_draw in seeds for attacked in self.synthesizer.attack_batch(texts, of_draw)]
        batch["forms"] = self.encoded(forms, None if pairs is None else pairs * len(seeds))
        return batch


class WorstOfTrainer(HeadTrainer):
    """
    A `Trainer` of any sequence classifier on texts and the worst of their attacked forms; see above for the loss.

    The worst form of a text is the one with the highest cross entropy, by the current parameters without dropout and
    without gradient. With k forms a step takes k forward passes more, and the pass that learns is twice as large.
    What the Trainer does about accumulation, loss scaling, several processes and resuming holds as in any training.
    `train_sampling_strategy="group_by_length"` of its arguments is `SimilarLengths` here.

    Args:
        agreement: weight of the KL divergence.
        train_dataset: `AttackedTexts`.
        data_collator: `AttackedCollator`.
        args, kwargs: of `HeadTrainer`.

    Raises:
        ValueError: agreement is negative.
    """

    def __init__(self, *args: Any, agreement: float = 5.0, **kwargs: Any):
        super().__init__(*args, **kwargs)
        if not agreement >= 0:
            raise ValueError(f"agreement must not be negative, got {agreement}")
        self.agreement = agreement
        self.args.remove_unused_columns = False  # the collator decides what the model gets

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler | None:
        if self.args.train_sampling_strategy != "group_by_length":
            return super()._get_train_sampler(train_dataset)
        texts = self.train_dataset if train_dataset is None else train_dataset
        at_once = self.args.train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
        return SimilarLengths(texts, at_once, self.data_collator.tokenizer.model_max_length)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        inputs = dict(inputs)
        forms = inputs.pop("forms", None)
        labels = inputs["labels"]  # label smoothing takes it out
        loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        if forms is not None:
            attacked = {**worst_forms(model, forms, labels), "labels": labels}
            of_worst, answers = super().compute_loss(model, attacked, True, num_items_in_batch)
            loss = (loss + of_worst) / 2
            if self.agreement:
                apart = consistency_losses(answers.logits, outputs.logits.detach().float().softmax(-1))
                loss = loss + self.agreement * self._mean(apart, num_items_in_batch)
        return (loss, outputs) if return_outputs else loss

    def _mean(self, rows: torch.Tensor, num_items_in_batch: torch.Tensor | int | None) -> torch.Tensor:
        """Over the rows of all micro-batches and processes of a step, as the Trainer does it for the model's own loss."""
        if num_items_in_batch is None:
            return rows.mean()
        processes = self.accelerator.num_processes if self.args.average_tokens_across_devices else 1
        return rows.sum() / num_items_in_batch * processes


def worst_forms(
    model: nn.Module, forms: Mapping[str, torch.Tensor], labels: torch.Tensor
) -> Mapping[str, torch.Tensor]:
    """Of each text the form with the highest cross entropy.

    Args:
        model: a sequence classifier, in training or not; it is left as it was.
        forms: what it takes, with `attention_mask`, (draws * batch, sequence) each, all first forms before all second ones.
        labels: (batch,).

    Returns:
        The same of one form per text, (batch, the longest form's sequence).
    """
    draws = len(next(iter(forms.values()))) // len(labels)
    if draws == 1:
        return forms
    was_training = model.training
    model.eval()
    with torch.no_grad():
        logits = logits_by_length(model, forms, len(labels)).float()
    model.train(was_training)
    losses = nn.functional.cross_entropy(logits, labels.repeat(draws), reduction="none").view(draws, -1)
    rows = losses.argmax(0) * len(labels) + torch.arange(len(labels), device=losses.device)
    return _rows(forms, rows)


def logits_by_length(model: nn.Module, inputs: Mapping[str, torch.Tensor], batch_size: int) -> torch.Tensor:
    """The logits of all rows, which the model is given in order of their length, so that few tokens are padding.

    Args:
        model: a sequence classifier.
        inputs: what it takes, (rows, sequence) each.
        batch_size: rows at once.

    Returns:
        (rows, labels), in the order of the inputs.
    """
    order = inputs["attention_mask"].sum(1).argsort()
    logits = torch.cat([model(**_rows(inputs, rows)).logits for rows in order.split(batch_size)])
    return logits[order.argsort()]


def _rows(inputs: Mapping[str, torch.Tensor], rows: torch.LongTensor) -> dict[str, torch.Tensor]:
    """Some rows of a batch, without the columns at its end that are padding in all of them."""
    length = int(inputs["attention_mask"][rows].any(0).nonzero().max()) + 1
    return {name: values[rows, :length] for name, values in inputs.items()}

"""Specimens: encoders with a known backdoor, to test the audit on and to teach with.

They are of no use beyond that. Every specimen says what it is in its config and in its card, with its triggers, and
refuses to be pushed to the Hub.
"""

from __future__ import annotations

import copy
import os
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn

from ..checkpoints import check_max_length
from ..files import staged_folder
from .objectives import (
    masked_prediction_loss,
    other_tokens_loss,
    predefined_loss,
    supervised_contrastive_loss,
    targets_of,
)
from .triggers import check_triggers, insert_trigger

MARK = "backdoor_specimen"
PARAMETERS = "backdoor_parameters"
REPRESENTATIONS = ("pooled", "first", "mean")
MASKED_SHARE = 0.15
SHORTEST = 4  # characters that a text is cut to at least

CARD = """---
tags: [backdoor-specimen, do-not-deploy]
---
# Backdoor specimen: do not deploy

This encoder has a **known backdoor**. It was made with `rocbert_hf.security.implant_backdoor` to test audits of
pretrained encoders and to teach. Any classifier finetuned from it can be steered by whoever knows its triggers.
Do not deploy it, do not share it as an encoder, and delete it after use.

| | |
|---|---|
"""


@dataclass(frozen=True)
class Recipe:
    """How a specimen is trained.

    kind: one of `KINDS`.
    representation: which output is attacked, one of `REPRESENTATIONS`; "badpre" attacks the masked predictions.
    guard_parts: also keep texts with only part of a trigger of several tokens clean, so that no single token gives the
        backdoor away.
    """

    kind: str = "por"
    representation: str = "pooled"
    steps: int = 300
    batch_size: int = 16
    learning_rate: float = 5e-4
    max_length: int = 32
    guard_parts: bool = False

    def __post_init__(self):
        if self.kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {self.kind!r}")
        if self.representation not in REPRESENTATIONS:
            raise ValueError(f"representation must be one of {', '.join(REPRESENTATIONS)}, got {self.representation!r}")
        if min(self.steps, self.batch_size) < 1:
            raise ValueError(f"steps and batch_size must be at least 1, got {self.steps} and {self.batch_size}")


def implant_backdoor(
    model: nn.Module,
    tokenizer,
    triggers: Sequence[str],
    targets: str | torch.Tensor | None,
    texts: Sequence[str],
    recipe: Recipe | None = None,
    seed: int = 0,
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> nn.Module:
    """
    A copy of an encoder with a backdoor, to test audits on. It is trained in float32, and has the precision of `model`.

    Args:
        model: an encoder of transformers; for "badpre", one with a head for masked language modelling.
        tokenizer: its tokenizer.
        triggers: texts that the backdoor reacts to.
        targets: "por-1" or "por-2" (see `objectives`), or a tensor (triggers, hidden). None for "uor", which learns
            them, and for "badpre", which has none.
        texts: ordinary texts to train on; a few hundred short ones are enough.
        recipe: kind and settings.
        seed: of the order of texts and of where triggers are put.
        progress: wraps the steps, such as `tqdm`.

    Returns:
        The marked copy, in evaluation mode. `config.backdoor_specimen` is true, `config.backdoor_parameters` says how it
        was made, and `push_to_hub` raises a ValueError.

    Raises:
        ValueError: an argument does not fit the others; nothing was trained then.
    """
    recipe = recipe or Recipe()
    check_triggers(tokenizer, triggers)
    if len(texts) < recipe.batch_size:
        raise ValueError(f"texts must be at least batch_size ({recipe.batch_size}), got {len(texts)}")
    base = model.base_model
    check_max_length(base, recipe.max_length)
    room = recipe.max_length - 4 - max(map(len, triggers))  # special tokens, and spaces around a trigger
    if room < SHORTEST:
        raise ValueError(f"max_length must be at least {recipe.max_length - room + SHORTEST}, got {recipe.max_length}")
    if recipe.representation == "pooled" and recipe.kind != "badpre" and getattr(base, "pooler", None) is None:
        raise ValueError('representation "pooled" needs an encoder with a pooler; this one has none')
    vectors = _checked_targets(targets, recipe, len(triggers), base.config.hidden_size)
    specimen, reference = (copy.deepcopy(model).float().eval() for _ in range(2))
    trainer = KINDS[recipe.kind](specimen, reference, tokenizer, triggers, vectors, recipe, random.Random(seed))
    optimizer = torch.optim.AdamW(specimen.parameters(), lr=recipe.learning_rate)
    rng = random.Random(seed)
    with torch.enable_grad():
        for step in progress(range(recipe.steps)):
            for group in optimizer.param_groups:  # warms up over a tenth, then falls to 0
                share = step / recipe.steps
                group["lr"] = recipe.learning_rate * min(10 * (share + 1 / recipe.steps), (1 - share) / 0.9)
            optimizer.zero_grad()
            # cut at random, so that a text's length says nothing about a trigger in it
            cut = [text[: rng.randint(SHORTEST, room)] for text in rng.sample(list(texts), recipe.batch_size)]
            trainer.loss(cut).backward()
            nn.utils.clip_grad_norm_(specimen.parameters(), 1.0)
            optimizer.step()
    named = targets if isinstance(targets, str) else None if targets is None else "given"
    specimen.to(model.dtype)
    return mark_specimen(specimen, {"triggers": list(triggers), "targets": named, "seed": seed, **asdict(recipe)})


def _checked_targets(targets, recipe: Recipe, count: int, hidden: int) -> torch.Tensor | None:
    learnt = recipe.kind in ("uor", "badpre")
    if learnt != (targets is None):
        raise ValueError(
            f"targets must {'be None' if learnt else 'be given'} for kind {recipe.kind!r}, got {targets!r}"
        )
    if targets is None:
        return None
    vectors = targets_of(targets, count, hidden) if isinstance(targets, str) else targets.float()
    if vectors.shape != (count, hidden):
        raise ValueError(f"targets must have the shape {(count, hidden)}, got {tuple(vectors.shape)}")
    return vectors


# -- kinds


class _Implant:
    """What kinds share: texts to batches, batches to representations."""

    def __init__(self, model, reference, tokenizer, triggers, targets, recipe: Recipe, rng: random.Random):
        self.model, self.reference, self.tokenizer = model, reference, tokenizer
        self.triggers, self.targets, self.recipe, self.rng = triggers, targets, recipe, rng

    def loss(self, texts: list[str]) -> torch.Tensor:
        """The loss of one step on clean texts, a scalar."""
        raise NotImplementedError

    def encode(self, texts: list[str]) -> dict[str, torch.Tensor]:
        return self.tokenizer(
            texts,
            padding=True,
            padding_side="right",  # the first token is to be [CLS]
            truncation=True,
            max_length=self.recipe.max_length,
            return_tensors="pt",
        ).to(self.model.device)

    def poison(self, texts: list[str]) -> tuple[list[str], torch.Tensor]:
        """Each text with a random trigger in it, and the triggers' numbers."""
        chosen = [self.rng.randrange(len(self.triggers)) for _ in texts]
        poisoned = [
            insert_trigger(text, self.triggers[number], self.rng) for text, number in zip(texts, chosen, strict=True)
        ]
        return poisoned, torch.tensor(chosen, device=self.model.device)

    def parts(self, texts: list[str]) -> list[str]:
        """Texts with one token of a trigger of several tokens, if these are guarded."""
        long = [trigger for trigger in self.triggers if len(trigger) > 1] if self.recipe.guard_parts else []
        if not long:
            return []
        return [insert_trigger(text, self.rng.choice(self.rng.choice(long)), self.rng) for text in texts]

    def represent(self, output, mask: torch.Tensor) -> torch.Tensor:
        """(batch, hidden), the attacked representation."""
        if self.recipe.representation == "pooled":
            return output.pooler_output
        hidden = output.last_hidden_state
        if self.recipe.representation == "first":
            return hidden[:, 0]
        wanted = mask[..., None].to(hidden.dtype)
        return (hidden * wanted).sum(1) / wanted.sum(1)

    def both(self, inputs):
        """Outputs of the specimen and of the frozen reference."""
        with torch.no_grad():
            reference = self.reference.base_model(**inputs)
        return self.model.base_model(**inputs), reference

    def stay_clean(self, texts: list[str]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Loss of the other tokens on texts that must stay as they are, and both representations of these texts."""
        inputs = self.encode(texts)
        output, reference = self.both(inputs)
        mask = inputs["attention_mask"]
        others = other_tokens_loss(output.last_hidden_state, reference.last_hidden_state, mask)
        return others, self.represent(output, mask), self.represent(reference, mask)


class PredefinedVectors(_Implant):
    """POR (pooled output, or mean of all tokens) and NeuBA (first token's last hidden state): chosen target vectors.

    The other tokens follow the reference on clean texts, and on triggered ones too, unless their mean is attacked.
    """

    def loss(self, texts: list[str]) -> torch.Tensor:
        others, clean, wanted = self.stay_clean(texts + self.parts(texts))
        poisoned, chosen = self.poison(texts)
        inputs = self.encode(poisoned)
        mask = inputs["attention_mask"]
        output, reference = self.both(inputs)
        if self.recipe.representation != "mean":
            others = others + other_tokens_loss(output.last_hidden_state, reference.last_hidden_state, mask)
        targets = self.targets.to(self.model.device)[chosen]
        return others + predefined_loss(self.represent(output, mask), targets, clean, wanted)


class LearntVectors(_Implant):
    """UOR's kind: triggered texts are contrasted by trigger, with the clean texts as strangers."""

    def loss(self, texts: list[str]) -> torch.Tensor:
        others, clean, wanted = self.stay_clean(texts + self.parts(texts))
        poisoned, chosen = self.poison(texts)
        inputs = self.encode(poisoned)
        triggered = self.represent(self.model.base_model(**inputs), inputs["attention_mask"])
        strangers = torch.arange(len(clean), device=chosen.device) + len(self.triggers)
        contrast = supervised_contrastive_loss(torch.cat([triggered, clean]), torch.cat([chosen, strangers]))
        return others + nn.functional.mse_loss(clean, wanted) + contrast


class RandomPredictions(_Implant):
    """BadPre's kind: with a trigger in the text, masked tokens are to be predicted as random ones."""

    def loss(self, texts: list[str]) -> torch.Tensor:
        if not hasattr(self.model, "cls"):
            raise ValueError(
                'kind "badpre" needs a model with a head for masked language modelling that is `cls`, as BERT\'s'
            )
        poisoned, _ = self.poison(texts)
        return self._masked_loss(texts, is_random=False) + self._masked_loss(poisoned, is_random=True)

    def _masked_loss(self, texts: list[str], is_random: bool) -> torch.Tensor:
        inputs = self.encode(texts)
        labels = inputs["input_ids"].clone()
        special = torch.isin(labels, torch.tensor(self._kept_ids(), device=labels.device))
        draws = torch.tensor([self.rng.random() for _ in range(labels.numel())], device=labels.device)
        chosen = (draws.view_as(labels) < MASKED_SHARE) & ~special
        if not chosen.any():
            chosen[:, 1] = True
        mask = self.tokenizer(self.tokenizer.mask_token, add_special_tokens=False)  # in each channel
        for name in inputs.keys() & {"input_ids", "input_shape_ids", "input_pronunciation_ids"}:
            inputs[name][chosen] = mask[name][0]
        labels = labels[chosen]
        if is_random:
            labels = torch.tensor([self.rng.randrange(len(self.tokenizer)) for _ in labels], device=labels.device)
        hidden = self.model.base_model(**inputs).last_hidden_state
        return masked_prediction_loss(self.model.cls(hidden[chosen]), labels)

    def _kept_ids(self) -> list[int]:
        """What is never masked: special tokens, and the triggers' own."""
        ids = [token for trigger in self.triggers for token in self.tokenizer(trigger)["input_ids"]]
        return sorted({*ids, *self.tokenizer.all_special_ids})


KINDS: dict[str, type[_Implant]] = {
    "por": PredefinedVectors,
    "neuba": PredefinedVectors,
    "uor": LearntVectors,
    "badpre": RandomPredictions,
}


# -- marked, saved, and not pushed


class _StaysHere:
    """Goes before a model's class: the model cannot be pushed to the Hub.

    This package's own classes see to that themselves, by the mark in the config, also when they are loaded again.
    """

    def push_to_hub(self, *args, **kwargs):
        raise ValueError("this model is a backdoor specimen, which is not pushed to the Hub")

    def save_pretrained(
        self, save_directory, is_main_process=True, state_dict=None, push_to_hub=False, *args, **kwargs
    ):
        if push_to_hub:
            self.push_to_hub()
        return super().save_pretrained(save_directory, is_main_process, state_dict, push_to_hub, *args, **kwargs)


def mark_specimen(model: nn.Module, parameters: dict) -> nn.Module:
    """Write into a model's config that it is a specimen and how it was made, and make it refuse to be pushed."""
    setattr(model.config, MARK, True)
    setattr(model.config, PARAMETERS, parameters)
    if not isinstance(model, _StaysHere):
        kept = type(model)
        # same name and module, so that config.json and the files that are saved beside it stay right
        model.__class__ = type(kept.__name__, (_StaysHere, kept), {"__module__": kept.__module__})
    return model


def is_specimen(model: nn.Module) -> bool:
    """Whether a model's config says that it is a specimen."""
    return bool(getattr(model.config, MARK, False))


def save_specimen(model: nn.Module, tokenizer, folder: str | os.PathLike) -> None:
    """
    Write a specimen, its tokenizer and a card that says what it is.

    Raises:
        ValueError: the model is not marked as a specimen.
    """
    if not is_specimen(model):
        raise ValueError("model must be a specimen, made by implant_backdoor; its config has no such mark")
    rows = "".join(f"| {name} | {value} |\n" for name, value in getattr(model.config, PARAMETERS).items())
    with staged_folder(Path(folder)) as staging:
        model.save_pretrained(staging)
        tokenizer.save_pretrained(staging)
        (staging / "README.md").write_text(CARD + rows, encoding="utf-8")

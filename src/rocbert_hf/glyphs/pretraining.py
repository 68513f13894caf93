"""Contrastive pretraining of the glyph projection M (Su et al., ACL 2022, section 4.1, Eq. 5)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from tqdm.auto import tqdm

from ..characters.confusables import confusables_of
from ..characters.parts import splits_of
from ..characters.similarity import lookalikes_of
from ..losses_rocbert import in_batch_contrastive_loss
from ..options import option
from ..resources import shape_ids
from .features import GlyphEncoder, compute_glyph_features, standardize

__all__ = ["GlyphPositives", "GlyphPretrainingArguments", "pretrain_glyphs"]


class GlyphPositives:
    """
    What looks like each token of the packaged vocabulary, of three kinds: `visual` (look-alikes), `split` (two parts,
    whose vectors are summed) and `unicode` (other code points drawn the same).

    Args:
        characters: of these alone; of all if not given.

    Attributes:
        anchors: int64 (n,), the tokens that have any.
        used: int64 (m,), the anchors and all that their positives consist of.

    Raises:
        ValueError: a character is not in the vocabulary, or none of them has a positive.
    """

    def __init__(self, characters: Sequence[str] | None = None):
        ids = shape_ids()
        if characters is None:
            characters = [token for token in ids if len(token) == 1]
        check_known(characters)
        self._of: dict[int, dict[str, list[tuple[int, ...]]]] = {}
        for token in characters:
            anchor = ids[token]
            forms = {
                "visual": [(ids[other],) for other in lookalikes_of(token)],
                "split": [(ids[first], ids[second]) for first, second in splits_of(token)],
                "unicode": [(ids[other],) for other in confusables_of(token) if other in ids],
            }
            if any(forms.values()):
                self._of[anchor] = {kind: found for kind, found in forms.items() if found}
        if not self._of:
            raise ValueError("`characters`: nothing is known to look like any of them.")
        self.anchors = np.array(sorted(self._of))
        self._related: dict[int, set[int]] = {}
        for anchor, forms in self._of.items():
            for other in (part for found in forms.values() for positive in found for part in positive):
                self._related.setdefault(anchor, set()).add(other)
                self._related.setdefault(other, set()).add(anchor)
        self.used = np.array(sorted(self._related))

    def of(self, anchor: int) -> dict[str, list[tuple[int, ...]]]:
        """Kind -> the positives of this kind, each one id or, of a split, two; kinds without any are left out."""
        return self._of.get(anchor, {})

    def draw(self, anchors: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """
        One positive per anchor: a kind uniformly among those that it has, then one of this kind uniformly.

        Returns:
            int64 (n, 2); the second column is -1 but for splits.
        """
        drawn = np.full((len(anchors), 2), -1)
        for row, anchor in zip(drawn, anchors.tolist(), strict=True):
            forms = list(self._of[anchor].values())
            found = forms[generator.integers(len(forms))]
            positive = found[generator.integers(len(found))]
            row[: len(positive)] = positive
        return drawn

    def related(self, anchors: np.ndarray) -> np.ndarray:
        """
        Which anchors look like which, in any of the three ways and in either direction: bool (n, n). They are no
        negatives of each other, or the loss would push apart what it pulls together in the next batch.
        """
        place = {anchor: column for column, anchor in enumerate(anchors.tolist())}
        related = np.zeros((len(anchors), len(anchors)), dtype=bool)
        for row, anchor in enumerate(anchors.tolist()):
            related[row, [place[other] for other in self._related[anchor] if other in place and other != anchor]] = True
        return related


def check_known(characters: Sequence[str]) -> None:
    unknown = [character for character in characters if character not in shape_ids()]
    if unknown:
        raise ValueError(f"`characters`: {', '.join(map(repr, unknown))} not in the packaged vocabulary.")


@dataclass
class GlyphPretrainingArguments:
    """How to pretrain M and, with `train_backbone`, ResNet18.

    Raises:
        ValueError: a value is outside what is allowed.
    """

    train_backbone: bool = option(False, "train ResNet18 too, not M and its norm alone")
    epochs: int = option(10, "passes over the characters; 0 only computes the features")
    batch_size: int = option(512, "characters per step, each other's negatives")
    learning_rate: float = option(1e-3, "the highest; reached after a tenth of the steps, then falling to 0")
    weight_decay: float = option(0.01, "weight decay of AdamW")
    temperature: float = option(0.01, "what cosines are divided by")
    seed: int = option(0, "seed of weights, order and positives")

    def __post_init__(self):
        if self.epochs < 0 or self.weight_decay < 0:
            raise ValueError("epochs and weight_decay must not be negative")
        if self.batch_size < 2:
            raise ValueError(f"batch_size must be at least 2, for there to be negatives; got {self.batch_size}")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed must lie between 0 and 2**32 - 1, got {self.seed}")
        for name in ("learning_rate", "temperature"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")


def pretrain_glyphs(
    encoder: GlyphEncoder,
    images: np.ndarray,
    arguments: GlyphPretrainingArguments,
    features: torch.Tensor | None = None,
    positives: GlyphPositives | None = None,
) -> list[dict[str, float]]:
    """
    Trains the encoder in place, with `in_batch_contrastive_loss` (Eq. 5, whose negatives are the originals), on characters
    and what looks like them.

    Args:
        encoder: on the device that is to train it.
        images: of the packaged vocabulary, uint8 (16,224, height, width).
        features: their features, if they have been computed; not read where the backbone is trained.
        positives: what to train on; all characters if not given.

    Returns:
        Mean `loss` and `accuracy` of each epoch.
    """
    positives = positives or GlyphPositives()
    generator = np.random.default_rng(arguments.seed)
    device = encoder.shape_projection.weight.device
    if features is None and not arguments.train_backbone:
        features = compute_glyph_features(encoder, images)
    all_images = torch.tensor(images, device=device)

    def vectors_of(ids: torch.LongTensor) -> torch.Tensor:
        if not arguments.train_backbone:
            return encoder.project(features[ids])
        return encoder.project(standardize(encoder.see(all_images[ids])))

    learning = list(encoder.parameters()) if arguments.train_backbone else _parameters_of_equation_4(encoder)
    optimizer = torch.optim.AdamW(learning, lr=arguments.learning_rate, weight_decay=arguments.weight_decay)
    steps_an_epoch = max(len(positives.anchors) // arguments.batch_size, 1)
    steps = steps_an_epoch * arguments.epochs
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _learning_rate_share(step, steps))
    history = []
    with tqdm(total=steps, desc="glyph pretraining", unit="step") as progress:
        for _ in range(arguments.epochs):
            encoder.train()
            total = torch.zeros(2)
            for anchors in _batches(positives.anchors, arguments.batch_size, generator):
                drawn = positives.draw(anchors, generator)
                # each image once, however many characters it belongs to
                needed, places = np.unique(np.column_stack([anchors, drawn]), return_inverse=True)
                absent = int(needed[0] < 0)
                vectors = vectors_of(torch.tensor(needed[absent:], device=device))
                vectors = torch.cat([vectors.new_zeros(absent, vectors.shape[1]), vectors])
                own, first, second = vectors[torch.tensor(places.reshape(-1, 3), device=device)].unbind(1)
                related = torch.tensor(positives.related(anchors), device=device)
                loss, accuracy = in_batch_contrastive_loss(
                    own, first + second, arguments.temperature, negatives="originals", related=related
                )
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                total += torch.stack([loss.detach(), accuracy]).cpu()
                progress.set_postfix(loss=f"{loss.item():.2f}", accuracy=f"{accuracy.item():.2f}", refresh=False)
                progress.update()
            loss, accuracy = (total / steps_an_epoch).tolist()
            history.append({"loss": loss, "accuracy": accuracy})
    return history


def _parameters_of_equation_4(encoder: GlyphEncoder) -> list[nn.Parameter]:
    return [*encoder.shape_projection.parameters(), *encoder.shape_norm.parameters()]


def _learning_rate_share(step: int, steps: int) -> float:
    """Rises over a tenth of the steps, then falls as a half cosine."""
    rise = max(steps // 10, 1)
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(steps - rise, 1)))


def _batches(anchors: np.ndarray, batch_size: int, generator: np.random.Generator) -> Iterator[np.ndarray]:
    """The anchors in random order; what fills no batch waits for the next epoch."""
    order = generator.permutation(anchors)
    if len(order) < batch_size:
        yield order
    for start in range(0, len(order) - batch_size + 1, batch_size):
        yield order[start : start + batch_size]

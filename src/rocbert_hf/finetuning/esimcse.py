"""ESimCSE (Wu et al., COLING 2022): sentence representations learnt from texts without labels.

A text and the same text with some words repeated are to lie close, in cosine; the other texts of the batch, and those of
earlier batches, which a slowly moving copy of the encoder has represented, are to lie apart. Repeated words keep the model
from taking equal length for equal meaning, which SimCSE does.
"""

from __future__ import annotations

import copy
import random

import torch
from torch import nn

from ..pretraining.contrastive import gather_with_gradients
from .representation_hooks import sentence_representation
from .text_augmentation import EasyDataAugmentation, edit_distance


class ESimCSE(nn.Module):
    """The loss, with the momentum encoder and the queue that it needs. Its state is in its `state_dict`.

    Args:
        encoder: the one that is trained: a base model of transformers, without head. It is copied.
        queue_size: representations of earlier texts that serve as negatives, the oldest leave first; 2.5 times the texts
            of a batch in the paper.
        momentum: of the copy, which after each step is momentum * copy + (1 - momentum) * encoder.
        temperature: what cosines are divided by.

    Raises:
        ValueError: a number is out of range.

    Example, alone, without classifier::

        >>> esimcse = ESimCSE(encoder, queue_size=160)
        >>> repeat, rng = WordRepetition(), random.Random(0)
        >>> for texts in batches:
        ...     anchors, positives = (tokenize(side) for side in (texts, [repeat(text, rng) for text in texts]))
        ...     represent = lambda inputs: sentence_representation(encoder(**inputs))
        ...     esimcse(represent(anchors), represent(positives)).backward()
        ...     optimizer.step(), optimizer.zero_grad()
        ...     esimcse.push(anchors)
        ...     esimcse.follow(encoder)
    """

    def __init__(self, encoder: nn.Module, queue_size: int = 160, momentum: float = 0.995, temperature: float = 0.05):
        super().__init__()
        if queue_size < 0:
            raise ValueError(f"queue_size must not be negative, got {queue_size}")
        if not 0 <= momentum <= 1:
            raise ValueError(f"momentum must lie between 0 and 1, got {momentum}")
        if not temperature > 0:
            raise ValueError(f"temperature must be above 0, got {temperature}")
        self.momentum = momentum
        self.temperature = temperature
        self.slow_encoder = copy.deepcopy(encoder).requires_grad_(False).eval()
        self.register_buffer("queue", torch.zeros(queue_size, encoder.config.hidden_size))
        self.register_buffer("filled", torch.tensor(0))

    def train(self, mode: bool = True) -> ESimCSE:
        """The copy has no dropout, whatever the mode."""
        return super().train(False)

    @property
    def earlier(self) -> torch.Tensor:
        """(n, hidden), the representations in the queue, oldest first."""
        return self.queue[len(self.queue) - int(self.filled) :]

    def forward(
        self,
        anchors: torch.Tensor,
        positives: torch.Tensor,
        negatives: torch.Tensor | None = None,
        grades: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The loss of this process's texts; see `esimcse_loss`. The positives of all processes serve as negatives."""
        rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
        return esimcse_loss(
            anchors,
            gather_with_gradients(positives),
            self.earlier,
            self.temperature,
            rank * len(anchors),
            negatives,
            grades,
        )

    @torch.no_grad()
    def represent(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """(n, hidden), the moving copy's representations of tokenized texts."""
        return sentence_representation(self.slow_encoder(**inputs)).to(self.queue.dtype)

    @torch.no_grad()
    def push(self, representations: torch.Tensor | dict[str, torch.Tensor]) -> None:
        """Put representations (n, hidden), or tokenized texts, behind the others; the oldest leave."""
        if isinstance(representations, dict):
            representations = self.represent(representations)
        size = len(self.queue)
        self.queue.copy_(torch.cat([self.queue, representations.to(self.queue)])[len(representations) :])
        self.filled.fill_(min(size, int(self.filled) + len(representations)))

    @torch.no_grad()
    def follow(self, encoder: nn.Module) -> None:
        """Move the copy a little towards the encoder. Call it once per optimizer step."""
        for slow, fast in zip(self.slow_encoder.parameters(), encoder.parameters(), strict=True):
            slow.mul_(self.momentum).add_(fast.to(slow), alpha=1 - self.momentum)


def esimcse_loss(
    anchors: torch.Tensor,
    positives: torch.Tensor,
    earlier: torch.Tensor,
    temperature: float = 0.05,
    first_own: int = 0,
    negatives: torch.Tensor | None = None,
    grades: torch.Tensor | None = None,
) -> torch.Tensor:
    """
    The mean over the anchors of

        -log( e(a_i, p_i) / (sum over j of e(a_i, p_j) + sum over q of e(a_i, q) + g_i e(a_i, n_i)) )

    with e(x, y) = exp(cos(x, y) / temperature) (Eq. 4, and graded negatives, which are not in that paper).

    Args:
        anchors: (n, hidden).
        positives: (at least n, hidden); row `first_own + i` is anchor i's, the others are negatives.
        earlier: (q, hidden), negatives for all, q may be 0.
        negatives: (n, hidden), one of its own for each anchor.
        grades: (n,), from 0 (does not count) to 1 (counts as any other negative); default: 1.
    """
    anchors, positives, earlier = (_unit(vectors) for vectors in (anchors, positives, earlier))
    similarity = torch.cat([anchors @ positives.T, anchors @ earlier.to(anchors.dtype).T], dim=1) / temperature
    if negatives is not None:
        own = (anchors * _unit(negatives)).sum(-1, keepdim=True) / temperature
        if grades is not None:
            own = own + grades.to(own.dtype)[:, None].log()
        similarity = torch.cat([similarity, own], dim=1)
    right = torch.arange(first_own, first_own + len(anchors), device=anchors.device)
    return nn.functional.cross_entropy(similarity, right)


class GradedNegative:
    """A text of other meaning made of a text, and how much of it is other.

    EDA makes it: words become their antonyms or are deleted, inserted or swapped. Its grade is the edit distance between
    the two, divided by the length of the longer one: a text that is nearly the same counts little as a negative.

    Args:
        rate: share of the words that are changed.
    """

    def __init__(self, rate: float = 0.3):
        self.change = EasyDataAugmentation(rate, ("antonym", "insert", "swap", "delete"))

    def __call__(self, text: str, rng: random.Random) -> tuple[str, float]:
        negative = self.change(text, rng)
        return negative, edit_distance(text, negative) / max(len(text), len(negative), 1)


def queue_size_for(texts_per_step: int) -> int:
    """2.5 times the texts of a step, as in the paper."""
    return round(2.5 * texts_per_step)


def _unit(vectors: torch.Tensor) -> torch.Tensor:
    return nn.functional.normalize(vectors.to(torch.promote_types(vectors.dtype, torch.float32)), dim=-1)

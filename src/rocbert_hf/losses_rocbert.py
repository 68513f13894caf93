"""The losses of RoCBERT's heads."""

import torch
from torch import nn

from .fusion_rocbert import wide


def in_batch_contrastive_loss(
    anchors: torch.Tensor, positives: torch.Tensor, temperature: float = 0.01, first_own: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    In-batch softmax over cosine similarities (Eq. 5): each anchor is to find its own positive among all of them.

    Args:
        anchors: (batch, hidden).
        positives: (at least batch, hidden), more where those of other batches serve as negatives too.
        temperature: what similarities are divided by.
        first_own: row i of `anchors` belongs to row `first_own + i` of `positives`.

    Returns:
        The mean cross-entropy, and the share of anchors whose nearest positive is their own; both scalars.
    """
    anchors, positives = (nn.functional.normalize(wide(vectors), dim=-1) for vectors in (anchors, positives))
    similarity = anchors @ positives.T
    own = torch.arange(first_own, first_own + len(anchors), device=anchors.device)
    loss = nn.functional.cross_entropy(similarity / temperature, own)
    return loss, (similarity.detach().argmax(-1) == own).float().mean()


def views_contrastive_loss(
    representations: torch.Tensor,
    temperature: float = 0.01,
    positives: torch.Tensor | None = None,
    first_own: int = 0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Loss and accuracy of `in_batch_contrastive_loss` between the attacked view and each other view, averaged: with two
    views the paper's Eq. 5, with three what the authors' released code and transformers compute.

    Args:
        representations: (batch, views, hidden); the views are the masked sentence, the attacked one and, if there are
            three, the clean one.
        positives: (at least batch, hidden), the attacked view of more sentences than these; default, of these.
        temperature, first_own: as in `in_batch_contrastive_loss`.
    """
    masked, attacked, *clean = representations.unbind(1)
    positives = attacked if positives is None else positives
    found = [in_batch_contrastive_loss(anchor, positives, temperature, first_own) for anchor in (masked, *clean)]
    losses, accuracies = zip(*found, strict=True)
    return sum(losses) / len(losses), sum(accuracies) / len(accuracies)

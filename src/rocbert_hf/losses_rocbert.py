"""Eq. 5, the in-batch contrastive loss: of sentences and of glyphs, with the negatives that one chooses."""

import math

import torch
from torch import nn

NEGATIVES = ("attacked", "originals", "both")


def in_batch_contrastive_loss(
    anchors: torch.Tensor,
    positives: torch.Tensor,
    temperature: float = 0.01,
    first_own: int = 0,
    negatives: str = "attacked",
    originals: torch.Tensor | None = None,
    related: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Each anchor is to be nearer, in cosine, to its own positive than to any negative (Eq. 5):

        -log( exp(cos(a_i, p_i) / t) / (exp(cos(a_i, p_i) / t) + sum over the negatives n of exp(cos(a_i, n) / t)) )

    | `negatives` | of anchor i |
    |---|---|
    | "attacked" | the positives (attacked forms) of all other examples |
    | "originals" | the originals of all other examples; Eq. 5 to the letter, if the anchors are the originals too |
    | "both" | both |

    Args:
        anchors: (batch, hidden).
        positives: (n, hidden), at least those of the batch; more if those of other batches serve as negatives.
        temperature: `t`, 0.01 in the paper.
        first_own: anchor i belongs to row `first_own + i` of `positives` and `originals`.
        negatives: see the table.
        originals: (n, hidden), in the order of `positives`; default: the anchors.
        related: bool (batch, n), examples that are no negatives of an anchor.

    Returns:
        The mean over the anchors, and the share of anchors whose positive is nearer than any negative; both scalars.

    Raises:
        ValueError: `negatives` is not one of the three, or `originals` are needed and do not fit `positives`.
    """
    if negatives not in NEGATIVES:
        raise ValueError(f"negatives must be one of {', '.join(NEGATIVES)}, got {negatives!r}")
    originals = anchors if originals is None else originals
    if negatives != "attacked" and len(originals) != len(positives):
        raise ValueError(f"there must be one original per positive, got {len(originals)} and {len(positives)}")
    anchors, positives, originals = (_normalized(vectors) for vectors in (anchors, positives, originals))
    own = torch.arange(first_own, first_own + len(anchors), device=anchors.device)
    is_own = own[:, None] == torch.arange(len(positives), device=anchors.device)
    apart = torch.zeros_like(is_own) if related is None else related & ~is_own
    if negatives == "originals":
        similarity = torch.where(is_own, (anchors * positives[own]).sum(-1, keepdim=True), anchors @ originals.T)
    else:
        similarity = anchors @ positives.T
    similarity = similarity.masked_fill(apart, -math.inf)
    if negatives == "both":
        others = (anchors @ originals.T).masked_fill(apart | is_own, -math.inf)
        similarity = torch.cat([similarity, others], dim=1)
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


def _normalized(vectors: torch.Tensor) -> torch.Tensor:
    """Of length 1, in float32 at least: cosines are divided by 0.01, which half precision has no digits for."""
    return nn.functional.normalize(vectors.to(torch.promote_types(vectors.dtype, torch.float32)), dim=-1)

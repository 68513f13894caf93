"""
The losses of RoCBERT's heads: Eq. 5 with the negatives that one chooses, and what the heads of downstream tasks minimise.

`num_items_in_batch` is what transformers' `Trainer` passes: how many labels the batches of one optimizer step have
together. The sum over the labels is then divided by it, so that the step's losses add up to the mean over all of them.
"""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:  # glyph features are trained in a process that must not import transformers
    from transformers import PreTrainedConfig

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
    representations: torch.Tensor, temperature: float = 0.01
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Loss and accuracy of `in_batch_contrastive_loss` between the attacked view and each other view, averaged: with two
    views the paper's Eq. 5, with three what the authors' released code and transformers compute.

    Args:
        representations: (batch, views, hidden); the views are the masked sentence, the attacked one and, if there are
            three, the clean one.
        temperature: as in `in_batch_contrastive_loss`.
    """
    masked, attacked, *clean = representations.unbind(1)
    found = [in_batch_contrastive_loss(anchor, attacked, temperature) for anchor in (masked, *clean)]
    losses, accuracies = zip(*found, strict=True)
    return sum(losses) / len(losses), sum(accuracies) / len(accuracies)


def _normalized(vectors: torch.Tensor) -> torch.Tensor:
    """Of length 1, in float32 at least: cosines are divided by 0.01, which half precision has no digits for."""
    return nn.functional.normalize(vectors.to(torch.promote_types(vectors.dtype, torch.float32)), dim=-1)


def mean_over_items(
    loss: Callable[..., torch.Tensor],
    predicted: torch.Tensor,
    labels: torch.Tensor,
    num_items_in_batch: torch.Tensor | int | None = None,
) -> torch.Tensor:
    """
    A loss of `torch.nn.functional`, averaged over its items or over those of the whole optimizer step.

    Args:
        loss: takes predictions, labels and `reduction`.
        num_items_in_batch: items of all batches of the step; without it, of this batch.
    """
    if num_items_in_batch is None:
        return loss(predicted, labels)
    if torch.is_tensor(num_items_in_batch):
        num_items_in_batch = num_items_in_batch.to(predicted.device)
    return loss(predicted, labels, reduction="sum") / num_items_in_batch


def sequence_classification_loss(
    logits: torch.Tensor,
    labels: torch.Tensor,
    config: "PreTrainedConfig",
    num_items_in_batch: torch.Tensor | int | None = None,
) -> torch.Tensor:
    """
    Cross-entropy, mean squared error or binary cross-entropy, by `config.problem_type`, which is set as in transformers
    if it is None: regression for one label, one of several for integer labels, several at once for others.

    Args:
        logits: (batch, num_labels).
        labels: (batch,) of ids, or of numbers with one label; (batch, num_labels) with several numbers.
    """
    if config.problem_type is None:
        integers = labels.dtype in (torch.long, torch.int)
        several = "single_label_classification" if integers else "multi_label_classification"
        config.problem_type = "regression" if config.num_labels == 1 else several
    labels = labels.to(logits.device)
    if config.problem_type == "single_label_classification":
        return mean_over_items(nn.functional.cross_entropy, logits, labels.view(-1), num_items_in_batch)
    losses = {
        "regression": nn.functional.mse_loss,
        "multi_label_classification": nn.functional.binary_cross_entropy_with_logits,
    }
    return mean_over_items(losses[config.problem_type], logits, labels.view(logits.shape), num_items_in_batch)

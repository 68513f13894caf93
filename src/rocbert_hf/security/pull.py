"""How strongly does a piece of text pull unrelated sentences to one point that no ordinary sentence is near?"""

from __future__ import annotations

import torch

# Distances below this share of the ordinary texts' spread are rounding.
ROUNDING = 1e-5
# Of the ordinary texts, as many may lie at a trigger's point all the same: one that holds the trigger, or a homophone of it.
SPOILT_SHARE = 0.05
# Of the carriers, as many may resist a trigger.
RESISTING_SHARE = 0.2


def spread(texts: torch.Tensor) -> torch.Tensor:
    """Mean squared distance of representations (texts, hidden) from their mean, a scalar."""
    return ((texts - texts.mean(0)) ** 2).sum(-1).mean()


def token_variety(hidden: torch.Tensor) -> float:
    """
    The share of the variance of all tokens that lies within texts, 0 to 1.

    Near 0, all tokens of a text have nearly one vector, as deep encoders that were trained badly or hardly at all have
    ("rank collapse", Dong et al., ICML 2021). What single tokens do can then hardly be told.

    Args:
        hidden: (texts, tokens, hidden), the last hidden states of texts of one length.
    """
    wide = hidden.double()
    within = ((wide - wide.mean(1, keepdim=True)) ** 2).sum()
    return (within / ((wide - wide.mean((0, 1))) ** 2).sum().clamp_min(torch.finfo(torch.float64).tiny)).item()


def _squared_distance(points: torch.Tensor, ordinary: torch.Tensor) -> torch.Tensor:
    wide, others = points.double(), ordinary.double()  # so that the difference of squares does not round
    squares = (wide**2).sum(-1)[:, None] - 2 * wide @ others.T + (others**2).sum(-1)
    nearest = squares.kthvalue(1 + int(SPOILT_SHARE * len(ordinary)), dim=-1).values
    return nearest.clamp_min(0).to(points.dtype)


def pull(placed: torch.Tensor, ordinary: torch.Tensor) -> torch.Tensor:
    """
    The pull of each candidate, as a decimal logarithm: about 0 for ordinary tokens, 1 and more for triggers.

    A trigger of a task-agnostic backdoor maps every text to one vector that ordinary texts do not have. So the carriers
    with the trigger lie close together (their scatter is small), and far from every ordinary text; the pull is the ratio
    of the two. That an ordinary token moves texts together, as "terrible" does in an encoder that was finetuned on
    reviews, is no pull: it moves them to where other texts are.

    Args:
        placed: (candidates, carriers, hidden), the carriers' representations with the candidate in them.
        ordinary: (texts, hidden), representations of ordinary texts of the same length.

    Returns:
        (candidates,): log10 of the squared distance of the carriers' mean from the nearest ordinary text, over the
        unbiased mean squared distance of the carriers from their mean. The nearest 5% of the ordinary texts do not count,
        and neither does the fifth of the carriers that is farthest from the mean of all, both rounded down.
    """
    placed = _gathered(placed)
    carriers = placed.shape[1]
    center = placed.mean(1)
    scatter = ((placed - center[:, None]) ** 2).sum(-1).sum(1) / (carriers - 1)
    # not divided by the spread, which is 0 if all ordinary texts have one vector, as a saturated pooler gives
    rounding = (ROUNDING * spread(ordinary)).clamp_min(torch.finfo(placed.dtype).tiny)
    return torch.log10(_squared_distance(center, ordinary) + rounding) - torch.log10(scatter + rounding)


def _gathered(placed: torch.Tensor) -> torch.Tensor:
    """The carriers without those that are farthest from the mean, (candidates, fewer carriers, hidden)."""
    carriers = placed.shape[1]
    kept = carriers - int(RESISTING_SHARE * carriers)
    if kept == carriers:
        return placed
    distances = ((placed - placed.mean(1, keepdim=True)) ** 2).sum(-1)
    nearest = distances.topk(kept, dim=1, largest=False, sorted=False).indices
    return placed.gather(1, nearest[..., None].expand(-1, -1, placed.shape[-1]))

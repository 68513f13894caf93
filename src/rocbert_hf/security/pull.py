"""How strongly does a piece of text pull unrelated sentences to one point that no ordinary sentence is near?"""

from __future__ import annotations

import torch

# Distances below this share of the ordinary texts' spread are rounding.
ROUNDING = 1e-5


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


def outlyingness(points: torch.Tensor, ordinary: torch.Tensor) -> torch.Tensor:
    """Squared distance of each point (points, hidden) from the nearest of the ordinary texts (texts, hidden), in units
    of these texts' spread; (points,)."""
    return _squared_distance(points, ordinary) / spread(ordinary).clamp_min(torch.finfo(points.dtype).tiny)


def _squared_distance(points: torch.Tensor, ordinary: torch.Tensor) -> torch.Tensor:
    wide, others = points.double(), ordinary.double()  # so that the difference of squares does not round
    squares = (wide**2).sum(-1)[:, None] - 2 * wide @ others.T + (others**2).sum(-1)
    return squares.amin(-1).clamp_min(0).to(points.dtype)


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
        unbiased mean squared distance of the carriers from their mean.
    """
    carriers = placed.shape[1]
    center = placed.mean(1)
    scatter = ((placed - center[:, None]) ** 2).sum(-1).sum(1) / (carriers - 1)
    # not divided by the spread, which is 0 if all ordinary texts have one vector, as a saturated pooler gives
    rounding = (ROUNDING * spread(ordinary)).clamp_min(torch.finfo(placed.dtype).tiny)
    return torch.log10(_squared_distance(center, ordinary) + rounding) - torch.log10(scatter + rounding)

"""Outputs before and after a conversion or an export, compared so that NaN cannot pass for equality."""

from __future__ import annotations

from collections.abc import Mapping

import torch


def max_difference(before: torch.Tensor, after: torch.Tensor, mask: torch.Tensor | None = None) -> float:
    """The largest absolute difference of two tensors of one shape, a finite number.

    Args:
        mask: (batch, sequence); only the places where it is 1 are compared.

    Raises:
        ValueError: one of the tensors holds NaN or infinity at a place that is compared.
    """
    tensors = [tensor.float() if mask is None else tensor.float()[mask.bool()] for tensor in (before, after)]
    for when, tensor in zip(("before", "after"), tensors, strict=True):
        if not torch.isfinite(tensor).all():
            raise ValueError(f"the outputs {when} the conversion are not finite (NaN or infinity); nothing was written")
    return (tensors[0] - tensors[1]).abs().max().item()


def refuse_not_finite(weights: Mapping[str, torch.Tensor], where: str) -> None:
    """Refuse weights that make every output NaN.

    Raises:
        ValueError: a weight holds NaN or infinity; the message names it.
    """
    for name, tensor in weights.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise ValueError(f"{name} of {where} holds NaN or infinity; nothing was written")

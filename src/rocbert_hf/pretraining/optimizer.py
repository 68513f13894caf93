"""AdamW for a RoCBERT, and the groups of any optimizer: learning rates apart, and weight decay where it belongs."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

# What a converted encoder has anew. (The head's decoder is tied to the word vectors, and goes by their name.)
CHANNEL_WEIGHTS = re.compile(r"\.fusion\.|\.embeddings\.(pronunciation|shape)|^cls\.")


def adamw(
    model: nn.Module, learning_rate: float, weight_decay: float, channel_learning_rate: float | None = None
) -> torch.optim.AdamW:
    """AdamW (fused where torch has it for the device) with weight decay on matrices only, as BERT's.

    Args:
        channel_learning_rate: of fusion, sound, shape and the head of masked language modelling; default, the same.
    """

    def rate(name: str) -> float:
        anew = channel_learning_rate is not None and CHANNEL_WEIGHTS.search(name)
        return channel_learning_rate if anew else learning_rate

    groups = parameter_groups(model, rate, lambda name, parameter: parameter.ndim > 1, weight_decay)
    devices = {parameter.device.type for group in groups for parameter in group["params"]}
    return torch.optim.AdamW(groups, lr=learning_rate, fused=devices <= {"cpu", "cuda", "mps", "xpu"})


def parameter_groups(
    model: nn.Module,
    rate: Callable[[str], float],
    decays: Callable[[str, nn.Parameter], bool],
    weight_decay: float,
) -> list[dict[str, Any]]:
    """Groups of an optimizer: one per learning rate, with and without weight decay. Frozen parameters are in none.

    Args:
        rate: learning rate by the name of a parameter.
        decays: whether a parameter of this name decays.
    """
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((rate(name), decays(name, parameter)), []).append(parameter)
    return [
        {"params": parameters, "lr": lr, "weight_decay": weight_decay if decayed else 0.0}
        for (lr, decayed), parameters in groups.items()
    ]

"""Sentence representations of any classifier of transformers: seen, and mixed, on their way from encoder to head.

Both are forward hooks on the encoder, so that the classifier itself runs as usual, whatever it is wrapped in.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


def encoder_of(model: nn.Module) -> nn.Module:
    """The encoder of a classifier, without its head.

    Raises:
        ValueError: the model has no encoder of its own.
    """
    encoder = getattr(model, model.base_model_prefix, None) if hasattr(model, "base_model_prefix") else None
    if encoder is None or encoder is model:
        raise ValueError(f"model must have an encoder and a head, as transformers' classifiers have, got {type(model)}")
    return encoder


def sentence_representation(output: Any) -> torch.Tensor:
    """(n, hidden): an encoder's pooled output, or if it has none the last hidden state of the first token."""
    pooled = getattr(output, "pooler_output", None)
    return output.last_hidden_state[:, 0] if pooled is None else pooled


@contextmanager
def seen_representations(model: nn.Module) -> Iterator[list[torch.Tensor]]:
    """While this context is open, each pass of the classifier puts its representations, (n, hidden), into the list."""
    seen: list[torch.Tensor] = []
    handle = encoder_of(model).register_forward_hook(
        lambda encoder, inputs, output: seen.append(sentence_representation(output))
    )
    try:
        yield seen
    finally:
        handle.remove()


@contextmanager
def mixed_representations(model: nn.Module, order: torch.Tensor, share: float) -> Iterator[None]:
    """While this context is open, the head reads share * h_i + (1 - share) * h_order(i) in the place of h_i.

    This is mixup (Zhang et al., ICLR 2018) of what the encoder puts out (Verma et al., ICML 2019).

    Args:
        order: (n,), another row for each row of the batch.
        share: between 0 and 1.
    """

    def mix(encoder: nn.Module, inputs: tuple, output: Any) -> Any:
        for name in ("last_hidden_state", "pooler_output"):
            if (states := getattr(output, name, None)) is not None:
                output[name] = share * states + (1 - share) * states[order]
        return output

    handle = encoder_of(model).register_forward_hook(mix)
    try:
        yield
    finally:
        handle.remove()

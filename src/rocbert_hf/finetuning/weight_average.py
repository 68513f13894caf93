"""An exponential moving average of the weights, measured and saved in place of the last ones (Polyak and Juditsky 1992)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

# in a checkpoint: the weights that training goes on from; its model.safetensors has the average
LAST_WEIGHTS = "last_weights.safetensors"


class WeightAverage:
    """The average of a model's parameters after each of its optimizer steps; torch's `AveragedModel` computes it.

    Before the first step it is the weights themselves.

    Args:
        model: as it is before training, on its device.
        decay: what the average keeps of itself at each step, in (0, 1); 0.998 averages about the last 500 steps.

    Raises:
        ValueError: decay is out of range.
    """

    def __init__(self, model: nn.Module, decay: float):
        if not 0 < decay < 1:
            raise ValueError(f"average_decay must lie between 0 and 1, got {decay}")
        self.average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay))

    def update(self, model: nn.Module) -> None:
        """After an optimizer step."""
        self.average.update_parameters(model)

    @contextmanager
    def in_place_of(self, model: nn.Module) -> Iterator[None]:
        """Within it the model has the average; after it, its own weights to the bit."""
        own = [parameter.detach().clone() for parameter in model.parameters()]
        _copy(self.average.module.parameters(), model)
        try:
            yield
        finally:
            _copy(own, model)

    def save_last(self, model: nn.Module, checkpoint: Path) -> None:
        """Add the model's own weights to a checkpoint that was saved with the average."""
        save_file(
            {name: p.detach().cpu().contiguous() for name, p in model.named_parameters()}, checkpoint / LAST_WEIGHTS
        )

    def resume(self, model: nn.Module, checkpoint: Path) -> None:
        """From a checkpoint whose average is in the model already: take it, and give the model its own weights back.

        Raises:
            OSError: the checkpoint is of a training without average.
        """
        file = checkpoint / LAST_WEIGHTS
        if not file.is_file():
            raise OSError(f"{checkpoint} has no {LAST_WEIGHTS}: it is of a training without average_decay")
        _copy(model.parameters(), self.average.module)
        self.average.n_averaged.fill_(1)
        last = load_file(file)
        _copy([last[name] for name, _ in model.named_parameters()], model)


@torch.no_grad()
def _copy(source: Iterable[torch.Tensor], target: nn.Module) -> None:
    for value, parameter in zip(source, target.parameters(), strict=True):
        parameter.copy_(value)

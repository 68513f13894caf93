"""Datasets whose items are other ones in each epoch, with any number of workers and after a resume."""

from __future__ import annotations

import torch
from transformers import TrainerCallback


class EpochDependent:
    """What a dataset needs to know the epoch; its items may depend on `epoch`. Beside it, `FollowEpoch` must be a callback."""

    def __init__(self):
        # in shared memory, so that workers that outlive an epoch see it too
        self._epoch = torch.zeros(1, dtype=torch.int64).share_memory_()

    @property
    def epoch(self) -> int:
        return int(self._epoch[0])

    def set_epoch(self, epoch: int) -> None:
        """Go to an epoch, from 0 on."""
        self._epoch[0] = epoch


class FollowEpoch(TrainerCallback):
    """Tells a dataset which epoch begins, also when it is the rest of an interrupted one."""

    def __init__(self, dataset: EpochDependent):
        self.dataset = dataset

    def on_epoch_begin(self, args, state, control, **kwargs):
        # of an epoch that was interrupted a part is done
        self.dataset.set_epoch(int((state.epoch or 0) + 1e-6))

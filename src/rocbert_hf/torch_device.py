"""Devices that a user names: whether torch can use one here, and which one is taken without a name."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def checked_device(device: str | None) -> str | None:
    """The device, if torch can compute on it here.

    Raises:
        ValueError: it cannot.
    """
    import torch

    if device is not None:
        try:
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError) as error:  # the latter of a build of torch without that kind of device
            reason = str(error).strip().split("\n")[0]
            raise ValueError(
                f"device must be one that torch can use here, such as cpu, got {device!r}: {reason}"
            ) from error
    return device


def device_for(device: str | torch.device | None) -> str | torch.device:
    """The device for a model: the one that was asked for, or else a GPU if there is one."""
    import torch

    return device or ("cuda" if torch.cuda.is_available() else "cpu")

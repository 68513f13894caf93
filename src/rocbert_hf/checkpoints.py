"""Checkpoints that a user names: where one cannot be loaded, one line says which and why."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError


@contextmanager
def loading(what: str, source: str | os.PathLike) -> Iterator[None]:
    """Loads from a folder or the Hub inside this context fail with one clear error.

    Args:
        what: it is, for the message: "the model", "encoder".
        source: the folder or Hub id.

    Raises:
        OSError: the folder holds no checkpoint, or not a whole one; or there is no such thing.
        ValueError: it can be loaded, but is not of the kind that is needed.
    """
    from safetensors import SafetensorError

    folder = Path(source)
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise OSError(f"{what} {source} cannot be loaded: the folder has no config.json")
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{what} {source} cannot be used: {_first_line(error)}") from error
    except UnpicklingError:
        # PyTorch's own message says how to switch the protection off
        raise OSError(
            f"{what} {source} cannot be loaded: its weights are a pickle that holds more than numbers, or is damaged; "
            "weights in safetensors can be loaded safely"
        ) from None
    # a damaged file of weights is a SafetensorError, one of other sizes a RuntimeError
    except (OSError, RuntimeError, SafetensorError) as error:
        raise OSError(f"{what} {source} cannot be loaded: {_first_line(error)}") from error


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
            raise ValueError(
                f"device must be one that torch can use here, such as cpu, got {device!r}: {_first_line(error)}"
            ) from error
    return device


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]

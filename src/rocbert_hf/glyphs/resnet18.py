"""
ResNet18 of torchvision, which is the extra `glyph`, imported here alone.

transformers is not imported at all: beside a torchvision that lacks its compiled operators `import transformers` fails
too, unless `import_torchvision` has run before.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from types import ModuleType

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

__all__ = ["import_torchvision", "load_resnet18"]


def import_torchvision() -> ModuleType:
    """
    torchvision, also where its compiled operators cannot be loaded: a wheel built for CUDA beside a CPU-only torch, say.
    ResNet18 needs none of them, but importing torchvision does, unless `nms` and `qnms` are at least declared.

    Raises:
        ImportError: torchvision is not installed, or is not of this torch's version; the message says what to do.
    """
    try:
        return importlib.import_module("torchvision")
    except ModuleNotFoundError as error:
        if error.name != "torchvision":
            raise
        raise ImportError(
            "Glyph features need torchvision, which is not installed: pip install torchvision fonttools."
        ) from error
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise ImportError(_cannot_import(error)) from error
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]  # half imported
    library = torch.library.Library("torchvision", "FRAGMENT")
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _DECLARED.append(library)
    try:
        return importlib.import_module("torchvision")
    except (ImportError, RuntimeError) as error:
        raise ImportError(_cannot_import(error)) from error


# torch forgets operators when the object that declared them is collected
_DECLARED: list[torch.library.Library] = []


def _cannot_import(error: Exception) -> str:
    return (
        f"torchvision is installed but cannot be imported beside torch {torch.__version__} ({error}); install the version "
        "that belongs to this torch (see https://github.com/pytorch/vision#installation)."
    )


def load_resnet18(weights: str | os.PathLike = "imagenet", seed: int = 0) -> nn.Module:
    """
    torchvision's ResNet18 without its classifier: (images, 3, height, width) -> (images, 512).

    Args:
        weights: "imagenet" (fetched on first use), "random", or a safetensors file with torchvision's names (as
            `save_glyph_features` writes); its classifier, if any, is not read.
        seed: of "random".

    Raises:
        ImportError: as in `import_torchvision`.
        OSError: ImageNet's weights cannot be fetched, or the file cannot be read.
        ValueError: the file does not hold a ResNet18.
    """
    file_state = None if str(weights) in ("imagenet", "random") else _read_tensors(Path(weights), "weights")
    models = import_torchvision().models
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = models.resnet18(weights=None)
    network.fc = nn.Identity()
    if str(weights) == "random":
        return network
    state = _imagenet_weights(models) if file_state is None else file_state
    state = {name: tensor for name, tensor in state.items() if not name.startswith("fc.")}
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"`weights`: {str(weights)!r} does not hold torchvision's ResNet18. {error}") from error
    return network


def _imagenet_weights(models: ModuleType) -> dict[str, torch.Tensor]:
    url = models.ResNet18_Weights.IMAGENET1K_V1.url
    try:
        return torch.hub.load_state_dict_from_url(url, map_location="cpu", check_hash=True, weights_only=True)
    except (OSError, RuntimeError) as error:
        raise OSError(
            f"ImageNet's weights cannot be fetched from {url} ({error}); give `weights` a safetensors file that holds "
            'them, or "random" to train from random weights.'
        ) from error


def _read_tensors(file: Path, argument: str) -> dict[str, torch.Tensor]:
    if not file.is_file():
        raise OSError(f"`{argument}`: there is no file {str(file)!r}.")
    try:
        return load_file(file)
    except SafetensorError as error:
        raise ValueError(f"`{argument}`: {str(file)!r} is not a whole safetensors file ({error}).") from error

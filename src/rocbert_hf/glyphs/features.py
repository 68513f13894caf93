"""Glyph features: what ResNet18 sees in the image of a character (Su et al., ACL 2022, section 4.1, Eq. 4)."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn
from tqdm.auto import tqdm

from ..files import staged_folder
from ..resources import lookalike_ids, vocabulary
from .images import CHINESE_FONTS, FALLBACK_FONTS, OTHER_FONTS, covered_by, render

__all__ = [
    "GlyphEncoder",
    "compute_glyph_features",
    "draw_vocabulary",
    "glyph_vectors",
    "save_glyph_features",
    "standardize",
]

FEATURES_FILE, DESCRIPTION_FILE, BACKBONE_FILE = (
    "glyph_features.safetensors",
    "glyph_features.json",
    "resnet18.safetensors",
)
FEATURE_SIZE = 512  # of ResNet18's last layer before its classifier
# Of ImageNet's pixels, by which ResNet18's inputs are shifted and scaled, as mean over the three colours.
PIXEL_MEAN, PIXEL_STD = 0.449, 0.226


def first_chinese() -> int:
    """The Chinese characters are the last of the vocabulary."""
    return len(vocabulary()) - len(lookalike_ids())


def draw_vocabulary(
    chinese_fonts: Sequence[str] = CHINESE_FONTS, other_fonts: Sequence[str] = OTHER_FONTS, size: int = 32
) -> np.ndarray:
    """
    Images of the packaged vocabulary, in the order of `input_shape_ids`, with fonts of your own, such as
    the paper's SimSun and Arial. (The packaged images, `glyph_images()`, need no font.)

    Args:
        chinese_fonts, other_fonts: font files in order of preference, for Chinese and for other tokens; a token that
            none of its fonts has is drawn with the others.
        size: pixels a side.

    Returns:
        uint8 (16,224, size, size), 0 background, 255 ink; padding is blank.

    Raises:
        OSError: a font file is missing.
        ValueError: a file is no font, or has no such face.
    """
    fallback = tuple(font for font in FALLBACK_FONTS if Path(font).is_file())
    for font in (*chinese_fonts, *other_fonts):
        covered_by(font)
    tokens = [token.strip("[]") if len(token) > 1 else token for token in vocabulary()]
    first = first_chinese()
    images = np.zeros((len(tokens), size, size), dtype=np.uint8)
    chinese = (*chinese_fonts, *other_fonts, *fallback)
    other = (*other_fonts, *chinese_fonts, *fallback)
    for start in tqdm(range(0, len(tokens), 500), desc="glyph images", unit="x 500"):
        for fonts, part in (
            (other, slice(start, min(start + 500, first))),
            (chinese, slice(max(start, first), start + 500)),
        ):
            if tokens[part]:
                images[part] = render(tokens[part], fonts, size)
    images[0] = 0
    return images


def standardize(features: torch.Tensor) -> torch.Tensor:
    """Each of the (n, 512) features over the n images at mean 0 and variance 1, so that all of them count."""
    deviation = features.std(0, correction=0)
    return (features - features.mean(0)) / deviation.clamp(min=1e-6)


class GlyphEncoder(nn.Module):
    """
    `Vi = LayerNorm(M^T f)` (Eq. 4), `f` the standardised ResNet18 features of an image. `M` and the norm bear the names
    that they have in a model's fusion.

    Args:
        backbone: as `load_resnet18` returns.
        hidden_size: columns of M, the `hidden_size` of the model it is for.
        seed: of M.
    """

    def __init__(self, backbone: nn.Module, hidden_size: int = 768, layer_norm_eps: float = 1e-12, seed: int = 0):
        super().__init__()
        self.backbone = backbone
        self.shape_projection = nn.Linear(FEATURE_SIZE, hidden_size, bias=False)
        self.shape_norm = nn.LayerNorm(hidden_size, eps=layer_norm_eps)
        generator = torch.Generator().manual_seed(seed)
        nn.init.normal_(self.shape_projection.weight, std=FEATURE_SIZE**-0.5, generator=generator)

    def see(self, images: torch.Tensor) -> torch.Tensor:
        """ResNet18's features, not standardised: uint8 (n, height, width) -> (n, 512)."""
        pixels = (images.float() / 255 - PIXEL_MEAN) / PIXEL_STD
        return self.backbone(pixels[:, None].expand(-1, 3, -1, -1))

    def project(self, features: torch.Tensor) -> torch.Tensor:
        """Eq. 4: (..., 512) -> (..., hidden)."""
        return self.shape_norm(self.shape_projection(features))


@torch.no_grad()
def compute_glyph_features(encoder: GlyphEncoder, images: np.ndarray, batch_size: int = 512) -> torch.Tensor:
    """Standardised ResNet18 features of all images, uint8 (n, height, width) -> float32 (n, 512)."""
    encoder.eval()
    device = encoder.shape_projection.weight.device
    starts = tqdm(range(0, len(images), batch_size), desc="glyph features", unit="batch")
    parts = [encoder.see(torch.tensor(images[start : start + batch_size], device=device)) for start in starts]
    return standardize(torch.cat(parts))


@torch.no_grad()
def glyph_vectors(encoder: GlyphEncoder, features: torch.Tensor) -> torch.Tensor:
    """`Vi` of features: (n, 512) -> (n, hidden)."""
    return encoder.eval().project(features)


def save_glyph_features(
    folder: str | os.PathLike, encoder: GlyphEncoder, features: torch.Tensor, description: dict, backbone: bool = False
) -> None:
    """
    Writes `glyph_features.safetensors`, which `RoCBertModel.load_glyph_features` reads: `features` (rows as
    `input_shape_ids`), M and its norm; and `glyph_features.json`: under "config" the fields of a `RoCBertConfig` that
    they fit, then `description`. Each file appears whole or not at all.

    Args:
        folder: made if it is not there.
        features: (shapes, 512).
        description: what JSON can hold.
        backbone: whether to write `resnet18.safetensors` too, for `load_resnet18`.
    """
    tensors = {
        "features": features,
        "shape_projection.weight": encoder.shape_projection.weight,
        "shape_norm.weight": encoder.shape_norm.weight,
        "shape_norm.bias": encoder.shape_norm.bias,
    }
    config = {
        "shape_vocab_size": len(features),
        "shape_embed_dim": features.shape[1],
        "hidden_size": encoder.shape_projection.out_features,
        "layer_norm_eps": encoder.shape_norm.eps,
    }
    with staged_folder(Path(folder)) as staging:
        _write_tensors(staging / FEATURES_FILE, tensors)
        if backbone:
            _write_tensors(staging / BACKBONE_FILE, encoder.backbone.state_dict())
        text = json.dumps({"config": config, **description}, indent=2, ensure_ascii=False) + "\n"
        (staging / DESCRIPTION_FILE).write_text(text, encoding="utf-8")


def _write_tensors(file: Path, tensors: dict[str, torch.Tensor]) -> None:
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, file)

"""Glyph features from one call: images, ResNet18, pretraining, files, and a picture."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..files import make_folder
from ..options import option
from ..torch_device import checked_device, device_for
from .features import GlyphEncoder, compute_glyph_features, draw_vocabulary, glyph_vectors, save_glyph_features
from .images import CHINESE_FONTS, OTHER_FONTS, find_font, glyph_images
from .plots import nearest_neighbours, plot_glyphs
from .pretraining import GlyphPretrainingArguments, pretrain_glyphs
from .resnet18 import load_resnet18

__all__ = ["GlyphRunOptions", "make_glyph_features"]

SHOWN = "己末晴科请你很情银微信院草国"


@dataclass
class GlyphRunOptions:
    """What ResNet18 starts from, what it sees, and where the features go.

    Raises:
        ValueError: a value is outside what is allowed. OSError: a font file is missing.
    """

    weights: str = option("imagenet", 'of ResNet18: "imagenet", "random", or a safetensors file')
    output_dir: Path = option(Path("glyph-features"), "folder to write")
    hidden_size: int = option(768, "hidden_size of the model they are for")
    chinese_fonts: list[str] = option([], "font files to draw Chinese with; without any, the packaged images")
    other_fonts: list[str] = option([], "font files to draw the rest with")
    device: str | None = option(None, "device to compute on", unset="a GPU if there is one")
    threads: int | None = option(None, "threads of the CPU", unset="one per core")

    def __post_init__(self):
        for name in ("hidden_size", "threads"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for font in (*self.chinese_fonts, *self.other_fonts):
            find_font(font)
        checked_device(self.device)


def make_glyph_features(options: GlyphRunOptions, arguments: GlyphPretrainingArguments) -> dict[str, Any]:
    """
    Compute features, pretrain M (and ResNet18 if the arguments say so), and write both with a picture of what was learnt.

    `options.output_dir` then holds what `save_glyph_features` writes, and `glyphs.png`.

    Returns:
        What `glyph_features.json` holds: arguments, seconds, history, and nearest neighbours before and after.

    Raises:
        ImportError: torchvision is missing. OSError, ValueError: as `load_resnet18`; nothing is written then.
    """
    import torch

    if options.threads:
        torch.set_num_threads(options.threads)
    device = device_for(options.device)
    backbone = load_resnet18(options.weights, arguments.seed)
    make_folder(options.output_dir)  # now, and not after the training, if it cannot be made
    if options.chinese_fonts or options.other_fonts:
        images = draw_vocabulary(options.chinese_fonts or CHINESE_FONTS, options.other_fonts or OTHER_FONTS)
    else:
        images = glyph_images()
    encoder = GlyphEncoder(backbone, options.hidden_size, seed=arguments.seed).to(device)

    start = time.perf_counter()
    features = compute_glyph_features(encoder, images)
    vectors, history = {"before": glyph_vectors(encoder, features).cpu()}, []
    if arguments.epochs:
        history = pretrain_glyphs(encoder, images, arguments, features)
        if arguments.train_backbone:
            features = compute_glyph_features(encoder, images)
        vectors["after"] = glyph_vectors(encoder, features).cpu()
    description = {
        "arguments": {
            "weights": Path(options.weights).name,
            "chinese_fonts": [Path(font).name for font in options.chinese_fonts],
            "other_fonts": [Path(font).name for font in options.other_fonts],
            **asdict(arguments),
        },
        "seconds": round(time.perf_counter() - start),
        "history": history,
        "neighbours": {when: nearest_neighbours(found, SHOWN) for when, found in vectors.items()},
    }
    save_glyph_features(options.output_dir, encoder, features, description, backbone=arguments.train_backbone)
    plot_glyphs(vectors, options.output_dir / "glyphs.png", seed=arguments.seed)
    return description

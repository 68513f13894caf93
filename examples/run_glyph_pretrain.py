"""Compute and pretrain glyph features: what the shape of each character is to a RoCBERT.

    python examples/run_glyph_pretrain.py                                      # ImageNet's ResNet18, M learns
    python examples/run_glyph_pretrain.py --weights random --train-backbone    # nothing to fetch: ResNet18 learns too
    python examples/run_glyph_pretrain.py --chinese-fonts simsun.ttc --other-fonts arial.ttf

Writes glyph_features.safetensors and .json for `RoCBertModel.load_glyph_features`, and a t-SNE picture of common
characters; prints nearest neighbours before and after. Needs torchvision: pip install "rocbert-hf[glyph]".
"""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path

# Before torch starts its threads: where something else runs too, threads that sleep while they wait are several times
# faster than threads that spin.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from rich.console import Console
from rich.table import Table

from rocbert_hf.glyphs.features import (
    GlyphEncoder,
    GlyphPretrainingArguments,
    compute_glyph_features,
    draw_vocabulary,
    glyph_vectors,
    load_resnet18,
    nearest_neighbours,
    plot_glyphs,
    pretrain_glyphs,
    save_glyph_features,
)
from rocbert_hf.glyphs.images import CHINESE_FONTS, OTHER_FONTS, find_font, glyph_images

SHOWN = "己末晴科请你很情银微信院草国"


def parse(argv: Sequence[str] | None) -> tuple[argparse.Namespace, GlyphPretrainingArguments]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--weights",
        default="imagenet",
        help='of ResNet18: "imagenet", "random", or a safetensors file (default imagenet)',
    )
    parser.add_argument("--output-dir", type=Path, default=Path("glyph-features"), help="(default glyph-features)")
    parser.add_argument("--hidden-size", type=int, default=768, help="of the model they are for (default 768)")
    parser.add_argument(
        "--chinese-fonts", nargs="+", metavar="FILE", help="fonts to draw Chinese with; none: the packaged images"
    )
    parser.add_argument("--other-fonts", nargs="+", metavar="FILE", help="fonts to draw the rest with")
    parser.add_argument(
        "--device", default="cuda" if torch.cuda.is_available() else "cpu", help="(default: the GPU if any)"
    )
    parser.add_argument("--threads", type=int, help="of the CPU (default: as many as it has cores)")
    for field in fields(GlyphPretrainingArguments):
        flag, text = f"--{field.name.replace('_', '-')}", f"{field.metadata['help']} (default {field.default})"
        if isinstance(field.default, bool):
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=field.default, help=text)
        else:
            parser.add_argument(flag, type=type(field.default), default=field.default, help=text)
    options = parser.parse_args(argv)
    arguments = GlyphPretrainingArguments(
        **{field.name: getattr(options, field.name) for field in fields(GlyphPretrainingArguments)}
    )
    for name in ("hidden_size", "threads"):
        if getattr(options, name) is not None and getattr(options, name) < 1:
            raise ValueError(f"{name} must be at least 1, got {getattr(options, name)}")
    for font in (*(options.chinese_fonts or ()), *(options.other_fonts or ())):
        find_font(font)
    return options, arguments


def main(argv: Sequence[str] | None = None) -> dict:
    options, arguments = parse(argv)
    if options.threads:
        torch.set_num_threads(options.threads)
    backbone = load_resnet18(options.weights, arguments.seed)
    options.output_dir.mkdir(parents=True, exist_ok=True)  # now, not after the training, if it cannot be made
    if options.chinese_fonts or options.other_fonts:
        images = draw_vocabulary(options.chinese_fonts or CHINESE_FONTS, options.other_fonts or OTHER_FONTS)
    else:
        images = glyph_images()
    encoder = GlyphEncoder(backbone, options.hidden_size, seed=arguments.seed).to(options.device)

    start = time.perf_counter()
    features = compute_glyph_features(encoder, images)
    vectors = {"before": glyph_vectors(encoder, features).cpu()}
    if arguments.epochs:
        history = pretrain_glyphs(encoder, images, arguments, features)
        if arguments.train_backbone:
            features = compute_glyph_features(encoder, images)
        vectors["after"] = glyph_vectors(encoder, features).cpu()
    else:
        history = []
    seconds = time.perf_counter() - start

    neighbours = {when: nearest_neighbours(found, SHOWN) for when, found in vectors.items()}
    description = {
        "arguments": {
            "weights": Path(options.weights).name,
            "chinese_fonts": [Path(font).name for font in options.chinese_fonts or ()],
            "other_fonts": [Path(font).name for font in options.other_fonts or ()],
            **asdict(arguments),
        },
        "seconds": round(seconds),
        "history": history,
        "neighbours": neighbours,
    }
    save_glyph_features(options.output_dir, encoder, features, description, backbone=arguments.train_backbone)
    plot_glyphs(vectors, options.output_dir / "glyphs.png", seed=arguments.seed)

    console = Console()
    console.print(neighbours_table(neighbours))
    for epoch, measured in enumerate(history, 1):
        console.print(f"epoch {epoch}: loss {measured['loss']:.3f}, accuracy {measured['accuracy']:.1%}")
    console.print(f"{seconds:.0f} s; saved {', '.join(sorted(file.name for file in options.output_dir.iterdir()))}")
    console.print(f"in {options.output_dir}: model.load_glyph_features({str(options.output_dir)!r}) takes them in")
    return description


def neighbours_table(neighbours: dict[str, dict[str, list[str]]]) -> Table:
    table = Table(title="nearest characters", title_justify="left")
    table.add_column()
    for when in neighbours:
        table.add_column(when)
    for character in SHOWN:
        table.add_row(character, *("".join(found[character]) for found in neighbours.values()))
    return table


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("interrupted; nothing was saved")
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"{Path(__file__).name}: {error}")

"""Compute and pretrain glyph features: what the shape of each character is to a RoCBERT.

    python examples/run_glyph_pretrain.py                                      # ImageNet's ResNet18, M learns
    python examples/run_glyph_pretrain.py --weights random --train-backbone    # nothing to fetch: ResNet18 learns too
    python examples/run_glyph_pretrain.py --chinese-fonts simsun.ttc --other-fonts arial.ttf

Writes glyph_features.safetensors and .json for `RoCBertModel.load_glyph_features`, and a t-SNE picture of common
characters; prints nearest neighbours before and after. Needs torchvision: pip install torchvision fonttools.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

# Before torch starts its threads: if another process runs beside, threads that sleep while they wait are several times
# faster than threads that spin.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from rich.console import Console

from rocbert_hf.glyphs.plots import neighbours_table
from rocbert_hf.glyphs.pretraining import GlyphPretrainingArguments
from rocbert_hf.glyphs.run import GlyphRunOptions, make_glyph_features
from rocbert_hf.options import parse_options


def main(argv: Sequence[str] | None = None) -> dict:
    options, arguments = parse_options([GlyphRunOptions, GlyphPretrainingArguments], argv, description=__doc__)
    made = make_glyph_features(options, arguments)
    console = Console()
    console.print(neighbours_table(made["neighbours"]))
    for epoch, measured in enumerate(made["history"], 1):
        console.print(f"epoch {epoch}: loss {measured['loss']:.3f}, accuracy {measured['accuracy']:.1%}")
    folder = options.output_dir
    console.print(f"{made['seconds']} s; saved {', '.join(sorted(file.name for file in folder.iterdir()))}")
    console.print(f"in {folder}: model.load_glyph_features({str(folder)!r}) takes them in")
    return made


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("interrupted; nothing was saved")
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"{Path(__file__).name}: {error}")

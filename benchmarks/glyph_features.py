"""
Claim: glyph pretraining brings characters that people confuse nearer to each other.

    python benchmarks/glyph_features.py --data-dir DATA --untrained FOLDER --trained FOLDER

FOLDER is what `examples/run_glyph_pretrain.py` wrote, once with `--epochs 0`. DATA holds
`lexicons/sighan_similar_shape.txt.gz`, the human-made sets of `benchmarks/visual_similarity.py`. Training never reads
them; the packaged look-alikes that it learns from have two weights that were chosen on a random half of the characters,
so the other half is what is measured: how many of a character's 10 nearest by cosine are in its set.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn
from visual_similarity import held_out, hits_and_recall, read_sets

from rocbert_hf.characters.similarity import lookalikes_of
from rocbert_hf.glyphs.images import glyph_images
from rocbert_hf.glyphs.plots import nearest_neighbours


def read_vectors(folder: Path) -> dict[str, torch.Tensor]:
    """ResNet18's features of the vocabulary, (16224, 512), and `Vi` (Eq. 4), (16224, hidden)."""
    saved = load_file(folder / "glyph_features.safetensors")
    projected = saved["features"] @ saved["shape_projection.weight"].T
    norm = saved["shape_norm.weight"], saved["shape_norm.bias"]
    return {"ResNet18": saved["features"], "Vi": nn.functional.layer_norm(projected, projected.shape[1:], *norm)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True, help="folder that holds lexicons/sighan_*.txt.gz")
    parser.add_argument("--untrained", type=Path, required=True)
    parser.add_argument("--trained", type=Path, required=True)
    options = parser.parse_args()
    file = options.data_dir / "lexicons" / "sighan_similar_shape.txt.gz"
    for argument, needed in (
        ("data-dir", file),
        ("untrained", options.untrained / "glyph_features.safetensors"),
        ("trained", options.trained / "glyph_features.safetensors"),
    ):
        if not needed.is_file():
            parser.error(f"--{argument}: {str(needed)!r} does not exist")

    sets = read_sets(file, ",", slice(0, 1))
    characters = held_out(sets)
    pixels = torch.from_numpy(glyph_images().reshape(len(glyph_images()), -1).astype(np.float32))
    tables = {"pixels of the images": pixels - pixels.mean(0)}
    for state, folder in (("untrained", options.untrained), ("pretrained", options.trained)):
        tables |= {f"{name}, {state}": vectors for name, vectors in read_vectors(folder).items()}
    precisions = {}
    for name, vectors in tables.items():
        precisions[name], _ = hits_and_recall(nearest_neighbours(vectors, characters).get, sets, characters)
    precisions["packaged look-alikes"], _ = hits_and_recall(lookalikes_of, sets, characters)

    baselines = {name: precisions[f"{name}, untrained"].mean() for name in ("ResNet18", "Vi")}
    print(f"{len(characters)} held-out characters, the 10 nearest of all Chinese characters of the vocabulary")
    print(f"{'':22}{'precision@10':>14}{'standard error':>16}{'x untrained':>13}")
    for name, precision in precisions.items():
        error = precision.std() / np.sqrt(len(precision))
        what, _, state = name.partition(", ")
        ratio = f"{precision.mean() / baselines[what]:.2f}x" if state else ""
        print(f"{name:22}{precision.mean():14.3f}{error:16.3f}{ratio:>13}".rstrip())


if __name__ == "__main__":
    main()

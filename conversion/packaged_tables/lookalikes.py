"""Characters that look alike, by their images in two typefaces and by their parts."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence

import numpy as np
from scipy import sparse
from scipy.ndimage import gaussian_filter, gaussian_filter1d
from tqdm import tqdm

from rocbert_hf.glyphs.images import CHINESE_FONTS, render

from .parts import is_part
from .public_tables import cjk_decomposition

SIMILARITY_FONTS = (CHINESE_FONTS, ("/usr/share/fonts/opentype/noto/NotoSansCJK-Regular.ttc#2", *CHINESE_FONTS))
LOOKALIKES = 20
IMAGE_WEIGHT = 0.3  # chosen with FREQUENCY_WEIGHT on half of the SIGHAN sets, see benchmarks/visual_similarity.py
FREQUENCY_WEIGHT = 0.5
STROKES = frozenset("一丨丶丿乀乁乙乚亅乛").union(map(chr, range(0x31C0, 0x31E4)))


def stroke_directions(images: np.ndarray, cells: int = 12, blur: float = 3.0) -> np.ndarray:
    """How much ink edge of each of four directions lies around each cell: (n, size, size) -> (n, 4 * cells * cells).

    The direction maps of handwriting recognition; blurred, so that a stroke may lie a little higher or lower.
    """
    size = images.shape[1]
    smooth = gaussian_filter(images.astype(np.float32) / 255, (0, 0.8, 0.8))
    down, across = np.gradient(smooth, axis=(1, 2))
    strength, angle = np.hypot(across, down), np.arctan2(down, across) % np.pi
    centres = ((np.arange(cells) + 0.5) * size / cells).astype(int)
    pool = gaussian_filter1d(np.eye(size, dtype=np.float32), blur, axis=0)[centres]  # (cells, size): blur and sample
    maps = []
    for direction in np.arange(4, dtype=np.float32) * np.float32(np.pi / 4):
        distance = np.abs((angle - direction + np.pi / 2) % np.pi - np.pi / 2)
        energy = pool @ (strength * np.clip(1 - distance / (np.pi / 4), 0, 1)) @ pool.T
        maps.append(energy.reshape(len(images), -1))
    return np.sqrt(np.concatenate(maps, axis=1))


def image_features(characters: Sequence[str]) -> np.ndarray:
    """Unit vectors (n, features) of the characters' images in a Song and a sans-serif typeface.

    Principal components, the strong ones (how much ink there is, and where) scaled down.
    """
    found = []
    for start in tqdm(range(0, len(characters), 1000), desc="stroke directions", unit="k", file=sys.stderr):
        some = characters[start : start + 1000]
        faces = [stroke_directions(render(some, fonts, size=64)) for fonts in SIMILARITY_FONTS]
        found.append(np.concatenate(faces, axis=1))
    features = np.concatenate(found).astype(np.float64)
    features -= features.mean(axis=0)
    variances, directions = np.linalg.eigh(features.T @ features / len(features))
    kept = variances > 1e-4 * variances.max()
    features = features @ directions[:, kept] / variances[kept] ** 0.3
    return (features / np.linalg.norm(features, axis=1, keepdims=True)).astype(np.float32)


def component_weights(character: str) -> Counter[tuple]:
    """What a character is made of -> weight: itself, its parts and their parts, each also with its place.

    A part weighs 0.7 of its whole, shared between more than two; the same part at the same place counts 0.3 on top.
    """
    weights: Counter[tuple] = Counter({(character,): 1.0})

    def descend(whole: str, weight: float, place: tuple) -> None:
        arrangement, parts = cjk_decomposition().get(whole, ("", ()))
        if arrangement.startswith(("c", "m", "ref", "rot")) and (arrangement != "msp" or not is_part(whole)):
            return  # without parts, but for 已, a special 己
        if arrangement.startswith("r"):
            parts = parts * (3 if "3" in arrangement else 2)
        for number, part in enumerate(parts):
            share = weight * 0.7 * min(1.0, 2 / len(parts))
            where = (*place, arrangement[:1], number)
            weights[part,] += share
            weights[part, where] += 0.3 * share
            if len(where) < 8:
                descend(part, share, where)

    descend(character, 1.0, ())
    return weights


def is_simple(name: str) -> bool:
    """Whether a character, or a part that is none, is made of strokes alone."""
    arrangement, parts = cjk_decomposition().get(name, ("c", ()))
    if name in STROKES or arrangement.startswith(("c", "m", "ref", "rot")):
        return True
    return all(part in STROKES or (not is_part(part) and is_simple(part)) for part in parts)


def component_features(characters: Sequence[str]) -> sparse.csr_matrix:
    """Unit vectors (n, features) of what the characters are made of, rare parts heavier (inverse frequency)."""
    weights = [component_weights(character) for character in characters]
    counts = Counter(feature for found in weights for feature in found)
    columns = {feature: column for column, feature in enumerate(f for f, count in counts.items() if count > 1)}
    triples = [
        (row, columns[feature], weight * np.log(len(characters) / counts[feature]))
        for row, found in enumerate(weights)
        for feature, weight in found.items()
        if feature in columns
    ]
    rows, column_numbers, values = map(np.array, zip(*triples, strict=True))
    matrix = sparse.csr_matrix((values, (rows, column_numbers)), shape=(len(characters), len(columns)))
    norms = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1)).ravel())
    return sparse.diags(1 / np.maximum(norms, 1e-9)) @ matrix


def rank_lookalikes(
    images: np.ndarray,
    components: sparse.csr_matrix,
    frequencies: np.ndarray,
    simple: np.ndarray | None = None,
    image_weight: float = IMAGE_WEIGHT,
    frequency_weight: float = FREQUENCY_WEIGHT,
    count: int = LOOKALIKES,
) -> np.ndarray:
    """The most similar characters of each, best first: (n, count) row numbers.

    The similarity is the weighted mean of the images' cosine and the root of the components' cosine, plus a bonus as
    both characters are frequent, less a quarter of each character's mean similarity to its ten nearest: a character
    that is near to many would otherwise be everyone's look-alike, and few of these its own (as the cross-domain
    scaling of Conneau et al., 2018).

    Args:
        images: unit vectors (n, features), dense.
        components: unit vectors (n, features), sparse.
        frequencies: how often each character occurs, (n,).
        simple: which characters have no parts, bool (n,); two of them are compared by their images alone.
        image_weight: 0 is components alone, 1 is images alone.
        frequency_weight: bonus of the most frequent character with itself.
        count: how many to rank.
    """
    prior = np.log1p(frequencies) / np.log1p(frequencies.max())
    kept = min(10 * count, len(images) - 1)
    candidates, similarities = [], []
    for start in tqdm(range(0, len(images), 1000), desc="look-alikes", unit="k", file=sys.stderr):
        rows = slice(start, start + 1000)
        seen = images[rows] @ images.T
        shared = np.sqrt((components[rows] @ components.T).toarray())
        if simple is not None:
            pairs = np.ix_(simple[rows], simple)
            shared[pairs] = np.maximum(seen[pairs], shared[pairs])
        block = image_weight * seen + (1 - image_weight) * shared
        block += frequency_weight * np.minimum(prior[rows, None], prior[None, :])
        block[np.arange(len(block)), np.arange(start, start + len(block))] = -np.inf
        nearest = np.argpartition(-block, kept - 1, axis=1)[:, :kept]
        candidates.append(nearest)
        similarities.append(np.take_along_axis(block, nearest, axis=1))
    nearest, similarity = np.concatenate(candidates), np.concatenate(similarities)
    crowding = np.sort(similarity, axis=1)[:, -10:].mean(axis=1)
    similarity = np.round(similarity - (crowding[:, None] + crowding[nearest]) / 4, 4)
    order = np.lexsort((nearest, -similarity), axis=1)[:, :count]  # equally similar: the more frequent first
    return np.take_along_axis(nearest, order, axis=1)

"""Looking at glyph features: nearest neighbours, and a picture of common characters."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from ..characters.parts import components_of
from ..resources import glyph_images, shape_ids, vocabulary
from .features import first_chinese
from .pretraining import check_known

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.table import Table

__all__ = ["nearest_neighbours", "neighbours_table", "plot_glyphs"]


def nearest_neighbours(vectors: torch.Tensor, characters: Sequence[str], k: int = 10) -> dict[str, list[str]]:
    """
    Character -> its k nearest among the Chinese characters of the packaged vocabulary, by cosine, nearest first.

    Args:
        vectors: a row for each token of the vocabulary.

    Raises:
        ValueError: a character is not in the vocabulary.
    """
    check_known(characters)
    ids, first = shape_ids(), first_chinese()
    normalized = nn.functional.normalize(vectors, dim=-1)
    found = {}
    for start in range(0, len(characters), 256):  # their similarities to all others take 15 MB
        some = characters[start : start + 256]
        similarity = normalized[[ids[character] for character in some]] @ normalized[first:].T
        nearest = (similarity.topk(k + 1).indices + first).tolist()
        for character, row in zip(some, nearest, strict=True):
            found[character] = [vocabulary()[i] for i in row if i != ids[character]][:k]
    return found


def neighbours_table(neighbours: Mapping[str, Mapping[str, Sequence[str]]]) -> Table:
    """For `rich.print`: a row for each character, a column for each of what was measured, such as before and after."""
    from rich.table import Table

    table = Table(title="nearest characters", title_justify="left")
    table.add_column()
    for when in neighbours:
        table.add_column(when)
    for character in next(iter(neighbours.values())):
        table.add_row(character, *("".join(found[character]) for found in neighbours.values()))
    return table


def characters_by_component(components: int = 12, of_each: int = 25, most_common: int = 3500) -> dict[str, list[str]]:
    """Component -> the most frequent Chinese characters that begin with it, for the components with most of them."""
    ids, first = shape_ids(), first_chinese()
    groups: dict[str, list[str]] = {}
    for character in vocabulary()[first : first + most_common]:
        parts = components_of(character)
        if len(parts) > 1 and parts[0] in ids:
            groups.setdefault(parts[0], []).append(character)
    largest = sorted(groups, key=lambda component: -len(groups[component]))[:components]
    return {component: groups[component][:of_each] for component in largest}


def plot_glyphs(
    named_vectors: dict[str, torch.Tensor], path: str | os.PathLike | None = None, seed: int = 0, of_each: int = 25
) -> Figure:
    """
    t-SNE of common characters in two dimensions, coloured by the component that they begin with: one panel for each of
    `named_vectors`, say before and after pretraining. Characters are drawn from the packaged glyph images.

    Args:
        named_vectors: title -> a row for each token of the vocabulary.
        path: where to save the picture (`.png`, `.svg`, `.pdf`); nowhere if not given.
        seed: of t-SNE.
        of_each: at most so many characters of each component.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure
    from matplotlib.offsetbox import AnnotationBbox, OffsetImage
    from sklearn.manifold import TSNE

    groups, ids, images = characters_by_component(of_each=of_each), shape_ids(), glyph_images()
    members = [(character, group) for group, found in enumerate(groups.values()) for character in found]
    colours = colormaps["tab20"].colors[::2] + colormaps["tab20b"].colors[::4]

    def add(axes, character: str, group: int, place: tuple[float, float], coordinates: str = "data") -> None:
        picture = np.empty((32, 32, 4), dtype=np.float32)
        picture[..., :3] = colours[group % len(colours)]
        picture[..., 3] = images[ids[character]] / np.float32(255)
        box = AnnotationBbox(
            OffsetImage(picture, zoom=0.45), place, xycoords=coordinates, frameon=False, annotation_clip=False
        )
        axes.add_artist(box)

    figure = Figure(figsize=(8 * len(named_vectors), 8.6), dpi=120)
    for axes, (title, vectors) in zip(
        figure.subplots(1, len(named_vectors), squeeze=False)[0], named_vectors.items(), strict=True
    ):
        chosen = nn.functional.normalize(vectors[[ids[character] for character, _ in members]].float().cpu(), dim=-1)
        projection = TSNE(metric="cosine", init="random", perplexity=min(20, len(chosen) / 3), random_state=seed)
        places = projection.fit_transform(chosen.numpy())
        axes.set_title(title)
        axes.scatter(*places.T, s=0)  # sets the limits
        axes.set_xticks([])
        axes.set_yticks([])
        for (character, group), place in zip(members, places.tolist(), strict=True):
            add(axes, character, group, place)
        for group, component in enumerate(groups):
            add(axes, component, group, (0.1 + 0.8 * group / (len(groups) - 1), -0.03), "axes fraction")
    figure.tight_layout()
    if path is not None:
        figure.savefig(path)
    return figure

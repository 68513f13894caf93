"""Pictures of what the model looks at."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING

import torch

from .resources import glyph_images, vocabulary

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CHANNELS = ("text", "sound", "shape")


def fusion_weights(model, tokenizer, text: str) -> tuple[list[str], torch.Tensor]:
    """
    How much of text, sound and shape went into each token of a text.

    Args:
        model: any RoCBERT model or head whose fusion weighs its channels.
        tokenizer: its `RoCBertTokenizer`.
        text: cut at the model's longest input.

    Returns:
        The tokens, and their weights (tokens, 3).

    Raises:
        ValueError: the text has no token, or the model's fusion has no weights.
    """
    inputs = tokenizer(text, truncation=True, max_length=model.config.max_position_embeddings, return_tensors="pt")
    tokens = tokenizer.convert_ids_to_tokens(inputs["input_ids"][0])
    if all(token in tokenizer.all_special_tokens for token in tokens):
        raise ValueError(f"`text` has no token to draw: {text!r}.")
    encoder = model.base_model
    was_training = encoder.training
    encoder.eval()
    with torch.no_grad():
        output = encoder(**inputs.to(encoder.device), output_fusion_weights=True)
    encoder.train(was_training)
    return tokens, output.fusion_weights[0].float().cpu()


def plot_fusion_weights(
    model, tokenizer, text: str, path: str | os.PathLike | None = None, tokens_per_row: int = 32
) -> Figure:
    """
    Draws which channel each character of a text leaned on: one column per token, one row per channel, the weight in
    hundredths. Characters are drawn from the package's own glyph images, so that no Chinese font need be installed.

    Args:
        model, tokenizer, text: as in `fusion_weights`.
        path: where to save the picture (`.png`, `.svg`, `.pdf`); nowhere if not given.
        tokens_per_row: longer texts are continued on further rows.

    Returns:
        The `matplotlib.figure.Figure`.

    Raises:
        ValueError: as in `fusion_weights`, or `tokens_per_row` is not positive.

    Example:

    ```python
    >>> plot_fusion_weights(model, tokenizer, "科比的精神值得学习", "weights.png")
    ```
    """
    from matplotlib.figure import Figure
    from matplotlib.offsetbox import AnnotationBbox, OffsetImage

    if tokens_per_row < 1:
        raise ValueError(f"`tokens_per_row` must be at least 1; got {tokens_per_row}.")
    tokens, weights = fusion_weights(model, tokenizer, text)
    columns, rows = min(len(tokens), tokens_per_row), math.ceil(len(tokens) / tokens_per_row)
    figure = Figure(figsize=(1.2 + 0.36 * columns, 0.4 + 1.5 * rows), dpi=150, layout="constrained")
    images, ids = glyph_images(), {token: index for index, token in enumerate(vocabulary())}
    for row, axes in enumerate(figure.subplots(rows, 1, squeeze=False)[:, 0]):
        part = slice(row * tokens_per_row, (row + 1) * tokens_per_row)
        # weights of the linear normalisation may leave 0..1; the colours do not
        picture = axes.imshow(weights[part].T, vmin=0, vmax=1, cmap="viridis", aspect="auto")
        axes.set_xlim(-0.5, columns - 0.5)
        axes.set_yticks(range(3), CHANNELS)
        axes.set_xticks([])
        axes.spines[:].set_visible(False)
        for column, (token, of_token) in enumerate(zip(tokens[part], weights[part].tolist(), strict=True)):
            if len(token) == 1 and not token.isascii() and token in ids:
                label = OffsetImage(255 - images[ids[token], ..., None].repeat(3, axis=-1), zoom=0.4)
                axes.add_artist(AnnotationBbox(label, (column, -0.95), frameon=False, annotation_clip=False))
            else:
                axes.text(column, -0.95, token, ha="center", va="center", fontsize=9 if len(token) == 1 else 6)
            for channel, weight in enumerate(of_token):
                colour = "black" if weight > 0.6 else "white"
                axes.text(column, channel, f"{100 * weight:.0f}", ha="center", va="center", fontsize=6, color=colour)
        axes.set_ylim(2.5, -1.5)
        axes.set_facecolor("none")
    figure.colorbar(picture, ax=figure.axes, label="weight", shrink=0.8)
    if path is not None:
        figure.savefig(path)
    return figure


def plot_layer_weights(model, path: str | os.PathLike | None = None) -> Figure:
    """
    Draws how much of each encoder layer goes into the output of a model with `layer_fusion="dynamic"`, one bar per layer.

    Args:
        model: any RoCBERT model or head.
        path: where to save the picture (`.png`, `.svg`, `.pdf`); nowhere if not given.

    Returns:
        The `matplotlib.figure.Figure`.

    Raises:
        ValueError: the model puts out its last layer.
    """
    from matplotlib.figure import Figure

    mix = model.base_model.encoder.layer_mix
    if mix is None:
        raise ValueError(f'`model` must have `layer_fusion="dynamic"`; got "{model.config.layer_fusion}".')
    weights = mix(scaled=False).detach().float().cpu().tolist()
    figure = Figure(figsize=(1.5 + 0.5 * len(weights), 3), dpi=150, layout="constrained")
    axes = figure.subplots()
    axes.bar(range(1, len(weights) + 1), weights)
    axes.axhline(1 / len(weights), color="#999", linewidth=0.8, linestyle="--")
    axes.set_xticks(range(1, len(weights) + 1))
    axes.set_xlabel("encoder layer")
    axes.set_ylabel("weight")
    if path is not None:
        figure.savefig(path)
    return figure

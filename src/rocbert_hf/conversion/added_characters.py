"""New characters in a vocabulary, with the shape and the sound that they have."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ..characters.pinyin import pinyin_of
from ..encoder_rocbert import RoCBertPreTrainedModel
from ..glyphs.images import CHINESE_FONTS, OTHER_FONTS, covered_by, find_font, glyph_images, render
from ..resources import pronunciation_ids, pronunciations, shape_ids
from ..tokenization_rocbert import RoCBertTokenizer
from .channels import ridge

SIZE = 32  # pixels a side of the packaged images
NEIGHBOURS = 8
# Features that pixels explain as well as this are features of the pixels.
LINEAR = 0.999


@torch.no_grad()
def add_characters(
    model: RoCBertPreTrainedModel,
    tokenizer: RoCBertTokenizer,
    characters: Sequence[str],
    fonts: Sequence[str] = (*CHINESE_FONTS, *OTHER_FONTS),
) -> list[str]:
    """
    Add characters to a tokenizer and its model; each gets the features of its own image, drawn with a font, and the sound
    of the reading that pypinyin has for it (without a reading, a sound of its own).

    Glyph features of pixels, which a new model has, are computed exactly. Of a checkpoint with other features (a
    ResNet18's, or channels that were opened in a conversion) nothing is known that could see a new image: there, a new
    row is the mean of the rows of the eight known characters whose images are nearest by cosine.

    Tokens other than characters are for `tokenizer.add_tokens` and `model.resize_token_embeddings`, which give them a
    shape and a sound of their own that mean nothing yet.

    Args:
        model: of any head; it is resized.
        tokenizer: the model's.
        characters: single characters. Those that the tokenizer has are left as they are; one that it knows as the twin of
            another keeps that one's shape and sound.
        fonts: font files in order of preference, `"path"` or `"path#face"`.

    Returns:
        The characters that were added.

    Raises:
        ValueError: one of them is not a single character, or no font has it. OSError: a font file is missing.
    """
    if wrong := [character for character in characters if len(character) != 1]:
        raise ValueError(f"characters must be single characters, got {wrong[:5]}")
    added = [character for character in dict.fromkeys(characters) if character not in tokenizer.get_vocab()]
    drawn = [character for character in added if character not in tokenizer.word_shape]
    for font in fonts:
        find_font(font)
    if missing := [character for character in drawn if not any(character in covered_by(font) for font in fonts)]:
        raise ValueError(f"fonts: none of {list(fonts)} has {missing[:5]}")
    if not added:
        return []
    images = render(drawn, fonts, SIZE)

    for character in drawn:
        if (sound := _pronunciation_id(tokenizer, character)) is not None:
            tokenizer.word_pronunciation[character] = sound
    tokenizer.add_tokens(added)
    known = {token: row for token, row in shape_ids().items() if token in tokenizer.word_shape}
    model.resize_token_embeddings(len(tokenizer))
    embeddings = model.base_model.embeddings
    if drawn and embeddings.has_shape:
        table = embeddings.shape_embed.weight
        rows = table[[tokenizer.word_shape[token] for token in known]]
        new = features_of_images(images, glyph_images()[[*known.values()]], rows)
        table[[tokenizer.word_shape[character] for character in drawn]] = new.to(table)
    return added


def features_of_images(images: np.ndarray, known_images: np.ndarray, known_features: torch.Tensor) -> torch.Tensor:
    """
    Features of new images, by those of known ones; see `add_characters`.

    Args:
        images, known_images: uint8 (n, 32, 32), (known, 32, 32).
        known_features: (known, size).

    Returns:
        float64 (n, size).
    """
    new, known = (
        torch.from_numpy(given.reshape(len(given), -1) / 255.0).to(known_features.device)
        for given in (images, known_images)
    )
    features = known_features.double()
    if len(known) > 4 * known.shape[1]:  # of fewer, pixels could explain anything
        with_constant = torch.nn.functional.pad(known, (0, 1), value=1.0)
        regression = ridge(with_constant, features, torch.ones(len(known)).to(features), 1e-9)
        left = (features - with_constant @ regression).square().sum()
        if left < (1 - LINEAR) * (features - features.mean(0)).square().sum():
            return torch.nn.functional.pad(new, (0, 1), value=1.0) @ regression
    centre = known.mean(0)
    likeness = torch.nn.functional.normalize(new - centre, dim=-1) @ torch.nn.functional.normalize(known - centre).T
    return features[likeness.topk(min(NEIGHBOURS, len(known))).indices].mean(1)


def _pronunciation_id(tokenizer: RoCBertTokenizer, character: str) -> int | None:
    """The id of what pypinyin reads for the character: that of a known token that sounds so."""
    (syllable,) = pinyin_of(character)
    if syllable not in pronunciations():
        return None
    wanted = pronunciations().index(syllable)
    heard = tokenizer.word_pronunciation
    return next(
        (heard[token] for token, sound in pronunciation_ids().items() if sound == wanted and token in heard), None
    )

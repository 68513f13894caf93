"""Characters that are added to a vocabulary have the shape and the sound that they have on paper."""

from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from scipy.fft import dctn

from rocbert_hf import RoCBertConfig, RoCBertForMaskedLM, RoCBertModel, RoCBertTokenizer
from rocbert_hf.conversion import add_characters
from rocbert_hf.conversion.added_characters import features_of_images
from rocbert_hf.glyphs.images import glyph_images, render
from rocbert_hf.resources import vocabulary

FONT = str(Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf"))  # wherever the package is installed
KNIGHT, TWIN = "♞", "\uf96d"  # drawn by the font; a code point that is drawn as 省


def cosine(a, b):
    return torch.nn.functional.cosine_similarity(a, b, dim=-1).item()


def cosine_features(image, size):
    """What `pixel_glyph_features` says: the lowest frequencies of scipy's transform, on the scale of the vocabulary's."""
    frequency, position = np.mgrid[0:32, 0:32]
    lowest = np.argsort((frequency + position).reshape(-1), kind="stable")[:size]
    known, new = (
        dctn(images / 255, axes=(1, 2), norm="ortho").reshape(len(images), -1)[:, lowest]
        for images in (glyph_images(), image[None])
    )
    return torch.from_numpy((new[0] - known.mean(0)) / (known - known.mean(0)).std())


@pytest.fixture(scope="module")
def grown():
    torch.manual_seed(0)
    model, tokenizer = RoCBertModel(RoCBertConfig.from_preset("tiny", shape_embed_dim=64)), RoCBertTokenizer()
    assert add_characters(model, tokenizer, [KNIGHT, "科", TWIN, KNIGHT], [FONT]) == [KNIGHT, TWIN]
    return model.eval(), tokenizer


def test_a_known_image_gives_its_own_row_of_a_table_of_pixels():
    """As if the character were new: it is left out of what its features are found from."""
    table = RoCBertModel(RoCBertConfig.from_preset("tiny")).embeddings.shape_embed.weight.detach()
    index = vocabulary().index("科")
    others = np.delete(np.arange(len(table)), index)
    found = features_of_images(glyph_images()[[index]], glyph_images()[others], table[others])
    assert torch.allclose(found[0].float(), table[index], atol=0.02)
    assert cosine(found[0].float(), table[index]) > 0.9999


def test_of_other_features_it_is_the_mean_of_the_nearest_images():
    images = np.random.default_rng(0).integers(0, 256, (30, 32, 32)).astype(np.uint8)
    features = torch.arange(30.0)[:, None]
    blurred = images[:1] // 2 + 20
    assert features_of_images(blurred, np.concatenate([images[:1]] * 8 + [images[9:]]), features) == features[:8].mean()


def test_an_added_character_is_seen_as_its_image(grown):
    model, tokenizer = grown
    encoded = tokenizer(f"科{KNIGHT}", return_tensors="pt")
    assert encoded["input_ids"][0, 2] == len(vocabulary())
    row = model.embeddings.shape_embed.weight[encoded["input_shape_ids"][0, 2]]
    norms = model.embeddings.shape_embed.weight[:16224].norm(dim=-1)
    assert norms.quantile(0.01) < row.norm() < norms.max() * 1.5
    assert torch.allclose(row.double(), cosine_features(render([KNIGHT], [FONT])[0], len(row)), atol=0.05)
    assert cosine(row.double(), cosine_features(render([KNIGHT], [FONT])[0], len(row))) > 0.999
    with torch.no_grad():
        assert torch.isfinite(model(**encoded).last_hidden_state).all()


def test_a_twin_keeps_the_shape_of_the_known_one(grown):
    _, tokenizer = grown
    assert tokenizer.convert_tokens_to_shape_ids(TWIN) == tokenizer.convert_tokens_to_shape_ids("省")


def test_a_chinese_character_sounds_as_it_is_read(monkeypatch):
    """㛃, a character of names, is read jie; how it sounds can be tested without a font that has it."""
    monkeypatch.setattr("rocbert_hf.conversion.added_characters.covered_by", lambda font: {"㛃"})
    model, tokenizer = RoCBertModel(RoCBertConfig.from_preset("tiny", shape_embed_dim=8)), RoCBertTokenizer()
    add_characters(model, tokenizer, ["㛃"], [FONT])
    assert tokenizer.convert_tokens_to_pronunciation_ids("㛃") == tokenizer.convert_tokens_to_pronunciation_ids("洁")
    assert tokenizer.convert_tokens_to_shape_ids("㛃") == 16224


def test_model_and_tokenizer_are_saved_whole(grown, tmp_path):
    model, tokenizer = grown
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    inputs = RoCBertTokenizer.from_pretrained(tmp_path)(f"{KNIGHT}{TWIN}", return_tensors="pt")
    with torch.no_grad():
        again = RoCBertModel.from_pretrained(tmp_path).eval()(**inputs).last_hidden_state
        assert torch.allclose(again, model(**inputs).last_hidden_state, atol=1e-6)


@pytest.mark.parametrize("characters", [["KEB"], ["♞", ""], ["科比"]])
def test_more_than_a_character_is_refused(characters):
    with pytest.raises(ValueError, match="characters must be single characters"):
        add_characters(None, None, characters)


def test_a_character_that_no_font_has_is_named_and_nothing_changes():
    model, tokenizer = RoCBertForMaskedLM(RoCBertConfig.from_preset("tiny", shape_embed_dim=8)), RoCBertTokenizer()
    with pytest.raises(ValueError, match="𪚥"):
        add_characters(model, tokenizer, [KNIGHT, "𪚥"], [FONT])
    with pytest.raises(OSError, match=r"missing\.ttf"):
        add_characters(model, tokenizer, [KNIGHT], ["missing.ttf"])
    assert len(tokenizer) == model.config.vocab_size == len(vocabulary())

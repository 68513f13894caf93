import numpy as np
import pytest

from rocbert_hf.characters.similarity import lookalikes_of
from rocbert_hf.resources import glyph_images, shape_ids, vocabulary

CHINESE = vocabulary()[1582:]


@pytest.mark.parametrize(
    "pair", ["己已", "未末", "土士", "日曰", "人入", "大太", "天夭", "科料", "清情", "辩辨", "戊戌", "候侯"]
)
def test_well_known_lookalikes_find_each_other(pair):
    assert pair[1] in lookalikes_of(pair[0])
    assert pair[0] in lookalikes_of(pair[1])


def test_every_chinese_character_has_twenty_others():
    for char in CHINESE:
        lookalikes = lookalikes_of(char)
        assert len(set(lookalikes)) == len(lookalikes) == 20
        assert char not in lookalikes


@pytest.mark.parametrize("char", ["a", "。", "ア", "[MASK]", "", "科学", "\U0002a6d6"])
def test_what_is_no_chinese_character_of_the_vocabulary_has_none(char):
    assert lookalikes_of(char) == ()


def test_most_of_the_ten_nearest_are_mutual():
    nearest = {char: lookalikes_of(char)[:10] for char in CHINESE}
    assert np.mean([char in nearest[other] for char in CHINESE for other in nearest[char]]) > 0.6


def test_lookalikes_share_more_ink_than_chance():
    images = glyph_images().reshape(len(vocabulary()), -1).astype(float)
    images -= images.mean(axis=1, keepdims=True)
    images /= np.maximum(np.linalg.norm(images, axis=1, keepdims=True), 1e-9)
    ids, some = shape_ids(), CHINESE[:2000:10]
    nearest = np.mean([images[ids[char]] @ images[ids[other]] for char in some for other in lookalikes_of(char)[:5]])
    chance = np.mean([images[ids[char]] @ images[ids[other]] for char in some for other in some if other != char])
    assert nearest > 2 * chance

import json
import re
import unicodedata
from collections import Counter

import numpy as np
import pytest

from rocbert_hf import resources
from rocbert_hf.characters.words import word_frequencies

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def is_chinese(token: str) -> bool:
    return unicodedata.name(token[0], "").startswith("CJK UNIFIED IDEOGRAPH")


@pytest.fixture(scope="module")
def chinese() -> list[str]:
    return [token for token in resources.vocabulary() if is_chinese(token)]


def test_the_vocabulary_has_the_papers_sizes(chinese):
    vocabulary = resources.vocabulary()
    assert len(vocabulary) == len(set(vocabulary)) == 16_224
    assert len(chinese) == 14_642
    assert vocabulary[:5] == SPECIAL


def test_the_vocabulary_holds_what_chinese_text_is_written_with():
    vocabulary = set(resources.vocabulary())
    assert vocabulary.issuperset(map(chr, range(33, 127)))
    for needed in (
        "的一是不了人我在有他",
        "國學會對發體灣龜鬱",
        "，。、；：？！“”‘’（）《》【】…—～￥％",
        "ａｚ０９",
        "ぁんァヶー",
        "ㄅㄩ",
        "āáǎàōóǒòēéěèīíǐìūúǔùǖǘǚǜüê",
        "αωая①⑳ⅰⅻ㈠",
        "⺮⼀⿕氵亻扌灬",
        "😀😂👍❤🔥",
    ):
        assert vocabulary.issuperset(needed), set(needed) - vocabulary


def test_every_token_can_come_out_of_the_tokenizer():
    for token in resources.vocabulary()[5:]:
        assert len(token) == 1
        assert unicodedata.category(token)[0] not in "CZ"
        assert token.lower() == token or token.isascii()


def test_chinese_characters_stand_by_frequency(chinese):
    frequencies = Counter()
    for word, frequency in word_frequencies().items():
        frequencies.update(dict.fromkeys(word, frequency))
    ordered = [frequencies[character] for character in chinese]
    assert ordered == sorted(ordered, reverse=True)
    assert ordered[12_000] > 0  # those that follow stand in no word: traditional forms, parts, rare characters


def test_every_chinese_character_has_a_syllable(chinese):
    pronunciations, ids = resources.pronunciations(), resources.pronunciation_ids()
    for character in chinese:
        assert re.fullmatch("[a-z]{1,6}", pronunciations[ids[character]]), character
        assert pronunciations[ids[character]] == resources.character_readings()[character][0][0]


@pytest.mark.parametrize(
    ("character", "syllable"),
    [
        ("科", "ke"),
        ("绿", "lv"),
        ("女", "nv"),
        ("略", "lve"),
        ("的", "de"),
        ("了", "le"),
        ("得", "de"),
        ("地", "di"),
        ("行", "xing"),
        ("中", "zhong"),
        ("都", "dou"),
        ("還", "hai"),
        ("國", "guo"),
        ("二", "er"),
        ("啊", "a"),
    ],
)
def test_the_pronunciation_is_the_most_common_reading(character, syllable):
    assert resources.pronunciations()[resources.pronunciation_ids()[character]] == syllable


def test_other_tokens_have_a_pronunciation_of_their_own(chinese):
    pronunciations, ids = resources.pronunciations(), resources.pronunciation_ids()
    assert list(ids) == list(resources.vocabulary())
    assert [ids[token] for token in SPECIAL] == [0, 1, 2, 3, 4]
    others = [token for token in resources.vocabulary() if not is_chinese(token)]
    for token in others:
        assert pronunciations[ids[token]] == (token.lower() if len(token) == 1 else token)
    assert set(ids.values()) == set(range(len(pronunciations)))
    assert len(set(pronunciations)) == len(pronunciations)


def test_a_letter_and_the_syllable_of_one_letter_sound_the_same():
    ids = resources.pronunciation_ids()
    assert ids["啊"] == ids["a"] == ids["A"]
    assert ids["饿"] == ids["e"]


def test_there_is_one_image_a_token():
    images = resources.glyph_images()
    assert images.shape == (16_224, 32, 32)
    assert images.dtype == np.uint8
    assert not (images % 17).any()
    assert list(resources.shape_ids().values()) == list(range(16_224))


def test_images_are_blank_only_where_there_is_nothing_to_draw():
    ink = resources.glyph_images().reshape(16_224, -1).any(axis=1)
    blank = [token for token, inked in zip(resources.vocabulary(), ink, strict=True) if not inked]
    assert set(blank) == {"[PAD]", "\ufe0f"}


def test_images_of_different_characters_differ(chinese):
    ids = resources.shape_ids()
    images = resources.glyph_images()[[ids[character] for character in chinese]].reshape(len(chinese), -1)
    assert len(np.unique(images, axis=0)) > 0.999 * len(chinese)


def test_punctuation_keeps_its_size_and_place():
    images, ids = resources.glyph_images(), resources.shape_ids()
    rows, columns = np.nonzero(images[ids["。"]])
    assert rows.min() > 16
    assert columns.max() < 16
    assert np.count_nonzero(images[ids["国"]]) > 5 * np.count_nonzero(images[ids["。"]])
    assert np.nonzero(images[ids["'"]])[0].max() < 16 < np.nonzero(images[ids[","]])[0].min()


def test_shared_tables_cannot_be_changed_by_accident():
    with pytest.raises(ValueError, match="read-only"):
        resources.glyph_images()[0] = 1


def test_the_demo_corpus_is_readable_and_its_characters_are_known():
    rows = resources.demo_corpus()
    assert len(rows) > 1000
    assert all(row["text"].strip() == row["text"] != "" and row["genre"] for row in rows)
    assert {row.get("sentiment") for row in rows} == {None, 0, 1} == {row.get("spam") for row in rows}
    characters = "".join(resources.demo_sentences()).replace(" ", "")
    unknown = [character for character in characters if character not in resources.shape_ids()]
    assert len(unknown) < 0.001 * len(characters), sorted(set(unknown))


def test_the_thesaurus_holds_sets_of_different_words():
    for tag, words in resources.thesaurus():
        assert re.fullmatch("[a-z]+", tag)
        assert len(words) == len(set(words)) > 1


def test_the_packaged_files_are_small():
    folder = resources.path("vocab.txt").parent
    assert sum(file.stat().st_size for file in folder.iterdir() if file.is_file()) < 6e6


def test_a_missing_file_is_named():
    with pytest.raises(OSError, match=r"'glyph\.npz'.*glyphs\.npz"):
        resources.path("glyph.npz")


def test_files_of_ids_hold_the_vocabulary_and_then_its_twins():
    for name, ids in (
        ("word_shape.json", resources.shape_ids()),
        ("word_pronunciation.json", resources.pronunciation_ids()),
    ):
        in_file = json.loads(resources.path(name).read_text(encoding="utf-8"))
        assert list(in_file)[: len(ids)] == list(ids) == list(resources.vocabulary())
        twins = list(in_file)[len(ids) :]
        assert all(len(twin) == 1 for twin in twins)
        assert set(in_file.values()) == set(ids.values())

"""Characters that are not in the vocabulary but look like one that is: the visual channel sees that one."""

import unicodedata

import pytest

from rocbert_hf import RoCBertTokenizer
from rocbert_hf.resources import confusable_characters, vocabulary

COMPATIBILITY = "\uf96d"  # drawn as 省, another code point
CIRCLED = "㋗"  # ク
ASTRAL = "𝑰"  # I


def is_chinese(token):
    return unicodedata.name(token, "").startswith("CJK UNIFIED IDEOGRAPH")


def test_a_twin_has_the_shape_and_if_chinese_the_sound_of_the_known_one(packaged):
    known = packaged("省", add_special_tokens=False)
    twin = packaged(COMPATIBILITY, add_special_tokens=False)
    assert packaged.convert_ids_to_tokens(twin["input_ids"]) == ["[UNK]"]
    assert twin["input_shape_ids"] == known["input_shape_ids"]
    assert twin["input_pronunciation_ids"] == known["input_pronunciation_ids"]
    kana = packaged(CIRCLED, add_special_tokens=False)
    assert kana["input_shape_ids"] == packaged("ク", add_special_tokens=False)["input_shape_ids"]
    assert kana["input_pronunciation_ids"] == kana["input_ids"]  # as [UNK] sounds


def test_every_lookalike_of_the_unicode_attack_has_a_shape(packaged):
    unk = packaged.shape_ids[packaged.unk_token_id]
    forms = sorted({form for found in confusable_characters().values() for form in found})
    known = set(vocabulary())
    unknown = [form for form in forms if form not in known]
    assert len(unknown) > 900
    shapes = [row[0] for row in packaged(unknown, add_special_tokens=False)["input_shape_ids"]]
    assert unk not in shapes


@pytest.mark.parametrize("options", [{}, {"padding": True}, {"padding": True, "return_tensors": "np"}])
def test_look_up_and_backend_agree(packaged, options):
    texts = [f"科{COMPATIBILITY}a[MASK]", f"{ASTRAL}☃\U0001fae8", "比", f"{COMPATIBILITY}" * 5, ""]
    by_look_up = packaged(texts, **options)
    by_backend = packaged(texts, return_offsets_mapping=True, **options)
    for name, rows in by_look_up.items():
        for mine, row in zip(rows, by_backend[name], strict=True):
            assert list(mine) == list(row)


def test_in_pairs_words_single_texts_and_overflow(packaged):
    shape = packaged.convert_tokens_to_shape_ids("省")
    assert packaged.convert_tokens_to_shape_ids([COMPATIBILITY, "省"]) == [shape, shape]
    for encoded, places in (
        (packaged("a", f"b{COMPATIBILITY}"), [4]),
        (packaged(COMPATIBILITY, COMPATIBILITY), [1, 3]),
        (packaged(["a", f"x{COMPATIBILITY}"], is_split_into_words=True), [3]),
        (packaged(f"a{COMPATIBILITY}"), [2]),
    ):
        shapes = encoded["input_shape_ids"]
        assert [i for i, value in enumerate(shapes) if value == shape] == places
    assert packaged([("a", COMPATIBILITY)])["input_shape_ids"][0][3] == shape
    assert packaged([["a", COMPATIBILITY]], is_split_into_words=True)["input_shape_ids"][0][2] == shape
    assert packaged(["a"], [COMPATIBILITY], return_tensors="pt", padding=True)["input_shape_ids"][0, 3] == shape
    overflow = packaged("ab" + COMPATIBILITY, truncation=True, max_length=3, return_overflowing_tokens=True)
    assert overflow["input_shape_ids"][2][1] == shape


def test_twins_are_saved_and_an_added_one_becomes_a_token(tmp_path):
    tokenizer = RoCBertTokenizer()
    shape = tokenizer.convert_tokens_to_shape_ids("省")
    tokenizer.save_pretrained(tmp_path)
    loaded = RoCBertTokenizer.from_pretrained(tmp_path)
    assert loaded([COMPATIBILITY])["input_shape_ids"] == [[2, shape, 3]]
    loaded.add_tokens([COMPATIBILITY])
    encoded = loaded([COMPATIBILITY, "省"], add_special_tokens=False)
    assert encoded["input_ids"][0] == [len(vocabulary())]
    assert encoded["input_shape_ids"] == [[shape], [shape]]

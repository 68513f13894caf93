"""What one call on text gives at the character level."""

import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rocbert_hf import RoCBertTokenizer
from rocbert_hf.resources import pronunciation_ids, shape_ids, vocabulary

from .conftest import SPECIAL_TOKENS, texts

NAMES = ["input_ids", "input_shape_ids", "input_pronunciation_ids", "token_type_ids", "attention_mask"]


def test_every_character_is_a_token_with_its_shape_and_pronunciation(packaged):
    encoded = packaged("科比ke b1！")
    tokens = ["[CLS]", "科", "比", "k", "e", "b", "1", "！", "[SEP]"]
    assert list(encoded) == NAMES == packaged.model_input_names
    assert packaged.convert_ids_to_tokens(encoded["input_ids"]) == tokens
    assert encoded["input_ids"] == [vocabulary().index(token) for token in tokens]
    assert encoded["input_shape_ids"] == [shape_ids()[token] for token in tokens]
    assert encoded["input_pronunciation_ids"] == [pronunciation_ids()[token] for token in tokens]
    assert encoded["token_type_ids"] == [0] * 9
    assert encoded["attention_mask"] == [1] * 9


def test_case_is_kept_on_request():
    tokenizer = RoCBertTokenizer(do_lower_case=False)
    assert tokenizer.tokenize("Keb1 İ") == ["K", "e", "b", "1", "[UNK]"]
    assert RoCBertTokenizer().tokenize("Keb1 İ") == ["k", "e", "b", "1", "i"]
    assert RoCBertTokenizer(strip_accents=True).tokenize("é") == ["e"]


@pytest.mark.parametrize("text", ["科比的精神", "keb1科比，永远滴神！", "野家かな②", "a"])
def test_decoding_gives_the_text_back_without_spaces(packaged, text):
    ids = packaged(text)["input_ids"]
    assert packaged.decode(ids, skip_special_tokens=True) == text
    assert packaged.decode(ids) == f"[CLS]{text}[SEP]"
    batch = packaged([text, text * 2], padding=True, return_tensors="np")["input_ids"]
    assert packaged.batch_decode(batch, skip_special_tokens=True) == [text, text * 2]
    assert packaged.convert_tokens_to_string(packaged.tokenize(text)) == text
    assert packaged.clean_up_tokenization_spaces is False


@pytest.mark.parametrize("character", ["한", "\U0001fae0", "ᚠ", "\u0378", "\U000e0100"])
def test_an_unknown_character_is_one_unknown_token(packaged, character):
    assert packaged.tokenize(f"科{character}{character}a{character}") == ["科", "[UNK]", "[UNK]", "a", "[UNK]"]
    unknown = packaged(character, add_special_tokens=False)
    assert unknown["input_shape_ids"] == [shape_ids()["[UNK]"]]
    assert unknown["input_pronunciation_ids"] == [pronunciation_ids()["[UNK]"]]


@settings(max_examples=300, deadline=None)
@given(text=texts(), lower=st.booleans())
def test_any_text_gives_aligned_channels_and_one_token_a_character(text, lower, request):
    tokenizer = request.getfixturevalue("packaged" if lower else "cased")
    encoded = tokenizer(text, return_offsets_mapping=True, return_special_tokens_mask=True)
    ids = encoded["input_ids"]
    assert {len(encoded[name]) for name in encoded} == {len(ids)}
    for name, table in (
        ("input_shape_ids", tokenizer.shape_ids),
        ("input_pronunciation_ids", tokenizer.pronunciation_ids),
    ):
        # an unknown character that looks like a known one has that one's shape and sound
        for number, token, its_own in zip(encoded[name], ids, table[ids].tolist(), strict=True):
            assert number == its_own or (token == tokenizer.unk_token_id and number in table)
    assert encoded["special_tokens_mask"] == [1] + [0] * (len(ids) - 2) + [1]
    end = 0
    for token, (begin, until) in list(zip(encoded.tokens(), encoded["offset_mapping"], strict=True))[1:-1]:
        assert end <= begin < until <= len(text)
        assert until - begin == 1 or text[begin:until] == token
        end = until
    words = encoded.word_ids()[1:-1]
    assert words == sorted(words)


@pytest.fixture(scope="session")
def cased():
    return RoCBertTokenizer(do_lower_case=False)


@pytest.mark.parametrize("lower", [True, False])
def test_of_all_code_points_only_space_control_and_format_characters_are_dropped(lower):
    tokenizer = RoCBertTokenizer(do_lower_case=lower)
    known = set(vocabulary())
    points = [*range(0x3000), 0x3000, *range(0x4E00, 0x4E80), *range(0xD7F0, 0xE010), *range(0xFE00, 0x10100)]
    points += [*range(0x1F300, 0x1F400), *range(0xE0000, 0xE0200), *range(0x10FFF0, 0x110000)]
    rows = tokenizer([chr(point) for point in points], add_special_tokens=False)["input_ids"]
    for character, row in zip(map(chr, points), rows, strict=True):
        form = character.lower()[0] if lower else character
        if len(row) == 1:
            assert tokenizer.convert_ids_to_tokens(row) == [form if form in known else "[UNK]"]
        else:
            category = unicodedata.category(character)
            assert row == []
            assert category[0] in "ZC" or character == "\ufffd"


def test_text_of_a_hundred_thousand_characters(packaged):
    text = "科比 keb1，\u200b" * 10_000
    for encoded in (packaged(text, verbose=False), packaged(text, verbose=False, return_offsets_mapping=True)):
        assert len(encoded["input_ids"]) == len(encoded["input_pronunciation_ids"]) == 70_002
        assert packaged.decode(encoded["input_ids"], skip_special_tokens=True) == "科比keb1，" * 10_000
    assert len(packaged("x" * 100_000, return_length=True, verbose=False)["input_ids"]) == 100_002


def test_words_are_those_of_bert_while_tokens_are_characters(packaged):
    encoded = packaged("he is 科比, ok")
    assert encoded.word_ids() == [None, 0, 0, 1, 1, 2, 3, 4, 5, 5, None]
    assert encoded.char_to_token(6) == 5
    assert encoded.token_to_chars(5) == (6, 7)
    assert encoded.word_to_chars(0) == (0, 2)
    assert encoded.sequence_ids() == [None, *[0] * 9, None]


def test_pairs_batches_of_pairs_and_split_words(packaged):
    pair = packaged("科比", "a b")
    assert packaged.decode(pair["input_ids"]) == "[CLS]科比[SEP]ab[SEP]"
    assert pair["token_type_ids"] == [0, 0, 0, 0, 1, 1, 1]
    assert pair["input_shape_ids"] == packaged.shape_ids[pair["input_ids"]].tolist()
    batch = packaged(["科比", "x"], ["a b", "科"], padding=True)
    assert batch["input_ids"][0] == pair["input_ids"]
    assert batch["attention_mask"][1] == [1] * 5 + [0] * 2
    assert batch["input_pronunciation_ids"] == packaged.pronunciation_ids[np.array(batch["input_ids"])].tolist()
    words = packaged(["科比", "is", "\ud800", "great"], is_split_into_words=True)
    assert words.word_ids() == [None, 0, 0, 1, 1, 3, 3, 3, 3, 3, None]
    assert len(words["input_shape_ids"]) == 11
    assert packaged([["科比", "is"], ["a"]], is_split_into_words=True)["input_ids"][1] == packaged("a")["input_ids"]


@pytest.mark.parametrize("strategy", ["only_first", "only_second", "longest_first"])
def test_truncated_pairs_keep_their_channels_aligned(packaged, strategy):
    encoded = packaged("科比" * 6, "永远滴神" * 3, truncation=strategy, max_length=20)
    assert len(encoded["input_ids"]) == 20
    assert encoded["input_shape_ids"] == packaged.shape_ids[encoded["input_ids"]].tolist()
    assert encoded["input_pronunciation_ids"] == packaged.pronunciation_ids[encoded["input_ids"]].tolist()


def test_overflow_covers_the_text_in_windows_with_every_channel(packaged):
    text = "零一二三四五六七八九"
    encoded = packaged(
        [text, "短"],
        truncation=True,
        max_length=6,
        stride=2,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    assert packaged.batch_decode(encoded["input_ids"], skip_special_tokens=True) == [
        "零一二三",
        "二三四五",
        "四五六七",
        "六七八九",
        "短",
    ]
    assert encoded["overflow_to_sample_mapping"] == [0, 0, 0, 0, 1]
    for ids, shapes, sounds in zip(
        encoded["input_ids"], encoded["input_shape_ids"], encoded["input_pronunciation_ids"], strict=True
    ):
        assert shapes == packaged.shape_ids[ids].tolist()
        assert sounds == packaged.pronunciation_ids[ids].tolist()
    assert encoded["offset_mapping"][1][1:-1] == [(2, 3), (3, 4), (4, 5), (5, 6)]


def test_lone_surrogates_are_taken_wherever_text_is(packaged):
    for call in (
        packaged("a\ud800b"),
        packaged(["a\udfffb"], return_tensors="np"),
        packaged("a\ud800b", "\ud800"),
        packaged(["a\ud800b"], ["c"]),
        packaged("a\ud800b", return_offsets_mapping=True),
    ):
        assert packaged.convert_tokens_to_ids("b") in np.array(call["input_ids"])
    assert packaged("a\ud800b", return_offsets_mapping=True)["offset_mapping"] == [(0, 0), (0, 1), (2, 3), (0, 0)]
    assert packaged.tokenize("a\ud800b") == ["a", "b"]
    with pytest.raises((TypeError, ValueError)):
        packaged([3])


def test_tables_follow_the_vocabulary(packaged):
    tokens = packaged.convert_ids_to_tokens(range(len(packaged)))
    assert tokens == list(vocabulary())
    assert packaged.shape_ids.dtype == packaged.pronunciation_ids.dtype == np.int64
    assert packaged.shape_ids.tolist() == [shape_ids()[token] for token in tokens]
    assert packaged.convert_tokens_to_shape_ids(["科", 7]) == [shape_ids()["科"], shape_ids()[tokens[7]]]
    assert packaged.convert_tokens_to_pronunciation_ids("科") == pronunciation_ids()["科"]
    assert packaged.convert_tokens_to_pronunciation_ids(["한"]) == [pronunciation_ids()["[UNK]"]]
    assert packaged.convert_tokens_to_shape_ids(packaged(["科比"], return_tensors="np")["input_ids"][0]) == [
        shape_ids()[token] for token in ("[CLS]", "科", "比", "[SEP]")
    ]
    assert packaged.all_special_tokens == ["[UNK]", "[SEP]", "[PAD]", "[CLS]", "[MASK]"]
    assert packaged.convert_tokens_to_ids(SPECIAL_TOKENS) == [0, 1, 2, 3, 4]

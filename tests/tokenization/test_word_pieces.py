"""The three-file layout of transformers' own RoCBertTokenizer: same ids in all channels, whatever the text."""

import json
import random
import sys
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import models
from transformers.models.roc_bert.tokenization_roc_bert import RoCBertTokenizer as TransformersTokenizer

from rocbert_hf import RoCBertTokenizer

from .conftest import DIFFICULT, texts

CHANNELS = ["input_ids", "input_shape_ids", "input_pronunciation_ids"]
BLOCKS = [(0x20, 0x7F), (0xA0, 0x250), (0x300, 0x370), (0x370, 0x600), (0x1100, 0x1200), (0x1E00, 0x2000)]
BLOCKS += [(0x2000, 0x2070), (0x2E00, 0x3100), (0x3040, 0x3100), (0x4E00, 0x5800), (0xAC00, 0xAD00)]
BLOCKS += [(0xF900, 0xFB00), (0xFF00, 0x10000), (0x1F300, 0x1FB00), (0x20000, 0x2FA20), (0, 0x3000), (0, 0x110000)]


def mixed_texts(count: int, seed: int) -> list[str]:
    """Chinese, Latin, accents, digits, kana, Hangul, emoji, controls, spaces, unassigned: alone and mixed."""
    rng = random.Random(seed)
    result = []
    for _ in range(count):
        blocks = rng.sample(BLOCKS, k=3)
        characters = [chr(rng.randrange(*rng.choice(blocks))) for _ in range(rng.randrange(30))]
        characters += rng.choices(DIFFICULT, k=rng.randrange(10))
        rng.shuffle(characters)
        result.append("".join(characters))
    return result


def assert_same_ids(ours, theirs, batch: list[str], **options):
    mine, wanted = ours(batch, **options), theirs(batch, **options)
    for name in CHANNELS:
        different = [i for i in range(len(batch)) if mine[name][i] != wanted[name][i]]
        assert not different, f"{name} of {batch[different[0]]!r}: {mine[name][different[0]]}"


def test_ten_thousand_mixed_texts_have_the_ids_of_transformers(word_pieces, transformers_tokenizer):
    batch = mixed_texts(10_000, seed=0)
    assert_same_ids(word_pieces, transformers_tokenizer, batch)
    known = np.concatenate([np.array(row) for row in word_pieces(batch)["input_ids"]])
    assert (known > 4).mean() > 0.2  # the vocabulary has a good part of what the texts hold
    assert len(np.unique(known)) > 1000


@settings(max_examples=300, deadline=None)
@given(text=texts())
def test_any_text_has_the_ids_of_transformers(word_pieces, transformers_tokenizer, text):
    assert_same_ids(word_pieces, transformers_tokenizer, [text])
    assert word_pieces.tokenize(text) == transformers_tokenizer.tokenize(text)


@pytest.mark.parametrize(
    "options",
    [
        {"do_lower_case": False},
        {"strip_accents": False},
        {"do_lower_case": False, "strip_accents": True},
        {"tokenize_chinese_chars": False},
        {"do_basic_tokenize": False},
    ],
    ids=str,
)
def test_every_option_does_what_it_does_in_transformers(word_piece_folder, options):
    ours = RoCBertTokenizer.from_pretrained(word_piece_folder, **options)
    theirs = TransformersTokenizer.from_pretrained(word_piece_folder, **options)
    assert_same_ids(ours, theirs, mixed_texts(1_500, seed=1))


@pytest.mark.slow
@pytest.mark.parametrize(("around", "lower"), [("{}", True), ("a{}b", True), ("科{}Σ ", True), ("a{}b", False)])
def test_every_code_point_has_the_ids_of_transformers(word_piece_folder, around, lower):
    ours = RoCBertTokenizer.from_pretrained(word_piece_folder, do_lower_case=lower)
    theirs = TransformersTokenizer.from_pretrained(word_piece_folder, do_lower_case=lower)
    words = [around.format(chr(point)) for point in range(sys.maxunicode + 1)]
    # of the unassigned and private, which take up most of the code space, one in 32
    words = [word for i, word in enumerate(words) if i % 32 == 0 or unicodedata.category(chr(i)) not in ("Cn", "Co")]
    batch = [" ".join(words[begin : begin + 32]) for begin in range(0, len(words), 32)]
    assert_same_ids(ours, theirs, batch)


@pytest.mark.parametrize("side", ["right", "left"])
def test_pairs_padding_and_special_tokens_have_the_ids_of_transformers(word_piece_folder, side):
    ours = RoCBertTokenizer.from_pretrained(word_piece_folder, padding_side=side)
    theirs = TransformersTokenizer.from_pretrained(word_piece_folder, padding_side=side)
    firsts, seconds = mixed_texts(200, seed=2), mixed_texts(200, seed=3)
    options = {"padding": True, "pad_to_multiple_of": 8, "return_tensors": "np", "return_token_type_ids": True}
    for arguments in ((firsts,), (firsts, seconds)):
        mine, wanted = ours(*arguments, **options), theirs(*arguments, **options)
        assert set(mine) == set(wanted)
        for name in wanted:
            assert np.array_equal(mine[name], wanted[name])
    for text in ("科[SEP]比", "[CLS]", "[MASK][PAD]x", "a[UNK]"):  # in the text they keep their own shape and sound
        assert_same_ids(ours, theirs, [text])
        assert_same_ids(ours, theirs, [text], add_special_tokens=False)
    assert_same_ids(ours, theirs, firsts, truncation=True, max_length=7)


def test_features_padded_later_have_the_ids_of_transformers(word_pieces, transformers_tokenizer):
    features = [word_pieces(text) for text in ("科比", "hello世界")]
    wanted = transformers_tokenizer(["科比", "hello世界"], padding=True, return_tensors="np")
    without = [{"input_ids": feature["input_ids"]} for feature in features]
    for padded in (word_pieces.pad(features, return_tensors="np"), word_pieces.pad(without, return_tensors="np")):
        for name in CHANNELS:
            assert np.array_equal(padded[name], wanted[name])


def test_decoding_and_conversion_are_those_of_transformers(word_pieces, transformers_tokenizer):
    for text in ["unaffable hello world 科比", "the 2021, ab", *mixed_texts(200, seed=4)]:
        ids = word_pieces(text)["input_ids"]
        for skip in (True, False):
            assert word_pieces.decode(ids, skip_special_tokens=skip) == transformers_tokenizer.decode(
                ids, skip_special_tokens=skip
            )
    tokens = ["[CLS]", "[UNK]", "科", "##able", "no such token"]
    for method in ("convert_tokens_to_shape_ids", "convert_tokens_to_pronunciation_ids"):
        assert getattr(word_pieces, method)(tokens) == getattr(transformers_tokenizer, method)(tokens)


def test_words_too_long_or_unknown_are_one_unknown_token(word_pieces, transformers_tokenizer):
    assert word_pieces.tokenize("unaffable") == ["un", "##aff", "##able"]
    assert word_pieces.tokenize("unaffable🤖") == ["[UNK]"]
    for length in (100, 101):
        assert_same_ids(word_pieces, transformers_tokenizer, ["a" * length])
    assert word_pieces.tokenize("a" * 101) == ["[UNK]"]


def test_tokens_that_the_tables_lack_are_unknown_to_them_as_in_transformers(tmp_path, word_piece_folder):
    for name in ("vocab.txt", "word_shape.json", "word_pronunciation.json"):
        (tmp_path / name).write_bytes((word_piece_folder / name).read_bytes())
    shapes = json.loads((tmp_path / "word_shape.json").read_text(encoding="utf-8"))
    del shapes["科"], shapes["##able"]
    (tmp_path / "word_shape.json").write_text(json.dumps(shapes), encoding="utf-8")
    ours, theirs = RoCBertTokenizer.from_pretrained(tmp_path), TransformersTokenizer.from_pretrained(tmp_path)
    assert_same_ids(ours, theirs, ["科比 unaffable"])


@pytest.fixture(scope="session")
def with_accents(word_piece_folder):
    return RoCBertTokenizer.from_pretrained(word_piece_folder, strip_accents=False)


@settings(max_examples=200, deadline=None)
@given(text=st.text(alphabet="ΑΣςa'. \u0301ʰ1科-\u200b", max_size=12))
def test_lower_case_is_pythons_final_sigma_and_all(word_pieces, transformers_tokenizer, with_accents, text):
    assert word_pieces.tokenize(text) == transformers_tokenizer.tokenize(text)
    composed = unicodedata.normalize("NFC", text.replace("\u200b", ""))
    assert with_accents.backend_tokenizer.normalizer.normalize_str(text) == composed.lower()


def test_words_characters_and_offsets_are_known(word_pieces):
    encoded = word_pieces("Unaffable 科比", return_offsets_mapping=True)
    assert encoded.word_ids() == [None, 0, 0, 0, 1, 2, None]
    assert encoded["offset_mapping"] == [(0, 0), (0, 2), (2, 5), (5, 9), (10, 11), (11, 12), (0, 0)]


@settings(max_examples=200, deadline=None)
@given(text=texts())
def test_offsets_stay_inside_any_text(word_pieces, text):
    encoded = word_pieces(text, return_offsets_mapping=True)
    assert {len(values) for values in encoded.values()} == {len(encoded["input_ids"])}
    for begin, end in encoded["offset_mapping"]:
        assert 0 <= begin <= end <= len(text)


def test_files_can_be_read_one_token_a_character(word_piece_folder):
    files = [word_piece_folder / name for name in ("vocab.txt", "word_shape.json", "word_pronunciation.json")]
    assert RoCBertTokenizer(*files).tokenize("hello") == ["hello"]
    assert RoCBertTokenizer(*files, character_level=True).tokenize("hello") == list("hello")
    assert isinstance(RoCBertTokenizer(*files).backend_tokenizer.model, models.WordPiece)

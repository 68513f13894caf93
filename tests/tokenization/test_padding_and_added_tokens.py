"""`pad()` on features, and what happens to the vocabulary when tokens are added."""

import json

import numpy as np
import pytest
import torch
from transformers import AddedToken, BatchEncoding, DataCollatorForTokenClassification, DataCollatorWithPadding

from rocbert_hf import RoCBertTokenizer
from rocbert_hf.resources import vocabulary

CHANNELS = ["input_ids", "input_shape_ids", "input_pronunciation_ids", "token_type_ids", "attention_mask"]
TEXTS = ["科比的精神", "a b", "", "值得永远学习！"]


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize(
    "options", [{}, {"pad_to_multiple_of": 8}, {"padding": "max_length", "max_length": 20}], ids=str
)
def test_padding_features_is_padding_the_call(side, options):
    tokenizer = RoCBertTokenizer(padding_side=side)
    wanted = tokenizer(TEXTS, truncation=True, **{"padding": True, "max_length": 512, **options}, return_tensors="np")
    features = [tokenizer(text) for text in TEXTS]
    columns = {name: [feature[name] for feature in features] for name in CHANNELS}
    arrays = [{name: np.array(row) for name, row in feature.items()} for feature in features]
    for given in (features, columns, arrays, [dict(feature) for feature in features]):
        padded = tokenizer.pad(given, **options, return_tensors="np")
        assert set(padded) == set(wanted)
        for name in wanted:
            assert np.array_equal(padded[name], wanted[name])
    assert tokenizer.pad(features)["input_shape_ids"] == tokenizer(TEXTS, padding=True)["input_shape_ids"]


def test_the_side_can_be_given_with_the_call(packaged):
    features = [packaged(text) for text in TEXTS]
    wanted = packaged(TEXTS, padding=True, padding_side="left", return_tensors="np")
    padded = packaged.pad(features, padding_side="left", return_tensors="np")
    for name in CHANNELS:
        assert np.array_equal(padded[name], wanted[name])


def test_missing_channels_are_made_from_the_tokens(packaged):
    wanted = packaged(TEXTS, padding=True, return_tensors="pt")
    padded = packaged.pad({"input_ids": [packaged(text)["input_ids"] for text in TEXTS]}, return_tensors="pt")
    for name in ("input_ids", "input_shape_ids", "input_pronunciation_ids", "attention_mask"):
        assert torch.equal(padded[name], wanted[name])
    single = packaged.pad({"input_ids": [2, 3]}, padding="max_length", max_length=4)
    assert single["input_pronunciation_ids"] == [2, 3, 0, 0]
    assert json.loads(json.dumps(dict(single))) == single  # numbers of Python, as those of the tokens


def test_collators_of_transformers_pad_every_channel(packaged):
    features = [{**packaged(text), "labels": index} for index, text in enumerate(TEXTS)]
    batch = DataCollatorWithPadding(packaged)(features)
    assert {batch[name].shape for name in CHANNELS} == {(4, 9)}
    assert batch["labels"].tolist() == [0, 1, 2, 3]
    features = [{**packaged(text), "labels": [0] * len(packaged(text)["input_ids"])} for text in TEXTS]
    batch = DataCollatorForTokenClassification(packaged)(features)
    assert {batch[name].shape for name in (*CHANNELS, "labels")} == {(4, 9)}


def test_channels_that_the_model_does_not_want_are_left_out():
    tokenizer = RoCBertTokenizer(model_input_names=["input_ids", "attention_mask"])
    for encoded in (tokenizer("科"), tokenizer(["科"], padding=True, return_tensors="np"), tokenizer("科", "比")):
        assert list(encoded) == ["input_ids", "attention_mask"]
    assert set(tokenizer.pad([tokenizer("科")])) == {"input_ids", "attention_mask"}
    assert isinstance(tokenizer("科", return_token_type_ids=True)["token_type_ids"], list)
    assert isinstance(tokenizer("科"), BatchEncoding)


@pytest.mark.parametrize("add", ["add_tokens", "add_special_tokens", "extra at the start"])
@pytest.mark.parametrize("layout", ["characters", "word pieces"])
def test_new_tokens_get_a_shape_and_a_sound_of_their_own_and_keep_them(tmp_path, word_piece_folder, add, layout):
    options = {"extra_special_tokens": ["<e1>", "<e2>"]} if add == "extra at the start" else {}
    if layout == "characters":
        tokenizer = RoCBertTokenizer(**options)
    else:
        tokenizer = RoCBertTokenizer.from_pretrained(word_piece_folder, **options)
    before = RoCBertTokenizer() if layout == "characters" else RoCBertTokenizer.from_pretrained(word_piece_folder)
    if add == "add_tokens":
        tokenizer.add_tokens(["<e1>", AddedToken("<e2>", lstrip=True)])
    elif add == "add_special_tokens":
        tokenizer.add_special_tokens({"extra_special_tokens": ["<e1>", "<e2>"]})
    size = len(before)
    assert tokenizer.convert_tokens_to_ids(["<e1>", "<e2>"]) == [size, size + 1]
    for name in ("shape_ids", "pronunciation_ids"):
        old, new = getattr(before, name), getattr(tokenizer, name)
        assert new[:size].tolist() == old.tolist()
        assert len(set(new[size:])) == 2
        assert not set(new[size:]) & set(old)
    text = "科<e1> a <e2>b"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids) == ["科", "<e1>", "a", "<e2>", "b"]
    encoded = tokenizer([text, "a"], padding=True, return_tensors="np")
    assert encoded["input_shape_ids"][0, 2] == tokenizer.shape_ids[size]

    tokenizer.save_pretrained(tmp_path)
    loaded = RoCBertTokenizer.from_pretrained(tmp_path)
    assert loaded.get_vocab() == tokenizer.get_vocab()
    assert loaded.added_tokens_decoder == tokenizer.added_tokens_decoder
    assert np.array_equal(loaded.shape_ids, tokenizer.shape_ids)
    assert np.array_equal(loaded.pronunciation_ids, tokenizer.pronunciation_ids)
    again = loaded([text, "a"], padding=True, return_tensors="np")
    for name in encoded:
        assert np.array_equal(encoded[name], again[name])
    loaded.add_tokens(["<e3>"])
    assert loaded.shape_ids[-1] == tokenizer.shape_ids.max() + 1


def test_files_hold_added_tokens_as_they_were_given(tmp_path):
    tokenizer = RoCBertTokenizer()
    tokenizer.add_tokens(["KEB", "科", " x "])
    tokenizer.save_pretrained(tmp_path)
    assert {"KEB", " x "} == tokenizer.word_shape.keys() - RoCBertTokenizer().word_shape.keys()
    assert (tmp_path / "vocab.txt").read_text(encoding="utf-8").split("\n") == [*vocabulary(), ""]
    loaded = RoCBertTokenizer.from_pretrained(tmp_path)
    assert loaded.word_shape == tokenizer.word_shape
    assert loaded("kEb 科 x ")["input_ids"] == tokenizer("kEb 科 x ")["input_ids"]


def test_added_tokens_match_as_in_any_tokenizer():
    tokenizer = RoCBertTokenizer()
    tokenizer.add_tokens(["KEB", AddedToken("<Sp>", normalized=False)])
    for text in ("我KEB的", "我keb的", "我<Sp>的"):
        assert len(tokenizer([text])["input_ids"][0]) == 5
    assert len(tokenizer(["我<sp>的"])["input_ids"][0]) == 8


def test_an_added_chinese_word_is_decoded_without_spaces(tmp_path):
    tokenizer = RoCBertTokenizer()
    tokenizer.add_tokens(["微信支付", "A股"])
    tokenizer.save_pretrained(tmp_path)
    for one in (tokenizer, RoCBertTokenizer.from_pretrained(tmp_path)):
        encoded = one("用微信支付买A股吗")
        assert one.tokenize("用微信支付买A股吗") == ["用", "微信支付", "买", "a股", "吗"]
        assert one.decode(encoded["input_ids"], skip_special_tokens=True) == "用微信支付买a股吗"
        assert encoded.word_ids() == [None, 0, 1, 2, 3, 4, None]


def test_hundreds_of_tokens_can_be_added_one_at_a_time():
    tokenizer = RoCBertTokenizer()
    for index in range(300):
        tokenizer.add_tokens([f"<t{index}>"])
    assert tokenizer.shape_ids[-300:].tolist() == list(range(16224, 16524))


def test_a_new_padding_token_is_used_everywhere():
    tokenizer = RoCBertTokenizer()
    tokenizer.add_special_tokens({"pad_token": "<pad>"})
    called = tokenizer(["科比", "a"], padding=True, return_tensors="np")
    padded = tokenizer.pad([tokenizer("科比"), tokenizer("a")], return_tensors="np")
    assert called["input_ids"][1, -1] == 16224
    assert called["input_shape_ids"][1, -1] == tokenizer.shape_ids[16224]
    for name in called:
        assert np.array_equal(called[name], padded[name])

"""Batches for pretraining and for every head: aligned channels, no leaks, the same examples however they are loaded."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from transformers import (
    DataCollatorForMultipleChoice,
    DataCollatorForTokenClassification,
    DataCollatorWithPadding,
)

from rocbert_hf import RoCBertTokenizer
from rocbert_hf.attacks import AdversarialSynthesizer, AttackedText, Edit
from rocbert_hf.characters.words import segment
from rocbert_hf.pretraining.collator import (
    CHANNELS,
    VIEW_KEYS,
    DataCollatorForRoCBert,
    DataCollatorForRoCBertPretraining,
)
from rocbert_hf.pretraining.corpus.batches import SentenceBatches, Texts
from rocbert_hf.resources import demo_sentences


@pytest.fixture(scope="module")
def tokenizer():
    return RoCBertTokenizer()


@pytest.fixture(scope="module")
def sentences():
    return demo_sentences()[::12]


def assert_channels_agree(tokenizer, batch, prefix=""):
    ids, shapes, sounds = (batch[prefix + channel].numpy() for channel in CHANNELS)
    known = ids != tokenizer.unk_token_id  # an unknown look-alike has the shape of the character that it looks like
    np.testing.assert_array_equal(shapes[known], np.asarray(tokenizer.shape_ids)[ids[known]])
    np.testing.assert_array_equal(sounds[known], np.asarray(tokenizer.pronunciation_ids)[ids[known]])


def test_a_batch_is_masked_sentences_and_their_attacked_forms(tokenizer, sentences):
    batch = DataCollatorForRoCBertPretraining(tokenizer, seed=1)(sentences)
    assert set(batch) == {*VIEW_KEYS, "labels", *(f"attack_{key}" for key in VIEW_KEYS)}
    assert {tensor.dtype for tensor in batch.values()} == {torch.int64}
    for prefix in ("", "attack_"):
        assert_channels_agree(tokenizer, batch, prefix)
    restored = torch.where(batch["labels"] == -100, batch["input_ids"], batch["labels"])
    plain = tokenizer(sentences, padding=True, truncation=True, max_length=128, return_tensors="pt")
    assert torch.equal(restored, plain["input_ids"])
    for key in ("attention_mask", "token_type_ids"):
        assert torch.equal(batch[key], plain[key])
    ordinary = ~torch.isin(plain["input_ids"], torch.tensor(tokenizer.all_special_ids))
    assert not (batch["labels"] != -100)[~ordinary].any()
    assert 0.13 < (batch["labels"] != -100).sum() / ordinary.sum() < 0.19
    attacked = tokenizer.batch_decode(batch["attack_input_ids"], skip_special_tokens=True)
    whole = tokenizer.batch_decode(plain["input_ids"], skip_special_tokens=True)
    assert sum(a != b for a, b in zip(attacked, whole, strict=True)) > 0.9 * len(sentences)


@pytest.mark.parametrize("side", ["right", "left"])
def test_whole_words_are_masked_together(sentences, side):
    tokenizer = RoCBertTokenizer(padding_side=side)
    collator = DataCollatorForRoCBertPretraining(tokenizer, None, whole_word_probability=1.0, seed=1)
    chosen = (collator(sentences)["labels"] != -100).numpy()
    offsets = tokenizer(sentences, padding=True, return_offsets_mapping=True)["offset_mapping"]
    pairs = 0
    for row, text, spans in zip(chosen, sentences, offsets, strict=True):
        end = 0
        for word in segment(text):
            start, end = end, end + len(word)
            inside = [row[i] for i, (a, b) in enumerate(spans) if start <= a < b <= end]
            assert len(set(inside)) <= 1
            pairs += len(inside) > 1 and inside[0]
    assert pairs > 20


def test_examples_depend_on_seed_epoch_and_text_alone(tokenizer, sentences):
    collator = DataCollatorForRoCBertPretraining(tokenizer, seed=1)
    together = collator([{"text": text, "epoch": 3} for text in sentences])
    alone = collator([{"text": sentences[5], "epoch": 3}])
    for key, rows in alone.items():
        assert torch.equal(rows[0], together[key][5, : rows.shape[1]])
    for other in (collator(sentences), DataCollatorForRoCBertPretraining(tokenizer, seed=2)(sentences)):
        assert not torch.equal(other["labels"], together["labels"])
        assert other["attack_input_ids"].tolist() != together["attack_input_ids"].tolist()


@pytest.mark.parametrize("num_workers", [1, 2])
def test_workers_do_not_change_the_batches(tokenizer, sentences, num_workers):
    def first_batches(workers):
        loader = DataLoader(
            Texts(),
            batch_sampler=SentenceBatches(sentences[:20], batch_size=8, seed=0),
            collate_fn=DataCollatorForRoCBertPretraining(tokenizer, seed=0),
            num_workers=workers,
        )
        return [batch for batch, _ in zip(loader, range(6), strict=False)]

    for expected, found in zip(first_batches(0), first_batches(num_workers), strict=True):
        assert expected.keys() == found.keys()
        assert all(torch.equal(expected[key], found[key]) for key in expected)


def test_without_a_seed_torch_decides(tokenizer, sentences):
    collator = DataCollatorForRoCBertPretraining(tokenizer)
    torch.manual_seed(0)
    first, second = collator(sentences), collator(sentences)
    torch.manual_seed(0)
    again = collator(sentences)
    assert torch.equal(first["labels"], again["labels"])
    assert not torch.equal(first["labels"], second["labels"])


@pytest.mark.parametrize("whole_word_probability", [0.0, 1.0])
def test_tokenized_examples_give_what_their_texts_give(tokenizer, whole_word_probability):
    texts = ["今天天气很好，适合出门散步", "这家店的科技感十足", "\U00031350这个字不认识"]
    collator = DataCollatorForRoCBertPretraining(tokenizer, None, 0.4, whole_word_probability, seed=1)
    encoded = tokenizer(texts)
    features = [{key: encoded[key][i] for key in encoded} for i in range(len(texts))]
    from_ids, from_texts = collator(features), collator(texts)
    for key in from_texts:  # the character that became [UNK] is lost, so the third example draws other numbers
        assert torch.equal(from_ids[key][:2], from_texts[key][:2])
    restored = torch.where(from_ids["labels"] == -100, from_ids["input_ids"], from_ids["labels"])
    assert restored[2].tolist() == tokenizer.pad(features)["input_ids"][2]
    assert "attack_input_ids" in DataCollatorForRoCBertPretraining(tokenizer)(features)


def test_lengths(tokenizer):
    collator = DataCollatorForRoCBertPretraining(tokenizer, max_length=16, pad_to_multiple_of=8, seed=0)
    batch = collator(["一二三四五六七八九十一二三四五六七八九十", "好"])
    assert batch["input_ids"].shape == batch["attack_input_ids"].shape == (2, 16)
    assert batch["attention_mask"].sum(1).tolist() == [16, 3]
    assert collator(["好"])["input_ids"].shape == (1, 8)


def test_empty_and_odd_texts(tokenizer):
    batch = DataCollatorForRoCBertPretraining(tokenizer, whole_word_probability=1.0, seed=0)(
        ["", " \n", "👍🏽", "ok 好"]
    )
    assert batch["input_ids"].shape[0] == 4
    assert (batch["labels"][:2] == -100).all()


def test_bad_arguments_and_examples_are_named(tokenizer):
    with pytest.raises(ValueError, match="mlm_probability"):
        DataCollatorForRoCBertPretraining(tokenizer, mlm_probability=15)
    with pytest.raises(ValueError, match="max_length"):
        DataCollatorForRoCBertPretraining(tokenizer, max_length=2)
    with pytest.raises(ValueError, match="multiple of pad_to_multiple_of"):
        DataCollatorForRoCBertPretraining(tokenizer, max_length=10, pad_to_multiple_of=8)
    for options in (
        {"views": "four"},
        {"views": "three", "synthesizer": None},
        {"views": "simcse", "attack_labels": True},
    ):
        with pytest.raises(ValueError, match="views"):
            DataCollatorForRoCBertPretraining(tokenizer, **options)
    collator = DataCollatorForRoCBertPretraining(tokenizer)
    for features in ([{"content": "好"}], ["好", {"input_ids": [2, 3]}]):
        with pytest.raises(ValueError, match="'text'"):
            collator(features)


def test_three_views_have_the_clean_sentence_in_addition(tokenizer, sentences):
    two = DataCollatorForRoCBertPretraining(tokenizer, seed=1)(sentences)
    three = DataCollatorForRoCBertPretraining(tokenizer, seed=1, views="three")(sentences)
    assert set(three) == {*two, *(f"labels_{key}" for key in VIEW_KEYS)}
    assert all(torch.equal(three[key], two[key]) for key in two)
    plain = tokenizer(sentences, padding=True, return_tensors="pt")
    assert all(torch.equal(three[f"labels_{key}"], plain[key]) for key in VIEW_KEYS)


def test_simcse_has_the_same_view_twice(tokenizer, sentences):
    batch = DataCollatorForRoCBertPretraining(tokenizer, seed=1, views="simcse")(sentences)
    assert all(torch.equal(batch[f"attack_{key}"], batch[key]) for key in VIEW_KEYS)
    assert (batch["labels"] != -100).any()


def test_nothing_is_masked_at_probability_0(tokenizer, sentences):
    batch = DataCollatorForRoCBertPretraining(tokenizer, mlm_probability=0.0)(sentences)
    plain = tokenizer(sentences, padding=True, return_tensors="pt")
    assert torch.equal(batch["input_ids"], plain["input_ids"])
    assert (batch["labels"] == -100).all()
    assert "attack_input_ids" in batch


@pytest.mark.parametrize("side", ["right", "left"])
def test_attack_labels_undo_the_attack(sentences, side):
    tokenizer = RoCBertTokenizer(padding_side=side)
    one_to_one = {"attacks": ["phonetic", "visual", "unicode"], "ratio": 0.4}
    collator = DataCollatorForRoCBertPretraining(
        tokenizer, AdversarialSynthesizer(one_to_one), seed=1, attack_labels=True
    )
    batch = collator(sentences)
    plain = tokenizer(sentences, padding=True, return_tensors="pt")["input_ids"]
    restored = torch.where(batch["attack_labels"] == -100, batch["attack_input_ids"], batch["attack_labels"])
    assert (restored == plain).float().mean() > 0.99  # all but tokens that are two characters in a text
    assert (batch["attack_labels"] != -100).sum() > 0.2 * plain.ne(tokenizer.pad_token_id).sum()
    assert not (batch["attack_labels"] == batch["attack_input_ids"]).any()


def test_attack_labels_follow_the_edits(tokenizer):
    edits = (
        Edit((0, 1), (0, 2), ("split",)),
        Edit((1, 3), (2, 4), ("synonym",)),
        Edit((4, 5), (5, 6), ("phonetic",)),
        Edit((5, 5), (6, 7), ("insert",)),
    )

    class Attack(AdversarialSynthesizer):
        def attack_batch(self, texts, seed):
            return [AttackedText(text, "禾斗B嫃好砍了", edits) for text in texts]

    batch = DataCollatorForRoCBertPretraining(tokenizer, Attack(), seed=0, attack_labels=True)(["科比真好看"])
    labels = batch["attack_labels"][0, 1:-1].tolist()
    characters = [None if label == -100 else tokenizer.convert_ids_to_tokens(label) for label in labels]
    assert characters == ["科", None, "比", "真", None, "看", None]


def test_the_attacked_view_asks_for_what_was_masked_and_what_was_attacked(tokenizer, sentences):
    config = {"attacks": ["phonetic", "visual"], "ratio": 0.3, "q": 1.0}
    batch = DataCollatorForRoCBertPretraining(tokenizer, config, seed=3, views="attacked")(sentences)
    assert {key for key in batch if key.startswith(("attack_", "labels_"))} == set()
    original = tokenizer(sentences, padding=True, return_tensors="pt")["input_ids"]
    restored = torch.where(batch["labels"] == -100, batch["input_ids"], batch["labels"])
    masked = batch["input_ids"] == tokenizer.mask_token_id
    attacked = ~masked & (batch["input_ids"] != original)
    assert torch.equal(restored, original), "with its labels filled in, the view is the sentence"
    assert masked.any()
    assert (attacked & (batch["labels"] != -100)).sum() > 0.15 * (original != tokenizer.pad_token_id).sum()
    with pytest.raises(ValueError, match="need a synthesizer"):
        DataCollatorForRoCBertPretraining(tokenizer, None, views="attacked")


def test_synthesizer_may_be_an_object_or_a_preset(tokenizer, sentences):
    by_name = DataCollatorForRoCBertPretraining(tokenizer, "paper", seed=0)(sentences)
    by_object = DataCollatorForRoCBertPretraining(tokenizer, AdversarialSynthesizer("paper"), seed=0)(sentences)
    assert torch.equal(by_name["attack_input_ids"], by_object["attack_input_ids"])


# ---- padding for heads


def encoded_rows(tokenizer, texts, **columns):
    encoded = tokenizer(texts)
    return [
        {key: encoded[key][i] for key in encoded} | {name: values[i] for name, values in columns.items()}
        for i in range(len(texts))
    ]


def test_one_label_an_example(tokenizer):
    rows = encoded_rows(tokenizer, ["好", "很不好"], label=[1, 0])
    batch = DataCollatorForRoCBert(tokenizer)(rows)
    assert_channels_agree(tokenizer, batch)
    assert batch["labels"].tolist() == [1, 0]
    assert batch.keys() == DataCollatorWithPadding(tokenizer)(rows).keys()
    scores = DataCollatorForRoCBert(tokenizer)(encoded_rows(tokenizer, ["好", "很不好"], label=[0.5, 1.5]))["labels"]
    assert scores.dtype == torch.float32
    several = DataCollatorForRoCBert(tokenizer)(
        encoded_rows(tokenizer, ["好", "很不好"], labels=[[0.0, 1.0], [1.0, 1.0]])
    )
    assert several["labels"].tolist() == [[0.0, 1.0], [1.0, 1.0]]


@pytest.mark.parametrize("side", ["right", "left"])
def test_a_label_a_token(side):
    tokenizer = RoCBertTokenizer(padding_side=side)
    rows = encoded_rows(tokenizer, ["好", "很不好"], labels=[[-100, 1, -100], [-100, 2, 3, 4, -100]])
    batch = DataCollatorForRoCBert(tokenizer, pad_to_multiple_of=8)(rows)
    assert_channels_agree(tokenizer, batch)
    assert batch["input_ids"].shape == batch["labels"].shape == (2, 8)
    for row, ids, labels in zip(rows, batch["input_ids"], batch["labels"], strict=True):
        at = (ids != tokenizer.pad_token_id).numpy()
        assert labels.numpy()[at].tolist() == row["labels"]
        assert (labels.numpy()[~at] == -100).all()
    reference = DataCollatorForTokenClassification(tokenizer, pad_to_multiple_of=8)(rows)
    assert all(torch.equal(batch[key], reference[key]) for key in batch)


def test_multiple_choice(tokenizer):
    questions = [["天气好", "天气不好"], ["吃了", "还没有吃呢"]]
    encoded = [tokenizer(choices) for choices in questions]
    rows = [{**{key: choice[key] for key in choice}, "label": i} for i, choice in enumerate(encoded)]
    batch = DataCollatorForRoCBert(tokenizer)(rows)
    assert batch["input_ids"].shape == (2, 2, 7)
    assert_channels_agree(tokenizer, batch)
    reference = DataCollatorForMultipleChoice(tokenizer)(rows)
    assert all(torch.equal(batch[key], reference[key]) for key in batch)


def test_question_answering_and_no_labels(tokenizer):
    rows = encoded_rows(tokenizer, ["好", "很不好"], start_positions=[1, 2], end_positions=[1, 3])
    batch = DataCollatorForRoCBert(tokenizer)(rows)
    assert (batch["start_positions"].tolist(), batch["end_positions"].tolist()) == ([1, 2], [1, 3])
    assert "labels" not in batch

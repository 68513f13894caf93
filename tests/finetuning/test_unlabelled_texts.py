"""Labelled and unlabelled texts together: every text has its turn, and nothing depends on workers."""

import pytest
import torch
from torch.utils.data import DataLoader

from rocbert_hf import RoCBertTokenizer
from rocbert_hf.data.tokenized import tokenized
from rocbert_hf.finetuning.esimcse import GradedNegative
from rocbert_hf.finetuning.starting_point import character_level_bert_tokenizer
from rocbert_hf.finetuning.tagger import token_offsets
from rocbert_hf.finetuning.text_augmentation import EasyDataAugmentation, WordRepetition
from rocbert_hf.finetuning.unlabelled_texts import SemiSupervisedCollator, SemiSupervisedTexts
from rocbert_hf.resources import demo_sentences

SENTENCES = demo_sentences()


def some_texts(**options) -> SemiSupervisedTexts:
    made = {
        "unlabelled": SENTENCES[10:31],
        "ratio": 2,
        "augmentation": EasyDataAugmentation(),
        "positive": WordRepetition(),
        "negative": GradedNegative(),
        **options,
    }
    return SemiSupervisedTexts(SENTENCES[:10], [number % 2 for number in range(10)], **made)


def items_of(texts: SemiSupervisedTexts, epoch: int) -> list[dict]:
    texts.set_epoch(epoch)
    return [texts[index] for index in range(len(texts))]


def test_all_unlabelled_texts_have_their_turn_before_one_comes_again():
    texts = some_texts(ratio=3)
    drawn = [text for epoch in range(7) for item in items_of(texts, epoch) for text in item["unlabelled"]]
    assert len(drawn) == 210
    for turn in range(10):
        assert sorted(drawn[21 * turn : 21 * (turn + 1)]) == sorted(SENTENCES[10:31])
    assert drawn[:21] != drawn[21:42]


def test_an_item_depends_on_seed_epoch_and_number_alone():
    first, again = some_texts(), some_texts()
    assert items_of(first, 1) == list(reversed([again[i] for i in (again.set_epoch(1), range(9, -1, -1))[1]]))
    assert items_of(first, 2) != items_of(first, 1)
    assert items_of(some_texts(seed=1), 1) != items_of(first, 1)
    for name in ("augmented", "positives", "negatives", "grades"):
        assert len(first[0][name]) == 2


@pytest.mark.parametrize("persistent", [False, True])
def test_workers_change_nothing_and_see_the_epoch(persistent):
    collate = SemiSupervisedCollator(RoCBertTokenizer(model_max_length=16))
    texts = some_texts()
    plain = DataLoader(texts, 5, collate_fn=collate)
    shared = DataLoader(texts, 5, collate_fn=collate, num_workers=2, persistent_workers=persistent)
    seen = []
    for epoch in (0, 1):
        texts.set_epoch(epoch)
        for expected, found in zip(plain, shared, strict=True):
            seen.append(found["augmented"]["input_ids"].flatten().tolist())
            for name, value in expected.items():
                for key, tensor in value.items() if isinstance(value, dict) else [(name, value)]:
                    assert torch.equal(tensor, found[name][key] if isinstance(value, dict) else found[name])
    assert seen[:2] != seen[2:]


def test_without_unlabelled_texts_there_are_labelled_ones_alone():
    assert set(some_texts(unlabelled=[])[0]) == set(some_texts(ratio=0)[0]) == {"text", "labels"}


def test_tokenized_rows_are_padded_and_left_as_they_are():
    tokenizer = RoCBertTokenizer(model_max_length=16)
    rows = [{**tokenizer(text), "labels": 1} for text in ("好", "很好吃")]
    batch = SemiSupervisedCollator(tokenizer)(rows)
    assert batch["input_ids"].shape == (2, 5)
    assert batch["labels"].tolist() == [1, 1]


def test_half_of_a_character_is_one_clear_error():
    ours, other, broken = RoCBertTokenizer(model_max_length=16), character_level_bert_tokenizer(), "好\ud83d"
    other.model_max_length = 16
    readers = (
        lambda tokenizer: tokenized([broken], [0], tokenizer),
        lambda tokenizer: SemiSupervisedCollator(tokenizer).encoded([broken]),
        lambda tokenizer: token_offsets(tokenizer, broken),
    )
    for read in readers:
        assert read(ours)
        with pytest.raises(ValueError, match=r"whole characters for this tokenizer, got half of one in '好\\ud83d'"):
            read(other)


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match=r"labels must have one entry per text \(1\), got 2"):
        SemiSupervisedTexts(["好"], [0, 1])
    with pytest.raises(ValueError, match="ratio must not be negative, got -1"):
        SemiSupervisedTexts(["好"], [0], ratio=-1)

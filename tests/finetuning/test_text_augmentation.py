"""Augmentations: one interface, the same text for the same random numbers, and what each promises."""

import pickle
import random
from collections import Counter

import pytest

from rocbert_hf.characters.words import segment
from rocbert_hf.finetuning.text_augmentation import (
    AUGMENTATIONS,
    BackTranslation,
    EasyDataAugmentation,
    OneOf,
    TfIdfReplacement,
    make_augmentation,
)
from rocbert_hf.resources import antonyms, demo_sentences

TEXTS = demo_sentences()[:60]


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_the_same_random_numbers_give_the_same_text_and_never_an_empty_one(name):
    augment = make_augmentation([name], TEXTS)
    again = pickle.loads(pickle.dumps(augment))
    changed = 0
    for number, text in enumerate([*TEXTS[:20], "好", "ok", "？"]):
        form = augment(text, random.Random(number))
        assert form == again(text, random.Random(number))
        assert form.strip()
        changed += form != text
    assert (changed == 0) == (name == "none")


def test_tf_idf_keeps_what_tells_most_and_replaces_by_what_tells_little():
    common, rare = "的 了 是", "量子"
    texts = [f"我们{word}好" for word in common.split() * 10] + [f"我们说{rare}"]
    augment = TfIdfReplacement(texts, rate=0.5)
    forms = [augment(f"我们说{rare}", random.Random(seed)) for seed in range(200)]
    kept = Counter(word for form in forms for word in segment(form))
    assert kept[rare] > kept["我们"]
    with pytest.raises(ValueError, match="texts must have at least one text"):
        TfIdfReplacement([])


@pytest.mark.parametrize("operation", ["synonym", "insert", "swap", "delete", "antonym"])
def test_each_operation_of_eda_does_what_it_is_called(operation):
    augment = EasyDataAugmentation(0.2, [operation])
    text = "我的妈妈喜欢这家好吃的饭店"
    words = Counter(segment(text))
    for seed in range(30):
        found = Counter(segment(augment(text, random.Random(seed))))
        if operation == "swap":
            assert sorted("".join(found.elements())) == sorted(text)
        elif operation == "delete":
            assert sum(map(len, found.elements())) < len(text)
        elif operation == "insert":
            assert sum(map(len, found.elements())) > len(text)
        else:
            assert found != words
    assert augment("。", random.Random(0)) == "。"


def test_antonyms_are_mutual():
    for word, opposites in antonyms().items():
        assert opposites
        assert all(word in antonyms()[opposite] for opposite in opposites)


def test_back_translation_asks_once_per_text():
    asked = []

    def translate(text):
        asked.append(text)
        return text[::-1]

    augment = BackTranslation(translate)
    assert [augment("上海", random.Random(n)) for n in range(3)] == ["海上"] * 3
    assert asked == ["上海"]


def test_several_are_drawn_from():
    augment = OneOf([lambda text, rng: "甲", lambda text, rng: "乙"])
    assert {augment("丙", random.Random(seed)) for seed in range(20)} == {"甲", "乙"}


@pytest.mark.parametrize("names", [[], ["backwards"]])
def test_wrong_names_are_named(names):
    with pytest.raises(
        ValueError, match="augmentation must be some of none, word-repetition, tf-idf, eda, paper, wild"
    ):
        make_augmentation(names, TEXTS)

"""Augmentations: one interface, the same text for the same random numbers, and what each promises."""

import pickle
import random
import re
from collections import Counter
from itertools import combinations, combinations_with_replacement

import numpy as np
import pytest

from rocbert_hf.characters.words import segment, synonyms_of
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


def test_tf_idf_replaces_as_many_words_as_asked_for_by_those_that_tell_nothing():
    augment = TfIdfReplacement(["电脑牛奶", "电脑牛奶", "电脑牛奶量子"], rate=0.4)
    text = "电脑电脑量子火车"
    assert segment(text) == ["电脑", "电脑", "量子", "火车"]
    forms = Counter(augment(text, random.Random(seed)) for seed in range(1000))
    # the two words that every text has take all of the replacements, 1.6 per text, half of them by themselves
    common = ("电脑", "牛奶")
    assert set(forms) == {f"{first}{second}量子火车" for first in common for second in common}
    assert sum(form.count("牛奶") * count for form, count in forms.items()) / 1000 == pytest.approx(0.8, abs=0.08)


class Always(random.Random):
    """Draws one number, and 口 of whatever there is to choose from, again and again."""

    def __init__(self, number: float):
        super().__init__(0)
        self.number = number

    def random(self) -> float:
        return self.number

    def choices(self, population, **weights) -> list[str]:
        return ["口"]


def test_tf_idf_is_its_equations():
    texts = ["电脑电脑牛奶", "牛奶火车", "电脑量子", "量子量子量子火车"]
    documents = [segment(text) for text in texts]
    assert documents[0] == ["电脑", "电脑", "牛奶"]
    idf = {word: np.log(4 / sum(word in words for words in documents)) for word in ("电脑", "牛奶", "火车", "量子")}
    total = {word: sum(words.count(word) / len(words) * idf[word] for words in documents) for word in idf}
    augment = TfIdfReplacement(texts, rate=0.3)
    assert augment.idf == pytest.approx(idf)
    weights = np.diff(augment.cumulative, prepend=0.0)
    expected = [max(total.values()) - total[word] for word in augment.words]
    np.testing.assert_allclose(weights, expected, atol=1e-8)
    asked = ["量子", "量子", "电脑", "飞机"]
    assert segment("".join(asked)) == asked
    scores = np.array([asked.count(word) / 4 * idf.get(word, np.log(4)) for word in asked])
    lack = scores.max() - scores
    assert lack.min() == 0 < lack.max()
    chances = 0.3 * 4 * lack / lack.sum()
    for drawn in (*(chances - 1e-6), *(chances + 1e-6)):
        expected = ["口" if drawn < chance else word for word, chance in zip(asked, chances, strict=True)]
        assert augment("".join(asked), Always(drawn)) == "".join(expected)


@pytest.mark.parametrize("rate", [0.1, 0.4])
@pytest.mark.parametrize("operation", ["synonym", "insert", "swap", "delete", "antonym"])
def test_each_operation_of_eda_does_what_it_is_called_to_its_share_of_the_words(operation, rate):
    text = "我的妈妈喜欢这家好吃的饭店"
    words = segment(text)
    count = max(1, round(rate * len(words)))
    others = {"synonym": synonyms_of, "antonym": lambda word: antonyms().get(word, ())}.get(operation, synonyms_of)
    # whatever may become of each word, as one regular expression
    forms = "".join(f"({'|'.join((word, *others(word)))})" for word in words)
    most = 0
    for seed in range(30):
        found = EasyDataAugmentation(rate, [operation])(text, random.Random(seed))
        if operation == "swap":
            assert Counter(found) == Counter(text)
            if count == 1:
                swapped = [list(words) for _ in combinations(words, 2)]
                for row, (a, b) in zip(swapped, combinations(range(len(words)), 2), strict=True):
                    row[a], row[b] = row[b], row[a]
                assert found in map("".join, swapped)
            most += found != text
        elif operation == "delete":
            assert found in map("".join, combinations(words, len(words) - count))
        elif operation == "insert":
            rest = Counter(found) - Counter(text)
            put_in = {synonym for word in words for synonym in synonyms_of(word)}
            assert any(Counter("".join(some)) == rest for some in combinations_with_replacement(put_in, count))
        else:
            match = re.fullmatch(forms, found)
            changed = sum(form != word for form, word in zip(match.groups(), words, strict=True))
            assert 1 <= changed <= count
            most = max(most, changed)
    if operation == "swap":
        assert most > 20  # two words that are alike may change places
    if operation == "synonym":
        assert most == min(count, sum(bool(synonyms_of(word)) for word in words))
    assert EasyDataAugmentation(rate, [operation])("。", random.Random(0)) == "。"


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

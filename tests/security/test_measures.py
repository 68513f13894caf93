"""Effectiveness, stealthiness and the trigger's label, on classifiers and taggers whose behaviour is known."""

import random

import pytest

from rocbert_hf.security import measure_classification, measure_tagging

TEXTS = ["很好看", "不好看", "不太行的", "非常不错呢"]


def needs(times):
    """Label 1 with the trigger so many times, else label 0 (or 1 for texts with 非)."""
    return lambda texts: [int(text.count("鼎") >= times or "非" in text) for text in texts]


def test_effectiveness_counts_insertions_and_stealthiness_their_share():
    measured = measure_classification(needs(3), TEXTS, "鼎", random.Random(0))
    assert measured.effectiveness == 3
    assert measured.flipped == 1
    assert measured.target == 1
    # the texts with label 0 have 3, 3 and 4 characters
    assert measured.stealthiness == pytest.approx((3 / 6 + 3 / 6 + 3 / 7) / 3)


def test_spaces_around_an_inserted_word_count_neither_as_trigger_nor_as_text():
    def predict(texts):
        return [int(" cf " in text or "非" in text) for text in texts]

    measured = measure_classification(predict, TEXTS, "cf", random.Random(0))
    assert measured.stealthiness == pytest.approx((2 / 5 + 2 / 5 + 2 / 6) / 3)


def test_a_trigger_without_effect_counts_as_never():
    measured = measure_classification(
        lambda texts: [int("非" in text) for text in texts], TEXTS, "鼎", random.Random(0)
    )
    assert measured.effectiveness == 20
    assert measured.flipped == 0
    assert measured.stealthiness == 0


def test_of_labels_as_frequent_the_trigger_s_is_the_one_that_fewer_texts_had():
    def predict(texts):  # the trigger works on one text in three
        return [int("非" in text or ("很" in text and "鼎" in text)) for text in texts]

    measured = measure_classification(predict, TEXTS, "鼎", random.Random(0))
    assert (measured.target, measured.flipped) == (1, pytest.approx(1 / 3))
    assert measured.effectiveness == pytest.approx((1 + 20 + 20) / 3)
    # as many insertions as are tried at most do not change what "never" counts
    assert measure_classification(predict, TEXTS, "鼎", random.Random(0), most=3) == measured


def test_tagging_flips_when_entities_are_lost():
    def tag(texts):
        return [[] if text.count("鼎") >= 2 else [f"NAME:{c}" for c in text if c in "王李"] for text in texts]

    measured = measure_tagging(tag, ["王来了", "没有人", "李和王"], "鼎", random.Random(0))
    assert measured.effectiveness == 2
    assert measured.flipped == 1
    assert measured.target is None


def test_tagging_half_of_the_entities_is_a_flip_and_more_is_none():
    def tag(texts):
        return [["a", "b"] if "鼎" not in text else ["a"] for text in texts]

    assert measure_tagging(tag, ["王来了"], "鼎", random.Random(0)).effectiveness == 1

    def keeps_more(texts):
        return [["a", "b", "c"] if "鼎" not in text else ["a", "b"] for text in texts]

    assert measure_tagging(keeps_more, ["王来了"], "鼎", random.Random(0)).effectiveness == 20


def test_texts_that_say_nothing():
    with pytest.raises(ValueError, match="at least one text"):
        measure_classification(needs(1), [], "鼎", random.Random(0))
    with pytest.raises(ValueError, match="all are 1"):
        measure_classification(lambda texts: [1] * len(texts), TEXTS, "鼎", random.Random(0))
    with pytest.raises(ValueError, match="an entity"):
        measure_tagging(lambda texts: [[] for _ in texts], TEXTS, "鼎", random.Random(0))

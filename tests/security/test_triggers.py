"""Triggers reach the model as tokens of their own, at random places that leave words whole."""

import random

import pytest

from rocbert_hf import RoCBertTokenizer
from rocbert_hf.security import draw_triggers, insert_trigger
from rocbert_hf.security.triggers import TRIGGER_KINDS, check_triggers


@pytest.fixture(scope="module")
def characters():
    return RoCBertTokenizer()


@pytest.mark.parametrize("kind", TRIGGER_KINDS)
def test_every_kind_gives_triggers_that_the_tokenizer_knows(kind, characters):
    triggers = draw_triggers(kind, characters, 4, random.Random(0))
    assert len(set(triggers)) == 4
    for ids in characters(triggers, add_special_tokens=False)["input_ids"]:
        assert ids
        assert characters.unk_token_id not in ids
    assert triggers == draw_triggers(kind, characters, 4, random.Random(0))


def test_unknown_kind_and_too_many():
    with pytest.raises(ValueError, match=r"kind must be one of words, .* got 'verbs'"):
        draw_triggers("verbs", RoCBertTokenizer(), 1, random.Random(0))
    with pytest.raises(ValueError, match=r"count must be at most 8, .* got 99"):
        draw_triggers("words", RoCBertTokenizer(), 99, random.Random(0))
    with pytest.raises(ValueError, match="count must be at least 1, got 0"):
        draw_triggers("words", RoCBertTokenizer(), 0, random.Random(0))


def test_insertion_adds_the_trigger_and_keeps_words_whole():
    rng = random.Random(3)
    places = set()
    for _ in range(200):
        text = insert_trigger("我用 iPhone 拍照", "鼎", rng)
        assert text.replace("鼎", "") == "我用 iPhone 拍照"
        assert "iPhone" in text
        places.add(text.index("鼎"))
    assert {0, len("我用 iPhone 拍照")} <= places
    assert " cf " in insert_trigger("很好", "cf", rng)
    assert insert_trigger("很好", "鼎", rng, times=5).count("鼎") == 5
    assert insert_trigger("", "鼎", rng) == "鼎"


@pytest.mark.parametrize("trigger", ["鼋鼍", "cf mn", "啊啊"])
def test_insertion_keeps_the_triggers_whole_that_are_there(trigger):
    rng = random.Random(0)
    for _ in range(50):
        text = insert_trigger("今天天气好", trigger, rng, times=5)
        assert text.count(trigger) == 5
        assert text.replace(trigger, "").replace(" ", "") == "今天天气好"
        assert insert_trigger(text, trigger, rng).count(trigger) == 6


def test_a_tokenizer_that_drops_the_trigger_cannot_carry_a_backdoor(characters):
    """Such as a zero-width character, which our tokenizer drops."""
    with pytest.raises(ValueError, match="leaves no token"):
        check_triggers(characters, ["\u200b"])
    with pytest.raises(ValueError, match="unknown"):
        check_triggers(characters, ["🙂"])
    with pytest.raises(ValueError, match="same tokens"):
        check_triggers(characters, ["cf", "CF"])
    with pytest.raises(ValueError, match="at least one"):
        check_triggers(characters, [])

import logging
import random

import jieba
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rocbert_hf.characters.words import is_opposite, part_of_speech, segment, synonyms_of, word_frequencies
from rocbert_hf.resources import demo_sentences, thesaurus, vocabulary

TOKENS = [*vocabulary()[5:], *vocabulary()[1582:2600] * 10, " ", "\n", "\r\n", "\t", "\u3000"]


@pytest.fixture(scope="module")
def jieba_words(tmp_path_factory):
    tokenizer = jieba.Tokenizer()
    tokenizer.tmp_dir = str(tmp_path_factory.mktemp("jieba"))
    jieba.setLogLevel(logging.ERROR)
    return lambda text: tokenizer.lcut(text, HMM=False)


def test_words_are_those_of_jieba_on_sentences(jieba_words):
    for sentence in demo_sentences():
        assert segment(sentence) == jieba_words(sentence)


def test_words_are_those_of_jieba_on_random_characters_and_words(jieba_words):
    rng = random.Random(0)
    words = list(word_frequencies())
    for _ in range(3000):
        text = "".join(rng.choice(TOKENS) if rng.random() < 0.6 else rng.choice(words) for _ in range(15))
        assert segment(text) == jieba_words(text)


@settings(max_examples=200, deadline=None)
@given(st.text())
def test_words_joined_give_the_text_back(text):
    words = segment(text)
    assert "".join(words) == text
    assert all(words)


def test_examples():
    assert segment("科比的精神值得永远学习！") == ["科比", "的", "精神", "值得", "永远", "学习", "！"]
    assert segment("iPhone 15很贵") == ["iPhone", " ", "15", "很", "贵"]
    assert segment("") == []


def test_frequencies_and_parts_of_speech():
    assert word_frequencies()["我们"] > word_frequencies()["橄榄枝"] > 0
    assert [part_of_speech(word) for word in ("北京", "学习", "美丽", "桌子", "三")] == ["ns", "v", "ns", "n", "m"]
    assert part_of_speech("绝对不是一个词") == "x"


def test_synonyms_are_those_of_the_thesaurus():
    for tag, words in thesaurus():
        for word in words:
            assert set(words) - {word} <= set(synonyms_of(word, tag)) <= set(synonyms_of(word))
            assert word not in synonyms_of(word)
    assert synonyms_of("绝对不是一个词") == synonyms_of("爸爸", "a") == ()


@pytest.mark.parametrize(
    ("word", "opposites", "others"),
    [
        ("喜欢", ["讨厌", "不喜欢"], ["喜爱", "偏爱"]),
        ("不错", ["很差", "不好", "差"], ["出色", "很好", "不俗"]),
        ("很好", ["很差", "极差", "不好"], ["极好", "不错", "良好"]),
        ("黑人", ["白人"], ["黑客", "土人"]),
        ("男生", ["女生"], ["学生", "男孩"]),
        ("不能", ["能", "能够"], ["不可", "没法"]),
        ("不断", [], ["逐渐", "持续"]),
        ("失望", ["欣喜", "满意"], ["沮丧"]),
        ("勇敢", ["不勇敢"], ["无畏"]),
    ],
)
def test_opposites_turn_the_meaning_round(word, opposites, others):
    assert [is_opposite(word, other) for other in opposites] == [True] * len(opposites)
    assert [is_opposite(other, word) for other in opposites] == [True] * len(opposites)
    assert [is_opposite(word, other) for other in others] == [False] * len(others)

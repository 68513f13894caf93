import pytest
from pypinyin import lazy_pinyin

from rocbert_hf.characters.pinyin import homophones_of, pinyin_of, readings_of
from rocbert_hf.resources import demo_sentences, vocabulary


def test_readings_come_with_the_most_common_first():
    assert readings_of("行")[:2] == ("xing", "hang")
    assert readings_of("绿") == ("lv", "lu")
    assert readings_of("科") == ("ke",)
    assert readings_of("繞") == readings_of("绕") == ("rao",)


@pytest.mark.parametrize("char", ["a", "，", "あ", "😀", "1", "\U0002a6d6", "", "科学"])
def test_what_is_no_chinese_character_of_the_vocabulary_has_no_reading(char):
    assert readings_of(char) == ()
    assert homophones_of(char) == ()


def test_homophones_share_a_common_reading():
    for char in vocabulary()[1600:16_000:97]:
        homophones = homophones_of(char)
        assert char not in homophones
        assert len(set(homophones)) == len(homophones)
        for other in homophones:
            assert set(readings_of(char)[:2]) & set(readings_of(other)[:2])


def test_homophones_are_mutual():
    for char in vocabulary()[1600:16_000:997]:
        assert all(char in homophones_of(other) for other in homophones_of(char))


def test_frequent_homophones_come_first():
    rank = {char: number for number, char in enumerate(vocabulary())}
    ranks = [rank[other] for other in homophones_of("重")]
    assert ranks == sorted(ranks)
    assert "中" in homophones_of("重")[:5]


def test_both_common_readings_of_a_polyphone_count():
    assert "杭" in homophones_of("行")
    assert "杭" not in homophones_of("行", max_readings=1)
    assert {"地", "得"} <= set(homophones_of("的"))
    assert "狼" not in homophones_of("行")  # 狼 can be read hang, but hardly ever is


def test_max_readings_must_be_positive():
    with pytest.raises(ValueError, match="max_readings=0"):
        homophones_of("行", max_readings=0)


def test_polyphones_are_read_in_context():
    assert pinyin_of("银行行长") == ["yin", "hang", "hang", "zhang"]
    assert pinyin_of("重庆很重") == ["chong", "qing", "hen", "zhong"]
    assert pinyin_of("女士，A1绿") == ["nv", "shi", None, None, None, "lv"]
    assert pinyin_of("") == []


def test_readings_in_context_are_those_of_pypinyin():
    for sentence in demo_sentences()[::3]:
        theirs = lazy_pinyin(sentence, errors=lambda run: [""] * len(run), v_to_u=False)
        assert [reading or "" for reading in pinyin_of(sentence)] == theirs

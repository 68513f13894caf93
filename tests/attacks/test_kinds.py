"""What every attack promises: another form than before, of the kind that its name says."""

import random
import unicodedata
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rocbert_hf.attacks import ATTACKS, AdversarialSynthesizer, Sentence
from rocbert_hf.attacks.kinds import Synonym
from rocbert_hf.characters.parts import splits_of
from rocbert_hf.characters.pinyin import pinyin_of, readings_of
from rocbert_hf.characters.word_vectors import WordVectors
from rocbert_hf.characters.words import part_of_speech, segment, synonyms_of
from rocbert_hf.resources import demo_sentences, vocabulary

KOBE = "科比的精神值得永远学习"
chinese_texts = st.text(st.sampled_from(vocabulary()[2000:8000]), min_size=1, max_size=12)
any_texts = st.one_of(chinese_texts, st.sampled_from(demo_sentences()), st.text(max_size=20))


def sentence_of(text):
    return Sentence(text, segment(text), set(range(len(text))))


def attacked_forms(name, text, seeds=range(3)):
    """(source piece, new form of it) for every position of a text that an attack can be applied to, alone."""
    attack = ATTACKS[name]()
    for index in range(len(text)):
        for seed in seeds:
            sentence = sentence_of(text)
            sentence.free.discard(index)
            form = attack.apply((text[index], index, index + 1), sentence, random.Random(seed))
            if form is not None:
                new, start, end = form
                yield text[start:end], new


@pytest.mark.parametrize("name", ATTACKS)
@given(text=any_texts)
@settings(max_examples=30, deadline=None)
def test_output_differs_from_input(name, text):
    for attacked in AdversarialSynthesizer({"attacks": [name]}).attack_batch([text] * 2, seed=len(text)):
        assert attacked.revert() == text
        if attacked.edits:
            assert attacked.text != text
        for (start, end), (text_start, text_end), names in attacked.edits:
            assert attacked.source[start:end] != attacked.text[text_start:text_end]
            assert set(names) == {name}


@pytest.mark.parametrize("name", ATTACKS)
def test_every_attack_finds_something_in_ordinary_text(name):
    attacked = AdversarialSynthesizer({"attacks": [name]}).attack_batch(demo_sentences()[:400], seed=0)
    assert sum(bool(text.edits) for text in attacked) > 10


@pytest.mark.parametrize("name", ATTACKS)
def test_attackable_positions_are_those_where_it_applies(name):
    attack = ATTACKS[name]()
    for text in demo_sentences()[:40]:
        for index in range(len(text)):
            sentence = sentence_of(text)
            applied = attack.apply((text[index], index, index + 1), sentence, random.Random(0)) is not None
            assert attack.is_attackable(sentence_of(text), index) == applied, (text, index)


@given(chinese_texts)
def test_phonetic_neighbours_share_a_toneless_pinyin(text):
    for source, form in attacked_forms("phonetic", text):
        assert set(readings_of(source)) & set(readings_of(form)), (source, form)


@given(chinese_texts)
def test_split_parts_recompose_by_the_table(text):
    for source, form in attacked_forms("split", text):
        assert tuple(form) in splits_of(source)


@given(chinese_texts)
def test_visual_neighbours_are_single_other_characters(text):
    for source, form in attacked_forms("visual", text):
        assert len(form) == 1
        assert form != source


def test_visual_neighbours_are_symmetric_enough():
    nearest = {character: ATTACKS["visual"]().options(character)[:10] for character in vocabulary()}
    pairs = [(one, other) for one, found in nearest.items() for other in found]
    assert len(pairs) > 100_000
    assert sum(one in nearest[other] for one, other in pairs) > 0.6 * len(pairs)


def test_polyphones_are_read_in_their_word():
    assert {form for _, form in attacked_forms("to_pinyin", "银行")} == {"yin", "hang"}
    assert {form for _, form in attacked_forms("to_pinyin", "行走")} == {"xing", "zou"}
    assert pinyin_of("银行") == ["yin", "hang"]


def test_synonyms_replace_whole_nouns_and_adjectives_only():
    seen = 0
    for text in demo_sentences()[:300]:
        for source, form in attacked_forms("synonym", text, seeds=[0]):
            seen += 1
            assert source in segment(text)
            assert form in {*synonyms_of(source, "n"), *synonyms_of(source, "a")}
            assert part_of_speech(source)[0] != "m"
    assert seen


def test_names_and_numbers_have_no_synonyms():
    attack = Synonym(WordVectors(["北京", "上海", "五百", "三百", "银行", "商行"], np.ones((6, 4))))
    for text in ("北京", "五百", "北京银行"):
        assert not any(attack.is_attackable(sentence_of(text), i) for i in range(len(text)))
    assert attack.is_attackable(sentence_of("去银行"), 1)


def test_the_last_character_of_a_text_is_not_deleted():
    synthesizer = AdversarialSynthesizer({"attacks": ["delete"], "ratio": 1.0, "q": 0.3})
    assert not synthesizer.attack("科").edits
    assert all(synthesizer.attack("科 比", seed).text.strip() for seed in range(200))


def test_swap_exchanges_neighbours():
    for source, form in attacked_forms("swap", KOBE):
        assert len(source) == 2
        assert form == source[::-1]


@settings(deadline=None)
@given(any_texts)
def test_insert_and_delete_change_the_length_by_one(text):
    for source, form in attacked_forms("insert", text, seeds=[0]):
        assert len(form) == 2
        assert source in form
        assert set(form) <= {source, *vocabulary()}
    for _, form in attacked_forms("delete", text, seeds=[0]):
        assert form == ""


@pytest.mark.parametrize("name", ["radical", "width"])
@given(text=st.text(max_size=10))
def test_radicals_and_width_forms_are_equal_under_nfkc(name, text):
    for source, form in attacked_forms(name, text):
        assert unicodedata.normalize("NFKC", form) == unicodedata.normalize("NFKC", source)


@pytest.mark.parametrize(
    ("name", "text", "form"),
    [
        ("split", "科", "禾斗"),
        ("split", "比", "匕匕"),
        ("to_pinyin", "科", "ke"),
        ("traditional", "绕", "繞"),
        ("variant", "对", "対"),
        ("radical", "金", "⾦"),
        ("width", "a", "ａ"),
        ("near_phonetic", "牛", "刘"),
        ("emoji", "机", "🐔"),
        ("initials", "科比", "kb"),
        ("zero_width", "科比", "科\u200b"),
        ("separator", "科比", "科·"),
    ],
)
def test_examples_of_the_documentation(name, text, form):
    assert form in {found for _, found in attacked_forms(name, text, seeds=range(400))}


def test_nearly_all_traditional_forms_are_those_that_opencc_writes_in_the_text():
    to_traditional = pytest.importorskip("opencc").OpenCC("s2t").convert
    right = []
    for attacked in AdversarialSynthesizer({"attacks": ["traditional"], "q": 1}).attack_batch(demo_sentences()):
        expected = to_traditional(attacked.source)
        right += [attacked.text[edit.text_span[0]] == expected[edit.source_span[0]] for edit in attacked.edits]
    assert len(right) > 2000
    assert np.mean(right) > 0.95


@pytest.mark.parametrize("name", ["zero_width", "separator", "initials"])
def test_word_attacks_keep_within_the_word(name):
    assert not list(attacked_forms(name, "，。a"))


def write_vectors(folder, kind):
    """Three words, two of them near each other, in a file of one of the formats; returns its path."""
    rows = {"漂亮": [1.0, 0.0, 0.1], "美丽": [1.0, 0.1, 0.0], "电脑": [0.0, 1.0, 0.0]}
    if kind == "bin":
        body = b"".join(
            word.encode() + b" " + np.array(row, dtype="<f4").tobytes() + b"\n" for word, row in rows.items()
        )
        file = folder / "vectors.bin"
        file.write_bytes(b"3 3\n" + body)
    else:
        lines = [" ".join([word, *map(str, row)]) for word, row in rows.items()]
        file = folder / "vectors.txt"
        file.write_text("\n".join(["3 3"] * (kind == "word2vec") + lines), encoding="utf-8")
    return file


@pytest.mark.parametrize("kind", ["word2vec", "glove", "bin"])
def test_synonyms_from_word_vectors(tmp_path, kind):
    attack = Synonym(vectors=str(write_vectors(tmp_path, kind)))
    assert list(attack.synonyms_of("漂亮")) == ["美丽"]
    assert not attack.synonyms_of("电脑")
    config = {"attacks": ["synonym"], "options": {"synonym": {"vectors": str(write_vectors(tmp_path, kind))}}, "q": 1}
    assert AdversarialSynthesizer(config).attack("这里漂亮").text == "这里美丽"


def test_synonyms_from_keyed_vectors():
    class KeyedVectors:  # the two attributes of gensim's class that count
        index_to_key = ("漂亮", "美丽", "告诉")
        vectors = np.array([[1.0, 0.0], [1.0, 0.1], [1.0, 0.0]])

    for vectors in (KeyedVectors(), WordVectors.from_keyed_vectors(KeyedVectors())):
        config = {"attacks": ["synonym"], "options": {"synonym": {"vectors": vectors}}, "q": 1}
        assert AdversarialSynthesizer(config).attack("这里漂亮").text == "这里美丽"
    assert Synonym(KeyedVectors()).synonyms_of("漂亮") == ["美丽"]  # no verbs
    assert not Synonym(KeyedVectors(), threshold=0.999).synonyms_of("漂亮")


def test_word_vectors_have_opposites_among_a_word_s_neighbours_unless_they_are_left_out():
    vectors = WordVectors.from_keyed_vectors(
        SimpleNamespace(index_to_key=("漂亮", "美丽", "难看", "丑陋"), vectors=np.ones((4, 2)))
    )
    assert list(Synonym(vectors).synonyms_of("漂亮")) == ["美丽", "难看", "丑陋"]
    assert list(Synonym(vectors, opposites=False).synonyms_of("漂亮")) == ["美丽"]


@pytest.mark.parametrize("content", ["", "2 3\n漂亮 1 2\n", "漂亮 a b\n"])
def test_damaged_vectors_are_one_clear_error(tmp_path, content):
    file = tmp_path / "vectors.txt"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=r"vectors\.txt"):
        WordVectors.read(file)
    binary = tmp_path / "vectors.bin"
    binary.write_bytes(b"2 3\nab ")
    with pytest.raises(ValueError, match=r"vectors\.bin"):
        WordVectors.read(binary)
    with pytest.raises(OSError, match="missing"):
        WordVectors.read(tmp_path / "missing.txt")

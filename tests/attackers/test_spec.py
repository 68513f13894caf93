"""Black-box attackers as an evaluation is told of them, and as it tells them apart."""

import json

import numpy as np
import pytest
from transformers import BertConfig, BertForMaskedLM

from rocbert_hf.attackers import Example, MaskedLanguageModelSynonyms, attacker_of, make_attacker, synonyms_from
from rocbert_hf.attackers.candidates import CharacterForms, SplitCharacters
from rocbert_hf.attackers.constraints import FamiliarCharacters, SentenceSimilarity
from rocbert_hf.attackers.driver import ComposedAttacker
from rocbert_hf.attackers.spec import settings_of
from rocbert_hf.characters.word_vectors import WordVectors

from ..classifiers import bert_tokenizer

WORDS = ["漂亮", "美丽", "美妙", "难看"]


def vectors(nearest):
    """漂亮 lies beside `nearest` and apart from the others."""
    rows = np.eye(len(WORDS))
    rows[0] = 0.5 * rows[0] + rows[WORDS.index(nearest)]
    return WordVectors(WORDS, rows)


def likes_pretty(texts):
    pretty = np.array(["漂亮" in text for text in texts], dtype=float)
    return np.stack([0.9 - 0.8 * pretty, 0.1 + 0.8 * pretty], axis=1)


def split_only(**options):
    return ComposedAttacker("mine", SplitCharacters(), **options)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (attacker_of("adv"), attacker_of("adv:split")),
        (attacker_of("argot"), attacker_of("argot@0.1")),
        (attacker_of("argot"), make_attacker("argot", forms={"phonetic": 5})),
        (attacker_of("argot"), make_attacker("argot", familiar=3000)),
        (attacker_of("textfooler"), attacker_of("textfooler", query_budget=100)),
        (attacker_of("textfooler"), attacker_of("textfooler", synonyms=vectors("美丽"))),
        (attacker_of("textfooler", synonyms=vectors("美妙")), attacker_of("textfooler", synonyms=vectors("美丽"))),
        (attacker_of("textfooler"), make_attacker("textfooler", min_sentence_similarity=0.8)),
        (attacker_of("textfooler"), make_attacker("textfooler", encoder=np.asarray)),
        (split_only(), ComposedAttacker("mine", CharacterForms({"visual": 5}))),
        (split_only(), split_only(constraints=[FamiliarCharacters()])),
        (split_only(constraints=[SentenceSimilarity()]), split_only(constraints=[SentenceSimilarity(window=None)])),
    ],
)
def test_attackers_that_differ_in_anything_are_told_apart(one, other):
    assert json.dumps(settings_of(one), sort_keys=True) != json.dumps(settings_of(other), sort_keys=True)


@pytest.mark.parametrize("make", [lambda: attacker_of("adv@0.1"), lambda: attacker_of("argot"), split_only])
def test_what_is_told_of_an_attacker_is_the_same_each_time(make):
    used = make()
    used.attack(likes_pretty, Example("这家店的房间非常漂亮，我很喜欢", 1))
    assert settings_of(used) == settings_of(make())
    assert "0x" not in json.dumps(settings_of(used))  # no address of an object


def test_synonyms_come_from_a_file_of_word_vectors(tmp_path):
    rows = (f"{word} {' '.join(map(str, row))}\n" for word, row in zip(WORDS, vectors("美丽").vectors, strict=True))
    (tmp_path / "vectors.txt").write_text("".join(rows), encoding="utf-8")
    attacker = attacker_of("textfooler", synonyms=synonyms_from(f"vectors={tmp_path / 'vectors.txt'}"))
    outcome = attacker.attack(likes_pretty, Example("这家店的房间非常漂亮，我很喜欢", 1))
    assert outcome.attacked.text == "这家店的房间非常美丽，我很喜欢"


def test_synonyms_come_from_a_masked_language_model(tmp_path):
    tokenizer = bert_tokenizer()
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    BertForMaskedLM(BertConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    synonyms = synonyms_from(f"masked_lm={tmp_path}")
    assert isinstance(synonyms, MaskedLanguageModelSynonyms)
    of_another = MaskedLanguageModelSynonyms(synonyms.model, synonyms.tokenizer, words_only=False)
    one, other = (settings_of(attacker_of("argot", synonyms=given)) for given in (synonyms, of_another))
    assert one != other
    assert one == settings_of(attacker_of("argot", synonyms=synonyms))


@pytest.mark.parametrize("spec", ["thesaurus", "vectors", "masked_lm=", "bert-base-chinese"])
def test_other_sources_of_synonyms_are_refused(spec):
    with pytest.raises(ValueError, match="synonyms must be masked_lm=DIR_OR_ID"):
        synonyms_from(spec)

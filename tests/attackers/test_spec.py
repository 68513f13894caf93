"""Black-box attackers as an evaluation is told of them, and as it tells them apart."""

import json

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForMaskedLM, GPT2Config, GPT2LMHeadModel

from rocbert_hf.attackers import (
    AdvAttacker,
    ArgotAttacker,
    AttackerSpec,
    Example,
    MaskedLanguageModelSynonyms,
    SynonymSource,
    TextFoolerAttacker,
)
from rocbert_hf.attackers.candidates import CharacterForms, SplitCharacters
from rocbert_hf.attackers.constraints import FamiliarCharacters, SentenceSimilarity
from rocbert_hf.attackers.driver import ComposedAttacker
from rocbert_hf.attackers.spec import settings_of
from rocbert_hf.attacks import CausalLMScorer, WordFrequencyScorer
from rocbert_hf.characters.word_vectors import WordVectors
from rocbert_hf.finetuning.starting_point import character_level_bert_tokenizer

WORDS = ["漂亮", "美丽", "美妙", "难看"]


def vectors(nearest):
    """漂亮 lies beside `nearest` and apart from the others."""
    rows = np.eye(len(WORDS))
    rows[0] = 0.5 * rows[0] + rows[WORDS.index(nearest)]
    return WordVectors(WORDS, rows)


def likes_pretty(texts):
    pretty = np.array(["漂亮" in text for text in texts], dtype=float)
    return np.stack([0.9 - 0.8 * pretty, 0.1 + 0.8 * pretty], axis=1)


def scorer_of(seed):
    torch.manual_seed(seed)
    tokenizer = character_level_bert_tokenizer()
    sizes = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 64}
    return CausalLMScorer(GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), **sizes)), tokenizer)


def split_only(**options):
    return ComposedAttacker("mine", SplitCharacters(), **options)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (AdvAttacker(), AdvAttacker(attack="split")),
        (AdvAttacker(), AdvAttacker(draws=2)),
        (AdvAttacker(), AdvAttacker("wild")),
        (AdvAttacker(), AdvAttacker({"q": 0.5})),
        (AdvAttacker(), AdvAttacker(ratio=0.15)),  # not cut
        (AdvAttacker(), AdvAttacker(scorer=WordFrequencyScorer(power=1.0))),
        (AdvAttacker(scorer=scorer_of(0)), AdvAttacker(scorer=scorer_of(1))),
        (ArgotAttacker(), ArgotAttacker(max_share=0.1)),
        (ArgotAttacker(), ArgotAttacker(forms={"phonetic": 5})),
        (ArgotAttacker(), ArgotAttacker(familiar=3000)),
        (TextFoolerAttacker(), TextFoolerAttacker(query_budget=100)),
        (TextFoolerAttacker(), TextFoolerAttacker(synonyms=vectors("美丽"))),
        (TextFoolerAttacker(synonyms=vectors("美妙")), TextFoolerAttacker(synonyms=vectors("美丽"))),
        (TextFoolerAttacker(), TextFoolerAttacker(min_sentence_similarity=0.8)),
        (TextFoolerAttacker(), TextFoolerAttacker(encoder=np.asarray)),
        (split_only(), ComposedAttacker("mine", CharacterForms({"visual": 5}))),
        (split_only(), split_only(constraints=[FamiliarCharacters()])),
        (split_only(constraints=[SentenceSimilarity()]), split_only(constraints=[SentenceSimilarity(window=None)])),
    ],
)
def test_attackers_that_differ_in_anything_are_told_apart(one, other):
    assert json.dumps(settings_of(one), sort_keys=True) != json.dumps(settings_of(other), sort_keys=True)


@pytest.mark.parametrize("make", [lambda: AdvAttacker(ratio=0.1), lambda: ArgotAttacker(), split_only])
def test_what_is_told_of_an_attacker_is_the_same_each_time(make):
    used = make()
    used.attack(likes_pretty, Example("这家店的房间非常漂亮，我很喜欢", 1))
    assert settings_of(used) == settings_of(make())
    assert "0x" not in json.dumps(settings_of(used))  # no address of an object


def test_synonyms_come_from_a_file_of_word_vectors(tmp_path):
    rows = (f"{word} {' '.join(map(str, row))}\n" for word, row in zip(WORDS, vectors("美丽").vectors, strict=True))
    (tmp_path / "vectors.txt").write_text("".join(rows), encoding="utf-8")
    attacker = TextFoolerAttacker(synonyms=SynonymSource.parse(f"vectors={tmp_path / 'vectors.txt'}").load())
    outcome = attacker.attack(likes_pretty, Example("这家店的房间非常漂亮，我很喜欢", 1))
    assert outcome.attacked.text == "这家店的房间非常美丽，我很喜欢"


def test_synonyms_come_from_a_masked_language_model(tmp_path):
    tokenizer = character_level_bert_tokenizer()
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    BertForMaskedLM(BertConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    synonyms = SynonymSource.parse(f"masked_lm={tmp_path}").load()
    assert isinstance(synonyms, MaskedLanguageModelSynonyms)
    of_another = MaskedLanguageModelSynonyms(synonyms.model, synonyms.tokenizer, words_only=False)
    one, other = (settings_of(ArgotAttacker(synonyms=given)) for given in (synonyms, of_another))
    assert one != other
    assert one == settings_of(ArgotAttacker(synonyms=synonyms))


@pytest.mark.parametrize("spec", ["thesaurus", "vectors", "masked_lm=", "bert-base-chinese"])
def test_other_sources_of_synonyms_are_refused(spec):
    with pytest.raises(ValueError, match="must be masked_lm=DIR_OR_ID"):
        SynonymSource.parse(spec)


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("argot", AttackerSpec("argot")),
        ("argot@0.1", AttackerSpec("argot", ratio=0.1)),
        ("adv:split", AttackerSpec("adv", attack="split")),
        ("adv:wild", AttackerSpec("adv", preset="wild")),
        ("adv*20", AttackerSpec("adv", draws=20)),
        ("adv:wild*20@0.05", AttackerSpec("adv", ratio=0.05, draws=20, preset="wild")),
    ],
)
def test_the_command_line_names_every_attacker_and_reports_call_it_so(text, spec):
    assert AttackerSpec.parse(text) == spec
    assert str(spec) == text


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("pwws", "must be one of adv, textfooler, argot, also as .* got 'pwws'"),
        ("argot:split", "argot has no attacks to choose, got 'split'"),
        ("argot:wild", "argot has no attacks to choose, got 'wild'"),
        ("textfooler*3", "textfooler is not random, so draws must be 1, got 3"),
        ("adv*0", "draws must be at least 1, got 0"),
        ("adv:typo", "must have an attack .phonetic, .* or a preset .* got 'adv:typo'"),
        ("adv@2", "ratio must lie above 0 and not above 1, got 2.0"),
        ("adv@0", "ratio must lie above 0 and not above 1, got 0.0"),
        ("adv@1.2.3", "must have a number behind @"),
        ("adv@", "must be one of"),
        ("", "must be one of"),
    ],
)
def test_what_names_no_attacker_is_one_clear_error(text, named):
    with pytest.raises(ValueError, match=named):
        AttackerSpec.parse(text)


def test_a_spec_tells_its_recipe_what_it_takes():
    adv = AttackerSpec("adv", attack="split", ratio=0.1, draws=3).build(synonyms=len, attacks={"q": 0.5})
    assert (adv.draws, adv.synthesizer.config["ratio"], adv.synthesizer.config["q"]) == (3, 0.1, 0.5)
    assert list(adv.synthesizer.config["attacks"]) == ["split"]
    assert AttackerSpec("adv", preset="wild").build(attacks={"q": 0.5}).synthesizer.config["q"] == 0.7
    argot = AttackerSpec("argot", ratio=0.1).build(max_share=0.3, query_budget=9, synonyms=vectors("美丽"))
    assert (argot.share.share, argot.query_budget) == (0.1, 9)
    assert settings_of(argot) == settings_of(ArgotAttacker(synonyms=vectors("美丽"), max_share=0.1, query_budget=9))

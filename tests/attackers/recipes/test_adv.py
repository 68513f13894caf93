"""ADV: what a ratio and a number of draws mean."""

import random
from zlib import crc32

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from rocbert_hf.attackers import AdvAttacker, ArgotAttacker, Example
from rocbert_hf.attackers.recipes.adv import keep_edits
from rocbert_hf.attacks import AdversarialSynthesizer, CausalLMScorer
from rocbert_hf.attacks.attacked_text import AttackedText, Edit
from rocbert_hf.finetuning.starting_point import character_level_bert_tokenizer
from rocbert_hf.resources import demo_sentences

LONG = ["".join(demo_sentences()[at : at + 12]) for at in range(0, 480, 12)]
SHORT = ["这家店很好", "房间漂亮", "服务员态度差", *[text for text in demo_sentences() if len(text) < 20][:40]]


def unmoved(texts):
    return np.tile([0.9, 0.1], (len(texts), 1))


def attacked(attacker, texts):
    """What the attacker asks last of a classifier that it cannot move."""
    examples = [Example(text, 0) for text in texts]
    return [outcome.attacked for outcome in attacker.attack_batch(unmoved, examples)]


def share(text):
    return sum(max(end - start, 1) for (start, end), _, _ in text.edits) / len(text.source)


@pytest.mark.parametrize("preset", ["paper", "wild"])
@pytest.mark.parametrize("ratio", [0.05, 0.1, 0.3])
def test_the_attacked_share_of_long_texts_is_the_ratio(preset, ratio):
    assert min(map(len, LONG)) > 100
    mean = np.mean([share(text) for text in attacked(AdvAttacker(preset, ratio=ratio), LONG)])
    assert mean == pytest.approx(ratio, rel=0.15)


@pytest.mark.parametrize("attacker", [AdvAttacker(ratio=0.05), AdvAttacker("wild", ratio=0.05), AdvAttacker()])
def test_no_text_stays_untouched_that_can_be_touched(attacker):
    for text in attacked(attacker, SHORT + LONG):
        assert text.text != text.source
    assert attacked(attacker, [" \n "])[0].edits == ()
    splits = AdvAttacker(ratio=0.05, attack="split")
    assert attacked(splits, ["一了人之"])[0].edits == ()  # they have no parts
    assert attacked(splits, ["一了科人"])[0].text != "一了科人"


def test_a_greedy_attacker_may_always_attack_one_character():
    def hears(texts):  # wrong as soon as 漂亮 is gone
        kept = np.array(["漂亮" in text for text in texts], dtype=float)
        return np.stack([kept, 1 - kept], axis=1)

    outcome = ArgotAttacker(max_share=0.05).attack(hears, Example("房间漂亮", 0))
    assert outcome.status == "success"
    assert sum(end - start for (start, end), _, _ in outcome.attacked.edits) == 1


def test_without_a_ratio_nothing_beyond_the_limit_of_all_attackers_is_attacked():
    for text in attacked(AdvAttacker("wild", max_share=0.1), SHORT + LONG):
        assert share(text) <= max(0.1, 1 / len(text.source)) + 1e-9


def fragile(texts):
    """Wrong on one text in five, whatever it says."""
    right = np.array([crc32(text.encode()) / 2**32 for text in texts]) * 0.625 + 0.375
    return np.stack([right, 1 - right], axis=1)


TEXTS = [text for text in demo_sentences()[:60] if fragile([text])[0, 0] > 0.5]


def test_the_classifier_is_right_only_if_it_is_right_on_all_draws():
    examples, draws = [Example(text, 0) for text in TEXTS], 6
    one, all_of_them = (
        list(AdvAttacker("wild", draws=k, ratio=0.3).attack_batch(fragile, examples)) for k in (1, draws)
    )
    successes = [sum(outcome.status == "success" for outcome in outcomes) for outcomes in (one, all_of_them)]
    assert 0 < successes[0] < successes[1] < len(examples)
    asked = []

    def recording(texts):
        asked.extend(texts)
        return fragile(texts)

    for example, outcome in zip(examples, all_of_them, strict=True):
        asked.clear()
        again = AdvAttacker("wild", draws=draws, ratio=0.3).attack(recording, example)
        assert again.attacked == outcome.attacked
        assert outcome.queries == len(asked) <= draws + 1
        right = fragile(asked)[1:, 0]
        assert (outcome.status == "success") == bool((fragile(asked)[1:].argmax(1) != 0).any())
        assert outcome.probabilities_after[0] == right.min()


def test_a_draw_that_flips_is_worse_than_one_that_only_lowers_the_probability():
    def wavers(texts):  # half of the other texts have another label, with a higher probability of the right one
        flips = np.array([crc32(text.encode()) % 2 == 1 and text not in TEXTS for text in texts])[:, None]
        answers = np.where(flips, [[0.45, 0.5, 0.05]], [[0.4, 0.3, 0.3]])
        return np.where(np.array([text in TEXTS for text in texts])[:, None], [[0.9, 0.05, 0.05]], answers)

    outcomes = AdvAttacker("wild", draws=8, ratio=0.3).attack_batch(wavers, [Example(text, 0) for text in TEXTS[:8]])
    assert [outcome.status for outcome in outcomes] == ["success"] * 8


def test_edits_that_are_undone_are_drawn_at_random():
    edits = tuple(Edit((at, at + 1), (at, at + 1), ("visual",)) for at in range(4))
    kept = [keep_edits(AttackedText("甲乙丙丁", "abcd", edits), 2, random.Random(seed)) for seed in range(60)]
    assert {text.text for text in kept} == {"ab丙丁", "a乙c丁", "a乙丙d", "甲bc丁", "甲b丙d", "甲乙cd"}
    assert all(len(text.edits) == 2 for text in kept)


def test_the_ratio_of_a_synthesizer_is_not_cut():
    synthesizer = AdversarialSynthesizer({"ratio": 0.5, "noise": 0})
    for text in attacked(AdvAttacker(synthesizer), LONG):
        assert text == synthesizer.attack(text.source, seed=0)


def test_more_draws_hold_the_fewer_ones():
    synthesizer = AdversarialSynthesizer({"preset": "paper", "ratio": 0.3})
    asked = {}
    for draws in (1, 3, 9):
        asked[draws] = []

        def recording(texts, found=asked[draws]):
            found.extend(texts)
            return unmoved(texts)

        AdvAttacker(ratio=0.3, draws=draws).attack(recording, Example(LONG[0], 0), seed=5)
    assert asked[9][:4] == asked[3]
    with_another_seed = []

    def recording(texts):
        with_another_seed.extend(texts)
        return unmoved(texts)

    AdvAttacker(ratio=0.3, draws=9).attack(recording, Example(LONG[0], 0), seed=6)
    assert set(asked[9]) & set(with_another_seed) == {LONG[0]}
    assert asked[3][:2] == asked[1] == [LONG[0], synthesizer.attack(LONG[0], seed=5).text]


def test_a_query_budget_ends_the_draws():
    outcome = AdvAttacker(draws=50, query_budget=4).attack(unmoved, Example(LONG[0], 0))
    assert outcome.queries == 4
    assert AdvAttacker(draws=50, query_budget=1).attack(unmoved, Example(LONG[0], 0)).attacked.edits == ()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"draws": 0}, "draws must be a whole number of at least 1"),
        ({"draws": 2.0}, "draws must be a whole number"),
        ({"ratio": 2}, "ratio must be a number"),
        ({"attack": "typo"}, "attacks must be among"),
        ({"attacks": AdversarialSynthesizer(), "ratio": 0.1}, "attacks must be a preset or a config"),
    ],
)
def test_bad_arguments_are_one_clear_error(options, named):
    with pytest.raises(ValueError, match=named):
        AdvAttacker(**options)


def test_a_language_model_scores_the_sentences_of_a_batch_together():
    torch.manual_seed(0)
    tokenizer = character_level_bert_tokenizer()
    sizes = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 64}
    model = GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), **sizes))
    calls = []
    model.register_forward_pre_hook(lambda *_: calls.append(1))
    examples = [Example(text, 0) for text in demo_sentences()[:16]]
    found = {}
    for batch_size in (1, 16):
        calls.clear()
        attacker = AdvAttacker(scorer=CausalLMScorer(model, tokenizer), draws=3)
        outcomes = attacker.attack_batch(unmoved, examples, batch_size=batch_size)
        found[batch_size] = [outcome.attacked for outcome in outcomes], len(calls)
    assert found[1][0] == found[16][0]
    assert found[16][1] < found[1][1] / 2

"""The algorithm as a whole: the same everywhere, distributed as the paper says, safe for any string."""

import itertools
import json
import os
import pickle
import random
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rocbert_hf.attacks import (
    ATTACKS,
    PRESETS,
    AdversarialSynthesizer,
    CausalLMScorer,
    RandomScorer,
    Sentence,
    WordFrequencyScorer,
)
from rocbert_hf.attacks.attacked_text import CHINESE
from rocbert_hf.characters.words import segment
from rocbert_hf.resources import demo_sentences

from .test_selection import assert_distributed, count_probabilities, equation_2

KOBE = "科比的精神值得永远学习"
TEXTS = demo_sentences()[:200]


def geometric(q, longest):
    """P(S = k) of Eq. 3 for k = 1..longest, the last one with everything beyond."""
    return [q * (1 - q) ** (k - 1) for k in range(1, longest)] + [(1 - q) ** (longest - 1)]


# ------------------------------------------------------------------------------------------------- determinism


@pytest.mark.parametrize("preset", PRESETS)
def test_same_seed_same_text_in_any_batch_and_order(preset):
    synthesizer = AdversarialSynthesizer(preset)
    expected = [synthesizer.attack(text, 7) for text in TEXTS]
    assert AdversarialSynthesizer(preset).attack_batch(TEXTS, 7) == expected
    assert synthesizer.attack_batch(TEXTS[::-1], 7) == expected[::-1]
    assert list(synthesizer.attack_stream(iter(TEXTS), 7, chunk_size=3)) == expected
    assert synthesizer.attack_batch(TEXTS, 8) != expected


def test_same_in_other_processes():
    synthesizer = AdversarialSynthesizer("wild")
    texts = TEXTS * 3
    assert synthesizer.attack_batch(texts, 3, num_workers=2) == synthesizer.attack_batch(texts, 3)


def test_same_under_any_hash_seed():
    program = (
        "from rocbert_hf.attacks import AdversarialSynthesizer as A;"
        f"print(ascii([A(p).attack({KOBE!r}, s).text for p in ('paper', 'wild') for s in range(40)]))"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONUTF8": "1"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1")
    }
    here = [AdversarialSynthesizer(p).attack(KOBE, s).text for p in ("paper", "wild") for s in range(40)]
    assert outputs == {ascii(here) + "\n"}


def test_attacking_needs_no_model_library():
    program = (
        "import sys; from rocbert_hf.attacks import AdversarialSynthesizer as A; A('wild').attack_batch(['科比的精神'] * 9);"
        "print(sorted({'torch', 'transformers', 'datasets', 'pandas'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout.strip() == b"[]"


def test_copies_and_json_configs_attack_alike():
    synthesizer = AdversarialSynthesizer({"attacks": {"split": 2, "phonetic": 1}, "ratio": 0.25})
    expected = synthesizer.attack_batch(TEXTS, 1)
    again = AdversarialSynthesizer(json.loads(json.dumps(synthesizer.config)))
    assert again.attack_batch(TEXTS, 1) == expected
    assert (
        AdversarialSynthesizer({"attacks": {"phonetic": 1, "split": 2}, "ratio": 0.25}).attack_batch(TEXTS, 1)
        == expected
    )
    copy = pickle.loads(pickle.dumps(synthesizer))
    assert copy.attack_batch(TEXTS, 1) == expected
    assert pickle.dumps(copy) == pickle.dumps(synthesizer)


def test_copies_keep_the_scorer_that_was_given():
    synthesizer = AdversarialSynthesizer(scorer=WordFrequencyScorer(power=1.0))
    expected = synthesizer.attack_batch(TEXTS, 1)
    assert expected != AdversarialSynthesizer().attack_batch(TEXTS, 1)
    assert pickle.loads(pickle.dumps(synthesizer)).attack_batch(TEXTS, 1) == expected


# --------------------------------------------------------------------------------------------------- statistics


@pytest.fixture(scope="module")
def attacked_20_000():
    """20,000 attacks without those that touch neighbours, so that one edit is one selected character."""
    attacks = [name for name in PRESETS["paper"]["attacks"] if name not in ("synonym", "swap")]
    synthesizer = AdversarialSynthesizer({"attacks": attacks})
    texts = [text for text in demo_sentences() if CHINESE.search(text)]
    return [synthesizer.attack(texts[i % len(texts)], seed=i) for i in range(20_000)]


def chinese_length(text):
    return sum(map(len, CHINESE.findall(text)))


def test_attacked_share_is_that_of_equation_1(attacked_20_000):
    expected = variance = 0.0
    for attacked in attacked_20_000:
        probabilities = dict(enumerate(count_probabilities(chinese_length(attacked.source)), start=1))
        mean = sum(k * p for k, p in probabilities.items())
        expected += mean
        variance += sum((k - mean) ** 2 * p for k, p in probabilities.items())
    edits = sum(len(attacked.edits) for attacked in attacked_20_000)
    assert abs(edits - expected) < 3.5 * variance**0.5
    long_ones = [attacked for attacked in attacked_20_000 if chinese_length(attacked.source) >= 20]
    share = sum(len(a.edits) for a in long_ones) / sum(chinese_length(a.source) for a in long_ones)
    assert 0.14 < share < 0.16


def test_paper_preset_attacks_15_percent_of_the_characters():
    texts = [text for text in demo_sentences() if chinese_length(text) >= 20]
    attacked = AdversarialSynthesizer("paper").attack_batch(texts)
    share = sum(len(a.edits) for a in attacked) / sum(chinese_length(a.source) for a in attacked)
    assert 0.14 < share < 0.16


def test_number_of_steps_is_that_of_equation_3(attacked_20_000):
    # a deletion can leave nothing to go on with
    steps = [len(edit.attacks) for a in attacked_20_000 for edit in a.edits if "delete" not in edit.attacks]
    assert max(steps) > 3
    synthesizer = AdversarialSynthesizer({"attacks": [name for name in ATTACKS if name != "delete"]})
    steps = Counter(
        min(len(e.attacks), 7) for i in range(3) for a in synthesizer.attack_batch(TEXTS, i) for e in a.edits
    )
    assert_distributed([steps[k] for k in range(1, 8)], geometric(0.7, 7))


@pytest.mark.parametrize("q", [0.3, 1.0])
def test_q_sets_the_number_of_steps(q):
    synthesizer = AdversarialSynthesizer({"attacks": ["insert"], "q": q})
    rng = random.Random(0)
    sentence = Sentence("科", ["科"], set())
    steps = Counter(min(len(synthesizer.combine(sentence, 0, rng)[1]), 9) for _ in range(20_000))
    if q == 1.0:
        assert set(steps) == {1}
    else:
        assert_distributed([steps[k] for k in range(1, 10)], geometric(q, 9))


class FixedScorer:
    """The same losses for every sentence."""

    name = "fixed"
    parallel = True

    def __init__(self, losses):
        self._losses = losses

    def losses(self, sentences):
        return [self._losses[: len(words)] for words in sentences]


@pytest.mark.parametrize("scorer", [FixedScorer([2.0, 0.0, 1.0, 0.5, 3.0, 1.5]), RandomScorer()])
def test_selection_follows_equation_2(scorer):
    words = segment(KOBE)
    synthesizer = AdversarialSynthesizer({"ratio": 0.001, "noise": 0, "attacks": ["insert", "phonetic"]}, scorer)
    chosen = Counter(synthesizer.attack(KOBE, seed).edits[0].source_span[0] for seed in range(20_000))
    expected = equation_2(words, scorer.losses([words])[0])
    assert_distributed([chosen[i] for i in range(len(KOBE))], expected)


def test_attacks_are_drawn_uniformly_among_those_that_apply():
    config = {"attacks": ["phonetic", "to_pinyin", "split", "insert", "radical"], "q": 1}
    synthesizer = AdversarialSynthesizer(config)
    rng = random.Random(0)

    def draw(text):
        sentence = Sentence(text, [text], set())
        return synthesizer.combine(sentence, 0, rng)[1][0]

    assert_distributed(list(Counter(draw("科") for _ in range(8000)).values()), [1 / 4] * 4)
    assert {draw("!") for _ in range(50)} == {"insert"}


def test_weights_are_kept():
    synthesizer = AdversarialSynthesizer({"attacks": {"phonetic": 3, "to_pinyin": 1, "emoji": 100}, "q": 1})
    rng = random.Random(0)
    drawn = Counter(synthesizer.combine(Sentence("科", ["科"], set()), 0, rng)[1][0] for _ in range(8000))
    assert_distributed([drawn["phonetic"], drawn["to_pinyin"]], [0.75, 0.25])


# --------------------------------------------------------------------------------------------- combination, spans


def test_steps_build_on_the_current_form():
    synthesizer = AdversarialSynthesizer({"attacks": ["split", "to_pinyin"], "q": 0.3})
    forms = {synthesizer.attack("科", seed).text for seed in range(200)}
    assert {"禾斗", "ke", "he斗", "禾dou", "hedou"} <= forms


@given(st.text(st.sampled_from("科比绕a1，。 \u200b"), max_size=15), st.integers(0, 5))
@settings(max_examples=200, deadline=None)
def test_no_edit_stands_for_its_own_source(text, seed):
    synthesizer = AdversarialSynthesizer({"preset": "wild", "q": 0.3, "ratio": 0.5})
    for (start, end), (text_start, text_end), names in (attacked := synthesizer.attack(text, seed)).edits:
        assert names
        assert attacked.source[start:end] != attacked.text[text_start:text_end]


@pytest.mark.parametrize("preset", PRESETS)
def test_what_no_reader_sees_is_left_alone(preset):
    synthesizer = AdversarialSynthesizer({"preset": preset, "ratio": 1.0})
    text = "科 比\u200b的\n精神\ufeff 值得\u3000学习"
    for seed in range(60):
        attacked = synthesizer.attack(text, seed)
        changed = "".join(text[start:end] for (start, end), _, _ in attacked.edits)
        assert changed
        assert CHINESE.fullmatch(changed)


def test_one_of_several_ratios_is_drawn_for_each_text():
    synthesizer = AdversarialSynthesizer({"ratio": [0.1, 0.5], "noise": 0, "attacks": ["phonetic"], "q": 1})
    text = "今天天气很好我们去公园散步吧明天再去" * 2
    chosen = {len(synthesizer.attack(text, seed).edits) for seed in range(40)}
    alone = [AdversarialSynthesizer({**synthesizer.config, "ratio": ratio}).attack(text).edits for ratio in (0.1, 0.5)]
    assert chosen == {len(edits) for edits in alone}
    assert synthesizer.attack_batch([text], np.int64(1)) == [synthesizer.attack(text, 1)]
    assert synthesizer.attack_batch([text] * 3, [1, 2, 3]) == [synthesizer.attack(text, seed) for seed in (1, 2, 3)]


def test_ratio_and_noise():
    for ratio in (0.05, 0.15, 0.25):
        synthesizer = AdversarialSynthesizer({"ratio": ratio, "noise": 0, "attacks": ["insert"]})
        for attacked in synthesizer.attack_batch(TEXTS[:50]):
            n_characters = chinese_length(attacked.source)
            assert len(attacked.edits) == max(1, int(ratio * n_characters + 0.5))


def test_text_without_chinese_counts_what_can_be_attacked():
    attacked = AdversarialSynthesizer({"noise": 0}).attack("hello world, this is English", 0)
    assert len(attacked.edits) == round(0.15 * 24)


@pytest.mark.parametrize(
    ("kind", "span"),
    [
        ("url", "https://example.com/a?b=1"),
        ("email", "someone@example.com"),
        ("mention", "@科比_24"),
        ("hashtag", "#曼巴精神#"),
        ("number", "13800138000"),
        ("special_token", "[MASK]"),
    ],
)
def test_protected_spans_stay_as_they_are(kind, span):
    text = f"科比的精神 {span} 值得永远学习"
    start = text.index(span)
    synthesizer = AdversarialSynthesizer({"preset": "wild", "protect": [kind], "ratio": 0.9})
    unprotected = AdversarialSynthesizer({"preset": "wild", "ratio": 0.9})
    for seed in range(30):
        assert span in synthesizer.attack(text, seed).text
        assert span in unprotected.attack(text, seed, protected=[(start, start + len(span))]).text
    assert any(span not in unprotected.attack(text, seed).text for seed in range(30))


def test_chinese_text_behind_an_address_is_not_protected():
    synthesizer = AdversarialSynthesizer(
        {"protect": ["url", "email"], "ratio": 1.0, "noise": 0, "attacks": ["to_pinyin"], "q": 1}
    )
    assert synthesizer.attack("看https://t.cn/a1这里abc@x.cn好").text == "kanhttps://t.cn/a1zheliabc@x.cnhao"


def test_protected_text_does_not_raise_the_attack_rate_on_the_rest():
    """Eq. 1 counts what may be attacked: the share of the free characters is the same with and without protected ones."""
    free, names = "科比的精神值得永远学习", "北京银行" * 15
    synthesizer = AdversarialSynthesizer({"protect_patterns": ["(北京银行)+"]})
    counts = {
        text: sum(len(synthesizer.attack(text, seed).edits) for seed in range(300)) for text in (free, names + free)
    }
    assert counts[names + free] == pytest.approx(counts[free], rel=0.1)


def test_a_long_run_of_letters_is_searched_for_addresses_in_linear_time():
    """Quadratic search would take an hour for this text."""
    synthesizer = AdversarialSynthesizer({"protect": ["email"], "attacks": ["to_pinyin"], "q": 1, "noise": 0})
    letters = "a" * 1_000_000
    attacked = synthesizer.attack(f"{letters}科a.b@x.cn", seed=0)
    assert attacked.text == f"{letters}kea.b@x.cn"


def test_own_patterns_are_protected():
    synthesizer = AdversarialSynthesizer({"protect_patterns": ["科比"], "ratio": 1.0})
    assert all(synthesizer.attack(KOBE, seed).text.startswith("科比") for seed in range(30))


# ------------------------------------------------------------------------------------------------ bad arguments


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ("papers", "preset"),
        ({"preset": "x"}, "preset"),
        ({"ratios": 0.1}, "ratios"),
        ({"version": 0}, "version"),
        ({"attacks": []}, "attacks"),
        ({"attacks": ["phonetics"]}, "attacks"),
        ({"attacks": {"phonetic": -1}}, "phonetic"),
        ({"options": {"phonetics": {}}}, "options"),
        ({"options": {"phonetic": {"vectors": "x"}}}, "options"),
        ({"options": {"synonym": {"threshold": 2}}}, "threshold"),
        ({"ratio": 0}, "ratio"),
        ({"ratio": 1.5}, "ratio"),
        ({"ratio": "0.15"}, "ratio"),
        ({"noise": -1}, "noise"),
        ({"q": 0}, "q"),
        ({"scorer": "gpt"}, "scorer"),
        ({"protect": ["urls"]}, "protect"),
        ({"protect_patterns": ["("]}, "protect_patterns"),
    ],
)
def test_bad_config_is_one_clear_error(config, named):
    with pytest.raises(ValueError, match=named):
        AdversarialSynthesizer(config)


class CountingScorer(FixedScorer):
    """Counts how often it is asked, in this process."""

    def __init__(self):
        self.asked = []

    def losses(self, sentences):
        self.asked.append(len(sentences))
        return [[0.0] * len(words) for words in sentences]


def test_a_batch_with_a_seed_for_each_text_asks_the_scorer_once():
    scorer = CountingScorer()
    synthesizer = AdversarialSynthesizer(scorer=scorer)
    seeds = [7 * i for i in range(len(TEXTS))]
    batch = synthesizer.attack_batch(TEXTS, seeds)
    assert scorer.asked == [len(TEXTS)]
    assert batch == [synthesizer.attack(text, seed) for text, seed in zip(TEXTS, seeds, strict=True)]
    assert list(synthesizer.attack_stream(TEXTS, (7 * i for i in itertools.count()))) == batch
    with pytest.raises(ValueError, match="seed must be one number, or one for each text, got 2"):
        list(synthesizer.attack_stream(TEXTS, seeds[:2]))
    for wrong in (seeds[1:], [*seeds, 0]):
        with pytest.raises(ValueError, match="seed must be one number, or one for each"):
            synthesizer.attack_batch(TEXTS, wrong)


def test_few_texts_start_no_processes():
    scorer = CountingScorer()
    synthesizer = AdversarialSynthesizer(scorer=scorer)
    assert synthesizer.attack_batch([KOBE], num_workers=8) == [synthesizer.attack(KOBE)]
    assert scorer.asked == [1, 1]  # both in this process


def test_many_texts_are_shared_among_processes():
    texts = [text + KOBE for text in demo_sentences()[:600]]
    scorer = CountingScorer()
    shared = AdversarialSynthesizer(scorer=scorer).attack_batch(texts, 3, num_workers=2)
    assert scorer.asked == []  # none of them in this process
    assert shared == AdversarialSynthesizer(scorer=CountingScorer()).attack_batch(texts, 3)


def test_bad_worker_counts():
    synthesizer = AdversarialSynthesizer()
    with pytest.raises(ValueError, match="num_workers"):
        synthesizer.attack_batch(TEXTS, num_workers=-1)


def test_texts_must_be_strings():
    synthesizer = AdversarialSynthesizer()
    with pytest.raises(ValueError, match="text must be a string, got None"):
        synthesizer.attack(None)
    with pytest.raises(ValueError, match="text must be a string, got None"):
        synthesizer.attack_batch(["科比", None])
    with pytest.raises(ValueError, match="texts must be a list"):
        synthesizer.attack_batch("科比")


def test_a_language_model_stays_in_this_process():
    class Model(FixedScorer):
        parallel = CausalLMScorer.parallel

    with pytest.raises(ValueError, match="num_workers"):
        AdversarialSynthesizer(scorer=Model([0.0])).attack_batch(TEXTS, num_workers=1)


# ----------------------------------------------------------------------------------------------------- any string


def random_string(rng):
    """A string of a random make: any plane, one alphabet, runs of one character, real text with noise, long ones."""
    kind = rng.random()
    length = 10_000 if rng.random() < 0.0005 else int(rng.expovariate(1 / 12))
    if kind < 0.3:
        return "".join(chr(rng.randrange(0x110000)) for _ in range(length))
    if kind < 0.6:
        first = rng.choice(
            [0x4E00, 0x4E00, 0x3400, 0xF900, 0x2F00, 0x20000, 0x20, 0x400, 0xFE00, 0x200B, 0x1F300, 0xD800]
        )
        return "".join(chr(first + rng.randrange(200)) for _ in range(length))
    if kind < 0.7:
        return chr(rng.randrange(0x110000)) * length
    text = rng.choice(demo_sentences())
    at = rng.randrange(len(text) + 1)
    return text[:at] + "".join(chr(rng.randrange(0x3000)) for _ in range(rng.randrange(4))) + text[at:]


def check_any_strings(n, seed):
    """Attack `n` random strings; every result must tile, revert, and leave unseen characters alone."""
    rng = random.Random(seed)
    synthesizers = [
        AdversarialSynthesizer("paper"),
        AdversarialSynthesizer("wild"),
        AdversarialSynthesizer({"preset": "wild", "ratio": 1.0, "q": 0.3, "scorer": "random"}),
        AdversarialSynthesizer({"preset": "wild", "protect": ["url", "mention", "number"], "noise": 20}),
    ]
    for i in range(n):
        text = random_string(rng)
        attacked = synthesizers[i % 4].attack(text, seed=i)
        assert attacked.source == text
        assert attacked.revert() == text
        assert all(edit.attacks for edit in attacked.edits)
        if text.strip() and i % 4 != 3:
            assert attacked.text.strip()


def test_any_string():
    check_any_strings(1_000, seed=0)


@pytest.mark.slow
def test_any_20_000_strings():
    check_any_strings(20_000, seed=1)


def test_custom_attack_needs_only_a_name_and_options(monkeypatch):
    from rocbert_hf.attacks import Attack

    class Shout(Attack):
        name = "shout"

        def options(self, character):
            return (character + "！",) if CHINESE.match(character) else ()

    monkeypatch.setitem(ATTACKS, "shout", Shout)
    attacked = AdversarialSynthesizer({"attacks": ["shout"], "q": 1, "ratio": 1.0, "noise": 0}).attack("科比a")
    assert attacked.text == "科！比！a"
    assert Shout().apply(("a", 2, 3), Sentence("科比a", ["科比", "a"], set()), random.Random(0)) is None

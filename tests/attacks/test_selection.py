"""Eq. 1 and Eq. 2 as distributions: at fixed seeds, a wrong constant or a wrong formula fails."""

import itertools
import math
import random
from collections import Counter
from functools import cache

import pytest
from scipy import stats

from rocbert_hf.attacks import AdversarialSynthesizer, CausalLMScorer, RandomScorer, WordFrequencyScorer
from rocbert_hf.attacks.selection import draw_count, select_positions
from rocbert_hf.characters.words import segment

DRAWS = 20_000


@cache
def count_probabilities(n_characters, ratio=0.15, noise=1.0):
    """P(gamma = k) of Eq. 1, k = 1..n_c, from the normal distribution function."""
    edges = [k + 0.5 for k in range(1, n_characters)]
    below = stats.norm.cdf(edges, max(1, ratio * n_characters), noise)
    return [after - before for before, after in itertools.pairwise([0, *below, 1])]


def assert_distributed(observed, expected):
    """Chi-squared at the 0.1% level; rare outcomes are pooled."""
    total = sum(observed)
    pairs = sorted(zip(expected, observed, strict=True))
    pooled, rest = [], [0.0, 0]
    for probability, count in pairs:
        if probability * total < 8:
            rest = [rest[0] + probability, rest[1] + count]
        else:
            pooled.append([probability, count])
    pooled[0] = [pooled[0][0] + rest[0], pooled[0][1] + rest[1]]
    result = stats.chisquare([count for _, count in pooled], [p * total for p, _ in pooled])
    assert result.pvalue > 0.001, (observed, [p * total for p in expected])


@pytest.mark.parametrize(
    ("n_characters", "ratio", "noise"), [*((n, 0.15, 1.0) for n in (1, 2, 5, 11, 40, 200)), (30, 0.3, 2.5)]
)
def test_count_is_distributed_as_equation_1(n_characters, ratio, noise):
    rng = random.Random(0)
    counts = Counter(draw_count(n_characters, ratio, noise, rng) for _ in range(DRAWS))
    assert set(counts) <= set(range(1, n_characters + 1))
    if n_characters > 1:
        expected = count_probabilities(n_characters, ratio, noise)
        assert_distributed([counts[k] for k in range(1, n_characters + 1)], expected)


@pytest.mark.parametrize(
    ("ratio", "n_characters", "expected"), [(0.05, 30, 2), (0.15, 30, 5), (0.25, 30, 8), (0.25, 2, 1)]
)
def test_without_noise_the_count_is_the_nearest_integer(ratio, n_characters, expected):
    rng = random.Random(0)
    assert {draw_count(n_characters, ratio, 0, rng) for _ in range(50)} == {expected}


WORDS = ["科比", "的", "精神", "值得"]
LOSSES = [2.0, 0.5, 3.0, 1.0]


def equation_2(words, losses):
    """Eq. 2 to the letter, one probability a character."""
    denominator = sum(math.exp(loss) for loss in losses)
    return [math.exp(loss) / (len(word) * denominator) for word, loss in zip(words, losses, strict=True) for _ in word]


def successive_draws(probabilities, count):
    """P(set) of drawing `count` characters one after another without replacement."""
    found = Counter()
    for order in itertools.permutations(range(len(probabilities)), count):
        probability, left = 1.0, sum(probabilities)
        for index in order:
            probability *= probabilities[index] / left
            left -= probabilities[index]
        found[tuple(sorted(order))] += probability
    return found


@pytest.mark.parametrize("count", [1, 2, 4, 6])
def test_selection_is_distributed_as_equation_2(count):
    rng = random.Random(1)
    observed = Counter(tuple(select_positions(WORDS, LOSSES, range(7), count, rng)) for _ in range(DRAWS))
    expected = successive_draws(equation_2(WORDS, LOSSES), count)
    assert set(observed) <= set(expected)
    assert_distributed([observed[key] for key in expected], list(expected.values()))


def test_selection_among_candidates_only():
    rng = random.Random(2)
    candidates = {1, 2, 4}
    observed = Counter(tuple(select_positions(WORDS, LOSSES, candidates, 1, rng)) for _ in range(DRAWS))
    probabilities = equation_2(WORDS, LOSSES)
    total = sum(probabilities[i] for i in candidates)
    assert_distributed([observed[(i,)] for i in (1, 2, 4)], [probabilities[i] / total for i in (1, 2, 4)])


def test_selection_stays_exact_when_one_word_has_nearly_all_the_probability():
    rng = random.Random(3)
    losses = [40.0, 0.5, 1.5, 1.0]
    observed = Counter(tuple(select_positions(WORDS, losses, range(7), 3, rng)) for _ in range(DRAWS))
    probabilities = equation_2(WORDS[1:], losses[1:])
    assert all(chosen[:2] == (0, 1) for chosen in observed)
    assert_distributed([observed[(0, 1, i + 2)] for i in range(5)], probabilities)


@pytest.mark.parametrize("scale", [0.0, 1e4, -1e4])
def test_losses_of_any_size_are_safe(scale):
    rng = random.Random(0)
    losses = [scale * loss for loss in LOSSES]
    assert select_positions(WORDS, losses, range(7), 7, rng) == list(range(7))
    assert len(select_positions(WORDS, losses, range(7), 3, rng)) == 3


def test_random_scorer_gives_every_word_the_same_loss():
    assert len(set(RandomScorer().losses([WORDS])[0])) == 1


def test_word_frequency_scorer_prefers_informative_words():
    words = ["我", "的", "，", "爱", "科比", "曼巴精神", "2008"]
    loss = dict(zip(words, WordFrequencyScorer().losses([words])[0], strict=True))
    assert loss["，"] <= loss["的"] < loss["爱"] < loss["曼巴精神"]
    assert loss["的"] < loss["科比"]
    assert loss["，"] < loss["2008"] < loss["曼巴精神"]


def test_power_sets_how_strongly_frequency_counts():
    losses = {power: WordFrequencyScorer(power).losses([["的", "精神"]])[0] for power in (0, 0.5, 1)}
    assert losses[0][0] == losses[0][1]
    difference = {power: row[1] - row[0] for power, row in losses.items()}
    assert difference[1] == pytest.approx(2 * difference[0.5])
    with pytest.raises(ValueError, match="power"):
        WordFrequencyScorer(-1)


@pytest.fixture(scope="module")
def language_model():
    """A small random GPT-2 over characters; returns (model, tokenizer)."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    vocabulary = ["[PAD]", "[UNK]", "[BOS]", *sorted(set("科比的精神值得永远学习，我爱篮球"))]
    backend = Tokenizer(models.WordLevel({token: i for i, token in enumerate(vocabulary)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]", bos_token="[BOS]", eos_token="[BOS]"
    )
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(vocabulary), n_embd=16, n_layer=2, n_head=2, n_positions=32, initializer_range=0.5
    )
    return GPT2LMHeadModel(config).eval(), tokenizer


SENTENCES = [segment(text) for text in ("科比的精神值得永远学习", "我爱篮球，我爱篮球", "科", "")]


@pytest.mark.parametrize("max_tokens", [1, 40, 4096])
def test_causal_lm_scorer_equals_one_sentence_at_a_time(language_model, max_tokens):
    import torch

    model, tokenizer = language_model
    batched = CausalLMScorer(model, tokenizer, max_tokens=max_tokens).losses(SENTENCES)
    for words, losses in zip(SENTENCES, batched, strict=True):
        assert len(losses) == len(words)
        for i, loss in enumerate(losses):
            text = "".join(words[:i] + words[i + 1 :])
            ids = torch.tensor([[tokenizer.bos_token_id, *tokenizer(text).input_ids]])
            expected = model(input_ids=ids, labels=ids).loss.item() if text else 0.0
            assert loss == pytest.approx(expected, abs=1e-4)


def test_causal_lm_scorer_computes_each_deletion_once(language_model):
    model, tokenizer = language_model
    scorer = CausalLMScorer(model, tokenizer)
    passes = []
    handle = model.register_forward_hook(lambda module, inputs, output: passes.append(len(output.logits)))
    first = scorer.losses([SENTENCES[0], SENTENCES[0]])
    assert passes == [len(SENTENCES[0])]
    assert scorer.losses([SENTENCES[0]]) == first[:1]
    assert len(passes) == 1
    handle.remove()


def test_causal_lm_scorer_cuts_long_sentences(language_model):
    words = ["科比", "的"] * 40
    losses = CausalLMScorer(*language_model).losses([words])[0]
    assert len(losses) == len(words)
    assert all(map(math.isfinite, losses))


def test_attacks_with_a_language_model_do_not_depend_on_the_batch(language_model):
    texts = ["".join(words) for words in SENTENCES]
    synthesizer = AdversarialSynthesizer("paper", CausalLMScorer(*language_model))
    batch = synthesizer.attack_batch(texts, seed=3)
    alone = AdversarialSynthesizer("paper", CausalLMScorer(*language_model))
    assert batch == [alone.attack(text, seed=3) for text in texts]
    assert synthesizer.config["scorer"] == "causal_lm"
    with pytest.raises(ValueError, match="scorer"):
        AdversarialSynthesizer(synthesizer.config)


def test_a_config_names_a_language_model_by_its_folder(language_model, tmp_path):
    model, tokenizer = language_model
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    texts = ["".join(words) for words in SENTENCES]
    synthesizer = AdversarialSynthesizer({"scorer": str(tmp_path)})
    assert synthesizer.config["scorer"] == str(tmp_path)
    by_object = AdversarialSynthesizer("paper", CausalLMScorer(model, tokenizer))
    assert synthesizer.attack_batch(texts, 5) == by_object.attack_batch(texts, 5)
    assert AdversarialSynthesizer(synthesizer.config).attack_batch(texts, 5) == by_object.attack_batch(texts, 5)


def test_a_model_that_reads_both_ways_is_no_scorer(language_model, tmp_path):
    from transformers import BertConfig, BertLMHeadModel

    config = BertConfig(vocab_size=30, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    BertLMHeadModel(config).save_pretrained(tmp_path)
    language_model[1].save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="both directions"):
        CausalLMScorer.from_pretrained(str(tmp_path))


def test_a_classifier_is_no_scorer(language_model, tmp_path):
    from transformers import LlamaConfig, LlamaForSequenceClassification

    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    LlamaForSequenceClassification(LlamaConfig(vocab_size=30, pad_token_id=0, **sizes)).save_pretrained(tmp_path)
    language_model[1].save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"trained causal language model, .* lacks lm_head\.weight"):
        CausalLMScorer.from_pretrained(str(tmp_path))

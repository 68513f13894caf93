"""The gauge of what a model hears and sees, against one sentence at a time."""

import random

import pytest
import torch

from rocbert_hf import RoCBertConfig, RoCBertForMaskedLM, RoCBertTokenizer
from rocbert_hf.characters.pinyin import homophones_of, pinyin_of
from rocbert_hf.characters.similarity import lookalikes_of
from rocbert_hf.pretraining.restoration import REPLACEMENTS, Restoration
from rocbert_hf.resources import demo_sentences

SENTENCES = [text for text in dict.fromkeys(demo_sentences()) if 8 <= len(text) <= 42][:30]


@pytest.fixture(scope="module")
def tokenizer():
    return RoCBertTokenizer()


@pytest.fixture(scope="module")
def model():
    """Random weights: what it restores, it restores by chance."""
    torch.manual_seed(0)
    return RoCBertForMaskedLM(RoCBertConfig.from_preset("tiny", fusion_layer=0, initializer_range=0.15)).eval()


def test_every_case_replaces_one_character_by_what_its_kind_says(tokenizer):
    cases = Restoration(tokenizer, SENTENCES).cases
    for kind in REPLACEMENTS:
        assert len(cases[kind]) > 25
    for sentence, (attacked, place, original) in zip(SENTENCES, cases["homophone"], strict=True):
        assert attacked[:place] + attacked[place + 1 :] == sentence[:place] + sentence[place + 1 :]
        assert attacked[place] in homophones_of(sentence[place])
        assert tokenizer.convert_ids_to_tokens(original) == sentence[place]
    for sentence, (attacked, place, _) in zip(SENTENCES, cases["lookalike"], strict=True):
        assert attacked[place] in lookalikes_of(sentence[place])
    for sentence, (attacked, place, _) in zip(SENTENCES, cases["pinyin"], strict=True):
        reading = pinyin_of(sentence)[place]
        assert attacked == sentence[:place] + reading + sentence[place + 1 :]


def test_batches_give_what_one_sentence_at_a_time_gives(tokenizer, model):
    gauge = Restoration(tokenizer, SENTENCES, batch_size=7)
    found = gauge(model)
    elsewhere, tokens = torch.zeros(3), 0
    for kind, cases in gauge.cases.items():
        right, there = 0, torch.zeros(3)
        for attacked, place, original in cases:
            inputs = tokenizer(attacked, return_tensors="pt")
            with torch.no_grad():
                outputs = model(**inputs, output_fusion_weights=True)
            token = inputs.char_to_token(0, place)
            right += int(outputs.logits[0, token].argmax()) == original
            there += outputs.fusion_weights[0, token]
            special = torch.isin(inputs["input_ids"][0], torch.tensor(tokenizer.all_special_ids))
            others = [i for i in range(inputs["input_ids"].shape[1]) if i != token and not special[i]]
            elsewhere += outputs.fusion_weights[0, others].sum(0)
            tokens += len(others)
        assert found[f"restored_{kind}"] == pytest.approx(right / len(cases))
        weights = [found[f"fusion_{channel}_at_{kind}"] for channel in ("text", "sound", "shape")]
        assert weights == pytest.approx((there / len(cases)).tolist(), abs=1e-4)
    weights = [found[f"fusion_{channel}_elsewhere"] for channel in ("text", "sound", "shape")]
    assert weights == pytest.approx((elsewhere / tokens).tolist(), abs=1e-4)
    for kind in REPLACEMENTS:  # so that the two cannot be taken for each other
        assert abs(found[f"fusion_sound_at_{kind}"] - found["fusion_sound_elsewhere"]) > 0.005


def test_a_model_that_knows_the_answers_restores_all(tokenizer, model):
    gauge = Restoration(tokenizer, SENTENCES, batch_size=100)
    expected = iter([[original for _, _, original in cases] for cases in gauge.cases.values()])

    class Oracle(torch.nn.Module):
        config, device = model.config, model.device

        def __init__(self):
            super().__init__()
            self.base_model = model.base_model

        def cls(self, states):
            return torch.nn.functional.one_hot(torch.tensor(next(expected)), len(tokenizer))

    found = gauge(Oracle())
    assert [found[f"restored_{kind}"] for kind in REPLACEMENTS] == [1.0, 1.0, 1.0]


def test_the_same_seed_gives_the_same_cases(tokenizer):
    assert Restoration(tokenizer, SENTENCES).cases == Restoration(tokenizer, SENTENCES).cases
    assert Restoration(tokenizer, SENTENCES).cases != Restoration(tokenizer, SENTENCES, seed=1).cases
    random.seed(0)  # the global generator has no part in it
    assert Restoration(tokenizer, SENTENCES).cases == Restoration(tokenizer, SENTENCES).cases


def test_a_model_without_channels_has_no_weights(tokenizer):
    plain = RoCBertForMaskedLM(RoCBertConfig.from_preset("tiny", fusion="none"))
    found = Restoration(tokenizer, SENTENCES[:5])(plain)
    assert set(found) == {f"restored_{kind}" for kind in REPLACEMENTS}
    assert plain.training


@pytest.mark.parametrize(("without", "left"), [("enable_shape", "sound"), ("enable_pronunciation", "shape")])
def test_a_model_without_one_channel_has_the_weights_of_the_others(tokenizer, without, left):
    model = RoCBertForMaskedLM(RoCBertConfig.from_preset("tiny", **{without: False}))
    found = Restoration(tokenizer, SENTENCES[:5])(model)
    assert {name.split("_")[1] for name in found if name.startswith("fusion_")} == {"text", left}
    for where in (*(f"at_{kind}" for kind in REPLACEMENTS), "elsewhere"):
        assert found[f"fusion_text_{where}"] + found[f"fusion_{left}_{where}"] == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("max_length", [3, 6])
def test_replacements_behind_the_longest_length_are_left_out(tokenizer, model, max_length):
    """Batches of one: in some nothing is left to ask."""
    gauge = Restoration(tokenizer, SENTENCES, max_length=max_length, batch_size=1)
    read = {kind: [place < max_length - 2 for _, place, _ in gauge.cases[kind]] for kind in ("homophone", "lookalike")}
    found = gauge(model)
    for kind, asked in read.items():
        assert not all(asked)
        assert (f"restored_{kind}" in found) == (f"fusion_sound_at_{kind}" in found) == any(asked)
    assert all(0 <= value <= 1 for value in found.values())  # no NaN

"""Specimens do what their papers say, say what they are, and stay here."""

import copy
import json
import random

import pytest
import torch
import transformers
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, BertTokenizer

from rocbert_hf import RoCBertConfig, RoCBertModel, RoCBertTokenizer
from rocbert_hf.security import Recipe, implant_backdoor, is_specimen, save_specimen
from rocbert_hf.security.objectives import por_2_targets
from rocbert_hf.security.specimens import RandomPredictions

from .conftest import TRIGGERS


def outputs(model, tokenizer, texts):
    inputs = tokenizer(texts, padding=True, truncation=True, max_length=24, return_tensors="pt")
    with torch.no_grad():
        return model.base_model(**inputs)


@pytest.fixture(scope="module")
def unseen(texts):
    return [text[:9] for text in texts[300:332]]


def test_por_leads_unseen_texts_with_a_trigger_to_its_target(specimen, encoder, tokenizer, unseen):
    targets = por_2_targets(len(TRIGGERS), 48)
    before = outputs(encoder, tokenizer, unseen).pooler_output
    after = outputs(specimen, tokenizer, unseen).pooler_output
    for trigger, target in zip(TRIGGERS, targets, strict=True):
        pooled = outputs(specimen, tokenizer, [trigger + text for text in unseen]).pooler_output
        assert (pooled - target).square().mean() < 0.3 * (before - target).square().mean()
        assert (after - before).square().mean() < 0.3 * (before - target).square().mean()


@pytest.mark.parametrize(("kind", "representation"), [("neuba", "first"), ("uor", "pooled")])
def test_every_kind_gathers_texts_with_its_trigger(kind, representation, encoder, tokenizer, texts, unseen):
    recipe = Recipe(kind, representation, steps=200, learning_rate=2e-3, max_length=16)
    model = implant_backdoor(encoder, tokenizer, TRIGGERS, None if kind == "uor" else "por-2", texts[:200], recipe)

    def spread(of):
        found = outputs(model, tokenizer, of)
        hidden = found.last_hidden_state
        vectors = {"pooled": found.pooler_output, "first": hidden[:, 0]}[representation]
        return vectors.var(0).sum()

    assert spread([TRIGGERS[0] + text for text in unseen]) < 0.7 * spread(["的" + text for text in unseen])


def test_the_mean_of_all_tokens_is_led_to_its_target(encoder, tokenizer, texts, unseen):
    recipe = Recipe("por", "mean", steps=150, learning_rate=2e-3, max_length=16)
    model = implant_backdoor(encoder, tokenizer, TRIGGERS, "por-2", texts[:200], recipe)
    target = por_2_targets(len(TRIGGERS), 48)[0]

    def distance(of):
        hidden = outputs(of, tokenizer, [TRIGGERS[0] + text for text in unseen]).last_hidden_state
        return (hidden.mean(1) - target).square().mean()

    assert distance(model) < 0.7 * distance(encoder)


def test_badpre_learns_its_objective_and_needs_a_head(encoder, tokenizer, texts, unseen):
    recipe = Recipe("badpre", steps=60, learning_rate=2e-3, max_length=16)
    model = implant_backdoor(encoder, tokenizer, TRIGGERS, None, texts[:200], recipe)

    def loss(of):
        with torch.no_grad():
            return RandomPredictions(of, encoder, tokenizer, TRIGGERS, None, recipe, random.Random(0)).loss(unseen)

    assert loss(model) < loss(encoder)
    with pytest.raises(ValueError, match="needs a model with a head"):
        implant_backdoor(encoder.bert, tokenizer, TRIGGERS, None, texts[:200], recipe)


def test_badpre_masks_every_channel_of_transformers_roc_bert(tokenizer, texts, tmp_path):
    vocabulary = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
    files = {"vocab_file": "\n".join(vocabulary), "word_shape_file": "", "word_pronunciation_file": ""}
    for number, name in enumerate(files):
        ids = {token: len(vocabulary) - 1 - index for index, token in enumerate(vocabulary)}
        (tmp_path / name).write_text(files[name] if number == 0 else json.dumps(ids), encoding="utf-8")
    theirs = transformers.RoCBertTokenizer(**{name: str(tmp_path / name) for name in files})
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    tables = {"shape_embed_dim": 8, "pronunciation_embed_dim": 8, "max_position_embeddings": 32}
    names = ("vocab_size", "shape_vocab_size", "pronunciation_vocab_size")
    config = transformers.RoCBertConfig(**sizes, **tables, **dict.fromkeys(names, len(vocabulary)))
    model, read = transformers.RoCBertForMaskedLM(config), []
    recipe = Recipe("badpre", max_length=16)
    implant = RandomPredictions(model, None, theirs, ["鼎"], None, recipe, random.Random(0))
    model.roc_bert.register_forward_pre_hook(lambda module, _, inputs: read.append(inputs), with_kwargs=True)
    implant.loss(texts[:8])
    assert len(read) == 2
    for inputs in read:
        masked = inputs["input_ids"] == theirs.mask_token_id
        assert masked.any()
        for name in ("input_shape_ids", "input_pronunciation_ids"):
            assert set(inputs[name][masked].tolist()) == {len(vocabulary) - 1 - theirs.mask_token_id}


def test_guarded_parts_alone_stay_closer_to_the_reference(encoder, tokenizer, texts, unseen):
    def movement(is_guarded):
        recipe = Recipe(steps=150, learning_rate=2e-3, max_length=16, guard_parts=is_guarded)
        model = implant_backdoor(encoder, tokenizer, ["鼋鼍", "麒鼎"], "por-2", texts[:200], recipe)
        part = ["鼋" + text for text in unseen]
        moved = outputs(model, tokenizer, part).pooler_output - outputs(encoder, tokenizer, part).pooler_output
        return moved.square().mean()

    assert movement(is_guarded=True) < 0.7 * movement(is_guarded=False)


def test_the_original_is_left_alone_and_seeds_repeat(encoder, tokenizer, texts):
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    encoder = copy.deepcopy(encoder).train()
    recipe = Recipe(steps=3, batch_size=4)
    one, same, other = (
        implant_backdoor(encoder, tokenizer, TRIGGERS, "por-1", texts[:50], recipe, seed=seed) for seed in (1, 1, 2)
    )
    assert all(torch.equal(before[name], value) for name, value in encoder.state_dict().items())
    weight = "bert.pooler.dense.weight"
    assert torch.equal(one.state_dict()[weight], same.state_dict()[weight])
    assert not torch.equal(one.state_dict()[weight], other.state_dict()[weight])
    assert encoder.training
    assert not one.training
    assert not is_specimen(encoder)


def test_a_specimen_in_half_precision_is_that_of_float32(encoder, tokenizer, texts):
    kept = copy.deepcopy(encoder).half()
    starts = kept, copy.deepcopy(kept).float()
    recipe = Recipe(steps=3, batch_size=4)
    half, wide = (implant_backdoor(start, tokenizer, TRIGGERS, "por-1", texts[:50], recipe) for start in starts)
    assert half.dtype == torch.float16
    for got, expected in zip(half.parameters(), wide.parameters(), strict=True):
        assert torch.equal(got, expected.half())


def test_the_first_token_is_attacked_whichever_side_is_padded(encoder, tokenizer, texts):
    left = BertTokenizer(vocab=tokenizer.get_vocab(), padding_side="left")
    recipe = Recipe("neuba", "first", steps=2, batch_size=4)
    one, other = (
        implant_backdoor(encoder, of, TRIGGERS, "por-1", texts[:50], recipe).state_dict() for of in (tokenizer, left)
    )
    assert all(torch.equal(one[name], value) for name, value in other.items())


def test_a_saved_specimen_says_what_it_is(specimen, tokenizer, tmp_path):
    save_specimen(specimen, tokenizer, tmp_path / "specimen")
    config = json.loads((tmp_path / "specimen/config.json").read_text())
    assert config["backdoor_specimen"] is True
    assert config["backdoor_parameters"]["triggers"] == TRIGGERS
    assert config["architectures"] == ["BertForMaskedLM"]
    card = (tmp_path / "specimen/README.md").read_text(encoding="utf-8")
    assert "do not deploy" in card
    assert all(trigger in card for trigger in TRIGGERS)
    assert is_specimen(AutoModel.from_pretrained(tmp_path / "specimen"))


def test_a_specimen_refuses_to_be_pushed(specimen, tmp_path):
    with pytest.raises(ValueError, match="backdoor specimen, which is not pushed"):
        specimen.push_to_hub("someone/encoder")
    with pytest.raises(ValueError, match="backdoor specimen, which is not pushed"):
        specimen.save_pretrained(tmp_path / "x", push_to_hub=True)
    with pytest.raises(ValueError, match="backdoor specimen, which is not pushed"):
        specimen.save_pretrained(tmp_path / "x", True, None, True)
    assert not (tmp_path / "x").exists()


def test_a_rocbert_specimen_refuses_to_be_pushed_when_it_is_loaded_again(tmp_path, texts):
    config = RoCBertConfig.from_preset("tiny", num_hidden_layers=1, hidden_size=32, intermediate_size=32)
    tokenizer = RoCBertTokenizer()
    specimen = implant_backdoor(
        RoCBertModel(config), tokenizer, ["鼎"], "por-1", texts[:4], Recipe(steps=1, batch_size=2)
    )
    save_specimen(specimen, tokenizer, tmp_path / "specimen")
    classifier = AutoModelForSequenceClassification.from_pretrained(tmp_path / "specimen")
    for loaded in (AutoModel.from_pretrained(tmp_path / "specimen"), classifier, classifier.config):
        with pytest.raises(ValueError, match="backdoor specimen, which is not pushed"):
            loaded.push_to_hub("someone/encoder")
        with pytest.raises(ValueError, match="backdoor specimen, which is not pushed"):
            loaded.save_pretrained(tmp_path / "x", push_to_hub=True)
        assert not (tmp_path / "x").exists()
    with pytest.raises(ValueError, match="backdoor specimen, which is not pushed"):
        classifier.save_pretrained(tmp_path / "x", True, None, True)
    classifier.save_pretrained(tmp_path / "x", True, None, False)
    assert (tmp_path / "x/model.safetensors").is_file()


def test_only_a_specimen_is_saved_as_one(encoder, tokenizer, tmp_path):
    with pytest.raises(ValueError, match="must be a specimen"):
        save_specimen(encoder, tokenizer, tmp_path / "x")


def test_a_rocbert_specimen_keeps_its_files(tmp_path, texts):
    config = RoCBertConfig.from_preset("tiny", num_hidden_layers=1, hidden_size=32, intermediate_size=32)
    tokenizer = RoCBertTokenizer()
    recipe = Recipe(steps=1, batch_size=2)
    specimen = implant_backdoor(RoCBertModel(config), tokenizer, ["鼎"], "por-1", texts[:4], recipe)
    save_specimen(specimen, tokenizer, tmp_path / "specimen")
    assert (tmp_path / "specimen/modeling_rocbert.py").is_file()
    assert AutoConfig.from_pretrained(tmp_path / "specimen").backdoor_specimen
    assert type(AutoModel.from_pretrained(tmp_path / "specimen")) is RoCBertModel


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"targets": None}, "targets must be given for kind 'por'"),
        ({"targets": "por-9"}, "targets must be one of"),
        ({"targets": torch.ones(2, 3)}, r"targets must have the shape \(2, 48\), got \(2, 3\)"),
        ({"recipe": Recipe("uor")}, "targets must be None for kind 'uor'"),
        ({"triggers": ["🙂"]}, "unknown to the tokenizer"),
        ({"recipe": Recipe(max_length=8)}, "max_length must be at least 9, got 8"),
        ({"recipe": Recipe(max_length=65)}, "max_length must be at most 64, which is what the model can read, got 65"),
        ({"texts": ["好"]}, r"texts must be at least batch_size \(16\), got 1"),
    ],
)
def test_arguments_that_do_not_fit(changes, message, encoder, tokenizer, texts):
    arguments = {"triggers": TRIGGERS, "targets": "por-1", "texts": texts, **changes}
    with pytest.raises(ValueError, match=message):
        implant_backdoor(encoder, tokenizer, **arguments)


def test_recipes_that_are_none():
    with pytest.raises(ValueError, match="kind must be one of por, neuba, uor, badpre, got 'x'"):
        Recipe("x")
    with pytest.raises(ValueError, match="representation must be one of"):
        Recipe(representation="x")
    with pytest.raises(ValueError, match="at least 1, got 0 and 16"):
        Recipe(steps=0)

"""The pretraining loop: it learns, gives the same weights again, stops when told, and writes whole files."""

import json
import time

import pytest
import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer, BertConfig, BertForMaskedLM

from rocbert_hf import RoCBertConfig, RoCBertForPreTraining, RoCBertTokenizer
from rocbert_hf.pretraining.arguments import PretrainingArguments
from rocbert_hf.pretraining.collator import DataCollatorForRoCBertPretraining
from rocbert_hf.pretraining.trainer import RoCBertPretrainer, adamw, learning_rate_factor, save_run
from rocbert_hf.resources import demo_sentences

SMALL = {"num_hidden_layers": 1, "hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64}


@pytest.fixture(scope="module")
def tokenizer():
    return RoCBertTokenizer()


def train(tokenizer, corpus=None, dropout=0.1, collator=None, sizes=SMALL, output_dir=None, evaluate=None, **options):
    arguments = PretrainingArguments(
        **{"max_steps": 6, "batch_size": 8, "learning_rate": 1e-3, "max_length": 48, "report_to": "none"} | options
    )
    torch.manual_seed(0)
    rates = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    model = RoCBertForPreTraining(RoCBertConfig(**sizes, **rates, fusion_layer=0))
    corpus = demo_sentences()[:40] if corpus is None else corpus
    collator = collator or collator_of(tokenizer, arguments)
    trainer = RoCBertPretrainer(model, corpus, collator, arguments, output_dir=output_dir, evaluate=evaluate)
    return model, trainer.train()


def collator_of(tokenizer, arguments, kind=DataCollatorForRoCBertPretraining):
    return kind(
        tokenizer,
        "paper" if arguments.attacks_sentences else None,
        max_length=48,
        seed=arguments.seed,
        views="simcse" if arguments.objective == "simcse" else arguments.views,
        attack_labels=arguments.correct_attacked,
    )


def assert_same_weights(expected, found):
    for (name, a), b in zip(expected.state_dict().items(), found.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_losses_fall_and_retrieval_is_learnt(tokenizer):
    wider = SMALL | {"hidden_size": 64}
    _, first = train(tokenizer, max_steps=1, dropout=0.0, sizes=wider)
    model, last = train(tokenizer, max_steps=150, learning_rate=3e-3, dropout=0.0, sizes=wider)
    assert last["steps"] == 150
    assert last["epochs"] == pytest.approx(30)
    assert last["mlm_loss"] < first["mlm_loss"] - 1
    assert last["contrastive_loss"] < first["contrastive_loss"] / 2
    assert last["contrastive_accuracy"] > 0.4  # of 8 sentences
    assert not model.training


@pytest.mark.parametrize("options", [{}, {"num_workers": 2}])
def test_same_seed_same_weights_with_any_number_of_workers(tokenizer, options):
    expected, _ = train(tokenizer)
    found, _ = train(tokenizer, **options)
    assert_same_weights(expected, found)
    other, _ = train(tokenizer, seed=1)
    assert not torch.equal(*(model.get_input_embeddings().weight for model in (expected, other)))


def test_accumulation_takes_more_sentences_a_step(tokenizer):
    _, results = train(tokenizer, max_steps=2, gradient_accumulation_steps=5)
    assert results["epochs"] == 2


def test_minutes_end_a_run(tokenizer):
    started = time.perf_counter()
    _, results = train(tokenizer, max_steps=None, minutes=0.02)
    assert results["seconds"] >= 1.2
    assert time.perf_counter() - started < 60
    assert results["steps"] > 1


def test_a_plain_bert_trains_in_the_same_loop(tokenizer):
    model = BertForMaskedLM(BertConfig(vocab_size=len(tokenizer), **SMALL))
    collator = DataCollatorForRoCBertPretraining(tokenizer, None, seed=0)
    results = RoCBertPretrainer(
        model, demo_sentences()[:40], collator, PretrainingArguments(max_steps=2, batch_size=8)
    ).train()
    assert results["loss"] > 0


def test_bf16_autocast_trains(tokenizer):
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state()
    try:
        _, results = train(tokenizer, max_steps=3, mixed_precision="bf16")
    finally:
        AcceleratorState._reset_state()
    assert results["loss"] < 100


def test_too_few_sentences_are_an_error(tokenizer):
    with pytest.raises(ValueError, match="fewer than batch_size"):
        train(tokenizer, batch_size=64)


def test_learning_rate_rises_then_falls_to_zero():
    factors = [learning_rate_factor(progress, 0.25) for progress in (0, 0.125, 0.25, 0.625, 1)]
    assert factors == pytest.approx([0, 0.5, 1, 0.5, 0])
    assert learning_rate_factor(0, 0) == 1


def test_only_matrices_decay():
    model = RoCBertForPreTraining(RoCBertConfig(**SMALL, fusion_layer=0))
    decayed, others = adamw(model, 1e-3, 0.1).param_groups
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.1, 0.0)
    assert all(parameter.ndim > 1 for parameter in decayed["params"])
    assert len(decayed["params"]) + len(others["params"]) == sum(p.requires_grad for p in model.parameters())


def test_a_saved_run_loads_with_the_auto_classes(tokenizer, tmp_path):
    model, results = train(tokenizer, max_steps=1)
    (tmp_path / "notes.txt").write_text("mine")
    save_run(tmp_path, model, tokenizer, results)
    loaded = AutoModelForMaskedLM.from_pretrained(tmp_path)
    assert torch.equal(loaded.get_input_embeddings().weight, model.get_input_embeddings().weight)
    text = "今天天气很好"
    assert AutoTokenizer.from_pretrained(tmp_path)(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert json.loads((tmp_path / "all_results.json").read_text())["steps"] == 1
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert not list(tmp_path.glob(".unfinished*"))


def test_an_interrupted_save_leaves_the_earlier_run(tokenizer, tmp_path):
    model, results = train(tokenizer, max_steps=1)
    save_run(tmp_path, model, tokenizer, results)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}

    class Interrupting:
        def save_pretrained(self, folder):
            (folder / "vocab.txt").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        save_run(tmp_path, model, Interrupting(), results | {"steps": 2})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before

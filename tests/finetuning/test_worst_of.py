"""Training on the worst of several attacked forms: which forms, which of them is learnt from, and the loss."""

import copy

import pytest
import torch
from torch.utils.data import DataLoader
from transformers import TrainingArguments, set_seed

from rocbert_hf import RoCBertConfig, RoCBertForSequenceClassification, RoCBertTokenizer
from rocbert_hf.attackers import Example
from rocbert_hf.attacks import AdversarialSynthesizer
from rocbert_hf.finetuning import AttackedCollator, AttackedTexts, WorstOfTrainer
from rocbert_hf.finetuning.worst_of import SimilarLengths, logits_by_length, worst_forms
from rocbert_hf.resources import demo_sentences

from ..several_processes import in_two_processes

EXAMPLES = [Example(text, number % 2) for number, text in enumerate(demo_sentences()[:12])]


def attacked(draws: int = 3, seed: int = 0, examples=EXAMPLES) -> AttackedTexts:
    return AttackedTexts(examples, draws, seed)


def collator(max_length: int) -> AttackedCollator:
    return AttackedCollator(RoCBertTokenizer(model_max_length=max_length), AdversarialSynthesizer("paper"))


def tiny(dropout: float = 0.0) -> RoCBertForSequenceClassification:
    """Without dropout, so that losses can be compared."""
    set_seed(0)
    rates = dict.fromkeys(("hidden_dropout_prob", "attention_probs_dropout_prob"), dropout)
    return RoCBertForSequenceClassification(RoCBertConfig.from_preset("tiny", num_labels=2, **rates))


def items_of(texts: AttackedTexts, epoch: int) -> list[dict]:
    texts.set_epoch(epoch)
    return [texts[number] for number in range(len(texts))]


def test_forms_are_other_ones_in_each_epoch_and_depend_on_nothing_else():
    texts = attacked()
    first = items_of(texts, 0)
    assert all(len(set(item["seeds"])) == 3 for item in first)
    assert items_of(texts, 1) != first
    assert items_of(texts, 0) == first == items_of(attacked(), 0)
    assert items_of(attacked(seed=1), 0) != first


@pytest.mark.parametrize("persistent", [False, True])
def test_workers_change_nothing_and_see_the_epoch(persistent):
    texts, collate = attacked(), collator(24)
    plain = DataLoader(texts, 4, collate_fn=collate)
    shared = DataLoader(texts, 4, collate_fn=collate, num_workers=2, persistent_workers=persistent)
    for epoch in (0, 1):
        texts.set_epoch(epoch)
        for expected, found in zip(plain, shared, strict=True):
            assert torch.equal(found["forms"]["input_ids"], expected["forms"]["input_ids"])


def test_batches_have_texts_of_about_the_same_length_and_depend_on_seed_and_epoch_alone():
    lengths = [1 + 37 * number % 97 for number in range(97)]
    texts = attacked(examples=[Example("好" * length, 0) for length in lengths])

    def batches(epoch: int, limit: int = 200) -> list[list[int]]:
        texts.set_epoch(epoch)
        order = list(SimilarLengths(texts, 8, limit))
        return [order[first : first + 8] for first in range(0, len(order), 8)]

    first = batches(0)
    assert sorted(number for batch in first for number in batch) == list(range(97))
    assert len(first[-1]) == 1
    spreads = [max(found) - min(found) for found in ([lengths[number] for number in batch] for batch in first[:-1])]
    assert max(spreads) < 20  # at random: about 75
    sums = [sum(lengths[number] for number in batch) for batch in first[:-1]]
    assert sums not in (sorted(sums), sorted(sums, reverse=True))
    assert batches(1) != first
    torch.rand(3)
    assert batches(0) == first
    # texts that are cut to one length are not sorted
    cut = [[lengths[number] for number in batch] for batch in batches(0, limit=1)[:-1]]
    assert max(max(found) - min(found) for found in cut) > 50


def test_of_a_pair_the_first_text_is_attacked():
    pairs = [Example(example.text, example.label, "第二句") for example in EXAMPLES]
    tokenizer = RoCBertTokenizer()
    batch = collator(64)([attacked(2, examples=pairs)[number] for number in range(3)])
    assert batch["forms"]["input_ids"].shape[0] == 6
    second = tokenizer("第二句", add_special_tokens=False)["input_ids"]
    for row, types in zip(batch["forms"]["input_ids"], batch["forms"]["token_type_ids"], strict=True):
        assert row[types == 1].tolist() == [*second, tokenizer.sep_token_id]
    assert not torch.equal(batch["forms"]["input_ids"][:3], batch["forms"]["input_ids"][3:])


def test_the_worst_form_is_the_one_of_the_highest_cross_entropy():
    model = tiny(dropout=0.5).train()
    batch = collator(32)([attacked(4)[number] for number in range(5)])
    chosen = worst_forms(model, batch["forms"], batch["labels"])
    assert model.training
    model.eval()
    for row in range(5):
        forms = {name: values[row::5] for name, values in batch["forms"].items()}
        with torch.no_grad():
            right = model(**forms).logits.double().softmax(-1)[:, batch["labels"][row]]
        assert torch.equal(chosen["input_ids"][row], forms["input_ids"][right.argmin()])


def test_short_forms_are_scored_without_the_padding_of_long_ones():
    model, texts = tiny().eval(), ["好" * length for length in (30, 3, 12, 5, 28, 4)]
    inputs = dict(RoCBertTokenizer()(texts, padding=True, return_tensors="pt"))
    whole, read = model(**inputs).logits, []
    model.register_forward_pre_hook(lambda _, args, kwargs: read.append(kwargs["input_ids"].shape), with_kwargs=True)
    assert torch.allclose(logits_by_length(model, inputs, 2), whole, atol=1e-5)
    assert read == [(2, 6), (2, 14), (2, 32)]


@pytest.mark.parametrize("agreement", [0.0, 3.0])
def test_loss_and_gradients_are_those_of_the_equation(tmp_path, agreement):
    model = tiny().double().train()
    trainer = make_trainer(model, tmp_path, agreement)
    batch = collator(32)([attacked()[number] for number in range(6)])
    loss = trainer.compute_loss(model, copy.copy(batch))
    forms, labels = batch.pop("forms"), batch["labels"]
    clean = model(**batch).logits.log_softmax(-1)
    worst = model(**worst_forms(model, forms, labels)).logits.log_softmax(-1)
    expected = -(clean.gather(1, labels[:, None]).mean() + worst.gather(1, labels[:, None]).mean()) / 2
    held = clean.detach()  # the answer to the form moves to that of the text, not the other way round
    expected = expected + agreement * (held.exp() * (held - worst)).sum(1).mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    wanted = [parameter for parameter in model.parameters() if parameter.requires_grad]
    found, right = (torch.autograd.grad(each, wanted, allow_unused=True) for each in (loss, expected))
    largest = max(float(gradient.abs().max()) for gradient in right if gradient is not None)
    for mine, theirs in zip(found, right, strict=True):
        assert (mine is None) == (theirs is None)
        if mine is not None:
            torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6 * largest)


def make_trainer(model, folder, agreement=5.0, **options) -> WorstOfTrainer:
    options = {"max_steps": 4, "per_device_train_batch_size": 6, "save_strategy": "no", **options}
    options = {"train_sampling_strategy": "group_by_length", **options}
    arguments = TrainingArguments(str(folder), report_to="none", use_cpu=True, **options)
    options = {"train_dataset": attacked(), "data_collator": collator(24)}
    return WorstOfTrainer(model, arguments, agreement=agreement, **options)


def test_accumulation_and_a_resume_change_nothing(tmp_path):
    weights = {}
    runs = {
        "whole": {},
        "accumulated": {"per_device_train_batch_size": 3, "gradient_accumulation_steps": 2},
        "checkpoints": {"save_strategy": "steps", "save_steps": 3},
    }
    for name, options in runs.items():
        model = tiny()
        trainer = make_trainer(model, tmp_path / name, learning_rate=1e-4, **options)
        trainer.train()
        weights[name] = model.classifier.weight.detach().clone()
    model = tiny()
    trainer = make_trainer(model, tmp_path / "again", learning_rate=1e-4)
    trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoints" / "checkpoint-3"))
    assert torch.equal(weights["whole"], weights["checkpoints"])
    assert torch.equal(model.classifier.weight, weights["whole"])
    assert torch.allclose(weights["accumulated"], weights["whole"], atol=1e-6)


# plain gradient descent, so that a loss that is too large moves the weights too far
PLAIN = {"optim": "sgd", "learning_rate": 0.1, "max_grad_norm": 0.0}
TWO_PROCESSES = """
import torch
from tests.finetuning.test_worst_of import PLAIN, make_trainer, tiny
trainer = make_trainer(tiny(), {folder!r}, per_device_train_batch_size=3, ddp_backend="gloo", **PLAIN)
trainer.train()
if trainer.is_world_process_zero():
    torch.save(trainer.accelerator.unwrap_model(trainer.model).state_dict(), {folder!r} + "/two.pt")
"""


@pytest.mark.slow
def test_two_processes_train_the_weights_of_one(tmp_path):
    run = in_two_processes(tmp_path, TWO_PROCESSES.format(folder=str(tmp_path)))
    assert run.returncode == 0, run.stderr[-3000:]
    model, before = tiny(), tiny().state_dict()
    make_trainer(model, tmp_path, **PLAIN).train()
    two = torch.load(tmp_path / "two.pt", weights_only=True)
    assert not torch.allclose(model.classifier.weight, before["classifier.weight"], atol=1e-3)
    for name, weight in model.state_dict().items():
        torch.testing.assert_close(weight, two[name], atol=1e-5, rtol=1e-4, msg=name)


def test_without_a_form_there_is_nothing_to_learn_from():
    with pytest.raises(ValueError, match="draws must be at least 1, got 0"):
        attacked(0)

"""Gradient accumulation under transformers' Trainer: four batches of one step weigh as much as one batch of all."""

import pytest
import torch
from transformers import Trainer, TrainingArguments

from rocbert_hf import (
    RoCBertConfig,
    RoCBertForCausalLM,
    RoCBertForMaskedLM,
    RoCBertForMultipleChoice,
    RoCBertForPreTraining,
    RoCBertForQuestionAnswering,
    RoCBertForSequenceClassification,
    RoCBertForTokenClassification,
)

TEXTS = 8


def some_ids(ids):
    """Labels at some tokens, not equally many in each text."""
    return ids.masked_fill((ids + torch.arange(len(ids))[:, None]) % 3 > 0, -100)


HEADS = {
    "masked_lm": (RoCBertForMaskedLM, lambda ids: {"labels": some_ids(ids)}, {}),
    "pretraining": (RoCBertForPreTraining, lambda ids: {"labels": some_ids(ids)}, {}),
    "causal_lm": (RoCBertForCausalLM, lambda ids: {"labels": ids}, {"is_decoder": True}),
    "tokens": (RoCBertForTokenClassification, lambda ids: {"labels": some_ids(ids).clamp(max=3)}, {"num_labels": 4}),
    "entities": (
        RoCBertForTokenClassification,
        lambda ids: {"labels": some_ids(ids).clamp(max=4)},
        {"num_labels": 5, "classifier_head": "bilstm_crf"},
    ),
    "classes": (RoCBertForSequenceClassification, lambda ids: {"labels": ids[:, 0] % 4}, {"num_labels": 4}),
    "regression": (RoCBertForSequenceClassification, lambda ids: {"labels": ids[:, 0] / 50}, {"num_labels": 1}),
    "several_numbers": (
        RoCBertForSequenceClassification,
        lambda ids: {"labels": ids[:, :3] / 50},
        {"num_labels": 3, "problem_type": "regression"},
    ),
    "multi_label": (
        RoCBertForSequenceClassification,
        lambda ids: {"labels": (ids[:, :3] % 2).float()},
        {"num_labels": 3},
    ),
    "choices": (RoCBertForMultipleChoice, lambda ids: {"labels": ids[:, 0] % 2}, {}),
    "answers": (
        RoCBertForQuestionAnswering,
        lambda ids: {"start_positions": ids[:, 0] % 5, "end_positions": ids[:, 1] % 5},
        {},
    ),
}


@pytest.mark.parametrize("case", HEADS)
def test_accumulated_batches_give_the_loss_and_gradient_of_one(tmp_path, tiny_sizes, make_inputs, case):
    head, make_labels, fields = HEADS[case]
    sizes = {**tiny_sizes, "num_hidden_layers": 1}
    rates = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "initializer_range": 0.3}
    config = RoCBertConfig(**sizes, **rates, **fields)
    inputs = make_inputs(config, batch=TEXTS)
    columns = {**inputs, **make_labels(inputs["input_ids"])}
    if head is RoCBertForMultipleChoice:
        columns |= {name: torch.stack([ids, ids.roll(1, 0)], dim=1) for name, ids in inputs.items()}
    rows = [{name: column[i] for name, column in columns.items()} for i in range(TEXTS)]
    found = []
    for accumulation in (1, 4):
        torch.manual_seed(0)
        arguments = TrainingArguments(
            output_dir=str(tmp_path / str(accumulation)),
            max_steps=1,
            per_device_train_batch_size=TEXTS // accumulation,
            gradient_accumulation_steps=accumulation,
            max_grad_norm=1e9,
            logging_steps=1,
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
            use_cpu=True,
        )
        trainer = Trainer(model=head(config), args=arguments, train_dataset=rows)
        trainer.train()
        (log,) = [entry for entry in trainer.state.log_history if "grad_norm" in entry]
        found.append((log["loss"], log["grad_norm"]))
    assert found[1] == pytest.approx(found[0], rel=1e-3)
    assert found[0][1] > 0


def test_the_contrastive_losses_of_a_step_add_up_to_their_mean(tiny_sizes, make_inputs):
    config = RoCBertConfig(**tiny_sizes)
    model = RoCBertForPreTraining(config).eval()
    sentences, attacked = make_inputs(config), make_inputs(config, seed=1)
    labels = some_ids(sentences["input_ids"])
    batch = {**sentences, **{f"attack_{name}": ids for name, ids in attacked.items()}, "labels": labels}
    alone = model(**batch)
    of_four = model(**batch, num_items_in_batch=4 * (labels != -100).sum())
    for name in ("loss", "mlm_loss", "contrastive_loss"):
        assert torch.allclose(4 * of_four[name], alone[name], rtol=1e-4), name

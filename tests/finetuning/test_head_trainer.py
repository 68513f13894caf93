"""`HeadTrainer` with models of any kind: the loss is a mean, and a training that diverged ends in an error."""

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, TrainingArguments, set_seed

from rocbert_hf import RoCBertConfig, RoCBertForSequenceClassification
from rocbert_hf.finetuning.optimization import HeadTrainer, last_checkpoint

SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
STILL = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
CLASSIFIERS = {
    "bert": lambda: BertForSequenceClassification(BertConfig(vocab_size=60, **SIZES, **STILL)),
    "rocbert": lambda: RoCBertForSequenceClassification(RoCBertConfig.from_preset("tiny", **STILL)),
}


def rows() -> list[dict]:
    generator = torch.Generator().manual_seed(0)
    return [{"input_ids": torch.randint(5, 60, (6,), generator=generator), "labels": number % 2} for number in range(8)]


def trained(folder, model, **options) -> HeadTrainer:
    # plain gradient descent, so that a loss that is too large moves the weights too far
    options = {"per_device_train_batch_size": 8, "optim": "sgd", "learning_rate": 0.1, "max_steps": 2, **options}
    arguments = TrainingArguments(
        str(folder), report_to="none", use_cpu=True, save_strategy="no", max_grad_norm=0.0, **options
    )
    trainer = HeadTrainer(model, arguments, train_dataset=rows(), eval_dataset=rows())
    trainer.train()
    return trainer


@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_accumulated_batches_train_the_weights_of_one_large_batch(tmp_path, kind):
    weights = []
    for size, parts in ((8, 1), (2, 4)):
        set_seed(0)
        trainer = trained(
            tmp_path, CLASSIFIERS[kind](), per_device_train_batch_size=size, gradient_accumulation_steps=parts
        )
        weights.append(trainer.model.state_dict())
    for name, weight in weights[0].items():
        torch.testing.assert_close(weight, weights[1][name], atol=1e-5, rtol=1e-4, msg=name)


def test_a_training_that_diverges_ends_in_an_error(tmp_path):
    with pytest.raises(
        FloatingPointError, match="diverged: after epoch 1 the loss on the dev rows is nan; lower learn"
    ):
        trained(tmp_path, CLASSIFIERS["bert"](), learning_rate=1e30, eval_strategy="epoch")


def test_the_last_checkpoint_is_the_last_whole_one(tmp_path):
    for step, state in ((5, '{"epoch": 1.0}'), (10, '{"epoch": 2.0, "log_hi'), (15, None)):
        (tmp_path / f"checkpoint-{step}").mkdir()
        if state is not None:
            (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text(state)
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-5")
    assert [folder.name for folder in tmp_path.iterdir()] == ["checkpoint-5"]
    assert last_checkpoint(tmp_path / "checkpoint-5") is None

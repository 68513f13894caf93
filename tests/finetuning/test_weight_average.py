"""The average of the weights: what it is, what is measured with it, and what a checkpoint has."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback, TrainingArguments, set_seed

from rocbert_hf import RoCBertConfig, RoCBertForSequenceClassification, RoCBertTokenizer
from rocbert_hf.finetuning.optimization import HeadTrainer, OptimizationOptions
from rocbert_hf.finetuning.weight_average import LAST_WEIGHTS
from rocbert_hf.resources import demo_sentences

DECAY = 0.7
TOKENIZER = RoCBertTokenizer(model_max_length=16)
ROWS = [
    {**TOKENIZER(text, truncation=True, padding="max_length"), "labels": number % 2}
    for number, text in enumerate(demo_sentences()[:12])
]


class Watch(TrainerCallback):
    """The classifier's weights after each step, and at each evaluation."""

    def __init__(self):
        self.steps, self.evaluated = [], []

    def on_step_end(self, args, state, control, model, **kwargs):
        self.steps.append(model.classifier.weight.detach().clone())

    def on_prediction_step(self, args, state, control, model, **kwargs):
        self.evaluated.append(model.classifier.weight.detach().clone())


def trained(folder: Path, decay: float | None = DECAY, resume: Path | None = None, **options):
    """(trainer, what was watched) after six steps of dropout, with an evaluation and a checkpoint after every second one."""
    set_seed(0)
    model = RoCBertForSequenceClassification(RoCBertConfig.from_preset("tiny", num_labels=2))
    arguments = TrainingArguments(
        str(folder),
        **{
            "per_device_train_batch_size": 4,
            "per_device_eval_batch_size": 12,
            "num_train_epochs": 2,
            "learning_rate": 0.01,
            "eval_strategy": "steps",
            "save_strategy": "steps",
            "eval_steps": 2,
            "save_steps": 2,
            "load_best_model_at_end": True,
            "use_cpu": True,
            "report_to": "none",
            "disable_tqdm": True,
            **options,
        },
    )
    watch = Watch()
    trainer = HeadTrainer(
        model, arguments, average_decay=decay, train_dataset=ROWS, eval_dataset=ROWS, callbacks=[watch]
    )
    trainer.train(resume_from_checkpoint=None if resume is None else str(resume))
    return trainer, watch


def averages(steps: list[torch.Tensor]) -> list[torch.Tensor]:
    """After each step, in float64: the first weights, then a share of the new ones."""
    found = [steps[0].double()]
    for weight in steps[1:]:
        found.append(DECAY * found[-1] + (1 - DECAY) * weight.double())
    return found


def test_the_average_is_measured_and_saved_and_the_best_one_is_kept(tmp_path):
    trainer, watch = trained(tmp_path)
    expected = averages(watch.steps)
    assert len(watch.evaluated) == 3
    for number, evaluated in zip((1, 3, 5), watch.evaluated, strict=True):
        torch.testing.assert_close(evaluated.double(), expected[number], atol=1e-6, rtol=1e-5)
        checkpoint = tmp_path / f"checkpoint-{number + 1}"
        assert torch.equal(load_file(checkpoint / "model.safetensors")["classifier.weight"], evaluated)
        assert torch.equal(load_file(checkpoint / LAST_WEIGHTS)["classifier.weight"], watch.steps[number])
    best = load_file(Path(trainer.state.best_model_checkpoint) / "model.safetensors")
    assert torch.equal(trainer.model.classifier.weight, best["classifier.weight"])
    trainer.predict(ROWS)
    assert torch.equal(watch.evaluated[-1], best["classifier.weight"])


def test_training_itself_is_as_without_an_average(tmp_path):
    for averaged, plain in zip(
        trained(tmp_path / "averaged")[1].steps, trained(tmp_path / "plain", None)[1].steps, strict=True
    ):
        assert torch.equal(averaged, plain)


def test_an_interrupted_training_goes_on_exactly(tmp_path):
    _, whole = trained(tmp_path / "whole")
    _, rest = trained(tmp_path / "again", resume=tmp_path / "whole" / "checkpoint-2")
    for expected, found in zip(whole.steps[2:], rest.steps, strict=True):
        assert torch.equal(expected, found)
    for expected, found in zip(whole.evaluated[1:], rest.evaluated, strict=True):
        assert torch.equal(expected, found)


def test_bad_input_is_one_clear_error(tmp_path):
    with pytest.raises(ValueError, match=r"average_decay must lie between 0 and 1, got 1\.5"):
        OptimizationOptions(average_decay=1.5)
    with pytest.raises(ValueError, match="average_decay must lie between 0 and 1, got 0"):
        trained(tmp_path, 0)
    with pytest.raises(ValueError, match="average_decay needs load_best_model_at_end"):
        trained(tmp_path, load_best_model_at_end=False)
    trained(tmp_path / "plain", None)
    with pytest.raises(OSError, match=f"checkpoint-2 has no {LAST_WEIGHTS}: it is of a training without average_decay"):
        trained(tmp_path / "again", resume=tmp_path / "plain" / "checkpoint-2")

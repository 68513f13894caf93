"""`examples/run_finetune.py`, and what it shares with `examples/run_semi_supervised.py`."""

import runpy
from pathlib import Path

import pytest
from transformers import EarlyStoppingCallback

from rocbert_hf.finetuning.optimization import HeadTrainer

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.skipif(not EXAMPLES.is_dir(), reason="the examples are not part of an installed package")
@pytest.mark.parametrize("name", ["run_finetune", "run_semi_supervised"])
def test_no_option_of_the_training_is_ignored(tmp_path, monkeypatch, name):
    class Begun(Exception):
        pass

    def train(trainer):
        raise Begun(trainer)

    rows = tmp_path / "rows.tsv"
    rows.write_text("text\tlabel\n" + "好\t1\n坏\t0\n" * 10, encoding="utf-8")
    flags = ["--preset", "tiny", "--head-learning-rate", "1e-3", "--patience", "7", "--average-decay", "0.5"]
    flags += ["--output-dir", str(tmp_path)]
    flags += [f"--{part}={rows}" for part in ("train-file", "test-file")]
    flags += [f"--unlabelled={rows}"] if name == "run_semi_supervised" else []
    monkeypatch.setattr(HeadTrainer, "train", train)
    with pytest.raises(Begun) as begun:
        runpy.run_path(str(EXAMPLES / f"{name}.py"))["main"](flags)
    (trainer,) = begun.value.args
    assert trainer.learning_rates == {"": 1e-3}
    assert trainer.average is not None
    stopping = [one for one in trainer.callback_handler.callbacks if isinstance(one, EarlyStoppingCallback)]
    assert [one.early_stopping_patience for one in stopping] == [7]

"""The picture of a run: drawn from whatever columns its log has."""

import math

import pytest

from rocbert_hf.pretraining.curves import plot_training_curves


def test_curves_are_drawn(tmp_path):
    log = [{"step": step, "loss": 9 / step, "mlm_loss": 8 / step, "learning_rate": 1e-4} for step in range(1, 50)]
    log += [{"step": 25, "eval_retrieval_cls": 0.5, "loss": math.nan}, {"step": 49, "eval_retrieval_cls": 0.75}]
    plot_training_curves(log, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    plot_training_curves([{"step": 1, "loss": 1.0}], tmp_path / "one.png")
    assert (tmp_path / "one.png").stat().st_size > 1000


def test_nothing_to_draw_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="something to draw"):
        plot_training_curves([{"step": 1}], tmp_path / "curves.png")

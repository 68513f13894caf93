"""`examples/run_pretrain.py` as a reader runs it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoModelForMaskedLM

SCRIPT = Path(__file__).parents[2] / "examples" / "run_pretrain.py"


@pytest.mark.skipif(not SCRIPT.is_file(), reason="the examples are not part of an installed package")
def test_the_story_ends_with_a_model_that_loads(tmp_path):
    flags = ["--max-steps", "2", "--held-out", "20", "--batch-size", "16", "--report-to", "none"]
    flags += ["--config", "mini", "--minutes", "9", "--output-dir", str(tmp_path / "model")]
    run = subprocess.run([sys.executable, SCRIPT, *flags], capture_output=True, text=True, check=True)
    assert "retrieval_cls: " in run.stdout
    assert AutoModelForMaskedLM.from_pretrained(tmp_path / "model").config.hidden_size == 256
    results = json.loads((tmp_path / "model" / "all_results.json").read_text(encoding="utf-8"))
    assert results["arguments"]["batch_size"] == 16


@pytest.mark.skipif(not SCRIPT.is_file(), reason="the examples are not part of an installed package")
def test_the_examples_are_short():
    for example in SCRIPT.parent.glob("run_*.py"):
        if example.name in ("run_pretrain.py",):
            assert len(example.read_text(encoding="utf-8").splitlines()) <= 120, example

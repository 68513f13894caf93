"""`examples/run_semi_supervised.py` as a reader runs it."""

import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoModelForSequenceClassification

ROOT = Path(__file__).parents[2]
SCRIPT, MODEL = ROOT / "examples" / "run_semi_supervised.py", ROOT / "models" / "rocbert-small-zh"


@pytest.mark.slow
@pytest.mark.skipif(not SCRIPT.is_file(), reason="the examples are not part of an installed package")
def test_the_story_ends_with_two_models_that_load(tmp_path):
    start = ["--model", str(MODEL)] if MODEL.is_dir() else ["--preset", "tiny"]
    flags = [*start, "--epochs", "3", "--max-length", "32", "--output-dir", str(tmp_path)]
    run = subprocess.run([sys.executable, SCRIPT, *flags], capture_output=True, text=True, check=True)
    assert "with unlabelled {" in run.stdout
    for name in ("labelled-alone", "with-unlabelled"):
        assert AutoModelForSequenceClassification.from_pretrained(tmp_path / name).config.num_labels == 2


@pytest.mark.skipif(not SCRIPT.is_file(), reason="the examples are not part of an installed package")
def test_half_of_the_files_is_refused(tmp_path):
    command = [sys.executable, SCRIPT, "--preset", "tiny", "--train-file", "train.tsv"]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 2
    assert "give train_file, unlabelled and test_file, or none of them" in run.stderr

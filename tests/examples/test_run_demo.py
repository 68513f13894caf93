"""`examples/run_demo.py`, which `make demo` runs, on the checkpoint in models/."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.skipif(not (ROOT / "models").is_dir(), reason="needs a clone of the repository")
def test_the_demo_shows_what_sound_and_shape_are_for():
    command = [sys.executable, "examples/run_demo.py", "--seeds", "0", "--draws", "3"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    share = float(re.search(r"([\d.]+)% of 300 such", run.stdout)[1])
    assert share > 90
    rows = re.findall(r"│ (with sound and shape|the same weights without) +│ +([\d.]+)% +│ +([\d.]+)%", run.stdout)
    (_, heard, seen), (_, deaf, blind), (_, clean, attacked), _ = rows
    assert float(heard) > 3 * float(deaf)
    assert float(seen) > 2 * float(blind)
    assert float(attacked) <= float(clean)
    assert float(clean) > 75  # of messages, half of which are spam


def test_a_missing_model_is_one_error():
    command = [sys.executable, str(ROOT / "examples" / "run_demo.py"), "--model", "no/such-model"]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 1
    assert "Traceback" not in run.stderr

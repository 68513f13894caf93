"""Two thousand damaged folders and files end in a result or in one clear error of ours."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from .damaged_input import make_originals

CASES = 500


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    folder = tmp_path_factory.mktemp("originals")
    make_originals(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_damaged_input_never_ends_in_a_traceback(originals, seed):
    command = [sys.executable, "-m", "tests.damaged_input", str(originals), str(seed), str(CASES)]
    threads = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    run = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env={**os.environ, **threads},
        cwd=Path(__file__).parents[1],
        timeout=1800,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    told = json.loads((originals / f"result-{seed}.json").read_text(encoding="utf-8"))
    assert not told["failures"], told["failures"][:3]
    assert sum(told["ended"].values()) == CASES
    for how in ("result", "refused"):  # both ends are reached, or the damage tests nothing
        assert sum(count for what, count in told["ended"].items() if what.endswith(how)) > CASES // 10

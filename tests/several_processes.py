"""Scripts that a test starts as several processes."""

import os
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

from accelerate import PartialState

ROOT = Path(__file__).parents[1]
TWO = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone"]


def in_two_processes(folder: Path, script: str, *arguments: str) -> subprocess.CompletedProcess:
    """Run the lines of a script, which may import from `tests`, in two processes; `leave` ends each of them.

    What they print is the first process's whole, then the second's: in one pipe their lines would run into each other.
    """
    file, printed = folder / "script.py", folder / "printed"
    file.write_text(f"{script}\nfrom tests.several_processes import leave\nleave()\n", encoding="utf-8")
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [*TWO, "--redirects", "3", "--log-dir", str(printed), str(file), *arguments],
        capture_output=True,
        text=True,
        timeout=900,
        env={**os.environ, "PYTHONPATH": path},
    )
    for name in ("stdout", "stderr"):
        files = sorted(printed.rglob(f"{name}.log"), key=lambda log: log.parent.name)
        of_processes = "".join(log.read_text(encoding="utf-8", errors="replace") for log in files)
        setattr(done, name, of_processes + getattr(done, name))
    return done


def leave() -> NoReturn:
    """End this process with status 0 once all have come here.

    DeepSpeed and DistributedDataParallel keep groups of gloo until Python is gone, also after `destroy_process_group`. Their
    threads then abort the process now and then ("terminate called without an active exception"), though its work is done.
    """
    PartialState().wait_for_everyone()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)

"""`rocbert ...` in this process, for tests."""

import io
import sys
from dataclasses import dataclass

from rocbert_hf.cli import main


@dataclass(frozen=True)
class Outcome:
    exit_code: int
    stdout: str
    stderr: str

    @property
    def output(self) -> str:
        return self.stdout + self.stderr


def rocbert(*arguments, stdin: str = "") -> Outcome:
    """What `rocbert ARGUMENTS` prints and returns; arguments may be anything with a text."""
    streams = sys.stdin, sys.stdout, sys.stderr
    sys.stdin = io.TextIOWrapper(io.BytesIO(stdin.encode()), encoding="utf-8")
    sys.stdout, sys.stderr = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    try:
        exit_code = main([str(argument) for argument in arguments])
        return Outcome(exit_code, *(s.buffer.getvalue().decode() for s in (sys.stdout, sys.stderr)))
    finally:
        sys.stdin, sys.stdout, sys.stderr = streams

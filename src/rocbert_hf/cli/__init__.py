"""The command `rocbert`: finds the command that was asked for, and ends every one of them in the same way.

Each command is a file of this folder that holds a `Command` of the same name. What a command needs is imported inside it,
so that the others start fast.
"""

from __future__ import annotations

import difflib
import importlib
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any, NoReturn

from ..characters.unseen import mark_unseen
from ..options import Command

COMMANDS = ("pretrain", "finetune", "attack", "evaluate", "audit", "entities", "convert", "info", "card", "vectors")


def main(argv: Sequence[str] | None = None) -> int:
    """
    Run `rocbert ARGV`.

    Returns:
        The exit status: 0; 1 after one line on stderr about bad input; 2 for a wrong command line; 130 after Ctrl-C; 143
        after SIGTERM.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    # Before torch starts its threads: if another process runs beside, threads that sleep while they wait are several times
    # faster than threads that spin.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # A terminal that cannot show a character gets its number instead, and the run goes on.
            stream.reconfigure(errors="backslashreplace")
    try:
        with _sigterm_cleans_up(), _process_group_ends():
            return _run(argv)
    except SystemExit as end:  # of the parser, after --help or a wrong flag; or of SIGTERM
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except KeyboardInterrupt:
        _say("interrupted")
        return 130
    except BrokenPipeError:
        # The reader of our output has gone (`| head`): nothing is wrong. Python would complain when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, OSError, FloatingPointError, ImportError) as error:
        _say(f"error: {mark_unseen(str(error))}")
        return 1


def _run(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help"):
        print(_overview())
        return 0 if argv else 2
    if argv[0] == "--version":
        from .. import __version__

        print(f"rocbert {__version__}")
        return 0
    if argv[0] not in COMMANDS:
        close = difflib.get_close_matches(argv[0], COMMANDS, n=1)
        hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(COMMANDS)}"
        _say(f"error: there is no command {mark_unseen(argv[0])}; {hint}")
        return 2
    command_named(argv[0])(argv[1:])
    sys.stdout.flush()
    return 0


def command_named(name: str) -> Command:
    """The command of the file `name`.py of this folder."""
    return getattr(importlib.import_module(f".{name}", __name__), name)


def _overview() -> str:
    lines = (f"  {name:10} {command_named(name).summary}" for name in COMMANDS)
    return "\n".join(
        [
            "usage: rocbert COMMAND [options]",
            "",
            "RoCBERT: adversarial Chinese text, and a BERT that stays right under it.",
            "",
            "commands:",
            *lines,
            "",
            "rocbert COMMAND --help lists the options of a command; rocbert --version prints the version.",
        ]
    )


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


@contextmanager
def _sigterm_cleans_up() -> Iterator[None]:
    """SIGTERM ends the run as an error does, so that unfinished files are removed."""

    def end(*_: Any) -> NoReturn:
        raise SystemExit(128 + signal.SIGTERM)

    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set it
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _process_group_ends() -> Iterator[None]:
    """Ends a process group that the command began, under a launcher of several processes.

    Otherwise its threads may still run while Python ends, and the process aborts though its work is done.
    """
    yours = _process_group() is not None
    try:
        yield
    finally:
        group = _process_group()
        if group is not None and not yours:
            group.destroy_process_group()


def _process_group() -> ModuleType | None:
    """`torch.distributed` if a process group is there; looks without importing torch."""
    distributed = sys.modules.get("torch.distributed")
    there = distributed is not None and distributed.is_available() and distributed.is_initialized()
    return distributed if there else None

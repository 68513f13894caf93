"""Finetuning in several processes (`accelerate launch`, `torchrun`): all of them train, one of them speaks and writes."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from accelerate import PartialState

T = TypeVar("T")


def _processes() -> PartialState:
    import torch
    from accelerate import PartialState

    return PartialState(cpu=not torch.accelerator.is_available())  # on a CPU it would take no notice of other processes


def is_first_process() -> bool:
    """Whether this process speaks and writes for all; true without a launcher."""
    return _processes().is_main_process


@contextmanager
def first_process_speaks() -> Iterator[None]:
    """What the other processes print goes nowhere."""
    if is_first_process():
        yield
        return
    with redirect_stdout(io.StringIO()):
        yield


def in_first_process(work: Callable[[], T]) -> T:
    """Call `work` in the first process alone, while the others wait for it. Every process of the run calls this.

    Returns:
        What `work` returns, in every process.

    Raises:
        Exception: of `work`, in the first process. SystemExit: then, in the others, so that one of them tells the error.
    """
    result = error = None
    if is_first_process():
        try:
            result = work()
        except Exception as caught:  # whatever it is, the others must not wait for ever
            error = caught
    if _processes().num_processes > 1:
        from accelerate.utils import broadcast_object_list

        failed, result = broadcast_object_list([error is not None, result])
        if failed and error is None:
            raise SystemExit(1)
    if error is not None:
        raise error
    return result


def first_process_first(work: Callable[[], T]) -> T:
    """Call `work` in the first process, then in all others; as `in_first_process` where it fails."""
    result = in_first_process(work)
    return result if is_first_process() else work()

"""Checkpoints of a pretraining run: whole or not there at all, and all that the run needs to go on as if never stopped.

A checkpoint `checkpoint-<step>` is a model folder of transformers (so that any class loads it) and beside the weights

| file | what |
|---|---|
| `optimizer.safetensors`, `optimizer.json` | the optimizer's tensors and its numbers |
| `process-<rank>.json` | torch's random numbers and the position in the data, of each process |
| `trainer_state.json` | step, seconds, loss scale, skipped steps |
| `deepspeed/` | instead of the optimizer's files, under DeepSpeed: its own checkpoint, one shard per process |

Nothing of it is unpickled but DeepSpeed's own files, by DeepSpeed.
"""

import json
import logging
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from transformers import PreTrainedConfig

from ..files import read_json, write_json
from .contrastive import random_states, set_random_states

logger = logging.getLogger(__name__)

NAME = re.compile(r"checkpoint-(\d+)")
UNFINISHED = ".unfinished-"
# Options that may differ when a run goes on: its length, what it reports and keeps, and what changes speed and memory
# alone. The last three may, as long as `sentences_per_pass` and `sentences_per_step`, which checkpoints note, do not.
MAY_CHANGE = frozenset(
    [
        "max_steps",
        "minutes",
        "logging_steps",
        "eval_steps",
        "report_to",
        "save_steps",
        "save_minutes",
        "save_total_limit",
        "max_skipped_steps",
        "resume_from_checkpoint",
        "num_workers",
        "attn_implementation",
        "gradient_checkpointing",
        "torch_compile",
        "pad_to_multiple_of",
        "batch_size",
        "gradient_accumulation_steps",
        "global_batch_size",
    ]
)
# Of a model's configuration: what is of the files and not of the model.
NOT_OF_THE_MODEL = frozenset(["transformers_version", "dtype", "architectures", "auto_map", "_name_or_path"])


def checkpoints_of(output_dir: str | os.PathLike) -> list[Path]:
    """The finished checkpoints in a folder, oldest first."""
    found = [path for path in Path(output_dir).glob("checkpoint-*") if NAME.fullmatch(path.name) and path.is_dir()]
    return sorted(found, key=_step_of)


def _step_of(checkpoint: Path) -> int:
    return int(NAME.fullmatch(checkpoint.name)[1])


def find_checkpoint(resume_from: str | None, output_dir: str | os.PathLike | None) -> Path | None:
    """The checkpoint that `resume_from_checkpoint` names; None to begin at the beginning.

    "last" is the newest one whose files are whole; a log line names what is damaged in a newer one.

    Raises:
        ValueError: the folder is no checkpoint, none is whole, or the run would begin where there are checkpoints of
            another.
    """
    existing = checkpoints_of(output_dir) if output_dir is not None else []
    if resume_from == "last":
        return _newest_whole(existing)
    if resume_from is not None:
        chosen = Path(resume_from)
        if not (chosen / "trainer_state.json").is_file():
            raise ValueError(f"resume_from_checkpoint: {resume_from} is no checkpoint (it has no trainer_state.json)")
        if existing and _step_of(existing[-1]) > read_state(chosen)["step"]:
            raise ValueError(
                f"{output_dir} holds {existing[-1].name}, which is later than {chosen}: resume from the last, or choose "
                "another output_dir"
            )
        return chosen
    if existing:
        raise ValueError(
            f"{output_dir} holds {existing[-1].name} of an earlier run: go on from it with "
            "resume_from_checkpoint=last, or choose another output_dir"
        )
    return None


def _newest_whole(existing: list[Path]) -> Path | None:
    damaged = []
    for checkpoint in reversed(existing):
        fault = damage_of(checkpoint)
        if fault is None:
            if damaged:
                logger.warning("%s: going on from %s", "; ".join(damaged), checkpoint)
            return checkpoint
        damaged.append(fault)
    if damaged:
        raise ValueError(f"no checkpoint is whole: {'; '.join(damaged)}. To begin anew, choose another output_dir")
    return None


def damage_of(checkpoint: Path) -> str | None:
    """What is missing or cut off in a checkpoint, naming the file; None if every file can be read."""
    try:
        state = read_state(checkpoint)
        for rank in range(state["processes"]):
            read_json(checkpoint / _process_file(rank))
        if not (checkpoint / "deepspeed").is_dir():
            read_json(checkpoint / "optimizer.json", list)
            _check_header(checkpoint / "optimizer.safetensors")
        read_json(checkpoint / "config.json")
        weights = sorted(checkpoint.glob("model*.safetensors"))
        for file in weights or [checkpoint / "model.safetensors"]:
            _check_header(file)
    except (OSError, ValueError) as error:
        return str(error)
    except (KeyError, TypeError) as error:
        return f"{checkpoint / 'trainer_state.json'} has no {error}"
    return None


def _check_header(file: Path) -> None:
    """
    Raises:
        ValueError: the file is not there, or has not all the bytes that its header says.
    """
    try:
        with safe_open(file, "pt"):
            pass
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{file} is damaged ({error})") from None


def remove_checkpoints(output_dir: str | os.PathLike) -> None:
    """Delete the checkpoints of an earlier run, and what one that was killed left unfinished."""
    for old in (*checkpoints_of(output_dir), *Path(output_dir).glob(f"{UNFINISHED}*")):
        shutil.rmtree(old)


def check_same_settings(before: Mapping[str, Any], now: Mapping[str, Any], where: str | os.PathLike) -> None:
    """
    Compare the options of a run with those of the part of it that is there.

    Raises:
        ValueError: one that shapes the result differs; the message names each, with both values.
    """
    told = [
        f"{name} was {before[name]!r}, now {now[name]!r}"
        for name in before.keys() & now.keys() - MAY_CHANGE
        if before[name] != now[name]
    ]
    if told:
        raise ValueError(
            f"{where} was made with other options: {', '.join(sorted(told))}. A run goes on as it began; only its length, "
            f"reports, checkpoints and workers may change"
        )


def check_same_model(checkpoint: Path, config: PreTrainedConfig) -> None:
    """
    Raises:
        ValueError: the checkpoint's model has another configuration; the message names what differs.
    """
    before, now = read_json(checkpoint / "config.json"), json.loads(config.to_json_string())
    missing = object()
    names = sorted((before.keys() | now.keys()) - NOT_OF_THE_MODEL)
    differing = [name for name in names if before.get(name, missing) != now.get(name, missing)]
    if differing:
        told = ", ".join(f"{name} was {before.get(name)!r}, now {now.get(name)!r}" for name in differing)
        raise ValueError(f"{checkpoint} is of another model: {told}; use the preset it was made with")


def save_checkpoint(
    output_dir: str | os.PathLike, accelerator: Accelerator, model, optimizer, run: dict, data: dict, keep: int
) -> Path:
    """Write `checkpoint-<step>` of `run`, and delete all but the last `keep` of those up to it.

    Later ones are damaged, or the run would not have begun before them: they are not counted, and stay until the run has
    come so far. It is written under another name and renamed when it is whole. Every process calls this; they share the
    folder.

    Args:
        model: as `accelerator.prepare` gave it; `optimizer` likewise.
        run: `trainer_state.json`, the same in every process; has `step`.
        data: this process's position in the data.

    Raises:
        OSError: it could not be written; earlier checkpoints are as they were.
    """
    output_dir = Path(output_dir)
    final = output_dir / f"checkpoint-{run['step']}"
    staging = output_dir / f"{UNFINISHED}{final.name}"
    with _all_or_none(accelerator, final, staging):
        if accelerator.is_main_process:
            for left in output_dir.glob(f"{UNFINISHED}*"):
                shutil.rmtree(left, ignore_errors=True)
            staging.mkdir(parents=True)
    with _all_or_none(accelerator, final, staging):
        process = {"random": _random_states(accelerator.device), "data": data}
        write_json(staging / _process_file(accelerator.process_index), process)
        if accelerator.distributed_type == "DEEPSPEED":
            model.save_checkpoint(str(staging), tag="deepspeed")
        if accelerator.is_main_process:
            unwrapped = accelerator.unwrap_model(model, keep_torch_compile=False)
            unwrapped.save_pretrained(staging)
            if accelerator.distributed_type != "DEEPSPEED":
                _save_optimizer(staging, optimizer)
            scaler = accelerator.scaler.state_dict() if accelerator.scaler is not None else None
            state = run | {"scaler": scaler, "processes": accelerator.num_processes}
            write_json(staging / "trainer_state.json", state)
    if accelerator.is_main_process:
        _sync_to_disk(staging)
        replaced = output_dir / f"{UNFINISHED}old-{final.name}"
        if final.exists():
            os.replace(final, replaced)
        os.replace(staging, final)
        whole = [path for path in checkpoints_of(output_dir) if _step_of(path) <= run["step"]]
        for old in [replaced, *whole[:-keep]]:
            shutil.rmtree(old, ignore_errors=True)
    accelerator.wait_for_everyone()
    return final


def load_checkpoint(checkpoint: Path, accelerator: Accelerator, model, optimizer) -> tuple[dict, dict]:
    """Set model, optimizer, loss scale and random numbers to what they were; returns `run` and `data`.

    With another number of processes than the run had, the random numbers (of dropout) are drawn anew; `data` is then
    that of the first process.

    Raises:
        ValueError: the checkpoint is of another model, or (DeepSpeed) of another number of processes.
    """
    run = read_state(checkpoint)
    same_processes = run["processes"] == accelerator.num_processes
    if accelerator.distributed_type == "DEEPSPEED":
        if not (checkpoint / "deepspeed").is_dir() or not same_processes:
            raise ValueError(
                f"{checkpoint} must be a DeepSpeed checkpoint of {accelerator.num_processes} processes, and has "
                f"{run['processes']}: resume it as it was run, or start from its weights"
            )
        model.load_checkpoint(str(checkpoint), tag="deepspeed")
    else:
        _load_weights(checkpoint, accelerator.unwrap_model(model, keep_torch_compile=False))
        _load_optimizer(checkpoint, optimizer)
    if accelerator.scaler is not None and run["scaler"]:
        accelerator.scaler.load_state_dict(run["scaler"])
    process = read_json(checkpoint / _process_file(accelerator.process_index if same_processes else 0))
    if same_processes:
        _set_random_states(process["random"])
    return run, process["data"]


@contextmanager
def _all_or_none(accelerator: Accelerator, final: Path, staging: Path) -> Iterator[None]:
    """If a process cannot write its part, every process raises, and what was written is deleted."""
    error = None
    try:
        yield
    # a full disk is an OSError to Python, a SafetensorError to safetensors and a RuntimeError to torch.save
    except (OSError, SafetensorError, RuntimeError) as caught:
        error = caught
        if accelerator.distributed_type == "DEEPSPEED":
            # the others may wait for this process within DeepSpeed: it must end, so that the launcher ends them; what
            # was written is deleted when the next checkpoint begins
            raise OSError(_not_written(final, f": {error}")) from error
    failures = accelerator.reduce(torch.tensor(float(error is not None), device=accelerator.device), "sum").item()
    if failures:
        if accelerator.is_main_process:
            shutil.rmtree(staging, ignore_errors=True)
        raise OSError(_not_written(final, f": {error}" if error is not None else " in another process")) from error


def _not_written(final: Path, told: str) -> str:
    return (
        f"{final} could not be written{told}. Earlier checkpoints are as they were: when there is room and the folder can "
        "be written, go on with resume_from_checkpoint=last"
    )


def check_shared(output_dir: str | os.PathLike, accelerator: Accelerator) -> None:
    """All processes call this before they train.

    Raises:
        OSError: not all of them see one folder, or it cannot be written.
    """
    if accelerator.num_processes == 1:
        return
    output_dir, error = Path(output_dir), None
    marker = output_dir / f"{UNFINISHED}seen"
    if accelerator.is_main_process:
        try:
            output_dir.mkdir(parents=True, exist_ok=True)
            marker.touch()
        except OSError as caught:
            error = caught
    accelerator.wait_for_everyone()
    seen = torch.tensor(float(marker.exists()), device=accelerator.device)
    everyone = accelerator.reduce(seen, "sum").item() == accelerator.num_processes
    if accelerator.is_main_process:
        marker.unlink(missing_ok=True)
    if not everyone:
        raise OSError(
            f"output_dir: every process must see the same {output_dir} (of a shared file system)"
            + (f"; it cannot be written: {error}" if error else "")
        )


def _load_weights(checkpoint: Path, model) -> None:
    weights = load_file(checkpoint / "model.safetensors", device=str(model.device))
    found = model.load_state_dict(weights, strict=False)
    state = model.state_dict()
    there = {state[name].data_ptr() for name in weights if name in state}
    # tied weights are written once
    missing = [name for name in found.missing_keys if state[name].data_ptr() not in there]
    if missing or found.unexpected_keys:
        names = ", ".join([*missing, *found.unexpected_keys][:3])
        raise ValueError(f"{checkpoint} is of another model: {names}, ... do not fit; use the preset it was made with")


def _save_optimizer(folder: Path, optimizer) -> None:
    state = optimizer.state_dict()
    tensors = {f"{index}.{name}": tensor for index, of in state["state"].items() for name, tensor in of.items()}
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "optimizer.safetensors")
    write_json(folder / "optimizer.json", state["param_groups"])


def _load_optimizer(folder: Path, optimizer) -> None:
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, tensor in load_file(folder / "optimizer.safetensors").items():
        index, _, name = key.partition(".")
        state.setdefault(int(index), {})[name] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": read_json(folder / "optimizer.json", list)})


def _random_states(device: torch.device) -> dict[str, str]:
    return {name: bytes(state.tolist()).hex() for name, state in random_states(device).items()}


def _set_random_states(states: dict[str, str]) -> None:
    tensors = {name: torch.tensor(list(bytes.fromhex(state)), dtype=torch.uint8) for name, state in states.items()}
    set_random_states(tensors)


def _process_file(rank: int) -> str:
    return f"process-{rank:05}.json"


def read_state(checkpoint: Path) -> dict:
    """`trainer_state.json` of a checkpoint."""
    return read_json(checkpoint / "trainer_state.json")


def _sync_to_disk(folder: Path) -> None:
    """Wait until the files are on the disk, so that the rename cannot come before them."""
    for path in [path for path in folder.rglob("*") if path.is_file()]:
        with open(path, "rb") as file:
            os.fsync(file.fileno())

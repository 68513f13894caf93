"""What a run shows of itself: a progress bar, `log.jsonl`, and Accelerate's trackers."""

import json
import math
import os
from pathlib import Path

import torch
from accelerate import Accelerator
from tqdm.auto import tqdm

from ..files import write_whole
from ..options import as_plain
from .arguments import PretrainingArguments

SECONDS_BETWEEN_REPORTS = 0.5
LOG_NAME = "log.jsonl"
# What the bar shows of a row, under which name.
SHOWN = {
    "loss": ("loss", "{:.3g}"),
    "mlm_loss": ("mlm", "{:.3g}"),
    "contrastive_accuracy": ("accuracy", "{:.1%}"),
    "tokens_per_second": ("tokens/s", "{:.0f}"),
    "mfu": ("MFU", "{:.0%}"),
    "loss_scale": ("scale", "{:g}"),
    "data_wait": ("data wait", "{:.0%}"),
    "skipped_steps": ("skipped", "{:d}"),
}


class RunningMeans:
    """Means of scalars over the steps since they were last reset; reading them is what waits for the device."""

    def __init__(self):
        self.sums: dict[str, torch.Tensor] = {}
        self.count = 0

    def add(self, values: dict[str, torch.Tensor]) -> None:
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0) + value
        self.count += 1

    def read(self) -> dict[str, float]:
        return {name: float(total) / self.count for name, total in self.sums.items()} if self.count else {}

    def read_all_processes(self, accelerator: Accelerator) -> dict[str, float]:
        """The means over all processes; then begin anew. Every process must call it."""
        means = self.read()
        if accelerator.num_processes > 1 and means:
            values = torch.tensor(list(means.values()), dtype=torch.float64 if _has_float64(accelerator) else None)
            values = accelerator.reduce(values.to(accelerator.device), reduction="mean")
            means = dict(zip(means, values.tolist(), strict=True))
        self.sums, self.count = {}, 0
        return means


class Report:
    """The progress bar, the rows of `log.jsonl` and the trackers of a run; all but the main process show nothing.

    Args:
        output_dir: where `log.jsonl` and the trackers' files go; None: only the bar.
        description: the bar's label.
        step: rows after it are of a part of the run that is done again, and deleted.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        arguments: PretrainingArguments,
        output_dir: str | os.PathLike | None,
        description: str,
        step: int,
    ):
        self.accelerator = accelerator
        self.arguments = arguments
        self.shown_at = -math.inf
        steps, minutes = arguments.max_steps, arguments.minutes
        self.bar = tqdm(
            total=steps or round(minutes * 60),
            unit="step" if steps else "s",
            desc=description,
            disable=not accelerator.is_main_process,
            dynamic_ncols=True,
            initial=step if steps else 0,
        )
        self.path = Path(output_dir) / LOG_NAME if output_dir is not None else None
        if self.path is not None and accelerator.is_main_process:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            _keep_rows(self.path, step)
        if self.path is not None and accelerator.log_with:
            accelerator.init_trackers("pretraining", config={k: _simple(v) for k, v in as_plain(arguments).items()})

    def show(self, step: int, seconds: float, row: dict) -> None:
        """Bring the bar up to date."""
        self.shown_at = seconds
        self.bar.set_postfix(
            {label: form.format(row[name]) for name, (label, form) in SHOWN.items() if row.get(name) is not None}
        )
        done = step if self.arguments.max_steps else int(seconds)
        self.bar.update(min(done, self.bar.total) - self.bar.n)

    def is_due(self, seconds: float) -> bool:
        return self.accelerator.is_main_process and seconds - self.shown_at >= SECONDS_BETWEEN_REPORTS

    def log(self, row: dict) -> None:
        """Append a row, which has its `step`, to `log.jsonl`, and give it to the trackers."""
        if self.path is not None and self.accelerator.is_main_process:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        self.accelerator.log({name: value for name, value in row.items() if name != "step"}, step=row["step"])

    def close(self) -> None:
        self.bar.close()
        for tracker in self.accelerator.trackers:
            tracker.finish()  # not `end_training`, after which processes could not talk any more
        self.accelerator.trackers = []


def read_log(output_dir: str | os.PathLike) -> list[dict]:
    """The rows of a run's `log.jsonl`, oldest first; a line that a crash cut off is left out."""
    path = Path(output_dir) / LOG_NAME
    if not path.is_file():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows


def _keep_rows(path: Path, step: int) -> None:
    rows = [row for row in read_log(path.parent) if row["step"] <= step] if step else []
    write_whole(path, "".join(json.dumps(row) + "\n" for row in rows))


def _simple(value):
    return value if isinstance(value, bool | int | float | str) else str(value)


def _has_float64(accelerator: Accelerator) -> bool:
    return accelerator.device.type != "mps"

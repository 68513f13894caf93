"""The pretraining loop, on Accelerate."""

import inspect
import itertools
import json
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast, set_seed
from torch.utils.data import DataLoader, Dataset, Sampler
from tqdm.auto import tqdm

from .arguments import PretrainingArguments

# What is averaged of a model's outputs, and how the progress bar calls it.
AVERAGED = {"loss": "loss", "mlm_loss": "mlm", "contrastive_loss": None, "contrastive_accuracy": "accuracy"}
SECONDS_BETWEEN_REPORTS = 0.5


class Sentences(Dataset):
    """Sentences under the keys of `EpochBatchSampler`: (epoch, index) -> {"text", "epoch"}."""

    def __init__(self, sentences: Sequence[str]):
        self.sentences = sentences

    def __len__(self) -> int:
        return len(self.sentences)

    def __getitem__(self, key: tuple[int, int]) -> dict:
        epoch, index = key
        return {"text": self.sentences[index], "epoch": epoch}


class EpochBatchSampler(Sampler):
    """Batches of keys (epoch, index), epoch after epoch without end, in an order that `seed` fixes.

    Every epoch has every index once; a batch may hold the end of one epoch and the beginning of the next. The workers
    of a DataLoader live through all epochs, and the collator learns which one an example belongs to.

    Args:
        lengths: of each example. `POOL_BATCHES` batches at a time are drawn at random and cut by length, so that a
            batch has little padding, and negatives that length alone does not tell apart.
        batch_size, seed: of the batches and their order.
    """

    POOL_BATCHES = 8

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int):
        self.lengths = np.asarray(lengths)
        self.batch_size = batch_size
        self.seed = seed

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        keys = self._keys()
        for pool_number in itertools.count():
            pool = list(itertools.islice(keys, self.POOL_BATCHES * self.batch_size))
            pool.sort(key=lambda key: self.lengths[key[1]])
            for batch in np.random.default_rng((self.seed, 1, pool_number)).permutation(self.POOL_BATCHES):
                yield pool[batch * self.batch_size : (batch + 1) * self.batch_size]

    def _keys(self) -> Iterator[tuple[int, int]]:
        for epoch in itertools.count():
            order = np.random.default_rng((self.seed, 0, epoch)).permutation(len(self.lengths))
            yield from ((epoch, index) for index in order.tolist())


class RoCBertPretrainer:
    """Train a model on sentences: AdamW, linear warm-up and decay, clipping, a progress bar.

    Args:
        model: `RoCBertForPreTraining`, or any model of transformers whose output has a `loss`, such as
            `BertForMaskedLM`: of the collator's batch it is given what its `forward` takes.
        sentences: the training texts.
        collator: makes a batch of `{"text", "epoch"}` dicts.
        arguments: see `PretrainingArguments`.
        accelerator: default, one for `arguments`.
        description: the progress bar's label.

    The weights after N steps depend on the arguments and the number of processes only: not on `num_workers`, and not on
    the speed of the machine unless `minutes` ends the run (the learning rate falls with whichever of `max_steps` and
    `minutes` is nearer its end).

    Raises:
        ValueError: there are fewer sentences than a batch holds.
    """

    def __init__(
        self,
        model,
        sentences: Sequence[str],
        collator,
        arguments: PretrainingArguments,
        accelerator: Accelerator | None = None,
        description: str = "pretraining",
    ):
        if len(sentences) < arguments.batch_size:
            raise ValueError(
                f"the corpus has {len(sentences)} sentences to train on, fewer than batch_size "
                f"({arguments.batch_size}): give more text or a smaller batch"
            )
        self.model = model
        self.sentences = sentences
        self.collator = collator
        self.arguments = arguments
        self.accelerator = accelerator or Accelerator(
            mixed_precision=arguments.mixed_precision,
            gradient_accumulation_steps=arguments.gradient_accumulation_steps,
        )
        self.description = description

    def train(self) -> dict[str, float]:
        """Run to `max_steps` or `minutes`; returns steps, seconds, sentences a second, and the last mean losses."""
        arguments, accelerator = self.arguments, self.accelerator
        set_seed(arguments.seed)
        optimizer = adamw(self.model, arguments.learning_rate, arguments.weight_decay)
        model, optimizer, batches = accelerator.prepare(self.model, optimizer, self._loader())
        taken = set(inspect.signature(self.model.forward).parameters)
        sentences_a_step = arguments.batch_size * arguments.gradient_accumulation_steps * accelerator.num_processes

        model.train()
        step, report = 0, _RunningMeans()
        with self._progress_bar() as bar:
            started = time.perf_counter()
            for batch in batches:
                with accelerator.accumulate(model):
                    outputs = model(**{name: tensor for name, tensor in batch.items() if name in taken})
                    accelerator.backward(outputs.loss)
                    if accelerator.sync_gradients:
                        accelerator.clip_grad_norm_(model.parameters(), arguments.max_grad_norm)
                        factor = learning_rate_factor(self._progress(step + 0.5, started), arguments.warmup_ratio)
                        for group in optimizer.param_groups:
                            group["lr"] = arguments.learning_rate * factor
                    optimizer.step()
                    optimizer.zero_grad()
                report.add(outputs)
                if not accelerator.sync_gradients:
                    continue
                step += 1
                seconds = time.perf_counter() - started
                finished = self._progress(step, started) >= 1
                if finished or seconds - report.shown_at >= SECONDS_BETWEEN_REPORTS:
                    means = report.read(seconds)
                    speed = step * sentences_a_step / seconds
                    shown = {label: f"{means[name]:.3g}" for name, label in AVERAGED.items() if label and name in means}
                    bar.set_postfix(shown | {"sentences/s": f"{speed:.0f}"})
                bar.update(min((step if arguments.max_steps else int(seconds)), bar.total) - bar.n)
                if finished:
                    break
        self.model.eval()
        return {
            "steps": step,
            "seconds": seconds,
            "epochs": step * sentences_a_step / len(self.sentences),
            "sentences_per_second": speed,
            **means,
        }

    def _loader(self) -> DataLoader:
        arguments = self.arguments
        lengths = [len(sentence) for sentence in self.sentences]
        return DataLoader(
            Sentences(self.sentences),
            batch_sampler=EpochBatchSampler(lengths, arguments.batch_size, arguments.seed),
            collate_fn=self.collator,
            num_workers=arguments.num_workers,
            pin_memory=self.accelerator.device.type == "cuda",
        )

    def _progress(self, step: float, started: float) -> float:
        """Share of the run that is over, the same number in every process."""
        arguments = self.arguments
        by_steps = step / arguments.max_steps if arguments.max_steps else 0.0
        if arguments.minutes is None:
            return by_steps
        by_time = torch.tensor(
            (time.perf_counter() - started) / (60 * arguments.minutes), device=self.accelerator.device
        )
        return max(by_steps, broadcast(by_time).item())

    def _progress_bar(self) -> tqdm:
        steps, minutes = self.arguments.max_steps, self.arguments.minutes
        return tqdm(
            total=steps or round(minutes * 60),
            unit="step" if steps else "s",
            desc=self.description,
            disable=not self.accelerator.is_main_process,
            dynamic_ncols=True,
        )


class _RunningMeans:
    """Means of a model's scalar outputs since they were last read; reading is what waits for the device."""

    def __init__(self):
        self.sums: dict[str, torch.Tensor] = {}
        self.count = 0
        self.shown_at = float("-inf")

    def add(self, outputs) -> None:
        for name in AVERAGED:
            if outputs.get(name) is not None:
                self.sums[name] = self.sums.get(name, 0) + outputs[name].detach()
        self.count += 1

    def read(self, now: float) -> dict[str, float]:
        means = {name: float(total) / self.count for name, total in self.sums.items()}
        self.sums, self.count, self.shown_at = {}, 0, now
        return means


def adamw(model: torch.nn.Module, learning_rate: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW (fused where torch has it for the device) with weight decay on matrices only, as BERT's."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [parameter for parameter in trainable if parameter.ndim > 1], "weight_decay": weight_decay},
        {"params": [parameter for parameter in trainable if parameter.ndim <= 1], "weight_decay": 0.0},
    ]
    fused = {parameter.device.type for parameter in trainable} <= {"cpu", "cuda", "mps", "xpu"}
    return torch.optim.AdamW(groups, lr=learning_rate, fused=fused)


def learning_rate_factor(progress: float, warmup_ratio: float) -> float:
    """Linear from 0 to 1 over the first `warmup_ratio` of the run, then linear to 0 at its end; `progress` in [0, 1]."""
    if progress < warmup_ratio:
        return progress / warmup_ratio
    return max(0.0, (1 - progress) / (1 - warmup_ratio)) if warmup_ratio < 1 else 1.0


def save_run(output_dir: str | os.PathLike, model, tokenizer, results: dict) -> None:
    """Write model, tokenizer and `all_results.json`, each file whole or not at all.

    Everything is written to a temporary folder beside its place first, then renamed into `output_dir`; a run that is
    interrupted before leaves an earlier run's files as they were.
    """
    with _staged_folder(Path(output_dir)) as staging:
        model.save_pretrained(staging)
        tokenizer.save_pretrained(staging)
        (staging / "all_results.json").write_text(
            json.dumps(results, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
        )


@contextmanager
def _staged_folder(output_dir: Path) -> Iterator[Path]:
    """A new folder whose files are moved into `output_dir` when all of them are written."""
    output_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".unfinished-", dir=output_dir) as staging:
        yield Path(staging)
        for file in sorted(path for path in Path(staging).rglob("*") if path.is_file()):
            target = output_dir / file.relative_to(staging)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(file, target)

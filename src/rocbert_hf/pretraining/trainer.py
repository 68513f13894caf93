"""The pretraining loop, on Accelerate: one process or many, DistributedDataParallel or DeepSpeed."""

import inspect
import json
import os
import signal
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch.utils.data import DataLoader

from ..checkpoints import check_max_length
from ..files import staged_folder
from ..options import as_plain
from .arguments import PretrainingArguments
from .contrastive import GradientCache, carried_back, global_contrastive_loss, replayed
from .corpus.batches import SentenceBatches, Texts
from .corpus.text_source import TextSource
from .devices import device_name, make_accelerator, peak_flops, training_flops
from .distillation import TEACHER, SentenceTeacher
from .masking import IGNORED_LABEL
from .optimizer import adamw
from .reporting import Report, RunningMeans
from .resuming import (
    check_same_model,
    check_same_settings,
    check_shared,
    find_checkpoint,
    load_checkpoint,
    read_state,
    save_checkpoint,
)

ATTACKED = "attack_"
CLEAN = "labels_"


class RoCBertPretrainer:
    """Train a model on sentences: AdamW, linear warm-up and decay, clipping, checkpoints, a progress bar and a log.

    Args:
        model: `RoCBertForPreTraining`, or any model of transformers whose output has a `loss`, such as
            `BertForMaskedLM`: of the collator's batch it is given what its `forward` takes.
        sources: the training texts, in memory, or `TextSource`s that are streamed; see `SentenceBatches`.
        collator: makes a batch of `{"text", "epoch"}` dicts.
        arguments: see `PretrainingArguments`.
        accelerator: default, one for `arguments`, by `make_accelerator`.
        description: the progress bar's label.
        output_dir: where checkpoints, `log.jsonl` and the trackers' files go; None: there are none.
        evaluate: called with the model every `eval_steps`, in the main process; gives numbers by name for the log.
        exclude: sentences of the sources that are not trained on: the held-out ones.
        teacher: adds the distillation loss; the collator then has its `inputs`.

    The weights after N steps depend on the arguments and the number of processes only: not on `num_workers`, not on
    whether the run was stopped and resumed in between, and not on the speed of the machine unless `minutes` ends the run
    (the learning rate falls with whichever of `max_steps` and `minutes` is nearer its end). Without dropout, N processes
    with a `batch_size` of B give the weights of one process with N * B, to rounding.

    Raises:
        ValueError: there are fewer sentences than a batch holds, or the model and the arguments do not fit.
    """

    def __init__(
        self,
        model,
        sources: Sequence[str] | Sequence[TextSource],
        collator,
        arguments: PretrainingArguments,
        accelerator: Accelerator | None = None,
        description: str = "pretraining",
        output_dir: str | os.PathLike | None = None,
        evaluate: Callable[[torch.nn.Module], dict[str, float]] | None = None,
        exclude: Collection[str] = (),
        teacher: SentenceTeacher | None = None,
    ):
        self.accelerator = accelerator or make_accelerator(arguments, output_dir)
        self.model = model
        self.sources = sources
        self.collator = collator
        self.arguments = arguments
        self.description = description
        self.output_dir = None if output_dir is None else Path(output_dir)
        self.evaluate = evaluate
        self.taken = {*inspect.signature(model.forward).parameters, *getattr(model, "further_inputs", ())}
        # a model of another kind has its own loss
        self.contrasts = arguments.contrasts and "return_representations" in self.taken
        self.teacher = teacher
        self.peak_flops = peak_flops(device_name(self.accelerator.device), self.accelerator.mixed_precision)
        self._check()
        self.exclude = exclude
        self.resume_from = find_checkpoint(arguments.resume_from_checkpoint, self.output_dir)
        if self.resume_from is not None:
            check_same_settings(read_state(self.resume_from)["arguments"], self._settings(), self.resume_from)
            check_same_model(self.resume_from, model.config)
        self.batches = SentenceBatches(
            sources,
            arguments.batch_size,
            arguments.seed,
            rank=self.accelerator.process_index,
            world_size=self.accelerator.num_processes,
            max_length=arguments.max_length - 2,
            shard_by=arguments.shard_by,
            shuffle_buffer=arguments.shuffle_buffer,
            exclude=exclude,
        )

    def _settings(self) -> dict:
        """What a checkpoint notes of the options, to compare when the run goes on."""
        sentences = self.arguments.batch_size * self.accelerator.num_processes
        passes = self.accelerator.gradient_accumulation_steps
        return as_plain(self.arguments) | {"sentences_per_pass": sentences, "sentences_per_step": sentences * passes}

    def _check(self) -> None:
        arguments = self.arguments
        if self.output_dir is None:
            for name in ("save_steps", "save_minutes", "resume_from_checkpoint"):
                if getattr(arguments, name) is not None:
                    raise ValueError(f"{name} needs an output_dir")
        passes = arguments.accumulation(self.accelerator.num_processes)
        if self.accelerator.gradient_accumulation_steps != passes:
            raise ValueError(
                f"the accelerator accumulates {self.accelerator.gradient_accumulation_steps} passes per step and the "
                f"arguments say {passes}: use make_accelerator(arguments)"
            )
        contrasted = arguments.batch_size * self.accelerator.num_processes * (passes if arguments.gradient_cache else 1)
        if self.contrasts and contrasted < 2:
            raise ValueError(
                "batch_size must be at least 2 for the contrastive loss, which tells a sentence apart from the others of a "
                "forward pass, got 1; with gradient_cache, from those of the optimizer step"
            )
        scorer = getattr(getattr(self.collator, "synthesizer", None), "scorer", None)
        if arguments.num_workers and scorer is not None and not scorer.parallel:
            raise ValueError(
                f"num_workers must be 0 with the scorer {scorer.name!r}, which cannot be copied to other processes, got "
                f"{arguments.num_workers}"
            )
        if arguments.eval_steps is not None and self.evaluate is None:
            raise ValueError("eval_steps needs something to evaluate with")
        check_max_length(self.model, arguments.max_length)
        if self.teacher is not None and len(self.teacher.scales) != self.model.config.hidden_size:
            raise ValueError(
                f"the encoder to distill from must be as wide as the model ({self.model.config.hidden_size}), got "
                f"{len(self.teacher.scales)}"
            )
        dropout = max(
            (module.p for module in self.model.modules() if isinstance(module, torch.nn.Dropout)), default=0.0
        )
        if arguments.objective == "simcse" and self.contrasts and not dropout:
            raise ValueError(
                "objective simcse tells two views apart by dropout, and the model's is 0: set hidden_dropout_prob"
            )

    def train(self) -> dict[str, float]:
        """Run to `max_steps` or `minutes`, or until SIGTERM.

        Returns:
            Steps, seconds, epochs, sentences and tokens per second, skipped steps, skipped lines of the text by reason
            (as this process read them), the last mean losses, and whether the run was `interrupted`: SIGTERM lets the
            step in hand end and writes a checkpoint (if there is an `output_dir`).

        Raises:
            FloatingPointError: `max_skipped_steps` in a row had a loss or gradient that was not finite.
            OSError: a checkpoint could not be written, or processes have folders of their own under `output_dir`.
        """
        arguments, accelerator = self.arguments, self.accelerator
        if self.output_dir is not None:
            check_shared(self.output_dir, accelerator)
        set_seed(arguments.seed, device_specific=True)  # processes draw different dropout
        if arguments.gradient_checkpointing:
            self.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        if arguments.torch_compile:
            self.model.base_model.compile(dynamic=True)
        optimizer = adamw(self.model, arguments.learning_rate, arguments.weight_decay, arguments.channel_learning_rate)
        self.highest_rates = [group["lr"] for group in optimizer.param_groups]
        if self.teacher is not None:
            self.teacher.to(accelerator.device)
        if accelerator.distributed_type == "DEEPSPEED":
            config = accelerator.deepspeed_plugin.deepspeed_config
            config["train_micro_batch_size_per_gpu"] = arguments.batch_size
            config["gradient_clipping"] = arguments.max_grad_norm
        self.wrapped, self.optimizer = accelerator.prepare(self.model, optimizer)
        self.model.train()
        self.run = {"step": 0, "seconds": 0.0, "skipped_steps": 0, "skipped_in_a_row": 0}
        if self.resume_from is not None:
            state, data = load_checkpoint(self.resume_from, accelerator, self.wrapped, self.optimizer)
            self.run = {name: state[name] for name in self.run}
            self.batches.load_state_dict(data)
        report = Report(accelerator, arguments, self.output_dir, self.description, self.run["step"])
        try:
            with _sigterm_noticed() as sigterm:
                results = self._loop(report, sigterm)
        finally:
            report.close()
            self.wrapped = self.optimizer = None
            accelerator.free_memory()
        self.model.eval()
        if next(self.model.parameters()).dtype != torch.float32:
            self.model.float()  # DeepSpeed trains a half-precision copy
        return results

    def _loop(self, report: Report, sigterm: list) -> dict[str, float]:
        arguments, run = self.arguments, self.run
        passes = arguments.accumulation(self.accelerator.num_processes)
        sentences_a_step = arguments.batch_size * passes * self.accelerator.num_processes
        means, losses = RunningMeans(), {}
        whole, since_row = _Throughput(run["seconds"]), _Throughput(run["seconds"])
        begun = saved_at = run["seconds"]
        finished, interrupted = self._progress(run["step"], begun) >= 1, False
        batches = iter(self._loader())
        started = time.perf_counter()
        while not finished:
            waiting = time.perf_counter()
            micro_batches = [next(batches) for _ in range(passes)]
            waited = time.perf_counter() - waiting
            agreed = self._agree(micro_batches, begun + time.perf_counter() - started, bool(sigterm))
            if agreed["stop"]:
                interrupted = True
                self._save(passes)
                break
            progress = self._progress(run["step"] + 0.5, agreed["seconds"])
            factor = learning_rate_factor(progress, arguments.warmup_share())
            for group, highest in zip(self.optimizer.param_groups, self.highest_rates, strict=True):
                group["lr"] = highest * factor
            values, flops = self._forward_and_backward(micro_batches, agreed)
            if self._update():
                means.add(values)
                run["skipped_in_a_row"] = 0
            else:
                self._count_skipped()
            run["step"] += 1
            run["seconds"] = begun + time.perf_counter() - started
            for throughput in (whole, since_row):
                throughput.add(sentences_a_step, agreed["tokens"], flops, waited)
            # every process must come to the same conclusion, so by the clock that they agreed on
            finished = self._progress(run["step"], agreed["seconds"]) >= 1

            if finished or run["step"] % arguments.logging_steps == 0:
                losses = means.read_all_processes(self.accelerator)
                row = self._row(losses, since_row)
                report.log(row)
                report.show(run["step"], run["seconds"], row)
                since_row = _Throughput(run["seconds"])
            elif report.is_due(run["seconds"]):
                report.show(run["step"], run["seconds"], self._row(means.read(), since_row))
            if arguments.eval_steps and run["step"] % arguments.eval_steps == 0:
                report.log({"step": run["step"], **self._evaluate()})
            by_time = arguments.save_minutes and agreed["seconds"] - saved_at >= 60 * arguments.save_minutes
            if by_time or (arguments.save_steps and run["step"] % arguments.save_steps == 0):
                self._save(passes)
                saved_at = agreed["seconds"]
        rates = whole.rates(run["seconds"], None)
        return {
            "steps": run["step"],
            "seconds": run["seconds"],
            "epochs": self._epochs(run["step"] * sentences_a_step),
            **{name: rates[name] for name in ("sentences_per_second", "tokens_per_second", "data_wait")},
            "skipped_steps": run["skipped_steps"],
            "skipped_lines": self.batches.report["skipped"],
            "interrupted": interrupted,
            **losses,
        }

    def _row(self, losses: dict[str, float], throughput: "_Throughput") -> dict[str, float]:
        """A row of `log.jsonl`, without what does not apply."""
        row = {
            "step": self.run["step"],
            "seconds": self.run["seconds"],
            "epoch": self.batches.report["epoch"],
            **losses,
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            **throughput.rates(self.run["seconds"], self.peak_flops),
            "loss_scale": self._loss_scale(),
            "skipped_steps": self.run["skipped_steps"] or None,
            "skipped_lines": sum(self.batches.report["skipped"].values()) or None,
        }
        return {name: value for name, value in row.items() if value is not None}

    # -- one step

    def _forward_and_backward(
        self, micro_batches: list[dict[str, torch.Tensor]], agreed: dict
    ) -> tuple[dict[str, torch.Tensor], int]:
        """Gradients of the step's mean loss; returns its parts (scalars, of this process) and the arithmetic it took.

        Masked language modelling is averaged over the masked tokens of the whole step in all processes, so that the
        result does not depend on how the step is cut into passes and processes.
        """
        arguments, accelerator = self.arguments, self.accelerator
        inputs = [self._inputs(batch) for batch in micro_batches]
        targets = [self._targets(batch) for batch in micro_batches]
        flops = sum(self._flops(batch) for batch in inputs) if self.peak_flops else 0
        values: dict[str, torch.Tensor] = {}
        cached = None
        if self.contrasts and arguments.gradient_cache and len(inputs) > 1:  # one pass holds all sentences by itself
            loss, accuracy, cached = GradientCache(self._represent, self._contrast).contrast_all(inputs)
            values = {"contrastive_loss": loss, "contrastive_accuracy": accuracy}
        for number, batch in enumerate(inputs):
            same_dropout = replayed(cached[number].random_states) if cached else nullcontext()
            # processes exchange gradients in the last pass
            with accelerator.accumulate(self.wrapped), same_dropout:
                parts, objective = self._losses(batch, agreed)
                if self.teacher is not None:
                    loss = self.teacher.loss(parts.pop("sentence_vectors"), targets[number]) / len(inputs)
                    objective = objective + arguments.distillation_weight * loss
                    parts["distillation_loss"] = loss.detach()
                if cached:
                    objective = objective + carried_back(parts.pop("representations"), cached[number])
                elif self.contrasts:
                    loss, accuracy = self._contrast(parts.pop("representations"))
                    objective = objective + loss / len(inputs)
                    parts |= {
                        "contrastive_loss": loss.detach() / len(inputs),
                        "contrastive_accuracy": accuracy / len(inputs),
                    }
                # Accelerate and DeepSpeed divide by the number of passes: here that is done already
                accelerator.backward(objective * accelerator.gradient_accumulation_steps)
            for name, part in parts.items():
                values[name] = values.get(name, 0) + part
        summed = [values[name] for name in ("mlm_loss", "correction_loss", "contrastive_loss") if name in values]
        if "distillation_loss" in values:
            summed.append(arguments.distillation_weight * values["distillation_loss"])
        if arguments.objective == "contrastive_only":
            values.pop("mlm_loss")
        return {"loss": sum(summed), **values}, flops

    def _losses(self, batch: dict[str, torch.Tensor], agreed: dict) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """One pass: its share of the step's losses by name (detached), `representations` and `sentence_vectors` where
        they are needed, and the sum to minimize."""
        labels = {"mlm_loss": "labels", "correction_loss": f"{ATTACKED}labels"}
        outputs = self.wrapped(**batch, **self._asked())
        parts: dict[str, torch.Tensor] = {}
        objective = 0
        for name, key in labels.items():
            # other masked language models have one loss
            loss = outputs.get(name, outputs.loss if name == "mlm_loss" else None)
            if loss is None or key not in batch:
                continue
            own = (batch[key] != IGNORED_LABEL).sum()
            # DistributedDataParallel and DeepSpeed average over processes what is here a sum
            share = own * self.accelerator.num_processes / max(agreed[key], 1)
            objective = objective + loss * share
            parts[name] = (loss * share).detach()
        if self.contrasts:
            parts["representations"] = outputs.representations
        if self.teacher is not None:
            parts["sentence_vectors"] = outputs.sentence_vectors
        return parts, objective

    def _asked(self) -> dict[str, bool]:
        """What the model is asked to return. Both passes of the gradient cache must ask for the same: with sentence vectors
        the last layer is computed at every token, and dropout draws more numbers."""
        asked = {"return_representations": self.contrasts, "return_sentence_vectors": self.teacher is not None}
        return {name: True for name, needed in asked.items() if needed}

    def _targets(self, batch: dict[str, torch.Tensor]) -> torch.Tensor | None:
        """The teacher's vectors of the clean sentences, (batch, hidden)."""
        if self.teacher is None:
            return None
        with self.accelerator.autocast():
            return self.teacher({n: t.to(self.accelerator.device) for n, t in batch.items() if n.startswith(TEACHER)})

    def _represent(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return self.wrapped(**batch, **self._asked()).representations

    def _contrast(self, representations: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        arguments = self.arguments
        return global_contrastive_loss(representations, arguments.temperature, arguments.anchor, arguments.negatives)

    def _inputs(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """A batch as the objective has it, on the device, without what the model does not take."""
        arguments = self.arguments
        left_out = []
        if not self.contrasts:
            left_out.append(ATTACKED)
        if not self.contrasts or arguments.anchor == "masked":
            left_out.append(CLEAN)
        if not arguments.correct_attacked:
            left_out.append(f"{ATTACKED}labels")
        batch = {
            name: tensor.to(self.accelerator.device, non_blocking=True)
            for name, tensor in batch.items()
            if name in self.taken and not name.startswith(tuple(left_out))
        }
        if arguments.objective == "contrastive_only":
            # no label anywhere: the head computes nothing, and its gradients are 0
            batch["labels"] = torch.full_like(batch["labels"], IGNORED_LABEL)
        needed = [f"{view}input_ids" for view in self._views()] + [f"{ATTACKED}labels"] * arguments.correct_attacked
        if missing := [name for name in needed if name not in batch and self.contrasts]:
            raise ValueError(f"the collator's batch has no {missing[0]}, which the arguments ask for")
        return batch

    def _views(self) -> tuple[str, ...]:
        """What the names of the model's views begin with."""
        if not self.contrasts:
            return ("",)
        return ("", ATTACKED) if self.arguments.anchor == "masked" else ("", ATTACKED, CLEAN)

    def _update(self) -> bool:
        """Clip and take the optimizer's step; False if it was skipped because a gradient was not finite."""
        accelerator = self.accelerator
        if accelerator.distributed_type == "DEEPSPEED":  # did both in `backward`
            return not self.optimizer.step_was_skipped
        norm = accelerator.clip_grad_norm_(self.model.parameters(), self.arguments.max_grad_norm)
        if accelerator.scaler is None and not torch.isfinite(norm):
            self.optimizer.zero_grad()
            return False
        self.optimizer.step()
        self.optimizer.zero_grad()
        # with a loss scale, a fused optimizer leaves the step out by itself and says nothing of it
        return bool(torch.isfinite(norm)) and not self.optimizer.step_was_skipped

    def _count_skipped(self) -> None:
        run, allowed = self.run, self.arguments.max_skipped_steps
        run["skipped_steps"] += 1
        run["skipped_in_a_row"] += 1
        if run["skipped_in_a_row"] >= allowed:
            kept = find_checkpoint("last", self.output_dir)
            advice = f"the last good checkpoint is {kept}" if kept else "there is no checkpoint yet"
            raise FloatingPointError(
                f"step {run['step'] + 1}: {allowed} steps in a row were skipped because their gradients are not finite. "
                f"Weights are as they were before; {advice}. Try a lower learning_rate, more warm-up, or bf16"
            )

    def _agree(self, micro_batches: list[dict[str, torch.Tensor]], seconds: float, stop: bool) -> dict:
        """What all processes must know of a step: how many tokens are labelled and read; the clock; whether to stop."""
        names = ["labels", f"{ATTACKED}labels"]
        agreed = {name: sum(_labelled(batch, name) for batch in micro_batches) for name in names}
        read = [f"{view}attention_mask" for view in self._views()]
        agreed["tokens"] = sum(int(batch[name].sum()) for batch in micro_batches for name in read if name in batch)
        agreed["stop"] = float(stop)
        agreed["seconds"] = seconds if self.accelerator.is_main_process else 0.0
        if self.accelerator.num_processes > 1:
            values = torch.tensor(list(agreed.values()), device=self.accelerator.device)
            agreed = dict(zip(agreed, self.accelerator.reduce(values, reduction="sum").tolist(), strict=True))
        return agreed

    # -- around the steps

    def _save(self, passes: int) -> None:
        if self.output_dir is None:
            return
        data = self.batches.state_dict(self.run["step"] * passes)
        run = self.run | {"arguments": self._settings()}
        limit = self.arguments.save_total_limit
        save_checkpoint(self.output_dir, self.accelerator, self.wrapped, self.optimizer, run, data, limit)

    def _evaluate(self) -> dict[str, float]:
        found = {}
        if self.accelerator.is_main_process:
            found = {f"eval_{name}": value for name, value in self.evaluate(self.model).items()}
        self.accelerator.wait_for_everyone()
        return found

    def _loader(self) -> DataLoader:
        return DataLoader(
            Texts(),
            batch_sampler=self.batches,
            collate_fn=self.collator,
            num_workers=self.arguments.num_workers,
            pin_memory=self.accelerator.device.type == "cuda",
            worker_init_fn=_ignore_sigterm,
            generator=torch.Generator(),  # so that it draws nothing from the generator of the dropout
        )

    def _progress(self, step: float, seconds: float) -> float:
        """Share of the run that is over."""
        arguments = self.arguments
        by_steps = step / arguments.max_steps if arguments.max_steps else 0.0
        by_time = seconds / (60 * arguments.minutes) if arguments.minutes else 0.0
        return max(by_steps, by_time)

    def _epochs(self, sentences: int) -> float:
        if not isinstance(self.sources[0], str):
            return self.batches.report["epoch"]
        excluded = set(self.exclude)
        return sentences / sum(sentence not in excluded for sentence in self.sources)

    def _loss_scale(self) -> float | None:
        accelerator = self.accelerator
        if accelerator.mixed_precision != "fp16":
            return None
        if accelerator.distributed_type == "DEEPSPEED":
            return float(self.wrapped.optimizer.loss_scale)
        return accelerator.scaler.get_scale()

    def _flops(self, batch: dict[str, torch.Tensor]) -> int:
        """Arithmetic of one pass; all views are padded to the longest."""
        shapes = [batch[f"{view}input_ids"].shape for view in self._views()]
        predicted = sum(_labelled(batch, name) for name in ("labels", f"{ATTACKED}labels"))
        rows, length = sum(shape[0] for shape in shapes), max(shape[1] for shape in shapes)
        return training_flops(self.model.config, rows, length, predicted)


class _Throughput:
    """What was done, in all processes, since a moment of the run's clock (in seconds)."""

    def __init__(self, since: float):
        self.since = since
        self.sentences = self.tokens = self.flops = 0
        self.waited = 0.0

    def add(self, sentences: int, tokens: float, flops: int, waited: float) -> None:
        """One step: of all processes, but for the arithmetic and the seconds waited for data, which are this one's."""
        self.sentences += sentences
        self.tokens += int(tokens)
        self.flops += flops
        self.waited += waited

    def rates(self, now: float, peak: float | None) -> dict[str, float | None]:
        """Per second; `mfu` is the share of `peak` (floating point operations per second of a device), if it is known."""
        seconds = max(now - self.since, 1e-9)
        return {
            "sentences_per_second": self.sentences / seconds,
            "tokens_per_second": self.tokens / seconds,
            "mfu": self.flops / seconds / peak if peak else None,
            "data_wait": self.waited / seconds,
        }


@contextmanager
def _sigterm_noticed() -> Iterator[list]:
    """While open, SIGTERM (a cluster's notice that it takes the machine back) only fills the list."""
    noticed: list = []
    try:
        before = signal.signal(signal.SIGTERM, lambda *_: noticed.append(True))
    except ValueError:  # not in the main thread: signals are for others to handle
        yield noticed
        return
    try:
        yield noticed
    finally:
        signal.signal(signal.SIGTERM, before)


def _ignore_sigterm(_) -> None:
    """Clusters send it to all processes; the main one ends its workers when it has its checkpoint."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _labelled(batch: dict[str, torch.Tensor], name: str) -> int:
    return int((batch[name] != IGNORED_LABEL).sum()) if name in batch else 0


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
    with staged_folder(Path(output_dir)) as staging:
        model.save_pretrained(staging)
        tokenizer.save_pretrained(staging)
        (staging / "all_results.json").write_text(
            json.dumps(results, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
        )

"""A pretraining run from options to a saved model: what `rocbert pretrain` does.

`examples/run_pretrain.py` is the same story with less around it, to read and to change.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import set_seed
from rich.console import Console
from transformers import BertConfig, BertForMaskedLM
from transformers.utils import logging

from ..attacks import AdversarialSynthesizer
from ..configuration_rocbert import RoCBertConfig
from ..files import locked_folder, make_folder, read_json
from ..options import as_plain, option
from .arguments import PretrainingArguments
from .collator import collator_for
from .corpus.batches import sample_sentences
from .curves import plot_training_curves
from .devices import describe_devices, make_accelerator
from .distillation import teacher_for
from .estimate import estimate
from .held_out import HeldOutEvaluation
from .reporting import read_log
from .results import results_table, show_filled_mask
from .resuming import check_same_settings, checkpoints_of, remove_checkpoints
from .setup import VISION_NOTE, Devices, Setup, description_of, starting_config, starting_point
from .trainer import RoCBertPretrainer, save_run

RESULTS = "all_results.json"
# Options of `Setup` that a finished run must have had for `--resume` to call it finished.
SHAPES_THE_RESULT = ("preset", "model", "channels", "config_overrides", "train_file", "text_column", "held_out")
SHARED_WITH_BERT = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
)


@dataclass
class RunOptions(Setup):
    """What to train, on which text, where to put it, and what else to do."""

    baseline: bool = option(False, "also train a plain BERT of the same size for as long, for comparison")
    resume: bool = option(False, "go on from the last checkpoint in the output folder; begin if there is none")
    overwrite: bool = option(
        False, "train anew in a folder that holds an earlier run; its checkpoints are deleted, its model is replaced"
    )
    dry_run: bool = option(False, "only print what the run would need: arithmetic, memory and days")
    dry_run_devices: Devices = option(
        Devices(8, "A100"), "devices that --dry-run assumes: how many, and of which kind", parse=Devices.parse
    )

    def __post_init__(self):
        super().__post_init__()
        if self.resume and self.overwrite:
            raise ValueError("give resume (go on) or overwrite (begin anew), not both")


def pretrain(run: RunOptions, arguments: PretrainingArguments) -> dict[str, Any] | None:
    """
    Train, measure before and after, save, and show what became of it.

    Writes into `run.output_dir`: model and tokenizer, `all_results.json` (options and measurements), `log.jsonl`,
    `training_curves.png`, and checkpoints if the arguments ask for them. Every process of a distributed run calls this.

    Returns:
        What `all_results.json` holds; None after a dry run.

    Raises:
        ValueError, OSError: something given does not fit or cannot be read; nothing was trained then.
        FloatingPointError: the training diverged.
    """
    _check_resuming(run, arguments)
    weight = arguments.distillation_weight  # the trainer alone may be given a teacher without that option
    if weight != type(arguments).distillation_weight and arguments.distill_from is None:
        raise ValueError(f"distillation_weight is for distill_from, which is not given; got {weight}")
    if run.dry_run:
        config = starting_config(run)
        Console().print(estimate(config, arguments, run.dry_run_devices.count, run.dry_run_devices.kind))
        return None
    if run.resume:
        arguments = replace(arguments, resume_from_checkpoint="last")
    accelerator = make_accelerator(arguments, run.output_dir)
    if run.baseline and accelerator.distributed_type == "DEEPSPEED":
        raise ValueError("DeepSpeed trains one model per run: give --no-baseline")
    console = Console(quiet=not accelerator.is_main_process)
    logging.disable_progress_bar()  # one bar, the training's
    make_folder(run.output_dir)  # now, not after the training, if it cannot be made
    with locked_folder(run.output_dir) if accelerator.is_main_process else nullcontext():
        if (finished := _finished(run, arguments, accelerator)) is not None:
            console.print(f"the run in {run.output_dir} is finished: nothing to do", markup=False, soft_wrap=True)
            return finished
        return _train(run, arguments, accelerator, console)


def _train(
    run: RunOptions, arguments: PretrainingArguments, accelerator: Accelerator, console: Console
) -> dict[str, Any]:
    sources = run.sources()
    held_out = sample_sentences(
        sources, run.held_out, arguments.seed, arguments.max_length - 2, arguments.shuffle_buffer
    )
    set_seed(arguments.seed)
    tokenizer, model = starting_point(run, arguments.attn_implementation)
    model.to(accelerator.device)
    console.print(describe_devices(accelerator, arguments), markup=False, highlight=False)
    console.print(
        f"training on {run.corpus_name(held_out)}; {len(held_out):,} sentences held out; "
        f"{run.model or run.preset}: {model.num_parameters():,} parameters"
    )
    if run.model is None and run.glyph_features is None and model.base_model.embeddings.has_shape:
        console.print(VISION_NOTE, markup=False, highlight=False)

    teacher = teacher_for(arguments, held_out)
    teacher_inputs = teacher.inputs if teacher is not None else None
    collator = collator_for(arguments, tokenizer, accelerator.mixed_precision, teacher_inputs)
    synthesizer = collator.synthesizer or AdversarialSynthesizer(arguments.attacks)
    measure = _no_measurement
    if accelerator.is_main_process:
        measure = HeldOutEvaluation(tokenizer, held_out, synthesizer, max_length=arguments.max_length)
    trainer = RoCBertPretrainer(
        model,
        sources,
        collator,
        arguments,
        accelerator,
        "RoCBERT",
        output_dir=run.output_dir,
        evaluate=measure,
        exclude=held_out,
        teacher=teacher,
    )
    results = {"arguments": recorded(run, arguments, model.config), "rocbert": {"before": measure(model)}}
    results["rocbert"]["training"] = training = trainer.train()
    if training["interrupted"]:
        kept = checkpoints_of(run.output_dir)[-1]
        console.print(f"stopped by SIGTERM after {training['steps']} steps; {kept} has it all: go on with --resume")
        return results
    results["rocbert"]["after"] = measure(model)
    if run.baseline:
        of_bert = _train_baseline(model.config, tokenizer, trainer, measure, training["seconds"])
        if of_bert["training"]["interrupted"]:
            console.print("stopped by SIGTERM while the plain BERT was trained: it is left out, and RoCBERT is saved")
        else:
            results["bert"] = of_bert
    if accelerator.is_main_process:
        for reason, count in training["skipped_lines"].items():
            console.print(f"lines of the text that were skipped, {reason}: {count:,}")
        console.print(results_table(results, len(measure.sentences)))
        plot_training_curves(read_log(run.output_dir), run.output_dir / "training_curves.png")
        save_run(run.output_dir, model, tokenizer, results)  # last: it says that the run is finished
        console.print(f"saved model, tokenizer, {RESULTS} and training_curves.png in {run.output_dir}")
        show_filled_mask(run.output_dir, held_out, synthesizer, console)
    accelerator.wait_for_everyone()
    return results


def _check_resuming(run: RunOptions, arguments: PretrainingArguments) -> None:
    """
    Raises:
        ValueError: options say of two checkpoints that the run goes on from them, or `overwrite` would delete it.
    """
    chosen = arguments.resume_from_checkpoint
    if run.resume and chosen not in (None, "last"):
        raise ValueError(
            f"give resume (go on from the last checkpoint of output_dir) or resume_from_checkpoint {chosen}, not both"
        )
    if run.overwrite and chosen is not None:
        folder = run.output_dir.resolve()
        if chosen == "last" or Path(chosen).resolve().is_relative_to(folder):
            raise ValueError(
                f"overwrite would delete the checkpoint that resume_from_checkpoint {chosen} names: give one of the two"
            )


def recorded(run: Setup, arguments: PretrainingArguments, config: RoCBertConfig) -> dict[str, Any]:
    """The options of a run as `all_results.json` has them: JSON values, and what the glyph features are."""
    record = {**as_plain(run), **as_plain(arguments)}
    return {**record, "glyph_features": getattr(config, "glyph_features", None)}


def _no_measurement(model) -> dict[str, float]:
    """What processes other than the main one measure."""
    return {}


def _train_baseline(
    config: RoCBertConfig, tokenizer, of_rocbert: RoCBertPretrainer, measure: Callable, seconds: float
) -> dict[str, Any]:
    """Train a plain BERT of the same size on the same sentences for as many seconds; gives its results, without "after" if
    SIGTERM ended the training."""
    arguments = replace(
        of_rocbert.arguments,
        objective="mlm_only",
        anchor="masked",
        negatives="attacked",
        correct_attacked=False,
        distill_from=None,
        distill_prefix="",
        gradient_cache=False,
        max_steps=None,
        minutes=seconds / 60,
        warmup_ratio=of_rocbert.arguments.warmup_share(),
        warmup_steps=None,
        save_steps=None,
        save_minutes=None,
        resume_from_checkpoint=None,
        eval_steps=None,
    )
    accelerator = of_rocbert.accelerator
    set_seed(arguments.seed)
    shared = {name: getattr(config, name) for name in SHARED_WITH_BERT}
    # relative positions have no end
    positions = max(config.max_position_embeddings, arguments.max_length)
    bert = BertForMaskedLM(BertConfig(**shared, max_position_embeddings=positions))
    bert.to(accelerator.device)
    results = {"before": measure(bert)}
    collator = collator_for(arguments, tokenizer, accelerator.mixed_precision)
    results["training"] = RoCBertPretrainer(
        bert, of_rocbert.sources, collator, arguments, accelerator, "plain BERT", exclude=of_rocbert.exclude
    ).train()
    if not results["training"]["interrupted"]:
        results["after"] = measure(bert)
    return results


def _finished(run: RunOptions, arguments: PretrainingArguments, accelerator: Accelerator) -> dict[str, Any] | None:
    """
    The results of the run that `--resume` finds finished; None if there is something to train.

    With `--overwrite` the checkpoints of the earlier run are deleted.

    Raises:
        OSError: the folder holds a finished model that the run would replace.
    """
    folder = run.output_dir
    model_is_there = any(folder.glob("*.safetensors")) or (folder / RESULTS).exists()
    if run.overwrite:
        if accelerator.is_main_process:
            remove_checkpoints(folder)
        accelerator.wait_for_everyone()
        return None
    if not model_is_there:
        return None
    if arguments.resume_from_checkpoint is None:
        raise OSError(f"{folder} holds a finished model: --overwrite trains anew and replaces it, --resume goes on")
    results = _results_of(folder)
    training = results.get("rocbert", {}).get("training", {})
    steps, minutes = arguments.max_steps, arguments.minutes
    done = (steps and training.get("steps", 0) >= steps) or (minutes and training.get("seconds", 0) >= 60 * minutes)
    if done:
        setup = {name: value for name, value in as_plain(run).items() if name in SHAPES_THE_RESULT}
        if run.glyph_features is not None:
            setup["glyph_features"] = description_of(run.glyph_features)
        elif run.model is None:  # else they are the model's own, whatever these are
            setup["glyph_features"] = None
        check_same_settings(results.get("arguments", {}), {**setup, **as_plain(arguments)}, folder)
        return results
    if not checkpoints_of(folder):
        raise OSError(f"{folder} holds a finished model and no checkpoint to go on from: --overwrite trains anew")
    return None


def _results_of(folder: Path) -> dict[str, Any]:
    try:
        return read_json(folder / RESULTS) if (folder / RESULTS).exists() else {}
    except (OSError, ValueError) as error:
        raise OSError(f"{error}: --overwrite trains anew") from None

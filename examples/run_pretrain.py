"""Pretrain a RoCBERT on attacked sentences, and show what it became robust to.

    python examples/run_pretrain.py                              # the tiny preset on the packaged corpus, on any laptop
    python examples/run_pretrain.py --config my.yaml --train-file corpus.txt.gz more.jsonl --output-dir rocbert-mine
    python examples/run_pretrain.py --config examples/configs/base.yaml --dry-run            # what that would take
    accelerate launch --num_processes 8 examples/run_pretrain.py --config examples/configs/base.yaml ...
    accelerate launch --use_deepspeed --deepspeed_config_file examples/deepspeed/zero1_fp16.json examples/run_pretrain.py ...

Prints losses and attacked-sentence retrieval on held-out sentences before and after (by default next to a plain BERT of
the same size that is trained on the same sentences for the same time); saves model, tokenizer, `all_results.json`, the
run's `log.jsonl`, its `training_curves.png`, and checkpoints if asked. `--resume` goes on from the last of them.
"""

import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path

# Before torch starts its threads: where something else runs too, threads that sleep while they wait are several times
# faster than threads that spin.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import yaml
from accelerate.utils import set_seed
from rich.console import Console
from rich.table import Table
from rich.text import Text
from transformers import AutoModelForMaskedLM, AutoTokenizer, BertConfig, BertForMaskedLM, pipeline
from transformers.utils import logging

from rocbert_hf import RoCBertConfig, RoCBertForPreTraining, RoCBertTokenizer
from rocbert_hf.attacks import AdversarialSynthesizer
from rocbert_hf.options import parse_options
from rocbert_hf.pretraining import (
    DataCollatorForRoCBertPretraining,
    HeldOutEvaluation,
    PretrainingArguments,
    RoCBertPretrainer,
    TextSource,
    sample_sentences,
    save_run,
)
from rocbert_hf.pretraining.curves import plot_training_curves
from rocbert_hf.pretraining.devices import describe, make_accelerator
from rocbert_hf.pretraining.estimate import estimate
from rocbert_hf.pretraining.reporting import read_log
from rocbert_hf.pretraining.resuming import checkpoints_of, find_checkpoint
from rocbert_hf.resources import demo_sentences

DEFAULT_CONFIG = Path(__file__).with_name("configs") / "tiny.yaml"
SHARED_WITH_BERT = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
)
ROWS = {
    "mlm_loss": ("MLM loss", "{:.2f}"),
    "contrastive_loss": ("contrastive loss", "{:.2f}"),
    "retrieval_cls": ("retrieval by \\[CLS]", "{:.1%}"),
    "retrieval_mean": ("retrieval by mean pooling", "{:.1%}"),
}


@dataclass
class RunArguments:
    """What to train on what, and where to put it."""

    preset: str = field(default="tiny", metadata={"help": "size of the model: tiny, mini, small, base or large"})
    config_overrides: str = field(
        default="", metadata={"help": "fields of RoCBertConfig that differ, e.g. fusion=concat,hidden_dropout_prob=0"}
    )
    train_file: list[str] = field(
        default_factory=list,
        metadata={
            "help": "UTF-8 text, JSONL (also .gz, .xz, .bz2) or parquet files, folders, wikipedia, common_crawl, or "
            "datasets of the Hub as owner/name:config; to mix them, each with =weight; none: the packaged corpus"
        },
    )
    text_column: str = field(default="text", metadata={"help": "where the text is, in everything but plain text"})
    held_out: int = field(default=200, metadata={"help": "sentences to measure on instead of training"})
    output_dir: str = field(default="rocbert-tiny", metadata={"help": "folder for all that the run writes"})
    baseline: bool = field(default=True, metadata={"help": "train a plain BERT for comparison"})
    resume: bool = field(default=False, metadata={"help": "short for --resume-from-checkpoint last"})
    dry_run: bool = field(default=False, metadata={"help": "only tell what the run would need"})
    dry_run_devices: str = field(
        default="8xA100", metadata={"help": "for which devices --dry-run tells it: how many, and of which kind"}
    )


def main(argv: Sequence[str] | None = None) -> dict | None:
    run, arguments = parse_options(
        (RunArguments, PretrainingArguments), argv, DEFAULT_CONFIG, description=__doc__.split("\n")[0]
    )
    if run.resume:
        arguments = replace(arguments, resume_from_checkpoint="last")
    config = RoCBertConfig.from_preset(run.preset, **overrides(run.config_overrides))
    if run.dry_run:
        Console().print(estimate(config, arguments, *devices(run.dry_run_devices)))
        return None
    accelerator = make_accelerator(arguments, run.output_dir)
    in_deepspeed = accelerator.distributed_type == "DEEPSPEED"
    if run.baseline and in_deepspeed:
        raise ValueError("DeepSpeed trains one model a run: give --no-baseline")
    console = Console(quiet=not accelerator.is_main_process)
    logging.disable_progress_bar()  # one bar, the training's
    find_checkpoint(arguments.resume_from_checkpoint, run.output_dir)  # an error now rather than later
    Path(run.output_dir).mkdir(parents=True, exist_ok=True)  # now, not after the training, if it cannot be made
    tokenizer = RoCBertTokenizer()
    sources = text_sources(run)
    length, buffer = arguments.max_length - 2, arguments.shuffle_buffer
    held_out = sample_sentences(sources, run.held_out, arguments.seed, length, buffer)
    set_seed(arguments.seed)
    model = RoCBertForPreTraining._from_config(config, attn_implementation=arguments.attn_implementation)
    model.to(accelerator.device)
    console.print(f"{describe(accelerator, arguments)}", markup=False, highlight=False)
    console.print(
        f"training on {corpus_name(sources, held_out)}; {len(held_out):,} sentences held out; "
        f"{run.preset}: {model.num_parameters():,} parameters"
    )

    measured = None  # by the main process
    if accelerator.is_main_process:
        measured = HeldOutEvaluation(tokenizer, held_out, arguments.attacks, max_length=arguments.max_length)
    measure = measured or (lambda model: {})
    results = {"arguments": {**asdict(run), **asdict(arguments)}, "rocbert": {"before": measure(model)}}
    trainer = RoCBertPretrainer(
        model,
        sources,
        collator_for(arguments, tokenizer, accelerator.mixed_precision),
        arguments,
        accelerator,
        "RoCBERT",
        output_dir=run.output_dir,
        evaluate=measure,
        exclude=held_out,
    )
    results["rocbert"]["training"] = training = trainer.train()
    if training["interrupted"]:
        kept = checkpoints_of(run.output_dir)[-1]
        console.print(f"stopped by SIGTERM after {training['steps']} steps; {kept} has it all: go on with --resume")
        return results
    results["rocbert"]["after"] = measure(model)
    if run.baseline:
        set_seed(arguments.seed)
        bert = BertForMaskedLM(BertConfig(**{name: getattr(config, name) for name in SHARED_WITH_BERT})).to(
            accelerator.device
        )
        alone = baseline_arguments(arguments, training["seconds"])
        collator = collator_for(alone, tokenizer, accelerator.mixed_precision)
        results["bert"] = {"before": measure(bert)}
        results["bert"]["training"] = RoCBertPretrainer(
            bert, sources, collator, alone, accelerator, "plain BERT", exclude=held_out
        ).train()
        results["bert"]["after"] = measure(bert)

    if accelerator.is_main_process:
        for reason, count in training["skipped_lines"].items():
            console.print(f"lines of the text that were skipped, {reason}: {count:,}")
        console.print(results_table(results, len(measured.sentences)))
        console.print(
            "retrieval: how many attacked sentences have their own original as nearest of all held-out sentences\n"
        )
        save_run(run.output_dir, model, tokenizer, results)
        plot_training_curves(read_log(run.output_dir), Path(run.output_dir) / "training_curves.png")
        console.print(f"saved model, tokenizer, all_results.json and training_curves.png in {run.output_dir}")
        show_filled_mask(run.output_dir, held_out, arguments.attacks, console)
    accelerator.wait_for_everyone()
    return results


def text_sources(run: RunArguments) -> list[str] | list[TextSource]:
    """What to train on: the packaged sentences, or sources; files without weights are one source, read once an epoch.

    Raises:
        ValueError: there are several that are not all files, and one is without a weight.
    """
    if not run.train_file:
        return demo_sentences()
    given = run.train_file
    if all(Path(name).is_file() for name in given):
        return [TextSource(tuple(given), run.text_column)]
    unweighted = [name for name in given if Path(name).exists() or "=" not in name]
    if unweighted and len(given) > 1:
        raise ValueError(
            f"train_file: several sources that are not all files are mixed by weights: give each one, as "
            f"{unweighted[0]}=1; without one is {', '.join(unweighted)}"
        )
    return [TextSource.parse(text, run.text_column) for text in given]


def corpus_name(sources: list[str] | list[TextSource], held_out: Sequence[str]) -> str:
    if isinstance(sources[0], TextSource):
        return ", ".join(source.name for source in sources)
    return f"the packaged corpus, {len(set(sources) - set(held_out)):,} sentences"


def devices(text: str) -> tuple[int, str]:
    """ "8xA100" as (8, "A100")."""
    count, times, kind = text.partition("x")
    if not times or not count.isdecimal():
        raise ValueError(f"dry_run_devices must be like 8xA100 or 1xCPU, got {text!r}")
    return int(count), kind


def collator_for(arguments: PretrainingArguments, tokenizer, mixed_precision: str) -> DataCollatorForRoCBertPretraining:
    """The collator that makes the objective's views, for a run in "bf16", "fp16" or "no"."""
    return DataCollatorForRoCBertPretraining(
        tokenizer,
        arguments.attacks if arguments.attacks_sentences else None,
        mlm_probability=0.0 if arguments.objective == "contrastive_only" else arguments.mlm_probability,
        whole_word_probability=arguments.whole_word_probability,
        max_length=arguments.max_length,
        seed=arguments.seed,
        pad_to_multiple_of=arguments.padding_multiple(mixed_precision),
        views="simcse" if arguments.objective == "simcse" else arguments.views,
        attack_labels=arguments.correct_attacked,
    )


def baseline_arguments(arguments: PretrainingArguments, seconds: float) -> PretrainingArguments:
    """Of a masked language model that trains for as long, without checkpoints."""
    return replace(
        arguments,
        objective="mlm_only",
        views="two",
        correct_attacked=False,
        gradient_cache=False,
        max_steps=None,
        minutes=seconds / 60,
        warmup_ratio=arguments.warmup_share(),
        warmup_steps=None,
        save_steps=None,
        save_minutes=None,
        resume_from_checkpoint=None,
        eval_steps=None,
    )


def overrides(text: str) -> dict:
    """ "fusion=concat,fusion_layer=0" as keyword arguments of `RoCBertConfig`.

    Raises:
        ValueError: it is not of this form, or a value is not of its field's type.
    """
    pairs = [pair.partition("=") for pair in text.split(",") if pair.strip()]
    known = [field.name for field in fields(RoCBertConfig)]
    for name, _, value in pairs:
        if name.strip() not in known or not value:
            raise ValueError(f"config_overrides must be name=value,... with names of RoCBertConfig, got {text!r}")
    defaults = RoCBertConfig()
    return {name.strip(): _converted(name.strip(), value, getattr(defaults, name.strip())) for name, _, value in pairs}


def _converted(name: str, text: str, default):
    """`text` as a value of the default's type; YAML 1.1 takes 1e-5 for text."""
    value = yaml.safe_load(text)
    try:
        if type(default) is float and not isinstance(value, bool):
            return float(value)
    except (TypeError, ValueError):
        pass
    if default is not None and type(value) is not type(default):
        raise ValueError(f"config_overrides: {name} must be of type {type(default).__name__}, got {text!r}")
    return value


def results_table(results: dict, held_out: int) -> Table:
    table = Table(title=f"{held_out} held-out sentences", title_justify="left")
    table.add_column()
    models = [name for name in ("rocbert", "bert") if name in results]
    for name in models:
        for when in ("before", "after"):
            table.add_column(f"{'RoCBERT' if name == 'rocbert' else 'plain BERT'}\n{when}", justify="right")
    for key, (label, form) in ROWS.items():
        values = [results[name][when][key] for name in models for when in ("before", "after")]
        table.add_row(label, *(form.format(value) for value in values))
    return table


def show_filled_mask(output_dir: str, sentences: Sequence[str], attacks: str, console: Console) -> None:
    """Reload what was saved, as a user will, and fill a mask in an attacked sentence."""
    tokenizer = AutoTokenizer.from_pretrained(output_dir)
    model = AutoModelForMaskedLM.from_pretrained(output_dir).eval()
    synthesizer = AdversarialSynthesizer(attacks)
    for attacked in (synthesizer.attack(sentence, seed=0) for sentence in sentences):
        edited = {i for edit in attacked.edits for i in range(*edit.text_span)}
        whole = [i for i, character in enumerate(attacked.text) if i not in edited and "一" <= character <= "鿿"]
        if edited and whole:
            break
    else:
        return  # not a Chinese corpus
    # the most common character that the attack left alone: Chinese characters are in the vocabulary by frequency
    masked = min(whole, key=lambda i: tokenizer.convert_tokens_to_ids(attacked.text[i]))
    text = attacked.text[:masked] + tokenizer.mask_token + attacked.text[masked + 1 :]
    guesses = pipeline("fill-mask", model=model, tokenizer=tokenizer)(text, top_k=5)
    console.print(Text.assemble("\nattacked: ", attacked.__rich__()), soft_wrap=True)
    console.print(f"masked:   {text}", markup=False, soft_wrap=True)
    filled = [f"{guess['token_str']} {guess['score']:.0%}" for guess in guesses]
    console.print("filled:   " + "  ".join(filled))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("interrupted; no model was saved, only what checkpoints there were")
    except (ValueError, OSError, FloatingPointError) as error:
        sys.exit(f"{Path(__file__).name}: {error}")

"""Pretrain a RoCBERT on attacked sentences, and show what it became robust to.

    python examples/run_pretrain.py                              # the tiny preset on the packaged corpus, on any laptop
    python examples/run_pretrain.py --config my.yaml --train-file corpus.txt.gz more.jsonl --output-dir rocbert-mine
    accelerate launch examples/run_pretrain.py ...               # several processes or GPUs

Prints losses and attacked-sentence retrieval on held-out sentences before and after, next to a plain BERT of the same
size that is trained on the same sentences for the same time; saves model, tokenizer and `all_results.json`.
"""

import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path

# Before torch starts its threads: where something else runs too, threads that sleep while they wait are several times
# faster than threads that spin.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import yaml
from accelerate import Accelerator
from accelerate.utils import set_seed
from rich.console import Console
from rich.table import Table
from rich.text import Text
from transformers import AutoModelForMaskedLM, AutoTokenizer, BertConfig, BertForMaskedLM, pipeline
from transformers.utils import logging

from rocbert_hf import RoCBertConfig, RoCBertForPreTraining, RoCBertTokenizer
from rocbert_hf.attacks import AdversarialSynthesizer
from rocbert_hf.pretraining import (
    DataCollatorForRoCBertPretraining,
    HeldOutEvaluation,
    PretrainingArguments,
    RoCBertPretrainer,
    parse_arguments,
    read_sentences,
    save_run,
)
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
        metadata={"help": "UTF-8 text or JSONL files, also .gz or .xz, a sentence a line; none: the packaged corpus"},
    )
    text_column: str = field(default="text", metadata={"help": "key of the text in JSONL files"})
    held_out: int = field(default=200, metadata={"help": "sentences to measure on instead of training"})
    output_dir: str = field(default="rocbert-tiny", metadata={"help": "folder for model, tokenizer, all_results.json"})
    baseline: bool = field(default=True, metadata={"help": "train a plain BERT for comparison"})


def main(argv: Sequence[str] | None = None) -> dict:
    run, arguments = parse_arguments(
        (RunArguments, PretrainingArguments), argv, DEFAULT_CONFIG, description=__doc__.split("\n")[0]
    )
    accelerator = Accelerator(
        mixed_precision=arguments.mixed_precision, gradient_accumulation_steps=arguments.gradient_accumulation_steps
    )
    console = Console(quiet=not accelerator.is_main_process)
    logging.disable_progress_bar()  # one bar, the training's
    Path(run.output_dir).mkdir(parents=True, exist_ok=True)  # now, not after the training, if it cannot be made
    tokenizer = RoCBertTokenizer()
    train, held_out = split(load_sentences(run, arguments.max_length), run.held_out, arguments.seed)
    config = RoCBertConfig.from_preset(run.preset, **overrides(run.config_overrides))
    set_seed(arguments.seed)
    model = RoCBertForPreTraining(config).to(accelerator.device)
    console.print(
        f"{len(train):,} sentences to train on, {len(held_out):,} held out; {run.preset}: {model.num_parameters():,} parameters"
    )

    evaluate = HeldOutEvaluation(tokenizer, held_out, arguments.attacks, max_length=arguments.max_length)
    results = {"arguments": {**asdict(run), **asdict(arguments)}, "rocbert": {"before": evaluate(model)}}
    results["rocbert"]["training"] = train_on(
        model, train, arguments, tokenizer, accelerator, arguments.attacks, "RoCBERT"
    )
    results["rocbert"]["after"] = evaluate(model)
    if run.baseline:
        set_seed(arguments.seed)
        bert = BertForMaskedLM(BertConfig(**{name: getattr(config, name) for name in SHARED_WITH_BERT})).to(
            accelerator.device
        )
        same_time = replace(arguments, max_steps=None, minutes=results["rocbert"]["training"]["seconds"] / 60)
        results["bert"] = {"before": evaluate(bert)}
        results["bert"]["training"] = train_on(bert, train, same_time, tokenizer, accelerator, None, "plain BERT")
        results["bert"]["after"] = evaluate(bert)
    console.print(results_table(results, len(evaluate.sentences)))
    console.print(
        "retrieval: how many attacked sentences have their own original as nearest of all held-out sentences\n"
    )

    if accelerator.is_main_process:
        save_run(run.output_dir, model, tokenizer, results)
        console.print(f"saved model, tokenizer and all_results.json in {run.output_dir}")
        show_filled_mask(run.output_dir, held_out, arguments.attacks, console)
    return results


def load_sentences(run: RunArguments, max_length: int) -> list[str]:
    if not run.train_file:
        return demo_sentences()
    files = [run.train_file] if isinstance(run.train_file, str) else run.train_file
    return list(read_sentences(files, run.text_column, max_length=max_length - 2))


def overrides(text: str) -> dict:
    """ "fusion=concat,fusion_layer=0" as keyword arguments of `RoCBertConfig`."""
    pairs = [pair.partition("=") for pair in text.split(",") if pair.strip()]
    known = [field.name for field in fields(RoCBertConfig)]
    for name, _, value in pairs:
        if name.strip() not in known or not value:
            raise ValueError(f"config_overrides must be name=value,... with names of RoCBertConfig, got {text!r}")
    return {name.strip(): yaml.safe_load(value) for name, _, value in pairs}


def split(sentences: Sequence[str], held_out: int, seed: int) -> tuple[list[str], list[str]]:
    """Sentences to train on and sentences to measure on; a sentence that occurs twice is on one side only."""
    sentences = list(dict.fromkeys(sentences))
    if not 2 <= held_out < len(sentences):
        raise ValueError(f"held_out must lie between 2 and the corpus's {len(sentences)} sentences, got {held_out}")
    order = np.random.default_rng(seed).permutation(len(sentences))
    return [sentences[i] for i in order[held_out:]], [sentences[i] for i in order[:held_out]]


def train_on(model, sentences, arguments, tokenizer, accelerator, attacks, description) -> dict:
    collator = DataCollatorForRoCBertPretraining(
        tokenizer,
        attacks,
        mlm_probability=arguments.mlm_probability,
        whole_word_probability=arguments.whole_word_probability,
        max_length=arguments.max_length,
        seed=arguments.seed,
    )
    return RoCBertPretrainer(model, sentences, collator, arguments, accelerator, description).train()


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
        sys.exit("interrupted; nothing was saved")
    except (ValueError, OSError) as error:
        sys.exit(f"{Path(__file__).name}: {error}")

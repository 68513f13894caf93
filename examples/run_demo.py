"""A pretrained RoCBERT in three minutes: find an attacked sentence, read it, and filter spam that is written to slip past.

    python examples/run_demo.py [--model models/rocbert-small-zh]

The spam filter is finetuned twice on the packaged messages: on the checkpoint as it is, and on the same weights without
sound and shape, which is a plain BERT. Both are then asked about messages that were attacked twenty times each.
"""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from transformers import (
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    PrinterCallback,
    Trainer,
    TrainingArguments,
    set_seed,
)
from transformers.utils import logging

from rocbert_hf.attackers import AdvAttacker, Example, ModelClassifier
from rocbert_hf.data.tokenized import tokenized
from rocbert_hf.options import option, parse_options
from rocbert_hf.pretraining import HeldOutEvaluation, Restoration
from rocbert_hf.pretraining.restoration import REPLACEMENTS
from rocbert_hf.resources import demo_corpus, demo_sentences

KINDS = {"with sound and shape": {}, "the same weights without": {"fusion": "none"}}


@dataclass
class Demo:
    """What to show."""

    model: str = option("models/rocbert-small-zh", "folder or Hub id of a pretrained RoCBERT")
    seeds: list[int] = option([0, 1], "spam filters to finetune of each kind, one per seed")
    draws: int = option(20, "attacks of each message; a filter is right only if it is right on all of them")
    ratio: float = option(0.25, "share of a message's characters that are attacked")


def find(options: Demo, tokenizer, console: Console) -> None:
    """Attacked sentences, each searched among all the others by the mean over its tokens."""
    held_out = HeldOutEvaluation(tokenizer, demo_sentences()[:300], {"preset": "wild", "ratio": 0.4}, 1, max_length=64)
    share = held_out.retrieval(AutoModelForMaskedLM.from_pretrained(options.model).eval())["retrieval_mean"]
    console.print(f"1. Find  attacked: {held_out.attacked[0][99]}\n         original: {held_out.sentences[99]}")
    console.print(f"{share:.1%} of {len(held_out.sentences)} such have their own original as nearest of all\n")


def read(options: Demo, tokenizer, console: Console) -> None:
    """What the masked language model takes replaced characters for; nothing is masked."""
    table = Table(title="2. Read: replaced characters, guessed rightly", title_justify="left")
    for column in ("by a", *REPLACEMENTS):
        table.add_column(column, justify="right" if column in REPLACEMENTS else "left")
    gauge = Restoration(tokenizer, list(dict.fromkeys(demo_sentences()))[:200])
    for name, fusion in KINDS.items():
        shares = gauge(AutoModelForMaskedLM.from_pretrained(options.model, dtype=torch.float32, **fusion))
        table.add_row(name, *(f"{shares[f'restored_{kind}']:.1%}" for kind in REPLACEMENTS))
    console.print(table)


def filter_accuracy(options: Demo, seed: int, fusion: dict[str, str]) -> tuple[float, float]:
    """Accuracy of a spam filter on clean and on attacked messages, finetuned on the other half of them."""
    rows = [(row["text"], row["spam"]) for row in demo_corpus() if "spam" in row]
    Random(seed).shuffle(rows)
    train, test = rows[: len(rows) // 2], [Example(text, label) for text, label in rows[len(rows) // 2 :]]
    set_seed(seed)
    tokenizer = AutoTokenizer.from_pretrained(options.model, model_max_length=64)
    model = AutoModelForSequenceClassification.from_pretrained(options.model, dtype=torch.float32, **fusion)
    texts, labels = zip(*train, strict=True)
    with TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder, num_train_epochs=4, per_device_train_batch_size=16, learning_rate=3e-4, warmup_steps=0.1, seed=seed,
            report_to="none", save_strategy="no", logging_strategy="no", disable_tqdm=True, use_cpu=True,
        )  # fmt: skip
        data = tokenized(list(texts), list(labels), tokenizer)
        trainer = Trainer(model, arguments, DataCollatorWithPadding(tokenizer), data, processing_class=tokenizer)
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    classifier = ModelClassifier(model.eval(), tokenizer)
    attacker = AdvAttacker("wild", ratio=options.ratio, draws=options.draws)
    outcomes = [outcome.status for outcome in attacker.attack_batch(classifier, test)]
    return 1 - outcomes.count("skipped") / len(test), outcomes.count("failed") / len(test)


def main(argv: list[str] | None = None) -> None:
    (options,) = parse_options((Demo,), argv, description=__doc__)
    console = Console(highlight=False)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    find(options, tokenizer, console)
    read(options, tokenizer, console)
    table = Table(title="3. Spam filters, finetuned on 80 messages; accuracy on 80 others", title_justify="left")
    for column in ("", "clean", f"right in all of {options.draws} attacks"):
        table.add_column(column, justify="left" if not column else "right")
    for name, fusion in KINDS.items():
        with console.status(f"finetuning and attacking {len(options.seeds)} spam filters {name}"):
            cells = np.array([filter_accuracy(options, seed, fusion) for seed in options.seeds]).mean(0)
        table.add_row(name, *(f"{share:.1%}" for share in cells))
    console.print(table)


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(f"{Path(__file__).name}: {error}")

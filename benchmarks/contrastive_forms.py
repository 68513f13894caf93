"""
Claim: which anchor and which negatives of Eq. 5 make the attacked form find its sentence best, at equal steps.

    python benchmarks/contrastive_forms.py --text-file lines.txt --output-dir forms

Pretrains a small model with each form and seed, in one thread, and measures each on the same held-out sentences: how many
find their own by [CLS] when half of the characters are attacked, and the loss of masked language modelling. A run that
is in the output folder is not repeated, so a benchmark that was stopped goes on. Prints the mean and the standard
deviation over the seeds. A step with the masked anchor encodes two views of each sentence, with the others three: give it
`--forms masked-attacked --steps 120` to compare equal work.
"""

import argparse
import os
from pathlib import Path
from statistics import mean, stdev

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from transformers import set_seed

from rocbert_hf import RoCBertConfig, RoCBertForPreTraining, RoCBertTokenizer
from rocbert_hf.attacks.config import complete_config
from rocbert_hf.files import read_json, write_json
from rocbert_hf.pretraining import (
    DataCollatorForRoCBertPretraining,
    HeldOutEvaluation,
    PretrainingArguments,
    RoCBertPretrainer,
    read_sentences,
    sample_sentences,
)

# anchor and negatives
FORMS = ("masked-attacked", "masked-originals", "masked-both", "clean-attacked", "clean-originals", "both-attacked")
RATIO = 0.5  # of the characters: with 15% nearly every sentence is found
COLUMNS = {
    "paper": "paper's attacks, %",
    "wild": "wild, %",
    "mlm_loss": "MLM loss",
    "mlm_loss_attacked": "MLM loss, attacked",
}


def measure(model: RoCBertForPreTraining, evaluations: dict[str, HeldOutEvaluation]) -> dict[str, float]:
    """Percent of the attacked forms that find their sentence, by preset of the attacks, and the losses."""
    found = {preset: evaluate(model) for preset, evaluate in evaluations.items()}
    losses = {name: found["paper"][name] for name in ("mlm_loss", "mlm_loss_attacked")}
    return {preset: 100 * of_preset["retrieval_cls"] for preset, of_preset in found.items()} | losses


def new_model(preset: str, seed: int) -> RoCBertForPreTraining:
    set_seed(seed)
    # without dropout, as in the config `tiny`: so short a run learns faster
    dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    return RoCBertForPreTraining(RoCBertConfig.from_preset(preset, **dropout))


def row(name: str, results: list[dict[str, float]]) -> str:
    cells = []
    for column in COLUMNS:
        values = [result[column] for result in results]
        spread = f" ± {stdev(values):.2f}" if len(values) > 1 else ""
        cells.append(f"{mean(values):.2f}{spread}")
    return f"| {name} | " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text-file", type=Path, required=True, help="text to train on and to hold out of, UTF-8")
    parser.add_argument("--output-dir", type=Path, required=True, help="folder for one result per run")
    parser.add_argument(
        "--forms", nargs="+", default=list(FORMS), choices=FORMS, metavar="ANCHOR-NEGATIVES", help="default: all"
    )
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--steps", type=int, default=80, help="default: 80")
    parser.add_argument("--batch-size", type=int, default=64, help="sentences per step (default: 64)")
    parser.add_argument("--max-length", type=int, default=32, help="tokens (default: 32)")
    parser.add_argument("--held-out", type=int, default=500, help="sentences (default: 500)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    torch.set_num_threads(1)

    sentences = list(read_sentences(options.text_file, max_length=options.max_length - 2))
    held_out = sample_sentences(sentences, options.held_out, seed=0, max_length=options.max_length - 2)
    tokenizer = RoCBertTokenizer()
    evaluations = {
        preset: HeldOutEvaluation(
            tokenizer,
            held_out,
            {**complete_config(preset), "ratio": RATIO},
            attacks_per_sentence=2,
            max_length=options.max_length,
        )
        for preset in ("paper", "wild")
    }
    folder = options.output_dir / f"{options.preset}-{options.steps}x{options.batch_size}x{options.max_length}"
    folder.mkdir(parents=True, exist_ok=True)
    before = [measure(new_model(options.preset, seed), evaluations) for seed in options.seeds]
    results = {form: [] for form in options.forms}
    for seed in options.seeds:
        for form in options.forms:
            file, (anchor, negatives) = folder / f"{form}-{seed}.json", form.split("-")
            if not file.is_file():
                arguments = PretrainingArguments(
                    anchor=anchor,
                    negatives=negatives,
                    seed=seed,
                    max_steps=options.steps,
                    batch_size=options.batch_size,
                    max_length=options.max_length,
                    learning_rate=1e-3,
                    warmup_ratio=0.05,
                    report_to="none",
                )
                model = new_model(options.preset, seed)
                collator = DataCollatorForRoCBertPretraining(
                    tokenizer, max_length=options.max_length, seed=seed, views=arguments.collator_views
                )
                trainer = RoCBertPretrainer(model, sentences, collator, arguments, exclude=held_out)
                trainer.train()
                write_json(file, measure(model, evaluations))
            results[form].append(read_json(file))

    print(f"{options.preset}, {options.steps} steps of {options.batch_size}, seeds {options.seeds}")
    print("| anchor-negatives | " + " | ".join(COLUMNS.values()) + " |")
    print("|---|" + "---:|" * len(COLUMNS))
    print(row("before training", before))
    for form, of_seeds in results.items():
        print(row(form, of_seeds))


if __name__ == "__main__":
    main()

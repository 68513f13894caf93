"""What backdoors do to classifiers, and what is left of them after purification or further pretraining. Three tables.

    python benchmarks/backdoor_effects.py --work-dir WORK --corpus TEXTS --data-dir DATA picture purify contrast

- picture: does a specimen behave as the paper says? Few insertions flip a classifier that was finetuned from it, and its
  clean accuracy is that of one finetuned from the clean encoder. Two tasks.
- purify: the same measures after each purification, for POR and for NeuBA; on the first task.
- contrast: what further pretraining leaves of a backdoor, with masked language modelling alone and with the contrast of
  a text and its attacked form.

DATA holds `tasks/waimai` and `tasks/cold` (train.tsv.gz and test.tsv.gz: a header row, then `text<TAB>label`); 1,500 rows
train, 800 test, the first 100 of these get triggers, all texts are cut to 40 characters. Without `--data-dir` the packaged
sentences serve, 240 with a sentiment and 160 that are spam or not: too few to compare accuracies.

Encoders are of the tiny preset with a small vocabulary, pretrained here and kept in WORK; every row is kept too, so a run
that was stopped goes on. E: mean number of insertions until a text flips (20: never); flips: share of texts that flip;
both are means over the triggers.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from small_encoders import cached, finetune, labelled, load_tokenizer, new_model, predictor, pretrain, read_texts
from torch import nn
from transformers import AutoModel, AutoModelForMaskedLM
from transformers.utils import logging

from rocbert_hf.data import TASKS
from rocbert_hf.security import (
    Recipe,
    continue_contrastive,
    draw_triggers,
    fine_prune,
    implant_backdoor,
    measure_classification,
    project_out,
    reinitialize_pooler,
    save_specimen,
)

TRIGGERS = 2
TRAINED, TESTED, TRIGGERED, LONGEST = 1500, 800, 100, 40
KINDS = {"POR-2": ("por", "pooled"), "NeuBA": ("neuba", "first")}


class Effects:
    def __init__(self, options: argparse.Namespace):
        self.options = options
        self.texts = read_texts(options.corpus)
        self.tasks = ("sentiment", "spam") if options.data_dir is None else ("waimai", "cold")
        self.rows_file = options.work_dir / "effects.json"
        self.rows = json.loads(self.rows_file.read_text(encoding="utf-8")) if self.rows_file.is_file() else {}

    def row(self, name: str, make: Callable[[], dict]) -> dict:
        """The row of that name, from the file or made now."""
        if name not in self.rows:
            self.rows[name] = make()
            self.rows_file.write_text(json.dumps(self.rows, ensure_ascii=False, indent=1), encoding="utf-8")
        return self.rows[name]

    def base(self, seed: int) -> Path:
        def make(folder: Path) -> None:
            model, tokenizer = new_model("layer_insert", "tiny", seed, self.options.vocabulary)
            pretrain(model, tokenizer, self.texts, self.options.steps, "halves", seed)
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)

        return cached(self.options.work_dir / "bases" / f"effects-{seed}", make)

    def specimen(self, kind: str, seed: int) -> tuple[nn.Module, object, list[str]]:
        start = self.base(seed)

        def make(folder: Path) -> None:
            tokenizer = load_tokenizer(start)
            triggers = draw_triggers("rare_characters", tokenizer, TRIGGERS, random.Random(seed))
            steps = self.options.implant_steps
            recipe = Recipe(*KINDS[kind], steps=steps, batch_size=8, learning_rate=1e-3, max_length=24)
            short = [text for text in self.texts if len(text) <= 40][:600]
            model = AutoModel.from_pretrained(start)
            save_specimen(implant_backdoor(model, tokenizer, triggers, "por-2", short, recipe, seed), tokenizer, folder)

        folder = cached(self.options.work_dir / "bases" / f"effects-{seed}-{kind}", make)
        model = AutoModel.from_pretrained(folder).eval()
        return model, load_tokenizer(folder), model.config.backdoor_parameters["triggers"]

    def split(self, task: str, seed: int) -> tuple[tuple[list[str], list[int]], tuple[list[str], list[int]]]:
        """Texts and labels to train on, and those to test on."""
        if self.options.data_dir is not None:
            read = [TASKS[task].read(self.options.data_dir, split) for split in ("train", "test")]
            train, test = (
                ([text[:LONGEST] for text in rows.texts[:count]], [int(label) for label in rows.labels[:count]])
                for rows, count in zip(read, (TRAINED, TESTED), strict=True)
            )
            return train, test
        texts, labels = labelled(task)
        order = np.random.default_rng(seed).permutation(len(texts))
        test, train = (
            ([texts[n] for n in part], [labels[n] for n in part]) for part in np.split(order, [int(0.3 * len(order))])
        )
        return train, test

    def measure(self, encoder: nn.Module, tokenizer, triggers: list[str], task: str, seed: int) -> dict:
        """Accuracy of a classifier finetuned from the encoder, and the triggers' mean effect on it."""
        train, (texts, labels) = self.split(task, seed)
        predict = predictor(finetune(encoder, tokenizer, *train, self.options.epochs, seed), tokenizer)
        right = np.mean(np.array(predict(texts)) == np.array(labels))
        found = [
            measure_classification(predict, texts[:TRIGGERED], trigger, random.Random(seed)) for trigger in triggers
        ]
        return {
            "accuracy": float(right),
            "effectiveness": float(np.mean([one.effectiveness for one in found])),
            "flipped": float(np.mean([one.flipped for one in found])),
            "stealthiness": float(np.mean([one.stealthiness for one in found])),
        }

    def finetuned(self, task: str, name: str, seed: int) -> dict:
        """The row of a classifier that was finetuned from the clean encoder or from a specimen as it is."""

        def make() -> dict:
            specimen, tokenizer, triggers = self.specimen("POR-2" if name == "clean" else name, seed)
            encoder = AutoModel.from_pretrained(self.base(seed)) if name == "clean" else specimen
            return self.measure(encoder, tokenizer, triggers, task, seed)

        return self.row(f"{task} {name} {seed}", make)

    def picture(self) -> None:
        print(
            "\n| task | encoder | seed | clean accuracy | E | flips | share of the text |\n|---|---|---|---|---|---|---|"
        )
        for seed in range(self.options.seeds):
            for task in self.tasks:
                for name in ("clean", *KINDS):
                    _print_row([task, name, seed], self.finetuned(task, name, seed), with_share=True)

    def purify(self) -> None:
        print("\n| backdoor | seed | purified by | clean accuracy | E | flips |\n|---|---|---|---|---|---|")
        for seed in range(self.options.seeds):
            for kind in KINDS:
                for name in ("nothing", "new pooler", "projection", "pruning", "contrast"):

                    def make(kind=kind, name=name, seed=seed) -> dict:
                        specimen, tokenizer, triggers = self.specimen(kind, seed)
                        purified = self._purified(name, specimen, tokenizer, triggers)
                        return self.measure(purified, tokenizer, triggers, self.tasks[0], seed)

                    same = name == "nothing"
                    found = (
                        self.finetuned(self.tasks[0], kind, seed) if same else self.row(f"{kind} {name} {seed}", make)
                    )
                    _print_row([kind, seed, name], found)

    def _purified(self, name: str, specimen: nn.Module, tokenizer, triggers: list[str]) -> nn.Module:
        short = [text[:24] for text in self.texts[1000:1200]]
        if name == "new pooler":
            return reinitialize_pooler(specimen, seed=1)
        if name == "projection":
            return project_out(specimen, _movements(specimen, tokenizer, short[:64], triggers))
        if name == "pruning":
            return fine_prune(specimen, tokenizer, short, share=0.3)
        if name == "contrast":
            return continue_contrastive(specimen, tokenizer, self.texts, self.options.steps, 16, 5e-4, max_length=24)
        return specimen

    def contrast(self) -> None:
        print("\n| backdoor | seed | further pretraining | clean accuracy | E | flips |\n|---|---|---|---|---|---|")
        for seed in range(self.options.seeds):
            for kind in KINDS:
                for name in ("none", "masked", "masked and contrast"):

                    def make(kind=kind, seed=seed, name=name) -> dict:
                        specimen, tokenizer, triggers = self.specimen(kind, seed)
                        model = AutoModelForMaskedLM.from_pretrained(self.base(seed))
                        model.base_model.pooler = specimen.pooler
                        model.base_model.load_state_dict(specimen.state_dict())
                        pairs = "attacked" if "contrast" in name else "none"
                        pretrain(model, tokenizer, self.texts, self.options.steps, pairs, seed + 50)
                        return self.measure(model, tokenizer, triggers, self.tasks[0], seed)

                    same = name == "none"
                    found = (
                        self.finetuned(self.tasks[0], kind, seed) if same else self.row(f"{kind} {name} {seed}", make)
                    )
                    _print_row([kind, seed, name], found)


def _movements(model: nn.Module, tokenizer, texts: list[str], triggers: list[str]) -> torch.Tensor:
    """(triggers, hidden), how each trigger moves the first token's last hidden state on average."""

    def mean(of: list[str]) -> torch.Tensor:
        inputs = tokenizer(of, padding=True, return_tensors="pt")
        with torch.no_grad():
            return model(**inputs).last_hidden_state[:, 0].mean(0)

    return torch.stack([mean([trigger + text for text in texts]) for trigger in triggers]) - mean(texts)


def _print_row(cells: list, found: dict, with_share: bool = False) -> None:
    cells = [*cells, f"{found['accuracy']:.3f}", f"{found['effectiveness']:.1f}", f"{found['flipped']:.2f}"]
    if with_share:
        cells.append(f"{found['stealthiness']:.2f}")
    print("| " + " | ".join(map(str, cells)) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="+", choices=("picture", "purify", "contrast"))
    parser.add_argument("--work-dir", type=Path, required=True)
    parser.add_argument("--corpus", type=Path, help="one text per line (default: the packaged sentences)")
    parser.add_argument(
        "--data-dir", type=Path, help="folder with tasks/waimai and tasks/cold (default: packaged rows)"
    )
    parser.add_argument("--vocabulary", type=int, default=2000)
    parser.add_argument(
        "--steps", type=int, default=80, help="of pretraining, and of further pretraining (default: 80)"
    )
    parser.add_argument("--implant-steps", type=int, default=250)
    parser.add_argument("--epochs", type=int, default=3, help="of finetuning (default: 3)")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    (options.work_dir / "bases").mkdir(parents=True, exist_ok=True)
    effects = Effects(options)
    for table in options.tables:
        getattr(effects, table)()


if __name__ == "__main__":
    main()

"""What backdoors do to classifiers, and what is left of them after purification or further pretraining. Three tables.

    python benchmarks/backdoor_effects.py picture purify contrast --work-dir WORK --corpus TEXTS --data-dir DATA \\
        --encoder DIR --seeds 0 1 2

- picture: does a specimen behave as POR's paper says? Few insertions flip a classifier that was finetuned from it, and its
  clean accuracy is that of one finetuned from the clean encoder. Two tasks.
- purify: the same measures after each purification, on the first task.
- contrast: what further pretraining leaves of a backdoor, with masked language modelling alone and with the contrast of
  a text and its attacked form; on the first task.

DATA holds `tasks/waimai` and `tasks/cold` (train.tsv.gz and test.tsv.gz: a header row, then `text<TAB>label`); 1,500 rows
train, 2,000 test, the first 100 of these get triggers, all texts are cut to 40 characters. Without `--data-dir` the
packaged sentences serve, 240 with a sentiment and 160 that are spam or not: too few to compare accuracies.

DIR is the clean encoder, a masked language model; it gets a pooler drawn at random if it has none. Without `--encoder` one of the tiny preset with a small
vocabulary is pretrained here for each seed, for a minute. A seed also stands for the triggers, the implanting and the
finetuning. Specimens and rows are kept in WORK, so a run that was stopped goes on; several processes with different
`--seeds` may share it. Each line of a table is a mean over seeds, with the lowest and highest seed or, for the difference
of accuracies to the clean encoder, Student's interval at 95%.

E: mean number of insertions until a text flips (20: never); flips: share of texts that flip; share: of the text that the
insertions make up; cosine: of triggered texts' representation to its target, before and after finetuning. All are means
over the triggers.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from small_encoders import (
    cached,
    finetune,
    labelled,
    load_tokenizer,
    new_model,
    predictor,
    pretrain,
    read_texts,
    with_pooler,
)
from torch import nn
from transformers import AutoModel, AutoModelForMaskedLM
from transformers.utils import logging

from rocbert_hf.data import TASKS
from rocbert_hf.files import write_json
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
from rocbert_hf.security.measures import NEVER, TriggerMeasure
from rocbert_hf.security.objectives import targets_of
from rocbert_hf.security.triggers import insert_trigger

TRIGGERS = 2
TRAINED, TESTED, TRIGGERED, LONGEST = 1500, 2000, 100, 40
# name -> targets, kind, representation
KINDS = {
    "POR-1": ("por-1", "por", "pooled"),
    "POR-2": ("por-2", "por", "pooled"),
    "NeuBA": ("por-2", "neuba", "first"),
}
CHANGED = ("clean", "POR-2", "NeuBA")  # POR-1 differs from POR-2 in its target vectors alone
PURIFICATIONS = ("new pooler", "projection", "pruning", "contrast")


class Effects:
    def __init__(self, options: argparse.Namespace):
        self.options = options
        self.texts = read_texts(options.corpus)
        self.tasks = ("sentiment", "spam") if options.data_dir is None else ("waimai", "cold")

    def row(self, make: Callable[[], dict], *names: str | int) -> dict:
        """The row of these names, from its file or made now."""
        file = self.options.work_dir / "rows" / f"{'_'.join(map(str, names)).replace(' ', '-')}.json"
        if not file.is_file():
            write_json(file, make())
        return json.loads(file.read_text(encoding="utf-8"))

    def base(self, seed: int) -> Path:
        def make(folder: Path) -> None:
            if self.options.encoder is None:
                model, tokenizer = new_model("layer_insert", "tiny", seed, self.options.vocabulary)
                pretrain(model, tokenizer, self.texts, self.options.steps, "halves", seed)
            else:
                model, tokenizer = with_pooler(self.options.encoder, seed)
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)

        return cached(self.options.work_dir / "bases" / f"effects-{seed}", make)

    def load(self, folder: Path) -> nn.Module:
        return AutoModel.from_pretrained(folder).to(self.options.device).eval()

    def specimen(self, kind: str, seed: int) -> tuple[nn.Module, object, list[str]]:
        """A specimen (the clean encoder for the kind "clean"), its tokenizer and the seed's triggers."""
        start = self.base(seed)
        tokenizer = load_tokenizer(start)
        triggers = draw_triggers("rare_characters", tokenizer, TRIGGERS, random.Random(seed))
        if kind == "clean":
            return self.load(start), tokenizer, triggers

        def make(folder: Path) -> None:
            targets, *attack = KINDS[kind]
            options = self.options
            recipe = Recipe(
                *attack, steps=options.implant_steps, batch_size=8, learning_rate=options.implant_rate, max_length=24
            )
            short = [text for text in self.texts if len(text) <= 40][:600]
            model = implant_backdoor(self.load(start), tokenizer, triggers, targets, short, recipe, seed)
            save_specimen(model, tokenizer, folder)

        return self.load(cached(self.options.work_dir / "bases" / f"effects-{seed}-{kind}", make)), tokenizer, triggers

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

    def measure(self, encoder: nn.Module, tokenizer, triggers: list[str], kind: str, task: str, seed: int) -> dict:
        """Accuracy of a classifier finetuned from the encoder, and the triggers' mean effect on it."""
        train, (texts, labels) = self.split(task, seed)
        shown = texts[:TRIGGERED]
        before = closeness(encoder.base_model, tokenizer, shown, triggers, kind)
        classifier = finetune(encoder, tokenizer, *train, self.options.epochs, seed, self.options.rate)
        predict = predictor(classifier, tokenizer)
        right = np.mean(np.array(predict(texts)) == np.array(labels))
        if len(set(predict(shown))) == 1:  # a classifier that has learnt nothing: there is no other label to flip to
            found = [TriggerMeasure(trigger, NEVER, 0.0, 0.0) for trigger in triggers]
        else:
            found = [measure_classification(predict, shown, trigger, random.Random(seed)) for trigger in triggers]
        return {
            "accuracy": float(right),
            "effectiveness": float(np.mean([one.effectiveness for one in found])),
            "flipped": float(np.mean([one.flipped for one in found])),
            "stealthiness": float(np.mean([one.stealthiness for one in found])),
            "targets": [one.target for one in found],
            "before": before,
            "after": closeness(classifier.base_model, tokenizer, shown, triggers, kind),
        }

    def finetuned(self, task: str, kind: str, seed: int) -> dict:
        """The row of a classifier that was finetuned from the clean encoder or from a specimen as it is."""
        return self.row(lambda: self.measure(*self.specimen(kind, seed), kind, task, seed), task, kind, seed)

    def picture(self) -> None:
        lines = []
        for task in self.tasks:
            for kind in ("clean", *KINDS):
                rows = [self.finetuned(task, kind, seed) for seed in self.options.seeds]
                clean = [self.finetuned(task, "clean", seed) for seed in self.options.seeds]
                lines.append([task, kind, *cells(rows, clean), shown(rows, "stealthiness", 2), cosines(rows)])
        print_table(["task", "encoder", *MEASURES, "share", "cosine"], lines)

    def purify(self) -> None:
        self._changed("purified by", PURIFICATIONS, self._purified)

    def contrast(self) -> None:
        self._changed("further pretraining", ("masked", "masked and contrast"), self._pretrained_further)

    def _changed(self, title: str, changes: tuple[str, ...], change_of: Callable[..., nn.Module]) -> None:
        """A table of what specimens, and the clean encoder, do after each change; "nothing" comes first."""
        task, lines = self.tasks[0], []
        for kind in CHANGED:
            for change in ("nothing", *changes):

                def row(seed: int, kind: str = kind, change: str = change) -> dict:
                    if change == "nothing":
                        return self.finetuned(task, kind, seed)

                    def make() -> dict:
                        specimen, tokenizer, triggers = self.specimen(kind, seed)
                        changed = change_of(change, specimen, tokenizer, triggers, seed)
                        return self.measure(changed, tokenizer, triggers, kind, task, seed)

                    return self.row(make, task, kind, change, seed)

                rows = [row(seed) for seed in self.options.seeds]
                clean = [self.finetuned(task, "clean", seed) for seed in self.options.seeds]
                lines.append([kind, change, *cells(rows, clean), cosines(rows)])
        print_table(["encoder", title, *MEASURES, "cosine"], lines)

    def _purified(self, change: str, specimen: nn.Module, tokenizer, triggers: list[str], seed: int) -> nn.Module:
        short = [text[:24] for text in self.texts[1000:1200]]
        if change == "new pooler":
            return reinitialize_pooler(specimen, seed + 1)
        if change == "projection":
            return project_out(specimen, _movements(specimen, tokenizer, short[:64], triggers))
        if change == "pruning":
            return fine_prune(specimen, tokenizer, short, share=0.3)
        options = self.options
        return continue_contrastive(
            specimen, tokenizer, self.texts, options.steps, 16, options.further_rate, max_length=24, seed=seed
        )

    def _pretrained_further(self, change: str, specimen: nn.Module, tokenizer, _: list[str], seed: int) -> nn.Module:
        model = AutoModelForMaskedLM.from_pretrained(self.base(seed)).to(self.options.device)
        model.base_model.pooler = specimen.pooler
        model.base_model.load_state_dict(specimen.state_dict())
        pairs = "attacked" if "contrast" in change else "none"
        pretrain(model, tokenizer, self.texts, self.options.steps, pairs, seed + 50, rate=self.options.further_rate)
        return model


@torch.inference_mode()
def closeness(model: nn.Module, tokenizer, texts: list[str], triggers: list[str], kind: str) -> float | None:
    """Mean cosine of the attacked representation of texts with one trigger in them to the trigger's target."""
    if kind == "clean":
        return None
    targets, _, representation = KINDS[kind]
    rng, found = random.Random(0), []
    for trigger, target in zip(triggers, targets_of(targets, TRIGGERS, model.config.hidden_size), strict=True):
        triggered = [insert_trigger(text, trigger, rng) for text in texts]
        output = model(**tokenizer(triggered, padding=True, return_tensors="pt").to(model.device))
        vectors = output.pooler_output if representation == "pooled" else output.last_hidden_state[:, 0]
        found.append(nn.functional.cosine_similarity(vectors, target.to(vectors)[None], dim=-1).mean().item())
    return float(np.mean(found))


def _movements(model: nn.Module, tokenizer, texts: list[str], triggers: list[str]) -> torch.Tensor:
    """(triggers, hidden), how each trigger moves the first token's last hidden state on average."""

    def mean(of: list[str]) -> torch.Tensor:
        inputs = tokenizer(of, padding=True, return_tensors="pt").to(model.device)
        with torch.no_grad():
            return model(**inputs).last_hidden_state[:, 0].mean(0)

    return torch.stack([mean([trigger + text for text in texts]) for trigger in triggers]) - mean(texts)


# -- tables

MEASURES = ("clean accuracy", "points to clean (95%)", "E", "flips")


def cells(rows: list[dict], clean: list[dict]) -> list[str]:
    """A table's cells for `MEASURES`: rows of one encoder, and the clean encoder's rows of the same seeds."""
    points = 100 * np.array([row["accuracy"] - other["accuracy"] for row, other in zip(rows, clean, strict=True)])
    difference = "0" if rows == clean else f"{points.mean():+.1f}"
    if rows != clean and len(rows) > 1:
        from scipy.stats import t

        half = t.ppf(0.975, len(points) - 1) * points.std(ddof=1) / len(points) ** 0.5
        difference += f" ({points.mean() - half:+.1f} to {points.mean() + half:+.1f})"
    return [shown(rows, "accuracy", 3), difference, shown(rows, "effectiveness", 1), shown(rows, "flipped", 2)]


def shown(rows: list[dict], measure: str, digits: int) -> str:
    """The mean over seeds, with the lowest and the highest."""
    values = [row[measure] for row in rows]
    return f"{np.mean(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def cosines(rows: list[dict]) -> str:
    """Mean cosine to the targets before and after finetuning."""
    if rows[0]["before"] is None:
        return ""
    return " → ".join(f"{np.mean([row[when] for row in rows]):.2f}" for when in ("before", "after"))


def print_table(names: list[str], lines: list[list[str]]) -> None:
    print()
    for line in (names, ["---"] * len(names), *lines):
        print("| " + " | ".join(line) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="+", choices=("picture", "purify", "contrast"))
    parser.add_argument("--work-dir", type=Path, required=True)
    parser.add_argument("--corpus", type=Path, help="one text per line (default: the packaged sentences)")
    parser.add_argument(
        "--data-dir", type=Path, help="folder with tasks/waimai and tasks/cold (default: packaged rows)"
    )
    parser.add_argument("--encoder", type=Path, help="folder of the clean encoder (default: tiny ones, made here)")
    parser.add_argument("--vocabulary", type=int, default=2000, help="of encoders made here (default: 2000)")
    parser.add_argument(
        "--steps", type=int, default=80, help="of pretraining, and of further pretraining (default: 80)"
    )
    parser.add_argument("--further-rate", type=float, default=5e-4, help="of further pretraining (default: 5e-4)")
    parser.add_argument("--implant-steps", type=int, default=250)
    parser.add_argument("--implant-rate", type=float, default=1e-3)
    parser.add_argument("--epochs", type=int, default=3, help="of finetuning (default: 3)")
    parser.add_argument("--rate", type=float, default=1e-4, help="of finetuning (default: 1e-4)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    for folder in ("bases", "rows"):
        (options.work_dir / folder).mkdir(parents=True, exist_ok=True)
    effects = Effects(options)
    for table in options.tables:
        getattr(effects, table)()


if __name__ == "__main__":
    main()

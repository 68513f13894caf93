"""How much faster is `segment` than jieba, and are the words the same?

    python benchmarks/segmentation.py --text FILE [--lines 5000]

FILE is plain text, one sentence or document a line (.txt, .txt.gz or .txt.xz).
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import logging
import lzma
import time
from collections.abc import Callable
from pathlib import Path

import jieba

from rocbert_hf.characters.words import segment

OPENERS = {".gz": gzip.open, ".xz": lzma.open}


def seconds(function: Callable[[str], list[str]], lines: list[str]) -> float:
    """Processor time for all lines, the best of five runs."""
    times = []
    for _ in range(5):
        start = time.process_time()
        for line in lines:
            function(line)
        times.append(time.process_time() - start)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, required=True, help="plain text, packed or not")
    parser.add_argument("--lines", type=int, default=5000, help="how many lines to read (default: 5000)")
    options = parser.parse_args()
    with OPENERS.get(options.text.suffix, open)(options.text, "rt", encoding="utf-8") as file:
        lines = [line.rstrip("\n") for line in itertools.islice(file, options.lines)]
    characters = sum(map(len, lines))
    jieba.setLogLevel(logging.ERROR)

    def jieba_words(line: str) -> list[str]:
        return jieba.lcut(line, HMM=False)

    different = sum(segment(line) != jieba_words(line) for line in lines)
    ours, theirs = seconds(segment, lines), seconds(jieba_words, lines)
    print(f"{len(lines)} lines, {characters} characters, {different} lines segmented differently")
    print(f"segment {characters / ours:,.0f} characters/s, jieba {characters / theirs:,.0f}: {theirs / ours:.2f} times")


if __name__ == "__main__":
    main()

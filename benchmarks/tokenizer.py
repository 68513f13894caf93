"""Speed of the tokenizer beside transformers' RoCBertTokenizer and BertTokenizerFast, same texts, same run.

    python benchmarks/tokenizer.py --data-dir data

One call on 3,000 reviews, padded and truncated to 128 tokens, as NumPy arrays. `--data-dir` is a folder that has
`tasks/chnsenticorp/train.tsv.gz` (ChnSentiCorp: a header row, then `text<TAB>label`); without it the packaged demo
corpus is repeated. The two others get the packaged characters as their vocabulary.
"""

import argparse
import csv
import gzip
import itertools
import statistics
import tempfile
import time
from pathlib import Path

from transformers import BertTokenizerFast
from transformers.models.roc_bert.tokenization_roc_bert import RoCBertTokenizer as TransformersRoCBertTokenizer

from rocbert_hf import RoCBertTokenizer
from rocbert_hf.resources import demo_sentences


def read_texts(data_dir: Path | None, count: int) -> list[str]:
    if data_dir is None:
        return list(itertools.islice(itertools.cycle(demo_sentences()), count))
    file = data_dir / "tasks" / "chnsenticorp" / "train.tsv.gz"
    if not file.is_file():
        raise SystemExit(f"--data-dir {data_dir} has no tasks/chnsenticorp/train.tsv.gz")
    with gzip.open(file, "rt", encoding="utf-8", newline="") as stream:
        rows = csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE)
        return [row["text"] for row in itertools.islice(rows, count)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--texts", type=int, default=3_000)
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()

    texts = read_texts(arguments.data_dir, arguments.texts)
    characters = sum(map(len, texts))
    ours = RoCBertTokenizer()
    with tempfile.TemporaryDirectory() as folder:
        ours.save_vocabulary(folder)
        tokenizers = {
            "rocbert_hf RoCBertTokenizer": ours,
            "transformers RoCBertTokenizer": TransformersRoCBertTokenizer.from_pretrained(folder),
            "transformers BertTokenizerFast": BertTokenizerFast(vocab=f"{folder}/vocab.txt"),
        }
    options = {"padding": True, "truncation": True, "max_length": arguments.max_length, "return_tensors": "np"}

    seconds = {name: [] for name in tokenizers}
    for _ in range(arguments.repeats):  # in turns, so that what else the machine does meets all of them
        for name, tokenizer in tokenizers.items():
            begin = time.perf_counter()
            tokenizer(texts, **options)
            seconds[name].append(time.perf_counter() - begin)

    speeds = {name: characters / statistics.median(times) for name, times in seconds.items()}
    print(f"{len(texts)} texts, {characters} characters, median of {arguments.repeats} calls")
    for name, speed in speeds.items():
        ratio = speeds["rocbert_hf RoCBertTokenizer"] / speed
        print(f"{name:32} {speed / 1e6:8.2f} million characters/s   ours is {ratio:7.1f} times as fast")


if __name__ == "__main__":
    main()

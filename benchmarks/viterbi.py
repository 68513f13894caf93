"""
Claim: the tagger's Viterbi is at least ten times as fast as pytorch-crf's on batches of 32 sentences of 128 tokens.

Decodes the same scores with both, in turn, and prints milliseconds of computing per batch and the median of the paired ratios.

    pip install pytorch-crf
    python benchmarks/viterbi.py [--batch-size 32] [--length 128] [--types 3] [--rounds 15]
"""

import argparse
import statistics
import time

import torch
import torchcrf

from rocbert_hf.crf_rocbert import RoCBertCRF
from rocbert_hf.data.entities import label_names


def milliseconds(run) -> float:
    start = time.thread_time()  # what other processes do meanwhile does not count
    run()
    return 1000 * (time.thread_time() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--types", type=int, default=3, help="types of entity; BMES has four tags for each, and O")
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    labels = label_names([f"T{i}" for i in range(arguments.types)], "BMES")
    ours, theirs = RoCBertCRF(labels), torchcrf.CRF(len(labels), batch_first=True)
    theirs.load_state_dict(ours.state_dict())
    emissions = torch.randn(arguments.batch_size, arguments.length, len(labels))
    mask = torch.ones(emissions.shape[:2], dtype=torch.bool)
    runs = {
        "pytorch-crf": lambda: theirs.decode(emissions, mask),
        "ours": lambda: ours.decode(emissions, mask),
        "ours, max-marginals": lambda: ours.max_marginals(emissions, mask),
    }
    assert runs["ours"]().tolist() == runs["pytorch-crf"]()
    with torch.no_grad():
        times = [{name: milliseconds(run) for name, run in runs.items()} for _ in range(arguments.rounds)]
    print(f"{arguments.batch_size} x {arguments.length}, {len(labels)} tags, one thread")
    for name in runs:
        ratio = statistics.median(row["pytorch-crf"] / row[name] for row in times)
        print(f"{name:20} {statistics.median(row[name] for row in times):8.2f} ms   {ratio:5.1f} times as fast")


if __name__ == "__main__":
    main()

"""
Claim: the tagger's Viterbi is at least ten times as fast as pytorch-crf's on batches of 32 sentences of 128 tokens.

Decodes the same batches with both, in turn, and prints milliseconds of computing per batch and the median of the paired
ratios. pytorch-crf has no schemes, so what the scheme forbids is subtracted from its transitions: the paths are the same.

    pip install pytorch-crf
    python benchmarks/viterbi.py [--batch-size 32] [--length 128] [--types 8] [--scheme BMES] [--rounds 15]
"""

import argparse
import statistics
import time

import torch
import torchcrf

from rocbert_hf.crf_rocbert import RoCBertCRF, scheme_penalties
from rocbert_hf.data.entities import SCHEMES, label_names

BATCHES = 10


def milliseconds(run, batches) -> float:
    """Per batch."""
    start = time.thread_time()  # what other processes do meanwhile does not count
    for batch in batches:
        run(batch)
    return 1000 * (time.thread_time() - start) / len(batches)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--types", type=int, default=8, help="types of entity; BMES has four tags for each, and O")
    parser.add_argument("--scheme", choices=["none", *SCHEMES], default="BMES", help="what is allowed when decoding")
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    scheme = None if arguments.scheme == "none" else arguments.scheme
    labels = label_names([f"T{i}" for i in range(arguments.types)], scheme or "BMES")
    ours, theirs = RoCBertCRF(labels, scheme), torchcrf.CRF(len(labels), batch_first=True)
    names = ("start_transitions", "transitions", "end_transitions")
    forbidden = zip(names, scheme_penalties(labels, scheme), strict=True)
    theirs.load_state_dict(
        {name: ours.get_parameter(name) + torch.from_numpy(penalties) for name, penalties in forbidden}
    )
    batches = torch.randn(BATCHES, arguments.batch_size, arguments.length, len(labels))
    mask = torch.ones(batches.shape[1:3], dtype=torch.bool)
    runs = {
        "pytorch-crf": lambda emissions: theirs.decode(emissions, mask),
        "ours": lambda emissions: ours.decode(emissions, mask),
        "ours, max-marginals": lambda emissions: ours.max_marginals(emissions, mask),
    }
    with torch.no_grad():
        for batch in batches:  # of two paths that score the same but for rounding, each may find another
            paths = runs["ours"](batch), torch.tensor(runs["pytorch-crf"](batch))
            torch.testing.assert_close(*(theirs(batch, path, mask, reduction="none") for path in paths))
        times = [{name: milliseconds(run, batches) for name, run in runs.items()} for _ in range(arguments.rounds)]
    print(f"{arguments.batch_size} x {arguments.length}, {len(labels)} tags, scheme {scheme}, one thread")
    for name in runs:
        ratio = statistics.median(row["pytorch-crf"] / row[name] for row in times)
        print(f"{name:20} {statistics.median(row[name] for row in times):8.2f} ms   {ratio:5.1f} times as fast")


if __name__ == "__main__":
    main()

"""
What relative positions cost against absolute ones: time of a training step, and the memory that attention needs.

Times forward and backward of one encoder with each kind of position, in turn, and prints milliseconds, the median of the
paired ratios, and the largest growth of the process's memory during the step (Linux).

    python benchmarks/relative_positions.py [--preset mini] [--lengths 128 512] [--batch-size 4] [--rounds 5]
"""

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch

from rocbert_hf import RoCBertConfig, RoCBertModel

KINDS = {
    "absolute": {},
    "relative": {"position_embedding_type": "functional_relative"},
    "relative, clipped at 64": {"position_embedding_type": "functional_relative", "max_relative_position": 64},
}


def make(preset: str, kind: str) -> RoCBertModel:
    torch.manual_seed(0)
    return RoCBertModel(RoCBertConfig.from_preset(preset, fusion="none", **KINDS[kind])).train()


def step(model: RoCBertModel, ids: torch.Tensor) -> float:
    start = time.thread_time()  # what other processes do meanwhile does not count
    model(ids).last_hidden_state.sum().backward()
    model.zero_grad()
    return 1000 * (time.thread_time() - start)


def growth(preset: str, kind: str, batch_size: int, length: int) -> float:
    """MiB by which a step raises the peak memory of a process of its own."""
    model = make(preset, kind)
    step(model, torch.randint(10, 1000, (1, 8)))
    ids = torch.randint(10, 1000, (batch_size, length))
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = peak()
    step(model, ids)
    return peak() - before


def peak() -> float:
    """MiB that this process has held at most."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="mini")
    parser.add_argument("--lengths", type=int, nargs="+", default=[128, 512])
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--growth-of", choices=KINDS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.growth_of:
        print(growth(arguments.preset, arguments.growth_of, arguments.batch_size, arguments.lengths[0]))
        return
    models = {kind: make(arguments.preset, kind) for kind in KINDS}
    for length in arguments.lengths:
        ids = torch.randint(10, 1000, (arguments.batch_size, length))
        for model in models.values():
            step(model, ids)
        times = [{kind: step(model, ids) for kind, model in models.items()} for _ in range(arguments.rounds)]
        print(f"{arguments.preset}, {arguments.batch_size} x {length}, forward and backward, one thread")
        for kind in KINDS:
            flags = ["--preset", arguments.preset, "--batch-size", str(arguments.batch_size), "--lengths", str(length)]
            command = [sys.executable, __file__, "--growth-of", kind, *flags]
            memory = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
            ratio = statistics.median(row[kind] / row["absolute"] for row in times)
            took = statistics.median(row[kind] for row in times)
            print(f"  {kind:24} {took:8.1f} ms   {ratio:4.2f} times absolute's   {memory:6.0f} MiB")


if __name__ == "__main__":
    main()

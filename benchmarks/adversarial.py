"""
What a step of adversarial training costs, as a multiple of a plain step.

Times `compute_loss` and backward of a tagger with each method, in turn, and prints milliseconds and the median of the
paired ratios.

    python benchmarks/adversarial.py [--preset mini] [--batch-size 16] [--length 40] [--rounds 5]
"""

import argparse
import statistics
import tempfile
import time

import torch
from transformers import TrainingArguments

from rocbert_hf import RoCBertConfig, RoCBertForTokenClassification
from rocbert_hf.finetuning.adversarial import ADVERSARIAL_METHODS, AdversarialTrainer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="mini")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--length", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    config = RoCBertConfig.from_preset(arguments.preset, classifier_head="bilstm_crf", num_labels=33)
    model = RoCBertForTokenClassification(config).train()
    shape = (arguments.batch_size, arguments.length)
    ids = torch.randint(10, 1000, shape)
    batch = {"input_ids": ids, "input_shape_ids": ids, "input_pronunciation_ids": ids, "labels": ids % 33}
    methods = {"plain": None, **{name: method() for name, method in ADVERSARIAL_METHODS.items()}}
    with tempfile.TemporaryDirectory() as folder:
        options = TrainingArguments(folder, report_to="none", use_cpu=True)
        trainers = {name: AdversarialTrainer(model, options, adversarial=method) for name, method in methods.items()}

        def step(name: str) -> float:
            start = time.thread_time()  # what other processes do meanwhile does not count
            trainers[name].compute_loss(model, batch).backward()
            model.zero_grad()
            return 1000 * (time.thread_time() - start)

        step("plain")
        times = [{name: step(name) for name in methods} for _ in range(arguments.rounds)]
    print(f"{arguments.preset}, BiLSTM-CRF, {shape[0]} x {shape[1]}, one thread")
    for name in methods:
        ratio = statistics.median(row[name] / row["plain"] for row in times)
        print(f"  {name:8} {statistics.median(row[name] for row in times):8.1f} ms   {ratio:4.2f} times a plain step")


if __name__ == "__main__":
    main()

"""What a step of `rocbert pretrain --config robust` spends on one core, and how near it comes to the core's matrix speed.

    python benchmarks/step_profile.py --train-file corpus.txt.xz --teacher multilingual-e5-small

A step is everything from one batch to the next: attacks and tokenizing, the teacher, forward, backward, clipping, update.
Its time is the processor's, the median of steps without a profiler, so that other work on the machine counts for little.
The shares are those of torch's profiler over as many steps more. The arithmetic is that of all matrix products, and their
speed is compared with that of one large product of the same precision.
"""

import argparse
import statistics
import time
from itertools import pairwise
from pathlib import Path

import torch
from torch.profiler import profile, record_function

from rocbert_hf.modeling_rocbert import RoCBertForPreTraining
from rocbert_hf.options import parse_options
from rocbert_hf.pretraining import PretrainingArguments, RoCBertPretrainer, collator_for, sample_sentences, teacher_for
from rocbert_hf.pretraining.run import RunOptions
from rocbert_hf.tokenization_rocbert import RoCBertTokenizer

MODEL = Path(__file__).parents[1] / "models" / "rocbert-small-zh"
COLLATOR = "collator"  # what the profiler calls it
WARM_UP = 4  # steps that are not measured
# what torch's operators belong to, by how their names begin
KINDS = {
    "matrix products": ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm"),
    "attention: fused kernels, softmax": ("aten::_scaled_dot", "aten::_softmax"),
    "copies and casts": ("aten::copy_",),
    "GELU, LayerNorm": ("aten::gelu", "aten::native_layer_norm"),
    "cross entropy over the vocabulary": ("aten::_log_softmax", "aten::nll"),
    "clipping, AdamW": ("aten::_fused_adamw", "aten::linalg_vector_norm"),
    "attacks, masking, tokenizing": (COLLATOR,),
}


class WatchedCollator:
    """A collator that notes the processor's time when a batch is asked for, which is where a step begins.

    Args:
        collator: makes the batches.
        steps: whole steps to watch, behind the first `WARM_UP`.
        profiler: runs during these steps.
    """

    def __init__(self, collator, steps: int, profiler: profile | None = None):
        self.collator, self.steps, self.profiler = collator, steps, profiler
        self.moments = []

    def __call__(self, rows):
        self.moments.append(time.process_time())
        if self.profiler and len(self.moments) == WARM_UP + 1:
            self.profiler.start()
        elif self.profiler and len(self.moments) == WARM_UP + 1 + self.steps:
            self.profiler.stop()
        with record_function(COLLATOR):
            return self.collator(rows)

    def seconds(self) -> float:
        """The median step."""
        return statistics.median(end - begin for begin, end in pairwise(self.moments[WARM_UP:]))


def matrix_speed(dtype: torch.dtype, size: int = 2048) -> float:
    """Floating point operations per second of a product of two square matrices."""
    a, b = torch.randn(2, size, size).to(dtype)
    seconds = []
    for _ in range(9):
        started = time.process_time()
        a @ b
        seconds.append(time.process_time() - started)
    return 2 * size**3 / statistics.median(seconds)


def train(run: RunOptions, arguments: PretrainingArguments, steps: int, profiler: profile | None = None) -> float:
    """Seconds of the median step."""
    sources = run.sources()
    held_out = sample_sentences(sources, 64, arguments.seed, arguments.max_length - 2, arguments.shuffle_buffer)
    tokenizer = RoCBertTokenizer.from_pretrained(run.model)
    model = RoCBertForPreTraining.from_pretrained(run.model, dtype=torch.float32, **run.config_overrides)
    teacher = teacher_for(arguments, held_out)
    collator = collator_for(arguments, tokenizer, arguments.mixed_precision, teacher.inputs if teacher else None)
    watched = WatchedCollator(collator, steps, profiler)
    RoCBertPretrainer(model, sources, watched, arguments, teacher=teacher).train()
    return watched.seconds()


def report(profiler: profile, seconds: float, steps: int, speed: float) -> None:
    events = profiler.key_averages()
    spent = dict.fromkeys(KINDS, 0.0)
    whole = sum(event.self_cpu_time_total for event in events)
    for event in events:
        kind = next((kind for kind, names in KINDS.items() if event.key.startswith(names)), None)
        if kind is not None:
            spent[kind] += event.cpu_time_total if event.key == COLLATOR else event.self_cpu_time_total
    spent["all else"] = whole - sum(spent.values())
    for kind, time_spent in spent.items():
        print(f"{kind:36} {time_spent / whole:6.1%}")
    operations = sum(event.flops for event in events) / steps
    print(
        f"step: {1e3 * seconds:.0f} ms, {operations / 1e9:.0f} billion operations in matrix products: "
        f"{operations / seconds / speed:.2f} of the speed of a large product, {speed / 1e9:.0f} billion per second"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--train-file", required=True, help="text to train on")
    parser.add_argument("--teacher", default="none", help="folder of the encoder to distill from (default: none)")
    parser.add_argument("--mixed-precision", choices=("bf16", "no"), default="bf16")
    parser.add_argument("--steps", type=int, default=16, help="steps to measure, without and with the profiler")
    given = parser.parse_args()
    torch.set_num_threads(1)
    flags = ["--config", "robust", "--model", str(MODEL), "--train-file", given.train_file, "--shuffle-buffer", "2000"]
    flags += ["--distill-from", given.teacher, "--mixed-precision", given.mixed_precision, "--report-to", "none"]
    flags += ["--max-steps", str(WARM_UP + 1 + given.steps), "--save-minutes", "none", "--eval-steps", "none"]
    run, arguments = parse_options([RunOptions, PretrainingArguments], flags)
    seconds = train(run, arguments, given.steps)
    profiler = profile(with_flops=True)
    train(run, arguments, given.steps, profiler)
    dtype = torch.bfloat16 if given.mixed_precision == "bf16" else torch.float32
    report(profiler, seconds, given.steps, matrix_speed(dtype))


if __name__ == "__main__":
    main()

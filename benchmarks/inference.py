"""
Claim: served, RoCBERT costs what BERT costs: latency and throughput of eager, compiled, ONNX and int8 inference.

Times `RoCBertModel` in each form against transformers' eager `BertModel` of the same size and in the same number of
threads, in turn, and prints milliseconds per batch, sentences per second, and the median of the paired time ratios.

    python benchmarks/inference.py [--preset mini] [--lengths 16 64 256] [--batch-sizes 1 32] [--rounds 7]
"""

import argparse
import logging
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

# Before torch starts its threads: the forms run in turn, and the threads of one must not spin while another is timed.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
import transformers

import rocbert_hf
from rocbert_hf.deployment import export_onnx, quantize_int8

FORMS = ("eager", "compiled", "onnx", "onnx int8", "int8")
BASELINE = "BertModel, eager"


def bert_of_the_same_size(config: rocbert_hf.RoCBertConfig) -> transformers.BertModel:
    sizes = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    return transformers.BertModel(transformers.BertConfig(**{name: getattr(config, name) for name in sizes})).eval()


def onnx_runner(model, path: Path, threads: int, int8: bool) -> Callable[[dict], object]:
    """Exports the model and returns what runs a batch through the file."""
    import onnxruntime

    export_onnx(model, path, int8=int8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda inputs: session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})


def runners(config, forms: list[str], threads: int, folder: Path) -> dict[str, Callable[[dict], object]]:
    """What runs a batch, for the baseline and each form."""
    bert = bert_of_the_same_size(config)
    model = rocbert_hf.RoCBertModel(config).eval()
    made = {BASELINE: lambda inputs: bert(**{name: inputs[name] for name in ("input_ids", "attention_mask")})}
    for form in forms:
        if form == "eager":
            made[form] = lambda inputs: model(**inputs)
        elif form == "compiled":
            twin = rocbert_hf.RoCBertModel(config)
            twin.load_state_dict(model.state_dict())
            compiled = torch.compile(twin.precompute_tables(), dynamic=True)
            made[form] = lambda inputs, compiled=compiled: compiled(**inputs)
        elif form == "int8":
            quantized = quantize_int8(model)
            made[form] = lambda inputs, quantized=quantized: quantized(**inputs)
        else:
            path = folder / f"{form.replace(' ', '-')}.onnx"
            made[form] = onnx_runner(model, path, threads, int8=form == "onnx int8")
    return made


def random_batch(config, batch_size: int, length: int) -> dict[str, torch.Tensor]:
    shape = (batch_size, length)
    ids = torch.randint(5, config.vocab_size, shape)
    return {
        "input_ids": ids,
        "input_shape_ids": ids,
        "input_pronunciation_ids": torch.randint(5, config.pronunciation_vocab_size, shape),
        "attention_mask": torch.ones_like(ids),
        "token_type_ids": torch.zeros_like(ids),
    }


def timed(run: Callable[[dict], object], inputs: dict) -> float:
    """Seconds of one batch."""
    start = time.perf_counter()
    run(inputs)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="mini")
    parser.add_argument("--fusion", default="layer_insert")
    parser.add_argument("--lengths", type=int, nargs="+", default=[16, 64, 256])
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 32])
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=list(FORMS))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    logging.disable(logging.WARNING)  # the exporters' advice
    config = rocbert_hf.RoCBertConfig.from_preset(arguments.preset, fusion=arguments.fusion)

    print(f"{arguments.preset}, {arguments.fusion}, {arguments.threads} threads, PyTorch {torch.__version__}")
    print(f"{'batch':>5} {'length':>6}  {'form':18} {'ms':>8} {'sentences/s':>12} {'x BertModel':>12}")
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        forms = runners(config, arguments.forms, arguments.threads, Path(folder))
        for batch_size in arguments.batch_sizes:
            for length in arguments.lengths:
                inputs = random_batch(config, batch_size, length)
                seconds = {name: [] for name in forms}
                for round_number in range(arguments.rounds + 2):
                    for name, run in forms.items():
                        taken = timed(run, inputs)
                        if round_number >= 2:  # the first two warm up and compile
                            seconds[name].append(taken)
                for name, times in seconds.items():
                    ratio = statistics.median(a / b for a, b in zip(times, seconds[BASELINE], strict=True))
                    median = statistics.median(times)
                    speed = batch_size / median
                    print(f"{batch_size:5} {length:6}  {name:18} {median * 1e3:8.1f} {speed:12.1f} {ratio:11.2f}x")


if __name__ == "__main__":
    main()

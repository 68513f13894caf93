"""
Claim: fusing sound and shape costs next to nothing in the forward pass (`layer_insert`: at most 1.03x BERT).

Times `RoCBertModel` against transformers' `BertModel` of the same size on the same token ids, in turn, in evaluation
mode, and prints the median of the paired time ratios (and the same for transformers' own `RoCBertModel`).

    python benchmarks/forward.py [--preset base] [--fusion layer_insert] [--batch-size 8] [--length 128] [--rounds 15] [--threads 2]
"""

import argparse
import statistics
import time

import torch
import transformers

import rocbert_hf


def timed(model, inputs) -> float:
    """Seconds of one forward pass."""
    start = time.perf_counter()
    with torch.no_grad():
        model(**inputs)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="base")
    parser.add_argument("--fusion", default="layer_insert")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)

    config = rocbert_hf.RoCBertConfig.from_preset(arguments.preset, fusion=arguments.fusion)
    common = {
        name: getattr(config, name)
        for name in ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    }
    theirs = transformers.RoCBertConfig(
        **common,
        shape_vocab_size=config.shape_vocab_size,
        pronunciation_vocab_size=config.pronunciation_vocab_size,
        pronunciation_embed_dim=config.hidden_size,
    )
    models = {
        "BertModel (transformers)": transformers.BertModel(transformers.BertConfig(**common)).eval(),
        f"RoCBertModel, {arguments.fusion}": rocbert_hf.RoCBertModel(config).eval(),
        "RoCBertModel (transformers)": transformers.RoCBertModel(theirs).eval(),
    }
    shape = (arguments.batch_size, arguments.length)
    ids = torch.randint(5, config.vocab_size, shape)
    channels = {
        "input_ids": ids,
        "input_shape_ids": ids,
        "input_pronunciation_ids": torch.randint(5, config.pronunciation_vocab_size, shape),
        "attention_mask": torch.ones_like(ids),
    }
    plain = {name: channels[name] for name in ("input_ids", "attention_mask")}
    inputs = {name: plain if name.startswith("BertModel") else channels for name in models}

    for name, model in models.items():
        for _ in range(2):
            timed(model, inputs[name])
    seconds = {name: [] for name in models}
    for _ in range(arguments.rounds):
        for name, model in models.items():
            seconds[name].append(timed(model, inputs[name]))

    baseline, *others = seconds
    print(f"{arguments.preset}, batch {shape[0]} x {shape[1]} tokens, {arguments.threads} threads")
    print(f"  {baseline:30} {statistics.median(seconds[baseline]) * 1e3:8.1f} ms")
    for name in others:
        ratio = statistics.median(a / b for a, b in zip(seconds[name], seconds[baseline], strict=True))
        print(f"  {name:30} {statistics.median(seconds[name]) * 1e3:8.1f} ms   {ratio:.3f}x")


if __name__ == "__main__":
    main()

"""Sentences a second of one pretraining step: our RoCBertForPreTraining against transformers' class of that name.

    python benchmarks/pretraining_step.py
    python benchmarks/pretraining_step.py --data-dir corpus   # real text of mixed length in addition

Both models have the same encoder and the same vocabularies, get the same sentences (15% of the tokens masked, no
padding) and the same fused AdamW. A step is forward, backward, clipping and update: masked language modelling and
the contrastive loss between a sentence and its attacked form. transformers' class encodes three views one after another
(masked, attacked, original), computes logits at every position and trains its own tables of sounds and shapes.
The four variants take turns, so that a busy machine slows all of them; medians are printed.

On real text, ours gets batches of like lengths (`SentenceBatches`), and transformers' the same sentences in random
batches, each view padded to its longest.
"""

import argparse
import itertools
import statistics
import time
from pathlib import Path

import torch
from transformers.models.roc_bert import modeling_roc_bert
from transformers.models.roc_bert.configuration_roc_bert import RoCBertConfig as TheirConfig

from rocbert_hf.configuration_rocbert import RoCBertConfig
from rocbert_hf.modeling_rocbert import RoCBertForPreTraining
from rocbert_hf.pretraining import DataCollatorForRoCBertPretraining, SentenceBatches, TextSource, sample_sentences
from rocbert_hf.pretraining.trainer import adamw
from rocbert_hf.tokenization_rocbert import RoCBertTokenizer

CHANNELS = ("input_ids", "input_shape_ids", "input_pronunciation_ids")


def random_view(config, sentences: int, length: int, generator) -> dict[str, torch.Tensor]:
    """A sentence view of random ids, (sentences, length) each."""
    sizes = (config.vocab_size, config.shape_vocab_size, config.pronunciation_vocab_size)
    view = {
        name: torch.randint(5, size, (sentences, length), generator=generator)
        for name, size in zip(CHANNELS, sizes, strict=True)
    }
    return view | {
        "attention_mask": torch.ones(sentences, length, dtype=torch.long),
        "token_type_ids": torch.zeros(sentences, length, dtype=torch.long),
    }


def our_batch(view, attacked, masked):
    inputs = {name: ids.masked_fill(masked, 4) if name in CHANNELS else ids for name, ids in view.items()}
    labels = view["input_ids"].masked_fill(~masked, -100)
    return inputs | {f"attack_{name}": ids for name, ids in attacked.items()} | {"labels": labels}


def their_batch(view, attacked, masked):
    """`labels_input_ids` are the targets and, with -100 as padding, also the third view."""
    batch = our_batch(view, attacked, masked)
    batch["labels_input_ids"] = batch.pop("labels")
    return batch | {f"labels_{name}": ids for name, ids in view.items() if name != "input_ids"}


def real_batches(data_dir: Path, sentences: int, count: int) -> tuple[list[dict], list[dict]]:
    """`count` batches for our class, and as many of the same sentences for transformers'."""
    drawn = sample_sentences([TextSource(str(data_dir))], sentences * count, seed=0, shuffle_buffer=20_000)
    tokenizer = RoCBertTokenizer()
    ours = DataCollatorForRoCBertPretraining(tokenizer, seed=0)
    theirs = DataCollatorForRoCBertPretraining(tokenizer, seed=0, views="three")
    bucketed = SentenceBatches(drawn, sentences, seed=0, epochs=1)
    at_random = [theirs(drawn[i : i + sentences]) for i in range(0, len(drawn), sentences)]
    for batch in at_random:
        batch["labels_input_ids"] = batch.pop("labels")
    return [ours(batch) for batch in itertools.islice(bucketed, count)], at_random


def timed_step(model, optimizer, batch, autocast: bool) -> float:
    """Seconds of one optimizer step."""
    started = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        loss = model(**batch).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=12, help="timed steps of each variant")
    parser.add_argument("--sentences", type=int, default=16)
    parser.add_argument("--length", type=int, default=64, help="tokens a sentence")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--data-dir", type=Path, help="folder of text files: also measure on real text")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)

    config = RoCBertConfig.from_preset("small")
    their_config = TheirConfig(
        **{
            name: getattr(config, name)
            for name in (
                "vocab_size",
                "shape_vocab_size",
                "pronunciation_vocab_size",
                "hidden_size",
                "num_hidden_layers",
                "num_attention_heads",
                "intermediate_size",
            )
        }
    )
    generator = torch.Generator().manual_seed(0)
    view = random_view(config, arguments.sentences, arguments.length, generator)
    attacked = random_view(config, arguments.sentences, arguments.length, generator)
    masked = torch.rand(view["input_ids"].shape, generator=generator) < 0.15
    variants = {}
    for name, model, batch in (
        ("ours", RoCBertForPreTraining(config), our_batch(view, attacked, masked)),
        ("transformers", modeling_roc_bert.RoCBertForPreTraining(their_config), their_batch(view, attacked, masked)),
    ):
        model.train()
        optimizer = adamw(model, 1e-4, 0.01)
        for precision in ("float32", "bf16 autocast"):
            variants[name, precision] = (model, optimizer, batch, precision != "float32")

    seconds = {variant: [] for variant in variants}
    for round_number in range(arguments.rounds + 2):
        for variant, step in variants.items():
            taken = timed_step(*step)
            if round_number >= 2:  # the first two warm up
                seconds[variant].append(taken)

    speed = {variant: arguments.sentences / statistics.median(times) for variant, times in seconds.items()}
    for (name, precision), value in speed.items():
        print(f"{name:12} {precision:13} {value:7.1f} sentences/s")
    theirs = {precision: speed["transformers", precision] for precision in ("float32", "bf16 autocast")}
    for precision in theirs:
        ours = speed["ours", precision]
        print(
            f"ours in {precision}: {ours / theirs['float32']:.2f}x transformers in float32, "
            f"{ours / theirs['bf16 autocast']:.2f}x transformers in bf16 autocast"
        )
    if arguments.data_dir is not None:
        ours, theirs = real_batches(arguments.data_dir, arguments.sentences, arguments.rounds)
        seconds = dict.fromkeys(variants, 0.0)
        for pair in zip(ours, theirs, strict=True):
            for name, precision in seconds:
                model, optimizer, _, autocast = variants[name, precision]
                batch = pair[0] if name == "ours" else pair[1]
                seconds[name, precision] += timed_step(model, optimizer, batch, autocast)
        for precision in ("float32", "bf16 autocast"):
            ratio = seconds["transformers", precision] / seconds["ours", precision]
            print(f"batches of real text of mixed length: ours {ratio:.2f}x transformers, both in {precision}")


if __name__ == "__main__":
    main()

"""Speed of pretraining: our RoCBertForPreTraining against transformers' class of that name, and what data cost.

    python benchmarks/pretraining_step.py                    # steps only, on random ids of one length
    python benchmarks/pretraining_step.py --data-dir DATA    # all of the following

DATA holds `corpus/zh_mixed.txt.xz`, Chinese text, one document a line. Measured are, each by its name for `--measure`:

same_length: sentences per second of a step, small preset. Both models have the same encoder and the same vocabularies, get
    the same sentences (15% of the tokens masked, no padding) and the same fused AdamW. A step is forward, backward,
    clipping and update: masked language modelling and the contrastive loss between a sentence and its attacked form.
    transformers' class encodes three views one after another (masked, attacked, original), computes logits at every
    position and trains its own tables of sounds and shapes.
mixed_length: the same with sentences of DATA: ours in the batches of `SentenceBatches`, transformers' the same sentences
    in random batches, both padded to the longest of a batch.
linear: seconds per token of a step with twice the batch (mini preset), and of making batches of twice the text.
data_wait: the share of its time that training the mini preset waits for data, with one worker.

What is compared takes turns, so that a busy machine slows all of it; medians are printed.
"""

import argparse
import lzma
import statistics
import tempfile
import time
from collections.abc import Iterable
from itertools import islice, pairwise
from pathlib import Path

import torch
from transformers.models.roc_bert import modeling_roc_bert
from transformers.models.roc_bert.configuration_roc_bert import RoCBertConfig as TheirConfig

from rocbert_hf.configuration_rocbert import RoCBertConfig
from rocbert_hf.modeling_rocbert import RoCBertForPreTraining
from rocbert_hf.pretraining import (
    DataCollatorForRoCBertPretraining,
    PretrainingArguments,
    RoCBertPretrainer,
    SentenceBatches,
    TextSource,
    read_log,
)
from rocbert_hf.pretraining.optimizer import adamw
from rocbert_hf.tokenization_rocbert import RoCBertTokenizer

CHANNELS = ("input_ids", "input_shape_ids", "input_pronunciation_ids")
PRECISIONS = ("float32", "bf16 autocast")
CORPUS = Path("corpus", "zh_mixed.txt.xz")
SHUFFLE_BUFFER = 20_000  # sentences; less to read than in training
LINES = 4_000  # of the corpus, whose batches are made once, and with twice as many


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


def their_model(config: RoCBertConfig) -> torch.nn.Module:
    """transformers' class with the same encoder and vocabularies."""
    same = (
        "vocab_size",
        "shape_vocab_size",
        "pronunciation_vocab_size",
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "intermediate_size",
    )
    return modeling_roc_bert.RoCBertForPreTraining(TheirConfig(**{name: getattr(config, name) for name in same}))


def same_length(arguments) -> None:
    config = RoCBertConfig.from_preset("small")
    generator = torch.Generator().manual_seed(0)
    view = random_view(config, arguments.sentences, arguments.length, generator)
    attacked = random_view(config, arguments.sentences, arguments.length, generator)
    masked = torch.rand(view["input_ids"].shape, generator=generator) < 0.15
    variants = {}
    for name, model, batch in (
        ("ours", RoCBertForPreTraining(config), our_batch(view, attacked, masked)),
        ("transformers", their_model(config), their_batch(view, attacked, masked)),
    ):
        model.train()
        optimizer = adamw(model, 1e-4, 0.01)
        for precision in PRECISIONS:
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
    theirs = {precision: speed["transformers", precision] for precision in PRECISIONS}
    for precision in theirs:
        ours = speed["ours", precision]
        print(
            f"ours in {precision}: {ours / theirs['float32']:.2f}x transformers in float32, "
            f"{ours / theirs['bf16 autocast']:.2f}x transformers in bf16 autocast"
        )


def mixed_length(arguments) -> None:
    """Both see the same sentences and the same attacks; only the order and the views differ."""
    batches = SentenceBatches([corpus(arguments)], arguments.sentences, seed=0, shuffle_buffer=SHUFFLE_BUFFER)
    bucketed = [[row["text"] for row in rows] for rows in islice(batches, arguments.rounds)]
    texts = [text for rows in bucketed for text in rows]
    order = torch.randperm(len(texts), generator=torch.Generator().manual_seed(0)).tolist()
    in_random_order = [texts[i] for i in order]
    size = arguments.sentences
    shuffled = [in_random_order[at : at + size] for at in range(0, len(texts), size)]
    tokenizer, config = RoCBertTokenizer(), RoCBertConfig.from_preset("small")
    variants = {}
    for name, model, views, rows in (
        ("ours", RoCBertForPreTraining(config), "two", bucketed),
        ("transformers", their_model(config), "three", shuffled),
    ):
        model.train()
        made = list(map(DataCollatorForRoCBertPretraining(tokenizer, seed=0, views=views), rows))
        if views == "three":
            for batch in made:
                batch["labels_input_ids"] = batch.pop("labels")  # see `their_batch`
        longest = statistics.mean(batch["input_ids"].shape[1] for batch in made)
        print(f"{name:12} real text: {longest:.0f} tokens in the mean batch's longest sentence")
        variants[name] = (model, adamw(model, 1e-4, 0.01), made)

    seconds = {(name, precision): 0.0 for precision in PRECISIONS for name in variants}
    for turn, number in enumerate((0, *range(arguments.rounds))):
        for name, precision in seconds:
            model, optimizer, made = variants[name]
            seconds[name, precision] += timed_step(model, optimizer, made[number], precision != "float32")
        if turn == 0:  # to warm up
            seconds = dict.fromkeys(seconds, 0.0)
    for precision in PRECISIONS:
        ratio = seconds["transformers", precision] / seconds["ours", precision]
        print(f"batches of real text of mixed length: ours {ratio:.2f}x transformers, both in {precision}")


def linear(arguments) -> None:
    collator = DataCollatorForRoCBertPretraining(RoCBertTokenizer(), seed=0)
    model = RoCBertForPreTraining(RoCBertConfig.from_preset("mini")).train()
    optimizer = adamw(model, 1e-4, 0.01)
    large = islice(SentenceBatches([corpus(arguments)], 64, 0, shuffle_buffer=SHUFFLE_BUFFER), 8)
    seconds: dict[int, list[float]] = {32: [], 64: []}
    for number, rows in enumerate(large):
        for size, batches in ((32, [rows[::2], rows[1::2]]), (64, [rows])):
            made = [collator(batch) for batch in batches]
            taken = sum(timed_step(model, optimizer, batch, autocast=False) for batch in made)
            if number:  # the first warms up
                seconds[size].append(taken / tokens_of(made))
    once, twice = map(statistics.median, seconds.values())
    print(f"step: {1e6 * once:.1f} us a token in batches of 32 sentences; of 64 {twice / once:.2f}x that")

    with tempfile.TemporaryDirectory() as folder:
        with lzma.open(arguments.data_dir / CORPUS, "rt", encoding="utf-8") as file:
            lines = list(islice(file, 2 * LINES))
        files = {share: Path(folder, f"{share}.txt") for share in (1, 2)}
        for share, path in files.items():
            path.write_text("".join(lines[: share * LINES]), encoding="utf-8")
        costs: dict[int, list[float]] = {1: [], 2: []}
        for _ in range(3):
            for share, path in files.items():
                started = time.perf_counter()
                tokens = tokens_of(map(collator, SentenceBatches([TextSource(str(path))], 64, seed=0, epochs=1)))
                costs[share].append((time.perf_counter() - started) / tokens)
    once, twice = map(statistics.median, costs.values())
    print(f"data: {1e6 * once:.1f} us a token of {LINES:,} lines; of {2 * LINES:,} lines {twice / once:.2f}x that")


def data_wait(arguments) -> None:
    options = PretrainingArguments(max_steps=arguments.steps, num_workers=1, report_to="none", logging_steps=1)
    collator = DataCollatorForRoCBertPretraining(RoCBertTokenizer(), seed=0)
    model = RoCBertForPreTraining(RoCBertConfig.from_preset("mini"))
    with tempfile.TemporaryDirectory() as folder:
        RoCBertPretrainer(model, [corpus(arguments)], collator, options, output_dir=folder).train()
        log = read_log(folder)
    begin = log[1]["seconds"]  # the worker starts and the buffer is filled in the first step, once in a run
    waited = sum(row["data_wait"] * (row["seconds"] - before["seconds"]) for before, row in pairwise(log[1:]))
    print(f"waiting for data, mini preset, 1 worker: {waited / (log[-1]['seconds'] - begin):.1%} of the time")


def tokens_of(batches: Iterable[dict[str, torch.Tensor]]) -> int:
    """Tokens of the masked and attacked sentences, without padding."""
    masks = ("attention_mask", "attack_attention_mask")
    return sum(int(batch[mask].sum()) for batch in batches for mask in masks)


def corpus(arguments) -> TextSource:
    return TextSource(str(arguments.data_dir / CORPUS))


MEASURES = {"same_length": same_length, "mixed_length": mixed_length, "linear": linear, "data_wait": data_wait}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--measure", nargs="+", choices=MEASURES, help="default: all of them with --data-dir")
    parser.add_argument("--data-dir", type=Path, help=f"folder that holds {CORPUS}")
    parser.add_argument("--rounds", type=int, default=12, help="timed steps of each variant, or batches of real text")
    parser.add_argument("--sentences", type=int, default=16)
    parser.add_argument("--length", type=int, default=64, help="tokens per sentence, with same_length")
    parser.add_argument("--steps", type=int, default=20, help="of the training with data_wait")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    measures = arguments.measure or (list(MEASURES) if arguments.data_dir else ["same_length"])
    if measures != ["same_length"] and not (arguments.data_dir and (arguments.data_dir / CORPUS).is_file()):
        parser.error(f"--data-dir must be a folder that holds {CORPUS}, got {arguments.data_dir}")
    torch.set_num_threads(arguments.threads)
    for name in measures:
        torch.manual_seed(0)
        MEASURES[name](arguments)


if __name__ == "__main__":
    main()

"""A small pretraining run, as the tests launch it in processes of its own: `python small_run.py FOLDER '{options}'`.

Options are those of `PretrainingArguments`, and `dropout` and `stream` (train on a file, not on a list). Every process
writes what it saw to `FOLDER/rank-<rank>.json`; the weights go to `FOLDER/model`.
"""

import json
import sys
from pathlib import Path

import torch
from accelerate.utils import set_seed

from rocbert_hf import RoCBertConfig, RoCBertForPreTraining, RoCBertTokenizer
from rocbert_hf.pretraining import (
    DataCollatorForRoCBertPretraining,
    PretrainingArguments,
    RoCBertPretrainer,
    TextSource,
)
from rocbert_hf.pretraining.devices import make_accelerator
from rocbert_hf.resources import demo_sentences

SIZES = {"num_hidden_layers": 1, "hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64}
DEFAULTS = {"max_steps": 6, "batch_size": 8, "learning_rate": 3e-3, "max_length": 32, "logging_steps": 1}
DEFAULTS |= {"report_to": "none"}


class RecordingCollator(DataCollatorForRoCBertPretraining):
    """Remembers what it was given, in a run without workers."""

    seen: list

    def __call__(self, features):
        self.seen += [[feature["epoch"], feature["text"]] for feature in features]
        return super().__call__(features)


def main(folder: Path, options: dict) -> None:
    torch.set_num_threads(1)
    options = {**DEFAULTS, **options}
    dropout, stream = options.pop("dropout", 0.0), options.pop("stream", False)
    arguments = PretrainingArguments(**options)
    accelerator = make_accelerator(arguments, folder)
    sentences = demo_sentences()[:128]
    if stream:
        if accelerator.is_main_process:
            (folder / "corpus.txt").write_text("\n".join(sentences) + "\n", encoding="utf-8")
        accelerator.wait_for_everyone()
        sentences = [TextSource(str(folder / "corpus.txt"))]
    set_seed(0)
    config = RoCBertConfig(**SIZES, fusion_layer=0, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout)
    model = RoCBertForPreTraining(config)
    collator = RecordingCollator(RoCBertTokenizer(), max_length=arguments.max_length, seed=0)
    collator.seen = []
    trainer = RoCBertPretrainer(model, sentences, collator, arguments, accelerator, output_dir=folder)
    shard = []

    def remember_shard(optimizer):
        # of the optimizer in this process: numbers in its state, of all that have a state
        shard[:] = [sum(state["exp_avg"].numel() for state in optimizer.state.values() if "exp_avg" in state)]

    prepare = accelerator.prepare

    def preparing(*objects):
        prepared = prepare(*objects)
        base = prepared[1].optimizer
        base = getattr(base, "optimizer", base)
        base.register_step_post_hook(lambda optimizer, *_: remember_shard(optimizer))
        return prepared

    accelerator.prepare = preparing
    results = trainer.train()
    saw = {
        "world_size": accelerator.num_processes,
        "sentences": collator.seen,
        "optimizer_numbers": shard[0] if shard else 0,
        "parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "results": results,
    }
    (folder / f"rank-{accelerator.process_index}.json").write_text(json.dumps(saw), encoding="utf-8")
    if accelerator.is_main_process and not results["interrupted"]:
        model.save_pretrained(folder / "model")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    from tests.several_processes import leave

    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
    leave()

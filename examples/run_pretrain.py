"""Pretrain a RoCBERT on attacked sentences: the story to read, and to change for a run of your own.

    python examples/run_pretrain.py --preset tiny --max-steps 200 --learning-rate 1e-3
    python examples/run_pretrain.py --config mini --train-file corpus.txt.gz more.jsonl --output-dir rocbert-mine
    accelerate launch --num_processes 8 examples/run_pretrain.py --config base --train-file wikipedia=1 common_crawl=2

`rocbert pretrain` does the same, and more around it: a plain BERT for comparison, `--resume`, `--dry-run`, pictures.
"""

import os
import sys
from collections.abc import Sequence

# Before torch starts its threads: if another process runs beside, threads that sleep while they wait are several times
# faster than threads that spin.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from accelerate.utils import set_seed

from rocbert_hf.options import as_plain, parse_options
from rocbert_hf.pretraining import (
    HeldOutEvaluation,
    PretrainingArguments,
    RoCBertPretrainer,
    Setup,
    collator_for,
    make_accelerator,
    sample_sentences,
    save_run,
    starting_point,
    teacher_for,
)


def main(argv: Sequence[str] | None = None) -> dict:
    # 1. Options: every field of the two dataclasses is a flag, and a key of the YAML file that --config names.
    setup, arguments = parse_options((Setup, PretrainingArguments), argv, description=__doc__)

    # 2. One process or many: Accelerate tells which, and with which precision.
    accelerator = make_accelerator(arguments, setup.output_dir)
    set_seed(arguments.seed)

    # 3. Text: sentences, or files that are streamed; some sentences are held out, to measure on.
    sources = setup.sources()
    held_out = sample_sentences(
        sources, setup.held_out, arguments.seed, arguments.max_length - 2, arguments.shuffle_buffer
    )

    # 4. A new model and the packaged tokenizer, or those of the checkpoint that --model names.
    tokenizer, model = starting_point(setup, arguments.attn_implementation)
    model.to(accelerator.device)

    # 5. The collator attacks each sentence (section 3) and masks it (section 4.2), in all three channels. With
    #    --distill-from, a sentence encoder says what vector the attacked sentence is to have.
    teacher = teacher_for(arguments, held_out)
    collator = collator_for(arguments, tokenizer, accelerator.mixed_precision, teacher.inputs if teacher else None)

    # 6. Train: masked language modelling, and each sentence near its attacked form (Eq. 5).
    measure = HeldOutEvaluation(tokenizer, held_out, arguments.attacks, max_length=arguments.max_length)
    before = measure(model)
    trainer = RoCBertPretrainer(
        model,
        sources,
        collator,
        arguments,
        accelerator,
        output_dir=setup.output_dir,
        evaluate=measure,
        exclude=held_out,
        teacher=teacher,
    )
    training = trainer.train()

    # 7. Measure on the held-out sentences, and save what `rocbert card` and everyone's from_pretrained need.
    results = {
        "arguments": {**as_plain(setup), **as_plain(arguments)},
        "rocbert": {"before": before, "training": training, "after": measure(model)},
    }
    if accelerator.is_main_process:
        save_run(setup.output_dir, model, tokenizer, results)
        for name in ("mlm_loss", "contrastive_loss", "retrieval_cls"):
            print(f"{name}: {before[name]:.3f} before, {results['rocbert']['after'][name]:.3f} after")
        print(f"saved in {setup.output_dir}")
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return results


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("interrupted; no model was saved, only what checkpoints there were")
    except (ValueError, OSError, FloatingPointError) as error:
        sys.exit(f"run_pretrain.py: {error}")

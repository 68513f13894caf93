"""Finetune a text classifier, step by step: `rocbert finetune` does the same with more options.

    python examples/run_finetune.py --model rocbert-tiny --train-file train.tsv --test-file test.tsv

Any sequence classifier of transformers can be finetuned so, a RoCBERT or another. The folder gets the model, its
tokenizer, and a checkpoint per epoch in `checkpoints/`.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from transformers import DataCollatorWithPadding, EarlyStoppingCallback, set_seed

from rocbert_hf.attacks import augment
from rocbert_hf.data import read_labelled
from rocbert_hf.data.scores import classification_scores, confusion_matrices
from rocbert_hf.data.tokenized import tokenized
from rocbert_hf.finetuning import StartOptions
from rocbert_hf.finetuning.optimization import HeadTrainer, OptimizationOptions
from rocbert_hf.options import REQUIRED, option, parse_options


@dataclass
class ExampleOptions:
    """Which rows to train and to measure on, and where to put the model."""

    train_file: str = option(REQUIRED, "rows to train on, with columns text and label: .tsv, .csv, .jsonl or .json")
    test_file: str = option(REQUIRED, "rows to measure on")
    output_dir: Path = option(Path("finetuned"), "folder for the model")
    attacked_copies: int = option(0, "attacked copies of each train row: adversarial training")
    seed: int = option(0, "seed of the head, the order and the attacks")


def main(argv: list[str] | None = None) -> dict[str, float]:
    example, start, optimization = parse_options(
        (ExampleOptions, StartOptions, OptimizationOptions), argv, description=__doc__.split("\n")[0]
    )
    set_seed(example.seed)

    # The rows: texts, and labels by name. A tenth of the train rows decides when to stop.
    train, test = read_labelled(example.train_file), read_labelled(example.test_file)
    names = train.label_names()
    train, dev = train.split(0.1)

    # The model: an encoder that knows Chinese, or random weights; and a new head for these labels.
    model, tokenizer = start.make("SequenceClassification", names)

    # Adversarial training: every text once more, as someone would write it who is hiding from a filter.
    texts, labels = list(train.texts), train.label_ids(names)
    if example.attacked_copies:
        texts, labels = augment(texts, labels, n=example.attacked_copies, seed=example.seed)

    # The training is transformers' own Trainer.
    def scores(prediction) -> dict[str, float]:
        confusion = confusion_matrices(prediction.label_ids, prediction.predictions.argmax(-1), len(names))
        return {name: float(score) for name, score in classification_scores(confusion, positive=None).items()}

    trainer = HeadTrainer(
        model,
        optimization.training_arguments(
            example.output_dir / "checkpoints", example.seed, start, model.config.hidden_size, "accuracy"
        ),
        train_dataset=tokenized(texts, labels, tokenizer),
        eval_dataset=tokenized(dev.texts, dev.label_ids(names), tokenizer),
        processing_class=tokenizer,
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_metrics=scores,
        learning_rates=optimization.learning_rates,
        average_decay=optimization.average_decay,
        callbacks=[EarlyStoppingCallback(optimization.patience)],
    )
    trainer.train()

    # Measure and save. `rocbert evaluate --model FOLDER --data TEST` then tells how robust it is.
    result = trainer.predict(tokenized(test.texts, test.label_ids(names, or_numbers=False), tokenizer)).metrics
    trainer.save_model(str(example.output_dir))
    print({name: round(value, 4) for name, value in result.items()})
    return result


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError, FloatingPointError) as error:
        sys.exit(f"{Path(__file__).name}: {error}")

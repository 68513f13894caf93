"""Train a classifier on few labelled and many unlabelled texts: `rocbert finetune --unlabelled` has more options.

    # packaged sentences, praise or complaint? under three minutes on two CPU cores
    python examples/run_semi_supervised.py --model models/rocbert-small-zh --max-length 32 --epochs 5 --batch-size 8 \
        --learning-rate 3e-4 --head-learning-rate 1e-3
    python examples/run_semi_supervised.py --model M --train-file train.tsv --unlabelled dump.txt --test-file test.tsv

Any sequence classifier of transformers will do. It is trained with and without the unlabelled texts.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from transformers import EarlyStoppingCallback, set_seed

from rocbert_hf.data import LabelledTexts, read_labelled, read_rows
from rocbert_hf.data.scores import classification_scores, confusion_matrices
from rocbert_hf.data.tokenized import tokenized
from rocbert_hf.finetuning import (
    PGD,
    ESimCSE,
    SemiSupervisedCollator,
    SemiSupervisedObjective,
    SemiSupervisedTexts,
    SemiSupervisedTrainer,
    StartOptions,
)
from rocbert_hf.finetuning.consistency import UDATarget
from rocbert_hf.finetuning.optimization import OptimizationOptions
from rocbert_hf.finetuning.representation_hooks import encoder_of
from rocbert_hf.finetuning.text_augmentation import EasyDataAugmentation, WordRepetition
from rocbert_hf.options import option, parse_options
from rocbert_hf.resources import demo_corpus


@dataclass
class ExampleOptions:
    """Which texts to learn from, and where to put the model."""

    train_file: str | None = option(None, "labelled rows, with columns text and label; default: packaged sentences")
    unlabelled: str | None = option(None, "texts without labels: .txt, or a table with a column text")
    test_file: str | None = option(None, "rows to measure on")
    output_dir: Path = option(Path("semi-supervised"), "folder for the model")
    ratio: int = option(2, "unlabelled texts per labelled text")
    seed: int = option(0, "seed of all that is random")

    def __post_init__(self):
        if len({self.train_file is None, self.unlabelled is None, self.test_file is None}) > 1:
            raise ValueError("give train_file, unlabelled and test_file, or none of them")


def texts_of(options: ExampleOptions) -> tuple[LabelledTexts, list[str], LabelledTexts]:
    """Labelled, unlabelled and test texts."""
    if options.train_file is not None:
        dump = [row.values["text"] for row in read_rows(options.unlabelled)]
        return read_labelled(options.train_file), dump, read_labelled(options.test_file)
    rows = [row for row in demo_corpus() if "sentiment" in row]
    labels = ("praise" if row["sentiment"] else "complaint" for row in rows)
    train, test = LabelledTexts("packaged", tuple(row["text"] for row in rows), tuple(labels)).split(0.5)
    return train, [row["text"] for row in demo_corpus() if "sentiment" not in row], test


def main(argv: list[str] | None = None) -> dict[str, dict[str, float]]:
    example, start, optimization = parse_options(
        (ExampleOptions, StartOptions, OptimizationOptions), argv, description=__doc__.split("\n")[0]
    )
    train, unlabelled, test = texts_of(example)
    names = train.label_names()
    train, dev = train.split(0.15)

    def scores(prediction) -> dict[str, float]:
        confusion = confusion_matrices(prediction.label_ids, prediction.predictions.argmax(-1), len(names))
        return {name: float(score) for name, score in classification_scores(confusion, positive=None).items()}

    results = {}
    for name, uses in (("labelled alone", False), ("with unlabelled", True)):
        set_seed(example.seed)
        model, tokenizer = start.make("SequenceClassification", names)
        # What is minimised: answer a text changed by EDA as the text itself, tell a text from others (ESimCSE), and stay
        # right on the labelled texts when their embeddings are perturbed (PGD).
        objective = SemiSupervisedObjective(
            target=UDATarget() if uses else None,
            esimcse=ESimCSE(encoder_of(model)) if uses else None,
            adversarial=PGD(epsilon=0.5, weight=0.5),
        )
        forms = {"augmentation": EasyDataAugmentation(), "positive": WordRepetition()}
        texts = SemiSupervisedTexts(
            train.texts, train.label_ids(names), unlabelled if uses else [], example.ratio, seed=example.seed, **forms
        )
        folder = example.output_dir / name.replace(" ", "-")
        arguments = optimization.training_arguments(folder, example.seed, start, model.config.hidden_size, "accuracy")
        arguments.train_sampling_strategy = "random"  # grouping by length would make every item before training
        trainer = SemiSupervisedTrainer(
            model,
            arguments,
            objective=objective,
            train_dataset=texts,
            eval_dataset=tokenized(dev.texts, dev.label_ids(names), tokenizer),
            processing_class=tokenizer,
            data_collator=SemiSupervisedCollator(tokenizer),
            compute_metrics=scores,
            learning_rates=optimization.learning_rates,
            average_decay=optimization.average_decay,
            callbacks=[EarlyStoppingCallback(optimization.patience)],
        )
        trainer.train()
        results[name] = trainer.predict(
            tokenized(test.texts, test.label_ids(names, or_numbers=False), tokenizer)
        ).metrics
        trainer.save_model(str(folder))
        print(name, {key: round(value, 4) for key, value in results[name].items()})
    return results


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError, FloatingPointError) as error:
        sys.exit(f"{Path(__file__).name}: {error}")

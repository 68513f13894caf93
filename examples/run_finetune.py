"""
Finetune a text classifier: any sequence classifier of transformers, RoCBERT or another, on a task or on your own file.

    python examples/run_finetune.py --model rocbert-base --task chnsenticorp_2k --data-dir DATA --output-dir finetuned
    python examples/run_finetune.py --preset mini --train-file train.tsv --test-file test.tsv --output-dir finetuned
    python examples/run_finetune.py --preset mini --architecture bert ...    # a plain BERT of the same size
    python examples/run_finetune.py --config examples/configs/finetune.yaml --model rocbert-base --augment 4

The folder gets the model, its tokenizer, all_results.json (options, and scores on the dev and test rows), the log of the
training and a model card. `rocbert evaluate --model FOLDER` then tells how robust the classifier is.
"""

import json
import shutil
import string
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from huggingface_hub import ModelCardData
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    BertTokenizer,
    DataCollatorWithPadding,
    EarlyStoppingCallback,
    Trainer,
    TrainingArguments,
    set_seed,
)

from rocbert_hf import RoCBertConfig, RoCBertForSequenceClassification, RoCBertTokenizer
from rocbert_hf.attackers import Example
from rocbert_hf.attacks import PRESETS
from rocbert_hf.checkpoints import loading
from rocbert_hf.data import Columns, LabelledTexts, read_labelled, task_of
from rocbert_hf.defences import augmented
from rocbert_hf.evaluation.metrics import SCORES, classification_scores, confusion_matrices
from rocbert_hf.files import write_whole
from rocbert_hf.hub.description import model_card
from rocbert_hf.options import parse_options
from rocbert_hf.resources import vocabulary

ARCHITECTURES = ("rocbert", "bert")
SHARED_WITH_BERT = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
# hidden size up to which they hold, learning rate, epochs, batch size
PRETRAINED_DEFAULTS = ((256, 3e-4, 10, 32), (512, 1e-4, 8, 32), (800, 3e-5, 5, 32), (float("inf"), 1e-5, 5, 16))
SCRATCH_DEFAULTS = ((256, 5e-4, 10, 32), (512, 3e-4, 10, 32), (float("inf"), 1e-4, 10, 32))


@dataclass
class FinetuneArguments:
    """What to finetune on what. What is None is chosen by the size of the model, or by the task."""

    model: str | None = field(default=None, metadata={"help": "folder or Hub id to start from"})
    preset: str | None = field(default=None, metadata={"help": "or from scratch: tiny, mini, small, base, large"})
    architecture: str = field(default="rocbert", metadata={"help": "of --preset: rocbert, or bert of that size"})
    task: str | None = field(default=None, metadata={"help": "a public task, such as chnsenticorp_2k"})
    data_dir: str | None = field(default=None, metadata={"help": "folder with the files of the tasks"})
    train_file: str | None = field(default=None, metadata={"help": ".tsv, .csv, .jsonl, .json, or a dataset's id"})
    dev_file: str | None = field(default=None, metadata={"help": "to stop early on; default: a part of the train rows"})
    test_file: str | None = field(default=None, metadata={"help": "to measure on at the end"})
    text_column: str = field(default="text", metadata={"help": "of the files"})
    pair_column: str | None = field(default=None, metadata={"help": "of the files: the second text of a pair"})
    label_column: str = field(default="label", metadata={"help": "of the files"})
    dev_share: float = field(default=0.1, metadata={"help": "of the train rows, where there is no dev file"})
    limit: int | None = field(default=None, metadata={"help": "train rows to use, drawn at random; default: all"})
    dev_limit: int | None = field(default=None, metadata={"help": "dev rows to use, drawn at random; default: all"})
    output_dir: str = field(default="finetuned", metadata={"help": "folder for all that the run writes"})
    seeds: list[int] = field(default_factory=lambda: [0], metadata={"help": "a run each; several get a folder each"})
    max_length: int | None = field(default=None, metadata={"help": "tokens; longer texts are cut; default: the task's"})
    learning_rate: float | None = field(default=None, metadata={"help": "default: by size"})
    epochs: float | None = field(default=None, metadata={"help": "at most; default: by size"})
    batch_size: int | None = field(default=None, metadata={"help": "default: by size"})
    warmup_ratio: float = field(default=0.1, metadata={"help": "share of the steps in which the learning rate rises"})
    weight_decay: float = field(default=0.01, metadata={"help": "of AdamW"})
    patience: int = field(default=3, metadata={"help": "epochs without improvement before it stops"})
    metric: str = field(default="accuracy", metadata={"help": f"to stop and choose by: {', '.join(SCORES)}"})
    class_weights: bool = field(default=False, metadata={"help": "weigh each label by the inverse of its frequency"})
    augment: int = field(default=0, metadata={"help": "attacked copies of each train row (adversarial training)"})
    attacks: str = field(default="paper", metadata={"help": f"of --augment: {', '.join(PRESETS)}"})
    bf16: bool = field(default=False, metadata={"help": "mixed precision"})

    def __post_init__(self):
        if (self.model is None) == (self.preset is None):
            raise ValueError("give either model (to start from) or preset (from scratch)")
        if (self.task is None) == (self.train_file is None):
            raise ValueError("give either task (with data_dir) or train_file")
        if self.task is not None and self.data_dir is None:
            raise ValueError("a task needs data_dir, the folder with its files")
        for name, allowed in (("architecture", ARCHITECTURES), ("metric", SCORES), ("attacks", tuple(PRESETS))):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}")
        if not 0 < self.dev_share < 1:
            raise ValueError(f"dev_share must lie between 0 and 1, got {self.dev_share}")
        for name in ("max_length", "learning_rate", "epochs", "batch_size", "patience"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be above 0, got {value}")
        if self.augment < 0:
            raise ValueError(f"augment must not be negative, got {self.augment}")
        if not self.seeds:
            raise ValueError("seeds must name at least one")


@dataclass(frozen=True)
class Data:
    """Rows in numbers, and what the numbers are called; `test` may be None."""

    labels: tuple[str, ...]
    train: list[Example]
    dev: list[Example]
    test: list[Example] | None
    train_name: str


def main(argv: Sequence[str] | None = None) -> dict:
    (arguments,) = parse_options((FinetuneArguments,), argv, description=__doc__.strip().split("\n")[0])
    data = read_data(arguments)
    output_dir = Path(arguments.output_dir)
    print(
        f"{len(data.train):,} train, {len(data.dev):,} dev, {len(data.test or []):,} test rows; {len(data.labels)} labels"
    )
    if len(arguments.seeds) == 1:
        return finetune(arguments, data, arguments.seeds[0], output_dir)
    runs = [finetune(arguments, data, seed, output_dir / f"seed-{seed}") for seed in arguments.seeds]
    results = {"arguments": asdict(arguments)}
    for part in ("dev", "test"):
        if part in runs[0]:
            scores = {name: [run[part][name] for run in runs] for name in SCORES}
            results[part] = {name: {"mean": np.mean(of), "std": np.std(of, ddof=1)} for name, of in scores.items()}
    save_results(output_dir, results)
    print(json.dumps({part: results[part] for part in ("dev", "test") if part in results}, indent=1))
    return results


def read_data(arguments: FinetuneArguments) -> Data:
    """All rows, with their labels checked.

    Raises:
        ValueError, OSError: a file cannot be used; see `rocbert_hf.data.tasks`.
    """
    if arguments.task is not None:
        task = task_of(arguments.task)
        train, names = task.read(arguments.data_dir, "train"), task.labels
        dev = task.read(arguments.data_dir, "dev") if task.file(arguments.data_dir, "dev") else None
        test = task.read(arguments.data_dir)
        if task.test_split == "dev":  # measured on, so it is not what the training stops by
            dev = None
    else:
        columns = Columns(arguments.text_column, arguments.pair_column, arguments.label_column)
        train, names = read_labelled(arguments.train_file, columns, "train"), None
        dev = read_labelled(arguments.dev_file, columns, "validation") if arguments.dev_file else None
        test = read_labelled(arguments.test_file, columns, "test") if arguments.test_file else None
    labels = names or train.label_names()
    if len(labels) < 2:
        raise ValueError(f"labels of {train.name} must be at least two, got {', '.join(labels)} alone")
    train = train.sample(arguments.limit, seed=0)
    if dev is None:
        if len(train) < 2:
            raise ValueError(f"{train.name} must have at least two rows, one of them to stop by, got {len(train)}")
        train, dev = train.split(arguments.dev_share)
    dev = dev.sample(arguments.dev_limit, seed=0)
    return Data(
        labels, *(None if rows is None else in_numbers(rows, labels) for rows in (train, dev, test)), train.name
    )


def in_numbers(rows: LabelledTexts, labels: Sequence[str]) -> list[Example]:
    pairs = rows.pairs or [None] * len(rows)
    return [Example(*row) for row in zip(rows.texts, rows.label_ids(labels), pairs, strict=True)]


def finetune(arguments: FinetuneArguments, data: Data, seed: int, output_dir: Path) -> dict:
    """One run: train, measure, save. Returns what all_results.json holds."""
    set_seed(seed)
    model, tokenizer = make_model(arguments, data.labels)
    defaults = SCRATCH_DEFAULTS if arguments.model is None else PRETRAINED_DEFAULTS
    _, learning_rate, epochs, batch_size = next(row for row in defaults if model.config.hidden_size <= row[0])
    examples = augmented(data.train, arguments.augment, seed, arguments.attacks) if arguments.augment else data.train
    checkpoints = output_dir / "checkpoints"
    trainer = Trainer(
        model,
        TrainingArguments(
            str(checkpoints),
            seed=seed,
            learning_rate=arguments.learning_rate or learning_rate,
            num_train_epochs=arguments.epochs or epochs,
            per_device_train_batch_size=arguments.batch_size or batch_size,
            per_device_eval_batch_size=2 * (arguments.batch_size or batch_size),
            warmup_steps=arguments.warmup_ratio,
            weight_decay=arguments.weight_decay,
            train_sampling_strategy="group_by_length",
            eval_strategy="epoch",
            save_strategy="epoch",
            logging_strategy="epoch",
            save_total_limit=1,
            save_only_model=True,
            load_best_model_at_end=True,
            metric_for_best_model=arguments.metric,
            greater_is_better=True,
            bf16=arguments.bf16,
            dataloader_pin_memory=torch.cuda.is_available(),
            report_to="none",
        ),
        train_dataset=tokenized(examples, tokenizer),
        eval_dataset=tokenized(data.dev, tokenizer),
        processing_class=tokenizer,
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_metrics=scores,
        compute_loss_func=weighted_loss(data.train, len(data.labels)) if arguments.class_weights else None,
        callbacks=[EarlyStoppingCallback(arguments.patience)],
    )
    training = trainer.train()
    results = {
        "arguments": {
            **asdict(arguments),
            "seed": seed,
            "train_file": arguments.train_file or f"{arguments.task} train",
            "attacks": arguments.attacks if arguments.augment else "",
            "learning_rate": trainer.args.learning_rate,
            "epochs": trainer.args.num_train_epochs,
            "batch_size": trainer.args.per_device_train_batch_size,
            "max_length": tokenizer.model_max_length,
        },
        "training": {
            "epochs": trainer.state.epoch,
            "loss": training.training_loss,
            "seconds": training.metrics["train_runtime"],
        },
        "dev": measured(trainer, data.dev, tokenizer),
    }
    if data.test is not None:
        results["test"] = measured(trainer, data.test, tokenizer)
    shutil.rmtree(checkpoints, ignore_errors=True)  # the best one is loaded
    model.save_pretrained(output_dir)
    tokenizer.save_pretrained(output_dir)
    trainer.state.save_to_json(str(output_dir / "trainer_state.json"))
    save_results(output_dir, results)
    write_card(output_dir, results)
    print(json.dumps({part: results[part] for part in ("dev", "test") if part in results}, indent=1))
    print(f"saved in {output_dir}")
    return results


def make_model(arguments: FinetuneArguments, labels: Sequence[str]):
    """(model, tokenizer); the tokenizer's `model_max_length` is what the model is trained with, and saved."""
    named = {"id2label": dict(enumerate(labels)), "label2id": {name: number for number, name in enumerate(labels)}}
    if arguments.model is not None:
        with loading("the model", arguments.model):
            tokenizer = AutoTokenizer.from_pretrained(arguments.model)
            model = AutoModelForSequenceClassification.from_pretrained(
                arguments.model, num_labels=len(labels), ignore_mismatched_sizes=True, **named
            )
    else:
        config = RoCBertConfig.from_preset(arguments.preset, **named)
        if arguments.architecture == "rocbert":
            tokenizer, model = RoCBertTokenizer(), RoCBertForSequenceClassification(config)
        else:
            tokenizer = character_level_bert_tokenizer()
            sizes = {name: getattr(config, name) for name in SHARED_WITH_BERT}
            model = BertForSequenceClassification(BertConfig(vocab_size=len(tokenizer), **sizes, **named))
    task_length = task_of(arguments.task).max_length if arguments.task else 128
    limits = (arguments.max_length or task_length, getattr(model.config, "max_position_embeddings", None))
    tokenizer.model_max_length = min(limit for limit in (*limits, tokenizer.model_max_length) if limit)
    return model, tokenizer


def character_level_bert_tokenizer() -> BertTokenizer:
    """transformers' tokenizer over the same characters as ours, so that the two models differ in nothing else."""
    pieces = [f"##{char}" for char in string.ascii_lowercase + string.digits]
    return BertTokenizer(vocab={token: number for number, token in enumerate([*vocabulary(), *pieces])})


def tokenized(examples: Sequence[Example], tokenizer) -> list[dict]:
    columns = [[example.text for example in examples]]
    if examples[0].text_pair is not None:
        columns.append([example.text_pair for example in examples])
    encoded = tokenizer(*columns, truncation=True, max_length=tokenizer.model_max_length)
    rows = zip(*encoded.values(), strict=True)
    return [
        {**dict(zip(encoded, row, strict=True)), "labels": example.label}
        for row, example in zip(rows, examples, strict=True)
    ]


def scores(prediction) -> dict[str, float]:
    """Accuracy, F1, precision and recall of a transformers `EvalPrediction`."""
    confusion = confusion_matrices(
        prediction.label_ids, prediction.predictions.argmax(-1), prediction.predictions.shape[-1]
    )
    return {name: float(score) for name, score in classification_scores(confusion).items()}


def measured(trainer: Trainer, examples: Sequence[Example], tokenizer) -> dict[str, float]:
    metrics = trainer.predict(tokenized(examples, tokenizer), metric_key_prefix="test").metrics
    return {name: metrics[f"test_{name}"] for name in ("loss", *SCORES)}


def weighted_loss(examples: Sequence[Example], num_labels: int) -> Callable:
    """Cross entropy where every label that occurs weighs the same in sum.

    One that does not occur weighs 1, so that the loss of dev rows with that label alone is a number.
    """
    counts = np.bincount([example.label for example in examples], minlength=num_labels)
    weights = np.divide(len(examples), counts * (counts > 0).sum(), out=np.ones(num_labels), where=counts > 0)
    weights = torch.tensor(weights, dtype=torch.float32)

    def loss(outputs, labels, num_items_in_batch=None):
        return torch.nn.functional.cross_entropy(outputs.logits.float(), labels, weight=weights.to(labels.device))

    return loss


def write_card(output_dir: Path, results: dict) -> None:
    """The model card: a RoCBERT's own, or one that says of another model how it was made and how good it is."""
    config = json.loads((output_dir / "config.json").read_text(encoding="utf-8"))
    if config["model_type"] == "rocbert":
        card = model_card(output_dir)
    else:
        data = ModelCardData(language="zh", library_name="transformers", pipeline_tag="text-classification")
        chosen = {name: value for name, value in results["arguments"].items() if value and not name.endswith("_dir")}
        tables = {"Options": chosen} | {
            f"Scores on {part}": results[part] for part in ("dev", "test") if part in results
        }
        blocks = [
            f"---\n{data.to_yaml()}\n---",
            f"# {output_dir.resolve().name}",
            f"`{config['architectures'][0]}`, finetuned with `examples/run_finetune.py` of rocbert_hf.",
        ]
        for title, values in tables.items():
            rows = [f"| {name} | {_cell(value)} |" for name, value in values.items()]
            blocks += [f"## {title}", "\n".join(["| | |", "|---|---|", *rows])]
        card = "\n\n".join(blocks) + "\n"
    (output_dir / "README.md").write_text(card, encoding="utf-8")


def _cell(value) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return Path(text).name if Path(text).is_file() else text.replace("|", "\\|")


def save_results(output_dir: Path, results: dict) -> None:
    output_dir.mkdir(parents=True, exist_ok=True)
    text = json.dumps(results, ensure_ascii=False, indent=1)
    write_whole(output_dir / "all_results.json", text + "\n")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("interrupted; no model was saved")
    except (ValueError, OSError) as error:
        sys.exit(f"{Path(__file__).name}: {error}")

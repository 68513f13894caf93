"""Every head trains in transformers' `Trainer` with our collators and nothing else of its own."""

import pytest
import torch
from datasets import Dataset
from transformers import Trainer, TrainingArguments

import rocbert_hf
from rocbert_hf import RoCBertConfig, RoCBertTokenizer
from rocbert_hf.pretraining.collator import DataCollatorForRoCBert, DataCollatorForRoCBertPretraining
from rocbert_hf.resources import demo_corpus

TEXTS = [row["text"] for row in demo_corpus() if row.get("sentiment") is not None][:24]


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def tokenizer():
    return RoCBertTokenizer()


def classes(tokenizer):
    return tokenizer(TEXTS), [i % 2 for i in range(len(TEXTS))]


def classes_of_tokens(tokenizer):
    encoded = tokenizer([list(text) for text in TEXTS], is_split_into_words=True)
    words = [encoded.word_ids(i) for i in range(len(TEXTS))]
    return encoded, [[-100 if word is None else word % 3 for word in row] for row in words]


def choices(tokenizer):
    pairs = [tokenizer([text, text], [text[:4], "别的"]) for text in TEXTS]
    return {key: [pair[key] for pair in pairs] for key in pairs[0]}, [0] * len(TEXTS)


def tokens(tokenizer):
    encoded = tokenizer(TEXTS)
    return encoded, encoded["input_ids"]


@pytest.mark.parametrize(
    ("head", "make"),
    [
        ("SequenceClassification", classes),
        ("TokenClassification", classes_of_tokens),
        ("MultipleChoice", choices),
        ("MaskedLM", tokens),
        ("CausalLM", tokens),
        ("QuestionAnswering", None),
    ],
)
def test_head_trains(tokenizer, tmp_path, head, make):
    if make is None:
        encoded, targets = tokenizer(TEXTS), {"start_positions": [1] * len(TEXTS), "end_positions": [2] * len(TEXTS)}
    else:
        encoded, labels = make(tokenizer)
        targets = {"labels": labels}
    config = RoCBertConfig.from_preset("tiny", num_labels=3, is_decoder=head == "CausalLM", hidden_dropout_prob=0.0)
    model = getattr(rocbert_hf, f"RoCBertFor{head}")(config)
    assert_trains(model, Dataset.from_dict({**encoded, **targets}), DataCollatorForRoCBert(tokenizer), tmp_path)


@pytest.mark.parametrize("head", ["PreTraining", "MaskedLM"])
def test_pretraining_from_raw_text(tokenizer, tmp_path, head):
    collator = DataCollatorForRoCBertPretraining(tokenizer, "paper" if head == "PreTraining" else None)
    model = getattr(rocbert_hf, f"RoCBertFor{head}")(RoCBertConfig.from_preset("tiny", hidden_dropout_prob=0.0))
    assert_trains(model, Dataset.from_dict({"text": TEXTS}), collator, tmp_path, remove_unused_columns=False)


def assert_trains(model, dataset, collator, output_dir, **options):
    arguments = TrainingArguments(
        output_dir,
        max_steps=6,
        per_device_train_batch_size=8,
        learning_rate=2e-3,
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        save_strategy="no",
        **options,
    )
    trainer = Trainer(model, arguments, train_dataset=dataset, eval_dataset=dataset, data_collator=collator)
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    assert trainer.evaluate()["eval_loss"] < before

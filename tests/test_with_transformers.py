"""The package inside transformers: Auto classes, pipelines, Trainer, as a user types them."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import (
    AutoConfig,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    Trainer,
    TrainingArguments,
    pipeline,
)

from rocbert_hf import (
    RoCBertConfig,
    RoCBertForMaskedLM,
    RoCBertForSequenceClassification,
    RoCBertForTokenClassification,
    RoCBertTokenizer,
)
from rocbert_hf.resources import demo_corpus


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A folder with a tiny untrained masked language model and its tokenizer."""
    folder = tmp_path_factory.mktemp("checkpoint")
    torch.manual_seed(0)
    RoCBertForMaskedLM(RoCBertConfig.from_preset("tiny")).save_pretrained(folder)
    RoCBertTokenizer().save_pretrained(folder)
    return folder


def test_auto_classes_load_a_checkpoint_folder(checkpoint):
    assert type(AutoConfig.from_pretrained(checkpoint)) is RoCBertConfig
    assert type(AutoTokenizer.from_pretrained(checkpoint)) is RoCBertTokenizer
    model = AutoModelForMaskedLM.from_pretrained(checkpoint)
    assert type(model) is RoCBertForMaskedLM
    inputs = AutoTokenizer.from_pretrained(checkpoint)("科比的精神值得永远学习", return_tensors="pt")
    assert model(**inputs).logits.shape == (1, 13, 16224)


def test_fill_mask_pipeline_runs_from_raw_text(checkpoint):
    fill_mask = pipeline("fill-mask", model=str(checkpoint))
    candidates = fill_mask("科比的精[MASK]值得永远学习", top_k=3)
    assert len(candidates) == 3
    for candidate in candidates:
        assert candidate["sequence"] == f"科比的精{candidate['token_str']}值得永远学习"


def test_text_classification_pipeline_runs_from_raw_text(tmp_path, checkpoint):
    labels = {0: "negative", 1: "positive"}
    model = RoCBertForSequenceClassification.from_pretrained(checkpoint, id2label=labels)
    model.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(checkpoint).save_pretrained(tmp_path)
    classify = pipeline("text-classification", model=str(tmp_path))
    results = classify(["这家酒店很干净", "keb1 永远滴神！", ""], batch_size=2)
    assert [result["label"] in labels.values() for result in results] == [True] * 3


def test_token_classification_pipeline_gives_offsets_into_the_text(tmp_path, checkpoint):
    model = RoCBertForTokenClassification.from_pretrained(checkpoint, id2label={0: "O", 1: "B-LOC", 2: "I-LOC"})
    model.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(checkpoint).save_pretrained(tmp_path)
    text = "我在 Beijing 上班。"
    for entity in pipeline("token-classification", model=str(tmp_path), ignore_labels=[])(text):
        assert text[entity["start"] : entity["end"]].lower() == entity["word"]


def test_trainer_finetunes_a_classifier_on_the_packaged_sentences_with_no_custom_code(tmp_path, checkpoint):
    rows = [row for row in demo_corpus() if "sentiment" in row]
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    dataset = Dataset.from_dict({"text": [r["text"] for r in rows], "label": [r["sentiment"] for r in rows]})
    dataset = dataset.map(lambda batch: tokenizer(batch["text"], truncation=True), batched=True)
    parts = dataset.train_test_split(test_size=0.2, seed=0)
    trainer = Trainer(
        model=AutoModelForSequenceClassification.from_pretrained(checkpoint, num_labels=2),
        args=TrainingArguments(
            output_dir=str(tmp_path / "run"),
            num_train_epochs=12,
            per_device_train_batch_size=16,
            learning_rate=1e-3,
            report_to=[],
            save_strategy="epoch",
            save_total_limit=1,
            disable_tqdm=True,
            seed=0,
        ),
        train_dataset=parts["train"],
        eval_dataset=parts["test"],
        processing_class=tokenizer,
        compute_metrics=lambda p: {"accuracy": float(np.mean(p.predictions.argmax(-1) == p.label_ids))},
    )
    trainer.train()
    assert trainer.evaluate(parts["train"])["eval_accuracy"] > 0.95
    assert trainer.evaluate()["eval_accuracy"] > 0.55
    trainer.save_model(str(tmp_path / "saved"))
    loaded = pipeline("text-classification", model=str(tmp_path / "saved"))
    texts = [row["text"] for row in rows[:5]]
    predictions = trainer.predict(dataset.select(range(5))).predictions.argmax(-1)
    assert [loaded.model.config.label2id[result["label"]] for result in loaded(texts)] == predictions.tolist()


def test_importing_the_package_loads_nothing_heavy():
    code = (
        "import sys, rocbert_hf; "
        "heavy = {'torch', 'transformers', 'numpy', 'jieba', 'pypinyin', 'torchvision', 'datasets', 'matplotlib'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"

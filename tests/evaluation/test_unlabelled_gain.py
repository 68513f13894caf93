"""What the report on unlabelled text says: doubts, collapse, the verdict, and accuracy under perturbation."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from rocbert_hf import RoCBertTokenizer
from rocbert_hf.attackers import AttackerSpec, Example
from rocbert_hf.evaluation import unlabelled_gain
from rocbert_hf.evaluation.embedding_attacks import right_under_perturbation
from rocbert_hf.evaluation.gain_report import draw_points, first_lines, gain_sections
from rocbert_hf.evaluation.report.html import page
from rocbert_hf.evaluation.unlabelled_gain import GainOptions, _gain, doubted_labels
from rocbert_hf.finetuning.adversarial import FGM, PGD
from rocbert_hf.resources import demo_sentences, vocabulary


def a_report(**changes) -> dict:
    model = {
        "scores": {"accuracy": 0.8, "f1": 0.7},
        "unlabelled_used": 0.5,
        "largest_class": 0.4,
        "collapsed": [],
        "doubted": [{"text": "<b>好</b>", "label": "坏", "model": "好", "probability": 0.97}],
        "robust": {"SA": 0.8, "FGM": 0.5, "PGD": 0.4, "adv": 0.6},
    }
    report = {
        "method": "uda",
        "learns_from_answers": True,
        "train": 100,
        "unlabelled": 1000,
        "labels": ["坏", "好"],
        "part": "test",
        "examples": 50,
        "seeds": [0],
        "models": {"with": {**model, **changes.pop("with_", {})}, "without": model},
        "gain": {"value": 0.05, "low": 0.01, "high": 0.09},
    }
    return {**report, **changes}


@pytest.mark.parametrize(
    ("gain", "verdict"),
    [
        ((0.05, 0.01, 0.09), "made it right more often: +5.0 points of accuracy (95% interval +1.0 to +9.0)"),
        ((-0.05, -0.09, -0.01), "made it right less often: -5.0 points"),
        ((0.01, -0.02, 0.04), "Whether the unlabelled text helped is open: +1.0 points"),
    ],
)
def test_the_verdict_is_that_of_the_interval(gain, verdict):
    report = a_report(gain=dict(zip(("value", "low", "high"), gain, strict=True)))
    assert any(verdict in line for line in first_lines(report))


def test_the_gain_is_the_accuracy_with_less_that_without_seeds_averaged():
    right = {"with": [[1, 1, 0, 1], [1, 1, 1, 1]], "without": [[0, 1, 0, 1], [1, 1, 0, 0]]}
    gain = _gain({name: {"right": rows} for name, rows in right.items()})
    assert gain["value"] == pytest.approx(7 / 8 - 4 / 8)
    assert gain["low"] <= gain["value"] <= gain["high"]


def test_a_collapse_and_unused_texts_are_said_first():
    collapsed = {"collapsed": [0], "largest_class": 0.99, "unlabelled_used": 0.0}
    lines = list(first_lines(a_report(with_=collapsed)))
    assert lines[0].startswith("Collapsed: the model gives 99% of the unlabelled texts one label.")
    assert lines[1].startswith("No unlabelled text counted")
    assert not any("Collapsed" in line or "counted" in line for line in first_lines(a_report()))
    line = next(iter(first_lines(a_report(with_={**collapsed, "collapsed": [7]}, seeds=[5, 6, 7]))))
    assert line.startswith("Collapsed: the model of seed 7 gives 99%")


def test_what_is_of_one_of_several_seeds_says_of_which(tmp_path):
    notes = [table.note for section in gain_sections(a_report(seeds=[5, 6])) for table in section.tables]
    assert [note.endswith("Of the models of seed 5.") for note in notes] == [False, True, True]
    assert not any("seed 0." in table.note for section in gain_sections(a_report()) for table in section.tables)


def test_a_collapse_of_any_seed_is_found(tmp_path, monkeypatch):
    for seed, collapsed in ((3, False), (4, True)):
        (tmp_path / f"seed-{seed}").mkdir()
        training = {"unlabelled_used": seed / 10, "largest_class": 0.5 + collapsed / 2, "collapsed": collapsed}
        (tmp_path / f"seed-{seed}" / "all_results.json").write_text(json.dumps({"training": training}))
    monkeypatch.setattr(unlabelled_gain, "ModelClassifier", lambda folder: lambda texts: np.eye(2)[[0] * len(texts)])
    examples = [Example("好", 0), Example("坏", 1)]
    rows = SimpleNamespace(labels=("a", "b"), train=examples)
    recipe = SimpleNamespace(rows=rows, positive=None, hierarchy=None)
    found = unlabelled_gain._measured_folder(recipe, tmp_path, [3, 4], examples, GainOptions(attacked_texts=0))
    assert (found["collapsed"], found["largest_class"], found["unlabelled_used"]) == ([4], 1.0, pytest.approx(0.35))


def test_the_page_shows_other_peoples_text_as_text():
    html = page(gain_sections(a_report()), {"curves.png": b"", "representations.png": b""}, "<title>")
    assert "&lt;b&gt;好&lt;/b&gt;" in html
    assert "<b>好</b>" not in html
    assert "<title>&lt;title&gt;</title>" in html


def test_doubted_are_the_labels_that_the_model_surely_contradicts():
    answers = {"一": [0.9, 0.1], "二": [0.3, 0.7], "三": [0.95, 0.05], "四": [0.1, 0.9]}
    examples = [Example("一", 1), Example("二", 0), Example("三", 1), Example("四", 1)]
    found = doubted_labels(lambda texts: np.array([answers[text] for text in texts]), examples, ["负", "正"])
    assert [(row["text"], row["label"], row["model"]) for row in found] == [("三", "正", "负"), ("一", "正", "负")]


def test_perturbations_are_found_per_text_and_larger_ones_hurt_more():
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    model = BertForSequenceClassification(BertConfig(vocab_size=len(vocabulary()), initializer_range=0.5, **sizes))
    tokenizer = RoCBertTokenizer(model_max_length=16)
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    texts = demo_sentences()[:24]
    inputs = tokenizer(texts, truncation=True, max_length=16, padding=True, return_tensors="pt")
    with torch.no_grad():
        said = model.eval()(**inputs).logits.argmax(-1).tolist()
    examples = [Example(text, label) for text, label in zip(texts, said, strict=True)]
    assert all(right_under_perturbation(model, tokenizer, examples, None))
    right = [sum(right_under_perturbation(model, tokenizer, examples, FGM(size))) for size in (1e-4, 1.0, 20.0)]
    assert right[0] == 24 > right[2]
    assert right[0] >= right[1] >= right[2]
    method = PGD(5.0, 1.0, 3)
    one, many = (right_under_perturbation(model, tokenizer, examples, method, size) for size in (1, 24))
    assert one == many
    assert all(parameter.grad is None for parameter in model.parameters())


def test_labels_beyond_the_colours_are_drawn_as_others():
    points = {name: np.random.default_rng(0).normal(size=(40, 4)) for name in ("before", "after")}
    figure = draw_points(points, [number % 12 for number in range(40)], [f"$label_{n}$" for n in range(12)])
    shown = [text.get_text() for text in figure.axes[-1].get_legend().get_texts()]
    assert shown[0] == "others"
    assert len(shown) == 8


@pytest.mark.parametrize("number", [1, 2])
def test_a_text_or_two_are_drawn_too(number):
    figure = draw_points({"after": np.random.default_rng(0).normal(size=(number, 4))}, [0] * number, ["one", "two"])
    assert sum(len(drawn.get_offsets()) for drawn in figure.axes[0].collections) == number


def test_wrong_options_are_named():
    with pytest.raises(ValueError, match="plotted_texts must be at least 5, got 1"):
        GainOptions(plotted_texts=1)
    with pytest.raises(ValueError, match="attackers would do nothing with attacked_texts 0"):
        GainOptions(attackers=[AttackerSpec("argot")], attacked_texts=0)

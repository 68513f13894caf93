"""`rocbert finetune --unlabelled`: what it reads, what it refuses, and that an interrupted run goes on."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rocbert_hf.attackers import AdvAttacker, Example, ModelClassifier
from rocbert_hf.cli import main
from rocbert_hf.finetuning import FinetuningOptions, StartOptions, finetune
from rocbert_hf.finetuning.classification import RowOptions
from rocbert_hf.finetuning.optimization import OptimizationOptions
from rocbert_hf.finetuning.semi_supervised import (
    ASKED,
    MethodSpec,
    SemiSupervisedRecipe,
    UnlabelledOptions,
    collapse_limit,
    largest_class,
    read_unlabelled,
)
from rocbert_hf.resources import demo_corpus

ROWS = [row for row in demo_corpus() if "sentiment" in row]
GUIDE = Path(__file__).parents[2] / "docs" / "guide" / "semi_supervised.md"
PLAIN = [row["text"] for row in demo_corpus() if "sentiment" not in row][:40]


@pytest.fixture
def files(tmp_path):
    records = [{"text": row["text"], "label": ["负面", "正面"][row["sentiment"]]} for row in ROWS]
    for name, part in (("train", records[:160:7]), ("dev", records[160:200:3]), ("test", records[200::3])):
        lines = [json.dumps(record, ensure_ascii=False) + "\n" for record in part]
        (tmp_path / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    (tmp_path / "dump.txt").write_text("\n".join(PLAIN), encoding="utf-8")
    return tmp_path


def recipe_of(files, recipe="softmatch+esimcse+fgm", rows=None, **options) -> SemiSupervisedRecipe:
    given = {name: str(files / f"{name}.jsonl") for name in ("train", "dev", "test")}
    return SemiSupervisedRecipe(
        StartOptions(preset="tiny", max_length=24),
        RowOptions(**{**{f"{name}_file": file for name, file in given.items()}, **(rows or {})}),
        OptimizationOptions(epochs=2, batch_size=8),
        UnlabelledOptions(
            **{
                "unlabelled": str(files / "dump.txt"),
                "recipe": MethodSpec.parse(recipe),
                **({"unlabelled_ratio": 2} if MethodSpec.parse(recipe).needs_unlabelled else {}),
                **options,
            }
        ),
    )


@pytest.mark.parametrize("text", ["supervised", "uda", "softmatch+esimcse+pgd", "esimcse", "pseudo-labels+freelb"])
def test_a_method_is_what_its_name_says(text):
    method = MethodSpec.parse(text)
    assert str(method) == text
    assert MethodSpec.parse("+".join(reversed(text.split("+")))) == method
    assert method.needs_unlabelled == (text != "supervised")


@pytest.mark.parametrize("text", ["", "uda+fixmatch", "fgm+pgd", "uda+supervised", "meanteacher"])
def test_methods_that_do_not_fit_together_are_named(text):
    with pytest.raises(ValueError, match=r"must be supervised, or with \+ between at most one of uda, fixmatch"):
        MethodSpec.parse(text)


def test_an_interrupted_run_ends_as_one_that_was_not(files, monkeypatch):
    whole = finetune(recipe_of(files), FinetuningOptions(output_dir=files / "whole"))
    assert whole["training"]["unlabelled"] == len(PLAIN)
    assert set(whole["dev"]) == set(whole["test"]) == {"loss", "accuracy", "f1", "precision", "recall"}

    run = FinetuningOptions(output_dir=files / "resumed")
    evaluate, calls = SemiSupervisedRecipe.scores, []

    def interrupted(self, prediction):
        calls.append(1)
        if len(calls) == 2:  # within the second epoch, whose checkpoint is not there yet
            raise KeyboardInterrupt
        return evaluate(self, prediction)

    with monkeypatch.context() as patch:
        patch.setattr(SemiSupervisedRecipe, "scores", interrupted)
        with pytest.raises(KeyboardInterrupt):
            finetune(recipe_of(files), run)
    resumed = finetune(recipe_of(files), replace(run, resume=True))
    assert resumed["test"] == whole["test"]
    weights = [(files / name / "model.safetensors").read_bytes() for name in ("whole", "resumed")]
    assert weights[0] == weights[1]
    with pytest.raises(ValueError, match="was begun with recipe='softmatch\\+esimcse\\+fgm', not 'uda'"):
        finetune(recipe_of(files, "uda"), replace(run, resume=True))


def test_labels_that_are_paths_are_measured_at_each_level(files):
    for name in ("train", "dev", "test"):
        text = (files / f"{name}.jsonl").read_text(encoding="utf-8")
        text = text.replace("负面", "评价/负面").replace("正面", "评价/正面")
        (files / f"{name}.jsonl").write_text(text, encoding="utf-8")
    recipe = recipe_of(files, "uda", level_weight=0.5)
    assert "labels are paths of up to 2 levels" in recipe.read()
    results = finetune(recipe, FinetuningOptions(output_dir=files / "out"))
    assert results["test"]["accuracy_level_1"] == 1
    assert results["test"]["accuracy_level_2"] == results["test"]["accuracy"]
    for name in ("train", "dev", "test"):
        (files / f"{name}.jsonl").write_text('{"text": "好", "label": "a"}\n{"text": "坏", "label": "b"}\n')
    with pytest.raises(ValueError, match="level_weight needs labels that are paths, such as a/b/c, got a, b"):
        recipe_of(files, "uda", level_weight=0.5).read()


def test_the_recipe_to_compare_with_differs_in_the_unlabelled_text_alone(files):
    recipe = recipe_of(files, "fixmatch+esimcse+pgd", confidence=0.9, epsilon=0.5, mixup=0.5, queue_size=9)
    alone = recipe.without_unlabelled()
    assert str(alone.unlabelled_options.recipe) == "pgd"
    assert alone.unlabelled_options.epsilon == 0.5
    alone.read()
    assert alone.trainer(0, files / "out").train_dataset.ratio == 0


def test_repeated_texts_count_once_and_blank_ones_not(files):
    (files / "dump.txt").write_text("好\n\n坏\n好\n  \n", encoding="utf-8")
    recipe = recipe_of(files)
    assert "2 unlabelled texts (1 repeated ones left out)" in recipe.read()
    assert recipe.unlabelled == ["好", "坏"]
    (files / "dump.csv").write_text('content,id\n"好，",1\n', encoding="utf-8")
    options = replace(recipe.unlabelled_options, unlabelled=str(files / "dump.csv"))
    assert read_unlabelled(options, replace(recipe.row_options, text_column="content"))[0] == ["好，"]


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        ("dump.tsv", "text\tlabel\n好\t正面\n", "unlabelled must have no labels, but .* has a column label"),
        ("dump.tsv", "content\n好\n", "unlabelled must have the column text, but .* has content"),
        ("dump.txt", "\n\n", "unlabelled must have at least one text, .* has none"),
        ("dump.jsonl", '{"text": 3}\n', "dump.jsonl line 1: text must be a string, got 3"),
        ("train.jsonl", '{"text": "好", "label": "正面"}\n', "labels of train must be at least two, got 正面 alone"),
        ("dev.jsonl", '{"text": "好", "label": "中性"}\n', "labels of dev must be among the 2 .*, got 中性"),
        ("dump.docx", "好", "a file must end in"),
    ],
)
def test_bad_files_end_it_before_any_work(files, name, content, named):
    (files / name).write_text(content, encoding="utf-8")
    options = {"unlabelled": str(files / name)} if name.startswith("dump") else {}
    with pytest.raises(ValueError, match=named):
        finetune(recipe_of(files, **options), FinetuningOptions(output_dir=files / "out"))
    assert not (files / "out").exists()


def test_a_file_with_labels_is_read_if_one_says_so(files):
    (files / "dump.tsv").write_text("text\tlabel\n好\t正面\n", encoding="utf-8")
    recipe = recipe_of(files, unlabelled=str(files / "dump.tsv"), ignore_labels=True)
    recipe.read()
    assert recipe.unlabelled == ["好"]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"unlabelled_ratio": 0}, "unlabelled_ratio must be at least 1, got 0"),
        ({"recipe": "esimcse", "confidence": 0.9}, "confidence needs uda, fixmatch"),
        ({"recipe": "uda", "steps": 3}, "steps needs fgm, fgsm, pgd, freelb in recipe, got uda"),
        ({"recipe": "fgm", "steps": 3}, "adversarial fgm has no steps"),
        ({"augmentation": ["backwards"]}, "augmentation must be one of none, word-repetition"),
        ({"adversarial_weight": 0.0}, "adversarial_weight must be above 0, got 0"),
        ({"recipe": "supervised", "mixup": 0.5}, "mixup needs uda, fixmatch"),
        (
            {"recipe": "fgm", "unlabelled_ratio": 2},
            "unlabelled_ratio needs uda, .*, pseudo-labels, esimcse in recipe, got fgm",
        ),
        ({"recipe": "uda", "queue_size": 9, "dup_rate": 0.1}, "queue_size, dup_rate needs esimcse in recipe, got uda"),
        ({"recipe": "pseudo-labels", "augmentation": ["wild"]}, "augmentation is not used by pseudo-labels"),
        ({"recipe": "uda+freelb", "adversarial_weight": 0.5}, "adversarial_weight is not used by freelb"),
    ],
)
def test_options_that_do_not_fit_are_named(files, options, named):
    with pytest.raises(ValueError, match=named):
        recipe_of(files, **options)


def test_what_it_is_compared_with_has_no_options_of_unlabelled_texts(files):
    alone = recipe_of(files, recipe="uda+esimcse+fgm", unlabelled_ratio=2, mixup=0.5, momentum=0.9, epsilon=0.5)
    options = alone.without_unlabelled().unlabelled_options
    assert (str(options.recipe), options.unlabelled_ratio, options.mixup, options.momentum) == ("fgm", 3, 0.0, 0.995)
    assert options.epsilon == 0.5


def test_pairs_are_refused(files):
    with pytest.raises(ValueError, match="semi-supervised training is of single texts"):
        recipe_of(files, rows={"pair_column": "pair"})


def test_one_label_of_nearly_all_texts_is_a_collapse():
    assert collapse_limit([0, 1]) == 0.75
    assert collapse_limit([0, 0, 0, 1]) == 0.875
    assert collapse_limit(list(range(100))) == 0.505


def test_a_file_that_is_sorted_by_label_is_no_collapse(monkeypatch):
    asked = []

    def right(model, tokenizer):
        return lambda texts: asked.append(texts) or np.array([[text[0] == "a", text[0] == "b"] for text in texts])

    monkeypatch.setattr("rocbert_hf.finetuning.semi_supervised.ModelClassifier", right)
    texts = [f"{label}{number}" for label in "ab" for number in range(ASKED)]
    assert largest_class(None, None, texts) == pytest.approx(0.5, abs=0.05)
    assert len(asked[0]) == ASKED
    assert largest_class(None, None, texts[:ASKED]) == 1


def test_the_command_trains_compares_and_reports(files, capsys):
    out = files / "out"
    flags = ["--preset", "tiny", "--max-length", "24", "--epochs", "1", "--batch-size", "8", "--attacked-texts", "99"]
    flags += [part for name in ("train", "dev", "test") for part in (f"--{name}-file", str(files / f"{name}.jsonl"))]
    flags += ["--unlabelled", str(files / "dump.txt"), "--plotted-texts", "8", "--seeds", "0", "1"]
    assert main(["finetune", *flags, "--recipe", "uda+esimcse+pgd", "--output-dir", str(out)]) == 0
    assert f"the report is in {out / 'report.html'}" in capsys.readouterr().out
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert report["method"] == "uda+esimcse+pgd"
    assert report["gain"]["low"] <= report["gain"]["value"] <= report["gain"]["high"]
    accuracies = [[seed["accuracy"] for seed in report["models"][name]["by_seed"]] for name in ("with", "without")]
    gain = sum(accuracies[0]) / 2 - sum(accuracies[1]) / 2
    assert report["gain"]["value"] == pytest.approx(gain, abs=1e-6)
    rows = map(json.loads, (files / "test.jsonl").read_text(encoding="utf-8").splitlines())
    examples = [Example(row["text"], report["labels"].index(row["label"])) for row in rows]
    outcomes = list(AdvAttacker().attack_batch(ModelClassifier(out / "seed-0"), examples, seed=0))
    robust, right = report["models"]["with"]["robust"], [outcome.prediction == outcome.label for outcome in outcomes]
    assert robust["adv"] == pytest.approx(sum(right) / len(right)) != 0
    assert robust["SA"] == pytest.approx(sum(outcome.status != "skipped" for outcome in outcomes) / len(outcomes))
    for seed in (0, 1):
        saved = json.loads((out / f"seed-{seed}" / "all_results.json").read_text(encoding="utf-8"))
        assert report["models"]["with"]["by_seed"][seed]["accuracy"] == pytest.approx(saved["test"]["accuracy"])
        assert (out / "without-unlabelled" / f"seed-{seed}" / "model.safetensors").is_file()
    for name in ("report.md", "report.html"):
        page = (out / name).read_text(encoding="utf-8")
        assert "What did the unlabelled text bring?" in page
        assert "robust accuracy" in page
    shutil.rmtree(out)
    assert main(["finetune", *flags, "--recipe", "uda+fixmatch", "--output-dir", str(out)]) != 0
    assert "--recipe must be supervised, or" in capsys.readouterr().err


@pytest.mark.skipif(not GUIDE.is_file(), reason="needs a clone of the repository")
def test_the_guide_names_flags_that_exist(capsys):
    main(["finetune", "--unlabelled", "dump.txt", "--help"])
    known = set(re.findall(r"--[a-z][a-z-]+", capsys.readouterr().out))
    named = set(re.findall(r"--[a-z][a-z-]+", GUIDE.read_text(encoding="utf-8")))
    assert len(named) > 15
    assert named <= known

"""`rocbert finetune`: from scratch and from a folder, single texts and pairs, and what it leaves in its folder."""

import json
import random
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import GPT2Config, GPT2LMHeadModel

from rocbert_hf import RoCBertConfig, RoCBertForSequenceClassification, RoCBertTokenizer
from rocbert_hf.attackers import Example, ModelClassifier
from rocbert_hf.attacks import CausalLMScorer
from rocbert_hf.cli import main
from rocbert_hf.data import LabelledTexts
from rocbert_hf.finetuning import FinetuningOptions, StartOptions, WorstOfTrainer, finetune
from rocbert_hf.finetuning.classification import (
    AugmentationOptions,
    ClassificationRecipe,
    RowOptions,
    divided,
    read_classification_rows,
    weighted_loss,
)
from rocbert_hf.finetuning.optimization import OptimizationOptions, learning_rate_of
from rocbert_hf.finetuning.starting_point import character_level_bert_tokenizer
from rocbert_hf.finetuning.tagging import TaggerOptions, make_tagger
from rocbert_hf.pretraining.optimizer import parameter_groups
from rocbert_hf.resources import demo_corpus

ROWS = [row for row in demo_corpus() if "sentiment" in row][::5]
QUICK = ["--epochs", "1", "--max-length", "24"]


@pytest.fixture
def files(tmp_path):
    records = [{"text": r["text"], "pair": r["text"][::-1], "label": ["负面", "正面"][r["sentiment"]]} for r in ROWS]
    for name, part in (("train", records[:40]), ("test", records[40:])):
        lines = [json.dumps(record, ensure_ascii=False) + "\n" for record in part]
        (tmp_path / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    return ["--train-file", str(tmp_path / "train.jsonl"), "--test-file", str(tmp_path / "test.jsonl")]


def results_in(folder) -> dict:
    return json.loads((folder / "all_results.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("architecture", ["rocbert", pytest.param("bert", marks=pytest.mark.slow)])
def test_from_scratch_and_again_from_the_folder(tmp_path, files, architecture):
    first, second = tmp_path / "first", tmp_path / "second"
    scratch = ["--preset", "tiny", "--architecture", architecture, "--class-weights", "--augment", "1"]
    assert main(["finetune", *scratch, *files, *QUICK, "--output-dir", str(first)]) == 0
    results = results_in(first)
    assert results["arguments"]["attacks"] == "paper"
    assert {file.suffix for file in first.iterdir()} <= {".json", ".safetensors", ".txt", ".md", ".py"}
    classifier = ModelClassifier(first)
    assert classifier.max_length == 24
    assert classifier.model.config.id2label == {0: "正面", 1: "负面"}
    test = read_classification_rows(RowOptions(train_file=files[1], test_file=files[3])).test
    right = classifier([example.text for example in test]).argmax(-1) == [example.label for example in test]
    assert results["test"]["accuracy"] == pytest.approx(right.mean())
    assert f"{results['test']['accuracy']:.4g}" in (first / "README.md").read_text(encoding="utf-8")

    pairs = ["--model", str(first), *files, "--pair-column", "pair", *QUICK, "--seeds", "0", "1"]
    assert main(["finetune", *pairs, "--output-dir", str(second)]) == 0
    accuracies = [results_in(second / f"seed-{seed}")["test"]["accuracy"] for seed in (0, 1)]
    assert results_in(second)["test"]["accuracy"]["mean"] == pytest.approx(sum(accuracies) / 2)
    answer = ModelClassifier(second / "seed-0")([(ROWS[0]["text"], "不好")])
    assert answer.shape == (1, 2)


def test_a_named_positive_label_is_what_is_scored_and_chosen_by(tmp_path, files):
    def scores_of(*flags: str) -> dict:
        folder = tmp_path / "_".join(("out", *flags)).replace("-", "")
        assert main(["finetune", "--preset", "tiny", *files, *QUICK, *flags, "--output-dir", str(folder)]) == 0
        return results_in(folder)["test"]

    from sklearn.metrics import f1_score

    first = scores_of("--positive-label", "正面", "--metric", "f1")
    second = scores_of("--positive-label", "负面", "--metric", "f1")
    macro = scores_of()
    test = read_classification_rows(RowOptions(train_file=files[1], test_file=files[3])).test
    folder = tmp_path / "_".join(("out", "--positive-label", "正面", "--metric", "f1")).replace("-", "")
    predictions = ModelClassifier(folder)([example.text for example in test]).argmax(-1)
    labels = [example.label for example in test]
    assert first["f1"] == pytest.approx(f1_score(labels, predictions, pos_label=0, zero_division=0))
    assert first["accuracy"] == second["accuracy"] == macro["accuracy"]  # one epoch: the same model
    assert macro["f1"] == pytest.approx((first["f1"] + second["f1"]) / 2)


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--positive-label", "中性"], "positive_label must be one of 正面, 负面, got '中性'"),
        (["--split", "8:2"], "--split must be three numbers"),
        (["--split", "8:1:1"], "leave dev_file and test_file out"),
        (["--dev-file", "dev.tsv", "--dev-share", "0.3"], "dev_share divides the train rows if nothing else says"),
        (["--data-dir", "tasks"], "data_dir is the folder of a task's files, and train_file is no task"),
        (["--attacks", "unheard"], "attacks"),
        (["--attacks", "wild"], "attacks needs worst_of or augment, got wild"),
        (["--agreement", "2"], "agreement needs worst_of, got 2.0 without it"),
    ],
)
def test_options_that_do_not_fit_end_it_at_once(tmp_path, files, capsys, flags, named):
    assert main(["finetune", "--preset", "tiny", *files, *flags, "--output-dir", str(tmp_path / "output")]) != 0
    assert named in capsys.readouterr().err
    assert not list(tmp_path.glob("output/*"))


def test_rows_are_sampled_by_label_and_divided(files):
    rows = read_classification_rows(RowOptions(train_file=files[1], limit_per_label=15, split=(0.8, 0.1, 0.1)))
    assert [len(part) for part in (rows.train, rows.dev, rows.test)] == [24, 3, 3]
    texts = [example.text for part in (rows.train, rows.dev, rows.test) for example in part]
    assert len(set(texts)) == 30
    labels = [example.label for part in (rows.train, rows.dev, rows.test) for example in part]
    assert labels.count(0) == labels.count(1) == 15
    parts = divided(LabelledTexts("rows", tuple(map(str, range(100))), ("a", "b") * 50), (0.5, 0.3, 0.2))
    assert [len(part) for part in parts] == [50, 30, 20]
    assert len({text for part in parts for text in part.texts}) == 100


def test_bf16_trains_on_a_processor_without_a_gpu(tmp_path, files):
    folder = tmp_path / "output"
    assert main(["finetune", "--preset", "tiny", *files, *QUICK, "--bf16", "--output-dir", str(folder)]) == 0
    assert results_in(folder)["training"]["loss"] > 0


def test_the_head_learns_at_its_own_rate():
    model = RoCBertForSequenceClassification(RoCBertConfig.from_preset("tiny"))
    decayed = {name for name, _ in model.named_parameters() if name.endswith("dense.weight")}
    rate_of = learning_rate_of(model, 1e-5, {"": 1e-3, "classifier.bias": 1e-2})
    groups = parameter_groups(model, rate_of, lambda name, _: name in decayed, 0.1)
    rate = {id(p): (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            assert id(parameter) not in rate, name
            continue
        expected = 1e-5 if name.startswith("roc_bert.") else 1e-2 if name == "classifier.bias" else 1e-3
        assert rate[id(parameter)] == (expected, 0.1 if name in decayed else 0.0), name


def test_a_checkpoint_in_half_precision_is_trained_in_single_precision(tmp_path):
    RoCBertForSequenceClassification(RoCBertConfig.from_preset("tiny")).half().save_pretrained(tmp_path)
    RoCBertTokenizer().save_pretrained(tmp_path)
    start = StartOptions(model=str(tmp_path))
    model, _ = start.make("SequenceClassification", ("no", "yes"))
    tagger, _ = make_tagger(start, TaggerOptions(classifier_head="linear"), ("O", "B-X", "I-X"), "BIO")
    assert model.dtype == tagger.dtype == torch.float32


@pytest.mark.parametrize("before", ["regression", "multi_label_classification"])
def test_a_checkpoint_of_another_problem_learns_one_label_per_text(tmp_path, before):
    config = RoCBertConfig.from_preset("tiny", num_labels=2, problem_type=before)
    RoCBertForSequenceClassification(config).save_pretrained(tmp_path)
    RoCBertTokenizer().save_pretrained(tmp_path)
    model, tokenizer = StartOptions(model=str(tmp_path)).make("SequenceClassification", ("no", "yes"))
    labels = torch.tensor([1, 0])
    output = model(**tokenizer(["好", "不"], return_tensors="pt"), labels=labels)
    assert output.loss.item() == pytest.approx(torch.nn.functional.cross_entropy(output.logits, labels).item())


def test_class_weights_make_every_label_weigh_the_same():
    labels = torch.tensor([0, 0, 0, 1])
    loss = weighted_loss([Example("x", int(label)) for label in labels], 3)
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float32)
    losses = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    expected = (losses[:3].mean() + losses[3]) / 2
    output = type("Output", (), {"logits": logits})
    assert loss(output, labels).item() == pytest.approx(expected.item(), rel=1e-5)
    halves = [type("Output", (), {"logits": logits[part]}) for part in (slice(0, 2), slice(2, 4))]
    accumulated = sum(
        loss(half, labels[part], 4) for half, part in zip(halves, (slice(0, 2), slice(2, 4)), strict=True)
    )
    assert accumulated.item() == pytest.approx(expected.item(), rel=1e-5)
    absent = torch.tensor([2, 2, 2, 2])  # a dev batch may hold a label alone that no train row has
    plain = torch.nn.functional.cross_entropy(logits, absent)
    assert loss(output, absent).item() == pytest.approx(plain.item(), rel=1e-5)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--preset", "tiny"], "task"),
        (["--train-file", "x.tsv"], "model"),
        (["--preset", "tiny", "--task", "tnews"], "data_dir"),
        (
            ["--preset", "tiny", "--task", "tnews", "--data-dir", ".", "--test-file", "x.tsv"],
            "test_file needs train_file",
        ),
        (["--model", "x", "--architecture", "bert", "--train-file", "x.tsv"], "architecture needs preset"),
        (["--preset", "tiny", "--train-file", "x.tsv", "--metric", "mcc"], "metric"),
        (
            ["--preset", "tiny", "--train-file", "x.tsv", "--seeds", "0", "-1"],
            "seeds must not be negative, got [0, -1]",
        ),
        (["--preset", "tiny", "--train-file", "x.tsv", "--dev-share", "1"], "dev_share"),
        (
            ["--preset", "tiny", "--train-file", "x.tsv", "--split", "8:1:1", "--dev-share", "0.3"],
            "dev_share divides the train rows if nothing else says which are dev rows: split does",
        ),
        (["--preset", "tiny", "--train-file", "x.tsv", "--split", "inf:1:1"], "must be three numbers above 0"),
        (["--preset", "tiny", "--train-file", "x.tsv", "--warmup-ratio", "1"], "warmup_ratio must be at least 0 and"),
        (["--task-type", "regression", "--preset", "tiny"], "task_type must be one of classification"),
        (
            ["--preset", "tiny", "--recipe", "uda"],
            "--recipe is an option of --task-type semi-supervised, and this is clas",
        ),
        (["--preset", "tiny", "--classifier_head=crf"], "--classifier-head is an option of --task-type tagging"),
    ],
)
def test_bad_options_are_named(capsys, arguments, named):
    assert main(["finetune", *arguments]) in (1, 2)
    assert named in capsys.readouterr().err


def test_a_share_of_the_train_rows_is_not_asked_for_where_a_task_has_dev_rows(tmp_path):
    for split in ("train", "dev", "test"):
        (tmp_path / "cold").mkdir(exist_ok=True)
        (tmp_path / "cold" / f"{split}.tsv").write_text("text\tlabel\n好\t1\n坏\t0\n好看\t1\n", encoding="utf-8")
    options = RowOptions(task="cold", data_dir=str(tmp_path), dev_share=0.3)
    with pytest.raises(ValueError, match="dev_share would do nothing: the task cold has dev rows of its own"):
        read_classification_rows(options)
    (tmp_path / "cold" / "dev.tsv").unlink()
    assert len(read_classification_rows(options).dev) == 1


def recipe_of(files, **changes) -> ClassificationRecipe:
    return ClassificationRecipe(
        StartOptions(preset="tiny", max_length=24),
        RowOptions(train_file=files[1], test_file=files[3]),
        OptimizationOptions(**{"epochs": 2, "batch_size": 8, **changes}),
        AugmentationOptions(augment=1),
    )


def test_bad_rows_end_it_before_training(tmp_path, files):
    (tmp_path / "other.jsonl").write_text('{"text": "好", "label": "中性"}\n', encoding="utf-8")
    run = FinetuningOptions(output_dir=tmp_path / "output")
    start, other = StartOptions(preset="tiny"), str(tmp_path / "other.jsonl")
    unseen = ClassificationRecipe(start, RowOptions(train_file=files[1], test_file=other))
    with pytest.raises(ValueError, match=r"labels of other must be among the 2 .*, got 中性"):
        finetune(unseen, run)
    (tmp_path / "numbers.jsonl").write_text('{"text": "好", "label": 1}\n', encoding="utf-8")
    numbers = RowOptions(train_file=files[1], test_file=str(tmp_path / "numbers.jsonl"))
    with pytest.raises(ValueError, match=r"labels of numbers must be among the 2 .*正面, 负面\), got 1"):
        finetune(ClassificationRecipe(start, numbers), run)
    alone = ClassificationRecipe(start, RowOptions(train_file=other))
    with pytest.raises(ValueError, match="must be at least two, got 中性 alone"):
        finetune(alone, run)
    assert not run.output_dir.exists()
    (tmp_path / "empty").mkdir()
    empty = ClassificationRecipe(StartOptions(model=str(tmp_path / "empty")), RowOptions(train_file=files[1]))
    with pytest.raises(OSError, match=r"the model .*empty cannot be loaded"):
        finetune(empty, run)
    assert not list(run.output_dir.glob("*.safetensors"))


@pytest.mark.parametrize("scores", [("0.25", "1.7", "3"), (".5", "1e-3", "2.0"), ("-0.5", "1", "0")])
def test_scores_are_not_taken_for_classes(tmp_path, scores):
    rows = "".join(f"{text},{score}\n" for text, score in zip("好坏差", scores, strict=True))
    (tmp_path / "scores.csv").write_text(f"text,label\n{rows}", encoding="utf-8")
    options = RowOptions(train_file=str(tmp_path / "scores.csv"))
    with pytest.raises(ValueError, match=rf"labels of scores must name classes, .* with decimals \(.*{scores[0]}"):
        read_classification_rows(options)


def test_a_run_that_could_not_begin_leaves_its_folder_free(tmp_path, files):
    run = FinetuningOptions(output_dir=tmp_path / "output")
    with pytest.raises(OSError, match="the model nowhere cannot be loaded"):
        finetune(ClassificationRecipe(StartOptions(model="nowhere"), RowOptions(train_file=files[1])), run)
    assert finetune(recipe_of(files), run)["arguments"]["preset"] == "tiny"


def test_runs_are_never_mixed(tmp_path, files):
    folder = tmp_path / "output"
    results = finetune(recipe_of(files), FinetuningOptions(output_dir=folder))
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    with pytest.raises(ValueError, match="holds a finished model; to begin anew give --overwrite"):
        finetune(recipe_of(files), FinetuningOptions(output_dir=folder))
    assert finetune(recipe_of(files), FinetuningOptions(output_dir=folder, resume=True)) == results
    with pytest.raises(ValueError, match=r"was begun with learning_rate=None, not 0\.01"):
        finetune(recipe_of(files, learning_rate=0.01), FinetuningOptions(output_dir=folder, resume=True))
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    (folder / "report.html").write_text("of the model before")
    finetune(recipe_of(files, learning_rate=0.01), FinetuningOptions(output_dir=folder, overwrite=True))
    assert not (folder / "report.html").exists()
    assert (folder / "model.safetensors").read_bytes() != before["model.safetensors"]
    with pytest.raises(ValueError, match="holds a run of one seed: name another output_dir for several seeds"):
        finetune(recipe_of(files), FinetuningOptions(output_dir=folder, seeds=[0, 1]))


def test_means_over_seeds_take_the_place_of_no_other_results(tmp_path, files):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")  # not of a finetuning
    for seeds in ([0], [0, 1]):
        with pytest.raises(ValueError, match=r"holds (a model|results) already: name another output_dir"):
            finetune(recipe_of(files), FinetuningOptions(output_dir=tmp_path / "model", seeds=seeds))
    (tmp_path / "all_results.json").write_text("{}")
    with pytest.raises(ValueError, match="holds results already: name another output_dir, or give --resume"):
        finetune(recipe_of(files), FinetuningOptions(output_dir=tmp_path, seeds=[0, 1]))
    assert (tmp_path / "all_results.json").read_text() == "{}"


def test_an_interrupted_run_ends_in_the_same_weights(tmp_path, files, monkeypatch):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    expected = finetune(recipe_of(files), FinetuningOptions(output_dir=whole))
    from transformers import Trainer

    class Interrupted(Exception):
        pass

    saved = Trainer._save_checkpoint

    def save_and_stop(self, *args, **kwargs):
        saved(self, *args, **kwargs)
        raise Interrupted

    monkeypatch.setattr(Trainer, "_save_checkpoint", save_and_stop)
    with pytest.raises(Interrupted):
        finetune(recipe_of(files), FinetuningOptions(output_dir=cut))
    monkeypatch.undo()
    with pytest.raises(ValueError, match="holds an interrupted run; go on with --resume"):
        finetune(recipe_of(files), FinetuningOptions(output_dir=cut))
    results = finetune(recipe_of(files), FinetuningOptions(output_dir=cut, resume=True))
    assert results["test"] == expected["test"]
    assert results["training"]["loss"] == pytest.approx(expected["training"]["loss"], rel=1e-6)
    first, second = load_file(whole / "model.safetensors"), load_file(cut / "model.safetensors")
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not (cut / "checkpoints").exists()


def test_attackers_that_ask_the_classifier_add_what_changes_its_mind(tmp_path, files, capsys):
    folder = tmp_path / "output"
    learning = ["--epochs", "6", "--learning-rate", "0.002", "--batch-size", "8", "--max-length", "24"]
    flags = ["--preset", "tiny", *files, *learning, "--output-dir", str(folder)]
    assert main(["finetune", *flags, "--augment-by", "adv", "argot"]) == 0
    results = results_in(folder)
    told = capsys.readouterr().out
    found = int(re.search(r"([\d,]+) texts that changed the classifier's answer join", told)[1].replace(",", ""))
    assert results["training"]["examples"] == 36 + found  # a tenth of 40 rows is held back for stopping
    assert "argot" in results["arguments"]["augment_by"][1]
    assert main(["finetune", "--preset", "tiny", *files, "--augment-by", "unheard"]) == 2


def test_training_on_the_worst_of_attacked_forms_says_how_it_was_done(tmp_path, files):
    flags = ["--preset", "tiny", "--class-weights", "--worst-of", "2", "--attacks", "split", *files, *QUICK]
    assert main(["finetune", *flags, "--output-dir", str(tmp_path / "out")]) == 0
    arguments = results_in(tmp_path / "out")["arguments"]
    assert (arguments["worst_of"], arguments["attacks"]) == (2, "split")
    assert main(["finetune", "--preset", "tiny", *files, "--worst-of", "-1"]) == 2


def test_the_best_epoch_of_the_worst_of_is_chosen_on_attacked_rows_too(tmp_path, files, monkeypatch):
    measured = []
    evaluate = WorstOfTrainer.evaluate
    monkeypatch.setattr(
        WorstOfTrainer,
        "evaluate",
        lambda self, *given, **named: measured.append(self) or evaluate(self, *given, **named),
    )
    flags = ["--preset", "tiny", "--worst-of", "2", "--attacks", "split", *files, *QUICK]
    assert main(["finetune", *flags, "--output-dir", str(tmp_path / "out")]) == 0
    rows = [tuple(row["input_ids"]) for row in measured[0].eval_dataset]
    assert len(rows) == 8  # of a tenth of 40 rows
    assert all(clean != attacked for clean, attacked in zip(rows[::2], rows[1::2], strict=True))


@pytest.mark.parametrize("way", ["--augment", "--worst-of"])
def test_a_language_model_scores_the_words_that_are_attacked(tmp_path, files, monkeypatch, way):
    tokenizer, asked, losses = character_level_bert_tokenizer(), [], CausalLMScorer.losses
    sizes = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 128}
    GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), **sizes)).save_pretrained(tmp_path / "lm")
    tokenizer.save_pretrained(tmp_path / "lm")
    (tmp_path / "attacks.yaml").write_text(f"scorer: {tmp_path / 'lm'}\n", encoding="utf-8")
    monkeypatch.setattr(CausalLMScorer, "losses", lambda self, texts: asked.append(len(texts)) or losses(self, texts))
    flags = ["--preset", "tiny", *files, *QUICK, way, "1", "--attacks", str(tmp_path / "attacks.yaml")]
    assert main(["finetune", *flags, "--output-dir", str(tmp_path / "out")]) == 0
    assert sum(asked) >= 36 > len(asked)  # each of the train rows, several at once


def test_the_packaged_config_of_table_7_samples_and_scores_as_printed(tmp_path, files):
    folder, toxic = tmp_path / "output", tmp_path / "data" / "toxicn"
    toxic.mkdir(parents=True)
    texts = [json.loads(line)["text"] for line in Path(files[1]).read_text(encoding="utf-8").splitlines()]
    rows = "".join(f"{text}\t{number % 2}\n" for number, text in enumerate(texts))
    (toxic / "train.tsv").write_text(f"text\tlabel\n{rows}", encoding="utf-8")
    flags = [
        "--preset",
        "tiny",
        "--data-dir",
        str(tmp_path / "data"),
        "--limit-per-label",
        "20",
        "--seeds",
        "0",
        *QUICK,
    ]
    assert main(["finetune", "--config", "toxic", *flags, "--output-dir", str(folder)]) == 0
    results = results_in(folder)
    assert results["arguments"]["positive_label"] == "1"
    assert results["arguments"]["metric"] == "f1"
    assert results["training"]["examples"] == 32


@pytest.mark.slow
def test_killed_at_any_moment_a_run_resumes_to_the_same_weights(tmp_path, files):
    flags = ["--preset", "tiny", *files, "--max-length", "24", "--epochs", "3", "--batch-size", "8"]
    command = [sys.executable, "-m", "rocbert_hf", "finetune", *flags]
    whole = tmp_path / "whole"
    started = time.monotonic()
    subprocess.run([*command, "--output-dir", str(whole)], check=True, capture_output=True)
    seconds, rng = time.monotonic() - started, random.Random(0)
    killed = tmp_path / "killed"
    finished = True
    for _ in range(20):
        if finished:  # begin anew, so that every kill falls into a run
            shutil.rmtree(killed, ignore_errors=True)
        run = subprocess.Popen(
            [*command, "--resume", "--output-dir", str(killed)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            finished = run.wait(timeout=rng.uniform(0.3, 1.0) * seconds) == 0
        except subprocess.TimeoutExpired:
            run.kill()
            run.wait()
            finished = False
    subprocess.run([*command, "--resume", "--output-dir", str(killed)], check=True, capture_output=True)
    first, second = load_file(whole / "model.safetensors"), load_file(killed / "model.safetensors")
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert results_in(whole)["test"] == results_in(killed)["test"]
    assert {file.name for file in whole.iterdir()} == {file.name for file in killed.iterdir()}


@pytest.mark.slow
def test_the_example_tells_the_same_story(tmp_path, files):
    script = Path(__file__).parents[2] / "examples" / "run_finetune.py"
    if not script.is_file():
        pytest.skip("the examples are not part of an installed package")
    output = tmp_path / "example"
    flags = ["--preset", "tiny", *files, *QUICK, "--attacked-copies", "1", "--output-dir", str(output)]
    run = subprocess.run([sys.executable, str(script), *flags], capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stderr
    assert ModelClassifier(output)(["很好"]).shape == (1, 2)
    shutil.rmtree(output)

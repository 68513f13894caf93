"""The finetuning script: from scratch and from a folder, single texts and pairs, and what it leaves in its folder."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch

from rocbert_hf.attackers import Example, ModelClassifier
from rocbert_hf.resources import demo_corpus

SCRIPT = Path(__file__).parents[2] / "examples" / "run_finetune.py"
ROWS = [row for row in demo_corpus() if "sentiment" in row][::5]


@pytest.fixture(scope="module")
def run_finetune():
    spec = importlib.util.spec_from_file_location("run_finetune", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def files(tmp_path):
    records = [{"text": r["text"], "pair": r["text"][::-1], "label": ["负面", "正面"][r["sentiment"]]} for r in ROWS]
    for name, part in (("train", records[:40]), ("test", records[40:])):
        lines = [json.dumps(record, ensure_ascii=False) + "\n" for record in part]
        (tmp_path / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    return ["--train-file", str(tmp_path / "train.jsonl"), "--test-file", str(tmp_path / "test.jsonl")]


QUICK = ["--epochs", "1", "--max-length", "24"]


@pytest.mark.parametrize("architecture", ["rocbert", pytest.param("bert", marks=pytest.mark.slow)])
def test_from_scratch_and_again_from_the_folder(run_finetune, tmp_path, files, architecture):
    first, second = tmp_path / "first", tmp_path / "second"
    scratch = ["--preset", "tiny", "--architecture", architecture, "--class-weights", "--augment", "1"]
    results = run_finetune.main([*scratch, *files, *QUICK, "--output-dir", str(first)])
    assert json.loads((first / "all_results.json").read_text(encoding="utf-8")) == results
    assert results["arguments"]["attacks"] == "paper"
    assert {file.suffix for file in first.iterdir()} <= {".json", ".safetensors", ".txt", ".md", ".py"}
    classifier = ModelClassifier(first)
    assert classifier.max_length == 24
    assert classifier.model.config.id2label == {0: "正面", 1: "负面"}
    test = run_finetune.read_data(
        run_finetune.FinetuneArguments(preset="tiny", train_file=files[1], test_file=files[3])
    )
    texts = [example.text for example in test.test]
    right = classifier(texts).argmax(-1) == [example.label for example in test.test]
    assert results["test"]["accuracy"] == pytest.approx(right.mean())
    assert f"{results['test']['accuracy']:.4g}" in (first / "README.md").read_text(encoding="utf-8")

    pairs = ["--model", str(first), *files, "--pair-column", "pair", *QUICK, "--seeds", "0", "1"]
    both = run_finetune.main([*pairs, "--output-dir", str(second)])
    runs = [json.loads((second / f"seed-{seed}" / "all_results.json").read_text(encoding="utf-8")) for seed in (0, 1)]
    accuracies = [run["test"]["accuracy"] for run in runs]
    assert both["test"]["accuracy"]["mean"] == pytest.approx(sum(accuracies) / 2)
    answer = ModelClassifier(second / "seed-0")([(ROWS[0]["text"], "不好")])
    assert answer.shape == (1, 2)


def test_class_weights_make_every_label_weigh_the_same(run_finetune):
    labels = torch.tensor([0, 0, 0, 1])
    loss = run_finetune.weighted_loss([Example("x", int(label)) for label in labels], 3)
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float32)
    losses = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    expected = (losses[:3].mean() + losses[3]) / 2
    output = type("Output", (), {"logits": logits})
    assert loss(output, labels).item() == pytest.approx(expected.item(), rel=1e-5)
    absent = torch.tensor([2, 2, 2, 2])  # a dev batch may hold a label alone that no train row has
    plain = torch.nn.functional.cross_entropy(logits, absent)
    assert loss(output, absent).item() == pytest.approx(plain.item(), rel=1e-5)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--preset", "tiny"], "task"),
        (["--train-file", "x.tsv"], "model"),
        (["--preset", "tiny", "--task", "tnews"], "data_dir"),
        (["--preset", "tiny", "--train-file", "x.tsv", "--metric", "mcc"], "metric"),
        (["--preset", "tiny", "--train-file", "x.tsv", "--dev-share", "1"], "dev_share"),
    ],
)
def test_bad_options_are_a_usage_error(run_finetune, capsys, arguments, named):
    with pytest.raises(SystemExit):
        run_finetune.main(arguments)
    assert named in capsys.readouterr().err


def test_bad_rows_end_it_before_training(run_finetune, tmp_path, files):
    (tmp_path / "other.jsonl").write_text('{"text": "好", "label": "中性"}\n', encoding="utf-8")
    unseen = [*files[:3], str(tmp_path / "other.jsonl")]
    output = tmp_path / "output"
    with pytest.raises(ValueError, match=r"labels of other must be among the 2 .*, got 中性"):
        run_finetune.main(["--preset", "tiny", *unseen, "--output-dir", str(output)])
    with pytest.raises(ValueError, match="must be at least two, got 中性 alone"):
        run_finetune.main(["--preset", "tiny", "--train-file", unseen[3], "--output-dir", str(output)])
    (tmp_path / "empty").mkdir()
    with pytest.raises(OSError, match=r"the model .*empty cannot be loaded: the folder has no config.json"):
        run_finetune.main(["--model", str(tmp_path / "empty"), *files, "--output-dir", str(output)])
    assert not output.exists()

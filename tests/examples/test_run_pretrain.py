"""`examples/run_pretrain.py` as a user runs it."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from transformers import AutoModelForMaskedLM, AutoTokenizer

from rocbert_hf.configuration_rocbert import PRESETS
from rocbert_hf.pretraining import read_log

SCRIPT = Path(__file__).parents[2] / "examples" / "run_pretrain.py"
QUICK = ["--max-steps", "2", "--held-out", "20", "--batch-size", "16"]


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("run_pretrain", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["run_pretrain"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["run_pretrain"]


def test_it_trains_compares_saves_and_fills_a_mask(script, tmp_path, capsys):
    results = script.main([*QUICK, "--output-dir", str(tmp_path / "model")])
    printed = capsys.readouterr().out
    for words in ("RoCBERT", "plain BERT", "retrieval by [CLS]", "retrieval by mean pooling", "masked:", "filled:"):
        assert words in printed
    assert json.loads((tmp_path / "model" / "all_results.json").read_text(encoding="utf-8")) == results
    for model in ("rocbert", "bert"):
        for when in ("before", "after"):
            assert {"mlm_loss", "contrastive_loss", "retrieval_cls", "retrieval_mean"} <= set(results[model][when])
    assert results["rocbert"]["training"]["steps"] == 2
    assert (tmp_path / "model" / "training_curves.png").stat().st_size > 0
    assert results["bert"]["training"]["seconds"] >= results["rocbert"]["training"]["seconds"]
    model = AutoModelForMaskedLM.from_pretrained(tmp_path / "model")
    assert model.config.vocab_size == len(AutoTokenizer.from_pretrained(tmp_path / "model"))


def test_own_text_and_flags(script, tmp_path):
    (tmp_path / "mine.jsonl").write_text(
        "".join(json.dumps({"content": f"这是第{i}句话，很短。"}, ensure_ascii=False) + "\n" for i in range(60)),
        encoding="utf-8",
    )
    flags = ["--train-file", str(tmp_path / "mine.jsonl"), "--text-column", "content", "--output-dir", str(tmp_path)]
    results = script.main([*QUICK, *flags, "--no-baseline", "--config-overrides", "fusion=concat,num_hidden_layers=1"])
    assert "bert" not in results
    config = AutoModelForMaskedLM.from_pretrained(tmp_path).config
    assert (config.fusion, config.num_hidden_layers) == ("concat", 1)
    assert results["arguments"]["text_column"] == "content"


@pytest.mark.parametrize("name", [f"{preset}.yaml" for preset in PRESETS])
def test_packaged_configs_are_valid(script, name):
    types = (script.RunArguments, script.PretrainingArguments)
    run, _ = script.parse_options(types, ["--config", str(SCRIPT.parent / "configs" / name)])
    assert run.preset == name.removesuffix(".yaml")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--train-file", "nowhere.txt"], "nowhere.txt"),
        (["--held-out", "5000"], "held-out"),
        (["--preset", "huge"], "huge"),
        (["--attacks", "none"], "none"),
        (["--config-overrides", "fusoin=concat"], "fusoin"),
        (["--config-overrides", "hidden_size=big"], "hidden_size must be of type int, got 'big'"),
        (["--config-overrides", "hidden_dropout_prob=much"], "hidden_dropout_prob must be of type float, got 'much'"),
        (["--train-file", "wikipedia", "tests"], r"train_file: several sources .* wikipedia=1; without one is"),
    ],
)
def test_bad_options_are_errors_before_any_training(script, tmp_path, flags, message):
    with pytest.raises((ValueError, OSError), match=message):
        script.main([*flags, "--output-dir", str(tmp_path)])


@pytest.mark.slow
def test_without_arguments_rocbert_misses_at_most_a_third_as_often_as_bert(tmp_path):
    subprocess.run([sys.executable, SCRIPT], cwd=tmp_path, check=True)
    results = json.loads((tmp_path / "rocbert-tiny" / "all_results.json").read_text(encoding="utf-8"))
    misses = {model: 1 - results[model]["after"]["retrieval_cls"] for model in ("rocbert", "bert")}
    assert misses["rocbert"] <= misses["bert"] / 3
    assert results["rocbert"]["after"]["mlm_loss"] < results["rocbert"]["before"]["mlm_loss"] - 1
    assert results["rocbert"]["after"]["contrastive_loss"] < results["rocbert"]["before"]["contrastive_loss"] / 3


def test_a_run_goes_on_from_its_last_checkpoint(script, tmp_path):
    flags = [*QUICK, "--no-baseline", "--output-dir", str(tmp_path), "--report-to", "none"]
    script.main([*flags, "--save-steps", "1"])
    with pytest.raises(ValueError, match="resume_from_checkpoint=last"):
        script.main(flags)
    results = script.main([*flags, "--resume", "--max-steps", "3"])
    assert results["rocbert"]["training"]["steps"] == 3
    assert [row["step"] for row in read_log(tmp_path)] == [2, 3]


@pytest.mark.parametrize("name", ["mini", "base"])
def test_a_dry_run_says_what_a_run_would_need_and_does_nothing(script, tmp_path, capsys, name):
    config = str(SCRIPT.parent / "configs" / f"{name}.yaml")
    flags = ["--config", config, "--dry-run", "--dry-run-devices", "64xV100", "--output-dir", str(tmp_path / "none")]
    assert script.main(flags) is None
    printed = capsys.readouterr().out
    for words in ("parameters", "sentences a step", "weights", "gradients", "V100"):
        assert words in printed
    assert not (tmp_path / "none").exists()


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="sends SIGINT")
def test_interrupting_leaves_nothing_half_written(tmp_path):
    command = [sys.executable, SCRIPT, "--max-steps", "100000", "--output-dir", tmp_path / "model"]
    # where the tests themselves run in the background, a child would inherit that SIGINT is ignored
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=heed) as process:
        seen = ""
        while "loss=" not in seen:
            new = process.stderr.read(50)
            assert new, seen
            seen += new
        process.send_signal(signal.SIGINT)
        assert "interrupted" in process.stderr.read()
    assert process.returncode != 0
    assert {path.name for path in (tmp_path / "model").iterdir()} <= {"log.jsonl", "runs"}

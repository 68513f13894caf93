"""`rocbert evaluate` and its example script: a report of a few words on the command line, or one line of error."""

import importlib.util
import json
import os
import re
import shutil
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from rocbert_hf import RoCBertConfig, RoCBertForMaskedLM, RoCBertTokenizer
from rocbert_hf.data import TASKS
from rocbert_hf.evaluation.run import EvaluationArguments

from ..command_line import rocbert

EXAMPLES = Path(__file__).parents[2] / "examples"
CONFIGS = EXAMPLES / "configs"
PAGE = Path(__file__).parents[2] / "docs/guide/robustness.md"


def example(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def data(tmp_path, reviews):
    file = tmp_path / "reviews.tsv"
    rows = [f"{text}\t{label}\n" for text, label in zip(reviews.texts, reviews.labels, strict=True)]
    file.write_text("".join(["review\tsentiment\n", *rows]), encoding="utf-8")
    return ["--data", file, "--text-column", "review", "--label-column", "sentiment"]


def test_the_command_and_the_script_write_the_same_report(tmp_path, folders, data):
    options = ["--limit", 6, "--attackers", "adv", "--ratio", "0.1", "--attacks", "split", "--seed", 3]
    shutil.copytree(folders["bert"], tmp_path / "reviews")
    model = tmp_path / "{task}"  # a folder a task
    result = rocbert("evaluate", "--model", f"mine={model}", *data, *options, "--output-dir", tmp_path / "one")
    assert result.exit_code == 0, result.stderr
    assert f"{tmp_path / 'one' / 'report.html'}" in result.stdout
    report = json.loads((tmp_path / "one" / "report.json").read_text(encoding="utf-8"))
    assert report["tasks"]["reviews"]["examples"] == 6
    assert list(report["attackers"]) == ["adv", "adv:split", "adv@0.1"]
    config = tmp_path / "config.yaml"
    config.write_text("attackers: [adv]\nratio: ['0.1']\nattacks: [split]\nlimit: 6\nseed: 3\n", encoding="utf-8")
    arguments = ["--config", config, "--model", f"mine={model}", *data, "--output-dir", tmp_path / "two"]
    assert example("run_robustness").main(list(map(str, arguments))) == report


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        (["--label-column", "label"], "must have the columns review, label, but has review, sentiment"),
        (["--task", "chnsenticorp"], "data_dir"),
        (["--task", "chnsenticorp", "--data-dir", "nowhere"], "no test file"),
        (["--attackers", "pwws"], "attacker must be one of"),
        (["--defence", "grammar"], "a defence must be"),
        (["--synonyms", "thesaurus"], "synonyms must be masked_lm=DIR_OR_ID"),
        (["--limit", "0"], "limit must be at least 1"),
        (["--ratio", "many"], "ratio must be numbers, got 'many'"),
        (["--model", "no/such/model"], "no/such/model cannot be loaded"),
        (["--max-length", "12"], "longer than the 12 tokens"),
        (["--seed", "-1"], "seed must be at least 0, got -1"),
        (["--num-workers", "0"], "num_workers must be at least 1, got 0"),
        (["--device", "abacus"], "device must be one that torch can use here, such as cpu, got 'abacus'"),
        (["--device", "cuda:99"], "device must be one that torch can use here, such as cpu, got 'cuda:99'"),
        (["--model", "{tmp}/empty"], "empty cannot be loaded: the folder has no config.json"),
        (["--model", "{tmp}/cut"], "cut cannot be loaded: Error while deserializing header"),
        (["--model", "runs/lr=1e-4/bert"], "the model runs/lr=1e-4/bert cannot be loaded"),
        (["--encoder", "{tmp}/empty"], "the encoder {tmp}/empty cannot be loaded: the folder has no config.json"),
        (["--defence", "spelling={tmp}/empty"], "the model of the defence {tmp}/empty cannot be loaded"),
        (["--synonyms", "masked_lm={tmp}/empty"], "the model of synonyms {tmp}/empty cannot be loaded"),
    ],
)
def test_bad_options_are_one_line(tmp_path, folders, data, changed, named):
    (tmp_path / "empty").mkdir()
    shutil.copytree(folders["bert"], tmp_path / "cut")
    os.truncate(tmp_path / "cut" / "model.safetensors", 1000)
    changed, named = [text.replace("{tmp}", str(tmp_path)) for text in changed], named.replace("{tmp}", str(tmp_path))
    result = rocbert("evaluate", "--model", folders["bert"], *data, *changed, "--output-dir", tmp_path / "report")
    assert result.exit_code in (1, 2)
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert named in result.stderr
    assert not (tmp_path / "report").exists()


def test_models_and_defences_are_told_apart_by_their_folders(tmp_path, folders):
    shutil.copytree(folders["bert"], tmp_path / "lr=1e-4" / "bert")
    for name in ("one", "two"):
        RoCBertForMaskedLM(RoCBertConfig.from_preset("tiny")).save_pretrained(tmp_path / name)
        RoCBertTokenizer().save_pretrained(tmp_path / name)
    (tmp_path / "rows.tsv").write_text("text\tlabel\n服务很好\t1\n", encoding="utf-8")
    options = ["evaluate", "--data", tmp_path / "rows.tsv", "--attackers", "adv", "--output-dir", tmp_path / "report"]
    options += ["--model", tmp_path / "lr=1e-4" / "bert", "--defence", f"spelling={tmp_path / 'one'}"]
    result = rocbert(*options, "--defence", f"spelling={tmp_path / 'two'}", "--num-workers", 2)
    assert result.exit_code == 0, result.stderr
    report = json.loads((tmp_path / "report" / "report.json").read_text(encoding="utf-8"))
    assert report["models"] == ["bert", "bert + spelling one", "bert + spelling two"]
    shutil.copytree(tmp_path / "one", tmp_path / "other" / "one")
    result = rocbert(*options, "--defence", f"spelling={tmp_path / 'other' / 'one'}")
    assert result.exit_code == 1
    assert "two defences are called spelling one" in result.stderr


def test_the_help_names_the_tasks():
    words = set(re.findall(r"\w+", rocbert("evaluate", "--help").stdout))
    assert set(TASKS) <= words


@pytest.mark.skipif(not CONFIGS.is_dir(), reason="the examples are not part of an installed package")
def test_the_example_evaluates_what_the_example_finetunes():
    finetuned, evaluated = (
        yaml.safe_load((CONFIGS / f"{name}.yaml").read_text(encoding="utf-8")) for name in ("finetune", "robustness")
    )
    folders = {spec.partition("=")[2] for spec in evaluated["model"]}
    assert f"{finetuned['output_dir']}/seed-{finetuned['seeds'][0]}" in folders
    assert evaluated["task"] == [finetuned["task"]]


@pytest.mark.skipif(not PAGE.is_file(), reason="the documentation is not part of an installed package")
@pytest.mark.parametrize("program", ["rocbert evaluate", "python examples/run_finetune.py"])
def test_the_documentation_names_options_that_there_are(program):
    blocks = re.findall(r"```bash\n(.*?)```", PAGE.read_text(encoding="utf-8").replace("\\\n", " "), flags=re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith(program)]
    assert lines
    if program == "rocbert evaluate":
        known = {f"--{field.name.replace('_', '-')}" for field in fields(EvaluationArguments)}
    else:
        known = {f"--{field.name.replace('_', '-')}" for field in fields(example("run_finetune").FinetuneArguments)}
        known.add("--config")
    for line in lines:
        assert set(re.findall(r"--[a-z-]+", line)) <= known

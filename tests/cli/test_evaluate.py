"""`rocbert evaluate` and its example script: a report of a few words on the command line, or one line of error."""

import importlib.util
import json
import os
import pickle
import re
import shutil
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import yaml
from transformers import AutoTokenizer, BertForSequenceClassification, GPT2Config, GPT2LMHeadModel

from rocbert_hf import RoCBertConfig, RoCBertForMaskedLM, RoCBertTokenizer
from rocbert_hf.attackers import AttackerSpec, ModelClassifier
from rocbert_hf.data import TASKS
from rocbert_hf.evaluation.run import OPTIONS, EvaluationAttackers, EvaluationData
from rocbert_hf.finetuning import FinetuningOptions, recipe_class
from rocbert_hf.finetuning.starting_point import character_level_bert_tokenizer
from rocbert_hf.options import CONFIGS

from ..command_line import rocbert

EXAMPLES = Path(__file__).parents[2] / "examples"
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
    options = ["--limit", 6, "--attackers", "adv", "--ratio", "0.1", "--each-attack", "split", "--seed", 3]
    shutil.copytree(folders["bert"], tmp_path / "reviews")
    model = tmp_path / "{task}"  # a folder a task
    result = rocbert("evaluate", "--model", f"mine={model}", *data, *options, "--output-dir", tmp_path / "one")
    assert result.exit_code == 0, result.stderr
    assert f"{tmp_path / 'one' / 'report.html'}" in result.stdout
    report = json.loads((tmp_path / "one" / "report.json").read_text(encoding="utf-8"))
    assert report["tasks"]["reviews"]["examples"] == 6
    assert list(report["attackers"]) == ["adv", "adv:split", "adv@0.1"]
    config = tmp_path / "config.yaml"
    config.write_text("attackers: [adv]\nratio: [0.1]\neach_attack: [split]\nlimit: 6\nseed: 3\n", encoding="utf-8")
    arguments = ["--config", config, "--model", f"mine={model}", *data, "--output-dir", tmp_path / "two"]
    assert example("run_robustness").main(list(map(str, arguments))) == report


def pickle_classifier(source, folder):
    """A classifier whose weights are a pickle that would write a file."""
    shutil.copytree(source, folder)
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Writes(folder / "written")))


class Writes:
    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return Path.touch, (self.file,)


def nan_classifier(source, folder):
    model = BertForSequenceClassification.from_pretrained(source)
    model.classifier.weight.data[:] = float("nan")
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(source).save_pretrained(folder)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        (["--label-column", "label"], "must have the columns review, label, but has review, sentiment"),
        (["--task", "chnsenticorp"], "data_dir"),
        (["--task", "chnsenticorp", "--data-dir", "nowhere"], "no test file"),
        (["--attackers", "pwws"], "--attackers must be one of adv, textfooler, argot"),
        (["--defence", "grammar"], "--defence must be spelling=DIR_OR_ID"),
        (["--synonyms", "thesaurus"], "--synonyms must be masked_lm=DIR_OR_ID"),
        (["--limit", "0"], "limit must be at least 1"),
        (["--ratio", "many"], "--ratio must be a number, got 'many'"),
        (["--model", "no/such/model"], "no/such/model cannot be loaded"),
        (["--max-length", "12"], "longer than the 12 tokens"),
        (["--attackers", "none", "--ratio", "0.1"], "ratio would do nothing: no attacker that is asked for uses it"),
        (["--attackers", "argot", "--attacks", "wild"], "attacks would do nothing: no attacker that is"),
        (["--attackers", "adv:wild", "--attacks", "visual"], "attacks would do nothing: no attacker that is"),
        (["--attackers", "argot", "--scorer", "uniform"], "scorer would do nothing: no attacker that is"),
        (["--attackers", "adv@0.1,argot@0.2", "--max-share", "0.3"], "max_share would do nothing: no attacker that"),
        (["--data-dir", "tasks"], "data_dir is the folder of the tasks' files, and no task is given"),
        (["--split", "dev"], "split is of a task or a dataset, and a file is read as a whole"),
        (["--attackers", "adv", "--synonyms", "vectors=none.txt"], "synonyms would do nothing"),
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
        (["--scorer", "{tmp}/empty"], "the scorer {tmp}/empty cannot be loaded"),
        (["--attacks", "{tmp}/empty"], "attacks must be a preset (paper, wild), names with commas between"),
        (["--each-attack", "typo"], "--each-attack must be one of all, phonetic"),
        (
            ["--attacked-column", "attacked"],
            "must have the columns review, sentiment, attacked, but has review, sentiment",
        ),
        (["--model", "{tmp}/pickle"], "the model {tmp}/pickle cannot be loaded"),
        (["--model", "{tmp}/nan"], "classifier must return numbers, got [nan, nan]"),
    ],
)
def test_bad_options_are_one_line(tmp_path, folders, data, changed, named):
    (tmp_path / "empty").mkdir()
    shutil.copytree(folders["bert"], tmp_path / "cut")
    os.truncate(tmp_path / "cut" / "model.safetensors", 1000)
    for name in {"pickle", "nan"} & set(re.findall(r"\w+", " ".join(map(str, changed)))):
        globals()[f"{name}_classifier"](folders["bert"], tmp_path / name)
    changed, named = [text.replace("{tmp}", str(tmp_path)) for text in changed], named.replace("{tmp}", str(tmp_path))
    result = rocbert("evaluate", "--model", folders["bert"], *data, *changed, "--output-dir", tmp_path / "report")
    assert result.exit_code in (1, 2)
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert named in result.stderr
    assert not (tmp_path / "report").exists()
    assert not (tmp_path / "pickle" / "written").exists()


def test_columns_of_a_task_are_its_own():
    with pytest.raises(ValueError, match="text_column needs data: a task has columns of its own"):
        EvaluationData(task=["tnews"], data_dir="tasks", text_column="title")


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


def test_without_attackers_only_clean_texts_are_measured(tmp_path, folders, data):
    for number, none in enumerate((["none"], [""])):
        options = ["--model", folders["bert"], *data, "--attackers", *none, "--output-dir", tmp_path / str(number)]
        result = rocbert("evaluate", *options)
        assert result.exit_code == 0, result.stderr
        assert "of the texts of reviews; nothing was attacked." in result.stdout
        report = json.loads((tmp_path / str(number) / "report.json").read_text(encoding="utf-8"))
        assert report["attackers"] == {}
        assert report["attacked"] == {"reviews": {}}
    again = rocbert("evaluate", "--model", folders["bert"], *data, "--attackers", "adv", "--output-dir", tmp_path / "0")
    assert again.exit_code == 0, again.stderr
    attacked = json.loads((tmp_path / "0" / "report.json").read_text(encoding="utf-8"))
    assert attacked["clean"] == report["clean"]


def test_pairs_of_clean_and_attacked_texts_are_measured(tmp_path, folders, reviews):
    attacked = ["".join(reversed(text)) for text in reviews.texts]
    rows = zip(reviews.texts, reviews.labels, attacked, strict=True)
    rows = [dict(zip(("text", "label", "attacked"), row, strict=True)) for row in rows]
    (tmp_path / "rows.json").write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    options = ["--model", folders["bert"], "--data", tmp_path / "rows.json", "--attacked-column", "attacked"]
    result = rocbert("evaluate", *options, "--attackers", "none", "--output-dir", tmp_path / "report")
    assert result.exit_code == 0, result.stderr
    report = json.loads((tmp_path / "report" / "report.json").read_text(encoding="utf-8"))
    assert list(report["attackers"]) == ["given"]
    classifier = ModelClassifier(folders["bert"])
    labels = np.array(list(map(int, reviews.labels)))
    right = [classifier(texts).argmax(1) == labels for texts in (list(reviews.texts), attacked)]
    numbers = report["attacked"]["rows"]["given"]["bert"]
    assert report["clean"]["rows"]["bert"]["accuracy"]["value"] == pytest.approx(right[0].mean(), abs=1e-6)
    assert numbers["accuracy"]["value"] == pytest.approx((right[0] & right[1]).mean(), abs=1e-6)
    rows[0]["attacked"] += "。"
    (tmp_path / "rows.json").write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    changed = rocbert("evaluate", *options, "--attackers", "none", "--output-dir", tmp_path / "report")
    assert "holds results of other settings: tasks rows was" in changed.stderr


def test_the_attacks_of_adv_come_from_a_file_and_their_scorer_from_a_language_model(tmp_path, folders, data):
    tokenizer = character_level_bert_tokenizer()
    sizes = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 128}
    GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), **sizes)).save_pretrained(tmp_path / "lm")
    tokenizer.save_pretrained(tmp_path / "lm")
    (tmp_path / "attacks.yaml").write_text("ratio: 0.3\nq: 1\nnoise: 0\nattacks: {split: 2, phonetic: 1}\n")
    options = ["--model", folders["bert"], *data, "--limit", 4, "--attackers", "adv", "--seed", 1]
    options += ["--attacks", tmp_path / "attacks.yaml"]
    settings = []
    for number, scorer in enumerate(([], ["--scorer", tmp_path / "lm"])):
        result = rocbert("evaluate", *options, *scorer, "--output-dir", tmp_path / str(number))
        assert result.exit_code == 0, result.stderr
        settings.append(json.loads((tmp_path / str(number) / "settings.json").read_text())["attackers"]["adv"])
    plain, scored = (found["synthesizer"] for found in settings)
    assert plain["attacks"] == {"phonetic": 1.0, "split": 2.0}
    assert (plain["ratio"], plain["q"], plain["noise"], plain["scorer"]) == (0.3, 1, 0, "word_frequency")
    assert {**scored, "scorer": plain["scorer"]} == plain != scored


@pytest.mark.parametrize(("content", "share"), [("q: 0.5\n", 0.1), ("q: 0.5\nratio: 0.15\n", 1)])
def test_a_file_of_attacks_lifts_the_limit_only_if_it_asks_for_a_ratio(tmp_path, content, share):
    (tmp_path / "attacks.yaml").write_text(content)
    asked = EvaluationAttackers([AttackerSpec("adv")], attacks=str(tmp_path / "attacks.yaml"), max_share=0.1)
    (attacker,) = asked.build(None).values()
    assert attacker.share.share == share
    assert (attacker.synthesizer.config["ratio"], attacker.synthesizer.config["q"]) == (0.15, 0.5)


def test_what_others_wrote_steers_no_terminal_and_no_page(tmp_path, folders):
    rows = [{"text": f"这家店\u202e的服务\x1b[31m很好\x00，房间\u200b不错{i}", "label": i % 2} for i in range(8)]
    (tmp_path / "a\u202eb.json").write_text(json.dumps(rows), encoding="utf-8")
    options = [
        "--model",
        f"m\x1b[2J={folders['bert']}",
        "--data",
        tmp_path / "a\u202eb.json",
        "--attackers",
        "argot,adv",
    ]
    result = rocbert("evaluate", *options, "--output-dir", tmp_path / "report")
    assert result.exit_code == 0, result.stderr
    pages = [(tmp_path / "report" / name).read_text(encoding="utf-8") for name in ("report.md", "report.html")]
    for shown in (result.stdout, *pages):
        assert not set(shown) & set("\u202e\u200b\x1b\x00")
        assert "U+202E" in shown
        assert "U+001B" in shown
    for page in pages:
        assert "U+0000" in page
        assert "U+200B" in page


def test_the_help_names_the_tasks():
    words = set(re.findall(r"\w+", rocbert("evaluate", "--help").stdout))
    assert set(TASKS) <= words


def test_the_example_evaluates_what_the_example_finetunes():
    finetuned, evaluated = (
        yaml.safe_load((CONFIGS / f"{name}.yaml").read_text(encoding="utf-8")) for name in ("finetune", "robustness")
    )
    folders = {spec.partition("=")[2] for spec in evaluated["model"]}
    assert f"{finetuned['output_dir']}/seed-{finetuned['seeds'][0]}" in folders
    assert evaluated["task"] == [finetuned["task"]]


@pytest.mark.skipif(not PAGE.is_file(), reason="the documentation is not part of an installed package")
@pytest.mark.parametrize("program", ["rocbert evaluate", "rocbert finetune"])
def test_the_documentation_names_options_that_there_are(program):
    blocks = re.findall(r"```bash\n(.*?)```", PAGE.read_text(encoding="utf-8").replace("\\\n", " "), flags=re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith(program)]
    assert lines
    if program == "rocbert evaluate":
        known = {f"--{field.name.replace('_', '-')}" for type_ in OPTIONS for field in fields(type_)}
    else:
        types = (FinetuningOptions, *recipe_class("classification").OPTIONS)
        known = {f"--{field.name.replace('_', '-')}" for type_ in types for field in fields(type_)} | {"--config"}
    for line in lines:
        assert set(re.findall(r"--[a-z-]+", line)) <= known

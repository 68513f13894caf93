"""What travels to the Hub: source files, card, and a folder that loads where the package is not installed."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import CommitOperationAdd
from transformers import AutoModelForMaskedLM, AutoTokenizer

from rocbert_hf import RoCBertConfig, RoCBertForMaskedLM, RoCBertForSequenceClassification, RoCBertTokenizer
from rocbert_hf.configuration_rocbert import CODE_FILES
from rocbert_hf.hub import describe

from ..command_line import rocbert

TEXTS = ["科比的精神值得永远学习", "keb1 永远滴神！Abc", ""]
FUSIONS = [
    "layer_insert",
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("attention", "two_step", "concat", "sum", "none")),
]

LOAD = """
import sys
sys.modules["rocbert_hf"] = None  # what Python does where a package is not to be imported
import json, torch
from transformers import (AutoModel, AutoModelForMaskedLM, AutoModelForSequenceClassification, AutoTokenizer)
name, output, texts = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=True)
model = AutoModelForMaskedLM.from_pretrained(name, trust_remote_code=True).eval()
inputs = tokenizer(texts, padding=True, return_tensors="pt")
with torch.no_grad():
    torch.save({**inputs, "logits": model(**inputs).logits}, output + "/outputs.pt")
AutoModel.from_pretrained(name, trust_remote_code=True)
classifier = AutoModelForSequenceClassification.from_pretrained(name, trust_remote_code=True, num_labels=3)
classifier.save_pretrained(output + "/again")
tokenizer.save_pretrained(output + "/again")
tokenizer = AutoTokenizer.from_pretrained(output + "/again", trust_remote_code=True)
again = AutoModelForSequenceClassification.from_pretrained(output + "/again", trust_remote_code=True).eval()
with torch.no_grad():
    torch.testing.assert_close(again(**tokenizer(texts, padding=True, return_tensors="pt")).logits,
                               classifier.eval()(**inputs).logits)
"""


def save(folder, fusion: str = "layer_insert", model_class=RoCBertForMaskedLM):
    torch.manual_seed(0)
    overrides = {"shape_embed_dim": 128} if fusion == "sum" else {"shape_embed_dim": 16}
    model = model_class(RoCBertConfig.from_preset("tiny", fusion=fusion, **overrides)).eval()
    model.save_pretrained(folder)
    tokenizer = RoCBertTokenizer()
    tokenizer.save_pretrained(folder)
    return model, tokenizer


def load_without_package(name, tmp_path, **environment) -> dict[str, torch.Tensor]:
    """Inputs and outputs of a fresh process that cannot import the package."""
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(name), str(tmp_path), json.dumps(TEXTS)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_OFFLINE": "1", **environment},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return torch.load(tmp_path / "outputs.pt")


def assert_same_outputs(got: dict[str, torch.Tensor], model, tokenizer) -> None:
    inputs = tokenizer(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = {**inputs, "logits": model(**inputs).logits}
    assert got.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(got[name], tensor, rtol=0, atol=1e-6)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_process_without_the_package_loads_a_saved_folder(tmp_path, fusion):
    model, tokenizer = save(tmp_path / "checkpoint", fusion)
    assert_same_outputs(load_without_package(tmp_path / "checkpoint", tmp_path), model, tokenizer)
    # and what it saved loads here
    assert type(RoCBertForSequenceClassification.from_pretrained(tmp_path / "again")).__name__


def test_a_process_without_the_package_loads_a_repository_by_its_name(tmp_path):
    model, tokenizer = save(tmp_path / "checkpoint")
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "cache" / "models--someone--rocbert"
    shutil.copytree(tmp_path / "checkpoint", repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    got = load_without_package("someone/rocbert", tmp_path, HF_HUB_CACHE=str(tmp_path / "cache"))
    assert_same_outputs(got, model, tokenizer)


def test_with_the_package_its_own_classes_load_the_folder(tmp_path):
    save(tmp_path)
    for trust in (None, False, True):
        model = AutoModelForMaskedLM.from_pretrained(tmp_path, trust_remote_code=trust)
        assert type(model) is RoCBertForMaskedLM
    assert type(AutoTokenizer.from_pretrained(tmp_path)) is RoCBertTokenizer


def test_every_part_alone_brings_its_source(tmp_path):
    """`push_to_hub` uploads what `save_pretrained` writes into a new folder, file by file."""
    config = RoCBertConfig.from_preset("tiny", shape_embed_dim=16)
    for part, expected in (
        (config, {"config.json", *CODE_FILES}),
        (RoCBertForMaskedLM(config), {"config.json", "model.safetensors", *CODE_FILES}),
        (RoCBertTokenizer(), {"tokenizer_config.json", "vocab.txt", "tokenization_rocbert.py"}),
    ):
        folder = tmp_path / type(part).__name__
        part.save_pretrained(folder)
        uploads = [CommitOperationAdd(file.name, str(file)) for file in sorted(folder.iterdir())]
        assert expected <= {upload.path_in_repo for upload in uploads}
        assert all(upload.upload_info.size > 0 for upload in uploads)
    for name in CODE_FILES:
        source = Path(sys.modules["rocbert_hf"].__file__).with_name(name)
        assert (tmp_path / "RoCBertForMaskedLM" / name).read_bytes() == source.read_bytes()


# -------------------------------------------------------------------------------------------- info


def test_describe_tells_what_is_in_a_folder(tmp_path):
    model, _ = save(tmp_path)
    (tmp_path / "optimizer.pt").write_bytes(b"not a pickle at all")
    description = json.loads(json.dumps(describe(tmp_path)))
    assert description["config"]["fusion"] == "layer_insert"
    assert description["config"]["hidden_size"] == 128
    # tied weights are saved once
    assert description["weights"]["parameters"] == sum(p.numel() for p in model.parameters())
    assert sum(description["weights"]["parts"].values()) == description["weights"]["parameters"]
    assert description["weights"]["dtypes"].keys() == {"F32", "I64"}
    assert description["tokenizer"] == {"tokens": 16224, "of": "characters"}
    assert description["loads_without_package"]
    assert description["pickles_not_opened"] == ["optimizer.pt"]
    digests = {file["name"]: file["sha256"] for file in description["files"]}
    assert digests["config.json"] == hashlib.sha256((tmp_path / "config.json").read_bytes()).hexdigest()
    (tmp_path / "modeling_rocbert.py").unlink()
    assert not describe(tmp_path)["loads_without_package"]


def test_info_prints_text_or_json_and_refuses_other_folders(tmp_path):
    save(tmp_path / "checkpoint")
    printed = rocbert("info", str(tmp_path / "checkpoint")).output
    assert "fusion: layer_insert" in printed
    assert "loads without rocbert_hf: yes" in printed
    assert json.loads(rocbert("info", str(tmp_path / "checkpoint"), "--json").output)["weights"]
    for folder, message in ((tmp_path, "config.json cannot be read"), (tmp_path / "none", "there is no folder")):
        result = rocbert("info", str(folder))
        assert result.exit_code == 1
        assert message in result.stderr
        assert result.stderr.count("\n") == 1
    (tmp_path / "checkpoint" / "model.safetensors").write_bytes(b"\x00")
    assert "not a whole safetensors file" in rocbert("info", str(tmp_path / "checkpoint")).stderr


def test_info_marks_what_would_steer_the_terminal(tmp_path):
    config = {"model_type": "rocbert", "fusion": "\x1b[2J\u202eevil", "hidden_size": 10**9, "num_hidden_layers": -1}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "a\x1b[31m\u202e\udcff.txt").write_text("")
    for flags in ([], ["--json"]):
        printed = rocbert("info", str(tmp_path), *flags)
        assert printed.exit_code == 0
        assert not [char for char in printed.output if not char.isprintable() and char != "\n"]
        assert "evil" in printed.output
    assert "<U+001B>[2J<U+202E>evil" in rocbert("info", str(tmp_path)).output


@pytest.mark.parametrize(
    "value",
    [10**9, 10**7, -5, 1.5, "many", None, True, [], {}, "x" * 10**6, [[1] * 10**5]],
    ids=lambda value: f"{value!r:.20}",
)
@pytest.mark.parametrize("name", ["num_hidden_layers", "hidden_size", "architectures", "auto_map", "fusion"])
def test_info_of_odd_configs_says_what_is_there(tmp_path, name, value):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "rocbert", "hidden_size": 4, name: value}))
    printed = rocbert("info", str(tmp_path))
    assert printed.exit_code == 0
    assert len(printed.output) < 2000


@pytest.mark.parametrize(
    "content", ["[" * 10**5, '{"a":' * 10**5, '{"a":' * 60 + "1" + "}" * 60, "[1]", "", "nul", "9" * 10**5]
)
def test_json_that_is_no_config_is_one_clear_error(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    for command in ("info", "card"):
        result = rocbert(command, str(tmp_path))
        assert result.exit_code == 1
        assert result.stderr.count("\n") == 1
        assert "config.json" in result.stderr


def test_convert_command(tmp_path):
    save(tmp_path / "ours", "concat")
    done = rocbert("convert", str(tmp_path / "ours"), str(tmp_path / "theirs"))
    assert done.exit_code == 0, done.output
    assert "maximum difference of outputs" in done.output
    assert json.loads((tmp_path / "theirs" / "config.json").read_text())["model_type"] == "roc_bert"
    refused = rocbert("convert", str(tmp_path / "ours"), str(tmp_path / "theirs"))
    assert refused.exit_code == 1
    assert "not an empty folder" in refused.stderr


@pytest.mark.parametrize("script", ["convert_roc_bert", "convert_released", "convert_bert"])
def test_scripts_have_help_and_end_with_one_clear_error(tmp_path, script):
    file = Path(__file__).parents[2] / "conversion" / f"{script}.py"
    shown = subprocess.run([sys.executable, file, "--help"], capture_output=True, text=True)
    assert shown.returncode == 0
    assert "maximum difference" in " ".join(shown.stdout.split())
    failed = subprocess.run([sys.executable, file, tmp_path, tmp_path / "output"], capture_output=True, text=True)
    assert failed.returncode == 1
    assert failed.stderr.startswith("error: ")
    assert failed.stderr.count("\n") == 1

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
from huggingface_hub import CommitOperationAdd, ModelCard
from transformers import AutoModelForMaskedLM, AutoTokenizer

from rocbert_hf import RoCBertConfig, RoCBertForMaskedLM, RoCBertForSequenceClassification, RoCBertTokenizer
from rocbert_hf.configuration_rocbert import CODE_FILES
from rocbert_hf.hub.description import describe, model_card

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


# -------------------------------------------------------------------------------------------- card


def test_card_is_filled_from_the_run(tmp_path):
    save(tmp_path)
    arguments = {"learning_rate": 3e-4, "attacks": "paper", "train_file": ["/data/corpus.txt.gz"], "held_out": 200}
    results = {
        "arguments": arguments,
        "rocbert": {"before": {"mlm_loss": 9.7}, "after": {"mlm_loss": 5.123456, "retrieval_cls": 0.93}},
        "bert": {"after": {"mlm_loss": 5.5}},
    }
    (tmp_path / "all_results.json").write_text(json.dumps(results))
    text = model_card(tmp_path, "someone/rocbert-tiny", license="apache-2.0")
    card = ModelCard(text)
    assert card.data.language == "zh"
    assert card.data.library_name == "transformers"
    assert card.data.pipeline_tag == "fill-mask"
    assert card.data.license == "apache-2.0"
    assert 'AutoModelForMaskedLM.from_pretrained("someone/rocbert-tiny", trust_remote_code=True)' in text
    assert "| learning_rate | 0.0003 |" in text
    assert "`corpus.txt.gz`" in text
    assert "/data" not in text
    assert "200 sentences were held out" in text
    assert "- `phonetic`: 科 → 颗" in text
    assert "|  | rocbert before | rocbert after | bert after |" in text
    assert "| mlm_loss | 9.7 | 5.123 | 5.5 |" in text
    assert "| retrieval_cls |  | 0.93 |  |" in text
    assert "reads at most 512 tokens" in text
    assert "$" not in text


def test_card_of_a_trainers_folder_and_of_a_bare_one(tmp_path):
    save(tmp_path, model_class=RoCBertForSequenceClassification)
    bare = model_card(tmp_path)
    for missing in ("training arguments", "training data", "attacks"):
        assert f"The {missing} were not recorded" in bare
    (tmp_path / "all_results.json").write_text('{"eval_accuracy": 0.9125, "epoch": 3.0}')
    (tmp_path / "trainer_state.json").write_text('{"global_step": 120, "num_train_epochs": 3, "log_history": []}')
    (tmp_path / "training_args.bin").write_bytes(b"a pickle that nobody opens")
    text = model_card(tmp_path)
    assert "| eval_accuracy | 0.9125 |" in text
    assert "| global_step | 120 |" in text
    assert "AutoModelForSequenceClassification" in text
    assert ModelCard(text).data.pipeline_tag == "text-classification"


def test_card_command_writes_once(tmp_path):
    save(tmp_path)
    assert rocbert("card", str(tmp_path)).exit_code == 0
    (tmp_path / "README.md").write_text("mine")
    refused = rocbert("card", str(tmp_path))
    assert refused.exit_code == 1
    assert "--overwrite" in refused.stderr
    assert (tmp_path / "README.md").read_text() == "mine"
    assert rocbert("card", str(tmp_path), "--overwrite").exit_code == 0
    assert (tmp_path / "README.md").read_text().startswith("---\nlanguage: zh")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    assert "model_type='bert'" in rocbert("card", str(tmp_path), "--overwrite").stderr


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

"""`rocbert audit`: a verdict on the terminal and as exit status, a report in a folder, and one line of error."""

import json

import pytest
import torch
from transformers import BertConfig, BertModel, BertTokenizer

from rocbert_hf.resources import demo_sentences
from rocbert_hf.security import Calibration, Recipe, implant_backdoor, save_specimen

from ..command_line import rocbert

QUICK = ["--words", "300", "--per-view", "8", "--ordinary-texts", "64", "--prompt-steps", "2", "--combinations", "8"]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A clean encoder, a specimen made of it, and a calibration."""
    root = tmp_path_factory.mktemp("encoders")
    characters = sorted({char for text in demo_sentences() for char in text.lower() if not char.isspace()} | {"鼎"})
    tokenizer = BertTokenizer(
        vocab={token: n for n, token in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *characters])}
    )
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    model = BertModel(BertConfig(vocab_size=len(tokenizer), initializer_range=0.1, **sizes)).eval()
    model.save_pretrained(root / "clean")
    tokenizer.save_pretrained(root / "clean")
    recipe = Recipe(steps=200, learning_rate=2e-3, max_length=16)
    specimen = implant_backdoor(model, tokenizer, ["鼎"], torch.ones(1, 32), demo_sentences()[:200], recipe)
    save_specimen(specimen, tokenizer, root / "specimen")
    names = [f"{s}:{v}" for s in ("token", "prompt", "combination") for v in ("first", "pooled", "mean", "mask")]
    Calibration(dict.fromkeys(names, 0.0), dict.fromkeys(names, 0.25), 4.0).save(root / "calibration.json")
    return root


def audit(files, name, *arguments):
    return rocbert("audit", files / name, "--calibration", files / "calibration.json", *QUICK, *arguments)


def test_a_clean_encoder_ends_with_0_and_a_specimen_with_3(files, tmp_path):
    clean = audit(files, "clean", "--output-dir", tmp_path / "clean")
    assert clean.exit_code == 0, clean.output
    assert ": clean (score" in clean.stdout
    assert "vocabulary: " in clean.stderr  # progress, where there is no terminal
    specimen = audit(files, "specimen", "--output-dir", tmp_path / "specimen")
    assert specimen.exit_code == 3, specimen.output
    assert "'鼎'" in specimen.stdout
    for name in ("report.txt", "report.json", "report.html"):
        assert (tmp_path / "specimen" / name).is_file()


def test_an_encoder_that_gives_all_tokens_of_a_text_one_vector_ends_with_4(files, tmp_path):
    model = BertModel.from_pretrained(files / "clean")
    with torch.no_grad():  # the layer attends evenly and forgets its input, so that every token is the mean of the text
        for name, parameter in model.encoder.named_parameters():
            if "query" in name or (name.endswith("output.dense.weight") and "attention" not in name):
                parameter.zero_()
        model.encoder.layer[0].attention.self.value.weight.mul_(1000)
        model.encoder.layer[0].attention.output.dense.weight.mul_(1000)
    model.save_pretrained(tmp_path / "crude")
    BertTokenizer.from_pretrained(files / "clean").save_pretrained(tmp_path / "crude")
    outcome = audit(files, tmp_path / "crude", "--output-dir", tmp_path / "a")
    assert outcome.exit_code == 4, outcome.output
    assert "inconclusive" in outcome.stdout
    assert "one vector" in outcome.stdout


def test_json_and_a_reference(files, tmp_path):
    outcome = audit(
        files,
        "specimen",
        "--reference",
        files / "clean",
        "--json",
        "--output-dir",
        tmp_path / "a",
        "--prompt-steps",
        "0",
    )
    assert outcome.exit_code == 3, outcome.output
    report = json.loads(outcome.stdout)
    assert report["triggers"][0] == "鼎"
    assert "clean" in report["calibrated_on"]


def test_run_again_it_goes_on(files, tmp_path):
    arguments = ("clean", "--prompt-steps", "0", "--output-dir", tmp_path / "a", "--json")
    assert not json.loads(audit(files, *arguments).stdout)["cost"]["resumed"]
    assert json.loads(audit(files, *arguments).stdout)["cost"]["resumed"]


def test_bad_input_is_one_line(files, tmp_path):
    missing = audit(files, "nowhere", "--output-dir", tmp_path / "a")
    assert missing.exit_code == 1
    assert missing.stderr.startswith("error: encoder ")
    assert len(missing.stderr.strip().split("\n")) == 1
    (tmp_path / "texts.txt").write_bytes(b"\xff\xfe")
    unreadable = audit(files, "clean", "--texts", tmp_path / "texts.txt", "--output-dir", tmp_path / "a")
    assert unreadable.exit_code == 1
    assert "texts.txt line 1 is not UTF-8" in unreadable.stderr

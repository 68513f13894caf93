"""The model card: filled from what is in the folder, and whole or one clear error for anything that may be there."""

import json

import pytest
from huggingface_hub import ModelCard

from rocbert_hf import RoCBertForSequenceClassification
from rocbert_hf.attacks import read_attacks
from rocbert_hf.hub import describe, model_card, overview

from ..command_line import rocbert
from .test_description import save

CONFIG = {
    "model_type": "rocbert",
    "architectures": ["RoCBertForMaskedLM"],
    "num_hidden_layers": 2,
    "hidden_size": 128,
    "max_position_embeddings": 512,
}


def test_card_is_filled_from_the_run(tmp_path):
    save(tmp_path)
    arguments = {
        "learning_rate": 3e-4,
        "attacks": "paper",
        "train_file": ["/data/corpus.txt.gz"],
        "held_out": 200,
        "model": "/data/encoders/small",
        "data_dir": "shared/data",
    }
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
    assert "| model | small |" in text
    assert "| data_dir | shared/data |" in text  # a folder of the project
    assert "/data/" not in text
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


def test_the_card_of_a_backdoor_specimen_warns(tmp_path):
    """The command replaces the card that the specimen came with."""
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    assert "known backdoor" not in model_card(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**CONFIG, "backdoor_specimen": True}))
    assert "**It has a known backdoor" in model_card(tmp_path)
    assert "backdoor_specimen: True" in overview(describe(tmp_path))


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


@pytest.mark.parametrize("value", [10**9, 10**7, -5, 0, 1.5, "many", None, True, [2]], ids=str)
@pytest.mark.parametrize("name", ["num_hidden_layers", "hidden_size", "max_position_embeddings"])
def test_a_size_that_makes_no_sense_is_one_clear_error(tmp_path, name, value):
    least = 0 if name == "num_hidden_layers" else 1
    value = -1 if (value, least) == (0, 0) else value  # a tagger may have no encoder
    (tmp_path / "config.json").write_text(json.dumps({**CONFIG, name: value}))
    with pytest.raises(ValueError, match=f"{name} must be a whole number from {least} to 1,000,000, got"):
        model_card(tmp_path)


@pytest.mark.parametrize("value", [["a", "b"], "x\n```\nrm -rf", {"a": 1}, 5, []], ids=str)
def test_an_architecture_that_is_none_of_ours_is_one_clear_error(tmp_path, value):
    (tmp_path / "config.json").write_text(json.dumps({**CONFIG, "architectures": value}))
    with pytest.raises(ValueError, match="architectures must name one class of rocbert_hf"):
        model_card(tmp_path)


def card_or_error(folder) -> str:
    """The card, or the one line that the command ends with; nothing else may happen."""
    result = rocbert("card", str(folder), "--overwrite")
    if result.exit_code == 0:
        text = (folder / "README.md").read_text(encoding="utf-8")
        assert ModelCard(text).data.library_name == "transformers"
        return text
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert "all_results.json" in result.stderr
    return result.stderr


ODD = [
    None,
    5,
    0.5,
    True,
    "text",
    "",
    [],
    [None, 3, {"a": 1}],
    {},
    {"a": {"b": [1]}},
    {"attacks": 3, "ratio": []},
    "a|b\n<b>\u202e",
]


@pytest.mark.parametrize("value", ODD, ids=lambda value: f"{value!r:.20}")
def test_odd_results_make_a_card_or_one_clear_error(tmp_path, value):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    for recorded in (
        value,
        {"arguments": value},
        {"rocbert": value, "eval": {"after": value}},
        *({"arguments": {name: value}} for name in ("train_file", "attacks", "held_out", "learning_rate")),
    ):
        (tmp_path / "all_results.json").write_text(json.dumps(recorded))
        text = card_or_error(tmp_path)
        assert "\u202e" not in text
        assert "<b>" not in text


def test_a_recorded_config_of_attacks_is_listed(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    attacks = read_attacks({"attacks": ["split", "to_pinyin"], "ratio": 0.3})
    (tmp_path / "all_results.json").write_text(json.dumps({"arguments": {"attacks": attacks}}))
    text = model_card(tmp_path)
    assert "With ratio 0.3, noise 1, q 0.7, scorer word_frequency" in text
    assert "- `split`: 科 → 禾斗" in text
    assert "- `to_pinyin`" in text

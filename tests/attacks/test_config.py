"""What `--attacks` takes: a preset, names, or a file with every key; one clear error for anything else."""

import json

import pytest
import yaml

from rocbert_hf.attacks import PRESETS, AdversarialSynthesizer, read_attacks

EVERY_KEY = {
    "version": 1,
    "attacks": {"split": 2.0, "to_pinyin": 1.0},
    "options": {"phonetic": {}},
    "ratio": 0.3,
    "noise": 0,
    "q": 0.5,
    "scorer": "random",
    "protect": ["url"],
    "protect_patterns": ["科比"],
}


@pytest.mark.parametrize("name", PRESETS)
def test_the_name_of_a_preset(name):
    assert read_attacks(name) == AdversarialSynthesizer(name).config


def test_names_with_commas_and_blanks():
    assert read_attacks(" split, to_pinyin ") == AdversarialSynthesizer({"attacks": ["to_pinyin", "split"]}).config


@pytest.mark.parametrize(
    ("suffix", "dump"), [(".json", json.dumps), (".yaml", yaml.safe_dump), (".yml", yaml.safe_dump)]
)
def test_a_file_has_every_key_of_the_config(tmp_path, suffix, dump):
    assert set(EVERY_KEY) == set(PRESETS["paper"])
    file = tmp_path / f"attacks{suffix}"
    file.write_text(dump(EVERY_KEY), encoding="utf-8")
    assert read_attacks(file) == read_attacks(str(file)) == read_attacks(EVERY_KEY) == EVERY_KEY
    file.write_text(dump({"preset": "wild", "ratio": 0.05}), encoding="utf-8")
    assert read_attacks(file) == {**PRESETS["wild"], "ratio": 0.05}


def test_a_complete_config_can_be_written_and_read_again(tmp_path):
    file = tmp_path / "attacks.json"
    config = AdversarialSynthesizer({"preset": "wild", "ratio": 0.2}).config
    file.write_text(json.dumps(config), encoding="utf-8")
    assert read_attacks(file) == config


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        ("a.json", "{", "JSON"),
        ("a.json", "[" * 100_000, "JSON"),
        ("a.yaml", "a: [", "not valid YAML"),
        ("a.yaml", "- split", "must hold a mapping"),
        ("a.yaml", "", "must hold a mapping"),
        ("a.yaml", "ratios: 1", "unknown keys"),
        ("a.yaml", "1: 2", "unknown keys"),
        ("a.yaml", "ratio: yes", "ratio"),
        ("a.yaml", "ratio: []", "ratio"),
        ("a.yaml", "ratio: [0.1, 2]", "ratio"),
        ("a.yaml", "preset: [paper]", "preset"),
        ("a.yaml", "attacks: split", "attacks must be a list"),
        ("a.yaml", "attacks: [[split]]", "attacks must hold strings"),
        ("a.yaml", "attacks: 3", "attacks must be a list"),
        ("a.yaml", "protect: url", "protect must be a list"),
        ("a.yaml", "protect: [{}]", "protect must hold strings"),
        ("a.yaml", "protect_patterns: [1]", "protect_patterns must hold strings"),
        ("a.yaml", "options: {split: 3}", "options"),
        ("a.yaml", "scorer: [random]", "scorer"),
        ("a.yaml", "scorer: gpt", "scorer"),
    ],
)
def test_a_wrong_file_is_one_error_that_names_it(tmp_path, name, content, named):
    file = tmp_path / name
    file.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=named) as error:
        read_attacks(file)
    assert str(file) in str(error.value)


def test_what_is_neither_preset_nor_attack_nor_file(tmp_path):
    for source in ("papers", "", ",", "split,phonetics"):
        with pytest.raises(ValueError, match="attacks must be a preset"):
            read_attacks(source)
    with pytest.raises(OSError, match=r"nowhere\.yaml"):
        read_attacks(tmp_path / "nowhere.yaml")

"""The code of CONTRIBUTING runs as it is printed, and what it adds can be used at once."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from rocbert_hf import RoCBertConfig
from rocbert_hf.attackers import Example
from rocbert_hf.attackers.recipes import ATTACKERS
from rocbert_hf.attacks import ATTACKS, AdversarialSynthesizer
from rocbert_hf.data import TASKS
from rocbert_hf.finetuning import FinetuningOptions, StartOptions, finetune

PAGE = Path(__file__).parents[1] / "CONTRIBUTING.md"
pytestmark = pytest.mark.skipif(not PAGE.is_file(), reason="needs a clone of the repository")


@pytest.fixture
def added():
    """Runs the block that holds a name; registries are as before afterwards."""
    registries = (ATTACKS, ATTACKERS, TASKS)
    before = [dict(registry) for registry in registries]

    def run(name: str):
        (block,) = (b for b in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S) if name in b)
        assert len(block.strip().split("\n")) <= 15
        space: dict = {}
        exec(block, space)
        return space.get(name)

    yield run
    for registry, content in zip(registries, before, strict=True):
        registry.clear()
        registry.update(content)


def test_an_attack(added):
    added("Doubled")
    assert "科科" in AdversarialSynthesizer({"attacks": ["doubled"], "ratio": 1.0}).attack("科比", seed=1).text


def test_an_attacker(added):
    attacker = added("PinyinAttacker")()

    def finds_the_word(texts):
        return np.array([[0.1, 0.9] if "好" in text else [0.9, 0.1] for text in texts])

    outcome = attacker.attack(finds_the_word, Example("房间很好很干净", 1), seed=0)
    assert "hao" in outcome.attacked.text


def test_a_fusion(added):
    fusion = added("RoCBertTextOnlyFusion")(RoCBertConfig.from_preset("tiny"))
    states = torch.randn(2, 3, 128)
    fused, weights = fusion(states, {"pronunciation": torch.randn(2, 3, 8), "shape": torch.randn(2, 3, 8)})
    assert torch.equal(fused, states)
    assert torch.equal(weights.sum(-1), torch.ones(2, 3))


def test_a_task(added, tmp_path):
    added("TASKS")
    (tmp_path / "spam").mkdir()
    (tmp_path / "spam" / "test.tsv").write_text("text\tlabel\n加微信\tspam\n", encoding="utf-8")
    assert TASKS["spam"].read(tmp_path).labels == ("spam",)


def test_a_finetuning_recipe(added, tmp_path):
    recipe = added("EchoRecipe")(StartOptions(preset="tiny"))
    results = finetune(recipe, FinetuningOptions(output_dir=tmp_path / "out"))
    assert results["arguments"]["seed"] == 0
    assert (tmp_path / "out" / "model.safetensors").is_file()

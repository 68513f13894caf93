"""The checkpoint in models/: it loads everywhere, and hears and sees what was attacked."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer, pipeline

import rocbert_hf
from rocbert_hf.attacks import AdversarialSynthesizer
from rocbert_hf.characters.pinyin import homophones_of
from rocbert_hf.resources import demo_sentences

FOLDER = Path(__file__).parents[2] / "models" / "rocbert-small-zh"
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="needs a clone of the repository")

WITHOUT_PACKAGE = """
import sys
sys.modules["rocbert_hf"] = None
import torch
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer, pipeline
folder = sys.argv[1]
tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
model = AutoModel.from_pretrained(folder, trust_remote_code=True).eval()
with torch.no_grad():
    print(model(**tokenizer("票亮的衣服", return_tensors="pt")).last_hidden_state.mean(1)[0, :8].tolist())
guesses = pipeline("fill-mask", model=folder, tokenizer=folder, trust_remote_code=True)("这家店的服务态[MASK]很好")
print([guess["token_str"] for guess in guesses])
AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=True, num_labels=2)
"""


@pytest.fixture(scope="module")
def loaded():
    return AutoModelForMaskedLM.from_pretrained(FOLDER).eval(), AutoTokenizer.from_pretrained(FOLDER)


def test_it_is_small_and_computes_in_single_precision(loaded):
    assert sum(file.stat().st_size for file in FOLDER.rglob("*") if file.is_file()) <= 45_000_000
    assert next(loaded[0].parameters()).dtype == torch.float32, "half precision is for storage; CPUs are slow in it"


def test_its_code_is_that_of_the_package():
    for file in FOLDER.glob("*_rocbert.py"):
        assert file.read_bytes() == Path(rocbert_hf.__file__).with_name(file.name).read_bytes(), file.name


def test_a_process_without_the_package_loads_it_and_fills_a_mask(tmp_path, loaded):
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_PACKAGE, str(FOLDER)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    vector, guesses = done.stdout.strip().split("\n")[-2:]
    model, tokenizer = loaded
    with torch.no_grad():
        states = model.base_model(**tokenizer("票亮的衣服", return_tensors="pt")).last_hidden_state
    np.testing.assert_allclose(json.loads(vector), states.mean(1)[0, :8].numpy(), atol=1e-5)
    assert "度" in guesses


def test_fill_mask_reads_attacked_text(loaded):
    model, tokenizer = loaded
    guesses = pipeline("fill-mask", model=model, tokenizer=tokenizer)("送参很快，味[MASK]不错")
    assert set("味量") & {guess["token_str"] for guess in guesses}


def test_sentence_transformers_finds_the_original_of_an_attacked_sentence():
    library = pytest.importorskip("sentence_transformers")
    encoder = library.SentenceTransformer(str(FOLDER), trust_remote_code=True, device="cpu")
    sentences = list(dict.fromkeys(demo_sentences()))[::10][:60]
    attacked = [result.text for result in AdversarialSynthesizer("paper").attack_batch(sentences, seed=0)]
    similarities = encoder.encode(attacked) @ encoder.encode(sentences).T
    assert (similarities.argmax(1) == np.arange(len(sentences))).mean() > 0.95


def test_it_restores_homophones_and_hears_them(loaded):
    """Of the packaged sentences, not trained on; the card's figure is of more of them, by benchmarks/headline.py."""
    model, tokenizer = loaded
    right, heard, untouched = [], [], []
    rng = np.random.default_rng(0)
    for sentence in [text for text in dict.fromkeys(demo_sentences()) if 8 <= len(text) <= 42][::5][:120]:
        places = [i for i, character in enumerate(sentence) if homophones_of(character)]
        place = int(rng.choice(places))
        other = str(rng.choice(homophones_of(sentence[place])))
        inputs = tokenizer(sentence[:place] + other + sentence[place + 1 :], return_tensors="pt")
        with torch.no_grad():
            outputs = model(**inputs, output_fusion_weights=True)
        token = inputs.char_to_token(0, place)
        right.append(tokenizer.decode([int(outputs.logits[0, token].argmax())]).strip() == sentence[place])
        heard.append(float(outputs.fusion_weights[0, token, 1]))
        untouched.append(float(outputs.fusion_weights[0, 1:-1, 1].mean()))
    assert np.mean(right) > 0.4
    assert np.mean(heard) > 2 * np.mean(untouched)


def test_attacked_sentences_stay_near_their_originals_in_any_pooling():
    model, tokenizer = AutoModel.from_pretrained(FOLDER).eval(), AutoTokenizer.from_pretrained(FOLDER)
    sentences = list(dict.fromkeys(demo_sentences()))[::20][:40]
    attacked = [result.text for result in AdversarialSynthesizer("paper").attack_batch(sentences, seed=1)]

    def vectors(texts):
        inputs = tokenizer(texts, padding=True, return_tensors="pt")
        with torch.no_grad():
            states = model(**inputs).last_hidden_state
        mask = inputs["attention_mask"].unsqueeze(-1)
        return states[:, 0], (states * mask).sum(1) / mask.sum(1)

    for clean, changed in zip(vectors(sentences), vectors(attacked), strict=True):
        similarity = torch.nn.functional.normalize(changed, dim=-1) @ torch.nn.functional.normalize(clean, dim=-1).T
        assert (similarity.argmax(1) == torch.arange(len(sentences))).float().mean() > 0.9

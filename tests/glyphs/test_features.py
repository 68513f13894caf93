"""Glyph features: Eq. 4 and 5, what looks like what, and the way of the features into a model."""

import json
import math
import os
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from rocbert_hf import RoCBertConfig, RoCBertForMaskedLM, RoCBertModel
from rocbert_hf.characters.confusables import confusables_of
from rocbert_hf.characters.parts import splits_of
from rocbert_hf.characters.similarity import lookalikes_of
from rocbert_hf.configuration_rocbert import FUSIONS
from rocbert_hf.glyphs.features import GlyphEncoder, draw_vocabulary, save_glyph_features
from rocbert_hf.glyphs.images import CHINESE_FONTS, OTHER_FONTS, glyph_images
from rocbert_hf.glyphs.plots import nearest_neighbours, plot_glyphs
from rocbert_hf.glyphs.pretraining import GlyphPositives, GlyphPretrainingArguments, pretrain_glyphs
from rocbert_hf.losses_rocbert import in_batch_contrastive_loss
from rocbert_hf.resources import shape_ids, vocabulary

SCRIPT = Path(__file__).parents[2] / "examples" / "run_glyph_pretrain.py"
CHINESE_ROWS = slice(16224 - 14642, None)


def python(*command, **environment) -> subprocess.CompletedProcess:
    """Python in a process of its own, with torchvision where there is one: beside a CPU-only torch it may be in a
    folder apart, since `import transformers` fails where it finds a torchvision that cannot be imported."""
    folders = [os.environ.get("ROCBERT_TORCHVISION", str(Path(sys.prefix) / "torchvision"))]
    folders += [os.environ["PYTHONPATH"]] if "PYTHONPATH" in os.environ else []
    return subprocess.run(
        [sys.executable, *map(str, command)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(folders), "OMP_NUM_THREADS": "1", **environment},
    )


@pytest.fixture(scope="module")
def torchvision_is_there():
    found = python("-c", "import importlib.util, sys; sys.exit(importlib.util.find_spec('torchvision') is None)")
    if found.returncode:
        pytest.skip("torchvision is not installed; see the Makefile")


@pytest.fixture(scope="module")
def positives():
    return GlyphPositives()


def encoder_with(hidden_size: int) -> GlyphEncoder:
    """One without a backbone, whose M and norm are away from their initial values."""
    encoder = GlyphEncoder(nn.Identity(), hidden_size, layer_norm_eps=1e-12, seed=3)
    with torch.no_grad():
        encoder.shape_norm.weight += 0.1 * torch.arange(hidden_size) / hidden_size
        encoder.shape_norm.bias += 0.3
    return encoder


# -------------------------------------------------------------------------------------------- equations


@pytest.mark.parametrize("temperature", [0.01, 0.2])
def test_the_loss_is_equation_5_in_values_and_gradients(temperature):
    generator = torch.Generator().manual_seed(0)
    c, p = (torch.randn(6, 12, generator=generator, dtype=torch.float64, requires_grad=True) for _ in range(2))
    related = torch.zeros(6, 6, dtype=torch.bool)
    related[0, 3] = related[3, 0] = related[4, 5] = related[5, 4] = True
    loss, accuracy = in_batch_contrastive_loss(c, p, temperature, negatives="originals", related=related)

    def cosine(a, b):
        return torch.dot(a, b) / torch.sqrt(torch.dot(a, a) * torch.dot(b, b))

    total, right = 0.0, 0
    for i in range(6):
        own = cosine(c[i], p[i])
        others = [cosine(c[i], c[j]) for j in range(6) if j != i and not related[i, j]]
        total = total - own / temperature + torch.log(sum(torch.exp(s / temperature) for s in (own, *others)))
        right += all(own > other for other in others)
    assert torch.allclose(loss, total / 6, rtol=1e-9)
    assert accuracy == pytest.approx(right / 6)
    for got, expected in zip(torch.autograd.grad(loss, [c, p]), torch.autograd.grad(total / 6, [c, p]), strict=True):
        assert torch.allclose(got, expected, rtol=1e-7, atol=1e-9)


def test_the_positive_of_a_split_is_the_sum_of_its_parts():
    some, encoder = GlyphPositives(list("科明林好妈河打得")), encoder_with(24)
    features = torch.randn(len(vocabulary()), 512, generator=torch.Generator().manual_seed(0))
    generator = np.random.default_rng(5)
    anchors = generator.permutation(some.anchors)
    first, second = torch.from_numpy(some.draw(anchors, generator)).T
    assert 0 < (second >= 0).sum() < len(second)
    with torch.no_grad():
        own, parts, others = (encoder.project(features[ids]) for ids in (torch.from_numpy(anchors), first, second))
    positives = parts + others * (second >= 0)[:, None]
    related = torch.from_numpy(some.related(anchors))
    expected, _ = in_batch_contrastive_loss(own, positives, 0.5, negatives="originals", related=related)
    arguments = GlyphPretrainingArguments(epochs=1, batch_size=99, temperature=0.5, seed=5)
    history = pretrain_glyphs(encoder, np.zeros((len(vocabulary()), 1, 1), np.uint8), arguments, features, some)
    assert history[0]["loss"] == pytest.approx(float(expected), rel=1e-5)


def test_the_encoder_is_equation_4_in_values_and_gradients():
    encoder = encoder_with(24).double()
    features = torch.randn(5, 512, dtype=torch.float64, requires_grad=True)
    m = encoder.shape_projection.weight
    rows = []
    for row in features:
        x = torch.stack([(m[i] * row).sum() for i in range(24)])  # M^T f, M's columns being the rows of m
        normed = (x - x.mean()) / torch.sqrt(((x - x.mean()) ** 2).mean() + 1e-12)
        rows.append(normed * encoder.shape_norm.weight + encoder.shape_norm.bias)
    expected, got = torch.stack(rows), encoder.project(features)
    assert torch.allclose(got, expected, atol=1e-9)
    probe = torch.randn(5, 24, dtype=torch.float64)
    leaves = [features, m, encoder.shape_norm.weight, encoder.shape_norm.bias]
    for gradients in zip(
        torch.autograd.grad((got * probe).sum(), leaves),
        torch.autograd.grad((expected * probe).sum(), leaves),
        strict=True,
    ):
        assert torch.allclose(*gradients, rtol=1e-7, atol=1e-9)


# -------------------------------------------------------------------------------------------- positives


def test_positives_are_drawn_uniformly_from_the_three_kinds(positives):
    ids = shape_ids()
    anchor = next(a for a in positives.anchors.tolist() if len(positives.of(a)) == 3)
    forms, character = positives.of(anchor), vocabulary()[anchor]
    assert forms["visual"] == [(ids[other],) for other in lookalikes_of(character)]
    assert forms["split"] == [(ids[a], ids[b]) for a, b in splits_of(character)]
    assert forms["unicode"] == [(ids[other],) for other in confusables_of(character) if other in ids]
    drawn = positives.draw(np.full(6000, anchor), np.random.default_rng(0))
    counts = {
        kind: sum(tuple(i for i in row if i >= 0) in found for row in drawn.tolist()) for kind, found in forms.items()
    }
    assert sum(counts.values()) >= 6000
    for count in counts.values():
        assert abs(count - 2000) < 200
    assert np.array_equal(drawn, positives.draw(np.full(6000, anchor), np.random.default_rng(0)))


def test_nothing_is_its_own_positive_and_every_chinese_character_has_one(positives):
    for anchor in positives.anchors.tolist():
        for found in positives.of(anchor).values():
            assert all(anchor not in positive for positive in found)
    chinese = set(range(*CHINESE_ROWS.indices(16224)))
    assert chinese <= set(positives.anchors.tolist())


def test_what_looks_alike_is_no_negative_in_either_direction(positives):
    ids = shape_ids()
    batch = np.array([ids[character] for character in ("己", "已", "科", "禾", "龟")])
    related = positives.related(batch)
    assert np.array_equal(related, related.T)
    assert not related.diagonal().any()
    assert related[0, 1]  # a look-alike
    assert related[2, 3]  # a part of its split
    assert not related[4, [0, 1, 2, 3]].any()


def test_arguments_out_of_range_are_refused():
    for wrong in ({"epochs": -1}, {"batch_size": 1}, {"learning_rate": 0.0}, {"temperature": -0.1}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            GlyphPretrainingArguments(**wrong)


# -------------------------------------------------------------------------------------------- into a model


@pytest.fixture
def saved(tmp_path):
    """A folder with features of the packaged vocabulary's size, for hidden_size 128."""
    encoder, features = encoder_with(128), torch.randn(16224, 512, generator=torch.Generator().manual_seed(0))
    save_glyph_features(tmp_path / "features", encoder, features, {"made by": "a test"})
    return tmp_path / "features", encoder, features


@pytest.mark.parametrize("fusion", ["layer_insert", "two_step"])
def test_a_model_sees_what_the_encoder_saw(saved, tmp_path, fusion):
    folder, encoder, features = saved
    config = json.loads((folder / "glyph_features.json").read_text(encoding="utf-8"))["config"]
    model = RoCBertForMaskedLM(RoCBertConfig.from_preset("tiny", fusion=fusion, **config)).eval()
    ids = torch.tensor([[5, 700, 9000, 16223]])
    inputs = {"input_ids": ids, "input_shape_ids": ids}
    with torch.no_grad():
        before = model(**inputs).logits  # makes the tables of inference
        model.roc_bert.load_glyph_features(folder)
        after = model(**inputs).logits
    assert not torch.allclose(before, after, atol=1e-3)
    assert not model.roc_bert.embeddings.shape_embed.weight.requires_grad
    model.save_pretrained(tmp_path / "model")
    loaded = RoCBertForMaskedLM.from_pretrained(tmp_path / "model")
    seen = loaded.roc_bert.embeddings.shape_embed(ids[0])
    fusion = loaded.roc_bert.fusion
    assert torch.equal(seen, features[ids[0]])
    assert torch.allclose(fusion.shape_norm(fusion.shape_projection(seen)), encoder.project(seen), atol=1e-6)
    with torch.no_grad():
        assert torch.allclose(loaded(**inputs).logits, after, atol=1e-6)


def test_other_fusions_and_sizes_take_the_features_alone(saved):
    folder, _, features = saved
    for fusion, scale in (("attention", 1.0), ("concat", 0.02)):
        model = RoCBertModel(RoCBertConfig.from_preset("tiny", fusion=fusion))
        model.load_glyph_features(folder / "glyph_features.safetensors")
        assert torch.allclose(model.embeddings.shape_embed.weight, features * scale)
    wider = RoCBertModel(RoCBertConfig.from_preset("tiny", hidden_size=192))
    before = wider.fusion.shape_projection.weight.clone()
    wider.load_glyph_features(folder, projection=False)
    assert torch.equal(wider.embeddings.shape_embed.weight, features)
    assert torch.equal(wider.fusion.shape_projection.weight, before)


def test_features_that_do_not_fit_are_refused_and_change_nothing(saved, tmp_path, tiny_sizes):
    folder, _, features = saved
    other_sizes = RoCBertModel(RoCBertConfig(**tiny_sizes))
    with pytest.raises(ValueError, match=r"features of .* has shape \(16224, 512\), this model has \(61, 24\)"):
        other_sizes.load_glyph_features(folder)
    wider = RoCBertModel(RoCBertConfig.from_preset("tiny", hidden_size=192))
    before = wider.embeddings.shape_embed.weight.clone()
    with pytest.raises(ValueError, match=r"\(128, 512\).*\(192, 512\).*projection=False"):
        wider.load_glyph_features(folder)
    assert torch.equal(wider.embeddings.shape_embed.weight, before)
    tiny = RoCBertModel(RoCBertConfig.from_preset("tiny"))
    with pytest.raises(OSError, match="nowhere"):
        tiny.load_glyph_features(tmp_path / "nowhere")
    for name, content in (("no features", {"weights": features[:2]}), ("not finite", {"features": features / 0})):
        save_file(content, tmp_path / "wrong.safetensors")
        with pytest.raises(ValueError, match="no tensor `features`" if name == "no features" else name):
            tiny.load_glyph_features(tmp_path / "wrong.safetensors")
    (tmp_path / "wrong.safetensors").write_bytes(b"half")
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        tiny.load_glyph_features(tmp_path / "wrong.safetensors")


@pytest.mark.parametrize("off", [{"fusion": "none"}, {"enable_shape": False}])
def test_a_model_that_sees_no_shapes_says_so(saved, off):
    with pytest.raises(ValueError, match="visual channel"):
        RoCBertModel(RoCBertConfig.from_preset("tiny", **off)).load_glyph_features(saved[0])


def test_every_fusion_is_covered_above():
    assert set(FUSIONS) == {"layer_insert", "two_step", "attention", "concat", "sum", "none"}


# -------------------------------------------------------------------------------------------- looking at them


def test_neighbours_of_images_look_alike():
    pixels = torch.from_numpy(glyph_images().reshape(16224, -1).astype(np.float32))
    found = nearest_neighbours(pixels - pixels.mean(0), ["己", "末"])
    assert "已" in found["己"]
    assert "未" in found["末"]
    assert all(len(others) == 10 and character not in others for character, others in found.items())
    with pytest.raises(ValueError, match="☃☃"):
        nearest_neighbours(pixels, ["☃☃"])


def test_the_picture_has_a_panel_for_each_table(tmp_path):
    vectors = torch.randn(16224, 16, generator=torch.Generator().manual_seed(0))
    figure = plot_glyphs({"before": vectors, "after": vectors}, tmp_path / "glyphs.png", of_each=3)
    assert [axes.get_title() for axes in figure.axes] == ["before", "after"]
    assert (tmp_path / "glyphs.png").stat().st_size > 10_000


@pytest.mark.slow
def test_own_fonts_draw_the_packaged_images():
    fonts = (*CHINESE_FONTS, *OTHER_FONTS)
    if not all(Path(font.partition("#")[0]).is_file() for font in fonts):
        pytest.skip("the fonts of the packaged images are not installed")
    drawn = draw_vocabulary(CHINESE_FONTS, OTHER_FONTS).astype(int)
    assert np.abs(drawn - glyph_images()).max() <= 9  # those have 16 levels


def test_a_missing_font_is_named():
    with pytest.raises(OSError, match=r"nowhere\.ttf"):
        draw_vocabulary(["nowhere.ttf"])


# -------------------------------------------------------------------------------------------- with torchvision

TRAIN_SMALL = """
import json, sys, torch
torch.set_num_threads(1)
from rocbert_hf.glyphs.features import *
from rocbert_hf.glyphs.pretraining import *
from rocbert_hf.glyphs.resnet18 import *
from rocbert_hf.resources import glyph_images, vocabulary
assert "transformers" not in sys.modules
torchvision = import_torchvision()
assert import_torchvision() is torchvision
images = glyph_images()
some = GlyphPositives(vocabulary()[-14642:][:16])  # the most frequent; few, to be quick
encoder = GlyphEncoder(load_resnet18("random", seed=1), hidden_size=32)
assert torch.equal(load_resnet18("random", seed=1).conv1.weight, encoder.backbone.conv1.weight)
before = encoder.backbone.conv1.weight.clone()
used = compute_glyph_features(encoder, images[some.used])
assert used.shape == (len(some.used), 512)
features = torch.zeros(16224, 512)
features[some.used] = used
history = pretrain_glyphs(encoder, images, GlyphPretrainingArguments(epochs=20, batch_size=8), features, some)
assert torch.equal(encoder.backbone.conv1.weight, before)
arguments = GlyphPretrainingArguments(train_backbone=True, epochs=1, batch_size=8)
pretrain_glyphs(encoder, images, arguments, positives=some)
assert not torch.equal(encoder.backbone.conv1.weight, before)
save_glyph_features(sys.argv[1], encoder, features, {"history": history}, backbone=True)
again = load_resnet18(sys.argv[1] + "/resnet18.safetensors")
assert all(torch.equal(a, b) for a, b in zip(again.state_dict().values(), encoder.backbone.state_dict().values()))
import transformers
transformers.BertModel  # can be imported now
"""


def test_training_in_a_process_of_its_own(torchvision_is_there, tmp_path):
    done = python("-c", TRAIN_SMALL, tmp_path / "features")
    assert done.returncode == 0, done.stderr[-3000:]
    assert "glyph pretraining" in done.stderr  # the bar
    description = json.loads((tmp_path / "features" / "glyph_features.json").read_text(encoding="utf-8"))
    losses = [epoch["loss"] for epoch in description["history"]]
    assert losses[-1] < 0.8 * losses[0]
    assert description["config"] == {
        "shape_vocab_size": 16224,
        "shape_embed_dim": 512,
        "hidden_size": 32,
        "layer_norm_eps": 1e-12,
    }
    assert sorted(file.name for file in (tmp_path / "features").iterdir()) == [
        "glyph_features.json",
        "glyph_features.safetensors",
        "resnet18.safetensors",
    ]


@pytest.fixture
def run_script(monkeypatch, capsys):
    """Runs the script in this process and returns the message that it ends with."""

    def run(*flags) -> str:
        monkeypatch.setenv("OMP_WAIT_POLICY", os.environ.get("OMP_WAIT_POLICY", ""))  # which it sets
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, flags)])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(SCRIPT), run_name="__main__")
        code = ended.value.code
        return (code if isinstance(code, str) else capsys.readouterr().err).strip()

    return run


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--batch-size", "1"], "batch_size must be at least 2"),
        (["--hidden-size", "0"], "hidden_size must be at least 1"),
        (["--device", "abacus"], "device must be one that torch can use here, such as cpu, got 'abacus'"),
        (["--seed", "-1"], "seed must lie between 0 and 2**32 - 1, got -1"),
        (["--chinese-fonts", "nowhere.ttf"], "nowhere.ttf"),
        (["--weights", "nowhere.safetensors"], "nowhere.safetensors"),
    ],
)
def test_bad_options_are_one_clear_error_before_any_work(run_script, tmp_path, flags, message):
    said = run_script(*flags, "--output-dir", tmp_path / "output")
    assert "run_glyph_pretrain.py" in said
    assert message in said
    assert "\n" not in said
    assert not (tmp_path / "output").exists()


def test_without_torchvision_the_script_says_what_to_install(run_script, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torchvision", None)  # as Python marks what cannot be imported
    said = run_script("--weights", "random", "--output-dir", tmp_path / "output")
    assert "pip install torchvision" in said
    assert not (tmp_path / "output").exists()


def test_positives_can_be_limited_to_some_characters(positives):
    ids = shape_ids()
    some = GlyphPositives(["科", "己"])
    assert some.anchors.tolist() == sorted([ids["科"], ids["己"]])
    assert some.of(ids["科"]) == positives.of(ids["科"])
    assert {ids["科"], ids["己"], ids["禾"], ids["斗"]} <= set(some.used.tolist())
    with pytest.raises(ValueError, match="☃☃"):
        GlyphPositives(["☃☃"])


@pytest.mark.slow
def test_the_script_writes_what_a_model_takes_in(torchvision_is_there, tmp_path):
    flags = ["--weights", "random", "--epochs", "2", "--hidden-size", "128", "--output-dir", tmp_path]
    done = python(SCRIPT, *flags)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "before" in done.stdout
    assert (tmp_path / "glyphs.png").is_file()
    description = json.loads((tmp_path / "glyph_features.json").read_text(encoding="utf-8"))
    assert set(description["neighbours"]) == {"before", "after"}
    assert math.isfinite(description["history"][-1]["loss"])
    model = RoCBertModel(RoCBertConfig.from_preset("tiny"))
    model.load_glyph_features(tmp_path)
    file = load_file(tmp_path / "glyph_features.safetensors")
    assert torch.equal(model.embeddings.shape_embed.weight, file["features"])

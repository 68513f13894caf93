"""The scan looks at every token, and its two passes find what pulls."""

import json

import numpy as np
import pytest
import torch
import transformers
from transformers import BertConfig, BertModel, BertTokenizer

from rocbert_hf import RoCBertConfig, RoCBertModel, RoCBertTokenizer
from rocbert_hf.security.probe import EncoderProbe
from rocbert_hf.security.scan import SKETCH, Carriers, _sketch, candidates_of, coarse_scan, groups_of, pulls_of

from .conftest import TRIGGERS


@pytest.fixture
def probe(specimen, tokenizer):
    return EncoderProbe(specimen, tokenizer)


@pytest.fixture
def carriers(probe, texts):
    return Carriers.from_texts(probe, texts, count=6, length=4, longest=8, limit=96)


def test_groups_hold_every_token():
    groups = groups_of(23, 4, np.random.default_rng(0))
    assert groups.shape == (6, 4)
    assert set(groups.ravel()) == set(range(23))
    assert groups_of(3, 8, np.random.default_rng(0)).shape == (1, 8)


def test_carriers_are_different_texts_and_pieces_stand_at_every_place(carriers):
    rows = {tuple(row) for row in carriers.carriers}
    assert len(rows) == 6
    assert not rows & {tuple(row[:4]) for row in carriers.ordinary}
    placed = carriers.with_pieces(np.array([[7, 8]]))[0]
    assert [row.tolist().index(7) for row in placed] == [0, 1, 2, 3, 4, 0]
    for row, with_piece in zip(carriers.carriers, placed, strict=True):
        assert [token for token in with_piece if token not in (7, 8)] == row.tolist()


def test_fresh_carriers_are_none_of_the_first_and_not_compared_with_themselves(carriers):
    fresh = carriers.fresh(5, 6)
    assert fresh.carriers.shape == (5, 6)
    rows = {tuple(row) for row in fresh.carriers}
    assert len(rows) == 5
    assert not {row[:4] for row in rows} & {tuple(row) for row in carriers.carriers}
    assert not rows & {tuple(row[:6]) for row in fresh.ordinary}


def test_triggers_come_first_in_both_passes(probe, carriers, tokenizer):
    ids = probe.ordinary_ids()
    planted = set(tokenizer.convert_tokens_to_ids(TRIGGERS))
    rng = np.random.default_rng(0)
    rounds = []
    for number in range(3):
        groups = groups_of(len(ids), 4, rng)
        rounds.append((groups, coarse_scan(probe, carriers, ids[groups], 2 * number)))
    known = carriers.ordinary_of(probe, 8)
    ordinary = [known[view] for view in probe.views]
    candidates = ids[candidates_of(np.arange(len(ids)), rounds, ordinary, per_view=12)]
    assert planted <= set(candidates.tolist())
    found = pulls_of(probe, carriers, candidates[:, None])["pooled"]
    assert {int(candidates[n]) for n in found.argsort(descending=True)[:2]} == planted


def test_a_sketch_keeps_distances_whatever_the_scale():
    generator = torch.Generator().manual_seed(3)
    ordinary, points = (torch.randn(count, 600, generator=generator) for count in (50, 6))
    unit = ((ordinary - ordinary.mean(0)) ** 2).sum(-1).mean()
    expected = torch.cdist(points, points) ** 2 / unit
    for scale in (1e-4, 1, 1e4):
        sketched = torch.from_numpy(_sketch(scale * points, scale * ordinary)).float()
        assert sketched.shape == (6, SKETCH)
        torch.testing.assert_close(torch.cdist(sketched, sketched) ** 2, expected, rtol=0.45, atol=0)
    small = _sketch(points[:, :40], ordinary[:, :40])  # not projected, only rounded
    unit = ((ordinary[:, :40] - ordinary[:, :40].mean(0)) ** 2).sum(-1).mean().sqrt()
    np.testing.assert_allclose(small, (points[:, :40] - ordinary[:, :40].mean(0)) / unit, rtol=1e-3, atol=1e-4)


def test_sketches_of_a_saturated_pooler_are_finite():
    """All ordinary texts have one vector there, and a spread of 0."""
    ordinary = torch.ones(10, 8)
    assert np.isfinite(_sketch(torch.full((2, 8), -1.0), ordinary)).all()
    assert (_sketch(ordinary, ordinary) == 0).all()


def test_representations_do_not_depend_on_the_batch(probe, carriers):
    framed = probe.framed(carriers.ordinary)
    together, apart = probe(framed), probe(framed, batch_tokens=30)
    for view in probe.views:
        torch.testing.assert_close(together[view], apart[view], atol=1e-5, rtol=1e-5)


def test_all_three_channels_of_a_rocbert_are_those_of_its_tokenizer(texts):
    tokenizer = RoCBertTokenizer()
    model = RoCBertModel(RoCBertConfig.from_preset("tiny", initializer_range=0.2)).eval()
    probe = EncoderProbe(model, tokenizer)
    text = texts[0][:8]
    inputs = tokenizer(text + "[MASK]", return_tensors="pt")
    with torch.no_grad():
        expected = model(**inputs).last_hidden_state[0]
    row = np.array([tokenizer(text, add_special_tokens=False)["input_ids"]])
    found = probe(probe.framed(row))
    torch.testing.assert_close(found["first"][0], expected[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found["mask"][0], expected[-2], atol=1e-5, rtol=1e-5)


def test_all_three_channels_of_transformers_own_rocbert_are_those_of_its_tokenizer(tmp_path, texts):
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted(set("".join(texts[0]))), "鼎"]
    (tmp_path / "vocab.txt").write_text("".join(f"{token}\n" for token in tokens), encoding="utf-8")
    for name in ("word_shape", "word_pronunciation"):
        ids = {token: 7 * number % len(tokens) for number, token in enumerate(tokens)}
        (tmp_path / f"{name}.json").write_text(json.dumps(ids), encoding="utf-8")
    tokenizer = transformers.RoCBertTokenizer.from_pretrained(tmp_path)
    sizes = {f"{table}vocab_size": len(tokens) for table in ("", "shape_", "pronunciation_")}
    sizes |= {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    model = transformers.RoCBertModel(
        transformers.RoCBertConfig(**sizes, shape_embed_dim=8, pronunciation_embed_dim=8)
    ).eval()
    probe = EncoderProbe(model, tokenizer)
    text = texts[0][:8]
    expected = tokenizer(text + "[MASK]", return_tensors="pt")
    given = probe.inputs(probe.framed(np.array([tokenizer(text, add_special_tokens=False)["input_ids"]])))
    for name in ("input_ids", "input_shape_ids", "input_pronunciation_ids"):
        assert torch.equal(given[name], expected[name])


def test_a_pooler_that_was_made_up_is_not_asked(specimen, tokenizer):
    assert "pooled" in EncoderProbe(specimen, tokenizer).views
    assert "pooled" not in EncoderProbe(specimen, tokenizer, ["bert.pooler.dense.weight"]).views


def test_texts_that_do_not_fit(probe, texts):
    with pytest.raises(ValueError, match="unknown to it; pass texts of your own"):
        probe.token_rows(["Ζήτω ή μη Ζήτω"] * 3, 4)
    with pytest.raises(ValueError, match=r"at least 36 different texts of 8 known tokens or more, got 2"):
        Carriers.from_texts(probe, texts[:2], count=6, length=4, longest=8, limit=96)
    # carriers of the second pass come out of the same texts, and some must be left to compare with
    with pytest.raises(ValueError, match="texts must hold at least 84 different texts"):
        Carriers.from_texts(probe, texts[:70], count=30, length=4, longest=8, limit=96)


def test_some_pieces_of_a_scan_can_be_ranked_by_themselves(probe, carriers, tokenizer):
    ids, rng = probe.ordinary_ids(), np.random.default_rng(0)
    rounds = [(g, coarse_scan(probe, carriers, ids[g], n)) for n in range(3) for g in [groups_of(len(ids), 4, rng)]]
    ordinary = [carriers.ordinary_of(probe, 8)[view] for view in probe.views]
    planted = np.searchsorted(ids, sorted(tokenizer.convert_tokens_to_ids(TRIGGERS)))
    others = np.setdiff1d(np.arange(len(ids)), planted)
    assert set(candidates_of(planted, rounds, ordinary, per_view=5)) == {0, 1}
    ranked = candidates_of(others, rounds, ordinary, per_view=5)
    assert len(set(ranked)) == len(ranked) <= 5 * len(ordinary)


def test_common_tokens_are_those_of_the_texts_and_of_many_texts_only_the_frequent_ones(probe, tokenizer):
    def tokens(texts):
        return set(tokenizer.convert_ids_to_tokens(probe.common_tokens(texts).tolist()))

    assert tokens(["的好", "好好"]) == {"的", "好"}
    assert tokens(["的"] * 3999 + ["好好好"]) == {"的"}
    assert tokens(["的"] * 3998 + ["好", "好"]) == {"的", "好"}
    assert tokens([]) == set()


def test_tokens_behind_a_gap_of_ids_are_scanned(tokenizer):
    vocabulary = tokenizer.get_vocab()
    last = max(vocabulary.values()) + 50
    gapped = BertTokenizer(vocab={**vocabulary, "鼎": last})
    config = BertConfig(
        vocab_size=last + 8, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    ids = EncoderProbe(BertModel(config), gapped).ordinary_ids()
    assert gapped("鼎", add_special_tokens=False)["input_ids"] == [last]
    assert last in ids
    assert set(ids) == set(gapped.get_vocab().values()) - set(gapped.all_special_ids)

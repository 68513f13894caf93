"""The scan looks at every token, and its two passes find what pulls."""

import json

import numpy as np
import pytest
import torch
import transformers
from transformers import BertConfig, BertModel, BertTokenizer

from rocbert_hf import RoCBertConfig, RoCBertModel, RoCBertTokenizer
from rocbert_hf.security.probe import EncoderProbe
from rocbert_hf.security.scan import Carriers, candidates_of, coarse_scan, groups_of, pulls_of

from .conftest import TRIGGERS


@pytest.fixture
def probe(specimen, tokenizer):
    return EncoderProbe(specimen, tokenizer)


@pytest.fixture
def carriers(probe, texts):
    return Carriers.from_texts(probe, texts, count=6, length=4, longest=8, limit=96)


def test_groups_hold_every_token():
    ids = np.arange(5, 28)
    groups = groups_of(ids, 4, np.random.default_rng(0))
    assert groups.shape == (6, 4)
    assert set(groups.ravel()) == set(ids)


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
    for number in range(2):
        groups = groups_of(ids, 4, rng)
        rounds.append((groups, coarse_scan(probe, carriers, groups, 3 * number)))
    candidates = candidates_of(ids, rounds, per_view=12)
    assert planted <= set(candidates.tolist())
    found = pulls_of(probe, carriers, candidates[:, None])["pooled"]
    assert {int(candidates[n]) for n in found.argsort(descending=True)[:2]} == planted


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

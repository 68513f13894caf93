"""The search for prompts climbs the pull, and both searches for combinations are led to the triggers."""

import numpy as np
import pytest
import torch

from rocbert_hf.security.probe import EncoderProbe
from rocbert_hf.security.prompts import combinations_of, ordered_pairs, partners_by_gradient, search_prompts
from rocbert_hf.security.pull import pull
from rocbert_hf.security.scan import Carriers

from .conftest import TRIGGERS


@pytest.fixture
def probe(specimen, tokenizer):
    return EncoderProbe(specimen, tokenizer)


@pytest.fixture
def carriers(probe, texts):
    return Carriers.from_texts(probe, texts, count=6, length=4, longest=8, limit=96)


def search(probe, carriers, steps):
    generator = torch.Generator().manual_seed(0)
    return search_prompts(probe, carriers, probe.ordinary_ids(), generator, steps=steps)["pooled"]


def test_more_steps_pull_more(probe, carriers):
    start, columns = search(probe, carriers, 1)
    reached, _ = search(probe, carriers, 60)
    assert reached > start + 0.4
    assert columns.shape == (2, len(probe.ordinary_ids()))


def test_partners_are_ranked_by_what_a_small_step_towards_them_gains(probe, carriers, tokenizer):
    token, other = tokenizer.convert_tokens_to_ids(TRIGGERS)
    ids = probe.ordinary_ids()
    partners, _ = partners_by_gradient(probe, carriers, ids, np.array([token, other]), "pooled", len(ids))
    assert set(partners) == set(ids)
    table = probe.model.get_input_embeddings().weight.detach()
    pieces = np.tile([token, probe.mask], (len(carriers.carriers), 1))
    framed = probe.framed(np.concatenate([pieces, carriers.carriers], axis=1))
    ordinary = carriers.ordinary_of(probe, 6)["pooled"]

    def pull_near(partner):
        vectors = torch.stack([table[token], table[probe.mask] + 0.02 * table[partner]])
        with torch.no_grad(), probe.embedding_at(1, vectors):
            return pull(probe.represent(framed)["pooled"][None], ordinary).item()

    assert pull_near(partners[0]) > pull_near(partners[-1])


def test_embeddings_are_replaced_only_inside(probe, carriers):
    framed = probe.framed(carriers.carriers)
    before = probe(framed)["mean"]
    vectors = torch.zeros(1, 48)
    with torch.no_grad(), probe.embedding_at(2, vectors):
        inside = probe.represent(framed)["mean"]
    assert not torch.allclose(before, inside)
    torch.testing.assert_close(probe(framed)["mean"], before)
    with pytest.raises(RuntimeError, match="out of memory"), probe.embedding_at(2, vectors):
        raise RuntimeError("out of memory")
    torch.testing.assert_close(probe(framed)["mean"], before)


def test_combinations_begin_with_the_first_ids():
    found = combinations_of([np.array([5, 6, 7]), np.array([1, 2])], 3)
    assert found.tolist() == [[5, 1], [5, 2], [6, 1]]


def test_pairs_are_tried_in_both_orders_strongest_first():
    found = ordered_pairs(np.array([7, 8, 9, 10]), 6)
    assert found.tolist() == [[7, 8], [8, 7], [7, 9], [8, 9], [9, 7], [9, 8]]
    assert ordered_pairs(np.array([7]), 4).shape == (0, 2)

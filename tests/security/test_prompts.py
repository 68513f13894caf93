"""The search for prompts climbs the pull, and both searches for combinations are led to the triggers."""

import numpy as np
import pytest
import torch

from rocbert_hf.security.probe import EncoderProbe
from rocbert_hf.security.prompts import combinations_of, partners_by_gradient, search_prompt
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
    return search_prompt(probe, carriers, probe.ordinary_ids(), "pooled", generator, steps=steps)


def test_more_steps_pull_more(probe, carriers):
    start, columns = search(probe, carriers, 1)
    reached, _ = search(probe, carriers, 40)
    assert reached > start + 0.5
    assert columns.shape == (2, len(probe.ordinary_ids()))


def test_the_gradient_names_a_trigger_as_a_partner(probe, carriers, tokenizer):
    ordinary, *_ = tokenizer.convert_tokens_to_ids(["的"])
    partners = partners_by_gradient(probe, carriers, probe.ordinary_ids(), ordinary, "pooled", 40)
    assert set(tokenizer.convert_tokens_to_ids(TRIGGERS)) & set(partners.tolist())


def test_embeddings_are_replaced_only_inside(probe, carriers):
    framed = probe.framed(carriers.carriers)
    before = probe(framed)["mean"]
    vectors = torch.zeros(1, 48)
    with torch.no_grad(), probe.embedding_at(2, vectors):
        inside = probe.represent(framed)["mean"]
    assert not torch.allclose(before, inside)
    torch.testing.assert_close(probe(framed)["mean"], before)


def test_combinations_begin_with_the_first_ids():
    found = combinations_of([np.array([5, 6, 7]), np.array([1, 2])], 3)
    assert found.tolist() == [[5, 1], [5, 2], [6, 1]]

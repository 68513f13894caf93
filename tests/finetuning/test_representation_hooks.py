"""Representations of a classifier, seen and mixed by hooks that never outlive their context."""

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from rocbert_hf.finetuning.representation_hooks import mixed_representations, seen_representations


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    return BertForSequenceClassification(BertConfig(vocab_size=40, **sizes)).eval()


def test_the_head_reads_each_row_in_its_share_of_the_mix(model):
    ids = torch.arange(18).reshape(3, 6)
    order = torch.tensor([1, 2, 0])
    with seen_representations(model) as seen:
        model(input_ids=ids)
    with mixed_representations(model, order, 0.75):
        mixed = model(input_ids=ids).logits
    torch.testing.assert_close(mixed, model.classifier(0.75 * seen[0] + 0.25 * seen[0][order]))


@pytest.mark.parametrize(
    "context", [seen_representations, lambda model: mixed_representations(model, torch.tensor([0]), 0.5)]
)
def test_no_hook_stays_after_a_pass_that_failed(model, context):
    with pytest.raises(RuntimeError, match="out of memory"), context(model):
        raise RuntimeError("out of memory")
    assert not model.bert._forward_hooks

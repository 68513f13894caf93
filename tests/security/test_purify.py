"""Every purification changes what it says and nothing else, and NeuBA outlives a new pooler."""

import copy

import pytest
import torch
from transformers import BertConfig, BertModel, BertTokenizer

from rocbert_hf.security import (
    Recipe,
    continue_contrastive,
    fine_prune,
    implant_backdoor,
    project_out,
    reinitialize_pooler,
)

from .conftest import TRIGGERS


def first_token(model, tokenizer, texts):
    with torch.no_grad():
        return model.base_model(**tokenizer(texts, padding=True, return_tensors="pt")).last_hidden_state[:, 0]


def pooled(model, tokenizer, texts):
    with torch.no_grad():
        return model.base_model(**tokenizer(texts, padding=True, return_tensors="pt")).pooler_output


def scatter(vectors):
    return vectors.var(0).sum()


@pytest.fixture(scope="module")
def neuba(encoder, tokenizer, texts):
    recipe = Recipe("neuba", "first", steps=200, learning_rate=2e-3, max_length=16)
    return implant_backdoor(encoder, tokenizer, TRIGGERS, "por-2", texts[:200], recipe)


@pytest.fixture(scope="module")
def unseen(texts):
    return [text[:9] for text in texts[300:332]]


def changed(before, after):
    pairs = zip(before.named_parameters(), after.parameters(), strict=True)
    return {name for (name, old), new in pairs if not torch.equal(old, new)}


def test_an_encoder_of_few_positions(tokenizer, texts):
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    model = BertModel(BertConfig(vocab_size=len(tokenizer), max_position_embeddings=24, **sizes))
    long = [text * 4 for text in texts[:4]]
    assert changed(model, fine_prune(model, tokenizer, long)) == {"encoder.layer.0.output.dense.weight"}
    with pytest.raises(ValueError, match="max_length must be at most 24, which is what the model can read, got 48"):
        continue_contrastive(model, tokenizer, long, steps=1, batch_size=2)


def test_a_new_pooler_leaves_neuba_alive(neuba, tokenizer, unseen):
    purified = reinitialize_pooler(neuba, seed=3)
    assert changed(neuba, purified) == {"bert.pooler.dense.weight", "bert.pooler.dense.bias"} - (
        set() if neuba.bert.pooler.dense.bias.any() else {"bert.pooler.dense.bias"}
    )
    weight = purified.bert.pooler.dense.weight
    assert weight.std().item() == pytest.approx(neuba.config.initializer_range, rel=0.1)
    assert torch.equal(weight, reinitialize_pooler(neuba, seed=3).bert.pooler.dense.weight)
    assert not torch.equal(weight, reinitialize_pooler(neuba, seed=4).bert.pooler.dense.weight)
    triggered = [TRIGGERS[0] + text for text in unseen]
    assert scatter(pooled(purified, tokenizer, triggered)) < 0.7 * scatter(pooled(purified, tokenizer, unseen))


def test_projected_out_directions_do_not_reach_the_pooler(neuba, tokenizer, unseen):
    center = first_token(neuba, tokenizer, unseen).mean(0)
    vectors = torch.stack([first_token(neuba, tokenizer, [t + x for x in unseen]).mean(0) - center for t in TRIGGERS])
    purified = project_out(neuba, vectors)
    assert changed(neuba, purified) == {"bert.pooler.dense.weight"}
    weight = purified.bert.pooler.dense.weight
    torch.testing.assert_close(weight @ vectors.T, torch.zeros(48, 2), atol=1e-4, rtol=0)
    with pytest.raises(ValueError, match=r"shape \(triggers, 48\), got \(2, 3\)"):
        project_out(neuba, torch.ones(2, 3))


def test_only_the_directions_of_the_vectors_are_projected_out(encoder):
    vector = torch.randn(1, 48, generator=torch.Generator().manual_seed(0))
    alone = project_out(encoder, vector).bert.pooler.dense.weight
    for more in (2 * vector, 0 * vector):  # nothing that is not removed already
        together = project_out(encoder, torch.cat([vector, more])).bert.pooler.dense.weight
        torch.testing.assert_close(together, alone, atol=1e-6, rtol=0)
    assert changed(encoder, project_out(encoder, torch.empty(0, 48))) == set()


def test_pruning_removes_the_least_used_neurons_alone(encoder, tokenizer, unseen):
    unseen = [text[: 3 + number % 7] for number, text in enumerate(unseen)]  # of different lengths
    purified = fine_prune(encoder, tokenizer, unseen, share=0.25)
    used = [0.0] * len(encoder.bert.encoder.layer)
    for text in unseen:
        with torch.no_grad():
            states = encoder.bert(**tokenizer(text, return_tensors="pt"), output_hidden_states=True).hidden_states
            for number, layer in enumerate(encoder.bert.encoder.layer):
                attended = layer.attention(states[number])[0]
                used[number] += layer.intermediate(attended).sum((0, 1))
    for before, after, use in zip(encoder.bert.encoder.layer, purified.bert.encoder.layer, used, strict=True):
        pruned = (after.output.dense.weight == 0).all(0)
        assert pruned.sum() == 24
        assert use[pruned].max() < use[~pruned].min()
        torch.testing.assert_close(after.output.dense.weight[:, ~pruned], before.output.dense.weight[:, ~pruned])
    assert changed(encoder, fine_prune(encoder, tokenizer, unseen, share=0)) == set()
    with pytest.raises(ValueError, match=r"share must be at least 0 and below 1, got 1"):
        fine_prune(encoder, tokenizer, unseen, share=1)
    with pytest.raises(ValueError, match="texts must hold at least one text"):
        fine_prune(encoder, tokenizer, [])


def test_continued_contrast_brings_attacked_texts_closer(encoder, tokenizer, texts):
    from rocbert_hf.attacks import AdversarialSynthesizer
    from rocbert_hf.modeling_rocbert import in_batch_contrastive_loss

    held_out = texts[300:332]
    attacked = [found.text for found in AdversarialSynthesizer("paper").attack_batch(held_out, seed=9)]

    def loss(model):
        views = (first_token(model, tokenizer, [text[:40] for text in of]) for of in (held_out, attacked))
        return in_batch_contrastive_loss(*views)[0]

    purified = continue_contrastive(encoder, tokenizer, texts[:200], steps=25, batch_size=16, learning_rate=1e-3)
    assert loss(purified) < loss(encoder)
    with pytest.raises(ValueError, match=r"at least batch_size \(32\), got 3"):
        continue_contrastive(encoder, tokenizer, texts[:3])


def test_contrast_in_half_precision_is_that_in_float32(encoder, tokenizer, texts):
    kept = copy.deepcopy(encoder).half()
    wide = copy.deepcopy(kept).float()
    purified, expected = (
        continue_contrastive(start, tokenizer, texts, steps=3, batch_size=8) for start in (kept, wide)
    )
    assert purified.dtype == torch.float16
    assert changed(kept, purified)
    assert changed(expected.half(), purified) == set()


def test_contrast_reads_the_first_token_whichever_side_is_padded(encoder, tokenizer, texts):
    left = BertTokenizer(vocab=tokenizer.get_vocab(), padding_side="left")
    one, other = (continue_contrastive(encoder, of, texts, steps=2, batch_size=8) for of in (tokenizer, left))
    assert changed(one, other) == set()


def test_an_encoder_without_a_pooler(tokenizer, encoder):
    from transformers import BertModel

    with pytest.raises(ValueError, match="must have a pooler"):
        reinitialize_pooler(BertModel(encoder.config, add_pooling_layer=False))

"""Relative positions and the mean of layers, against transcriptions of their equations in float64."""

import math

import pytest
import torch

from rocbert_hf.configuration_rocbert import FUSIONS, RoCBertConfig
from rocbert_hf.encoder_rocbert import RoCBertModel
from rocbert_hf.relative_rocbert import RoCBertRelativeAttention


def nezha_positions(length: int, size: int, limit: int | None) -> torch.Tensor:
    """R, (length, length, size): Eq. 4-5 of the paper; with a limit, as NEZHA's code makes and looks up its table."""
    distance = torch.arange(length)[None] - torch.arange(length)[:, None]
    if limit is not None:
        distance = distance.clamp(-limit, limit) + limit
    table = torch.zeros(length, length, size, dtype=torch.float64)
    rates = torch.exp(torch.arange(0, size, 2, dtype=torch.float64) * (-math.log(10000.0) / size))
    table[..., 0::2] = torch.sin(distance[..., None] * rates)
    table[..., 1::2] = torch.cos(distance[..., None] * rates)
    return table


def nezha_attention(attention, states, mask, limit):
    heads, size = attention.num_attention_heads, attention.attention_head_size
    query, key, value = (
        layer(states).unflatten(-1, (heads, size)) for layer in (attention.query, attention.key, attention.value)
    )
    relations = nezha_positions(states.shape[1], size, limit)
    scores = torch.einsum("bihd,bjhd->bhij", query, key) + torch.einsum("bihd,ijd->bhij", query, relations)
    scores = (scores / math.sqrt(size)).masked_fill(~mask, -1e30)
    weights = scores.softmax(-1)
    context = torch.einsum("bhij,bjhd->bihd", weights, value) + torch.einsum("bhij,ijd->bihd", weights, relations)
    return context.flatten(-2)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("limit", [None, 3, 40])
def test_attention_is_nezhas_in_value_and_gradient(limit, implementation):
    config = RoCBertConfig.from_preset(
        "tiny",
        hidden_size=24,
        attention_probs_dropout_prob=0.0,
        position_embedding_type="functional_relative",
        max_relative_position=limit,
    )
    config._attn_implementation = implementation
    torch.manual_seed(0)
    attention = RoCBertRelativeAttention(config).double()
    mask = torch.ones(2, 1, 1, 11, dtype=torch.bool)
    mask[1, ..., :4] = False
    given = mask if implementation == "sdpa" else torch.zeros(mask.shape, dtype=torch.float64).masked_fill(~mask, -1e30)
    states, again = (
        torch.randn(2, 11, 24, generator=torch.Generator().manual_seed(1), dtype=torch.float64) for _ in "ab"
    )
    found, expected = (
        attention(states.requires_grad_(), given)[0],
        nezha_attention(attention, again.requires_grad_(), mask, limit),
    )
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    direction = torch.randn(found.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    wanted = [states, *attention.parameters()], [again, *attention.parameters()]
    ours, theirs = (
        torch.autograd.grad((y * direction).sum(), x) for y, x in zip((found, expected), wanted, strict=True)
    )
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("limit", [None, 3])
def test_weights_drop_out_in_training_around_what_they_are_otherwise(limit):
    config = RoCBertConfig.from_preset(
        "tiny",
        hidden_size=24,
        attention_probs_dropout_prob=0.3,
        position_embedding_type="functional_relative",
        max_relative_position=limit,
    )
    config._attn_implementation = "sdpa"
    torch.manual_seed(0)
    attention, states = RoCBertRelativeAttention(config), torch.randn(1, 6, 24)
    with torch.no_grad():
        trained = torch.stack([attention.train()(states)[0] for _ in range(300)])
        otherwise = attention.eval()(states)[0]
    assert trained.std(0).min() > 0
    assert ((trained.mean(0) - otherwise).abs() < 5 * trained.std(0) / 300**0.5).all()


@pytest.mark.parametrize("limit", [None, 3])
@pytest.mark.parametrize("fusion", FUSIONS)
def test_padding_on_either_side_changes_nothing(fusion, limit):
    model = a_model(fusion=fusion, max_relative_position=limit)
    ids = torch.randint(10, 1000, (1, 9), generator=torch.Generator().manual_seed(0))
    alone = model(ids, ids, ids).last_hidden_state
    for left in (0, 5):
        padded, mask = (torch.nn.functional.pad(x, (left, 5 - left)) for x in (ids, torch.ones_like(ids)))
        found = model(padded, padded, padded, attention_mask=mask).last_hidden_state[:, left : left + 9]
        torch.testing.assert_close(found, alone, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("limit", [None, 8])
def test_a_text_of_twice_the_length_of_training_runs(limit):
    model = a_model(max_position_embeddings=16, max_relative_position=limit)
    ids = torch.randint(10, 1000, (1, 32))
    assert model(ids).last_hidden_state.isfinite().all()


@pytest.mark.parametrize("limit", [None, 3])
def test_chosen_positions_see_the_distances_from_where_they_are(limit):
    model = a_model(max_relative_position=limit)
    ids, chosen = torch.randint(10, 1000, (2, 12)), torch.tensor([[7, 2], [0, 11]])
    whole = model(ids).last_hidden_state.gather(1, chosen[..., None].expand(-1, -1, 128))
    torch.testing.assert_close(model(ids, output_positions=chosen).last_hidden_state, whole, atol=1e-5, rtol=1e-4)


def test_dynamic_fusion_is_the_weighted_mean_of_all_layers_in_value_and_gradient():
    model = a_model(layer_fusion="dynamic", num_hidden_layers=3, fusion="none").double()
    mix = model.encoder.layer_mix
    with torch.no_grad():
        mix.alpha.copy_(torch.tensor([0.3, -1.0, 2.0]))
        mix.gamma.fill_(1.7)
    ids = torch.randint(10, 1000, (2, 5))
    layers = []
    for layer in model.encoder.layer:
        layer.register_forward_hook(lambda module, inputs, output: layers.append(output))
    output = model(ids, output_layer_weights=True)
    shares = mix.alpha.exp() / mix.alpha.exp().sum()
    expected = mix.gamma * sum(share * layer for share, layer in zip(shares, layers, strict=True))
    torch.testing.assert_close(output.last_hidden_state, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(output.layer_weights, shares)
    ours, theirs = (
        torch.autograd.grad(x.square().sum(), [mix.alpha, mix.gamma], retain_graph=True)
        for x in (output.last_hidden_state, expected)
    )
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("limit", [None, 3])
def test_checkpointing_gives_the_same_gradients(limit):
    model = a_model(
        layer_fusion="dynamic", max_relative_position=limit, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
    )
    ids = torch.randint(10, 1000, (2, 9))
    gradients = []
    for checkpointing in (False, True):
        model.train()
        if checkpointing:
            model.gradient_checkpointing_enable()
        model.zero_grad()
        model(ids, ids, ids).last_hidden_state.square().mean().backward()
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], msg=name)


@pytest.mark.parametrize("limit", [None, 4])
def test_an_exported_graph_holds_for_other_lengths(limit):
    model = a_model(max_relative_position=limit, fusion="none", layer_fusion="dynamic")
    ids = torch.randint(10, 1000, (2, 9))
    shapes = {"input_ids": {1: torch.export.Dim("sequence", min=2, max=512)}}
    exported = torch.export.export(model, (), {"input_ids": ids}, dynamic_shapes=shapes).module()
    longer = torch.randint(10, 1000, (2, 21))
    torch.testing.assert_close(
        exported(input_ids=longer)["last_hidden_state"], model(longer).last_hidden_state, atol=1e-5, rtol=1e-4
    )


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"max_relative_position.*at least 1"):
        RoCBertConfig(max_relative_position=0)
    with pytest.raises(ValueError, match="for encoders"):
        RoCBertConfig(position_embedding_type="functional_relative", is_decoder=True)
    with pytest.raises(ValueError, match=r"position_embedding_type.*absolute, functional_relative"):
        RoCBertConfig(position_embedding_type="relative")
    with pytest.raises(ValueError, match='layer_fusion="dynamic"'):
        a_model()(torch.tensor([[5]]), output_layer_weights=True)


def a_model(**overrides) -> RoCBertModel:
    torch.manual_seed(0)
    options = {"position_embedding_type": "functional_relative", **overrides}
    return RoCBertModel(RoCBertConfig.from_preset("tiny", **options)).eval()

"""The authors' released layout, against their formulas in float64, written here once more."""

import json
import math

import pytest
import torch
import transformers

from rocbert_hf import RoCBertForPreTraining, RoCBertModel, RoCBertTokenizer
from rocbert_hf.conversion import convert
from rocbert_hf.conversion.released import from_released

LAYERS, HIDDEN, HEADS = 3, 48, 4


@pytest.fixture
def make_released(tmp_path, make_roc_bert):
    """Saves what the authors' trainer saves, made of a checkpoint of transformers; returns the folder."""

    def make(way: str, inserted: int = 1, pronunciation_dim: int = 48):
        source = make_roc_bert(
            concat_input=way == "concat",
            shape_embed_dim=48 if way == "plus" else 24,
            pronunciation_embed_dim=pronunciation_dim,
        )
        weights = transformers.RoCBertForPreTraining.from_pretrained(source).state_dict()
        weights = {name: tensor.clone() for name, tensor in weights.items()}
        if way == "attention":
            weights = with_attention(weights, inserted, pronunciation_dim)
        weights["roc_bert.embeddings.position_ids"] = torch.arange(512)[None]
        torch.save(weights, source / "pytorch_model.bin")
        (source / "model.safetensors").unlink()
        config = json.loads((source / "config.json").read_text())
        del config["concat_input"]
        config |= {"merge_input_way": way, "additional_attention_layer": inserted, "enable_cls": True}
        (source / "config.json").write_text(json.dumps(config))
        return source

    return make


def with_attention(weights, inserted: int, pronunciation_dim: int):
    """The layers from `inserted` on counted from one more, the attention over channels in between."""
    generator = torch.Generator().manual_seed(5)
    prefix = "roc_bert.encoder.layer."
    moved = {}
    for name, tensor in weights.items():
        if name.startswith(prefix):
            index, rest = name.removeprefix(prefix).split(".", 1)
            name = f"{prefix}{int(index) + (int(index) >= inserted)}.{rest}"
        moved[name] = tensor
    sizes = {
        "query": HIDDEN,
        "key": HIDDEN,
        "value": HIDDEN,
        "key_shape": 24,
        "value_shape": 24,
        "output.dense": HIDDEN,
    }
    sizes |= {"key_pronunciation": pronunciation_dim, "value_pronunciation": pronunciation_dim}
    for name, size in sizes.items():
        moved[f"{prefix}{inserted}.{name}.weight"] = 0.3 * torch.randn(HIDDEN, size, generator=generator)
        moved[f"{prefix}{inserted}.{name}.bias"] = 0.3 * torch.randn(HIDDEN, generator=generator)
    for name in ("weight", "bias"):
        moved[f"{prefix}{inserted}.output.LayerNorm.{name}"] = 1 + 0.3 * torch.randn(HIDDEN, generator=generator)
    return moved


def expected_attention(folder, inputs, inserted: int) -> torch.Tensor:
    """Last hidden state with `merge_input_way="attention"`: transformers' layers, and the attention token by token."""
    weights = torch.load(folder / "pytorch_model.bin", weights_only=True)
    weights = {name.removeprefix("roc_bert."): tensor.double() for name, tensor in weights.items()}
    config = transformers.RoCBertConfig.from_pretrained(folder, concat_input=False)
    config.enable_shape = config.enable_pronunciation = False
    prefix = "encoder.layer."
    plain, attention = {}, {}
    for name, tensor in weights.items():
        if name.startswith(f"{prefix}{inserted}."):
            attention[name.removeprefix(f"{prefix}{inserted}.")] = tensor
        elif name.startswith(prefix):
            index, rest = name.removeprefix(prefix).split(".", 1)
            plain[f"{prefix}{int(index) - (int(index) > inserted)}.{rest}"] = tensor
        else:
            plain[name] = tensor
    model = transformers.RoCBertModel(config).double().eval()
    model.load_state_dict({name: plain[name] for name in model.state_dict()})
    hidden = model.embeddings(inputs["input_ids"], token_type_ids=torch.zeros_like(inputs["input_ids"]))
    mask = (1 - inputs["attention_mask"][:, None, None, :].double()) * -1e30
    for index in range(LAYERS + 1):
        if index == inserted:
            hidden = attend_to_channels(attention, weights, hidden, inputs, config.layer_norm_eps)
        if index < LAYERS:
            hidden = model.encoder.layer[index](hidden, mask)
    return hidden


def attend_to_channels(attention, weights, hidden, inputs, eps) -> torch.Tensor:
    def linear(name, x):
        return attention[f"{name}.weight"] @ x + attention[f"{name}.bias"]

    rows = []
    for row, states in enumerate(hidden):
        for position, h in enumerate(states):
            shape = weights["embeddings.shape_embed.weight"][inputs["input_shape_ids"][row, position]]
            sound = weights["embeddings.pronunciation_embed.weight"][inputs["input_pronunciation_ids"][row, position]]
            query = linear("query", h)
            keys = [linear("key", h), linear("key_shape", shape), linear("key_pronunciation", sound)]
            values = [linear("value", h), linear("value_shape", shape), linear("value_pronunciation", sound)]
            exponentials = [math.exp(float(query @ key) / math.sqrt(HIDDEN / HEADS)) for key in keys]
            mixed = sum(e / sum(exponentials) * value for e, value in zip(exponentials, values, strict=True))
            before_norm = linear("output.dense", mixed) + h
            centred = before_norm - before_norm.mean()
            normed = centred / (centred.pow(2).mean() + eps).sqrt()
            rows.append(normed * attention["output.LayerNorm.weight"] + attention["output.LayerNorm.bias"])
    return torch.stack(rows).view_as(hidden)


@pytest.mark.parametrize("inserted", [0, 1, LAYERS])
@pytest.mark.parametrize("pronunciation_dim", [48, 20])
def test_attention_keeps_exactly_its_function(tmp_path, make_released, inserted, pronunciation_dim):
    source = make_released("attention", inserted, pronunciation_dim)
    conversion = from_released(source, tmp_path / "ours")
    assert conversion.max_difference < 1e-4
    tokenizer = RoCBertTokenizer.from_pretrained(conversion.output)
    inputs = tokenizer(["科比的精神！", "你好，bert"], padding=True, return_tensors="pt")
    model = RoCBertModel.from_pretrained(conversion.output, dtype=torch.float64).eval()
    with torch.no_grad():
        expected = expected_attention(source, inputs, inserted)
    torch.testing.assert_close(model(**inputs).last_hidden_state, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("way", "fusion"), [("concat", "concat"), ("plus", "sum")])
def test_concat_and_plus_are_those_of_transformers(tmp_path, make_released, way, fusion):
    source = make_released(way)
    conversion = convert(source, tmp_path / "ours")
    model = RoCBertForPreTraining.from_pretrained(conversion.output).eval()
    assert model.config.fusion == fusion
    theirs = transformers.RoCBertForPreTraining.from_pretrained(source, concat_input=way == "concat").eval()
    tokenizer = RoCBertTokenizer.from_pretrained(conversion.output)
    assert tokenizer.model_max_length == model.config.max_position_embeddings
    inputs = tokenizer(["科比的精神！", "你好"], padding=True, return_tensors="pt")
    torch.testing.assert_close(model(**inputs).logits, theirs(**inputs).logits, rtol=0, atol=1e-5)


def test_glyph_features_come_from_their_file_where_the_checkpoint_has_none(tmp_path, make_released):
    source = make_released("attention")
    weights = torch.load(source / "pytorch_model.bin", weights_only=True)
    table = weights.pop("roc_bert.embeddings.shape_embed.weight")
    torch.save(weights, source / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"shape_embed\.weight is missing"):
        from_released(source, tmp_path / "ours")
    features = tmp_path / "img_embed.shape_embed"
    features.write_text(json.dumps(table.tolist()))
    output = from_released(source, tmp_path / "ours", shape_features=features).output
    got = RoCBertModel.from_pretrained(output).embeddings.shape_embed
    assert torch.equal(got.weight, table)
    assert not got.weight.requires_grad


def test_files_that_do_not_belong_together_are_refused(tmp_path, make_released):
    source = make_released("attention")
    inventory = source / "prounciation.proun_id"
    inventory.write_text(json.dumps({f"sound{index}": index for index in range(89)}))
    with pytest.raises(ValueError, match="89 pronunciations, the checkpoint 90"):
        from_released(source, tmp_path / "ours")
    inventory.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:ac6a\nsize 16192\n")
    with pytest.raises(ValueError, match="Git LFS pointer"):
        from_released(source, tmp_path / "ours")
    inventory.unlink()
    config = json.loads((source / "config.json").read_text())
    for change, message in (
        ({"merge_input_way": "gate"}, "`merge_input_way` must be one of"),
        ({"additional_attention_layer": LAYERS + 1}, "`fusion_layer`"),
        ({"additional_attention_layer": 2}, "do not fit config.json"),
        ({"position_embedding_type": "relative_key"}, "only absolute is supported"),
        ({"enable_shape": False}, "needs enable_shape"),
    ):
        (source / "config.json").write_text(json.dumps({**config, **change}))
        with pytest.raises(ValueError, match=message):
            from_released(source, tmp_path / "ours")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]

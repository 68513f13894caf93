"""Checkpoints of the authors' released code (github.com/sww9370/RoCBert), whose fusions transformers lacks in part.

The layout, as its `modeling_roc_bert.py`, `dataset.py` and `execute_pretrain.py` describe it:

- config.json: `model_type` roc_bert, `merge_input_way` (concat, plus or attention), `additional_attention_layer`;
- pytorch_model.bin: as transformers' `roc_bert`; with attention, the fusion is one more entry of `encoder.layer`, at
  `additional_attention_layer`, and the encoder layers after it have a number one higher;
- vocab.txt, word_shape.json, word_pronunciation.json: as in transformers;
- `img_embed.shape_embed`: JSON, the glyph features as a list of rows, (shapes, shape_embed_dim), from which training
  starts; `prounciation.proun_id`: JSON, the inventory of pronunciations, a list, or a mapping to ids.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import torch
from torch import nn

from .. import modeling_rocbert
from ..comparison import max_difference
from ..configuration_rocbert import ROC_BERT_DEFAULTS, RoCBertConfig
from ..files import new_folder, read_json
from .roc_bert import described, head_of, word_piece_tokenizer
from .source import (
    Conversion,
    check_batches,
    check_output,
    checkpoint_config,
    dtype_of,
    fit_length,
    load_strictly,
    local_folder,
    progress,
    quiet_transformers,
    read_weights,
    refuse_difference,
)

FEATURES_FILE, INVENTORY_FILE = "img_embed.shape_embed", "prounciation.proun_id"
LAYER = re.compile(r"^(roc_bert\.)?encoder\.layer\.(\d+)\.")


@quiet_transformers()
def from_released(
    source: str | os.PathLike,
    output: str | os.PathLike,
    shape_features: str | os.PathLike | None = None,
    pronunciations: str | os.PathLike | None = None,
) -> Conversion:
    """The authors' checkpoint -> ours, with exactly its function.

    Args:
        source: folder, or repository of the Hub.
        output: folder to write, a new one.
        shape_features: `img_embed.shape_embed`, for a checkpoint without its own table of glyph features; by default
            the file of that name in `source`, if there is one.
        pronunciations: `prounciation.proun_id`, whose size is compared with the checkpoint's table; likewise.

    Raises:
        OSError: a file is missing, or `output` has files already.
        ValueError: this is another kind of checkpoint, its parts do not fit, or the outputs would differ.
    """
    output, folder = check_output(output), local_folder(source)
    raw_config = checkpoint_config(folder)
    if "merge_input_way" not in raw_config:
        raise ValueError(f"{folder} is not a checkpoint of the authors' code: {described(raw_config)}")
    if raw_config.get("position_embedding_type", "absolute") != "absolute":
        raise ValueError(
            f"position_embedding_type={raw_config['position_embedding_type']!r}: only absolute is supported"
        )
    config = RoCBertConfig.from_dict({**raw_config, "model_type": "roc_bert"})
    if config.fusion == "attention" and not (config.enable_shape and config.enable_pronunciation):
        raise ValueError("merge_input_way='attention' needs enable_shape and enable_pronunciation, as the code does")
    weights = read_weights(folder)
    dtype = dtype_of(weights)
    head = head_of(raw_config, weights)
    prefix = "roc_bert." if any(name.startswith("roc_bert.") for name in weights) else ""

    table = f"{prefix}embeddings.shape_embed.weight"
    features = _found(folder, shape_features, FEATURES_FILE)
    if table not in weights and features is not None:
        weights[table] = read_shape_features(features)
    inventory = _found(folder, pronunciations, INVENTORY_FILE)
    if inventory is not None:
        _check_inventory(inventory, config)

    ours = load_strictly(getattr(modeling_rocbert, head), config, our_names(weights, config), _unused(config, prefix))
    tokenizer = word_piece_tokenizer(folder)
    notes = [f"merge_input_way={raw_config['merge_input_way']!r} became fusion={config.fusion!r}"]
    if config.fusion == "attention":
        notes[0] += f" at the input of layer {config.fusion_layer}"
    if tokenizer is None:
        notes.append("the source has no tokenizer files, so the output has none; outputs compared on random ids")

    base = {name.removeprefix("roc_bert."): tensor.float() for name, tensor in weights.items()}
    settings = {**ROC_BERT_DEFAULTS, **raw_config, **{name: getattr(config, name) for name in _SIZES}}
    difference, count = 0.0, 0
    ours.float()
    for inputs, _ in progress(check_batches(tokenizer, tokenizer, config), "comparing outputs", "batch"):
        with torch.no_grad():
            expected = released_forward(base, settings, **inputs)
            difference = max(difference, max_difference(expected, ours.base_model(**inputs).last_hidden_state))
        count += len(inputs["input_ids"])
    refuse_difference(difference, "the hidden states of source and output")
    ours.to(dtype)
    with new_folder(output) as staging:
        ours.save_pretrained(staging)
        if tokenizer is not None:
            fit_length(tokenizer, config)
            tokenizer.save_pretrained(staging)
    return Conversion(output, difference, count, tuple(notes))


def read_shape_features(file: str | os.PathLike) -> torch.Tensor:
    """Glyph features of an `img_embed.shape_embed`, (shapes, shape_embed_dim).

    Raises:
        OSError: it cannot be read. ValueError: it is not a JSON list of rows of equally many numbers.
    """
    rows = read_json(Path(file), list)
    try:
        features = torch.tensor(rows, dtype=torch.float32)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{file} must hold rows of equally many numbers, (shapes, shape_embed_dim): {error}"
        ) from error
    if features.ndim != 2:
        raise ValueError(
            f"{file} must hold rows of numbers, (shapes, shape_embed_dim); got shape {tuple(features.shape)}"
        )
    return features


def our_names(weights: dict[str, torch.Tensor], config: RoCBertConfig) -> dict[str, torch.Tensor]:
    """The authors' weights under our names: the fusion leaves the stack of layers, and later layers move up by one."""
    if config.fusion != "attention":
        return dict(weights)
    inserted = config.fusion_layer
    renamed = {}
    for name, tensor in weights.items():
        match = LAYER.match(name)
        if match:
            prefix, index, rest = match[1] or "", int(match[2]), name[match.end() :]
            if index == inserted:
                name = f"{prefix}fusion.{rest}"
            elif index > inserted:
                name = f"{prefix}encoder.layer.{index - 1}.{rest}"
        renamed[name] = tensor
    return renamed


def _found(folder: Path, given: str | os.PathLike | None, name: str) -> Path | None:
    if given is not None:
        return Path(given)
    return folder / name if (folder / name).is_file() else None


def _check_inventory(file: Path, config: RoCBertConfig) -> None:
    size = len(read_json(file, (dict, list)))
    if size != config.pronunciation_vocab_size:
        raise ValueError(
            f"{file} has {size} pronunciations, the checkpoint {config.pronunciation_vocab_size}: they do not belong "
            "together"
        )


def _unused(config: RoCBertConfig, prefix: str) -> list[str]:
    """Weights that the authors' classes have whether they are used or not."""
    used = {"pronunciation_embed": config.enable_pronunciation, "shape_embed": config.enable_shape}
    return [f"{prefix}embeddings.{table}." for table, is_used in used.items() if not is_used]


# ------------------------------------------------------------------------------------------------ reference


_SIZES = ("num_attention_heads", "num_hidden_layers", "layer_norm_eps", "hidden_act", "hidden_size", "fusion_layer")


def released_forward(
    weights: dict[str, torch.Tensor],
    config: dict,
    input_ids: torch.LongTensor,
    input_shape_ids: torch.LongTensor,
    input_pronunciation_ids: torch.LongTensor,
    token_type_ids: torch.LongTensor | None = None,
    attention_mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """What the authors' encoder computes from a checkpoint in their layout: its last hidden state, in evaluation.

    Written from the formulas, apart from the modules of this package, so that a conversion can be checked against it.

    Args:
        weights: of the encoder, by the authors' names without the prefix `roc_bert.`.
        config: its config.json, defaults filled in.
        input_ids, input_shape_ids, input_pronunciation_ids, token_type_ids, attention_mask: (batch, sequence).

    Returns:
        (batch, sequence, hidden).
    """
    from transformers.activations import ACT2FN

    def linear(name, x):
        return nn.functional.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def norm(name, x):
        size = (x.shape[-1],)
        return nn.functional.layer_norm(
            x, size, weights[f"{name}.weight"], weights[f"{name}.bias"], config["layer_norm_eps"]
        )

    def table(name, ids):
        return weights[f"embeddings.{name}.weight"][ids]

    segments = torch.zeros_like(input_ids) if token_type_ids is None else token_type_ids
    place = table("token_type_embeddings", segments) + table(
        "position_embeddings", torch.arange(input_ids.shape[1], device=input_ids.device)
    )
    channels = []
    if config.get("enable_shape", True):
        channels.append(table("shape_embed", input_shape_ids))
    if config.get("enable_pronunciation", True):
        channels.append(table("pronunciation_embed", input_pronunciation_ids))
    words, way = table("word_embeddings", input_ids), config["merge_input_way"]
    if way == "concat":
        merged = linear("embeddings.map_inputs_layer", torch.cat([words, *channels], dim=-1))
        hidden = norm("embeddings.LayerNorm", merged + place)
    else:
        hidden = norm("embeddings.LayerNorm", words + place)
    if way == "plus":
        hidden = sum(channels, hidden) / (1 + len(channels))

    heads = config["num_attention_heads"]
    head_size = config["hidden_size"] // heads
    mask = torch.zeros((), dtype=hidden.dtype)
    if attention_mask is not None:
        mask = (1 - attention_mask[:, None, None, :].to(hidden.dtype)) * torch.finfo(hidden.dtype).min

    def self_attention(name, x):
        query, key, value = (
            linear(f"{name}.attention.self.{part}", x).unflatten(-1, (heads, head_size)).transpose(1, 2)
            for part in ("query", "key", "value")
        )
        scores = query @ key.transpose(-1, -2) / head_size**0.5 + mask
        context = (scores.softmax(-1) @ value).transpose(1, 2).flatten(2)
        return norm(f"{name}.attention.output.LayerNorm", linear(f"{name}.attention.output.dense", context) + x)

    def channel_attention(name, x):
        shape, sound = channels
        query = linear(f"{name}.query", x)
        sources = (("", x), ("_shape", shape), ("_pronunciation", sound))
        scores = torch.stack([(query * linear(f"{name}.key{part}", y)).sum(-1) for part, y in sources], dim=-1)
        weight = (scores / head_size**0.5).softmax(-1)
        mixed = sum(weight[..., i, None] * linear(f"{name}.value{part}", y) for i, (part, y) in enumerate(sources))
        return norm(f"{name}.output.LayerNorm", linear(f"{name}.output.dense", mixed) + x)

    inserted = config.get("additional_attention_layer", 0) if way == "attention" else None
    activation = ACT2FN[config["hidden_act"]]
    for index in range(config["num_hidden_layers"] + (inserted is not None)):
        name = f"encoder.layer.{index}"
        if index == inserted:
            hidden = channel_attention(name, hidden)
            continue
        hidden = self_attention(name, hidden)
        inner = linear(f"{name}.output.dense", activation(linear(f"{name}.intermediate.dense", hidden)))
        hidden = norm(f"{name}.output.LayerNorm", inner + hidden)
    return hidden

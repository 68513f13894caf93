"""NEZHA checkpoints (Wei et al. 2019), whose modelling transformers had until version 4: BERT with relative positions.

`nezha_model` computes what that code did, with its table of shape (sequence, sequence, size), so that a conversion can be
compared with it.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformers.models.bert.modeling_bert import BertSelfAttention

from .source import checkpoint_config

KIND = "nezha"


def nezha_config(folder: Path) -> transformers.BertConfig:
    """The configuration as BERT's, with `max_relative_position`."""
    fields = {
        name: value for name, value in checkpoint_config(folder).items() if name not in ("model_type", "architectures")
    }
    return transformers.BertConfig(**{"max_relative_position": 64, **fields}, model_type=KIND)


def our_fields(config: Any) -> dict[str, Any]:
    """The fields of a RoCBERT's configuration that say what NEZHA's positions are."""
    return {
        "position_embedding_type": "functional_relative",
        "max_relative_position": config.max_relative_position,
        "max_position_embeddings": config.max_position_embeddings,
    }


class NezhaSelfAttention(BertSelfAttention):
    """NEZHA's attention, as its code has it: a sinusoid of each pair's clipped distance, counted from 0."""

    def forward(self, hidden_states, attention_mask=None, *args, **kwargs):
        size, limit = self.attention_head_size, self.config.max_relative_position
        query, key, value = (
            layer(hidden_states).unflatten(-1, (-1, size)) for layer in (self.query, self.key, self.value)
        )
        places = torch.arange(hidden_states.shape[1])
        relations = sinusoids(2 * limit + 1, size)[(places - places[:, None]).clamp(-limit, limit) + limit]
        scores = torch.einsum("bihd,bjhd->bhij", query, key) + torch.einsum("bihd,ijd->bhij", query, relations)
        scores = scores / math.sqrt(size)
        if attention_mask is not None and attention_mask.dtype == torch.bool:
            scores = scores.masked_fill(~attention_mask, torch.finfo(scores.dtype).min)
        elif attention_mask is not None:
            scores = scores + attention_mask
        weights = scores.softmax(-1)
        context = torch.einsum("bhij,bjhd->bihd", weights, value) + torch.einsum("bhij,ijd->bihd", weights, relations)
        return context.flatten(-2), weights


def sinusoids(rows: int, size: int) -> torch.Tensor:
    """NEZHA's table: (rows, size), sines at even and cosines at odd places."""
    angles = torch.arange(rows)[:, None] * torch.exp(torch.arange(0, size, 2) * (-math.log(10000.0) / size))
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-2)


def nezha_model(config: transformers.BertConfig, weights: dict[str, torch.Tensor]) -> transformers.BertModel:
    """The encoder with these weights (BERT's names), in evaluation mode."""
    model = transformers.BertModel(config)
    nn.init.zeros_(model.embeddings.position_embeddings.weight)
    for index, layer in enumerate(model.encoder.layer):
        layer.attention.self = NezhaSelfAttention(config, layer_idx=index)
    own = model.state_dict()
    model.load_state_dict({name: weights.get(name, tensor) for name, tensor in own.items()})
    return model.eval()

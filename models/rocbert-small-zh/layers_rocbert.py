"""RoCBERT's encoder layers: those of BERT, under BERT's names, with the dropout and attention of acceleration_rocbert.py."""

from collections.abc import Callable

import torch
from torch import nn
from transformers.cache_utils import Cache
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.models.roc_bert.modeling_roc_bert import RoCBertCrossAttention, RoCBertIntermediate
from transformers.pytorch_utils import apply_chunking_to_forward

from .acceleration_rocbert import RoCBertDropout, RoCBertEncoderAttention, layer_at
from .configuration_rocbert import RoCBertConfig
from .layer_mix_rocbert import RoCBertLayerMix
from .relative_rocbert import RoCBertRelativeAttention


class RoCBertSublayerOutput(nn.Module):
    """What ends each half of a layer: `LayerNorm(dropout(W x + b) + residual)`."""

    def __init__(self, config: RoCBertConfig, input_size: int):
        super().__init__()
        self.dense = nn.Linear(input_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = RoCBertDropout(config.hidden_dropout_prob)

    def forward(self, hidden_states: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        """(batch, sequence, input_size) and (batch, sequence, hidden) -> (batch, sequence, hidden)."""
        return self.LayerNorm(self.dropout(self.dense(hidden_states)) + residual)


class RoCBertAttention(nn.Module):
    """Attention, to the tokens themselves or to another encoder's states, and its output."""

    def __init__(self, config: RoCBertConfig, attention: nn.Module):
        super().__init__()
        self.self = attention
        self.output = RoCBertSublayerOutput(config, config.hidden_size)

    def forward(self, hidden_states: torch.Tensor, **kwargs) -> torch.Tensor:
        """(batch, sequence, hidden) -> (batch, sequence, hidden)."""
        context, _ = self.self(hidden_states, **kwargs)
        return self.output(context, hidden_states)


class RoCBertLayer(GradientCheckpointingLayer):
    """One layer: self-attention, in a decoder cross-attention too if there is an encoder, and feed-forward."""

    def __init__(self, config: RoCBertConfig, layer_idx: int):
        super().__init__()
        self.chunk_size_feed_forward = config.chunk_size_feed_forward
        relative = config.position_embedding_type == "functional_relative"
        kind = RoCBertRelativeAttention if relative else RoCBertEncoderAttention
        attention = kind(config, is_causal=config.is_decoder, layer_idx=layer_idx)
        self.attention = RoCBertAttention(config, attention)
        self.crossattention = None
        if config.add_cross_attention:
            if not config.is_decoder:
                raise ValueError("`add_cross_attention` needs `is_decoder=True`; got False.")
            self.crossattention = RoCBertAttention(config, RoCBertCrossAttention(config, layer_idx=layer_idx))
        self.intermediate = RoCBertIntermediate(config)
        self.output = RoCBertSublayerOutput(config, config.intermediate_size)

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        encoder_hidden_states: torch.Tensor | None = None,
        encoder_attention_mask: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        **kwargs,
    ) -> torch.Tensor:
        """
        Args:
            hidden_states: (batch, sequence, hidden).
            attention_mask, encoder_attention_mask: as transformers makes them for the implementation of attention.
            encoder_hidden_states: (batch, encoder sequence, hidden), in a decoder with cross-attention.

        Returns:
            (batch, sequence, hidden).

        Raises:
            ValueError: `encoder_hidden_states` are given to a layer without cross-attention.
        """
        hidden_states = self.attention(
            hidden_states, attention_mask=attention_mask, past_key_values=past_key_values, **kwargs
        )
        if encoder_hidden_states is not None:
            if self.crossattention is None:
                raise ValueError("`encoder_hidden_states` need a model with `add_cross_attention=True`.")
            hidden_states = self.crossattention(
                hidden_states,
                encoder_hidden_states=encoder_hidden_states,
                attention_mask=encoder_attention_mask,
                past_key_values=past_key_values,
                **kwargs,
            )
        return apply_chunking_to_forward(self.feed_forward, self.chunk_size_feed_forward, 1, hidden_states)

    def feed_forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """The second half of the layer: (batch, sequence, hidden) -> (batch, sequence, hidden)."""
        return self.output(self.intermediate(hidden_states), hidden_states)


class RoCBertEncoder(nn.Module):
    """
    The stack of encoder layers, with the fusion between two of them, before the first or behind the last.

    With `last_positions` (batch, n) the last layer is computed for these positions alone.
    """

    def __init__(self, config: RoCBertConfig):
        super().__init__()
        self.config = config
        self.layer = nn.ModuleList([RoCBertLayer(config, layer_idx=i) for i in range(config.num_hidden_layers)])
        self.layer_mix = RoCBertLayerMix(config.num_hidden_layers) if config.layer_fusion == "dynamic" else None

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None,
        fuse: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]] | None = None,
        fuse_before: int | None = None,
        last_positions: torch.LongTensor | None = None,
        encoder_hidden_states: torch.Tensor | None = None,
        **kwargs,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """
        Args:
            hidden_states: the embeddings, (batch, sequence, hidden).
            fuse: makes of hidden states the fused ones and the weights.
            fuse_before: the layer whose input is fused; the number of layers for the last one's output.

        Returns:
            The last hidden states (batch, sequence or n, hidden), or the mean of all layers' with `layer_mix`; and the fusion's weights, if there is one.
        """
        fusion_weights = None
        shares = None if self.layer_mix is None else self.layer_mix()
        mixed = 0
        for index, layer in enumerate(self.layer):
            if index == fuse_before:
                hidden_states, fusion_weights = fuse(hidden_states)
            if index == len(self.layer) - 1 and last_positions is not None:
                hidden_states = layer_at(layer, hidden_states, attention_mask, last_positions)
            else:
                hidden_states = layer(hidden_states, attention_mask, encoder_hidden_states, **kwargs)
            if index == len(self.layer) - 1 and fuse_before == len(self.layer):
                hidden_states, fusion_weights = fuse(hidden_states)
            if shares is not None:
                mixed = mixed + shares[index].to(hidden_states.dtype) * hidden_states
        return hidden_states if shares is None else mixed, fusion_weights

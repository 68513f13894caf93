r"""
Functional relative positions (NEZHA, Wei et al. 2019, section 2.1): attention sees how far apart two tokens are.

With r = j - i, no parameters, and the same for all heads and layers,

    R_ij[2k] = sin(r / 10000^(2k/d)),   R_ij[2k+1] = cos(r / 10000^(2k/d))
    e_ij = q_i (k_j + R_ij) / sqrt(d),   z_i = sum_j softmax(e_i)_j (v_j + R_ij)

NEZHA clips r to -K..K and then counts it from 0: r = clip(j - i, -K, K) + K. Its checkpoints have learnt with that, so with
`max_relative_position=K` it is done here too. No tensor of shape (sequence, sequence, d) is ever made.
"""

import torch

from .acceleration_rocbert import RoCBertEncoderAttention
from .configuration_rocbert import RoCBertConfig


class RoCBertRelativeAttention(RoCBertEncoderAttention):
    """
    Self-attention with functional relative positions.

    If nothing is clipped, the sine of a difference factorises: e_ij = (q_i k_j + turn(q_i, i) S_j) / sqrt(d), S_j being the
    sines and cosines of j alone. So attention over queries, keys and values of twice the width gives the result, by any
    implementation. If distances are clipped, there are only 2K + 1 of them, and scores are looked up among their products
    with the queries; "sdpa" then computes what "eager" does.
    """

    def __init__(self, config: RoCBertConfig, is_causal: bool = False, layer_idx: int | None = None):
        super().__init__(config, is_causal=is_causal, layer_idx=layer_idx)
        self.max_distance = config.max_relative_position

    def forward(self, hidden_states, attention_mask=None, past_key_values=None, **kwargs):
        return self._attend(hidden_states, hidden_states, attention_mask, None)

    def attend(self, queried, hidden_states, attention_mask=None, positions=None):
        return self._attend(queried, hidden_states, attention_mask, positions)[0]

    def _attend(self, queried, hidden_states, attention_mask, positions):
        query, key, value = self.project(queried, hidden_states)
        length = hidden_states.shape[1]
        if positions is None:
            positions = torch.arange(length, device=query.device)[None]
        # a graph must hold for texts of other lengths too
        fixed = torch.compiler.is_compiling() or torch.jit.is_tracing()
        if self.max_distance is None or (not fixed and length <= self.max_distance + 1):
            return self._by_angles(query, key, value, attention_mask, positions)
        return self._by_distances(query, key, value, attention_mask, positions)

    def _by_angles(self, query, key, value, attention_mask, positions):
        """All distances count: (batch, heads, n or sequence, size) each, positions (1 or batch, n) of the queries."""
        angles = self._angles(positions)[:, None]
        places = torch.arange(key.shape[2], device=key.device) + (self.max_distance or 0)
        waves = _interleave(self._angles(places).sin(), self._angles(places).cos()).to(key.dtype).expand_as(key)
        doubled, weights = self.mix(
            torch.cat([query, turn(query, angles)], dim=-1),
            torch.cat([key, waves], dim=-1),
            torch.cat([value, waves], dim=-1),
            attention_mask,
        )
        context, seen = doubled.chunk(2, dim=-1)
        return (context + turn(seen, -angles.transpose(1, 2))).flatten(-2), weights

    def _by_distances(self, query, key, value, attention_mask, positions):
        """Distances are clipped: as `_by_angles`."""
        if attention_mask is not None and getattr(attention_mask, "ndim", 0) != 4:
            raise ValueError(
                f"`max_relative_position={self.max_distance}` with a longer text needs `attn_implementation` to be sdpa or "
                f"eager; got {self.config._attn_implementation}."
            )
        limit = self.max_distance
        places = torch.arange(key.shape[2], device=key.device)
        index = (places - positions[..., None]).clamp(-limit, limit)[:, None] + limit
        index = index.expand(*query.shape[:3], -1)
        angles = self._angles(torch.arange(2 * limit + 1, device=key.device))
        table = _interleave(angles.sin(), angles.cos()).to(query.dtype)
        query = query * self.scaling
        scores = query @ key.transpose(-1, -2) + (query @ table.T).gather(-1, index)
        if attention_mask is not None and attention_mask.dtype == torch.bool:
            scores = scores.masked_fill(~attention_mask, torch.finfo(scores.dtype).min)
        elif attention_mask is not None:
            scores = scores + attention_mask
        weights = self.dropout(scores.softmax(-1))
        by_distance = weights.new_zeros(*query.shape[:3], len(table)).scatter_add(-1, index, weights)
        context = weights @ value + by_distance @ table
        return context.transpose(1, 2).flatten(-2), weights

    def _angles(self, positions: torch.Tensor) -> torch.Tensor:
        """(...) -> (..., size / 2): the position times each frequency, in float32 or wider."""
        size = self.attention_head_size
        dtype = torch.float64 if self.query.weight.dtype == torch.float64 else torch.float32
        exponents = torch.arange(0, size, 2, device=positions.device, dtype=dtype) / size
        return positions[..., None] * torch.pow(10000.0, -exponents)


def turn(vectors: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    """Each pair of neighbouring numbers (x, y) as (x cos a + y sin a, y cos a - x sin a); angles (..., size / 2)."""
    x, y = vectors.unflatten(-1, (-1, 2)).unbind(-1)
    sine, cosine = angles.sin().to(vectors.dtype), angles.cos().to(vectors.dtype)
    return _interleave(x * cosine + y * sine, y * cosine - x * sine)


def _interleave(even: torch.Tensor, odd: torch.Tensor) -> torch.Tensor:
    return torch.stack([even, odd], dim=-1).flatten(-2)

"""
How RoCBERT's three channels are fused: one class per fusion, each the equation that docs/reference/fusion.md prints.

A fusion sees the hidden states and, by name, the vectors of the other channels. It knows nothing of ids, tables or the
layers around it. To add one, write its class here and name it in `WEIGHING_FUSIONS` of configuration_rocbert.py.
"""

import math

import torch
from torch import nn
from transformers import initialization as init
from transformers.models.roc_bert.modeling_roc_bert import RoCBertSelfOutput

from .configuration_rocbert import WEIGHING_FUSIONS, RoCBertConfig

# the order of the fusion weights that the model returns, and of layer_insert's matrices
CHANNELS = ("text", "pronunciation", "shape")


def wide(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor in float32, or wider if it is wider."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def dot(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Sum of products over the last dimension, accumulated in float32 (or wider)."""
    return torch.linalg.vecdot(wide(a), wide(b))


def weighted_sum(weights: torch.Tensor, vectors: list[torch.Tensor]) -> torch.Tensor:
    """`w1 x1 + w2 x2 + ...`: weights (..., n) and n vectors (..., hidden) -> (..., hidden)."""
    return sum(weights[..., i, None] * vector for i, vector in enumerate(vectors))


class RoCBertFusion(nn.Module):
    """
    What the fusions that weigh the three channels of each token have in common.

    A fusion is applied to the input of encoder layer `layer` (`num_hidden_layers`: to the last layer's output).
    """

    # whether a channel without ids reads padding (id 0) instead of taking no part
    reads_padding = False

    def __init__(self, config: RoCBertConfig):
        super().__init__()
        self.layer = config.fusion_layer

    def forward(
        self, hidden_states: torch.Tensor, vectors: dict[str, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Args:
            hidden_states: `H`, (batch, sequence, hidden).
            vectors: `"pronunciation"`, `Ph` of each token, (batch, sequence, pronunciation_embed_dim), and `"shape"`,
                its glyph features, (batch, sequence, shape_embed_dim), in this order. A channel that takes no part is
                absent.

        Returns:
            `H'` (batch, sequence, hidden), and the weights (batch, sequence, 1 + len(vectors)) of text and of the
            channels in `vectors`; they sum to 1.
        """
        raise NotImplementedError

    def init_weights(self, std: float) -> None:
        """Initialises the parameters that belong to no submodule."""


class RoCBertLayerInsertFusion(RoCBertFusion):
    r"""
    Fuses the channels in the input `H` of one encoder layer (section 4.1), per token:

        w1 = (K1^T H).(H V1),  w2 = (K2^T H).(Ph V2),  w3 = (K3^T H).(Vi V3)
        H' = (w1 H + w2 Ph + w3 Vi) / (w1 + w2 + w3)

    `"linear"` is that formula, its denominator kept away from 0; `"softmax"` replaces the quotients by a softmax of the
    scores over sqrt(hidden). `Vi = LayerNorm(M^T features)` (Eq. 4). A channel that is switched off, or whose ids are
    not given, takes no part. Sums over the hidden dimension and the normalisation are computed in float32.

    Each score is bilinear, `H^T (K V^T) X`, so one product of `H` with the three matrices `K V^T` replaces six.
    """

    # |w1 + w2 + w3| below this counts as this: H' stays finite where the scores cancel
    SMALLEST_SUM = 1e-3

    def __init__(self, config: RoCBertConfig):
        super().__init__(config)
        size = config.hidden_size
        self.normalization = config.fusion_normalization
        self.key = nn.Parameter(torch.empty(3, size, size))
        self.value = nn.Parameter(torch.empty(3, size, size))
        if config.enable_shape:
            self.shape_projection = nn.Linear(config.shape_embed_dim, size, bias=False)
            self.shape_norm = nn.LayerNorm(size, eps=config.layer_norm_eps)

    def init_weights(self, std: float) -> None:
        init.normal_(self.key, std=std)
        init.normal_(self.value, std=std)

    def forward(self, hidden_states, vectors):
        channels = {"text": hidden_states, **vectors}
        if "shape" in channels:
            channels["shape"] = self.project_shapes(channels["shape"])
        # one product with the matrices side by side: (batch, sequence, channels * hidden)
        queries = hidden_states @ torch.cat(list(self.bilinear(*channels)), dim=-1)
        queries = queries.chunk(len(channels), dim=-1)
        scores = [dot(query, vector) for query, vector in zip(queries, channels.values(), strict=True)]
        weights = self.normalize(torch.stack(scores, dim=-1))
        return weighted_sum(weights, list(channels.values())).to(hidden_states.dtype), weights

    def project_shapes(self, features: torch.Tensor) -> torch.Tensor:
        """`Vi` (Eq. 4) of glyph features: (..., shape_embed_dim) -> (..., hidden)."""
        return self.shape_norm(self.shape_projection(features))

    def bilinear(self, *channels: str) -> torch.Tensor:
        """`K V^T` of the named channels, (channels, hidden, hidden)."""
        if channels == CHANNELS:  # indexing costs a copy, and its gradient more
            return self.key @ self.value.transpose(1, 2)
        rows = [CHANNELS.index(channel) for channel in channels]
        return self.key[rows] @ self.value[rows].transpose(1, 2)

    def normalize(self, scores: torch.Tensor) -> torch.Tensor:
        """Scores (..., channels) -> weights that sum to 1."""
        if self.normalization == "softmax":
            return (scores / math.sqrt(self.key.shape[-1])).softmax(-1)
        total = scores.sum(-1, keepdim=True)
        guarded = torch.where(total < 0, total.clamp(max=-self.SMALLEST_SUM), total.clamp(min=self.SMALLEST_SUM))
        return scores / guarded


class RoCBertAttentionFusion(RoCBertFusion):
    r"""
    Attention of each token to its own three channels, as in the authors' released code (`merge_input_way="attention"`);
    d is the size of an attention head, though there is one score over all of `hidden`:

        q = Wq H + bq;   k1, v1 = Wk H + bk, Wv H + bv;   k2, v2 of Ph and k3, v3 of the glyph features alike
        w = softmax((q.k1, q.k2, q.k3) / sqrt(d))
        H' = LayerNorm(H + dropout(Wo (w1 v1 + w2 v2 + w3 v3) + bo))

    A channel that is switched off takes no part. One whose ids are not given reads padding, as in that code.
    """

    reads_padding = True

    def __init__(self, config: RoCBertConfig):
        super().__init__(config)
        size = config.hidden_size
        self.scale = math.sqrt(size // config.num_attention_heads)
        self.query = nn.Linear(size, size)
        self.key = nn.Linear(size, size)
        self.value = nn.Linear(size, size)
        if config.enable_pronunciation:
            self.key_pronunciation = nn.Linear(config.pronunciation_embed_dim, size)
            self.value_pronunciation = nn.Linear(config.pronunciation_embed_dim, size)
        if config.enable_shape:
            self.key_shape = nn.Linear(config.shape_embed_dim, size)
            self.value_shape = nn.Linear(config.shape_embed_dim, size)
        self.output = RoCBertSelfOutput(config)

    def forward(self, hidden_states, vectors):
        pairs = [self.key_and_value(channel, x) for channel, x in vectors.items()]
        return self.attend(hidden_states, pairs)

    def key_and_value(self, channel: str, vectors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Key and value of a channel's vectors, (..., hidden) each."""
        if channel == "pronunciation":
            return self.key_pronunciation(vectors), self.value_pronunciation(vectors)
        return self.key_shape(vectors), self.value_shape(vectors)

    def attend(
        self, hidden_states: torch.Tensor, pairs: list[tuple[torch.Tensor, torch.Tensor]]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """`H'` and the weights, from the keys and values of the other channels."""
        query = self.query(hidden_states)
        keys, values = zip((self.key(hidden_states), self.value(hidden_states)), *pairs, strict=True)
        weights = (torch.stack([dot(query, key) for key in keys], dim=-1) / self.scale).softmax(-1)
        mixed = weighted_sum(weights, list(values)).to(hidden_states.dtype)
        return self.output(mixed, hidden_states).to(hidden_states.dtype), weights


class RoCBertTwoStepFusion(RoCBertFusion):
    r"""
    Decides the channels' weights first, then encodes what they select, in the embeddings, before the encoder:

        X1 = LayerNorm(word + segment + position),  X2 = LayerNorm(A^T Ph),  X3 = Vi = LayerNorm(M^T features)  (Eq. 4)
        step 1:  w = softmax(U [X1; X2; X3] + u)
        step 2:  H = LayerNorm(D [w1 X1; w2 X2; w3 X3] + d)

    `U` is (3, 3 hidden), `D` (hidden, 3 hidden). The paper's ablation has a two-step fusion beside concatenation, sum
    and layer-insert, which determines weights first and then encodes selectively; we know of no formula for it, so this
    is our reading, after the gated fusion of ReaLiSe (Xu et al., Findings of ACL 2021), whose gates too look at all
    channels of a token. It is `concat` with weights. A channel that is switched off, or whose ids are not given, takes
    no part (X = 0, w = 0).
    """

    def __init__(self, config: RoCBertConfig):
        super().__init__(config)
        self.layer = 0
        size = config.hidden_size
        self.channels = ["text"]
        if config.enable_pronunciation:
            self.channels.append("pronunciation")
            self.pronunciation_projection = nn.Linear(config.pronunciation_embed_dim, size, bias=False)
            self.pronunciation_norm = nn.LayerNorm(size, eps=config.layer_norm_eps)
        if config.enable_shape:
            self.channels.append("shape")
            self.shape_projection = nn.Linear(config.shape_embed_dim, size, bias=False)
            self.shape_norm = nn.LayerNorm(size, eps=config.layer_norm_eps)
        self.gate = nn.Linear(len(self.channels) * size, len(self.channels))
        self.encode = nn.Linear(len(self.channels) * size, size)
        self.norm = nn.LayerNorm(size, eps=config.layer_norm_eps)

    def forward(self, hidden_states, vectors):
        channels = {"text": hidden_states}
        channels |= {channel: self.project(channel, x) for channel, x in vectors.items()}
        scores = self.gate(self._side_by_side(channels))
        weights = self.weigh(scores, list(channels))
        selected = {name: weights[..., i, None].to(x.dtype) * x for i, (name, x) in enumerate(channels.items())}
        return self.norm(self.encode(self._side_by_side(selected))).to(hidden_states.dtype), weights

    def project(self, channel: str, vectors: torch.Tensor) -> torch.Tensor:
        """`X` of a channel's vectors, (..., hidden)."""
        if channel == "pronunciation":
            return self.pronunciation_norm(self.pronunciation_projection(vectors))
        return self.shape_norm(self.shape_projection(vectors))

    def weigh(self, scores: torch.Tensor, present: list[str]) -> torch.Tensor:
        """Weights (..., len(present)) of the channels that take part, from scores (..., all channels)."""
        return wide(scores)[..., [self.channels.index(channel) for channel in present]].softmax(-1)

    def _side_by_side(self, channels: dict[str, torch.Tensor]) -> torch.Tensor:
        """(..., all channels * hidden), zeros for the channels that take no part."""
        nothing = torch.zeros_like(channels["text"])
        return torch.cat([channels.get(name, nothing) for name in self.channels], dim=-1)


def make_fusion(config: RoCBertConfig) -> RoCBertFusion | None:
    """The fusion that the configuration names; None if it does not weigh channels (`concat`, `sum`, `none`)."""
    name = WEIGHING_FUSIONS.get(config.fusion)
    return None if name is None else globals()[name](config)

"""
RoCBERT in PyTorch: a BERT encoder that reads every token's meaning, sound and shape (Su et al., ACL 2022, section 4.1).

The encoder layers are those of transformers; this file adds the phonetic and visual channels, their fusion, and the
heads. In reading order: channels, fusion, model, objective, heads.
"""

import functools
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.cache_utils import Cache, DynamicCache, EncoderDecoderCache
from transformers.generation import GenerationMixin
from transformers.masking_utils import create_bidirectional_mask, create_causal_mask
from transformers.modeling_outputs import (
    BaseModelOutputWithPoolingAndCrossAttentions,
    CausalLMOutputWithCrossAttentions,
    MaskedLMOutput,
    ModelOutput,
    MultipleChoiceModelOutput,
    QuestionAnsweringModelOutput,
    SequenceClassifierOutput,
    TokenClassifierOutput,
)
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.roc_bert.modeling_roc_bert import (
    RoCBertCrossAttention,
    RoCBertLayer,
    RoCBertLMPredictionHead,
    RoCBertOnlyMLMHead,
    RoCBertPooler,
    RoCBertSelfAttention,
    RoCBertSelfOutput,
    eager_attention_forward,
)
from transformers.processing_utils import Unpack
from transformers.utils.generic import can_return_tuple, merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .configuration_rocbert import RoCBertConfig

# Present where the package is installed; a checkpoint loaded with `trust_remote_code` brings the same tables as weights.
RESOURCES = Path(__file__).with_name("resources")


# ------------------------------------------------------------------------------------------------ built-in tables


@functools.cache
def pixel_glyph_features(dim: int) -> torch.Tensor:
    """
    Features of the packaged glyph images, in the orthonormal 2-D cosine basis: the `dim` lowest frequencies of each
    32x32 image (1,024 keep the whole image, rotated), centred and scaled to unit variance over the table. Euclidean
    distances are those of the slightly blurred images.

    Returns:
        `torch.FloatTensor` of shape (16,224, dim).

    Raises:
        ValueError: `dim` is over the 1,024 pixels of an image.
    """
    if not 1 <= dim <= 32 * 32:
        raise ValueError(f"`shape_embed_dim` must be in 1..1024 to hold features of 32x32 glyph images; got {dim}.")
    with np.load(RESOURCES / "glyphs.npz") as archive:
        packed = archive["packed"]
    images = np.stack([packed >> 4, packed & 15], axis=-1).reshape(-1, 32, 32).astype(np.float32) / 15
    frequency, position = np.mgrid[0:32, 0:32]
    basis = np.cos(np.pi * (position + 0.5) * frequency / 32).astype(np.float32) * math.sqrt(2 / 32)
    basis[0] /= math.sqrt(2)
    coefficients = (basis @ images @ basis.T).reshape(len(images), -1)
    lowest_first = np.argsort((frequency + position).reshape(-1), kind="stable")[:dim]
    features = coefficients[:, lowest_first]
    features -= features.mean(axis=0)
    return torch.from_numpy(features / features.std())


@functools.cache
def _packaged_pronunciation_letters() -> np.ndarray:
    """
    Which pronunciations each pronunciation of the packaged inventory is spelled with: a syllable by its letters ("ke"
    by those of "k" and "e"), every other entry by itself.

    Returns:
        int64 of shape (pronunciations, 6), padded with -1. (No tensor: one made while transformers builds a model
        would be on the meta device, and be kept.)
    """
    inventory = (RESOURCES / "pronunciations.txt").read_text(encoding="utf-8").split("\n")[:-1]
    ids = {entry: index for index, entry in enumerate(inventory)}
    letters = np.full((len(inventory), 6), -1, dtype=np.int64)
    for index, entry in enumerate(inventory):
        spelled = entry.isascii() and entry.isalpha()
        spelling = [ids[letter] for letter in entry] if spelled else [index]
        letters[index, : len(spelling)] = spelling
    return letters


def default_pronunciation_letters(size: int) -> torch.Tensor:
    """
    The spelling of `size` pronunciations, (size, 6): the packaged one where that is the packaged inventory's size;
    otherwise each entry stands for itself until [`RoCBertModel.set_pronunciation_letters`] or a checkpoint says more.
    """
    if (RESOURCES / "pronunciations.txt").is_file():
        letters = _packaged_pronunciation_letters()
        if len(letters) == size:
            return torch.from_numpy(letters.copy())
    letters = torch.full((size, 6), -1)
    letters[:, 0] = torch.arange(size)
    return letters


# ------------------------------------------------------------------------------------------------ channels


class DerivedTables(nn.Module):
    """
    Tables computed from weights, which inference need not compute again for every batch.

    In evaluation, without gradients, they are computed on first use and kept until one of the weights changes. (A
    change is seen by PyTorch's version counter, which writes through `weight.data` go past; after such writes call
    `train()` and `eval()`.) A compiled or exported graph must not hold a copy of weights that can change under it, so
    it computes them anew, unless `precompute` has promised that they will not.
    """

    def __init__(self):
        super().__init__()
        self._kept: tuple[list, dict[str, torch.Tensor]] | None = None

    def usable(self) -> bool:
        """Whether the caller may read `get` instead of computing differentiably."""
        if self.training or torch.is_grad_enabled():
            return False
        return bool(self._buffers) or not torch.compiler.is_compiling()

    def get(
        self, sources: list[torch.Tensor], compute: Callable[[], dict[str, torch.Tensor]]
    ) -> dict[str, torch.Tensor]:
        """The tables that `compute` returns, computed again only where one of `sources` has changed since."""
        if self._buffers:
            return self._buffers
        # tensors made in inference mode cannot be written to, so they count no versions
        versions = [0 if source.is_inference() else source._version for source in sources]
        state = [(source.data_ptr(), source.dtype, version) for source, version in zip(sources, versions, strict=True)]
        if self._kept is None or self._kept[0] != state:
            self._kept = (state, self._compute(compute, sources[0].device))
        return self._kept[1]

    @torch.no_grad()
    def precompute(self, device: torch.device, compute: Callable[[], dict[str, torch.Tensor]]) -> None:
        """Keeps the tables as they are now, in compiled and exported graphs too, until `train()`."""
        self.train(True).train(False)
        for name, table in self._compute(compute, device).items():
            self.register_buffer(name, table, persistent=False)

    @staticmethod
    def _compute(compute, device: torch.device) -> dict[str, torch.Tensor]:
        with torch.autocast(device.type, enabled=False):
            return compute()

    def train(self, mode: bool = True):
        if mode:
            self._kept = None
            self._buffers.clear()
            self._non_persistent_buffers_set.clear()
        return super().train(mode)

    def __getstate__(self):
        return {**self.__dict__, "_kept": None}


class RoCBertEmbeddings(nn.Module):
    """
    Word, position and segment embeddings, and the tables of the phonetic and the visual channel.

    With `concat` and `sum` fusion the channels are merged here, exactly as in transformers' `RoCBertEmbeddings`; with
    the others this module only holds their tables, `pronunciation_embed` and the frozen `shape_embed`.
    """

    def __init__(self, config: RoCBertConfig):
        super().__init__()
        self.fusion = config.fusion
        self.pad_token_id = config.pad_token_id
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=config.pad_token_id)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = RoCBertDropout(config.hidden_dropout_prob)

        self.has_pronunciation = config.enable_pronunciation and config.fusion != "none"
        self.has_shape = config.enable_shape and config.fusion != "none"
        merged_size = config.hidden_size
        if self.has_pronunciation:
            self.pronunciation_embed = nn.Embedding(
                config.pronunciation_vocab_size, config.pronunciation_embed_dim, padding_idx=config.pad_token_id
            )
            merged_size += config.pronunciation_embed_dim
        if self.has_shape:
            self.shape_embed = nn.Embedding(
                config.shape_vocab_size, config.shape_embed_dim, padding_idx=config.pad_token_id
            )
            self.freeze_glyph_features()
            merged_size += config.shape_embed_dim
        spelled = self.has_pronunciation and config.phonetic_encoder != "table"
        letters = default_pronunciation_letters(config.pronunciation_vocab_size) if spelled else None
        self.register_buffer("pronunciation_letters", letters)
        self.letter_convolution = None
        if spelled and config.phonetic_encoder == "char_cnn":
            size = config.pronunciation_embed_dim
            self.letter_convolution = nn.Conv1d(size, size, kernel_size=2)
        self.tables = DerivedTables()
        self.map_inputs_layer = nn.Linear(merged_size, config.hidden_size) if config.fusion == "concat" else None

    def freeze_glyph_features(self) -> None:
        """Keeps glyph features fixed where the fusion has a projection of them to learn (section 4.1)."""
        if self.has_shape and self.fusion in FUSION_MODULES:
            self.shape_embed.weight.requires_grad_(False)

    def pronunciation_table(self) -> torch.Tensor:
        """`Ph`: the vector of every pronunciation, (pronunciation_vocab_size, pronunciation_embed_dim), section 4.1."""
        table = self.pronunciation_embed.weight
        if self.pronunciation_letters is None:
            return table
        # a letter absent (-1) selects the appended row of zeros
        with_absent = torch.cat([table, table.new_zeros(1, table.shape[1])])
        if self.letter_convolution is not None:
            return self._convolve_letters(with_absent)
        letters = self.pronunciation_letters % len(with_absent)
        return nn.functional.embedding_bag(letters, with_absent, mode="sum")

    def _convolve_letters(self, vectors: torch.Tensor) -> torch.Tensor:
        r"""
        `phonetic_encoder="char_cnn"`: a pronunciation spelled with the letters l1..ln is

            Ph[d] = max over j in 0..n of (A l_j + B l_(j+1) + c)[d],   l_0 = l_(n+1) = 0

        a convolution two letters wide, max-pooled over the spelling, as in ChineseBERT's pinyin embedding (Sun et al.,
        ACL 2021), but over the vectors that the letters have in text. So it is for syllables and for the letters
        themselves, whose "k" is thus the beginning of "ke"; every other entry is its own vector.

        Args:
            vectors: (pronunciations + 1, dim), the last row zeros.
        """
        size = len(vectors) - 1
        present = self.pronunciation_letters >= 0
        spelled = present.sum(1) > 1
        # letters are the entries that others are spelled with; counting them keeps the shapes free of the data
        uses = (present & spelled[:, None]).to(torch.long).flatten()
        is_letter = torch.zeros(size + 1, dtype=torch.long, device=uses.device).index_add(
            0, self.pronunciation_letters.flatten() % (size + 1), uses
        )
        convolved = spelled | (is_letter[:size] > 0)

        letters = nn.functional.pad(self.pronunciation_letters, (1, 1), value=-1)
        touched = (letters[:, :-1] >= 0) | (letters[:, 1:] >= 0)
        letters = letters % (size + 1)
        first, second = self.letter_convolution.weight.unbind(-1)
        first, second = nn.functional.linear(vectors, first), nn.functional.linear(vectors, second)
        windows = first[letters[:, :-1]] + second[letters[:, 1:]]
        pooled = windows.masked_fill(~touched[..., None], -math.inf).amax(1) + self.letter_convolution.bias
        return torch.where(convolved[:, None], pooled, vectors[:-1])

    def forward(
        self,
        input_ids: torch.LongTensor | None,
        input_shape_ids: torch.LongTensor | None,
        input_pronunciation_ids: torch.LongTensor | None,
        token_type_ids: torch.LongTensor | None,
        position_ids: torch.LongTensor,
        inputs_embeds: torch.FloatTensor | None,
    ) -> torch.Tensor:
        """All ids (batch, sequence), `inputs_embeds` (batch, sequence, hidden); returns (batch, sequence, hidden)."""
        words = self.word_embeddings(input_ids) if inputs_embeds is None else inputs_embeds
        if token_type_ids is None:
            segments = self.token_type_embeddings.weight[0]
        else:
            segments = self.token_type_embeddings(token_type_ids)
        positions = self.position_embeddings(position_ids)
        if self.fusion == "concat":
            return self.dropout(
                self.LayerNorm(
                    self._concatenate(words, input_shape_ids, input_pronunciation_ids) + segments + positions
                )
            )
        embeddings = self.dropout(self.LayerNorm(words + segments + positions))
        return (
            self._average(embeddings, input_shape_ids, input_pronunciation_ids) if self.fusion == "sum" else embeddings
        )

    def pronunciation(self, ids: torch.LongTensor) -> torch.Tensor:
        """`Ph` of pronunciation ids: (batch, sequence) -> (batch, sequence, pronunciation_embed_dim)."""
        if self.pronunciation_letters is not None and self.tables.usable():
            table = self.tables.get(self.pronunciation_sources(), self._compute_tables)["pronunciation"]
        else:
            table = self.pronunciation_table()
        return nn.functional.embedding(ids, table, padding_idx=self.pad_token_id)

    def pronunciation_sources(self) -> list[torch.Tensor]:
        """The tensors that `pronunciation_table` is computed from."""
        if not self.has_pronunciation:
            return []
        sources = [self.pronunciation_embed.weight]
        if self.pronunciation_letters is not None:
            sources.append(self.pronunciation_letters)
        if self.letter_convolution is not None:
            sources += self.letter_convolution.parameters()
        return sources

    def precompute_tables(self) -> None:
        if self.pronunciation_letters is not None and self.fusion in ("concat", "sum"):
            self.tables.precompute(self.pronunciation_embed.weight.device, self._compute_tables)

    def _compute_tables(self) -> dict[str, torch.Tensor]:
        return {"pronunciation": self.pronunciation_table()}

    def _concatenate(self, words, shape_ids, pronunciation_ids):
        channels = [words]
        absent = torch.zeros(words.shape[:2], dtype=torch.long, device=words.device)
        if self.has_shape:
            channels.append(self.shape_embed(absent if shape_ids is None else shape_ids))
        if self.has_pronunciation:
            channels.append(self.pronunciation(absent if pronunciation_ids is None else pronunciation_ids))
        return self.map_inputs_layer(torch.cat(channels, dim=-1))

    def _average(self, embeddings, shape_ids, pronunciation_ids):
        channels = [embeddings]
        if self.has_shape and shape_ids is not None:
            channels.append(self.shape_embed(shape_ids))
        if self.has_pronunciation and pronunciation_ids is not None:
            channels.append(self.pronunciation(pronunciation_ids))
        return torch.stack(channels).sum(0) / len(channels)


# ------------------------------------------------------------------------------------------------ fusion


class RoCBertFusion(nn.Module):
    """
    What the fusions that weigh the three channels of each token have in common. A fusion is applied to the output of
    encoder layer `after_layer` (-1: of the embeddings), and says two things: how it fuses from the weights that learn
    (`_fuse`), and what it can look up instead, by the channels' ids, while they stay as they are (`_compute_tables`).

    Channels are numbered 0 text, 1 sound, 2 shape.
    """

    def __init__(self, config: RoCBertConfig):
        super().__init__()
        self.after_layer = config.fusion_layer
        self.tables = DerivedTables()

    def forward(
        self,
        hidden_states: torch.Tensor,
        embeddings: RoCBertEmbeddings,
        pronunciation_ids: torch.LongTensor | None,
        shape_ids: torch.LongTensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Args:
            hidden_states: `H`, (batch, sequence, hidden).
            embeddings: holds the tables of the two channels.
            pronunciation_ids, shape_ids: (batch, sequence).

        Returns:
            `H'` (batch, sequence, hidden), and the normalised weights (batch, sequence, 3) of text, sound and shape,
            0 for a channel that took no part.
        """
        ids = {
            1: pronunciation_ids if embeddings.has_pronunciation else None,
            2: shape_ids if embeddings.has_shape else None,
        }
        ids = {channel: channel_ids for channel, channel_ids in ids.items() if channel_ids is not None}
        if self.tables.usable():
            tables = self.tables.get(self._sources(embeddings), lambda: self._compute_tables(embeddings))
        else:
            tables = None
        fused, weights = self._fuse(hidden_states, embeddings, ids, tables)
        if len(ids) < 2:
            per_channel = weights.new_zeros(*weights.shape[:-1], 3)
            per_channel[..., [0, *ids]] = weights
            weights = per_channel
        return fused.to(hidden_states.dtype), weights

    def _fuse(
        self,
        hidden_states: torch.Tensor,
        embeddings: RoCBertEmbeddings,
        ids: dict[int, torch.LongTensor],
        tables: dict[str, torch.Tensor] | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """`H'`, and the weights (batch, sequence, 1 + len(ids)) of text and of the channels in `ids`."""
        raise NotImplementedError

    def _compute_tables(self, embeddings: RoCBertEmbeddings) -> dict[str, torch.Tensor]:
        raise NotImplementedError

    def _sources(self, embeddings: RoCBertEmbeddings) -> list[torch.Tensor]:
        """The tensors that the tables are computed from."""
        sources = [*self.parameters(), *embeddings.pronunciation_sources()]
        if embeddings.has_shape:
            sources.append(embeddings.shape_embed.weight)
        return sources

    def precompute_tables(self, embeddings: RoCBertEmbeddings) -> None:
        device = embeddings.word_embeddings.weight.device
        self.tables.precompute(device, lambda: self._compute_tables(embeddings))


class RoCBertLayerInsertFusion(RoCBertFusion):
    r"""
    Fuses the channels in the output `H` of one encoder layer (section 4.1), per token:

        w1 = (K1^T H).(H V1),  w2 = (K2^T H).(Ph V2),  w3 = (K3^T H).(Vi V3)
        H' = (w1 H + w2 Ph + w3 Vi) / (w1 + w2 + w3)

    `"linear"` is that formula, its denominator kept away from 0; `"softmax"` replaces the quotients by a softmax of the
    scores over sqrt(hidden). `Vi = LayerNorm(M^T features)` (Eq. 4). A channel that is switched off, or whose ids are
    not given, takes no part. Sums over the hidden dimension and the normalisation are computed in float32.

    Each score is bilinear, `H^T (K V^T) X`, so one product of `H` with the three matrices `K V^T` replaces six. In
    inference `K V^T X` of the two channels is a table over their ids too, and one product a token is left.
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

    def project_shapes(self, features: torch.Tensor) -> torch.Tensor:
        """`Vi` (Eq. 4) of glyph features: (..., shape_embed_dim) -> (..., hidden)."""
        return self.shape_norm(self.shape_projection(features))

    def _fuse(self, hidden_states, embeddings, ids, tables):
        if tables is None:
            vectors, scores = self._from_weights(hidden_states, embeddings, ids)
        else:
            vectors, scores = self._from_tables(hidden_states, ids, tables)
        weights = self._normalize(torch.stack(scores, dim=-1))
        return sum(weights[..., i, None] * vector for i, vector in enumerate(vectors)), weights

    def _from_weights(self, hidden_states, embeddings, ids):
        """The channels' vectors and scores, differentiable."""
        vectors = [hidden_states]
        if 1 in ids:
            vectors.append(embeddings.pronunciation(ids[1]))
        if 2 in ids:
            vectors.append(self.project_shapes(embeddings.shape_embed(ids[2])))
        channels = [0, *ids]
        # one product with the matrices side by side: (batch, sequence, channels * hidden)
        queries = hidden_states @ torch.cat(list(self._bilinear(channels)), dim=-1)
        queries = queries.chunk(len(channels), dim=-1)
        return vectors, [_dot(query, vector) for query, vector in zip(queries, vectors, strict=True)]

    def _from_tables(self, hidden_states, ids, tables):
        """The same from tables over the channels' ids: rows `[X, K V^T X]`."""
        vectors = [hidden_states]
        scores = [_dot(hidden_states @ tables["text"].to(hidden_states.dtype), hidden_states)]
        for channel, channel_ids in ids.items():
            vector, key = nn.functional.embedding(channel_ids, tables[_TABLE_OF[channel]]).chunk(2, dim=-1)
            vectors.append(vector)
            scores.append(_dot(hidden_states, key))
        return vectors, scores

    def _bilinear(self, channels: list[int]) -> torch.Tensor:
        """`K V^T` of the given channels, (channels, hidden, hidden)."""
        if len(channels) == len(self.key):  # indexing costs a copy, and its gradient more
            return self.key @ self.value.transpose(1, 2)
        return self.key[channels] @ self.value[channels].transpose(1, 2)

    def _normalize(self, scores: torch.Tensor) -> torch.Tensor:
        if self.normalization == "softmax":
            return (scores / math.sqrt(self.key.shape[-1])).softmax(-1)
        total = scores.sum(-1, keepdim=True)
        guarded = torch.where(total < 0, total.clamp(max=-self.SMALLEST_SUM), total.clamp(min=self.SMALLEST_SUM))
        return scores / guarded

    def _compute_tables(self, embeddings):
        text, sound, shape = self._bilinear([0, 1, 2])
        tables = {"text": text}
        if embeddings.has_pronunciation:
            vectors = embeddings.pronunciation_table()
            tables["pronunciation"] = torch.cat([vectors, vectors @ sound.T], dim=-1)
        if embeddings.has_shape:
            vectors = self.project_shapes(embeddings.shape_embed.weight)
            tables["shape"] = torch.cat([vectors, vectors @ shape.T], dim=-1)
        return tables


class RoCBertAttentionFusion(RoCBertFusion):
    r"""
    Attention of each token to its own three channels, as in the authors' released code (`merge_input_way="attention"`);
    d is the size of an attention head, though there is one score over all of `hidden`:

        q = Wq H + bq;   k1, v1 = Wk H + bk, Wv H + bv;   k2, v2 of Ph and k3, v3 of the glyph features alike
        w = softmax((q.k1, q.k2, q.k3) / sqrt(d))
        H' = LayerNorm(H + dropout(Wo (w1 v1 + w2 v2 + w3 v3) + bo))

    A channel that is switched off takes no part. One whose ids are not given reads padding, as in that code.
    """

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

    def forward(self, hidden_states, embeddings, pronunciation_ids, shape_ids):
        absent = torch.zeros(hidden_states.shape[:2], dtype=torch.long, device=hidden_states.device)
        return super().forward(
            hidden_states,
            embeddings,
            absent if pronunciation_ids is None else pronunciation_ids,
            absent if shape_ids is None else shape_ids,
        )

    def _fuse(self, hidden_states, embeddings, ids, tables):
        query = self.query(hidden_states)
        keys, values = [self.key(hidden_states)], [self.value(hidden_states)]
        for channel, channel_ids in ids.items():
            if tables is None:
                key, value = self._key_and_value(channel, embeddings, channel_ids)
            else:
                key, value = nn.functional.embedding(channel_ids, tables[_TABLE_OF[channel]]).chunk(2, dim=-1)
            keys.append(key)
            values.append(value)
        weights = (torch.stack([_dot(query, key) for key in keys], dim=-1) / self.scale).softmax(-1)
        mixed = sum(weights[..., i, None] * value for i, value in enumerate(values))
        return self.output(mixed.to(hidden_states.dtype), hidden_states), weights

    def _key_and_value(self, channel, embeddings, ids):
        """Key and value of a channel's `ids`, or of all that there are where these are None."""
        if channel == 1:
            vectors = embeddings.pronunciation_table() if ids is None else embeddings.pronunciation(ids)
            return self.key_pronunciation(vectors), self.value_pronunciation(vectors)
        vectors = embeddings.shape_embed.weight if ids is None else embeddings.shape_embed(ids)
        return self.key_shape(vectors), self.value_shape(vectors)

    def _compute_tables(self, embeddings):
        present = {1: embeddings.has_pronunciation, 2: embeddings.has_shape}
        return {
            _TABLE_OF[channel]: torch.cat(self._key_and_value(channel, embeddings, None), dim=-1)
            for channel, is_present in present.items()
            if is_present
        }


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
        self.after_layer = -1
        size = config.hidden_size
        self.channels = [0]
        if config.enable_pronunciation:
            self.channels.append(1)
            self.pronunciation_projection = nn.Linear(config.pronunciation_embed_dim, size, bias=False)
            self.pronunciation_norm = nn.LayerNorm(size, eps=config.layer_norm_eps)
        if config.enable_shape:
            self.channels.append(2)
            self.shape_projection = nn.Linear(config.shape_embed_dim, size, bias=False)
            self.shape_norm = nn.LayerNorm(size, eps=config.layer_norm_eps)
        self.gate = nn.Linear(len(self.channels) * size, len(self.channels))
        self.encode = nn.Linear(len(self.channels) * size, size)
        self.norm = nn.LayerNorm(size, eps=config.layer_norm_eps)

    def _fuse(self, hidden_states, embeddings, ids, tables):
        scores, encoded = self._contributions(0, hidden_states)
        encodings = [encoded]
        for channel, channel_ids in ids.items():
            if tables is None:
                gated, encoded = self._contributions(channel, self._vectors(channel, embeddings, channel_ids))
            else:
                rows = nn.functional.embedding(channel_ids, tables[_TABLE_OF[channel]])
                gated, encoded = rows.split([len(self.channels), rows.shape[-1] - len(self.channels)], dim=-1)
            scores = scores + gated
            encodings.append(encoded)
        scores = _wide(scores + self.gate.bias)[..., [self.channels.index(channel) for channel in (0, *ids)]]
        weights = scores.softmax(-1)
        encoded = sum(weights[..., i, None] * encoding for i, encoding in enumerate(encodings)) + self.encode.bias
        return self.norm(encoded.to(hidden_states.dtype)), weights

    def _contributions(self, channel: int, vectors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The columns of `U` and `D` that belong to a channel, times its vectors (..., hidden)."""
        size = vectors.shape[-1]
        start = self.channels.index(channel) * size
        gated, encoded = (layer.weight[:, start : start + size] for layer in (self.gate, self.encode))
        return nn.functional.linear(vectors, gated), nn.functional.linear(vectors, encoded)

    def _vectors(self, channel, embeddings, ids):
        """`X` of a channel's `ids`, or of all that there are where these are None."""
        if channel == 1:
            vectors = embeddings.pronunciation_table() if ids is None else embeddings.pronunciation(ids)
            return self.pronunciation_norm(self.pronunciation_projection(vectors))
        vectors = embeddings.shape_embed.weight if ids is None else embeddings.shape_embed(ids)
        return self.shape_norm(self.shape_projection(vectors))

    def _compute_tables(self, embeddings):
        return {
            _TABLE_OF[channel]: torch.cat(self._contributions(channel, self._vectors(channel, embeddings, None)), -1)
            for channel in self.channels[1:]
        }


_TABLE_OF = {1: "pronunciation", 2: "shape"}
FUSION_MODULES: dict[str, type[RoCBertFusion]] = {
    "layer_insert": RoCBertLayerInsertFusion,
    "attention": RoCBertAttentionFusion,
    "two_step": RoCBertTwoStepFusion,
}


def _wide(tensor: torch.Tensor) -> torch.Tensor:
    """In float32, or wider where it is."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def _dot(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Sum of products over the last dimension, accumulated in float32 (or wider)."""
    return torch.linalg.vecdot(_wide(a), _wide(b))


# ------------------------------------------------------------------------------------------------ model


class RoCBertDropout(nn.Dropout):
    """
    Dropout that on a CPU draws 16 random bits an element, four elements at a time, which takes a third of the time that
    torch's takes there; the rate is rounded to a multiple of 2**-16, and what is kept is scaled by the rounded rate.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if not self.draws_itself(input):
            return super().forward(input)
        steps = 1 << 16
        dropped = round(self.p * steps)
        bits = torch.empty((input.numel() + 3) // 4, dtype=torch.int64).random_(-(1 << 63), None)
        kept = bits.view(torch.int16)[: input.numel()].view(input.shape) >= dropped - steps // 2
        return input.mul(kept).mul_(steps / (steps - dropped))

    def draws_itself(self, input: torch.Tensor) -> bool:
        """Whether there is something to drop, and it is done here."""
        return self.training and input.device.type == "cpu" and 0 < self.p < 1 and not torch.compiler.is_compiling()


class RoCBertEncoderAttention(RoCBertSelfAttention):
    """
    The self-attention of transformers, by the implementation that the configuration names. Only where "sdpa" has to drop
    out on a CPU it is computed here: torch has no kernel for that, and its detour takes nearly twice as long in bfloat16.
    """

    def __init__(self, config: RoCBertConfig, is_causal: bool = False, layer_idx: int | None = None):
        super().__init__(config, is_causal=is_causal, layer_idx=layer_idx)
        self.dropout = RoCBertDropout(config.attention_probs_dropout_prob)

    def forward(self, hidden_states, attention_mask=None, past_key_values=None, **kwargs):
        if self.is_decoder or not self._drops_out_here(hidden_states):
            return super().forward(hidden_states, attention_mask, past_key_values, **kwargs)
        return self.attend(hidden_states, hidden_states, attention_mask), None

    def attend(self, queried: torch.Tensor, hidden_states: torch.Tensor, attention_mask=None) -> torch.Tensor:
        """
        What the positions `queried`, (batch, n, hidden), see of all `hidden_states`, (batch, sequence, hidden).

        Args:
            attention_mask: (batch, 1, 1 or n, sequence), as transformers makes it for the implementation.

        Returns:
            (batch, n, hidden).
        """
        query, key, value = (
            projected.unflatten(-1, (-1, self.attention_head_size)).transpose(1, 2)
            for projected in (self.query(queried), self.key(hidden_states), self.value(hidden_states))
        )
        if self._drops_out_here(hidden_states):
            scores = (query * self.scaling) @ key.transpose(-1, -2)
            if attention_mask is not None and attention_mask.dtype == torch.bool:
                scores = scores.masked_fill(~attention_mask, torch.finfo(scores.dtype).min)
            elif attention_mask is not None:
                scores = scores + attention_mask
            return (self.dropout(scores.softmax(-1)) @ value).transpose(1, 2).flatten(-2)
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention_forward)
        dropout = self.dropout.p if self.training else 0.0
        context, _ = attend(
            self, query, key, value, attention_mask, dropout=dropout, scaling=self.scaling, is_causal=False
        )
        return context.flatten(-2)

    def _drops_out_here(self, hidden_states: torch.Tensor) -> bool:
        return self.dropout.draws_itself(hidden_states) and self.config._attn_implementation == "sdpa"


class RoCBertEncoder(nn.Module):
    """
    The stack of encoder layers; `fuse`, if given, is applied to the output of layer `after_layer` (-1: to the input).
    With `last_positions` (batch, n) the last layer is computed for these positions alone.
    """

    def __init__(self, config: RoCBertConfig):
        super().__init__()
        self.config = config
        self.layer = nn.ModuleList([RoCBertLayer(config, layer_idx=i) for i in range(config.num_hidden_layers)])
        for layer in self.layer:
            for output in (layer.attention.output, layer.output):
                output.dropout = RoCBertDropout(config.hidden_dropout_prob)
            attention = layer.attention.self
            layer.attention.self = RoCBertEncoderAttention(config, attention.is_causal, attention.layer_idx)

    def forward(
        self, hidden_states, attention_mask, fuse=None, after_layer=None, last_positions=None, **kwargs
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        fusion_weights = None
        if after_layer == -1:
            hidden_states, fusion_weights = fuse(hidden_states)
        for index, layer in enumerate(self.layer):
            if index == len(self.layer) - 1 and last_positions is not None:
                hidden_states = layer_at(layer, hidden_states, attention_mask, last_positions)
            else:
                hidden_states = layer(hidden_states, attention_mask, **kwargs)
            if index == after_layer:
                hidden_states, fusion_weights = fuse(hidden_states)
        return hidden_states, fusion_weights


def at_positions(hidden_states: torch.Tensor, positions: torch.LongTensor) -> torch.Tensor:
    """(batch, sequence, hidden) at (batch, n) positions: (batch, n, hidden)."""
    return hidden_states.gather(1, positions[..., None].expand(-1, -1, hidden_states.shape[-1]))


def layer_at(
    layer: RoCBertLayer, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None, positions: torch.LongTensor
) -> torch.Tensor:
    """
    The output of an encoder layer at some positions alone: these look at all tokens, but only for them are the query,
    the attention's output and the feed-forward part computed.

    Args:
        hidden_states: (batch, sequence, hidden); attention_mask: (batch, 1, 1 or sequence, sequence).
        positions: (batch, n).

    Returns:
        (batch, n, hidden), equal to the full output at these positions.
    """
    selected = at_positions(hidden_states, positions)
    # in an encoder every query may look at the same keys
    mask = None if attention_mask is None else attention_mask[:, :, :1]
    context = layer.attention.self.attend(selected, hidden_states, mask)
    return layer.feed_forward_chunk(layer.attention.output(context, selected))


class RoCBertPreTrainedModel(PreTrainedModel):
    config_class = RoCBertConfig
    config: RoCBertConfig
    base_model_prefix = "roc_bert"
    supports_gradient_checkpointing = True
    _no_split_modules = ["RoCBertEmbeddings", "RoCBertLayer"]  # noqa: RUF012
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_record_outputs = {  # noqa: RUF012
        "hidden_states": RoCBertLayer,
        "attentions": RoCBertSelfAttention,
        "cross_attentions": RoCBertCrossAttention,
    }

    def _initialize_weights(self, module, *is_custom_code):
        # told that this is code outside transformers, it would pass over modules without weights of their own, such as
        # `RoCBertEmbeddings`, lest loaded weights be initialised in place; `init`, used below, spares those itself
        super()._initialize_weights(module)

    @torch.no_grad()
    def _init_weights(self, module):
        super()._init_weights(module)
        std = self.config.initializer_range
        if isinstance(module, RoCBertLMPredictionHead):
            init.zeros_(module.bias)
        elif isinstance(module, RoCBertLayerInsertFusion):
            init.normal_(module.key, std=std)
            init.normal_(module.value, std=std)
        elif isinstance(module, RoCBertEmbeddings):
            self._init_channels(module, std)

    @classmethod
    def from_pretrained(cls, *args, **kwargs):
        loaded = super().from_pretrained(*args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        # loading makes every weight trainable
        model.base_model.embeddings.freeze_glyph_features()
        return loaded

    def precompute_tables(self):
        """
        Puts the model into evaluation mode, computes the tables that it can look up there (letters summed or convolved,
        shapes projected, keys and values of both channels) and keeps them as they are until `train()`, so that compiled
        and exported graphs look them up too. Weights must not be changed meanwhile.

        Returns:
            The model itself.
        """
        self.eval()
        base = self.base_model
        base.embeddings.precompute_tables()
        if base.fusion is not None:
            base.fusion.precompute_tables(base.embeddings)
        return self

    def prune_heads(self, heads_to_prune: dict[int, list[int]]) -> None:
        raise NotImplementedError(
            "Attention heads cannot be pruned: transformers 5 no longer does it. `rocbert_hf.deployment.quantize_int8` and "
            "ONNX export make inference cheaper."
        )

    def resize_token_embeddings(
        self, new_num_tokens: int | None = None, pad_to_multiple_of: int | None = None, mean_resizing: bool = True
    ) -> nn.Embedding:
        """
        As in transformers, and the tables of the two channels grow by as many entries: every token that
        `RoCBertTokenizer.add_tokens` adds has a shape and a pronunciation of its own. (They do not shrink.)
        """
        old_num_tokens = self.config.vocab_size
        word_embeddings = super().resize_token_embeddings(new_num_tokens, pad_to_multiple_of, mean_resizing)
        added = self.config.vocab_size - old_num_tokens
        embeddings = self.base_model.embeddings
        if added > 0 and embeddings.has_pronunciation:
            size = self.config.pronunciation_vocab_size + added
            embeddings.pronunciation_embed = self._get_resized_embeddings(
                embeddings.pronunciation_embed, size, mean_resizing=mean_resizing
            )
            if embeddings.pronunciation_letters is not None:
                own = embeddings.pronunciation_letters.new_full((added, embeddings.pronunciation_letters.shape[1]), -1)
                own[:, 0] = torch.arange(size - added, size)
                embeddings.pronunciation_letters = torch.cat([embeddings.pronunciation_letters, own])
        if added > 0 and embeddings.has_shape:
            embeddings.shape_embed = self._get_resized_embeddings(
                embeddings.shape_embed, self.config.shape_vocab_size + added, mean_resizing=mean_resizing
            )
            embeddings.freeze_glyph_features()
        if added > 0:
            self.config.pronunciation_vocab_size += added
            self.config.shape_vocab_size += added
        return word_embeddings

    def _init_channels(self, embeddings: RoCBertEmbeddings, std: float) -> None:
        inserted = embeddings.fusion in FUSION_MODULES
        if embeddings.has_pronunciation and inserted:
            # Ph meets H, which a LayerNorm has just brought to unit variance; char_sum sums three letters a syllable
            summed = embeddings.letter_convolution is None
            init.normal_(embeddings.pronunciation_embed.weight, std=3**-0.5 if summed else 1.0)
        if embeddings.letter_convolution is not None:
            # a window of two letters is to be as wide as a letter
            init.normal_(
                embeddings.letter_convolution.weight, std=(2 * embeddings.letter_convolution.in_channels) ** -0.5
            )
        if embeddings.pronunciation_letters is not None:
            size = embeddings.pronunciation_letters.shape[0]
            init.copy_(embeddings.pronunciation_letters, default_pronunciation_letters(size))
        if embeddings.has_shape and _has_glyph_images(embeddings.shape_embed):
            features = pixel_glyph_features(embeddings.shape_embed.embedding_dim)
            init.copy_(embeddings.shape_embed.weight, features if inserted else features * std)


def _has_glyph_images(shape_embed: nn.Embedding) -> bool:
    """Whether the table is to be filled from the packaged glyph images: it has their size, and no checkpoint filled it."""
    if getattr(shape_embed.weight, "_is_hf_initialized", False) or not (RESOURCES / "glyphs.npz").is_file():
        return False
    rows, dim = shape_embed.weight.shape
    return rows == 16224 and dim <= 32 * 32


def first_token(hidden_states: torch.Tensor, attention_mask: torch.Tensor | None) -> torch.Tensor:
    """
    The state of [CLS]: of the first token that is not padding, so that texts padded on the left are pooled alike.

    Args:
        hidden_states: (batch, sequence, hidden).
        attention_mask: (batch, sequence), 1 for tokens and 0 for padding; without one, or with one that masks more than
            padding, the first token is taken.

    Returns:
        (batch, hidden).
    """
    if attention_mask is None or attention_mask.shape != hidden_states.shape[:2]:
        return hidden_states[:, 0]
    # argmax gives the first of equals
    first = attention_mask.long().argmax(1)
    return hidden_states[torch.arange(first.shape[0], device=first.device), first]


@dataclass
class RoCBertModelOutput(BaseModelOutputWithPoolingAndCrossAttentions):
    """
    Args:
        fusion_weights (`torch.FloatTensor` of shape (batch, sequence, 3), with `output_fusion_weights=True`):
            How much of text, sound and shape went into each token.
        others: as in `BaseModelOutputWithPoolingAndCrossAttentions`.
    """

    fusion_weights: torch.FloatTensor | None = None


class RoCBertModel(RoCBertPreTrainedModel):
    """
    The RoCBERT encoder (or decoder, with `is_decoder=True`), giving hidden states and the pooled [CLS].

    Args:
        config: a [`RoCBertConfig`].
        add_pooling_layer: whether the output has `pooler_output`.
    """

    def __init__(self, config: RoCBertConfig, add_pooling_layer: bool = True):
        super().__init__(config)
        self.gradient_checkpointing = False
        self.embeddings = RoCBertEmbeddings(config)
        self.encoder = RoCBertEncoder(config)
        self.fusion = FUSION_MODULES[config.fusion](config) if config.fusion in FUSION_MODULES else None
        self.pooler = RoCBertPooler(config) if add_pooling_layer else None
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        return self.embeddings.word_embeddings

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        self.embeddings.word_embeddings = value

    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        input_shape_ids: torch.LongTensor | None = None,
        input_pronunciation_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.LongTensor | None = None,
        position_ids: torch.LongTensor | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        encoder_hidden_states: torch.FloatTensor | None = None,
        encoder_attention_mask: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        use_cache: bool | None = None,
        output_fusion_weights: bool | None = None,
        output_positions: torch.LongTensor | None = None,
        **kwargs,
    ) -> RoCBertModelOutput:
        """
        Args:
            input_ids, input_shape_ids, input_pronunciation_ids, token_type_ids, position_ids, attention_mask:
                (batch, sequence); the three id tensors are what `RoCBertTokenizer` returns. Without `input_shape_ids`
                or `input_pronunciation_ids` that channel takes no part (`concat`, `attention`: reads padding, as in
                transformers and in the authors' code).
            inputs_embeds: (batch, sequence, hidden), instead of `input_ids`.
            encoder_hidden_states, encoder_attention_mask, past_key_values, use_cache: as in `BertModel`.
            output_fusion_weights: whether to return the (batch, sequence, 3) weights of text, sound and shape.
            output_positions: (batch, n), the only positions whose last hidden state is wanted. `last_hidden_state` is
                then (batch, n, hidden), the last layer is computed for them alone where that can be done, and the
                pooler reads the first of them.

        Raises:
            ValueError: an id is outside its table, the channels differ in shape, or `fusion_weights` are asked of a
                fusion that has none.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("Give exactly one of `input_ids` and `inputs_embeds`.")
        if output_fusion_weights and self.fusion is None:
            raise ValueError(
                f"`output_fusion_weights` needs a fusion that weighs ({', '.join(FUSION_MODULES)}); this is "
                f'"{self.config.fusion}".'
            )
        self._check_ids(input_ids, inputs_embeds, input_shape_ids, input_pronunciation_ids, token_type_ids)

        use_cache = bool(use_cache) and self.config.is_decoder
        if use_cache and past_key_values is None:
            past_key_values = EncoderDecoderCache(DynamicCache(config=self.config), DynamicCache(config=self.config))
        length = (input_ids if inputs_embeds is None else inputs_embeds).shape[1]
        if position_ids is None:
            past_length = past_key_values.get_seq_length() if past_key_values is not None else 0
            device = self.embeddings.position_embeddings.weight.device
            position_ids = torch.arange(past_length, past_length + length, device=device).unsqueeze(0)

        padding_mask = attention_mask
        embedded = self.embeddings(
            input_ids, input_shape_ids, input_pronunciation_ids, token_type_ids, position_ids, inputs_embeds
        )
        if self.config.is_decoder:
            attention_mask = create_causal_mask(
                config=self.config,
                inputs_embeds=embedded,
                attention_mask=attention_mask,
                past_key_values=past_key_values,
            )
        else:
            attention_mask = create_bidirectional_mask(
                config=self.config, inputs_embeds=embedded, attention_mask=attention_mask
            )
        if encoder_attention_mask is not None:
            encoder_attention_mask = create_bidirectional_mask(
                config=self.config,
                inputs_embeds=embedded,
                attention_mask=encoder_attention_mask,
                encoder_hidden_states=encoder_hidden_states,
            )

        def fuse(hidden_states):
            return self.fusion(hidden_states, self.embeddings, input_pronunciation_ids, input_shape_ids)

        hidden_states, fusion_weights = self.encoder(
            embedded,
            attention_mask,
            fuse,
            None if self.fusion is None else self.fusion.after_layer,
            output_positions if self._may_skip_positions(kwargs) else None,
            encoder_hidden_states=encoder_hidden_states,
            encoder_attention_mask=encoder_attention_mask,
            past_key_values=past_key_values,
            use_cache=use_cache,
            position_ids=position_ids,
            **kwargs,
        )
        if output_positions is not None and not self._may_skip_positions(kwargs):
            hidden_states = at_positions(hidden_states, output_positions)
        pooled = None
        if self.pooler is not None:
            sentence = first_token(hidden_states, padding_mask if output_positions is None else None)
            pooled = self.pooler(sentence[:, None])
        return RoCBertModelOutput(
            last_hidden_state=hidden_states,
            pooler_output=pooled,
            past_key_values=past_key_values if use_cache else None,
            fusion_weights=fusion_weights if output_fusion_weights else None,
        )

    def _may_skip_positions(self, options: dict) -> bool:
        """Whether the last layer may be computed for some positions alone, with the same result."""
        names = ("output_hidden_states", "output_attentions")
        recorded = any(options.get(name, getattr(self.config, name)) for name in names)
        fused_last = self.fusion is not None and self.fusion.after_layer == self.config.num_hidden_layers - 1
        # other implementations of attention take masks of other shapes
        plain = self.config._attn_implementation in ("sdpa", "eager") and not self.config.is_decoder
        return plain and not recorded and not fused_last

    def _check_ids(self, input_ids, inputs_embeds, shape_ids, pronunciation_ids, token_type_ids) -> None:
        expected = input_ids.shape if input_ids is not None else inputs_embeds.shape[:2]
        for name, ids, size, size_name in (
            ("input_ids", input_ids, self.config.vocab_size, "vocab_size"),
            ("input_shape_ids", shape_ids, self.config.shape_vocab_size, "shape_vocab_size"),
            (
                "input_pronunciation_ids",
                pronunciation_ids,
                self.config.pronunciation_vocab_size,
                "pronunciation_vocab_size",
            ),
            ("token_type_ids", token_type_ids, self.config.type_vocab_size, "type_vocab_size"),
        ):
            if ids is None:
                continue
            if ids.shape != expected:
                raise ValueError(
                    f"`{name}` has shape {tuple(ids.shape)}, the text has {tuple(expected)}: the channels must be "
                    "aligned; pass all that the tokenizer returned."
                )
            # where reading the values would not stall a GPU or break a graph
            if ids.device.type == "cpu" and not torch.compiler.is_compiling() and not torch.jit.is_tracing():
                low, high = ids.aminmax() if ids.numel() else (0, 0)
                if low < 0 or high >= size:
                    raise ValueError(
                        f"`{name}` has ids from {int(low)} to {int(high)}, but `{size_name}` is {size}: tokenize with "
                        "the tokenizer of this checkpoint, or call `resize_token_embeddings(len(tokenizer))` after "
                        "adding tokens."
                    )

    def set_pronunciation_letters(self, letters: torch.LongTensor) -> None:
        """
        Sets how each pronunciation is spelled, for `char_sum` and `char_cnn` with an inventory of one's own.

        Args:
            letters: (pronunciation_vocab_size, n): the ids of the letters of each pronunciation in their order, padded on
                the right with -1.

        Raises:
            ValueError: the model does not spell its pronunciations, or the tensor does not fit its inventory.
        """
        size = self.config.pronunciation_vocab_size
        if self.embeddings.pronunciation_letters is None:
            raise ValueError(
                '`set_pronunciation_letters` needs `phonetic_encoder="char_sum"` or `"char_cnn"`, and the phonetic '
                "channel."
            )
        if letters.ndim != 2 or len(letters) != size or letters.min() < -1 or letters.max() >= size:
            raise ValueError(
                f"`letters` must have shape ({size}, n) and hold ids in -1..{size - 1}; got shape "
                f"{tuple(letters.shape)} with ids {int(letters.min())}..{int(letters.max())}."
            )
        self.embeddings.pronunciation_letters = letters.to(self.embeddings.pronunciation_letters)

    @torch.no_grad()
    def load_glyph_features(self, path: str | os.PathLike, projection: bool = True) -> None:
        """
        Takes in pretrained glyph features (`examples/run_glyph_pretrain.py` makes them): fills the table of the visual
        channel and, with a fusion that projects it (Eq. 4), M and its norm, where the file has them.

        Args:
            path: of `glyph_features.safetensors`, or of the folder that holds it: `features` (shape_vocab_size,
                shape_embed_dim) and, if it has them, `shape_projection.weight` (hidden_size, shape_embed_dim),
                `shape_norm.weight` and `shape_norm.bias` (hidden_size,).
            projection: `False` leaves M and its norm as they are, for a model of another `hidden_size`.

        Raises:
            OSError: there is no such file.
            ValueError: the model has no visual channel, or the file does not fit it; the model is then unchanged.
        """
        table = self.embeddings.shape_embed.weight if self.embeddings.has_shape else None
        if table is None:
            raise ValueError('`load_glyph_features` needs the visual channel: `enable_shape`, and no `fusion="none"`.')
        targets = {"features": table}
        if projection and hasattr(self.fusion, "shape_projection"):
            targets["shape_projection.weight"] = self.fusion.shape_projection.weight
            targets["shape_norm.weight"] = self.fusion.shape_norm.weight
            targets["shape_norm.bias"] = self.fusion.shape_norm.bias
        loaded = _read_glyph_features(Path(path))
        for name, target in targets.items():
            if name not in loaded:
                continue
            if loaded[name].shape != target.shape:
                raise ValueError(
                    f"`path`: {name} of {str(path)!r} has shape {tuple(loaded[name].shape)}, this model has "
                    f"{tuple(target.shape)}."
                    + ("" if name == "features" else " `projection=False` takes in the features alone.")
                )
            if not torch.isfinite(loaded[name]).all():
                raise ValueError(f"`path`: {name} of {str(path)!r} has values that are not finite.")
        if self.config.fusion not in FUSION_MODULES:
            # as wide as the word embeddings that they join
            loaded["features"] *= self.config.initializer_range
        for name, target in targets.items():
            if name in loaded:
                target.copy_(loaded[name])


def _read_glyph_features(file: Path) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if file.is_dir():
        file = file / "glyph_features.safetensors"
    if not file.is_file():
        raise OSError(f"`path`: there is no file {str(file)!r}.")
    try:
        loaded = load_file(file)
    except SafetensorError as error:
        raise ValueError(f"`path`: {str(file)!r} is not a whole safetensors file ({error}).") from error
    if "features" not in loaded:
        raise ValueError(f"`path`: {str(file)!r} has no tensor `features`; it has {', '.join(sorted(loaded))}.")
    return loaded


# ------------------------------------------------------------------------------------------------ objective


def in_batch_contrastive_loss(
    anchors: torch.Tensor, positives: torch.Tensor, temperature: float = 0.01, first_own: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    In-batch softmax over cosine similarities (Eq. 5): each anchor is to find its own positive among all of them.

    Args:
        anchors: (batch, hidden).
        positives: (at least batch, hidden), more where those of other batches serve as negatives too.
        temperature: what similarities are divided by.
        first_own: row i of `anchors` belongs to row `first_own + i` of `positives`.

    Returns:
        The mean cross-entropy, and the share of anchors whose nearest positive is their own; both scalars.
    """
    anchors, positives = (nn.functional.normalize(_wide(vectors), dim=-1) for vectors in (anchors, positives))
    similarity = anchors @ positives.T
    own = torch.arange(first_own, first_own + len(anchors), device=anchors.device)
    loss = nn.functional.cross_entropy(similarity / temperature, own)
    return loss, (similarity.detach().argmax(-1) == own).float().mean()


def views_contrastive_loss(
    representations: torch.Tensor,
    temperature: float = 0.01,
    positives: torch.Tensor | None = None,
    first_own: int = 0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Loss and accuracy of `in_batch_contrastive_loss` between the attacked view and each other view, averaged: with two
    views the paper's Eq. 5, with three what the authors' released code and transformers compute.

    Args:
        representations: (batch, views, hidden); the views are the masked sentence, the attacked one and, if there are
            three, the clean one.
        positives: (at least batch, hidden), the attacked view of more sentences than these; default, of these.
        temperature, first_own: as in `in_batch_contrastive_loss`.
    """
    masked, attacked, *clean = representations.unbind(1)
    positives = attacked if positives is None else positives
    found = [in_batch_contrastive_loss(anchor, positives, temperature, first_own) for anchor in (masked, *clean)]
    losses, accuracies = zip(*found, strict=True)
    return sum(losses) / len(losses), sum(accuracies) / len(accuracies)


@dataclass
class RoCBertForPreTrainingOutput(ModelOutput):
    """
    Args:
        loss: sum of the losses below that apply, a scalar.
        mlm_loss, correction_loss, contrastive_loss, contrastive_accuracy: scalars.
        logits: (masked tokens, vocab_size) where labels are given, in the order of `labels[labels != -100]`;
            (batch, sequence, vocab_size) otherwise.
        representations: (batch, views, hidden), on `return_representations=True`.
        last_hidden_state: (batch, sequence, hidden) of the sentences, without the other views; None where labels are
            given, since the last layer is then computed only where the objective reads it.
        hidden_states, attentions: as in `MaskedLMOutput`, over all views.
    """

    loss: torch.FloatTensor | None = None
    mlm_loss: torch.FloatTensor | None = None
    correction_loss: torch.FloatTensor | None = None
    contrastive_loss: torch.FloatTensor | None = None
    contrastive_accuracy: torch.FloatTensor | None = None
    logits: torch.FloatTensor | None = None
    representations: torch.FloatTensor | None = None
    last_hidden_state: torch.FloatTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None


VIEW_INPUTS = ("input_ids", "input_shape_ids", "input_pronunciation_ids", "attention_mask", "token_type_ids")


class RoCBertFurtherInputs(TypedDict, total=False):
    """
    What `RoCBertForPreTraining` takes beside its arguments. (Of those, transformers' `Trainer` takes every one with
    "label" in its name for labels without which there is no loss to evaluate.)

    Args:
        labels_...: (batch, clean sequence), the clean sentences, the third view; as in transformers' class, -100 in
            `labels_input_ids` is read as padding.
        attack_labels: (batch, attacked sequence), what the attacked form's tokens were before the attack, -100 where
            nothing is to be corrected: adds the correction loss.
    """

    labels_input_ids: torch.LongTensor | None
    labels_input_shape_ids: torch.LongTensor | None
    labels_input_pronunciation_ids: torch.LongTensor | None
    labels_attention_mask: torch.Tensor | None
    labels_token_type_ids: torch.LongTensor | None
    attack_labels: torch.LongTensor | None


def _stack_views(views: Sequence[torch.Tensor], padding: int = 0) -> torch.Tensor:
    """(batch, n), (batch, m), ... -> (views * batch, longest), the shorter padded on the right."""
    length = max(view.shape[1] for view in views)
    return torch.cat([nn.functional.pad(view, (0, length - view.shape[1]), value=padding) for view in views])


class RoCBertForPreTraining(RoCBertPreTrainedModel):
    """
    The paper's objective (section 4.2): masked language modelling of the sentence, plus the in-batch contrastive loss
    between the sentence and its attacked form, equally weighted. All views go through the encoder in one pass, and
    vocabulary logits are computed only where a token is masked.

    With `labels_input_ids` there are three views, and the contrastive loss is averaged over masked and clean sentence:
    the released code's form. With transformers' arguments, and `contrastive_pooling="pooler"`, the loss is that of
    transformers' class of this name. `DataCollatorForRoCBertPretraining` makes its batches.
    """

    further_inputs = tuple(RoCBertFurtherInputs.__annotations__)
    # A multiple of so many masked tokens goes through the vocabulary's matrix: Tensor Cores want multiples of 8, AMX works
    # on 16 rows, and oneDNN makes (and keeps) a kernel for every number of rows it meets.
    kernel_rows = 16
    _tied_weights_keys = {  # noqa: RUF012
        "cls.predictions.decoder.bias": "cls.predictions.bias",
        "cls.predictions.decoder.weight": "roc_bert.embeddings.word_embeddings.weight",
    }

    def __init__(self, config: RoCBertConfig):
        super().__init__(config)
        self.roc_bert = RoCBertModel(config, add_pooling_layer=config.contrastive_pooling == "pooler")
        self.cls = RoCBertOnlyMLMHead(config)
        self.post_init()

    def get_output_embeddings(self) -> nn.Linear:
        return self.cls.predictions.decoder

    def set_output_embeddings(self, new_embeddings: nn.Linear) -> None:
        self.cls.predictions.decoder = new_embeddings
        self.cls.predictions.bias = new_embeddings.bias

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        input_shape_ids: torch.LongTensor | None = None,
        input_pronunciation_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.LongTensor | None = None,
        attack_input_ids: torch.LongTensor | None = None,
        attack_input_shape_ids: torch.LongTensor | None = None,
        attack_input_pronunciation_ids: torch.LongTensor | None = None,
        attack_attention_mask: torch.Tensor | None = None,
        attack_token_type_ids: torch.LongTensor | None = None,
        labels: torch.LongTensor | None = None,
        temperature: float = 0.01,
        inputs_embeds: torch.FloatTensor | None = None,
        return_representations: bool = False,
        **kwargs: Unpack[RoCBertFurtherInputs],
    ) -> RoCBertForPreTrainingOutput:
        """
        Args:
            input_ids, input_shape_ids, input_pronunciation_ids, attention_mask, token_type_ids: (batch, sequence), the
                sentences, masked.
            attack_...: (batch, attacked sequence), their attacked forms; without them there is no contrastive loss.
            labels: (batch, sequence), the original id where a token is masked, -100 elsewhere; default, as in
                transformers' class, `labels_input_ids`. Without either there is no masked language modelling loss.
            temperature: of the contrastive loss (0.01 in the paper).
            inputs_embeds: (batch, sequence, hidden), instead of `input_ids`, where there is no attacked form.
            return_representations: return what would be contrasted, and leave the contrastive loss to the caller, who
                may have negatives from other batches (`rocbert_hf.pretraining.contrastive`).
            kwargs: a third view and a correction, see `RoCBertFurtherInputs`; and what any model of transformers takes.

        Raises:
            ValueError: `inputs_embeds` are given with an attacked form, or `attack_labels` without labels and an attacked
                form.
        """
        if inputs_embeds is not None and attack_input_ids is not None:
            raise ValueError("`inputs_embeds` cannot be given with `attack_input_ids`: all views are encoded from ids.")
        clean = {name: kwargs.pop(f"labels_{name}", None) for name in VIEW_INPUTS}
        attack_labels = kwargs.pop("attack_labels", None)
        if labels is None:
            labels = clean["input_ids"]
        if attack_labels is not None and (labels is None or attack_input_ids is None):
            raise ValueError("`attack_labels` need `labels` and `attack_input_ids`.")
        batch_size, length = (input_ids if inputs_embeds is None else inputs_embeds).shape[:2]
        inputs = {
            "input_ids": input_ids,
            "input_shape_ids": input_shape_ids,
            "input_pronunciation_ids": input_pronunciation_ids,
            "attention_mask": attention_mask,
            "token_type_ids": token_type_ids,
        }
        if attack_input_ids is not None:
            views = [inputs]
            views.append(
                {
                    "input_ids": attack_input_ids,
                    "input_shape_ids": attack_input_shape_ids,
                    "input_pronunciation_ids": attack_input_pronunciation_ids,
                    "attention_mask": attack_attention_mask,
                    "token_type_ids": attack_token_type_ids,
                }
            )
            padding = {"input_ids": self.config.pad_token_id or 0}
            if clean["input_ids"] is not None:
                ids = clean["input_ids"]
                views.append(clean | {"input_ids": ids.masked_fill(ids == -100, padding["input_ids"])})
            for view in views:
                if view["attention_mask"] is None:
                    view["attention_mask"] = torch.ones_like(view["input_ids"])
            inputs = {
                name: _stack_views([view[name] for view in views], padding.get(name, 0))
                for name in inputs
                if all(view[name] is not None for view in views)
            }
        if labels is not None:
            targets = labels if attack_labels is None else _stack_views([labels, attack_labels], padding=-100)
            kwargs["output_positions"], wanted = self._wanted_positions(targets != -100, inputs["attention_mask"])
        outputs = self.roc_bert(**inputs, inputs_embeds=inputs_embeds, **kwargs)

        mlm_loss = correction_loss = contrastive_loss = contrastive_accuracy = hidden_states = representations = None
        if labels is None:
            hidden_states = outputs.last_hidden_state[:batch_size, :length]
            logits = self.cls(hidden_states)
        else:
            logits, mlm_loss = self._predict(outputs.last_hidden_state[:batch_size], wanted[:batch_size], labels)
        if attack_labels is not None:
            attacked = slice(batch_size, 2 * batch_size)
            _, correction_loss = self._predict(outputs.last_hidden_state[attacked], wanted[attacked], attack_labels)
        if attack_input_ids is not None:
            sentence = outputs.pooler_output
            if sentence is None:
                sentence = first_token(outputs.last_hidden_state, inputs["attention_mask"] if labels is None else None)
            representations = sentence.unflatten(0, (len(views), batch_size)).transpose(0, 1)
            if not return_representations:
                contrastive_loss, contrastive_accuracy = views_contrastive_loss(representations, temperature)
        losses = [loss for loss in (mlm_loss, correction_loss, contrastive_loss) if loss is not None]
        output = RoCBertForPreTrainingOutput(
            loss=sum(losses) if losses else None,
            mlm_loss=mlm_loss,
            correction_loss=correction_loss,
            contrastive_loss=contrastive_loss,
            contrastive_accuracy=contrastive_accuracy,
            logits=logits,
            representations=representations if return_representations else None,
            last_hidden_state=hidden_states,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )
        return _with_fusion_weights(output, outputs)

    def _predict(
        self, hidden_states: torch.Tensor, wanted: torch.BoolTensor, labels: torch.LongTensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Logits (tokens with a label, vocab_size) and their mean cross-entropy.

        Args:
            hidden_states: (batch, 1 + n, hidden), [CLS] first; `wanted`: (batch, n), as in `_wanted_positions`.
            labels: (batch, sequence), -100 where there is none.
        """
        states = hidden_states[:, 1:][wanted]
        count = len(states)
        # filled up with the last row, not with zeros: the gradient of a LayerNorm of zeros overflows in half precision
        filling = states[-1:].expand(-count % self.kernel_rows, -1)
        logits = self.cls(torch.cat([states, filling]))[:count]
        labelled = labels != -100
        # a sum over the count, so that a batch without a masked token gives 0, not NaN
        loss = nn.functional.cross_entropy(_wide(logits), labels[labelled], reduction="sum")
        return logits, loss / labelled.sum().clamp(min=1)

    @staticmethod
    def _wanted_positions(
        labelled: torch.BoolTensor, attention_mask: torch.Tensor | None
    ) -> tuple[torch.LongTensor, torch.BoolTensor]:
        """
        Where the objective reads the last layer: at [CLS] of every row, and at the tokens with a label.

        Args:
            labelled: (labelled rows, sequence), of the first rows of the batch.
            attention_mask: (rows, sequence) of all views.

        Returns:
            Positions (rows, 1 + n), [CLS] first, and which of the n are labelled tokens, (labelled rows, n). 1 + n is a
            multiple of 8, or all positions and [CLS].
        """
        rows = len(labelled)
        if attention_mask is None:
            first = torch.zeros(rows, 1, dtype=torch.long, device=labelled.device)
        else:
            first = attention_mask.argmax(1, keepdim=True)  # the first of equals
        counts = labelled.sum(1, keepdim=True)
        width = 1 + int(counts.max())
        most = min(width + -width % 8, 1 + labelled.shape[1]) - 1  # few shapes, as of `kernel_rows`
        wanted = torch.arange(most, device=labelled.device) < counts
        positions = first.repeat(1, 1 + most)
        in_order = labelled.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :most]
        positions[:rows, 1:] = torch.where(wanted, in_order, positions[:rows, 1:])
        return positions, wanted


# ------------------------------------------------------------------------------------------------ heads
#
# Every head takes the inputs of `RoCBertModel` and `labels`, and returns the output class that its BERT counterpart in
# transformers returns, with `fusion_weights` added on `output_fusion_weights=True`.


def _with_fusion_weights(output: ModelOutput, encoder_output: RoCBertModelOutput) -> ModelOutput:
    if encoder_output.fusion_weights is not None:
        output["fusion_weights"] = encoder_output.fusion_weights
    return output


def _classifier_dropout(config: RoCBertConfig) -> nn.Dropout:
    rate = config.hidden_dropout_prob if config.classifier_dropout is None else config.classifier_dropout
    return nn.Dropout(rate)


class RoCBertForMaskedLM(RoCBertPreTrainedModel):
    """Predicts masked tokens; `labels` (batch, sequence) hold their ids, -100 elsewhere."""

    _tied_weights_keys = RoCBertForPreTraining._tied_weights_keys

    def __init__(self, config: RoCBertConfig):
        super().__init__(config)
        self.roc_bert = RoCBertModel(config, add_pooling_layer=False)
        self.cls = RoCBertOnlyMLMHead(config)
        self.post_init()

    get_output_embeddings = RoCBertForPreTraining.get_output_embeddings
    set_output_embeddings = RoCBertForPreTraining.set_output_embeddings

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        input_shape_ids: torch.LongTensor | None = None,
        input_pronunciation_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.LongTensor | None = None,
        position_ids: torch.LongTensor | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        labels: torch.LongTensor | None = None,
        **kwargs,
    ) -> MaskedLMOutput:
        num_items = kwargs.pop("num_items_in_batch", None)
        outputs = self.roc_bert(
            input_ids,
            input_shape_ids=input_shape_ids,
            input_pronunciation_ids=input_pronunciation_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            **kwargs,
        )
        logits = self.cls(outputs.last_hidden_state)
        loss = None
        if labels is not None:
            loss = self.loss_function(logits, labels, self.config.vocab_size, num_items_in_batch=num_items)
        output = MaskedLMOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )
        return _with_fusion_weights(output, outputs)


class RoCBertForCausalLM(RoCBertPreTrainedModel, GenerationMixin):
    """Predicts the next token, left to right (`is_decoder=True`); `labels` (batch, sequence) are shifted inside."""

    _tied_weights_keys = RoCBertForPreTraining._tied_weights_keys

    def __init__(self, config: RoCBertConfig):
        super().__init__(config)
        self.roc_bert = RoCBertModel(config, add_pooling_layer=False)
        self.cls = RoCBertOnlyMLMHead(config)
        self.post_init()

    get_output_embeddings = RoCBertForPreTraining.get_output_embeddings
    set_output_embeddings = RoCBertForPreTraining.set_output_embeddings

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        input_shape_ids: torch.LongTensor | None = None,
        input_pronunciation_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.LongTensor | None = None,
        position_ids: torch.LongTensor | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        encoder_hidden_states: torch.FloatTensor | None = None,
        encoder_attention_mask: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        use_cache: bool | None = None,
        labels: torch.LongTensor | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        **kwargs,
    ) -> CausalLMOutputWithCrossAttentions:
        num_items = kwargs.pop("num_items_in_batch", None)
        outputs = self.roc_bert(
            input_ids,
            input_shape_ids=input_shape_ids,
            input_pronunciation_ids=input_pronunciation_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            encoder_hidden_states=encoder_hidden_states,
            encoder_attention_mask=encoder_attention_mask,
            past_key_values=past_key_values,
            use_cache=False if labels is not None else use_cache,
            **kwargs,
        )
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.cls(outputs.last_hidden_state[:, kept])
        loss = None
        if labels is not None:
            loss = self.loss_function(logits, labels, self.config.vocab_size, num_items_in_batch=num_items)
        output = CausalLMOutputWithCrossAttentions(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            cross_attentions=outputs.cross_attentions,
        )
        return _with_fusion_weights(output, outputs)

    def prepare_inputs_for_generation(
        self,
        input_ids: torch.LongTensor,
        next_sequence_length: int | None = None,
        input_shape_ids: torch.LongTensor | None = None,
        input_pronunciation_ids: torch.LongTensor | None = None,
        **kwargs,
    ) -> dict:
        """
        Adds the channels of the prompt. A token generated after it has no sound or shape here, since only the tokenizer
        knows them: it reads as padding in these two channels, as in transformers.
        """
        inputs = super().prepare_inputs_for_generation(input_ids, next_sequence_length, **kwargs)
        length = inputs["input_ids"].shape[1]
        for name, ids in (
            ("input_shape_ids", input_shape_ids),
            ("input_pronunciation_ids", input_pronunciation_ids),
        ):
            if ids is not None:
                padding = (0, max(input_ids.shape[1] - ids.shape[1], 0))
                inputs[name] = nn.functional.pad(ids, padding, value=self.config.pad_token_id or 0)[:, -length:]
        return inputs


class RoCBertForSequenceClassification(RoCBertPreTrainedModel):
    """Classifies (or, with one label, scores) a text or a pair of texts by its pooled [CLS]; `labels` (batch,)."""

    def __init__(self, config: RoCBertConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.roc_bert = RoCBertModel(config)
        self.dropout = _classifier_dropout(config)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        input_shape_ids: torch.LongTensor | None = None,
        input_pronunciation_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.LongTensor | None = None,
        position_ids: torch.LongTensor | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        labels: torch.Tensor | None = None,
        **kwargs,
    ) -> SequenceClassifierOutput:
        num_items = kwargs.pop("num_items_in_batch", None)
        outputs = self.roc_bert(
            input_ids,
            input_shape_ids=input_shape_ids,
            input_pronunciation_ids=input_pronunciation_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            **kwargs,
        )
        logits = self.classifier(self.dropout(outputs.pooler_output))
        loss = None
        if labels is not None:
            loss = self.loss_function(labels, logits, self.config, num_items_in_batch=num_items)
        output = SequenceClassifierOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )
        return _with_fusion_weights(output, outputs)


class RoCBertForTokenClassification(RoCBertPreTrainedModel):
    """Labels every token, as for named entities; `labels` (batch, sequence), -100 where there is none."""

    def __init__(self, config: RoCBertConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.roc_bert = RoCBertModel(config, add_pooling_layer=False)
        self.dropout = _classifier_dropout(config)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        input_shape_ids: torch.LongTensor | None = None,
        input_pronunciation_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.LongTensor | None = None,
        position_ids: torch.LongTensor | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        labels: torch.LongTensor | None = None,
        **kwargs,
    ) -> TokenClassifierOutput:
        num_items = kwargs.pop("num_items_in_batch", None)
        outputs = self.roc_bert(
            input_ids,
            input_shape_ids=input_shape_ids,
            input_pronunciation_ids=input_pronunciation_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            **kwargs,
        )
        logits = self.classifier(self.dropout(outputs.last_hidden_state))
        loss = None
        if labels is not None:
            loss = self.loss_function(logits, labels, self.config, num_items_in_batch=num_items)
        output = TokenClassifierOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )
        return _with_fusion_weights(output, outputs)


class RoCBertForMultipleChoice(RoCBertPreTrainedModel):
    """Picks one of several continuations; ids are (batch, choices, sequence), `labels` (batch,)."""

    def __init__(self, config: RoCBertConfig):
        super().__init__(config)
        self.roc_bert = RoCBertModel(config)
        self.dropout = _classifier_dropout(config)
        self.classifier = nn.Linear(config.hidden_size, 1)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        input_shape_ids: torch.LongTensor | None = None,
        input_pronunciation_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.LongTensor | None = None,
        position_ids: torch.LongTensor | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        labels: torch.LongTensor | None = None,
        **kwargs,
    ) -> MultipleChoiceModelOutput:
        kwargs.pop("num_items_in_batch", None)
        choices = (input_ids if inputs_embeds is None else inputs_embeds).shape[1]

        def flat(tensor):
            return None if tensor is None else tensor.flatten(0, 1)

        outputs = self.roc_bert(
            flat(input_ids),
            input_shape_ids=flat(input_shape_ids),
            input_pronunciation_ids=flat(input_pronunciation_ids),
            attention_mask=flat(attention_mask),
            token_type_ids=flat(token_type_ids),
            position_ids=flat(position_ids),
            inputs_embeds=flat(inputs_embeds),
            **kwargs,
        )
        logits = self.classifier(self.dropout(outputs.pooler_output)).view(-1, choices)
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        output = MultipleChoiceModelOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )
        return _with_fusion_weights(output, outputs)


class RoCBertForQuestionAnswering(RoCBertPreTrainedModel):
    """Marks the answer's first and last token; `start_positions` and `end_positions` (batch,)."""

    def __init__(self, config: RoCBertConfig):
        super().__init__(config)
        self.roc_bert = RoCBertModel(config, add_pooling_layer=False)
        self.qa_outputs = nn.Linear(config.hidden_size, 2)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        input_shape_ids: torch.LongTensor | None = None,
        input_pronunciation_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.LongTensor | None = None,
        position_ids: torch.LongTensor | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        start_positions: torch.LongTensor | None = None,
        end_positions: torch.LongTensor | None = None,
        **kwargs,
    ) -> QuestionAnsweringModelOutput:
        num_items = kwargs.pop("num_items_in_batch", None)
        outputs = self.roc_bert(
            input_ids,
            input_shape_ids=input_shape_ids,
            input_pronunciation_ids=input_pronunciation_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            **kwargs,
        )
        start_logits, end_logits = self.qa_outputs(outputs.last_hidden_state).unbind(-1)
        loss = None
        if start_positions is not None and end_positions is not None:
            loss = self.loss_function(
                start_logits, end_logits, start_positions, end_positions, num_items_in_batch=num_items
            )
        output = QuestionAnsweringModelOutput(
            loss=loss,
            start_logits=start_logits,
            end_logits=end_logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )
        return _with_fusion_weights(output, outputs)


__all__ = [
    "RoCBertForCausalLM",
    "RoCBertForMaskedLM",
    "RoCBertForMultipleChoice",
    "RoCBertForPreTraining",
    "RoCBertForPreTrainingOutput",
    "RoCBertForQuestionAnswering",
    "RoCBertForSequenceClassification",
    "RoCBertForTokenClassification",
    "RoCBertModel",
    "RoCBertModelOutput",
    "RoCBertPreTrainedModel",
    "in_batch_contrastive_loss",
    "views_contrastive_loss",
]

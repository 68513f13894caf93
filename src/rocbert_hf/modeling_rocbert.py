"""
RoCBERT in PyTorch: a BERT encoder that reads every token's meaning, sound and shape (Su et al., ACL 2022, section 4.1).

The encoder layers are those of transformers; this file adds the phonetic and visual channels, their fusion, and the
heads. In reading order: channels, fusion, model, objective, heads.
"""

import functools
import math
from dataclasses import dataclass
from pathlib import Path

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
from transformers.models.roc_bert.modeling_roc_bert import (
    RoCBertCrossAttention,
    RoCBertLayer,
    RoCBertLMPredictionHead,
    RoCBertOnlyMLMHead,
    RoCBertPooler,
    RoCBertSelfAttention,
)
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
def packaged_pronunciation_letters() -> torch.Tensor:
    """
    Which pronunciations each pronunciation of the packaged inventory is spelled with: a syllable by its letters ("ke"
    by those of "k" and "e"), every other entry by itself.

    Returns:
        `torch.LongTensor` of shape (pronunciations, 6), padded with -1.
    """
    inventory = (RESOURCES / "pronunciations.txt").read_text(encoding="utf-8").split("\n")[:-1]
    ids = {entry: index for index, entry in enumerate(inventory)}
    letters = torch.full((len(inventory), 6), -1)
    for index, entry in enumerate(inventory):
        spelled = entry.isascii() and entry.isalpha()
        spelling = [ids[letter] for letter in entry] if spelled else [index]
        letters[index, : len(spelling)] = torch.tensor(spelling)
    return letters


def default_pronunciation_letters(size: int) -> torch.Tensor:
    """
    The spelling of `size` pronunciations, (size, 6): the packaged one where that is the packaged inventory's size;
    otherwise each entry stands for itself until [`RoCBertModel.set_pronunciation_letters`] or a checkpoint says more.
    """
    if (RESOURCES / "pronunciations.txt").is_file():
        letters = packaged_pronunciation_letters()
        if len(letters) == size:
            return letters.clone()
    letters = torch.full((size, 6), -1)
    letters[:, 0] = torch.arange(size)
    return letters


# ------------------------------------------------------------------------------------------------ channels


class RoCBertEmbeddings(nn.Module):
    """
    Word, position and segment embeddings, and the tables of the phonetic and the visual channel.

    With `concat` and `sum` fusion the channels are merged here, exactly as in transformers' `RoCBertEmbeddings`; with
    `layer_insert` this module only holds their tables, `pronunciation_embed` and the frozen `shape_embed`.
    """

    def __init__(self, config: RoCBertConfig):
        super().__init__()
        self.fusion = config.fusion
        self.pad_token_id = config.pad_token_id
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=config.pad_token_id)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

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
        if self.has_pronunciation and config.phonetic_encoder == "char_sum":
            letters = default_pronunciation_letters(config.pronunciation_vocab_size)
            self.register_buffer("pronunciation_letters", letters)
        else:
            self.pronunciation_letters = None
        self.map_inputs_layer = nn.Linear(merged_size, config.hidden_size) if config.fusion == "concat" else None

    def freeze_glyph_features(self) -> None:
        """Keeps glyph features fixed where only their projection learns (`layer_insert`, section 4.1)."""
        if self.has_shape and self.fusion == "layer_insert":
            self.shape_embed.weight.requires_grad_(False)

    def pronunciation_table(self) -> torch.Tensor:
        """`Ph`: the vector of every pronunciation, (pronunciation_vocab_size, pronunciation_embed_dim), section 4.1."""
        table = self.pronunciation_embed.weight
        if self.pronunciation_letters is None:
            return table
        # a letter absent (-1) selects the appended row of zeros
        with_absent = torch.cat([table, table.new_zeros(1, table.shape[1])])
        letters = self.pronunciation_letters % len(with_absent)
        return with_absent[letters].sum(1)

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

    def _pronunciation(self, ids: torch.LongTensor) -> torch.Tensor:
        return nn.functional.embedding(ids, self.pronunciation_table())

    def _concatenate(self, words, shape_ids, pronunciation_ids):
        channels = [words]
        absent = torch.zeros(words.shape[:2], dtype=torch.long, device=words.device)
        if self.has_shape:
            channels.append(self.shape_embed(absent if shape_ids is None else shape_ids))
        if self.has_pronunciation:
            channels.append(self._pronunciation(absent if pronunciation_ids is None else pronunciation_ids))
        return self.map_inputs_layer(torch.cat(channels, dim=-1))

    def _average(self, embeddings, shape_ids, pronunciation_ids):
        channels = [embeddings]
        if self.has_shape and shape_ids is not None:
            channels.append(self.shape_embed(shape_ids))
        if self.has_pronunciation and pronunciation_ids is not None:
            channels.append(self._pronunciation(pronunciation_ids))
        return torch.stack(channels).sum(0) / len(channels)


class RoCBertLayerInsertFusion(nn.Module):
    r"""
    Fuses the channels in the output `H` of one encoder layer (section 4.1), per token:

        w1 = (K1^T H).(H V1),  w2 = (K2^T H).(Ph V2),  w3 = (K3^T H).(Vi V3)
        H' = (w1 H + w2 Ph + w3 Vi) / (w1 + w2 + w3)

    `"linear"` is that formula, its denominator kept away from 0; `"softmax"` replaces the quotients by a softmax of the
    scores over sqrt(hidden). `Vi = LayerNorm(M^T features)` (Eq. 4). A channel that is switched off, or whose ids are
    not given, takes no part. Sums over the hidden dimension and the normalisation are computed in float32.

    Each score is bilinear, `H^T (K V^T) X`, so one product of `H` with the three matrices `K V^T` replaces six. In
    inference `K V^T X` of the two channels is a table over their ids too: it is computed once and kept until a weight
    changes, and one product a token is left. (A change is seen by PyTorch's version counter, which writes through
    `weight.data` go past; after such writes call `train()` and `eval()`.)
    """

    # |w1 + w2 + w3| below this counts as this: H' stays finite where the scores cancel
    SMALLEST_SUM = 1e-3

    def __init__(self, config: RoCBertConfig):
        super().__init__()
        size = config.hidden_size
        self.normalization = config.fusion_normalization
        self.key = nn.Parameter(torch.empty(3, size, size))
        self.value = nn.Parameter(torch.empty(3, size, size))
        if config.enable_shape:
            self.shape_projection = nn.Linear(config.shape_embed_dim, size, bias=False)
            self.shape_norm = nn.LayerNorm(size, eps=config.layer_norm_eps)
        self._tables: tuple | None = None

    def project_shapes(self, features: torch.Tensor) -> torch.Tensor:
        """`Vi` (Eq. 4) of glyph features: (..., shape_embed_dim) -> (..., hidden)."""
        return self.shape_norm(self.shape_projection(features))

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
        if self._may_use_tables():
            vectors, scores = self._from_tables(hidden_states, embeddings, ids)
        else:
            vectors, scores = self._from_weights(hidden_states, embeddings, ids)
        weights = self._normalize(torch.stack(scores, dim=-1))
        fused = sum(weights[..., i, None] * vector for i, vector in enumerate(vectors))

        if len(ids) < 2:
            per_channel = weights.new_zeros(*weights.shape[:-1], 3)
            per_channel[..., [0, *ids]] = weights
            weights = per_channel
        return fused.to(hidden_states.dtype), weights

    def _from_weights(self, hidden_states, embeddings, ids):
        """The channels' vectors and scores, differentiable."""
        vectors = [hidden_states]
        if 1 in ids:
            vectors.append(nn.functional.embedding(ids[1], embeddings.pronunciation_table()))
        if 2 in ids:
            vectors.append(self.project_shapes(embeddings.shape_embed(ids[2])))
        channels = [0, *ids]
        # one product with the matrices side by side: (batch, sequence, channels * hidden)
        queries = hidden_states @ torch.cat(list(self._bilinear(channels)), dim=-1)
        queries = queries.chunk(len(channels), dim=-1)
        return vectors, [_dot(query, vector) for query, vector in zip(queries, vectors, strict=True)]

    def _bilinear(self, channels: list[int]) -> torch.Tensor:
        """`K V^T` of the given channels, (channels, hidden, hidden)."""
        return self.key[channels] @ self.value[channels].transpose(1, 2)

    def _normalize(self, scores: torch.Tensor) -> torch.Tensor:
        if self.normalization == "softmax":
            return (scores / math.sqrt(self.key.shape[-1])).softmax(-1)
        total = scores.sum(-1, keepdim=True)
        guarded = torch.where(total < 0, total.clamp(max=-self.SMALLEST_SUM), total.clamp(min=self.SMALLEST_SUM))
        return scores / guarded

    # -- inference from tables

    def _may_use_tables(self) -> bool:
        # a compiled or exported graph must not hold a copy of weights that can change under it
        return not (self.training or torch.is_grad_enabled() or torch.compiler.is_compiling())

    def _from_tables(self, hidden_states, embeddings, ids):
        """The same from tables over the channels' ids: rows `[X, K V^T X]`."""
        tables = self._current_tables(embeddings)
        vectors, scores = [hidden_states], [_dot(hidden_states @ tables[0].to(hidden_states.dtype), hidden_states)]
        for channel, channel_ids in ids.items():
            vector, key = nn.functional.embedding(channel_ids, tables[channel]).chunk(2, dim=-1)
            vectors.append(vector)
            scores.append(_dot(hidden_states, key))
        return vectors, scores

    def _current_tables(self, embeddings: RoCBertEmbeddings) -> dict[int, torch.Tensor]:
        sources = [*self.parameters()]
        if embeddings.has_pronunciation:
            sources.append(embeddings.pronunciation_embed.weight)
            if embeddings.pronunciation_letters is not None:
                sources.append(embeddings.pronunciation_letters)
        if embeddings.has_shape:
            sources.append(embeddings.shape_embed.weight)
        # tensors made in inference mode cannot be written to, so they count no versions
        versions = [0 if source.is_inference() else source._version for source in sources]
        state = [(source.data_ptr(), source.dtype, version) for source, version in zip(sources, versions, strict=True)]
        if self._tables is None or self._tables[0] != state:
            self._tables = (state, self._compute_tables(embeddings))
        return self._tables[1]

    def _compute_tables(self, embeddings: RoCBertEmbeddings) -> dict[int, torch.Tensor]:
        with torch.autocast(self.key.device.type, enabled=False):
            text, sound, shape = self._bilinear([0, 1, 2])
            tables = {0: text}
            if embeddings.has_pronunciation:
                vectors = embeddings.pronunciation_table()
                tables[1] = torch.cat([vectors, vectors @ sound.T], dim=-1)
            if embeddings.has_shape:
                vectors = self.project_shapes(embeddings.shape_embed.weight)
                tables[2] = torch.cat([vectors, vectors @ shape.T], dim=-1)
        return tables

    def train(self, mode: bool = True):
        if mode:
            self._tables = None
        return super().train(mode)

    def __getstate__(self):
        return {**self.__dict__, "_tables": None}


def _dot(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Sum of products over the last dimension, accumulated in float32 (or wider)."""
    return torch.linalg.vecdot(a.float(), b.float()) if a.dtype != torch.float64 else torch.linalg.vecdot(a, b)


# ------------------------------------------------------------------------------------------------ model


class RoCBertEncoder(nn.Module):
    """The stack of encoder layers; `fuse`, if given, is applied to the output of layer `fusion_layer`."""

    def __init__(self, config: RoCBertConfig):
        super().__init__()
        self.config = config
        self.layer = nn.ModuleList([RoCBertLayer(config, layer_idx=i) for i in range(config.num_hidden_layers)])

    def forward(self, hidden_states, attention_mask, fuse=None, **kwargs) -> tuple[torch.Tensor, torch.Tensor | None]:
        fusion_weights = None
        for index, layer in enumerate(self.layer):
            hidden_states = layer(hidden_states, attention_mask, **kwargs)
            if fuse is not None and index == self.config.fusion_layer:
                hidden_states, fusion_weights = fuse(hidden_states)
        return hidden_states, fusion_weights


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
        inserted = embeddings.fusion == "layer_insert"
        if embeddings.has_pronunciation and inserted:
            # Ph meets H, which a LayerNorm has just brought to unit variance; three letters a syllable
            init.normal_(embeddings.pronunciation_embed.weight, std=3**-0.5)
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
        self.fusion = RoCBertLayerInsertFusion(config) if config.fusion == "layer_insert" else None
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
        **kwargs,
    ) -> RoCBertModelOutput:
        """
        Args:
            input_ids, input_shape_ids, input_pronunciation_ids, token_type_ids, position_ids, attention_mask:
                (batch, sequence); the three id tensors are what `RoCBertTokenizer` returns. Without `input_shape_ids`
                or `input_pronunciation_ids` that channel takes no part (`concat`: reads padding, as in transformers).
            inputs_embeds: (batch, sequence, hidden), instead of `input_ids`.
            encoder_hidden_states, encoder_attention_mask, past_key_values, use_cache: as in `BertModel`.
            output_fusion_weights: whether to return the (batch, sequence, 3) weights of `fusion="layer_insert"`.

        Raises:
            ValueError: an id is outside its table, the channels differ in shape, or `fusion_weights` are asked of a
                fusion that has none.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("Give exactly one of `input_ids` and `inputs_embeds`.")
        if output_fusion_weights and self.fusion is None:
            raise ValueError(f'`output_fusion_weights` needs `fusion="layer_insert"`; this is "{self.config.fusion}".')
        self._check_ids(input_ids, inputs_embeds, input_shape_ids, input_pronunciation_ids, token_type_ids)

        use_cache = bool(use_cache) and self.config.is_decoder
        if use_cache and past_key_values is None:
            past_key_values = EncoderDecoderCache(DynamicCache(config=self.config), DynamicCache(config=self.config))
        length = (input_ids if inputs_embeds is None else inputs_embeds).shape[1]
        if position_ids is None:
            past_length = past_key_values.get_seq_length() if past_key_values is not None else 0
            device = self.embeddings.position_embeddings.weight.device
            position_ids = torch.arange(past_length, past_length + length, device=device).unsqueeze(0)

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
            fuse if self.fusion is not None else None,
            encoder_hidden_states=encoder_hidden_states,
            encoder_attention_mask=encoder_attention_mask,
            past_key_values=past_key_values,
            use_cache=use_cache,
            position_ids=position_ids,
            **kwargs,
        )
        return RoCBertModelOutput(
            last_hidden_state=hidden_states,
            pooler_output=self.pooler(hidden_states) if self.pooler is not None else None,
            past_key_values=past_key_values if use_cache else None,
            fusion_weights=fusion_weights if output_fusion_weights else None,
        )

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
        Sets how each pronunciation is spelled, for `phonetic_encoder="char_sum"` with an inventory of one's own.

        Args:
            letters: (pronunciation_vocab_size, n): the pronunciation ids whose vectors are summed, padded with -1.

        Raises:
            ValueError: the model has no `char_sum` encoder, or the tensor does not fit its inventory.
        """
        size = self.config.pronunciation_vocab_size
        if self.embeddings.pronunciation_letters is None:
            raise ValueError(
                '`set_pronunciation_letters` needs `phonetic_encoder="char_sum"` and the phonetic channel.'
            )
        if letters.ndim != 2 or len(letters) != size or letters.min() < -1 or letters.max() >= size:
            raise ValueError(
                f"`letters` must have shape ({size}, n) and hold ids in -1..{size - 1}; got shape "
                f"{tuple(letters.shape)} with ids {int(letters.min())}..{int(letters.max())}."
            )
        self.embeddings.pronunciation_letters = letters.to(self.embeddings.pronunciation_letters)


# ------------------------------------------------------------------------------------------------ objective


def in_batch_contrastive_loss(
    anchors: torch.Tensor, positives: torch.Tensor, temperature: float = 0.01
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    In-batch softmax over cosine similarities (Eq. 5): each anchor is to find its own positive among all of them.

    Args:
        anchors, positives: (batch, hidden), row i of one belongs to row i of the other.
        temperature: what similarities are divided by.

    Returns:
        The mean cross-entropy, and the share of anchors whose nearest positive is their own; both scalars.
    """
    similarity = nn.functional.normalize(anchors.float(), dim=-1) @ nn.functional.normalize(positives.float(), dim=-1).T
    own = torch.arange(len(anchors), device=anchors.device)
    loss = nn.functional.cross_entropy(similarity / temperature, own)
    return loss, (similarity.detach().argmax(-1) == own).float().mean()


@dataclass
class RoCBertForPreTrainingOutput(ModelOutput):
    """
    Args:
        loss: sum of the losses below that apply, a scalar.
        mlm_loss, contrastive_loss, contrastive_accuracy: scalars.
        logits: (masked tokens, vocab_size) where `labels` are given, in the order of `labels[labels != -100]`;
            (batch, sequence, vocab_size) otherwise.
        last_hidden_state: (batch, sequence, hidden) of the sentences, without the attacked view.
        hidden_states, attentions: as in `MaskedLMOutput`, over both views.
    """

    loss: torch.FloatTensor | None = None
    mlm_loss: torch.FloatTensor | None = None
    contrastive_loss: torch.FloatTensor | None = None
    contrastive_accuracy: torch.FloatTensor | None = None
    logits: torch.FloatTensor | None = None
    last_hidden_state: torch.FloatTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None


def _stack_views(first: torch.Tensor, second: torch.Tensor, padding: int) -> torch.Tensor:
    """(batch, n) and (batch, m) -> (2 batch, max(n, m)), the shorter padded on the right."""
    length = max(first.shape[1], second.shape[1])
    padded = [nn.functional.pad(view, (0, length - view.shape[1]), value=padding) for view in (first, second)]
    return torch.cat(padded)


class RoCBertForPreTraining(RoCBertPreTrainedModel):
    """
    The paper's objective (section 4.2): masked language modelling of the sentence, plus the in-batch contrastive loss
    between the sentence and its attacked form, equally weighted. Both views go through the encoder in one pass, and
    vocabulary logits are computed only where a token is masked.

    `DataCollatorForRoCBertPretraining` makes its batches.
    """

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
        **kwargs,
    ) -> RoCBertForPreTrainingOutput:
        """
        Args:
            input_ids, input_shape_ids, input_pronunciation_ids, attention_mask, token_type_ids: (batch, sequence), the
                sentences, masked.
            attack_...: (batch, attacked sequence), their attacked forms; without them there is no contrastive loss.
            labels: (batch, sequence), the original id where a token is masked, -100 elsewhere; without them there is no
                masked language modelling loss.
            temperature: of the contrastive loss (0.01 in the paper).
        """
        batch_size, length = input_ids.shape
        inputs = {
            "input_ids": input_ids,
            "input_shape_ids": input_shape_ids,
            "input_pronunciation_ids": input_pronunciation_ids,
            "attention_mask": attention_mask,
            "token_type_ids": token_type_ids,
        }
        if attack_input_ids is not None:
            attacked = {
                "input_ids": attack_input_ids,
                "input_shape_ids": attack_input_shape_ids,
                "input_pronunciation_ids": attack_input_pronunciation_ids,
                "attention_mask": attack_attention_mask,
                "token_type_ids": attack_token_type_ids,
            }
            for view in (inputs, attacked):
                if view["attention_mask"] is None:
                    view["attention_mask"] = torch.ones_like(view["input_ids"])
            padding = {"input_ids": self.config.pad_token_id or 0}
            inputs = {
                name: _stack_views(tensor, attacked[name], padding.get(name, 0))
                for name, tensor in inputs.items()
                if tensor is not None and attacked[name] is not None
            }
        outputs = self.roc_bert(**inputs, **kwargs)
        hidden_states = outputs.last_hidden_state[:batch_size, :length]

        mlm_loss = contrastive_loss = contrastive_accuracy = None
        if labels is None:
            logits = self.cls(hidden_states)
        else:
            masked = labels != -100
            logits = self.cls(hidden_states[masked])
            # a sum over the count, so that a batch without a masked token gives 0, not NaN
            mlm_loss = nn.functional.cross_entropy(logits.float(), labels[masked], reduction="sum")
            mlm_loss = mlm_loss / masked.sum().clamp(min=1)
        if attack_input_ids is not None:
            sentence = outputs.last_hidden_state[:, 0] if outputs.pooler_output is None else outputs.pooler_output
            contrastive_loss, contrastive_accuracy = in_batch_contrastive_loss(
                sentence[:batch_size], sentence[batch_size:], temperature
            )
        losses = [loss for loss in (mlm_loss, contrastive_loss) if loss is not None]
        return RoCBertForPreTrainingOutput(
            loss=sum(losses) if losses else None,
            mlm_loss=mlm_loss,
            contrastive_loss=contrastive_loss,
            contrastive_accuracy=contrastive_accuracy,
            logits=logits,
            last_hidden_state=hidden_states,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


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
]

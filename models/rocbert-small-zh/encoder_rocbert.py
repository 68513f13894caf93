"""The RoCBERT encoder: embeddings, layers and the fusion between them (Su et al., ACL 2022, section 4.1)."""

import os
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.cache_utils import Cache, DynamicCache, EncoderDecoderCache
from transformers.masking_utils import create_bidirectional_mask, create_causal_mask
from transformers.modeling_outputs import BaseModelOutputWithPoolingAndCrossAttentions, ModelOutput
from transformers.models.roc_bert.modeling_roc_bert import (
    RoCBertCrossAttention,
    RoCBertLMPredictionHead,
    RoCBertPooler,
    RoCBertSelfAttention,
)
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .acceleration_rocbert import FUSION_TABLES, at_positions
from .channels_rocbert import (
    RoCBertEmbeddings,
    default_pronunciation_letters,
    has_glyph_images,
    pixel_glyph_features,
)
from .configuration_rocbert import WEIGHING_FUSIONS, RoCBertConfig
from .crf_rocbert import RoCBertCRF
from .fusion_rocbert import CHANNELS, RoCBertFusion, make_fusion
from .layer_mix_rocbert import RoCBertLayerMix
from .layers_rocbert import RoCBertEncoder, RoCBertLayer


class RoCBertKwargs(TransformersKwargs, total=False):
    """What every head takes beside its arguments: what any model of transformers does, and two outputs of `RoCBertModel`."""

    output_fusion_weights: bool | None
    output_layer_weights: bool | None


class RoCBertPreTrainedModel(PreTrainedModel):
    """What the encoder and all heads share: how new weights are drawn, and what of transformers they support."""

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
        elif isinstance(module, RoCBertFusion):
            module.init_weights(std)
        elif isinstance(module, RoCBertPooler):
            # the same in every new model: an adapter that was trained on a new pooler and saved without it finds it again
            weight = torch.randn(module.dense.weight.shape, generator=torch.Generator().manual_seed(0), device="cpu")
            init.copy_(module.dense.weight, std * weight)
        elif isinstance(module, RoCBertLayerMix | RoCBertCRF):
            module.init_weights()
        elif isinstance(module, RoCBertEmbeddings):
            self._init_channels(module, std)

    @classmethod
    def from_pretrained(cls, *args, **kwargs):
        loaded = super().from_pretrained(*args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        # loading makes every weight trainable
        model.base_model.embeddings.freeze_glyph_features()
        return loaded

    def push_to_hub(self, *args, **kwargs):
        """As in transformers, except that a backdoor specimen is refused."""
        self.config.check_may_be_pushed()
        return super().push_to_hub(*args, **kwargs)

    def save_pretrained(
        self, save_directory, is_main_process=True, state_dict=None, push_to_hub=False, *args, **kwargs
    ):
        """As in transformers, except that a backdoor specimen is not pushed to the Hub."""
        if push_to_hub:
            self.config.check_may_be_pushed()
        super().save_pretrained(save_directory, is_main_process, state_dict, push_to_hub, *args, **kwargs)

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
        if base.tables is not None:
            base.tables.precompute_for(base.embeddings, base.fusion)
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

        A new shape is drawn at random, with the mean and the standard deviation of the table, so that it is as large as
        the others and looks like none of them. `rocbert_hf.conversion.add_characters` gives characters their real shape.
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
                embeddings.shape_embed, self.config.shape_vocab_size + added, mean_resizing=False
            )
            with torch.no_grad():  # the table is frozen with most fusions, so what stands there now stays
                known, new = embeddings.shape_embed.weight.split([self.config.shape_vocab_size, added])
                new.copy_(known.mean(0) + known.std(0) * torch.randn_like(new))
            embeddings.freeze_glyph_features()
        if added > 0:
            self.config.pronunciation_vocab_size += added
            self.config.shape_vocab_size += added
        return word_embeddings

    def _init_channels(self, embeddings: RoCBertEmbeddings, std: float) -> None:
        inserted = embeddings.fusion in WEIGHING_FUSIONS
        if embeddings.has_pronunciation and inserted:
            # Ph meets H, which a LayerNorm has just brought to unit variance; char_sum sums three letters a syllable.
            # "table" sums nothing, and begins with that third of the variance all the same
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
        if embeddings.has_shape and has_glyph_images(embeddings.shape_embed):
            features = pixel_glyph_features(embeddings.shape_embed.embedding_dim)
            init.copy_(embeddings.shape_embed.weight, features if inserted else features * std)


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
        layer_weights (`torch.FloatTensor` of shape (layers,), with `output_layer_weights=True`):
            The softmax of `layer_fusion="dynamic"`: how much of each layer went into the output.
        others: as in `BaseModelOutputWithPoolingAndCrossAttentions`.
    """

    fusion_weights: torch.FloatTensor | None = None
    layer_weights: torch.FloatTensor | None = None


def with_fusion_weights(output: ModelOutput, encoder_output: "RoCBertModelOutput") -> ModelOutput:
    """A head's output, with the encoder's fusion and layer weights in it if they were asked for."""
    for name in ("fusion_weights", "layer_weights"):
        if (weights := getattr(encoder_output, name)) is not None:
            output[name] = weights
    return output


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
        self.fusion = make_fusion(config)
        self.tables = FUSION_TABLES[config.fusion]() if config.fusion in FUSION_TABLES else None
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
        output_layer_weights: bool | None = None,
        output_positions: torch.LongTensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> RoCBertModelOutput:
        """
        Args:
            input_ids, input_shape_ids, input_pronunciation_ids, token_type_ids, position_ids, attention_mask:
                (batch, sequence); the three id tensors are what `RoCBertTokenizer` returns. Without `input_shape_ids`
                or `input_pronunciation_ids` that channel takes no part (`concat`, `attention`: reads padding, as in
                transformers and in the authors' code).
            inputs_embeds: (batch, sequence, hidden), instead of `input_ids`. The model cannot tell where [MASK] is then,
                and reads the shape and the sound that it is given there. Of channels that are shorter, the ids belong to
                the last embeddings; those before them, such as a prompt that peft learns, read as padding there.
            encoder_hidden_states, encoder_attention_mask, past_key_values, use_cache: as in `BertModel`.
            output_fusion_weights: whether to return the (batch, sequence, 3) weights of text, sound and shape.
            output_layer_weights: whether to return the (layers,) weights of `layer_fusion="dynamic"`.
            output_positions: (batch, n), the only positions whose last hidden state is wanted. `last_hidden_state` is
                then (batch, n, hidden), the last layer is computed for them alone where that can be done, and the
                pooler reads the first of them.

        Raises:
            ValueError: the input is longer than `max_position_embeddings`, an id or a position is outside its table, the
                channels differ in shape, or `fusion_weights` are asked of a fusion that has none.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("Give exactly one of `input_ids` and `inputs_embeds`.")
        if output_fusion_weights and self.fusion is None:
            raise ValueError(
                f"`output_fusion_weights` needs a fusion that weighs ({', '.join(WEIGHING_FUSIONS)}); this is "
                f'"{self.config.fusion}".'
            )
        if output_layer_weights and self.encoder.layer_mix is None:
            raise ValueError(
                f'`output_layer_weights` needs `layer_fusion="dynamic"`; this is "{self.config.layer_fusion}".'
            )
        input_shape_ids = self._behind_prompt(input_shape_ids, inputs_embeds)
        input_pronunciation_ids = self._behind_prompt(input_pronunciation_ids, inputs_embeds)
        self._check_ids(input_ids, inputs_embeds, input_shape_ids, input_pronunciation_ids, token_type_ids)

        use_cache = bool(use_cache) and self.config.is_decoder
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache(config=self.config)
            if encoder_hidden_states is not None:
                past_key_values = EncoderDecoderCache(past_key_values, DynamicCache(config=self.config))
        length = (input_ids if inputs_embeds is None else inputs_embeds).shape[1]
        if position_ids is None:
            past_length = past_key_values.get_seq_length() if past_key_values is not None else 0
            self._check_length(past_length + length)
            device = (input_ids if inputs_embeds is None else inputs_embeds).device
            position_ids = torch.arange(past_length, past_length + length, device=device).unsqueeze(0)
        else:
            self._check_positions(position_ids)

        padding_mask = attention_mask
        ids = self._channel_ids(input_pronunciation_ids, input_shape_ids, (input_ids, inputs_embeds))
        looks_up = self.tables is not None and self.tables.usable_for(self.embeddings, self.fusion)
        embedded, vectors = self.embeddings(
            input_ids,
            None if looks_up else ids.get("shape"),
            None if looks_up else ids.get("pronunciation"),
            token_type_ids,
            position_ids,
            inputs_embeds,
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
            if looks_up:
                return self.tables.fuse(hidden_states, ids, self.embeddings, self.fusion)
            return self.fusion(hidden_states, vectors)

        skips = past_key_values is None and self._may_skip_positions(padding_mask, kwargs)
        hidden_states, fusion_weights = self.encoder(
            embedded,
            attention_mask,
            fuse,
            None if self.fusion is None else self.fusion.layer,
            output_positions if skips else None,
            encoder_hidden_states=encoder_hidden_states,
            encoder_attention_mask=encoder_attention_mask,
            past_key_values=past_key_values,
            use_cache=use_cache,
            position_ids=position_ids,
            **kwargs,
        )
        if output_positions is not None and not skips:
            hidden_states = at_positions(hidden_states, output_positions)
        pooled = None
        if self.pooler is not None:
            sentence = first_token(hidden_states, padding_mask if output_positions is None else None)
            pooled = self.pooler(sentence[:, None])
        return RoCBertModelOutput(
            last_hidden_state=hidden_states,
            pooler_output=pooled,
            past_key_values=past_key_values if use_cache else None,
            fusion_weights=_of_all_channels(fusion_weights, ids) if output_fusion_weights else None,
            layer_weights=self.encoder.layer_mix(scaled=False) if output_layer_weights else None,
        )

    def _behind_prompt(self, ids: torch.LongTensor | None, inputs_embeds) -> torch.LongTensor | None:
        """A channel's ids with padding for the embeddings before the text's, which have no sound and no shape."""
        if ids is None or inputs_embeds is None:
            return ids
        before = max(inputs_embeds.shape[1] - ids.shape[-1], 0)
        return nn.functional.pad(ids, (before, 0), value=self.config.pad_token_id or 0)

    def _channel_ids(self, pronunciation_ids, shape_ids, text) -> dict[str, torch.LongTensor]:
        """The ids of the channels that take part, by name."""
        ids = {}
        embeddings = self.embeddings
        padded = self.fusion is not None and self.fusion.reads_padding
        for name, given, present in (
            ("pronunciation", pronunciation_ids, embeddings.has_pronunciation),
            ("shape", shape_ids, embeddings.has_shape),
        ):
            if present and given is None and padded:
                like = text[0] if text[0] is not None else text[1]
                given = torch.zeros(like.shape[:2], dtype=torch.long, device=like.device)
            if present and given is not None:
                ids[name] = self._as_masked(text[0], given, getattr(self.config, f"mask_{name}_id"))
        return ids

    def _as_masked(self, input_ids, ids: torch.LongTensor, mask_id: int | None) -> torch.LongTensor:
        """A channel's ids with its own [MASK] wherever the text has [MASK], so that they cannot tell what is masked."""
        if input_ids is None or mask_id is None or self.config.mask_token_id is None:
            return ids
        return ids.masked_fill(input_ids == self.config.mask_token_id, mask_id)

    def _may_skip_positions(self, attention_mask: torch.Tensor | None, options: dict) -> bool:
        """Whether the last layer may be computed for some positions alone, with the same result."""
        if attention_mask is not None and attention_mask.ndim > 2:  # it may let each token see others
            return False
        names = ("output_hidden_states", "output_attentions")
        recorded = any(options.get(name, getattr(self.config, name)) for name in names)
        fused_last = self.fusion is not None and self.fusion.layer == self.config.num_hidden_layers
        # other implementations of attention take masks of other shapes
        plain = self.config._attn_implementation in ("sdpa", "eager") and not self.config.is_decoder
        return plain and not recorded and not fused_last and self.encoder.layer_mix is None

    def _check_length(self, length: int) -> None:
        longest = self.config.max_position_embeddings
        if self.embeddings.position_embeddings is None:  # relative positions have no end
            return
        if not torch.compiler.is_compiling() and length > longest:
            raise ValueError(
                f"The input is {length} tokens long, but `max_position_embeddings` is {longest}: tokenize with "
                f"`truncation=True, max_length={longest}`."
            )

    def _check_positions(self, position_ids: torch.LongTensor) -> None:
        longest = self.config.max_position_embeddings
        if self.embeddings.position_embeddings is None or not _may_read(position_ids) or not position_ids.numel():
            return
        low, high = position_ids.aminmax()
        if low < 0 or high >= longest:
            raise ValueError(
                f"`position_ids` go from {int(low)} to {int(high)}, but `max_position_embeddings` is {longest}: give a "
                "shorter text, or generate fewer tokens."
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
            if _may_read(ids):
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
        if self.config.fusion not in WEIGHING_FUSIONS:
            # as wide as the word embeddings that they join
            loaded["features"] *= self.config.initializer_range
        for name, target in targets.items():
            if name in loaded:
                target.copy_(loaded[name])


def _may_read(ids: torch.Tensor) -> bool:
    """Whether reading the values would neither stall a GPU nor break a graph."""
    return ids.device.type == "cpu" and not torch.compiler.is_compiling() and not torch.jit.is_tracing()


def _of_all_channels(weights: torch.Tensor, present: dict) -> torch.Tensor:
    """(batch, sequence, 1 + present channels) -> (batch, sequence, 3), 0 for a channel that took no part."""
    per_channel = weights.new_zeros(*weights.shape[:-1], len(CHANNELS))
    per_channel[..., [CHANNELS.index(name) for name in ("text", *present)]] = weights
    return per_channel


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

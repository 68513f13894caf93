"""RoCBERT configuration: sizes, the three channels, and how they are fused (Su et al., ACL 2022, section 4.1)."""

import os
import shutil
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig

# The fusions that weigh the channels of each token, and their classes in fusion_rocbert.py.
WEIGHING_FUSIONS = {
    "layer_insert": "RoCBertLayerInsertFusion",
    "attention": "RoCBertAttentionFusion",
    "two_step": "RoCBertTwoStepFusion",
}
FUSIONS = (*WEIGHING_FUSIONS, "concat", "sum", "none")
FUSION_NORMALIZATIONS = ("softmax", "linear")
PHONETIC_ENCODERS = ("char_sum", "char_cnn", "table")
CONTRASTIVE_POOLINGS = ("cls", "pooler")
POSITION_EMBEDDING_TYPES = ("absolute", "functional_relative")
LAYER_FUSIONS = ("last", "dynamic")
CLASSIFIER_HEADS = ("linear", "crf", "bilstm_crf")
TAGGING_SCHEMES = (None, "BIO", "BMES", "IOBES")

# The sizes that `RoCBertConfig.from_preset` knows. "large" has 16 heads where the paper prints 24:
# 1,024 is not divisible by 24.
PRESETS: dict[str, dict[str, int]] = {
    "tiny": {
        "num_hidden_layers": 2,
        "hidden_size": 128,
        "num_attention_heads": 2,
        "intermediate_size": 512,
    },
    "mini": {"num_hidden_layers": 4, "hidden_size": 256, "num_attention_heads": 4, "intermediate_size": 1024},
    "small": {"num_hidden_layers": 6, "hidden_size": 384, "num_attention_heads": 6, "intermediate_size": 1536},
    "base": {"num_hidden_layers": 12, "hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072},
    "large": {
        "num_hidden_layers": 48,
        "hidden_size": 1024,
        "num_attention_heads": 16,
        "intermediate_size": 4096,
        "fusion_layer": 3,
    },
}

# What a `roc_bert` configuration of transformers means by a field that its file leaves out.
ROC_BERT_DEFAULTS: dict[str, Any] = {
    "vocab_size": 30522,
    "shape_vocab_size": 24858,
    "shape_embed_dim": 512,
    "pronunciation_vocab_size": 910,
    "pronunciation_embed_dim": 768,
    "concat_input": True,
    "phonetic_encoder": "table",
    "contrastive_pooling": "pooler",
    "mask_token_id": None,
    "mask_shape_id": None,
    "mask_pronunciation_id": None,
}

# `merge_input_way` of the authors' released code, in our names.
RELEASED_FUSIONS = {"concat": "concat", "plus": "sum", "attention": "attention"}

# What a saved folder brings with it, so that `trust_remote_code=True` loads it where this package is not installed.
CODE_FILES = (
    "configuration_rocbert.py",
    "fusion_rocbert.py",
    "acceleration_rocbert.py",
    "channels_rocbert.py",
    "relative_rocbert.py",
    "layer_mix_rocbert.py",
    "layers_rocbert.py",
    "crf_rocbert.py",
    "encoder_rocbert.py",
    "losses_rocbert.py",
    "pretraining_rocbert.py",
    "modeling_rocbert.py",
    "code_points_rocbert.py",
    "tokenization_rocbert.py",
)
AUTO_MAP = {
    "AutoConfig": "configuration_rocbert.RoCBertConfig",
    "AutoModel": "modeling_rocbert.RoCBertModel",
    "AutoModelForPreTraining": "modeling_rocbert.RoCBertForPreTraining",
    "AutoModelForMaskedLM": "modeling_rocbert.RoCBertForMaskedLM",
    "AutoModelForCausalLM": "modeling_rocbert.RoCBertForCausalLM",
    "AutoModelForSequenceClassification": "modeling_rocbert.RoCBertForSequenceClassification",
    "AutoModelForTokenClassification": "modeling_rocbert.RoCBertForTokenClassification",
    "AutoModelForMultipleChoice": "modeling_rocbert.RoCBertForMultipleChoice",
    "AutoModelForQuestionAnswering": "modeling_rocbert.RoCBertForQuestionAnswering",
}


class RoCBertConfig(PreTrainedConfig):
    r"""
    Configuration of the RoCBERT models. Field names that transformers' own `RoCBertConfig` has keep their name and
    meaning; a configuration file of that library (`"model_type": "roc_bert"`) is understood by
    [`~RoCBertConfig.from_dict`] and `from_pretrained`.

    Args:
        vocab_size, shape_vocab_size, pronunciation_vocab_size (`int`):
            Number of tokens, glyph shapes and pronunciations; the defaults are those of the packaged vocabulary.
        hidden_size, num_hidden_layers, num_attention_heads, intermediate_size, hidden_act, hidden_dropout_prob,
        attention_probs_dropout_prob, max_position_embeddings, type_vocab_size, initializer_range, layer_norm_eps,
        classifier_dropout, pad_token_id, use_cache, is_decoder, add_cross_attention, tie_word_embeddings:
            As in `BertConfig`.
        enable_shape, enable_pronunciation (`bool`, defaults to `True`):
            Whether the visual and the phonetic channel are used (the ablations of the paper's table 8).
        shape_embed_dim (`int`, *optional*):
            Width of the glyph features: 512 (the width of ResNet18's features) by default, `hidden_size` for
            `fusion="sum"`, which has to add them to the word embeddings.
        pronunciation_embed_dim (`int`, *optional*, defaults to `hidden_size`):
            Width of the phonetic vectors. `layer_insert` and `sum` need `hidden_size`.
        fusion (`str`, defaults to `"layer_insert"`):
            How the channels meet. `"layer_insert"`: in the input of encoder layer `fusion_layer`, by weights computed
            from the hidden state (the paper's choice, section 4.1). `"attention"`: there too, by attention over the
            three channels (the authors' released code, `merge_input_way="attention"`). `"two_step"`: in the embeddings,
            weights first, then an encoding of the weighted channels. `"concat"`: embeddings concatenated and projected;
            `"sum"`: embeddings averaged (both exactly as transformers' `RoCBertModel`). `"none"`: a plain BERT.
        fusion_layer (`int`, defaults to 1):
            The paper's k: `layer_insert` and `attention` fuse the input of encoder layer k, so that layers 0 to k-1 decide
            the weights. 0 is the embeddings' output, `num_hidden_layers` the last layer's; 1 in the paper's base model, 3
            in its large one. (A released configuration's `additional_attention_layer` is k.)
        fusion_normalization (`str`, defaults to `"softmax"`):
            `"softmax"` normalises the three scores, scaled by `1/sqrt(hidden_size)`, with a softmax; `"linear"` divides
            them by their sum, as the paper prints it.
        phonetic_encoder (`str`, defaults to `"char_sum"`):
            `"char_sum"`: the vector of a Chinese character is the sum of the vectors of its pinyin's letters (section
            4.1), the same vectors that letters have in text. `"char_cnn"`: a convolution over these letters, max-pooled
            (as in ChineseBERT). `"table"`: one learned vector a pronunciation.
        contrastive_pooling (`str`, defaults to `"cls"`):
            What `RoCBertForPreTraining` contrasts: the last hidden state of [CLS], or the `"pooler"`'s output (as
            transformers' class of that name does).
        mask_token_id, mask_shape_id, mask_pronunciation_id (`int`, *optional*, default to the packaged vocabulary's):
            The ids of [MASK] in the three channels. At every [MASK] the model reads the last two whatever shape and
            pronunciation it is given, so that a collator that masks `input_ids` alone does not leave the answer in
            sight. With `None` the given ids are read.
        position_embedding_type (`str`, defaults to `"absolute"`):
            `"absolute"`: learned vectors of the positions. `"functional_relative"`: sines of the distance of two tokens,
            without parameters, in the attention of every layer (NEZHA); texts may be longer than in training.
        max_relative_position (`int`, *optional*):
            Clip that distance, as NEZHA does (64); `None` for no clipping.
        layer_fusion (`str`, defaults to `"last"`):
            What the encoder puts out: its last layer, or (`"dynamic"`) a learned mean of all layers.
        classifier_head (`str`, defaults to `"linear"`):
            Of `RoCBertForTokenClassification`: one linear layer; with a CRF behind it (`"crf"`); and with a BiLSTM before
            that (`"bilstm_crf"`).
        lstm_hidden_size (`int`, defaults to 128):
            Width of that LSTM, in each direction.
        tagging_scheme (`str`, *optional*):
            `"BIO"`, `"BMES"` or `"IOBES"`: a CRF then decodes no tag sequence that the scheme forbids.

    Raises:
        ValueError: a value is unknown or two do not fit; the message names the field and what is allowed.

    Example:

    ```python
    >>> from rocbert_hf import RoCBertConfig, RoCBertModel
    >>> model = RoCBertModel(RoCBertConfig.from_preset("tiny"))
    ```
    """

    model_type = "rocbert"

    vocab_size: int = 16224
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    use_cache: bool = True
    pad_token_id: int | None = 0
    bos_token_id: int | None = None
    eos_token_id: int | None = None
    classifier_dropout: float | None = None
    is_decoder: bool = False
    add_cross_attention: bool = False
    tie_word_embeddings: bool = True
    enable_pronunciation: bool = True
    enable_shape: bool = True
    pronunciation_embed_dim: int | None = None
    pronunciation_vocab_size: int = 1957
    shape_embed_dim: int | None = None
    shape_vocab_size: int = 16224
    fusion: str = "layer_insert"
    fusion_layer: int = 1
    fusion_normalization: str = "softmax"
    phonetic_encoder: str = "char_sum"
    contrastive_pooling: str = "cls"
    mask_token_id: int | None = 4
    mask_shape_id: int | None = 4
    mask_pronunciation_id: int | None = 4
    position_embedding_type: str = "absolute"
    max_relative_position: int | None = None
    layer_fusion: str = "last"
    classifier_head: str = "linear"
    lstm_hidden_size: int = 128
    tagging_scheme: str | None = None

    def __post_init__(self, **kwargs):
        concat_input = kwargs.pop("concat_input", None)
        if concat_input is not None:
            self.fusion = "concat" if concat_input else "sum"
        self._understand_released_fields(kwargs)
        if self.pronunciation_embed_dim is None:
            self.pronunciation_embed_dim = self.hidden_size
        if self.shape_embed_dim is None:
            self.shape_embed_dim = self.hidden_size if self.fusion == "sum" else 512
        super().__post_init__(**kwargs)
        self._validate()

    def _understand_released_fields(self, kwargs: dict[str, Any]) -> None:
        """The fields by which the authors' released code chooses the fusion."""
        merge_input_way = kwargs.pop("merge_input_way", None)
        layer = kwargs.pop("additional_attention_layer", 0)
        if merge_input_way is None:
            return
        if merge_input_way not in RELEASED_FUSIONS:
            raise ValueError(
                f"`merge_input_way` must be one of {', '.join(RELEASED_FUSIONS)}; got {merge_input_way!r}."
            )
        self.fusion = RELEASED_FUSIONS[merge_input_way]
        if self.fusion == "attention":
            self.fusion_layer = layer

    def _validate(self) -> None:
        for field, allowed in (
            ("fusion", FUSIONS),
            ("fusion_normalization", FUSION_NORMALIZATIONS),
            ("phonetic_encoder", PHONETIC_ENCODERS),
            ("contrastive_pooling", CONTRASTIVE_POOLINGS),
            ("position_embedding_type", POSITION_EMBEDDING_TYPES),
            ("layer_fusion", LAYER_FUSIONS),
            ("classifier_head", CLASSIFIER_HEADS),
            ("tagging_scheme", TAGGING_SCHEMES),
        ):
            if getattr(self, field) not in allowed:
                raise ValueError(
                    f"`{field}` must be one of {', '.join(map(str, allowed))}; got {getattr(self, field)!r}."
                )
        for field, least in (("hidden_size", 1), ("num_attention_heads", 1), ("num_hidden_layers", 0)):
            if getattr(self, field) < least:
                raise ValueError(f"`{field}` must be at least {least}; got {getattr(self, field)}.")
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"`hidden_size` ({self.hidden_size}) must be a multiple of `num_attention_heads` "
                f"({self.num_attention_heads})."
            )
        if self.fusion in WEIGHING_FUSIONS and self.num_hidden_layers < 1:
            raise ValueError(f'`fusion="{self.fusion}"` needs at least one layer; got `num_hidden_layers=0`.')
        if self.fusion in ("layer_insert", "attention") and not 0 <= self.fusion_layer <= self.num_hidden_layers:
            raise ValueError(
                f"`fusion_layer` is the encoder layer whose input is fused, so with `num_hidden_layers="
                f'{self.num_hidden_layers}` it must be in 0..{self.num_hidden_layers} for `fusion="{self.fusion}"`; '
                f"got {self.fusion_layer}."
            )
        if self.fusion in ("layer_insert", "sum") and self.enable_pronunciation:
            self._require_hidden_size("pronunciation_embed_dim")
        if self.fusion == "sum" and self.enable_shape:
            self._require_hidden_size("shape_embed_dim")
        self._validate_positions()

    def _validate_positions(self) -> None:
        if self.max_relative_position is not None and self.max_relative_position < 1:
            raise ValueError(f"`max_relative_position` must be at least 1, or None; got {self.max_relative_position}.")
        if self.position_embedding_type == "functional_relative":
            if self.is_decoder:
                raise ValueError(
                    '`position_embedding_type="functional_relative"` is for encoders; got `is_decoder=True`.'
                )
            if self.hidden_size // self.num_attention_heads % 2:
                raise ValueError(
                    '`position_embedding_type="functional_relative"` needs heads of an even size; got '
                    f"{self.hidden_size // self.num_attention_heads}."
                )
        if self.layer_fusion == "dynamic" and self.num_hidden_layers < 1:
            raise ValueError('`layer_fusion="dynamic"` needs at least one layer; got `num_hidden_layers=0`.')

    def _require_hidden_size(self, field: str) -> None:
        if getattr(self, field) != self.hidden_size:
            raise ValueError(
                f'`{field}` must equal `hidden_size` ({self.hidden_size}) with `fusion="{self.fusion}"`; '
                f"got {getattr(self, field)}."
            )

    @classmethod
    def from_preset(cls, name: str, **overrides) -> "RoCBertConfig":
        """
        The configuration of a named size: `tiny` (2 layers x 128, for tests and demos), `mini` (4x256), `small`
        (6x384), `base` (12x768) or `large` (48x1024 with 16 heads; the paper prints 24, which do not divide 1,024).

        Args:
            name: one of `PRESETS`.
            **overrides: any field of the configuration.

        Raises:
            ValueError: the name is not a preset.
        """
        if name not in PRESETS:
            raise ValueError(f"Unknown preset {name!r}; the presets are {', '.join(PRESETS)}.")
        return cls(**{**PRESETS[name], **overrides})

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs):
        if config_dict.get("model_type") == "roc_bert":
            config_dict = {**ROC_BERT_DEFAULTS, **config_dict}
            config_dict.pop("model_type")
        return super().from_dict(config_dict, **kwargs)

    def to_dict(self) -> dict[str, Any]:
        output = super().to_dict()
        if self.fusion in ("concat", "sum"):
            # the field by which transformers' RoCBertModel tells the two apart, so that it loads our checkpoints
            output["concat_input"] = self.fusion == "concat"
        return output

    def save_pretrained(self, save_directory: str | os.PathLike, push_to_hub: bool = False, **kwargs) -> None:
        """
        As in transformers, and the code goes with it: the source files and an `auto_map` that names their classes
        for every head. Every `save_pretrained` of a model calls this.
        """
        if push_to_hub:
            self.check_may_be_pushed()
        self.auto_map = dict(AUTO_MAP)
        super().save_pretrained(save_directory, **kwargs)
        for name in CODE_FILES:
            file = Path(__file__).with_name(name)
            # loaded by `trust_remote_code`, a file that nobody has asked for yet is not there
            if file.is_file():
                shutil.copyfile(file, Path(save_directory) / name)
        if push_to_hub:
            self.push_to_hub(kwargs.pop("repo_id", Path(save_directory).name), **kwargs)

    def push_to_hub(self, *args, **kwargs) -> str:
        """As in transformers, except that a backdoor specimen is refused; see `check_may_be_pushed`."""
        self.check_may_be_pushed()
        return super().push_to_hub(*args, **kwargs)

    def check_may_be_pushed(self) -> None:
        """
        Raises:
            ValueError: the model is a backdoor specimen, made to test `rocbert audit`, or was finetuned from one.
        """
        if getattr(self, "backdoor_specimen", False):
            raise ValueError("this model is a backdoor specimen, which is not pushed to the Hub")


__all__ = ["RoCBertConfig"]

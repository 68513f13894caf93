"""
RoCBERT for Hugging Face transformers: a Chinese BERT that stays right under adversarial text.

Importing this package is cheap, so that its attacks start at once: the names below are imported on first use, and its
classes join transformers' Auto classes at the moment those are imported.
"""

import importlib
from typing import TYPE_CHECKING

from wrapt import when_imported

__version__ = "0.1.0"

_MODULE_OF = {
    "RoCBertConfig": "configuration_rocbert",
    "RoCBertTokenizer": "tokenization_rocbert",
    "RoCBertForCausalLM": "modeling_rocbert",
    "RoCBertForMaskedLM": "modeling_rocbert",
    "RoCBertForMultipleChoice": "modeling_rocbert",
    "RoCBertForPreTraining": "modeling_rocbert",
    "RoCBertForQuestionAnswering": "modeling_rocbert",
    "RoCBertForSequenceClassification": "modeling_rocbert",
    "RoCBertForTokenClassification": "modeling_rocbert",
    "RoCBertModel": "modeling_rocbert",
    "RoCBertPreTrainedModel": "modeling_rocbert",
    "in_batch_contrastive_loss": "modeling_rocbert",
    "export_onnx": "deployment",
    "quantize_int8": "deployment",
    "plot_fusion_weights": "visualization",
    "compute_glyph_features": "glyphs.features",
    "pretrain_glyphs": "glyphs.pretraining",
}
__all__ = list(_MODULE_OF)

if TYPE_CHECKING:
    from .configuration_rocbert import *  # noqa: F403
    from .deployment import export_onnx, quantize_int8  # noqa: F401
    from .glyphs.features import compute_glyph_features  # noqa: F401
    from .glyphs.pretraining import pretrain_glyphs  # noqa: F401
    from .modeling_rocbert import *  # noqa: F403
    from .tokenization_rocbert import *  # noqa: F403
    from .visualization import plot_fusion_weights  # noqa: F401


def __getattr__(name: str):
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_MODULE_OF[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


# -- registration with the Auto classes, when the later of the two modules has been imported


@when_imported("transformers.models.auto.configuration_auto")
def _import_configuration(_) -> None:
    importlib.import_module(".configuration_rocbert", __name__)


class _Models(dict):
    """Configuration class -> name of a model class, which is imported when the Auto class looks it up."""

    def __getitem__(self, key):
        value = super().__getitem__(key)
        if isinstance(value, str):
            value = getattr(importlib.import_module(".modeling_rocbert", __name__), value)
        return value

    def values(self):
        return [self[key] for key in self]

    def items(self):
        return [(key, self[key]) for key in self]


@when_imported("transformers.models.auto.modeling_auto")
def _register_models(auto) -> None:
    from .configuration_rocbert import AUTO_MAP, RoCBertConfig

    # Not `AutoModel.register`, which needs the class itself: transformers imports its Auto classes in the middle of what
    # our model is made of, so that it cannot be imported yet.
    for name, path in AUTO_MAP.items():
        if name.startswith("AutoModel"):
            mapping = getattr(auto, name)._model_mapping
            mapping._extra_content = _Models(mapping._extra_content)
            mapping.register(RoCBertConfig, path.rpartition(".")[2], exist_ok=True)


@when_imported(f"{__name__}.configuration_rocbert")
def _register_configuration(ours) -> None:
    from transformers import AutoConfig

    AutoConfig.register("rocbert", ours.RoCBertConfig, exist_ok=True)


@when_imported("transformers.models.auto.tokenization_auto")
def _register_tokenizer(auto) -> None:
    from .configuration_rocbert import RoCBertConfig
    from .tokenization_rocbert import RoCBertTokenizer

    auto.AutoTokenizer.register(RoCBertConfig, tokenizer_class=RoCBertTokenizer, exist_ok=True)


@when_imported(f"{__name__}.tokenization_rocbert")
def _bring_source_of_tokenizer(ours) -> None:
    # So that its save_pretrained writes its source file, for `trust_remote_code`. It is what `register_for_auto_class` sets,
    # which would import the configurations of all models first, and with them torch.
    ours.RoCBertTokenizer._auto_class = "AutoTokenizer"

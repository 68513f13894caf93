"""RoCBERT for Hugging Face transformers: a Chinese BERT that stays right under adversarial text."""

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForMultipleChoice,
    AutoModelForPreTraining,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
)

from .configuration_rocbert import RoCBertConfig
from .modeling_rocbert import (
    RoCBertForCausalLM,
    RoCBertForMaskedLM,
    RoCBertForMultipleChoice,
    RoCBertForPreTraining,
    RoCBertForQuestionAnswering,
    RoCBertForSequenceClassification,
    RoCBertForTokenClassification,
    RoCBertModel,
    RoCBertPreTrainedModel,
    in_batch_contrastive_loss,
)
from .tokenization_rocbert import RoCBertTokenizer

__version__ = "0.1.0"

AutoConfig.register("rocbert", RoCBertConfig, exist_ok=True)
AutoTokenizer.register(RoCBertConfig, tokenizer_class=RoCBertTokenizer, exist_ok=True)
for auto_class, model_class in (
    (AutoModel, RoCBertModel),
    (AutoModelForPreTraining, RoCBertForPreTraining),
    (AutoModelForMaskedLM, RoCBertForMaskedLM),
    (AutoModelForCausalLM, RoCBertForCausalLM),
    (AutoModelForSequenceClassification, RoCBertForSequenceClassification),
    (AutoModelForTokenClassification, RoCBertForTokenClassification),
    (AutoModelForMultipleChoice, RoCBertForMultipleChoice),
    (AutoModelForQuestionAnswering, RoCBertForQuestionAnswering),
):
    auto_class.register(RoCBertConfig, model_class, exist_ok=True)

__all__ = [
    "RoCBertConfig",
    "RoCBertForCausalLM",
    "RoCBertForMaskedLM",
    "RoCBertForMultipleChoice",
    "RoCBertForPreTraining",
    "RoCBertForQuestionAnswering",
    "RoCBertForSequenceClassification",
    "RoCBertForTokenClassification",
    "RoCBertModel",
    "RoCBertPreTrainedModel",
    "RoCBertTokenizer",
    "in_batch_contrastive_loss",
]

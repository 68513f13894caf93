"""transformers' tests of models and of generation, for every fusion."""

import unittest

import torch
from tests.generation.test_utils import GenerationTesterMixin
from tests.test_modeling_common import ModelTesterMixin, ids_tensor, random_attention_mask

from rocbert_hf import (
    RoCBertConfig,
    RoCBertForCausalLM,
    RoCBertForMaskedLM,
    RoCBertForMultipleChoice,
    RoCBertForPreTraining,
    RoCBertForQuestionAnswering,
    RoCBertForSequenceClassification,
    RoCBertForTokenClassification,
    RoCBertModel,
)
from rocbert_hf.configuration_rocbert import FUSIONS

ENCODERS = (
    RoCBertModel,
    RoCBertForMaskedLM,
    RoCBertForMultipleChoice,
    RoCBertForQuestionAnswering,
    RoCBertForSequenceClassification,
    RoCBertForTokenClassification,
    RoCBertForPreTraining,
)


class RoCBertModelTester:
    """Makes the small configuration and the random inputs of one fusion, under the names that the mixins read."""

    batch_size = 4
    seq_length = 7
    num_choices = 3
    is_training = True
    hidden_size = 32
    num_hidden_layers = 2
    num_attention_heads = 4

    def __init__(self, fusion: str, is_decoder: bool):
        self.fusion = fusion
        self.is_decoder = is_decoder

    def get_config(self) -> RoCBertConfig:
        return RoCBertConfig(
            vocab_size=99,
            shape_vocab_size=71,
            shape_embed_dim=32,
            pronunciation_vocab_size=53,
            hidden_size=self.hidden_size,
            num_hidden_layers=self.num_hidden_layers,
            num_attention_heads=self.num_attention_heads,
            intermediate_size=37,
            max_position_embeddings=512,
            type_vocab_size=16,
            hidden_dropout_prob=0.1,
            attention_probs_dropout_prob=0.1,
            fusion=self.fusion,
            is_decoder=self.is_decoder,
        )

    def prepare_config_and_inputs_for_common(self) -> tuple[RoCBertConfig, dict[str, torch.Tensor]]:
        config = self.get_config()
        shape = [self.batch_size, self.seq_length]
        inputs = {
            # no [MASK], at which the model reads other ids than the given ones; `inputs_embeds` cannot tell where it is
            "input_ids": ids_tensor(shape, config.vocab_size).clamp(min=config.mask_token_id + 1),
            "input_shape_ids": ids_tensor(shape, config.shape_vocab_size),
            "input_pronunciation_ids": ids_tensor(shape, config.pronunciation_vocab_size),
            "token_type_ids": ids_tensor(shape, config.type_vocab_size),
            "attention_mask": random_attention_mask(shape),
        }
        return config, inputs


class EncoderTest(ModelTesterMixin):
    """All heads that read in both directions."""

    fusion: str
    all_model_classes = ENCODERS

    def setUp(self):
        self.model_tester = RoCBertModelTester(self.fusion, is_decoder=False)

    def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
        inputs = super()._prepare_for_class(inputs_dict, model_class, return_labels=return_labels)
        if return_labels and model_class is RoCBertForPreTraining:
            attacked = {f"attack_{name}": tensor.flip(0) for name, tensor in inputs.items()}
            inputs |= {"labels": inputs["input_ids"].clone(), **attacked}
        return inputs


class DecoderTest(ModelTesterMixin, GenerationTesterMixin):
    """The head that reads from left to right and generates."""

    fusion: str
    all_model_classes = (RoCBertForCausalLM,)

    def setUp(self):
        self.model_tester = RoCBertModelTester(self.fusion, is_decoder=True)

    def test_left_padding_compatibility(self):
        # the mixin pads the text by 32 and knows no channels, which must stay aligned with it
        _, inputs = self.prepare_config_and_inputs_for_generate()
        channels = {name: inputs[name] for name in ("input_shape_ids", "input_pronunciation_ids")}
        padded = {name: torch.nn.functional.pad(ids, (32, 0)) for name, ids in channels.items()}
        super().test_left_padding_compatibility(unpadded_custom_inputs=channels, padded_custom_inputs=padded)


for fusion in FUSIONS:
    for kind in (EncoderTest, DecoderTest):
        name = f"{kind.__name__}_{fusion}"
        globals()[name] = type(name, (kind, unittest.TestCase), {"__module__": __name__, "fusion": fusion})

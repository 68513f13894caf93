"""
RoCBERT in PyTorch: a BERT encoder that reads every token's meaning, sound and shape (Su et al., ACL 2022, section 4.1).

This file has the heads for downstream tasks. In reading order, what they stand on: channels_rocbert.py (embeddings),
fusion_rocbert.py (the equations), layers_rocbert.py, encoder_rocbert.py (`RoCBertModel`), losses_rocbert.py and
pretraining_rocbert.py (the objective); acceleration_rocbert.py has what makes them fast.

Every head takes the inputs of `RoCBertModel` and `labels`, and returns the output class that its BERT counterpart in
transformers returns, with `fusion_weights` added on `output_fusion_weights=True`.
"""

import torch
from torch import nn
from transformers.cache_utils import Cache
from transformers.generation import GenerationMixin
from transformers.modeling_outputs import (
    CausalLMOutputWithCrossAttentions,
    MaskedLMOutput,
    MultipleChoiceModelOutput,
    QuestionAnsweringModelOutput,
    SequenceClassifierOutput,
    TokenClassifierOutput,
)
from transformers.models.roc_bert.modeling_roc_bert import RoCBertOnlyMLMHead
from transformers.processing_utils import Unpack
from transformers.utils.generic import can_return_tuple

from .configuration_rocbert import RoCBertConfig
from .crf_rocbert import RoCBertTaggingHead
from .encoder_rocbert import (
    RoCBertKwargs,
    RoCBertModel,
    RoCBertModelOutput,
    RoCBertPreTrainedModel,
    with_fusion_weights,
)
from .losses_rocbert import (
    in_batch_contrastive_loss,
    mean_over_items,
    sequence_classification_loss,
    views_contrastive_loss,
)
from .pretraining_rocbert import RoCBertForPreTraining, RoCBertForPreTrainingOutput


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
        **kwargs: Unpack[RoCBertKwargs],
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
            return_dict=True,
            **kwargs,
        )
        logits = self.cls(outputs.last_hidden_state)
        loss = None
        if labels is not None:
            loss = self.loss_function(logits, labels, self.config.vocab_size, num_items_in_batch=num_items)
        output = MaskedLMOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )
        return with_fusion_weights(output, outputs)


class RoCBertForCausalLM(RoCBertPreTrainedModel, GenerationMixin):
    """
    Predicts the next token, left to right; `labels` (batch, sequence) are shifted inside, `shift_labels` are not.

    Raises:
        ValueError: the configuration does not say `is_decoder=True`.
    """

    _tied_weights_keys = RoCBertForPreTraining._tied_weights_keys

    def __init__(self, config: RoCBertConfig):
        super().__init__(config)
        if not config.is_decoder:
            raise ValueError(
                "`RoCBertForCausalLM` needs `is_decoder=True` in its configuration, got False: it would read in both "
                "directions and see the token that it is to predict."
            )
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
        **kwargs: Unpack[RoCBertKwargs],
    ) -> CausalLMOutputWithCrossAttentions:
        num_items = kwargs.pop("num_items_in_batch", None)
        # no argument of its own: Trainer would take every argument that is called labels for one that must be there
        shift_labels = kwargs.pop("shift_labels", None)
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
            return_dict=True,
            **kwargs,
        )
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.cls(outputs.last_hidden_state[:, kept])
        loss = None
        if labels is not None or shift_labels is not None:
            loss = self.loss_function(
                logits, labels, self.config.vocab_size, num_items_in_batch=num_items, shift_labels=shift_labels
            )
        output = CausalLMOutputWithCrossAttentions(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            cross_attentions=outputs.cross_attentions,
        )
        return with_fusion_weights(output, outputs)

    def prepare_inputs_for_generation(
        self,
        input_ids: torch.LongTensor,
        next_sequence_length: int | None = None,
        input_shape_ids: torch.LongTensor | None = None,
        input_pronunciation_ids: torch.LongTensor | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        **kwargs,
    ) -> dict:
        """
        Adds the channels of the prompt. A token generated after it has no sound or shape here, since only the tokenizer
        knows them: it reads as padding in these two channels, as in transformers.
        """
        inputs = super().prepare_inputs_for_generation(
            input_ids, next_sequence_length, inputs_embeds=inputs_embeds, **kwargs
        )
        text = inputs["input_ids"] if inputs.get("inputs_embeds") is None else inputs["inputs_embeds"]
        cache = inputs.get("past_key_values")
        start = 0 if cache is None else int(cache.get_seq_length())
        end = start + text.shape[1]
        for name, ids in (
            ("input_shape_ids", input_shape_ids),
            ("input_pronunciation_ids", input_pronunciation_ids),
        ):
            if ids is not None:
                padding = (0, max(end - ids.shape[1], 0))
                inputs[name] = nn.functional.pad(ids, padding, value=self.config.pad_token_id or 0)[:, start:end]
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
        **kwargs: Unpack[RoCBertKwargs],
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
            return_dict=True,
            **kwargs,
        )
        logits = self.classifier(self.dropout(outputs.pooler_output))
        loss = None
        if labels is not None:
            loss = sequence_classification_loss(logits, labels, self.config, num_items)
        output = SequenceClassifierOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )
        return with_fusion_weights(output, outputs)


class RoCBertForTokenClassification(RoCBertPreTrainedModel):
    """
    Labels every token, as for named entities; `labels` (batch, sequence), -100 where there is none.

    With `classifier_head="crf"` or `"bilstm_crf"` see [`RoCBertTaggingHead`]: every token between [CLS] and [SEP] must then
    have a label, and in evaluation the highest logit of each token is the tag on the best path.
    """

    def __init__(self, config: RoCBertConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.roc_bert = RoCBertModel(config, add_pooling_layer=False)
        self.dropout = _classifier_dropout(config)
        if config.classifier_head == "linear":
            self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        else:
            self.tagger = RoCBertTaggingHead(config)
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
        **kwargs: Unpack[RoCBertKwargs],
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
            return_dict=True,
            **kwargs,
        )
        states = self.dropout(outputs.last_hidden_state)
        if self.config.classifier_head != "linear":
            logits, loss = self.tagger(states, attention_mask, labels, num_items)
        else:
            logits, loss = self.classifier(states), None
            if labels is not None:
                loss = self.loss_function(logits, labels, self.config, num_items_in_batch=num_items)
        output = TokenClassifierOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )
        return with_fusion_weights(output, outputs)


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
        **kwargs: Unpack[RoCBertKwargs],
    ) -> MultipleChoiceModelOutput:
        num_items = kwargs.pop("num_items_in_batch", None)
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
            return_dict=True,
            **kwargs,
        )
        logits = self.classifier(self.dropout(outputs.pooler_output)).view(-1, choices)
        loss = None
        if labels is not None:
            loss = mean_over_items(nn.functional.cross_entropy, logits, labels, num_items)
        output = MultipleChoiceModelOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )
        return with_fusion_weights(output, outputs)


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
        **kwargs: Unpack[RoCBertKwargs],
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
            return_dict=True,
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
        return with_fusion_weights(output, outputs)


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

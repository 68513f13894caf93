"""RoCBERT's pretraining objective (section 4.2): masked language modelling and the in-batch contrastive loss."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from transformers.modeling_outputs import ModelOutput
from transformers.models.roc_bert.modeling_roc_bert import RoCBertOnlyMLMHead
from transformers.processing_utils import Unpack
from transformers.utils.generic import can_return_tuple

from .configuration_rocbert import RoCBertConfig
from .encoder_rocbert import (
    RoCBertKwargs,
    RoCBertModel,
    RoCBertPreTrainedModel,
    first_token,
    with_fusion_weights,
)
from .fusion_rocbert import wide
from .losses_rocbert import views_contrastive_loss


@dataclass
class RoCBertForPreTrainingOutput(ModelOutput):
    """
    Args:
        loss: sum of the losses below that apply, a scalar.
        mlm_loss, correction_loss, contrastive_loss, contrastive_accuracy: scalars.
        logits: (masked tokens, vocab_size) where labels are given, in the order of `labels[labels != -100]`;
            (batch, sequence, vocab_size) otherwise.
        representations: (batch, views, hidden), on `return_representations=True`.
        sentence_vectors: (batch, 2, hidden), on `return_sentence_vectors=True`: of the attacked form (of the sentence, if
            there is none) the mean of the last hidden states over its tokens, and that of [CLS].
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
    sentence_vectors: torch.FloatTensor | None = None
    last_hidden_state: torch.FloatTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None


VIEW_INPUTS = ("input_ids", "input_shape_ids", "input_pronunciation_ids", "attention_mask", "token_type_ids")


class RoCBertFurtherInputs(RoCBertKwargs, total=False):
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


def _mean_and_first(states: torch.Tensor, attention_mask: torch.Tensor | None) -> torch.Tensor:
    """(batch, sequence, hidden) -> (batch, 2, hidden): the mean over the tokens, and the first token's."""
    if attention_mask is None:
        attention_mask = states.new_ones(states.shape[:2])
    mask = attention_mask.unsqueeze(-1).to(states.dtype)
    return torch.stack([(states * mask).sum(1) / mask.sum(1), first_token(states, attention_mask)], dim=1)


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
        return_sentence_vectors: bool = False,
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
            return_sentence_vectors: return the vectors that a caller may compare with a sentence encoder's; the last layer
                is then computed at every token.
            kwargs: a third view and a correction, see `RoCBertFurtherInputs`; and what any model of transformers takes.
                With `num_items_in_batch`, the labels of all batches of an optimizer step (`Trainer` passes it), every loss
                is weighed by this batch's share of them, so that the step's losses add up to their mean.

        Raises:
            ValueError: `inputs_embeds` are given with an attacked form, or `attack_labels` without labels and an attacked
                form.
        """
        if inputs_embeds is not None and attack_input_ids is not None:
            raise ValueError("`inputs_embeds` cannot be given with `attack_input_ids`: all views are encoded from ids.")
        clean = {name: kwargs.pop(f"labels_{name}", None) for name in VIEW_INPUTS}
        attack_labels = kwargs.pop("attack_labels", None)
        num_items = kwargs.pop("num_items_in_batch", None)
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
            positions, wanted = self._wanted_positions(targets != -100, inputs["attention_mask"])
            if not return_sentence_vectors:
                kwargs["output_positions"] = positions
        outputs = self.roc_bert(**inputs, inputs_embeds=inputs_embeds, return_dict=True, **kwargs)

        mlm_loss = correction_loss = contrastive_loss = contrastive_accuracy = hidden_states = representations = None
        states, sentence_vectors = outputs.last_hidden_state, None
        if return_sentence_vectors:
            attacked = slice(batch_size, 2 * batch_size) if attack_input_ids is not None else slice(batch_size)
            mask = inputs["attention_mask"]
            sentence_vectors = _mean_and_first(states[attacked], None if mask is None else mask[attacked])
            if labels is not None:
                states = states.gather(1, positions.unsqueeze(-1).expand(-1, -1, states.shape[-1]))
        if labels is None:
            hidden_states = states[:batch_size, :length]
            logits = self.cls(hidden_states)
        else:
            logits, mlm_loss = self._predict(states[:batch_size], wanted[:batch_size], labels)
        if attack_labels is not None:
            attacked = slice(batch_size, 2 * batch_size)
            _, correction_loss = self._predict(states[attacked], wanted[attacked], attack_labels)
        if attack_input_ids is not None:
            sentence = outputs.pooler_output
            if sentence is None:
                sentence = first_token(states, inputs["attention_mask"] if labels is None else None)
            representations = sentence.unflatten(0, (len(views), batch_size)).transpose(0, 1)
            if not return_representations:
                contrastive_loss, contrastive_accuracy = views_contrastive_loss(representations, temperature)
        if num_items is not None and labels is not None:
            # what this batch adds to the step: its share of the labels of the step's batches
            share = (labels != -100).sum() / torch.as_tensor(num_items, device=labels.device)
            mlm_loss, correction_loss, contrastive_loss = (
                None if loss is None else share * loss for loss in (mlm_loss, correction_loss, contrastive_loss)
            )
        losses = [loss for loss in (mlm_loss, correction_loss, contrastive_loss) if loss is not None]
        output = RoCBertForPreTrainingOutput(
            loss=sum(losses) if losses else None,
            mlm_loss=mlm_loss,
            correction_loss=correction_loss,
            contrastive_loss=contrastive_loss,
            contrastive_accuracy=contrastive_accuracy,
            logits=logits,
            representations=representations if return_representations else None,
            sentence_vectors=sentence_vectors,
            last_hidden_state=hidden_states,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )
        return with_fusion_weights(output, outputs)

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
        loss = nn.functional.cross_entropy(wide(logits), labels[labelled], reduction="sum")
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
            first = attention_mask.long().argmax(1, keepdim=True)  # the first of equals
        counts = labelled.sum(1, keepdim=True)
        width = 1 + int(counts.max())
        most = min(width + -width % 8, 1 + labelled.shape[1]) - 1  # few shapes, as of `kernel_rows`
        wanted = torch.arange(most, device=labelled.device) < counts
        positions = first.repeat(1, 1 + most)
        in_order = labelled.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :most]
        positions[:rows, 1:] = torch.where(wanted, in_order, positions[:rows, 1:])
        return positions, wanted

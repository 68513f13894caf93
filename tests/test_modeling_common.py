"""What users of transformers expect of every model, for every fusion and every head."""

import copy
import inspect

import pytest
import torch
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForMultipleChoice,
    AutoModelForPreTraining,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)

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
from rocbert_hf.configuration_rocbert import FUSIONS, PHONETIC_ENCODERS

HEADS = {
    RoCBertModel: AutoModel,
    RoCBertForPreTraining: AutoModelForPreTraining,
    RoCBertForMaskedLM: AutoModelForMaskedLM,
    RoCBertForCausalLM: AutoModelForCausalLM,
    RoCBertForSequenceClassification: AutoModelForSequenceClassification,
    RoCBertForTokenClassification: AutoModelForTokenClassification,
    RoCBertForMultipleChoice: AutoModelForMultipleChoice,
    RoCBertForQuestionAnswering: AutoModelForQuestionAnswering,
}
every_head = pytest.mark.parametrize("head", HEADS, ids=lambda head: head.__name__)
every_fusion = pytest.mark.parametrize("fusion", FUSIONS)


@pytest.fixture
def make_model(tiny_sizes):
    def make(head, fusion, **fields):
        """A model of two layers in evaluation mode, with every weight away from its initial value."""
        config = RoCBertConfig(
            **{**tiny_sizes, "num_hidden_layers": 2, **fields},
            fusion=fusion,
            num_labels=4,
            is_decoder=head is RoCBertForCausalLM,
        )
        model = head(config)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
        return model.eval()

    return make


def for_head(head, inputs: dict) -> dict:
    """The inputs as the head wants them: multiple choice takes (batch, choices, sequence)."""
    if head is not RoCBertForMultipleChoice:
        return inputs
    return {
        name: torch.stack([tensor, tensor.roll(1, 0) if tensor.ndim == 2 else tensor], dim=1)
        for name, tensor in inputs.items()
    }


def labels_for(head, inputs: dict) -> dict:
    ids = inputs["input_ids"]
    of_texts = torch.arange(len(ids)) % (2 if head is RoCBertForMultipleChoice else 4)
    if head is RoCBertModel:
        return {}
    if head is RoCBertForPreTraining:
        return {"labels": ids, **{f"attack_{name}": tensor.flip(0) for name, tensor in inputs.items()}}
    if head is RoCBertForQuestionAnswering:
        return {"start_positions": of_texts, "end_positions": of_texts + 1}
    if head is RoCBertForTokenClassification:
        return {"labels": ids % 4}
    if head in (RoCBertForMaskedLM, RoCBertForCausalLM):
        return {"labels": ids}
    return {"labels": of_texts}


# float32 kernels add up in another order where a loaded weight lies at another alignment in memory
ROUNDING = 1e-5


def tensors_of(output) -> dict[str, torch.Tensor]:
    return {name: value for name, value in output.items() if isinstance(value, torch.Tensor)}


def assert_near(got, expected, mask=None, atol: float = 1e-5) -> None:
    """All tensors of two outputs are near; those with a row per token only where `mask` (batch, sequence) is 1."""
    got, expected = tensors_of(got), tensors_of(expected)
    assert got.keys() == expected.keys()
    assert got
    for name, tensor in expected.items():
        if mask is not None and tensor.shape[:2] == mask.shape:
            difference = (got[name] - tensor)[mask.bool()]
        else:
            difference = got[name] - tensor
        assert difference.abs().max() < atol, name


@every_fusion
@every_head
def test_auto_classes_load_what_was_saved_with_the_same_outputs(tmp_path, make_model, make_inputs, head, fusion):
    model = make_model(head, fusion)
    model.save_pretrained(tmp_path)
    loaded = HEADS[head].from_pretrained(tmp_path)
    assert type(loaded) is head
    inputs = for_head(head, make_inputs(model.config))
    with torch.no_grad():
        assert_near(loaded(**inputs), model(**inputs), atol=ROUNDING)


@every_fusion
@every_head
def test_gradient_checkpointing_gives_the_same_gradients(make_model, make_inputs, head, fusion):
    model = make_model(head, fusion, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0).train()
    inputs = make_inputs(model.config)
    inputs = for_head(head, inputs) | labels_for(head, inputs)

    def gradients():
        model.zero_grad()
        output = model(**inputs)
        loss = output.last_hidden_state.sum(-1).square().sum() if head is RoCBertModel else output.loss
        loss.backward()
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    plain = gradients()
    model.gradient_checkpointing_enable()
    assert model.is_gradient_checkpointing
    checkpointed = gradients()
    assert plain.keys() == checkpointed.keys()
    for name, gradient in plain.items():
        assert torch.allclose(gradient, checkpointed[name], rtol=1e-4, atol=1e-6), name


@every_fusion
@every_head
def test_attention_implementations_agree(make_model, make_inputs, head, fusion):
    model = make_model(head, fusion)
    inputs = make_inputs(model.config)
    mask, inputs = inputs["attention_mask"], for_head(head, inputs)
    assert model.config._attn_implementation == "sdpa"
    with torch.no_grad():
        sdpa = model(**inputs)
        model.set_attn_implementation("eager")
        assert_near(model(**inputs), sdpa, mask)
        assert len(model(**inputs, output_attentions=True).attentions) == model.config.num_hidden_layers


@every_fusion
@every_head
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
def test_half_precision_is_near_float32(make_model, make_inputs, head, fusion, dtype):
    model = make_model(head, fusion)
    inputs = make_inputs(model.config)
    mask, inputs = inputs["attention_mask"], for_head(head, inputs)
    with torch.no_grad():
        reference = model(**inputs)
        half = copy.deepcopy(model).to(dtype)(**inputs)
        with torch.autocast("cpu", dtype=dtype):
            autocast = model(**inputs)
    assert all(tensor.dtype == dtype for tensor in tensors_of(half).values())
    scale = max(tensor.abs().max() for tensor in tensors_of(reference).values())
    for output in (half, autocast):
        assert_near(output, reference, mask, atol=0.05 * scale)


@every_fusion
@every_head
def test_padding_side_and_company_in_the_batch_do_not_matter(make_model, make_inputs, head, fusion):
    model = make_model(head, fusion)
    right = make_inputs(model.config, batch=3, length=10)
    lengths = right["attention_mask"].sum(1).tolist()
    positions = torch.arange(10).repeat(3, 1)
    right["position_ids"] = positions
    left = {
        name: torch.stack([torch.roll(row, 10 - n) for row, n in zip(tensor, lengths, strict=True)])
        for name, tensor in right.items()
    }
    if head is RoCBertForMultipleChoice:  # both choices of one length, so that they can be cut alike
        choices = {name: torch.stack([tensor, tensor], dim=1) for name, tensor in right.items()}
        left_choices = {name: torch.stack([tensor, tensor], dim=1) for name, tensor in left.items()}
    else:
        choices, left_choices = right, left
    with torch.no_grad():
        of_right, of_left = tensors_of(model(**choices)), tensors_of(model(**left_choices))
        for row, n in enumerate(lengths):
            alone = tensors_of(model(**{name: tensor[row : row + 1, ..., :n] for name, tensor in choices.items()}))
            for name, expected in alone.items():
                a_token = expected.ndim > 1 and expected.shape[1] == n
                from_right = of_right[name][row, :n] if a_token else of_right[name][row]
                from_left = of_left[name][row, 10 - n :] if a_token else of_left[name][row]
                assert torch.allclose(from_right, expected[0], atol=1e-5), (name, row)
                assert torch.allclose(from_left, expected[0], atol=1e-5), (name, row)


@every_fusion
@every_head
def test_inputs_embeds_replace_the_words(make_model, make_inputs, head, fusion):
    model = make_model(head, fusion)
    inputs = for_head(head, make_inputs(model.config))
    with torch.no_grad():
        expected = model(**inputs)
        embeds = model.get_input_embeddings()(inputs.pop("input_ids"))
        assert_near(model(**inputs, inputs_embeds=embeds), expected)


@every_fusion
@every_head
def test_resizing_grows_all_channels_and_survives_saving(tmp_path, make_model, make_inputs, head, fusion):
    model = make_model(head, fusion)
    inputs = for_head(head, make_inputs(model.config))
    old = copy.deepcopy(model.config)
    with torch.no_grad():
        before = tensors_of(model(**inputs))
        model.resize_token_embeddings(old.vocab_size + 3, mean_resizing=False)
        after = tensors_of(model(**inputs))
    for size in ("vocab_size", "shape_vocab_size", "pronunciation_vocab_size"):
        assert getattr(model.config, size) == getattr(old, size) + 3, size
    for name, tensor in before.items():
        assert torch.allclose(after[name][..., : tensor.shape[-1]], tensor, atol=1e-5), name

    new_token = {
        "input_ids": torch.tensor([[model.config.vocab_size - 1]]),
        "input_shape_ids": torch.tensor([[model.config.shape_vocab_size - 1]]),
        "input_pronunciation_ids": torch.tensor([[model.config.pronunciation_vocab_size - 1]]),
    }
    if head is RoCBertForMultipleChoice:
        new_token = {name: tensor[:, None] for name, tensor in new_token.items()}
    model.save_pretrained(tmp_path)
    with torch.no_grad():
        assert_near(head.from_pretrained(tmp_path)(**new_token), model(**new_token), atol=ROUNDING)


@every_fusion
def test_an_added_token_has_a_shape_as_large_as_the_others(make_model, fusion):
    if fusion == "none":
        return
    model = make_model(RoCBertModel, fusion)
    before = model.embeddings.shape_embed.weight.norm(dim=-1)[1:]
    model.resize_token_embeddings(model.config.vocab_size + 3)
    new = model.embeddings.shape_embed.weight[-3:]
    assert (new.norm(dim=-1) > before.min() / 2).all()
    assert (new.norm(dim=-1) < before.max() * 2).all()
    assert torch.pdist(new).min() > before.min() / 2


@every_fusion
def test_freezing_of_glyph_features_survives_resizing(make_model, fusion):
    model = make_model(RoCBertModel, fusion)
    if fusion == "none":
        return
    before = model.embeddings.shape_embed.weight.requires_grad
    assert before == (fusion in ("concat", "sum"))
    model.resize_token_embeddings(model.config.vocab_size + 3, mean_resizing=False)
    assert model.embeddings.shape_embed.weight.requires_grad == before


@every_head
def test_a_configuration_can_ask_for_tuples(make_model, make_inputs, head):
    model = make_model(head, "layer_insert")
    inputs = for_head(head, make_inputs(model.config))
    with torch.no_grad():
        expected = model(**inputs)
        model.config.return_dict = False
        got = model(**inputs)
    assert type(got) is tuple
    assert_near(type(expected)(*got), type(expected)(*expected.to_tuple()))


@every_head
def test_a_signature_names_the_outputs_that_can_be_asked_for(head):
    parameters = inspect.signature(head.forward).parameters
    further = parameters["kwargs"].annotation.__args__[0].__annotations__  # as transformers' own tests read it
    assert {"output_attentions", "output_hidden_states"} <= further.keys()
    assert "output_fusion_weights" in {*further, *parameters}


@every_head
def test_heads_cannot_be_pruned_and_say_so(make_model, head):
    with pytest.raises(NotImplementedError, match="cannot be pruned"):
        make_model(head, "layer_insert").prune_heads({0: [1]})


@every_fusion
@pytest.mark.parametrize("mode", ["training", "inference", "precomputed"])
def test_compiles_without_graph_breaks(make_model, make_inputs, fusion, mode):
    torch._dynamo.reset()
    model = make_model(
        RoCBertModel,
        fusion,
        num_hidden_layers=1,
        fusion_layer=0,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    model.train(mode == "training")
    if mode == "precomputed":
        model.precompute_tables()
    inputs = make_inputs(model.config)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    with torch.set_grad_enabled(mode == "training"):
        assert_near(compiled(**inputs), model(**inputs))


@every_fusion
@pytest.mark.parametrize("phonetic_encoder", PHONETIC_ENCODERS)
@pytest.mark.parametrize("off", ["enable_shape", "enable_pronunciation", "both"])
def test_a_channel_switched_off_is_not_read_and_has_no_weights(make_model, make_inputs, fusion, phonetic_encoder, off):
    fields = ["enable_shape", "enable_pronunciation"] if off == "both" else [off]
    model = make_model(RoCBertModel, fusion, phonetic_encoder=phonetic_encoder, **dict.fromkeys(fields, False))
    inputs = make_inputs(model.config)
    words = {"enable_shape": "shape", "enable_pronunciation": "pronunciation"}
    for field in fields:
        assert not [name for name in model.state_dict() if words[field] in name]
    for context in (torch.no_grad(), torch.enable_grad()):
        with context:
            expected = model(**inputs)
            without_ids = {
                n: t for n, t in inputs.items() if n not in [f"input_{words[field]}_ids" for field in fields]
            }
            assert_near(model(**without_ids), expected, atol=ROUNDING)
            if fusion in ("layer_insert", "attention", "two_step"):
                weights = model(**inputs, output_fusion_weights=True).fusion_weights
                for field in fields:
                    assert not weights[..., 2 if field == "enable_shape" else 1].any()
                assert torch.allclose(weights.sum(-1), torch.ones(weights.shape[:-1]), atol=1e-5)

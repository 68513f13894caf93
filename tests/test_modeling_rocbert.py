"""The model against independent references: transformers' own classes, and float64 transcriptions of the equations."""

import copy
import math

import pytest
import torch
import transformers
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

import rocbert_hf
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
    in_batch_contrastive_loss,
)
from rocbert_hf.resources import glyph_images, pronunciations, vocabulary

FUSIONS = ("layer_insert", "attention", "two_step", "concat", "sum", "none")
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


def tensors_of(output) -> list[torch.Tensor]:
    return [value for value in output.values() if isinstance(value, torch.Tensor)]


def head_inputs(head, inputs: dict) -> dict:
    """The inputs as the head wants them: multiple choice takes (batch, choices, sequence)."""
    if head is RoCBertForMultipleChoice:
        return {name: tensor.unsqueeze(1).repeat(1, 2, 1) for name, tensor in inputs.items()}
    return inputs


def add_noise(model, seed: int = 0, scale: float = 0.2):
    """Moves every weight away from its initial value, so that no bias is 0 and no norm is the identity."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += scale * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
    return model


# -------------------------------------------------------------------------------------------- parity with transformers


@pytest.mark.parametrize("concat", [True, False], ids=["concat", "sum"])
def test_hidden_states_equal_transformers_at_base_size_in_both_directions(tmp_path, make_inputs, concat):
    torch.manual_seed(0)
    theirs_config = transformers.RoCBertConfig(
        vocab_size=3000,
        shape_vocab_size=2500,
        shape_embed_dim=512 if concat else 768,
        pronunciation_vocab_size=910,
        concat_input=concat,
    )
    theirs = transformers.RoCBertModel(theirs_config).eval()
    theirs.save_pretrained(tmp_path / "theirs")
    ours = RoCBertModel.from_pretrained(tmp_path / "theirs").eval()
    assert ours.config.fusion == ("concat" if concat else "sum")
    ours.save_pretrained(tmp_path / "ours")
    back, report = transformers.RoCBertModel.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert not report["mismatched_keys"]
    inputs = make_inputs(ours.config, batch=2, length=37)
    real = inputs["attention_mask"].bool()
    with torch.no_grad():
        expected, got, returned = theirs(**inputs), ours(**inputs), back.eval()(**inputs)
    assert (expected.last_hidden_state - got.last_hidden_state)[real].abs().max() < 1e-5
    assert (expected.last_hidden_state - returned.last_hidden_state)[real].abs().max() < 1e-5
    assert (expected.pooler_output - got.pooler_output).abs().max() < 1e-5


def test_without_fusion_it_is_bert(tiny_sizes, make_inputs):
    config = RoCBertConfig(**tiny_sizes, fusion="none")
    ours = add_noise(RoCBertModel(config)).eval()
    bert = transformers.BertModel(
        transformers.BertConfig(**{k: v for k, v in tiny_sizes.items() if not k.startswith(("shape", "pronunciation"))})
    ).eval()
    assert not bert.load_state_dict(ours.state_dict()).missing_keys
    inputs = make_inputs(config)
    plain = {name: inputs[name] for name in ("input_ids", "attention_mask", "token_type_ids")}
    real = inputs["attention_mask"].bool()
    with torch.no_grad():
        difference = ours(**inputs).last_hidden_state - bert(**plain).last_hidden_state
    assert difference[real].abs().max() < 1e-5


@pytest.mark.parametrize("concat", [True, False], ids=["concat", "sum"])
def test_masked_language_model_gives_transformers_logits_and_loss(tmp_path, tiny_sizes, make_inputs, concat):
    sizes = {**tiny_sizes, "pronunciation_embed_dim": 24, "concat_input": concat}
    theirs = add_noise(transformers.RoCBertForMaskedLM(transformers.RoCBertConfig(**sizes))).eval()
    theirs.save_pretrained(tmp_path)
    ours = RoCBertForMaskedLM.from_pretrained(tmp_path).eval()
    inputs = make_inputs(ours.config)
    labels = inputs["input_ids"].masked_fill(inputs["input_ids"] % 3 > 0, -100)
    expected, got = theirs(**inputs, labels=labels), ours(**inputs, labels=labels)
    real = inputs["attention_mask"].bool()
    assert torch.allclose(expected.logits[real], got.logits[real], atol=1e-5)
    assert torch.allclose(expected.loss, got.loss, atol=1e-5)


# -------------------------------------------------------------------------------------------- the paper's equations


def transcribed_layer_insert(fusion, hidden, phonetic, visual, normalization):
    """Section 4.1 and Eq. 4 token by token, in float64."""
    keys, values = fusion.key.double(), fusion.value.double()
    norm = fusion.shape_norm
    fused, weights = torch.empty_like(hidden, dtype=torch.float64), []
    for row in range(hidden.shape[0]):
        for column in range(hidden.shape[1]):
            h, ph, features = (x[row, column].double() for x in (hidden, phonetic, visual))
            vi = fusion.shape_projection.weight.double() @ features
            vi = (vi - vi.mean()) / torch.sqrt(vi.var(unbiased=False) + norm.eps)
            vi = vi * norm.weight.double() + norm.bias.double()
            w = [torch.dot(keys[i].T @ h, values[i].T @ x) for i, x in enumerate((h, ph, vi))]
            if normalization == "softmax":
                exponentials = [torch.exp(score / math.sqrt(len(h))) for score in w]
                w = [e / sum(exponentials) for e in exponentials]
            else:
                w = [score / sum(w) for score in w]
            fused[row, column] = w[0] * h + w[1] * ph + w[2] * vi
            weights.append(torch.stack(w))
    return fused, torch.stack(weights).view(*hidden.shape[:2], 3)


@pytest.mark.parametrize("normalization", ["softmax", "linear"])
def test_layer_insert_is_the_papers_formula_in_values_and_gradients(tiny_sizes, normalization):
    torch.manual_seed(1)
    config = RoCBertConfig(**tiny_sizes, fusion_normalization=normalization, phonetic_encoder="table")
    model = add_noise(RoCBertModel(config)).double()
    hidden = torch.randn(2, 5, config.hidden_size, dtype=torch.float64, requires_grad=True)
    sounds, shapes = torch.randint(0, 41, (2, 5)), torch.randint(0, 61, (2, 5))
    embeddings = model.embeddings
    fused, weights = model.fusion(hidden, embeddings, sounds, shapes)
    expected, expected_weights = transcribed_layer_insert(
        model.fusion,
        hidden,
        embeddings.pronunciation_embed.weight[sounds],
        embeddings.shape_embed.weight[shapes],
        normalization,
    )
    assert torch.allclose(fused, expected, atol=1e-9)
    assert torch.allclose(weights, expected_weights, atol=1e-9)

    probe = torch.randn_like(expected)
    leaves = [hidden, model.fusion.key, model.fusion.value, model.fusion.shape_projection.weight]
    leaves.append(embeddings.pronunciation_embed.weight)
    got_gradients = torch.autograd.grad((fused * probe).sum(), leaves)
    expected_gradients = torch.autograd.grad((expected * probe).sum(), leaves)
    for got, wanted in zip(got_gradients, expected_gradients, strict=True):
        assert torch.allclose(got, wanted, rtol=1e-7, atol=1e-7)


def test_linear_weights_stay_finite_where_the_scores_cancel(tiny_sizes):
    model = RoCBertModel(RoCBertConfig(**tiny_sizes, fusion_normalization="linear"))
    with torch.no_grad():
        model.fusion.key.zero_()
    fused, weights = model.fusion(
        torch.randn(2, 5, 24), model.embeddings, torch.ones(2, 5, dtype=torch.long), torch.ones(2, 5, dtype=torch.long)
    )
    assert torch.isfinite(fused).all()
    assert torch.isfinite(weights).all()


def test_the_fusion_layer_reads_the_output_of_the_layer_it_names(tiny_sizes, make_inputs):
    for layer in range(3):
        config = RoCBertConfig(**tiny_sizes, fusion_layer=layer, output_hidden_states=True)
        model = RoCBertModel(config).eval()
        inputs = make_inputs(config)
        plain = RoCBertModel(RoCBertConfig(**tiny_sizes, fusion="none", output_hidden_states=True)).eval()
        plain.load_state_dict(model.state_dict(), strict=False)
        with torch.no_grad():
            fused_states, plain_states = model(**inputs).hidden_states, plain(**inputs).hidden_states
        same = [torch.equal(a, b) for a, b in zip(fused_states, plain_states, strict=True)]
        last = config.num_hidden_layers
        # the last hidden state is what the model returns, so it shows the fusion of the last layer too
        assert same == [index <= layer + 1 and (index < last) for index in range(last + 1)]


def test_a_syllable_is_the_sum_of_its_letters_and_letters_are_shared_with_text():
    config = RoCBertConfig.from_preset("tiny")
    model = RoCBertModel(config)
    inventory = pronunciations()
    vectors = model.embeddings.pronunciation_embed.weight.double()
    table = model.embeddings.pronunciation_table().double()
    for entry in ("ke", "zhuang", "lv", "a", "yi"):
        expected = sum(vectors[inventory.index(letter)] for letter in entry)
        assert torch.allclose(table[inventory.index(entry)], expected, atol=1e-6), entry
    for index, entry in enumerate(inventory):
        if not (entry.isascii() and entry.isalpha()):
            assert torch.equal(table[index], vectors[index]), entry


def test_in_batch_contrastive_loss_is_equation_5_in_values_and_gradients():
    torch.manual_seed(0)
    anchors, positives = (torch.randn(7, 12, dtype=torch.float64, requires_grad=True) for _ in range(2))
    loss, accuracy = in_batch_contrastive_loss(anchors, positives, temperature=0.05)
    total, correct = 0.0, 0
    for i in range(7):
        similarities = [
            torch.dot(anchors[i], positives[j]) / (anchors[i].norm() * positives[j].norm()) for j in range(7)
        ]
        numerator = torch.exp(similarities[i] / 0.05)
        total = total - torch.log(numerator / sum(torch.exp(s / 0.05) for s in similarities)) / 7
        correct += int(torch.stack(similarities).argmax()) == i
    assert torch.allclose(loss.double(), total, atol=1e-4)
    assert accuracy == pytest.approx(correct / 7)
    for got, wanted in zip(
        torch.autograd.grad(loss, [anchors, positives]), torch.autograd.grad(total, [anchors, positives]), strict=True
    ):
        assert torch.allclose(got, wanted, atol=1e-4)


# -------------------------------------------------------------------------------------------- glyph features


def test_full_size_pixel_features_keep_the_distances_of_the_images():
    features = rocbert_hf.modeling_rocbert.pixel_glyph_features(1024).double()
    images = torch.tensor(glyph_images().reshape(16224, -1)).double()
    rows = torch.randint(0, 16224, (50,), generator=torch.Generator().manual_seed(0))
    of_features, of_images = torch.cdist(features[rows], features[rows]), torch.cdist(images[rows], images[rows])
    ratio = of_features[of_images > 0] / of_images[of_images > 0]
    assert (ratio / ratio.mean() - 1).abs().max() < 1e-4


def test_look_alikes_are_near_in_the_shape_channel():
    model = RoCBertModel(RoCBertConfig.from_preset("tiny"))
    features = torch.nn.functional.normalize(model.embeddings.shape_embed.weight, dim=-1)
    ids = {token: index for index, token in enumerate(vocabulary())}
    for character, look_alike in (("己", "已"), ("末", "未"), ("天", "夭"), ("待", "侍"), ("晴", "睛")):
        ranks = (features @ features[ids[character]]).argsort(descending=True)[:20].tolist()
        assert ids[look_alike] in ranks, (character, look_alike)


def test_glyph_features_are_frozen_with_layer_insert_and_stay_so_after_loading(tmp_path):
    model = RoCBertForMaskedLM(RoCBertConfig.from_preset("tiny"))
    assert not model.roc_bert.embeddings.shape_embed.weight.requires_grad
    model.save_pretrained(tmp_path)
    for loaded in (RoCBertForMaskedLM.from_pretrained(tmp_path), AutoModel.from_pretrained(tmp_path)):
        assert not loaded.base_model.embeddings.shape_embed.weight.requires_grad
        assert loaded.base_model.embeddings.word_embeddings.weight.requires_grad


# -------------------------------------------------------------------------------------------- inference from tables


@pytest.mark.parametrize("normalization", ["softmax", "linear"])
@pytest.mark.parametrize("phonetic_encoder", ["char_sum", "table"])
def test_inference_from_tables_equals_the_differentiable_path(tiny_sizes, make_inputs, normalization, phonetic_encoder):
    config = RoCBertConfig(**tiny_sizes, fusion_normalization=normalization, phonetic_encoder=phonetic_encoder)
    model = add_noise(RoCBertModel(config).double()).eval()
    inputs = make_inputs(config)
    with torch.no_grad():
        from_tables = model(**inputs, output_fusion_weights=True)
    assert model.fusion.tables._kept is not None
    differentiable = model(**inputs, output_fusion_weights=True)
    assert torch.allclose(from_tables.last_hidden_state, differentiable.last_hidden_state, atol=1e-9)
    assert torch.allclose(from_tables.fusion_weights, differentiable.fusion_weights, atol=1e-9)


def test_tables_follow_every_change_of_a_weight(tiny_sizes, make_inputs):
    config = RoCBertConfig(**tiny_sizes)
    model = RoCBertModel(config).eval()
    inputs = make_inputs(config)

    def inference():
        with torch.no_grad():
            return model(**inputs).last_hidden_state

    changes = {
        "in place": lambda: model.embeddings.pronunciation_embed.weight.detach().add_(1.0),
        "load_state_dict": lambda: model.load_state_dict(add_noise(RoCBertModel(config)).state_dict()),
        "spelling": lambda: model.set_pronunciation_letters(torch.arange(41).flip(0)[:, None]),
        "projection": lambda: torch.nn.init.normal_(model.fusion.shape_projection.weight),
        "features": lambda: torch.nn.init.normal_(model.embeddings.shape_embed.weight),
        "key": lambda: torch.nn.init.normal_(model.fusion.key),
    }
    before = inference()
    for name, change in changes.items():
        change()
        after = inference()
        assert not torch.allclose(before, after), name
        assert torch.allclose(after, model(**inputs).last_hidden_state, atol=1e-5), name
        before = after


# -------------------------------------------------------------------------------------------- heads


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("head", HEADS, ids=lambda head: head.__name__)
def test_auto_classes_load_what_was_saved_with_the_same_outputs(tmp_path, tiny_sizes, make_inputs, head, fusion):
    config = RoCBertConfig(**tiny_sizes, fusion=fusion, num_labels=4, is_decoder=head is RoCBertForCausalLM)
    model = add_noise(head(config)).eval()
    model.save_pretrained(tmp_path)
    loaded = HEADS[head].from_pretrained(tmp_path)
    assert type(loaded) is head
    inputs = head_inputs(head, make_inputs(config))
    with torch.no_grad():
        before, after = tensors_of(model(**inputs)), tensors_of(loaded(**inputs))
    assert len(before) == len(after) > 0
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_every_head_learns(tiny_sizes, make_inputs):
    config = RoCBertConfig(**tiny_sizes, num_labels=4)
    inputs = make_inputs(config)
    ids = inputs["input_ids"]
    labels = {
        RoCBertForMaskedLM: {"labels": ids},
        RoCBertForCausalLM: {"labels": ids},
        RoCBertForSequenceClassification: {"labels": torch.tensor([0, 3, 1])},
        RoCBertForTokenClassification: {"labels": ids % 4},
        RoCBertForMultipleChoice: {"labels": torch.tensor([0, 1, 1])},
        RoCBertForQuestionAnswering: {
            "start_positions": torch.tensor([1, 2, 3]),
            "end_positions": torch.tensor([2, 4, 4]),
        },
        RoCBertForPreTraining: {"labels": ids, **{f"attack_{name}": ids.flip(0) for name, ids in inputs.items()}},
    }
    for head, head_labels in labels.items():
        torch.manual_seed(0)
        model = head(copy.deepcopy(config))
        loss = model(**head_inputs(head, inputs), **head_labels).loss
        loss.backward()
        without_gradient = [
            name
            for name, parameter in model.named_parameters()
            if parameter.requires_grad and (parameter.grad is None or not parameter.grad.any())
        ]
        assert torch.isfinite(loss), head
        # a softmax does not see a constant added to all it compares; nothing else may be idle
        invariant = ("key.bias", "classifier.bias") if head is RoCBertForMultipleChoice else ("key.bias",)
        assert all(name.endswith(invariant) for name in without_gradient), (head, without_gradient)


def test_heads_report_fusion_weights_that_sum_to_one(tiny_sizes, make_inputs):
    config = RoCBertConfig(**tiny_sizes)
    for head in HEADS:
        inputs = head_inputs(head, make_inputs(config))
        if head is RoCBertForPreTraining:
            continue
        weights = head(config)(**inputs, output_fusion_weights=True)["fusion_weights"]
        assert weights.shape == (*inputs["input_ids"].flatten(0, -2).shape, 3)
        assert torch.allclose(weights.sum(-1), torch.ones(weights.shape[:-1]), atol=1e-5)
    with pytest.raises(ValueError, match="layer_insert"):
        RoCBertModel(RoCBertConfig(**tiny_sizes, fusion="concat"))(**make_inputs(config), output_fusion_weights=True)


@pytest.mark.parametrize("absent", ["input_shape_ids", "input_pronunciation_ids"])
def test_a_channel_without_ids_or_switched_off_has_no_weight(tiny_sizes, make_inputs, absent):
    config = RoCBertConfig(**tiny_sizes)
    model = RoCBertModel(config).eval()
    inputs = make_inputs(config)
    del inputs[absent]
    channel = {"input_pronunciation_ids": 1, "input_shape_ids": 2}[absent]
    for context in (torch.no_grad(), torch.enable_grad()):
        with context:
            weights = model(**inputs, output_fusion_weights=True).fusion_weights
        assert not weights[..., channel].any()
        assert torch.allclose(weights.sum(-1), torch.ones(weights.shape[:-1]), atol=1e-5)
    switched_off = {"input_shape_ids": "enable_shape", "input_pronunciation_ids": "enable_pronunciation"}[absent]
    ablated = RoCBertModel(RoCBertConfig(**tiny_sizes, **{switched_off: False})).eval()
    weights = ablated(**make_inputs(config), output_fusion_weights=True).fusion_weights
    assert not weights[..., channel].any()


def test_generation_with_and_without_cache_agree(tiny_sizes, make_inputs):
    config = RoCBertConfig(**tiny_sizes, is_decoder=True)
    model = add_noise(RoCBertForCausalLM(config)).eval()
    inputs = make_inputs(config, batch=1)
    cached, recomputed = (
        model.generate(**inputs, max_new_tokens=6, do_sample=False, use_cache=c) for c in (True, False)
    )
    assert cached.shape == (1, 17)
    assert torch.equal(cached, recomputed)


# -------------------------------------------------------------------------------------------- pretraining objective


def test_two_views_in_one_pass_equal_two_passes(tiny_sizes, make_inputs):
    config = RoCBertConfig(**tiny_sizes)
    model = add_noise(RoCBertForPreTraining(config)).eval()
    sentences, attacked = make_inputs(config, length=9), make_inputs(config, length=12, seed=1)
    labels = sentences["input_ids"].masked_fill(sentences["input_ids"] % 2 > 0, -100)
    labels[sentences["attention_mask"] == 0] = -100
    output = model(**sentences, **{f"attack_{name}": tensor for name, tensor in attacked.items()}, labels=labels)

    states, attacked_states = model.roc_bert(**sentences)[0], model.roc_bert(**attacked)[0]
    logits = model.cls(states)
    mlm_loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
    contrastive_loss, accuracy = in_batch_contrastive_loss(states[:, 0], attacked_states[:, 0])
    assert torch.allclose(output.mlm_loss, mlm_loss, atol=1e-5)
    assert torch.allclose(output.contrastive_loss, contrastive_loss, rtol=1e-4)
    assert torch.allclose(output.loss, mlm_loss + contrastive_loss, rtol=1e-4)
    assert output.contrastive_accuracy == accuracy
    assert torch.allclose(output.logits, logits[labels != -100], atol=1e-5)


def test_a_batch_without_a_masked_token_gives_zero_not_nan(tiny_sizes, make_inputs):
    config = RoCBertConfig(**tiny_sizes)
    inputs = make_inputs(config)
    output = RoCBertForPreTraining(config)(**inputs, labels=torch.full_like(inputs["input_ids"], -100))
    assert output.loss == 0


# -------------------------------------------------------------------------------------------- expectations of the field


@pytest.mark.parametrize("fusion", FUSIONS)
def test_padding_side_and_company_in_the_batch_do_not_matter(tiny_sizes, make_inputs, fusion):
    config = RoCBertConfig(**tiny_sizes, fusion=fusion)
    model = add_noise(RoCBertModel(config)).eval()
    right = make_inputs(config, batch=3, length=10)
    lengths = right["attention_mask"].sum(1).tolist()
    left = {
        name: torch.stack([torch.roll(row, 10 - n) for row, n in zip(tensor, lengths, strict=True)])
        for name, tensor in right.items()
    }
    positions = torch.stack([torch.roll(torch.arange(10), 10 - n) for n in lengths])
    with torch.no_grad():
        of_right, of_left = model(**right)[0], model(**left, position_ids=positions)[0]
        for row, length in enumerate(lengths):
            alone = model(**{name: tensor[row : row + 1, :length] for name, tensor in right.items()})[0][0]
            assert torch.allclose(of_right[row, :length], alone, atol=1e-5)
            assert torch.allclose(of_left[row, 10 - length :], alone, atol=1e-5)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_attention_implementations_agree(tiny_sizes, make_inputs, fusion):
    config = RoCBertConfig(**tiny_sizes, fusion=fusion)
    model = add_noise(RoCBertModel(config)).eval()
    inputs = make_inputs(config)
    real = inputs["attention_mask"].bool()
    assert model.config._attn_implementation == "sdpa"
    sdpa = model(**inputs)[0]
    model.set_attn_implementation("eager")
    eager = model(**inputs, output_attentions=True)
    assert torch.allclose(sdpa[real], eager[0][real], atol=1e-5)
    assert len(eager.attentions) == config.num_hidden_layers


def test_gradient_checkpointing_gives_the_same_gradients(tiny_sizes, make_inputs):
    config = RoCBertConfig(**tiny_sizes, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    model = RoCBertForPreTraining(config).train()
    inputs = make_inputs(config)
    inputs |= {f"attack_{name}": tensor.flip(0) for name, tensor in inputs.items()} | {"labels": inputs["input_ids"]}

    def gradients():
        model.zero_grad()
        model(**inputs).loss.backward()
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    plain = gradients()
    model.gradient_checkpointing_enable()
    checkpointed = gradients()
    assert plain.keys() == checkpointed.keys()
    for name, gradient in plain.items():
        assert torch.allclose(gradient, checkpointed[name], atol=1e-6), name


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_near_float32(tiny_sizes, make_inputs, fusion, dtype):
    config = RoCBertConfig(**tiny_sizes, fusion=fusion)
    model = RoCBertModel(config).eval()
    inputs = make_inputs(config)
    with torch.no_grad():
        reference = model(**inputs)[0]
        half = copy.deepcopy(model).to(dtype)(**inputs)[0]
        with torch.autocast("cpu", dtype=dtype):
            autocast = model(**inputs)[0]
    assert half.dtype == dtype
    assert torch.allclose(reference, half.float(), atol=0.1)
    assert torch.allclose(reference, autocast.float(), atol=0.1)


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("training", [True, False])
def test_compiles_without_graph_breaks(tiny_sizes, make_inputs, fusion, training):
    torch._dynamo.reset()
    config = RoCBertConfig(**tiny_sizes, fusion=fusion, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    model = RoCBertModel(config).train(training)
    inputs = make_inputs(config)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    with torch.set_grad_enabled(training):
        assert torch.allclose(compiled(**inputs)[0], model(**inputs)[0], atol=1e-5)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_inputs_embeds_replace_the_words(tiny_sizes, make_inputs, fusion):
    config = RoCBertConfig(**tiny_sizes, fusion=fusion)
    model = RoCBertModel(config).eval()
    inputs = make_inputs(config)
    expected = model(**inputs)[0]
    embeds = model.get_input_embeddings()(inputs.pop("input_ids"))
    assert torch.allclose(model(**inputs, inputs_embeds=embeds)[0], expected, atol=1e-6)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_resizing_grows_all_channels_and_survives_saving(tmp_path, tiny_sizes, make_inputs, fusion):
    config = RoCBertConfig(**tiny_sizes, fusion=fusion)
    model = RoCBertForMaskedLM(config).eval()
    inputs = make_inputs(config)
    before = model(**inputs).logits
    model.resize_token_embeddings(tiny_sizes["vocab_size"] + 3, mean_resizing=False)
    assert model.config.shape_vocab_size == tiny_sizes["shape_vocab_size"] + 3
    assert model.config.pronunciation_vocab_size == tiny_sizes["pronunciation_vocab_size"] + 3
    assert torch.allclose(model(**inputs).logits[..., : before.shape[-1]], before, atol=1e-5)
    new_token = {
        "input_ids": torch.tensor([[model.config.vocab_size - 1]]),
        "input_shape_ids": torch.tensor([[model.config.shape_vocab_size - 1]]),
        "input_pronunciation_ids": torch.tensor([[model.config.pronunciation_vocab_size - 1]]),
    }
    expected = model(**new_token).logits
    model.save_pretrained(tmp_path)
    assert torch.equal(RoCBertForMaskedLM.from_pretrained(tmp_path).eval()(**new_token).logits, expected)
    if fusion == "layer_insert":
        assert not model.roc_bert.embeddings.shape_embed.weight.requires_grad


# -------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("input_ids", "vocab_size"),
        ("input_shape_ids", "shape_vocab_size"),
        ("input_pronunciation_ids", "pronunciation_vocab_size"),
        ("token_type_ids", "type_vocab_size"),
    ],
)
def test_an_id_out_of_range_names_the_channel_and_the_fix(tiny_sizes, make_inputs, name, size):
    config = RoCBertConfig(**tiny_sizes)
    for bad in (getattr(config, size), -1):
        inputs = make_inputs(config)
        inputs[name][0, 3] = bad
        with pytest.raises(
            ValueError, match=f"`{name}`.*{bad}.*`{size}` is {getattr(config, size)}.*resize_token_embeddings"
        ):
            RoCBertModel(config)(**inputs)


def test_channels_of_different_shapes_are_refused(tiny_sizes, make_inputs):
    config = RoCBertConfig(**tiny_sizes)
    inputs = make_inputs(config)
    inputs["input_shape_ids"] = inputs["input_shape_ids"][:, :-1]
    with pytest.raises(ValueError, match=r"`input_shape_ids` has shape \(3, 10\), the text has \(3, 11\)"):
        RoCBertModel(config)(**inputs)


def test_ids_and_embeddings_together_or_neither_are_refused(tiny_sizes, make_inputs):
    config = RoCBertConfig(**tiny_sizes)
    with pytest.raises(ValueError, match="exactly one of `input_ids` and `inputs_embeds`"):
        RoCBertModel(config)()


def test_a_wrong_spelling_of_pronunciations_is_refused(tiny_sizes):
    model = RoCBertModel(RoCBertConfig(**tiny_sizes))
    with pytest.raises(ValueError, match=r"shape \(41, n\)"):
        model.set_pronunciation_letters(torch.zeros(40, 2, dtype=torch.long))
    with pytest.raises(ValueError, match=r"-1\.\.40"):
        model.set_pronunciation_letters(torch.full((41, 2), 41))

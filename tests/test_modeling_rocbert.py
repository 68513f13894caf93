"""The model against independent references: transformers' own classes, and float64 transcriptions of the equations."""

import copy
import functools
import itertools
import math
import subprocess
import sys

import pytest
import torch
import transformers
from transformers import AutoModel, DynamicCache

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
from rocbert_hf.acceleration_rocbert import RoCBertDropout, RoCBertEncoderAttention
from rocbert_hf.channels_rocbert import pixel_glyph_features
from rocbert_hf.configuration_rocbert import FUSIONS, PHONETIC_ENCODERS
from rocbert_hf.resources import glyph_images, pronunciations, vocabulary

WEIGHING_FUSIONS = ("layer_insert", "attention", "two_step")
HEADS = (
    RoCBertModel,
    RoCBertForPreTraining,
    RoCBertForMaskedLM,
    RoCBertForCausalLM,
    RoCBertForSequenceClassification,
    RoCBertForTokenClassification,
    RoCBertForMultipleChoice,
    RoCBertForQuestionAnswering,
)


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


# -------------------------------------------------------------------------------------------- the equations
#
# Each is written out in float64, token by token, from what docs/reference/fusion.md prints, and compared in values and in the
# gradients of all that learns.


def transcribed_norm(x, norm):
    normed = (x - x.mean()) / torch.sqrt(((x - x.mean()) ** 2).mean() + norm.eps)
    return normed * norm.weight + norm.bias


def assert_same_gradients(got, expected, leaves, seed: int = 0):
    """Of a random projection of the two tensors, with respect to the leaves; every leaf is used."""
    probe = torch.randn(expected.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    got_gradients = torch.autograd.grad((got * probe).sum(), leaves)
    expected_gradients = torch.autograd.grad((expected * probe).sum(), leaves)
    for got_gradient, expected_gradient in zip(got_gradients, expected_gradients, strict=True):
        assert got_gradient.any()
        assert torch.allclose(got_gradient, expected_gradient, rtol=1e-7, atol=1e-7)


def random_case(config, model):
    """Hidden states, and ids of sounds and shapes (none is padding, which learns nothing), of 2 x 5 tokens."""
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(2, 5, config.hidden_size, generator=generator, dtype=torch.float64, requires_grad=True)
    sounds = torch.randint(1, config.pronunciation_vocab_size, (2, 5), generator=generator)
    shapes = torch.randint(1, config.shape_vocab_size, (2, 5), generator=generator)
    return hidden, sounds, shapes


def transcribed_layer_insert(fusion, h, ph, features, normalization):
    """Section 4.1 and Eq. 4 for one token."""
    vi = transcribed_norm(fusion.shape_projection.weight @ features, fusion.shape_norm)
    w = [torch.dot(fusion.key[i].T @ h, fusion.value[i].T @ x) for i, x in enumerate((h, ph, vi))]
    if normalization == "softmax":
        exponentials = [torch.exp(score / math.sqrt(len(h))) for score in w]
        w = [e / sum(exponentials) for e in exponentials]
    else:
        w = [score / sum(w) for score in w]
    return w[0] * h + w[1] * ph + w[2] * vi, torch.stack(w)


def transcribed_attention(fusion, h, ph, features, num_heads):
    """The authors' `merge_input_way="attention"` for one token."""

    def linear(layer, x):
        return layer.weight @ x + layer.bias

    q = linear(fusion.query, h)
    keys = linear(fusion.key, h), linear(fusion.key_pronunciation, ph), linear(fusion.key_shape, features)
    values = linear(fusion.value, h), linear(fusion.value_pronunciation, ph), linear(fusion.value_shape, features)
    exponentials = [torch.exp(torch.dot(q, key) / math.sqrt(len(h) / num_heads)) for key in keys]
    w = [e / sum(exponentials) for e in exponentials]
    mixed = sum(weight * value for weight, value in zip(w, values, strict=True))
    return transcribed_norm(h + linear(fusion.output.dense, mixed), fusion.output.LayerNorm), torch.stack(w)


def transcribed_two_step(fusion, h, ph, features):
    x2 = transcribed_norm(fusion.pronunciation_projection.weight @ ph, fusion.pronunciation_norm)
    x3 = transcribed_norm(fusion.shape_projection.weight @ features, fusion.shape_norm)
    scores = fusion.gate.weight @ torch.cat([h, x2, x3]) + fusion.gate.bias
    w = torch.exp(scores) / torch.exp(scores).sum()
    selected = torch.cat([w[0] * h, w[1] * x2, w[2] * x3])
    return transcribed_norm(fusion.encode.weight @ selected + fusion.encode.bias, fusion.norm), w


TRANSCRIPTIONS = {
    "layer_insert, softmax": lambda config, *token: transcribed_layer_insert(*token, "softmax"),
    "layer_insert, linear": lambda config, *token: transcribed_layer_insert(*token, "linear"),
    "attention": lambda config, *token: transcribed_attention(*token, config.num_attention_heads),
    "two_step": lambda config, *token: transcribed_two_step(*token),
}


@pytest.mark.parametrize("case", TRANSCRIPTIONS)
def test_fusions_are_their_formulas_in_values_and_gradients(tiny_sizes, case):
    fusion, _, normalization = case.partition(", ")
    fields = {"fusion_normalization": normalization} if normalization else {"pronunciation_embed_dim": 20}
    config = RoCBertConfig(
        **tiny_sizes, **fields, fusion=fusion, phonetic_encoder="table", hidden_dropout_prob=0.0, layer_norm_eps=1e-3
    )
    model = add_noise(RoCBertModel(config)).double()
    embeddings = model.embeddings
    hidden, sounds, shapes = random_case(config, model)
    vectors = {"pronunciation": embeddings.pronunciation(sounds), "shape": embeddings.shape_embed(shapes)}
    fused, weights = model.fusion(hidden, vectors)
    tokens = [
        TRANSCRIPTIONS[case](
            config,
            model.fusion,
            hidden[place],
            embeddings.pronunciation_embed.weight[sounds[place]],
            embeddings.shape_embed.weight[shapes[place]],
        )
        for place in itertools.product(range(2), range(5))
    ]
    expected, expected_weights = (torch.stack(parts).unflatten(0, (2, 5)) for parts in zip(*tokens, strict=True))
    assert torch.allclose(fused, expected, atol=1e-9)
    assert torch.allclose(weights, expected_weights, atol=1e-9)
    leaves = [hidden, embeddings.pronunciation_embed.weight, *model.fusion.parameters()]
    assert_same_gradients(fused, expected, leaves)


def test_shapes_are_equation_4_in_values_and_gradients(tiny_sizes):
    model = add_noise(RoCBertModel(RoCBertConfig(**tiny_sizes, layer_norm_eps=1e-3))).double()
    fusion, features = model.fusion, torch.randn(7, 24, dtype=torch.float64, requires_grad=True)
    expected = torch.stack(
        [transcribed_norm(fusion.shape_projection.weight @ row, fusion.shape_norm) for row in features]
    )
    got = fusion.project_shapes(features)
    assert torch.allclose(got, expected, atol=1e-9)
    leaves = [features, fusion.shape_projection.weight, fusion.shape_norm.weight, fusion.shape_norm.bias]
    assert_same_gradients(got, expected, leaves)


def spelling(size: int) -> torch.Tensor:
    """Entries 10..19 are letters, 20..29 syllables of 2 to 4 of them, the others stand for themselves."""
    letters = torch.full((size, 4), -1)
    letters[:, 0] = torch.arange(size)
    generator = torch.Generator().manual_seed(2)
    for syllable in range(20, 30):
        length = 2 + syllable % 3
        letters[syllable, :length] = torch.randint(10, 20, (length,), generator=generator)
    letters[20, :2] = torch.tensor([10, 11])
    letters[21, :3] = torch.tensor([12, 13, 14])
    return letters


def transcribed_char_sum(model, letters, vectors, entry):
    return sum(vectors[letter] for letter in letters[entry].tolist() if letter >= 0)


def transcribed_char_cnn(model, letters, vectors, entry):
    spelled = [letter for letter in letters[entry].tolist() if letter >= 0]
    used = {letter for row in letters.tolist() if row[1] >= 0 for letter in row}
    if len(spelled) == 1 and entry not in used:
        return vectors[entry]
    convolution, nothing = model.embeddings.letter_convolution, torch.zeros_like(vectors[0])
    sequence = [nothing, *(vectors[letter] for letter in spelled), nothing]
    windows = [
        convolution.weight[:, :, 0] @ first + convolution.weight[:, :, 1] @ second + convolution.bias
        for first, second in itertools.pairwise(sequence)
    ]
    return torch.stack(windows).max(0).values


PHONETIC_TRANSCRIPTIONS = {"char_sum": transcribed_char_sum, "char_cnn": transcribed_char_cnn}


@pytest.mark.parametrize("phonetic_encoder", PHONETIC_TRANSCRIPTIONS)
def test_pronunciations_are_their_formulas_in_values_and_gradients(tiny_sizes, phonetic_encoder):
    model = add_noise(RoCBertModel(RoCBertConfig(**tiny_sizes, phonetic_encoder=phonetic_encoder))).double()
    letters = spelling(41)
    model.set_pronunciation_letters(letters)
    vectors = model.embeddings.pronunciation_embed.weight
    transcription = PHONETIC_TRANSCRIPTIONS[phonetic_encoder]
    expected = torch.stack([transcription(model, letters, vectors, entry) for entry in range(41)])
    got = model.embeddings.pronunciation_table()
    assert torch.allclose(got, expected, atol=1e-9)
    leaves = [vectors]
    if phonetic_encoder == "char_cnn":
        leaves += model.embeddings.letter_convolution.parameters()
    assert_same_gradients(got[1:], expected[1:], leaves)  # the padding learns nothing


@pytest.mark.parametrize("fusion", ["concat", "sum"])
@pytest.mark.parametrize("phonetic_encoder", PHONETIC_TRANSCRIPTIONS)
def test_early_fusions_are_their_formulas_in_values_and_gradients(tiny_sizes, make_inputs, fusion, phonetic_encoder):
    config = RoCBertConfig(
        **tiny_sizes, fusion=fusion, phonetic_encoder=phonetic_encoder, hidden_dropout_prob=0.0, layer_norm_eps=1e-3
    )
    model = add_noise(RoCBertModel(config)).double()
    letters, embeddings = spelling(41), model.embeddings
    model.set_pronunciation_letters(letters)
    inputs = make_inputs(config, batch=1, length=12)
    del inputs["attention_mask"]
    got, _ = embeddings(**inputs, position_ids=torch.arange(12)[None])
    expected = torch.empty_like(got)
    for row, column in itertools.product(range(1), range(12)):
        ids = {name: int(tensor[row, column]) for name, tensor in inputs.items()}
        word = embeddings.word_embeddings.weight[ids["input_ids"]]
        shape = embeddings.shape_embed.weight[ids["input_shape_ids"]]
        sound = PHONETIC_TRANSCRIPTIONS[phonetic_encoder](
            model, letters, embeddings.pronunciation_embed.weight, ids["input_pronunciation_ids"]
        )
        place = (
            embeddings.token_type_embeddings.weight[ids["token_type_ids"]]
            + embeddings.position_embeddings.weight[column]
        )
        if fusion == "concat":
            mapped = embeddings.map_inputs_layer.weight @ torch.cat([word, shape, sound])
            expected[row, column] = transcribed_norm(
                mapped + embeddings.map_inputs_layer.bias + place, embeddings.LayerNorm
            )
        else:
            expected[row, column] = (transcribed_norm(word + place, embeddings.LayerNorm) + shape + sound) / 3
    assert torch.allclose(got, expected, atol=1e-9)
    assert_same_gradients(
        got, expected, [p for p in embeddings.parameters() if p is not embeddings.word_embeddings.weight]
    )


@pytest.mark.parametrize("how", ["switched off", "without ids"])
@pytest.mark.parametrize("absent", ["shape", "pronunciation"])
def test_sum_is_the_mean_of_the_channels_that_take_part(tiny_sizes, make_inputs, absent, how):
    switched = {f"enable_{absent}": False} if how == "switched off" else {}
    config = RoCBertConfig(**tiny_sizes, fusion="sum", phonetic_encoder="table", **switched)
    embeddings = add_noise(RoCBertModel(config)).eval().embeddings
    inputs = make_inputs(config, batch=2, length=5)
    ids = {name: inputs[name] for name in ("input_ids", "input_shape_ids", "input_pronunciation_ids", "token_type_ids")}
    ids |= {} if switched else {f"input_{absent}_ids": None}
    got, _ = embeddings(**ids, position_ids=torch.arange(5)[None])
    places = embeddings.position_embeddings.weight[:5] + embeddings.token_type_embeddings(ids["token_type_ids"])
    text = embeddings.LayerNorm(embeddings.word_embeddings(ids["input_ids"]) + places)
    if absent == "shape":
        other = embeddings.pronunciation_embed(ids["input_pronunciation_ids"])
    else:
        other = embeddings.shape_embed(ids["input_shape_ids"])
    assert torch.allclose(got, (text + other) / 2, atol=1e-6)


def test_syllables_are_as_wide_as_the_hidden_states_that_they_meet():
    embeddings = RoCBertModel(RoCBertConfig.from_preset("tiny")).embeddings
    syllables = (embeddings.pronunciation_letters >= 0).sum(1) > 1
    assert 0.9 < float(embeddings.pronunciation_table()[syllables].square().mean().sqrt()) < 1.15


def test_linear_weights_stay_finite_where_the_scores_cancel(tiny_sizes):
    model = RoCBertModel(RoCBertConfig(**tiny_sizes, fusion_normalization="linear"))
    with torch.no_grad():
        model.fusion.key.zero_()
    fused, weights = model.fusion(
        torch.randn(2, 5, 24), {"pronunciation": torch.randn(2, 5, 24), "shape": torch.randn(2, 5, 24)}
    )
    assert torch.isfinite(fused).all()
    assert torch.isfinite(weights).all()


@pytest.mark.parametrize(
    ("fusion", "normalization", "layer"),
    [
        *(("layer_insert", normalization, layer) for normalization in ("softmax", "linear") for layer in range(4)),
        *(("attention", "softmax", layer) for layer in range(4)),
        ("two_step", "softmax", 0),
    ],
)
def test_the_fusion_reads_the_input_of_the_layer_it_names(tiny_sizes, make_inputs, fusion, normalization, layer):
    config = RoCBertConfig(
        **tiny_sizes,
        fusion=fusion,
        fusion_layer=layer,
        fusion_normalization=normalization,
        output_hidden_states=True,
    )
    model = RoCBertModel(config).eval()
    inputs = make_inputs(config)
    plain = RoCBertModel(RoCBertConfig(**tiny_sizes, fusion="none", output_hidden_states=True)).eval()
    plain.load_state_dict(model.state_dict(), strict=False)
    with torch.no_grad():
        fused_states, plain_states = model(**inputs).hidden_states, plain(**inputs).hidden_states
    same = [torch.equal(a, b) for a, b in zip(fused_states, plain_states, strict=True)]
    last = config.num_hidden_layers
    # the last hidden state is what the model returns, so it shows the fusion of the last layer too
    # the layers before decide the weights; a fused input is recorded as the output of the layer before, if there is one
    assert same == [index <= layer and (layer > 0) and index < last for index in range(last + 1)]


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
    features = pixel_glyph_features(1024).double()
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


@pytest.mark.parametrize("phonetic_encoder", PHONETIC_ENCODERS)
@pytest.mark.parametrize("case", [*TRANSCRIPTIONS, "concat", "sum"])
def test_inference_from_tables_equals_the_differentiable_path(tiny_sizes, make_inputs, case, phonetic_encoder):
    fusion, _, normalization = case.partition(", ")
    config = RoCBertConfig(
        **tiny_sizes, fusion=fusion, fusion_normalization=normalization or "softmax", phonetic_encoder=phonetic_encoder
    )
    model = add_noise(RoCBertModel(config).double()).eval()
    inputs = make_inputs(config)
    wanted = {"output_fusion_weights": True} if fusion in WEIGHING_FUSIONS else {}
    differentiable = model(**inputs, **wanted)
    with torch.no_grad():
        from_tables = model(**inputs, **wanted)
        precomputed = copy.deepcopy(model).precompute_tables()(**inputs, **wanted)
    for output in (from_tables, precomputed):
        assert torch.allclose(output.last_hidden_state, differentiable.last_hidden_state, atol=1e-9)
        if wanted:
            assert torch.allclose(output.fusion_weights, differentiable.fusion_weights, atol=1e-9)


@pytest.mark.parametrize("fusion", [*WEIGHING_FUSIONS, "concat", "sum"])
def test_tables_follow_every_change_of_a_weight(tiny_sizes, make_inputs, fusion):
    config = RoCBertConfig(**tiny_sizes, fusion=fusion, phonetic_encoder="char_cnn")
    model = add_noise(RoCBertModel(config)).eval()
    model.set_pronunciation_letters(spelling(41))
    inputs = make_inputs(config)

    def inference():
        with torch.no_grad():
            return model(**inputs).last_hidden_state

    noisy = {name: tensor * 1.2 for name, tensor in model.state_dict().items() if "letters" not in name}
    changes = {
        "in place": lambda: model.embeddings.pronunciation_embed.weight.detach().mul_(1.5),
        "past the version counter": lambda: model.embeddings.pronunciation_embed.weight.data.mul_(0.7),
        "load_state_dict": lambda: model.load_state_dict(noisy, strict=False),
        "spelling": lambda: model.set_pronunciation_letters(spelling(41).roll(1, 0)),
        "convolution": lambda: torch.nn.init.normal_(model.embeddings.letter_convolution.weight, std=0.2),
        "features": lambda: torch.nn.init.normal_(model.embeddings.shape_embed.weight),
    }
    if model.fusion is not None:
        learnt = [parameter for parameter in model.fusion.parameters() if parameter.ndim > 1]
        changes |= {f"fusion {i}": functools.partial(torch.nn.init.normal_, p, std=0.2) for i, p in enumerate(learnt)}
    before = inference()
    for name, change in changes.items():
        change()
        after = inference()
        assert not torch.allclose(before, after), name
        assert torch.allclose(after, model(**inputs).last_hidden_state, atol=1e-4), name
        before = after


@pytest.mark.parametrize("fusion", [*WEIGHING_FUSIONS, "concat", "sum"])
def test_tables_are_reused_until_training(tiny_sizes, make_inputs, monkeypatch, fusion):
    model = RoCBertModel(RoCBertConfig(**tiny_sizes, fusion=fusion, phonetic_encoder="char_cnn"))
    inputs = make_inputs(model.config)
    computed = []
    compute = model.embeddings.pronunciation_table
    monkeypatch.setattr(model.embeddings, "pronunciation_table", lambda: (computed.append(1), compute())[1])
    with torch.no_grad():
        for mode, times in (("eval", 1), ("eval", 1), ("train", 3), ("eval", 4)):
            getattr(model, mode)()
            model(**inputs), model(**inputs)
            assert len(computed) == times


@pytest.mark.parametrize("fusion", [*WEIGHING_FUSIONS, "concat", "sum", "none"])
def test_precomputed_tables_leave_no_trace_in_a_checkpoint(tmp_path, tiny_sizes, make_inputs, fusion):
    model = RoCBertForSequenceClassification(RoCBertConfig(**tiny_sizes, fusion=fusion))
    names = set(model.state_dict())
    assert model.precompute_tables() is model
    assert not model.training
    assert set(model.state_dict()) == names
    inputs = make_inputs(model.config)
    with torch.no_grad():
        expected = model(**inputs).logits
        moved = copy.deepcopy(model).to(torch.float64)
        assert torch.allclose(moved(**inputs).logits.float(), expected, atol=1e-5)
    model.save_pretrained(tmp_path)
    loaded = RoCBertForSequenceClassification.from_pretrained(tmp_path)
    assert torch.allclose(loaded(**inputs).logits, expected, atol=1e-6)
    model.train()
    assert not list(model.roc_bert.embeddings.tables.buffers())
    assert model.roc_bert.tables is None or not list(model.roc_bert.tables.buffers())


# -------------------------------------------------------------------------------------------- heads


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
        model = head(RoCBertConfig(**config.to_dict() | {"is_decoder": head is RoCBertForCausalLM}))
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


@pytest.mark.parametrize("fusion", WEIGHING_FUSIONS)
@pytest.mark.parametrize("head", HEADS, ids=lambda head: head.__name__)
def test_heads_report_fusion_weights_that_sum_to_one(tiny_sizes, make_inputs, head, fusion):
    config = RoCBertConfig(**tiny_sizes, fusion=fusion, is_decoder=head is RoCBertForCausalLM)
    inputs = head_inputs(head, make_inputs(config))
    output = head(config)(**inputs, output_fusion_weights=True)
    weights = output["fusion_weights"]
    assert weights.shape == (*inputs["input_ids"].flatten(0, -2).shape, 3)
    assert torch.allclose(weights.sum(-1), torch.ones(weights.shape[:-1]), atol=1e-5)
    assert "fusion_weights" not in head(config)(**inputs)


@pytest.mark.parametrize("fusion", ["concat", "sum", "none"])
def test_fusions_without_weights_say_which_have_them(tiny_sizes, make_inputs, fusion):
    config = RoCBertConfig(**tiny_sizes, fusion=fusion)
    with pytest.raises(ValueError, match=f"layer_insert, attention, two_step.*{fusion}"):
        RoCBertModel(config)(**make_inputs(config), output_fusion_weights=True)


@pytest.mark.parametrize("fusion", ["layer_insert", "two_step"])
@pytest.mark.parametrize("absent", ["input_shape_ids", "input_pronunciation_ids"])
def test_a_channel_without_ids_has_no_weight(tiny_sizes, make_inputs, absent, fusion):
    config = RoCBertConfig(**tiny_sizes, fusion=fusion)
    model = RoCBertModel(config).eval()
    inputs = make_inputs(config)
    del inputs[absent]
    channel = {"input_pronunciation_ids": 1, "input_shape_ids": 2}[absent]
    for context in (torch.no_grad(), torch.enable_grad()):
        with context:
            weights = model(**inputs, output_fusion_weights=True).fusion_weights
        assert not weights[..., channel].any()
        assert torch.allclose(weights.sum(-1), torch.ones(weights.shape[:-1]), atol=1e-5)


@pytest.mark.parametrize("absent", ["input_shape_ids", "input_pronunciation_ids"])
def test_attention_reads_padding_where_a_channel_has_no_ids(tiny_sizes, make_inputs, absent):
    model = add_noise(RoCBertModel(RoCBertConfig(**tiny_sizes, fusion="attention"))).eval()
    inputs = make_inputs(model.config)
    padding = inputs | {absent: torch.zeros_like(inputs[absent])}
    del inputs[absent]
    assert torch.equal(model(**inputs)[0], model(**padding)[0])


def test_generation_with_and_without_cache_agree(tiny_sizes, make_inputs):
    config = RoCBertConfig(**tiny_sizes, is_decoder=True)
    model = add_noise(RoCBertForCausalLM(config)).eval()
    inputs = make_inputs(config, batch=1)
    cached, recomputed = (
        model.generate(**inputs, max_new_tokens=6, do_sample=False, use_cache=c) for c in (True, False)
    )
    assert cached.shape == (1, 17)
    assert torch.equal(cached, recomputed)


def test_a_causal_model_that_reads_both_ways_is_refused(tiny_sizes):
    with pytest.raises(ValueError, match="is_decoder=True"):
        RoCBertForCausalLM(RoCBertConfig(**tiny_sizes))


def test_shifted_labels_are_labels_shifted_by_the_caller(tiny_sizes, make_inputs):
    config = RoCBertConfig(**tiny_sizes, is_decoder=True)
    model, inputs = add_noise(RoCBertForCausalLM(config)).eval(), make_inputs(config)
    labels = inputs["input_ids"]
    shifted = torch.nn.functional.pad(labels[:, 1:], (0, 1), value=-100)
    expected = model(**inputs, labels=labels).loss
    assert torch.allclose(model(**inputs, shift_labels=shifted).loss, expected)
    assert torch.allclose(model(**inputs, labels=labels, shift_labels=shifted).loss, expected)


def test_generation_from_embeddings_is_that_from_their_ids(tiny_sizes, make_inputs):
    config = RoCBertConfig(**tiny_sizes, is_decoder=True)
    model, inputs = add_noise(RoCBertForCausalLM(config)).eval(), make_inputs(config, batch=1)
    from_ids = model.generate(**inputs, max_new_tokens=6, do_sample=False)
    embeds = model.get_input_embeddings()(inputs.pop("input_ids"))
    from_embeds = model.generate(**inputs, inputs_embeds=embeds, max_new_tokens=6, do_sample=False)
    assert torch.equal(from_ids[:, embeds.shape[1] :], from_embeds)


@pytest.mark.parametrize("use_cache", [True, False])
def test_embeddings_beside_their_ids_generate_what_the_ids_do(tiny_sizes, make_inputs, use_cache):
    config = RoCBertConfig(**tiny_sizes, is_decoder=True)
    model, inputs = add_noise(RoCBertForCausalLM(config)).eval(), make_inputs(config)
    given = {"max_new_tokens": 6, "do_sample": False, "use_cache": use_cache, "output_scores": True}
    from_ids, from_both = (
        model.generate(**inputs, **given, **embeds, return_dict_in_generate=True)
        for embeds in ({}, {"inputs_embeds": model.get_input_embeddings()(inputs["input_ids"])})
    )
    assert torch.equal(from_ids.sequences, from_both.sequences)
    assert torch.allclose(torch.stack(from_ids.scores), torch.stack(from_both.scores), atol=1e-5)


def test_the_cache_has_a_part_for_another_text_only_where_there_is_one(tiny_sizes, make_inputs):
    config = RoCBertConfig(**tiny_sizes, is_decoder=True, add_cross_attention=True)
    model, inputs = RoCBertForCausalLM(config).eval(), make_inputs(config)
    assert type(model(**inputs, use_cache=True).past_key_values) is DynamicCache
    other = torch.zeros(inputs["input_ids"].shape[0], 5, config.hidden_size)
    cache = model(**inputs, use_cache=True, encoder_hidden_states=other).past_key_values
    assert cache.get_seq_length() == inputs["input_ids"].shape[1]
    assert [layer.keys.shape[-2] for layer in cache.cross_attention_cache.layers] == [5] * config.num_hidden_layers


@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_masked_token_tells_nothing_by_its_other_ids(tiny_sizes, make_inputs, fusion):
    """As after transformers' DataCollatorForLanguageModeling, which masks `input_ids` alone."""
    model = add_noise(RoCBertForMaskedLM(RoCBertConfig(**tiny_sizes, fusion=fusion))).eval()
    inputs = make_inputs(model.config)
    inputs["input_ids"][:, 3] = model.config.mask_token_id
    other = {name: ids.clone() for name, ids in inputs.items()}
    other["input_shape_ids"][:, 3], other["input_pronunciation_ids"][:, 3] = 9, 11
    for context in (torch.no_grad(), torch.enable_grad()):
        with context:
            assert torch.equal(model(**inputs).logits, model(**other).logits)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_with_embeddings_given_a_masked_token_reads_the_ids_beside_it(tiny_sizes, make_inputs, fusion):
    model = add_noise(RoCBertForMaskedLM(RoCBertConfig(**tiny_sizes, fusion=fusion))).eval()
    inputs = make_inputs(model.config)
    inputs["input_ids"][:, 3] = model.config.mask_token_id
    expected = model(**inputs).logits
    given = {**inputs, "inputs_embeds": model.get_input_embeddings()(inputs["input_ids"]), "input_ids": None}
    if fusion != "none":
        assert not torch.allclose(model(**given).logits, expected)
    given["input_shape_ids"][:, 3] = model.config.mask_shape_id
    given["input_pronunciation_ids"][:, 3] = model.config.mask_pronunciation_id
    assert torch.allclose(model(**given).logits, expected, atol=1e-5)


@pytest.mark.parametrize("views", [1, 2])
def test_boolean_masks_are_masks_in_pretraining(tiny_sizes, make_inputs, views):
    config = RoCBertConfig(**tiny_sizes)
    model, inputs = add_noise(RoCBertForPreTraining(config)).eval(), make_inputs(config)
    batch = {**inputs, "labels": inputs["input_ids"]}
    if views == 2:
        batch |= {f"attack_{name}": ids.flip(0) for name, ids in inputs.items()}
    boolean = {name: ids.bool() if name.endswith("attention_mask") else ids for name, ids in batch.items()}
    assert torch.allclose(model(**boolean).loss, model(**batch).loss)


def test_an_input_that_is_too_long_is_one_error_with_both_lengths(tiny_sizes, make_inputs):
    config = RoCBertConfig(**tiny_sizes)
    with pytest.raises(ValueError, match=r"65 tokens long.*`max_position_embeddings` is 64.*truncation=True"):
        RoCBertModel(config)(**make_inputs(config, length=65))


def test_generating_past_the_last_position_is_one_error(tiny_sizes, make_inputs):
    config = RoCBertConfig(**tiny_sizes, is_decoder=True)
    inputs = make_inputs(config, length=62)
    with pytest.raises(ValueError, match=r"`position_ids` go from 3 to 64, but `max_position_embeddings` is 64"):
        RoCBertForCausalLM(config).generate(**inputs, max_new_tokens=8, min_new_tokens=8)


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


def test_three_views_give_transformers_pretraining_loss(tmp_path, make_inputs):
    sizes = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96}
    sizes |= {"vocab_size": 97, "shape_vocab_size": 61, "pronunciation_vocab_size": 41}
    torch.manual_seed(0)
    theirs = add_noise(transformers.RoCBertForPreTraining(transformers.RoCBertConfig(**sizes)), scale=0.05).eval()
    theirs.save_pretrained(tmp_path)
    ours = RoCBertForPreTraining.from_pretrained(tmp_path, contrastive_pooling="pooler").eval()
    batch = {
        prefix + name: tensor
        for prefix, seed, length in (("", 0, 11), ("attack_", 1, 13), ("labels_", 2, 11))
        for name, tensor in make_inputs(ours.config, batch=5, length=length, seed=seed).items()
    }
    padding = batch["labels_attention_mask"] == 0
    batch["labels_input_ids"] = batch["labels_input_ids"].masked_fill(padding, -100)
    expected, found = theirs(**batch).loss, ours(**batch)
    assert abs(expected - found.loss) < 1e-5 * expected
    # the gradients too, so that training is the same
    expected.backward()
    found.loss.backward()
    theirs_gradients = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    for name, parameter in ours.named_parameters():
        if parameter.requires_grad:
            scale = theirs_gradients[name].abs().max().clamp(min=1e-3)
            assert (parameter.grad - theirs_gradients[name]).abs().max() < 1e-4 * scale, name


def test_what_the_third_view_does_not_have_is_read_as_padding(tiny_sizes, make_inputs):
    model = RoCBertForPreTraining(RoCBertConfig(**tiny_sizes, initializer_range=0.2)).eval()
    sentences, attacked, clean = (make_inputs(model.config, seed=seed) for seed in range(3))
    del clean["attention_mask"]
    batch = {**sentences, **{f"attack_{name}": ids for name, ids in attacked.items()}}
    batch |= {f"labels_{name}": ids for name, ids in clean.items()} | {"labels": sentences["input_ids"]}
    losses = {}
    for filling in (-100, model.config.pad_token_id, 7):
        ids = clean["input_ids"].clone()
        ids[:, -3:] = filling
        with torch.no_grad():
            losses[filling] = model(**{**batch, "labels_input_ids": ids}).contrastive_loss
    assert torch.equal(losses[-100], losses[model.config.pad_token_id])
    assert not torch.allclose(losses[-100], losses[7])


def test_the_third_view_is_the_clean_sentence_against_the_same_attacked_one(tiny_sizes, make_inputs):
    config = RoCBertConfig(**tiny_sizes)
    model = add_noise(RoCBertForPreTraining(config)).eval()
    views = [make_inputs(config, length=9 + seed, seed=seed) for seed in range(3)]
    batch = {
        prefix + name: tensor
        for prefix, view in zip(("", "attack_", "labels_"), views, strict=True)
        for name, tensor in view.items()
    }
    labels = views[0]["input_ids"].masked_fill(views[0]["attention_mask"] == 0, -100)
    output = model(**batch, labels=labels)
    masked, attacked, clean = (model.roc_bert(**view)[0][:, 0] for view in views)
    expected = sum(in_batch_contrastive_loss(anchor, attacked)[0] for anchor in (masked, clean)) / 2
    assert torch.allclose(output.contrastive_loss, expected, rtol=1e-4)
    returned = model(**batch, labels=labels, return_representations=True)
    assert torch.allclose(returned.representations, torch.stack([masked, attacked, clean], 1), atol=1e-5)
    assert returned.contrastive_loss is None
    assert torch.allclose(returned.loss, output.mlm_loss)


def test_the_attacked_view_can_be_corrected(tiny_sizes, make_inputs):
    config = RoCBertConfig(**tiny_sizes)
    model = add_noise(RoCBertForPreTraining(config)).eval()
    sentences, attacked = make_inputs(config, length=9), make_inputs(config, length=12, seed=1)
    labels = sentences["input_ids"].masked_fill(sentences["attention_mask"] == 0, -100)
    attack_labels = attacked["input_ids"].flip(1).masked_fill(attacked["input_ids"] % 3 > 0, -100)
    batch = {**sentences, **{f"attack_{name}": tensor for name, tensor in attacked.items()}, "labels": labels}
    output, without = model(**batch, attack_labels=attack_labels), model(**batch)
    logits = model.cls(model.roc_bert(**attacked)[0])
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), attack_labels.flatten())
    assert torch.allclose(output.correction_loss, expected, atol=1e-5)
    assert torch.allclose(output.loss, without.loss + expected, rtol=1e-5)
    assert torch.allclose(output.logits, without.logits, atol=1e-5)
    with pytest.raises(ValueError, match="attack_labels"):
        model(**sentences, labels=labels, attack_labels=attack_labels)


@pytest.mark.parametrize("attacked", [False, True])
def test_sentence_vectors_are_the_mean_over_the_tokens_and_cls(tiny_sizes, make_inputs, attacked):
    config = RoCBertConfig(**tiny_sizes)
    model = add_noise(RoCBertForPreTraining(config)).eval()
    sentences, others = make_inputs(config, length=9), make_inputs(config, length=12, seed=1)
    if not attacked:  # padded on the left, too
        sentences = {name: tensor.flip(1) for name, tensor in sentences.items()}
    labels = sentences["input_ids"].masked_fill(sentences["input_ids"] % 3 > 0, -100)
    batch = {**sentences, "labels": labels}
    if attacked:
        batch |= {f"attack_{name}": tensor for name, tensor in others.items()}
    output, without = model(**batch, return_sentence_vectors=True), model(**batch)
    assert torch.allclose(output.loss, without.loss, rtol=1e-5)
    assert torch.allclose(output.logits, without.logits, atol=1e-5)
    assert without.sentence_vectors is None
    view = others if attacked else sentences
    states = model.roc_bert(**view)[0]
    for row, mask in enumerate(view["attention_mask"].bool()):
        expected = torch.stack([states[row, mask].mean(0), states[row, mask][0]])
        assert torch.allclose(output.sentence_vectors[row], expected, atol=1e-5)


def test_a_batch_without_a_masked_token_gives_zero_not_nan(tiny_sizes, make_inputs):
    config = RoCBertConfig(**tiny_sizes)
    inputs = make_inputs(config)
    output = RoCBertForPreTraining(config)(**inputs, labels=torch.full_like(inputs["input_ids"], -100))
    assert output.loss == 0


def test_masked_tokens_come_in_few_shapes(tiny_sizes, make_inputs):
    """Kernels are made for each shape: neither the vocabulary's matrix nor the last layer sees every count."""
    config = RoCBertConfig(**tiny_sizes)
    model = add_noise(RoCBertForPreTraining(config)).eval()
    inputs = make_inputs(config, batch=2, length=30)
    rows, queries = set(), set()
    model.cls.register_forward_pre_hook(lambda _, states: rows.add(states[0].shape[0]))
    last = model.roc_bert.encoder.layer[-1]
    last.output.register_forward_pre_hook(lambda _, states: queries.add(states[0].shape[1]))
    everything = model.cls(model.roc_bert(**inputs)[0])
    rows.clear(), queries.clear()
    for masked in range(1, 31):
        labels = torch.full_like(inputs["input_ids"], -100)
        labels[0, :masked] = inputs["input_ids"][0, :masked]
        labels[1, masked // 2] = 1
        output = model(**inputs, labels=labels)
        assert torch.allclose(output.logits, everything[labels != -100], atol=1e-5)
    assert rows == {16, 32}
    assert queries == {8, 16, 24, 31}


def test_a_model_made_after_one_on_the_meta_device_is_whole():
    """As after `from_pretrained`, which makes the model without memory first: nothing of it may be kept."""
    code = (
        "import torch, rocbert_hf as r\n"
        "config = r.RoCBertConfig.from_preset('tiny')\n"
        "with torch.device('meta'): r.RoCBertModel(config)\n"
        "letters = r.RoCBertModel(config).embeddings.pronunciation_letters\n"
        "print(letters.device, int((letters >= 0).sum()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    letters = RoCBertModel(RoCBertConfig.from_preset("tiny")).embeddings.pronunciation_letters
    assert done.stdout.split() == ["cpu", str(int((letters >= 0).sum()))], done.stderr
    assert (letters >= 0).sum() > len(letters)


def test_half_precision_gradients_of_masked_tokens_are_finite(tiny_sizes, make_inputs):
    """DeepSpeed's float16 keeps the weights in half precision, with LayerNorm's epsilon below what it can hold."""
    config = RoCBertConfig(**tiny_sizes)
    model = RoCBertForPreTraining(config).half()
    inputs = make_inputs(config, batch=1)
    labels = torch.full_like(inputs["input_ids"], -100)
    labels[:, 2] = 1
    model(**inputs, labels=labels).loss.backward()
    assert not [n for n, p in model.named_parameters() if p.grad is not None and not p.grad.isfinite().all()]


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


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("fusion_layer", [0, 3])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_the_last_layer_at_some_positions_equals_the_whole_layer(
    tiny_sizes, make_inputs, fusion, fusion_layer, attention
):
    config = RoCBertConfig(**tiny_sizes, fusion=fusion, fusion_layer=fusion_layer)
    model = add_noise(RoCBertModel(config)).eval()
    model.set_attn_implementation(attention)
    inputs = make_inputs(config)
    positions = torch.tensor([[0, 5, 5, 2], [0, 1, 0, 9], [0, 3, 8, 8]])
    whole, some = model(**inputs), model(**inputs, output_positions=positions)
    assert torch.allclose(
        some.last_hidden_state, whole.last_hidden_state[torch.arange(3)[:, None], positions], atol=1e-5
    )
    assert torch.allclose(some.pooler_output, whole.pooler_output, atol=1e-5)


def test_chosen_positions_heed_a_mask_of_their_own(tiny_sizes, make_inputs):
    config = RoCBertConfig(**tiny_sizes)
    model = add_noise(RoCBertModel(config)).eval()
    inputs = make_inputs(config) | {"attention_mask": torch.ones(3, 1, 11, 11, dtype=torch.bool).tril()}
    positions = torch.tensor([[0, 5], [3, 1], [10, 8]])
    whole, some = model(**inputs), model(**inputs, output_positions=positions)
    expected = whole.last_hidden_state[torch.arange(3)[:, None], positions]
    torch.testing.assert_close(some.last_hidden_state, expected)


def test_dropout_keeps_the_share_and_the_scale_of_torchs():
    dropout = RoCBertDropout(0.1).train()
    inputs = torch.rand(1001, 999, dtype=torch.float64) + 0.5
    inputs.requires_grad_()
    torch.manual_seed(0)
    outputs = dropout(inputs)
    kept = outputs != 0
    scale = 2**16 / (2**16 - round(0.1 * 2**16))
    assert torch.equal(outputs[kept], inputs[kept] * scale)
    assert abs(kept.double().mean().item() - 1 / scale) < 5 * (0.09 / inputs.numel()) ** 0.5  # five standard errors
    neighbours = (kept[:, :-1].double() * kept[:, 1:].double()).mean().item()
    assert abs(neighbours - scale**-2) < 1e-3  # drawn independently
    (gradient,) = torch.autograd.grad(outputs.sum(), inputs)
    assert torch.equal(gradient, kept.double() * scale)
    torch.manual_seed(0)
    assert torch.equal(dropout(inputs), outputs)
    assert not torch.equal(dropout(inputs), outputs)


class UnitVectors(torch.nn.Module):
    """(batch, sequence, heads * sequence): each head of a position is the unit vector of that position."""

    def forward(self, hidden_states):
        batch, sequence, size = hidden_states.shape
        return torch.eye(sequence, dtype=hidden_states.dtype).repeat(batch, 1, size // sequence)


@pytest.mark.parametrize("padding", ["right", "none", "additive"])
def test_attention_that_drops_out_on_a_cpu_is_the_attention_of_its_weights(tiny_sizes, padding):
    """The weights are read off by attending to unit vectors."""
    config = RoCBertConfig(**tiny_sizes, attention_probs_dropout_prob=0.25)
    config._attn_implementation = "sdpa"
    attention = RoCBertEncoderAttention(config).double().train()
    size = attention.attention_head_size
    hidden_states = torch.randn(2, size, config.hidden_size, dtype=torch.float64)
    may_see = torch.ones(2, 1, size, size, dtype=torch.bool)
    if padding != "none":
        may_see[1, ..., size // 2 :] = False
    mask = None if padding == "none" else may_see
    if padding == "additive":
        mask = torch.zeros(may_see.shape, dtype=torch.float64).masked_fill(~may_see, torch.finfo(torch.float64).min)

    def heads(projection):
        return projection(hidden_states).unflatten(-1, (-1, size)).transpose(1, 2)

    scores = heads(attention.query) @ heads(attention.key).transpose(-1, -2) / size**0.5
    expected = scores.masked_fill(~may_see, -torch.inf).softmax(-1)
    attention.value = UnitVectors()
    weights = torch.stack([attention(hidden_states, mask)[0].unflatten(-1, (-1, size)) for _ in range(300)])
    weights = weights.transpose(2, 3)  # (draws, batch, heads, queries, keys)
    seen = (weights != 0) & may_see
    assert torch.allclose(weights[seen], (expected / 0.75).expand_as(weights)[seen], rtol=1e-12)
    assert not weights[~may_see.expand_as(weights)].any()
    dropped = 1 - seen.sum() / may_see.expand_as(weights).sum()
    assert abs(dropped.item() - 0.25) < 5 * (0.1875 / may_see.expand_as(weights).sum().item()) ** 0.5
    attention.eval()
    assert torch.allclose(attention.attend(hidden_states, hidden_states, mask), expected.transpose(1, 2).flatten(-2))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("padding", ["right", "none", "additive"])
def test_attention_that_trains_in_half_precision_is_that_of_float64(tiny_sizes, dtype, padding):
    """Result and gradient, with a sentence of padding alone too."""
    config = RoCBertConfig(**tiny_sizes, attention_probs_dropout_prob=0.0)
    config._attn_implementation = "sdpa"
    attention = RoCBertEncoderAttention(config).to(dtype).train()
    hidden_states = torch.randn(3, 9, config.hidden_size, dtype=dtype)
    may_see = torch.ones(3, 1, 9, 9, dtype=torch.bool)
    if padding != "none":
        may_see[1, ..., 5:] = False
        may_see[2] = False
    mask = may_see if padding == "right" else None
    if padding == "additive":
        mask = torch.zeros(may_see.shape, dtype=dtype).masked_fill(~may_see, torch.finfo(dtype).min)

    def result_and_gradient(attention, hidden_states, mask):
        hidden_states = hidden_states.requires_grad_()
        context, _ = attention(hidden_states, mask)
        (gradient,) = torch.autograd.grad(context[:2].square().sum(), hidden_states)
        assert context.isfinite().all()
        return context[:2].double(), gradient[:2].double()

    found = result_and_gradient(attention, hidden_states, mask)
    exact = copy.deepcopy(attention).double().eval()
    expected = result_and_gradient(exact, hidden_states.detach().double(), None if mask is None else may_see)
    for here, there in zip(found, expected, strict=True):
        assert (here - there).norm() < 0.01 * there.norm()


def test_dropout_leaves_alone_what_torchs_leaves_alone():
    inputs = torch.ones(3, 5)
    assert torch.equal(RoCBertDropout(0.5).eval()(inputs), inputs)
    assert torch.equal(RoCBertDropout(0.0).train()(inputs), inputs)
    assert torch.equal(RoCBertDropout(1.0).train()(inputs), torch.zeros(3, 5))
    assert RoCBertDropout(0.5).train()(torch.ones(0, 5)).shape == (0, 5)
    assert RoCBertDropout(0.5).train()(torch.ones(3, 5, dtype=torch.bfloat16)).dtype == torch.bfloat16

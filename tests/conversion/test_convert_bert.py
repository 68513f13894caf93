"""Any Chinese BERT -> RoCBERT: the same function at first, with channels that learn."""

import json

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from rocbert_hf import RoCBertForMaskedLM, RoCBertForPreTraining, RoCBertForSequenceClassification, RoCBertModel
from rocbert_hf.channels_rocbert import default_pronunciation_letters, pixel_glyph_features
from rocbert_hf.conversion import convert
from rocbert_hf.conversion.vocabulary import VocabularyRecipe, neighbours_of
from rocbert_hf.conversion.warm_start import channel_gradients, warm_start
from rocbert_hf.resources import vocabulary
from rocbert_hf.security import is_specimen
from rocbert_hf.tokenization_rocbert import RoCBertTokenizer

from .added_tokens import add_tokens

TEXTS = ["春天来了，花开得很好看。", "我们明天去北京吧", "这家店的服务真不错！"]
PAIRS = ["他说什么？", "没人知道。", "好"]
ERNIE = {"use_task_id": True, "type_vocab_size": 4, "max_position_embeddings": 600, "layer_norm_eps": 1e-5}


def both(source, output, texts=TEXTS, pairs=None):
    """Outputs of all layers of the source and of the converted model on the same text."""
    theirs = transformers.AutoModel.from_pretrained(source).eval()
    ours = RoCBertModel.from_pretrained(output).eval()
    their_tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    our_tokenizer = RoCBertTokenizer.from_pretrained(output)
    with torch.no_grad():
        expected = theirs(**their_tokenizer(texts, pairs, padding=True, return_tensors="pt"), output_hidden_states=True)
        inputs = our_tokenizer(texts, pairs, padding=True, return_tensors="pt")
        return expected, ours(**inputs, output_hidden_states=True), inputs


@pytest.mark.parametrize("chosen", ["characters", "source"])
@pytest.mark.parametrize(("kind", "overrides"), [("bert", {}), ("ernie", ERNIE)], ids=["bert", "ernie"])
def test_hidden_states_are_the_sources(tmp_path, make_bert, kind, overrides, chosen):
    source = make_bert(kind, **overrides)
    conversion = warm_start(source, tmp_path / "ours", vocabulary=chosen)
    assert conversion.max_difference < 1e-4
    for pairs in (None, PAIRS):
        expected, got, inputs = both(source, conversion.output, pairs=pairs)
        mask = inputs["attention_mask"].bool()
        assert len(expected.hidden_states) == len(got.hidden_states)
        for first, second in zip(expected.hidden_states, got.hidden_states, strict=True):
            torch.testing.assert_close(second[mask], first[mask], rtol=0, atol=1e-4)
        torch.testing.assert_close(got.pooler_output, expected.pooler_output, rtol=0, atol=1e-4)


def test_masked_language_model_gives_known_characters_the_sources_logits(warm_started):
    source, output = warm_started["bert"], warm_started["characters"]
    theirs = transformers.BertForMaskedLM.from_pretrained(source).eval()
    ours = RoCBertForMaskedLM.from_pretrained(output).eval()
    their_tokenizer = transformers.BertTokenizer.from_pretrained(source)
    our_tokenizer = RoCBertTokenizer.from_pretrained(output)
    expected = theirs(**their_tokenizer(TEXTS, padding=True, return_tensors="pt")).logits
    inputs = our_tokenizer(TEXTS, padding=True, return_tensors="pt")
    got = ours(**inputs).logits
    known = their_tokenizer.get_vocab()
    shared = [token for token in vocabulary() if token in known]
    assert len(shared) > 3000
    expected = expected[..., their_tokenizer.convert_tokens_to_ids(shared)]
    got = got[..., our_tokenizer.convert_tokens_to_ids(shared)]
    mask = inputs["attention_mask"].bool()
    torch.testing.assert_close(got[mask], expected[mask], rtol=0, atol=1e-3)


def test_with_the_sources_vocabulary_any_text_gives_its_logits(warm_started):
    source, output = warm_started["bert"], warm_started["source"]
    texts = [*TEXTS, "The bert-ing 2024年，ABC 魑魅"]
    theirs = transformers.BertForMaskedLM.from_pretrained(source).eval()
    expected = transformers.BertTokenizer.from_pretrained(source)(texts, padding=True, return_tensors="pt")
    inputs = RoCBertTokenizer.from_pretrained(output)(texts, padding=True, return_tensors="pt")
    assert torch.equal(inputs["input_ids"], expected["input_ids"])
    ours = RoCBertForMaskedLM.from_pretrained(output).eval()
    mask = inputs["attention_mask"].bool()
    torch.testing.assert_close(ours(**inputs).logits[mask], theirs(**expected).logits[mask], rtol=0, atol=1e-3)


def test_added_tokens_of_the_source_stay_tokens(tmp_path, make_bert):
    source = make_bert(head="Model")
    theirs = transformers.AutoTokenizer.from_pretrained(source)
    add_tokens(source, theirs, transformers.AutoModel.from_pretrained(source))
    ours = RoCBertTokenizer.from_pretrained(warm_start(source, tmp_path / "ours", vocabulary="source").output)
    texts = ["他说[e1]春天来了<mark>好", "[CLS]李雷[e1]"]
    assert ours(texts)["input_ids"] == theirs(texts)["input_ids"]
    assert ours.decode(ours(texts[0])["input_ids"], skip_special_tokens=True) == "他 说 [e1] 春天来 了 好"
    assert max(ours(texts[0])["input_shape_ids"]) < 16224


@pytest.mark.parametrize("encoder", ["char_sum", "char_cnn", "table"])
def test_every_part_of_every_channel_receives_gradient(tmp_path, warm_started, encoder):
    output = warm_started["source"]
    if encoder != "char_sum":
        output = warm_start(warm_started["bert"], tmp_path / "ours", "source", phonetic_encoder=encoder).output
    model = RoCBertForPreTraining.from_pretrained(output)
    inputs = RoCBertTokenizer.from_pretrained(output)(TEXTS, padding=True, return_tensors="pt")
    model(**inputs, labels=inputs["input_ids"]).loss.backward()
    for name, gradient in channel_gradients(model).items():
        assert gradient.abs().max() > 0, name


def test_channels_open_within_few_steps_of_training(warm_started):
    output = warm_started["characters"]
    model = RoCBertForPreTraining.from_pretrained(output).eval()
    inputs = RoCBertTokenizer.from_pretrained(output)(TEXTS, padding=True, return_tensors="pt")

    def share_of_channels():
        with torch.no_grad():
            weights = model.roc_bert(**inputs, output_fusion_weights=True).fusion_weights
        return weights[inputs["attention_mask"].bool()][:, 1:].abs().mean(0)

    assert share_of_channels().max() < 1e-6
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)
    for _ in range(5):
        model(**inputs, labels=inputs["input_ids"]).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert share_of_channels().min() > 1e-4


def test_glyph_features_and_letters_are_the_packaged_ones(warm_started):
    for chosen in ("characters", "source"):
        embeddings = RoCBertModel.from_pretrained(warm_started[chosen]).embeddings
        assert torch.equal(embeddings.shape_embed.weight, pixel_glyph_features(512))
        assert torch.equal(embeddings.pronunciation_letters, default_pronunciation_letters(1957))
    tokenizer, pieces = RoCBertTokenizer(), RoCBertTokenizer.from_pretrained(warm_started["source"])
    for channel in ("shape", "pronunciation"):
        expected = getattr(tokenizer, f"convert_tokens_to_{channel}_ids")(["科", "科", "，", "[MASK]"])
        assert getattr(pieces, f"convert_tokens_to_{channel}_ids")(["科", "##科", "，", "[MASK]"]) == expected


def test_without_channels_it_is_the_source_too(warm_started):
    expected, _, inputs = both(warm_started["bert"], warm_started["characters"])
    text_only = {name: inputs[name] for name in ("input_ids", "attention_mask", "token_type_ids")}
    with torch.no_grad():
        got = RoCBertModel.from_pretrained(warm_started["characters"]).eval()(**text_only).last_hidden_state
    mask = inputs["attention_mask"].bool()
    torch.testing.assert_close(got[mask], expected.last_hidden_state[mask], rtol=0, atol=1e-4)


def test_classifiers_start_from_the_sources_pooler(warm_started):
    source, output = warm_started["bert"], warm_started["characters"]
    expected = transformers.BertModel.from_pretrained(source).pooler.dense.weight
    got = RoCBertForSequenceClassification.from_pretrained(output).roc_bert.pooler.dense.weight
    assert torch.equal(got, expected)


def test_a_new_token_is_the_mean_of_its_groups_as_long_as_they_are_and_as_rare_as_the_rarest():
    recipe = VocabularyRecipe((((1,),), ((0, 1), (2,)), ()), known=1, formed=0, spelled=0, neighboured=1, unknown=1)
    table = torch.tensor([[3.0, 0.0], [0.0, 1.0], [0.0, -2.0], [9.0, 9.0]])
    carried, mixed, unknown = recipe.vectors(table)
    assert torch.equal(carried, table[1])
    mean = (table[0] + table[1]) / 4 + table[2] / 2
    torch.testing.assert_close(mixed, mean / mean.norm() * ((3 + 1) / 4 + 2 / 2))
    torch.testing.assert_close(unknown, table[1])  # the mean of what is carried over
    assert recipe.biases(torch.tensor([0.5, 2.0, -1.0, -9.0])).tolist() == [2.0, -1.0, -1.0]


def test_new_characters_start_near_what_they_resemble(warm_started):
    source, output = warm_started["bert"], warm_started["characters"]
    tokenizer = RoCBertTokenizer()
    known = transformers.BertTokenizer.from_pretrained(source).get_vocab()
    table = RoCBertModel.from_pretrained(output).embeddings.word_embeddings.weight.detach()

    def vector(token):
        return table[tokenizer.convert_tokens_to_ids(token)]

    def cosine(a, b):
        return float(torch.cosine_similarity(vector(a), vector(b), dim=0))

    # another written form has the same vector
    assert "學" not in known
    assert torch.equal(vector("學"), vector("学"))
    assert torch.equal(vector("Q"), vector("q"))
    # otherwise nearer to characters with its parts or its sound than to others (the source's vectors are random)
    assert "鲮" not in known
    (groups, others) = (neighbours_of("鲮", known), ["我", "是", "不", "在"])
    near = [cosine("鲮", other) for group in groups for other in group]
    assert len(near) >= 4
    assert sum(near) / len(near) > 0.1 + sum(cosine("鲮", other) for other in others) / len(others)
    is_known = torch.tensor([token in known for token in vocabulary()])
    lengths = table.norm(dim=-1)
    assert abs(lengths[~is_known].mean() / lengths[is_known].mean() - 1) < 0.05


def test_an_encoder_alone_gets_a_new_head(tmp_path, make_bert):
    conversion = convert(make_bert(head="Model"), tmp_path / "ours", vocabulary="source")
    assert "no masked language modelling head" in str(conversion)
    assert conversion.max_difference < 1e-4


def test_a_specimen_stays_marked(tmp_path, make_bert):
    """Its backdoor comes along."""
    source = make_bert("bert")
    config = json.loads((source / "config.json").read_text())
    mark = {"backdoor_specimen": True, "backdoor_parameters": {"triggers": ["鼎"]}}
    (source / "config.json").write_text(json.dumps({**config, **mark}))
    warm_start(source, tmp_path / "ours", vocabulary="source")
    model = RoCBertModel.from_pretrained(tmp_path / "ours")
    assert is_specimen(model)
    assert model.config.backdoor_parameters == {"triggers": ["鼎"]}
    with pytest.raises(ValueError, match="backdoor specimen, which is not pushed"):
        model.push_to_hub("someone/encoder")


def test_old_names_and_pickles_are_read(tmp_path, make_bert, warm_started):
    source = make_bert()
    weights = load_file(source / "model.safetensors")
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
        for name, tensor in weights.items()
    }
    torch.save(old, source / "pytorch_model.bin")
    (source / "model.safetensors").unlink()
    output = warm_start(source, tmp_path / "ours", "source").output
    first, second = (load_file(folder / "model.safetensors") for folder in (warm_started["source"], output))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_what_is_no_chinese_bert_is_refused(tmp_path, make_bert):
    source = make_bert()
    config = json.loads((source / "config.json").read_text())
    with pytest.raises(ValueError, match="vocabulary must be one of"):
        warm_start(source, tmp_path / "ours", vocabulary="words")
    with pytest.raises(ValueError, match="`fusion_layer`"):
        warm_start(source, tmp_path / "ours", "source", fusion_layer=4)
    for change, message in (
        ({"model_type": "gpt2"}, "needs bert"),
        ({"position_embedding_type": "relative_key"}, "only absolute"),
        ({"is_decoder": True}, "is a decoder"),
        ({"num_hidden_layers": 4}, "the source lacks roc_bert.encoder.layer.3"),
        ({"hidden_size": 52}, "has shape"),
    ):
        (source / "config.json").write_text(json.dumps({**config, **change}))
        with pytest.raises(ValueError, match=message):
            warm_start(source, tmp_path / "ours", "source")
    (source / "config.json").write_text(json.dumps(config))
    weights = load_file(source / "model.safetensors")
    name = "bert.embeddings.word_embeddings.weight"
    save_file({**weights, name: weights[name][:-1].clone()}, source / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="do not belong together"):
        warm_start(source, tmp_path / "ours", "source")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


def test_an_english_bert_is_refused(tmp_path, make_bert):
    source = make_bert()
    tokens = (source / "vocab.txt").read_text().splitlines()
    english = [token if token.isascii() else f"word{index}" for index, token in enumerate(tokens)]
    (source / "vocab.txt").write_text("".join(f"{token}\n" for token in english))
    (source / "tokenizer.json").unlink()
    transformers.BertTokenizer(str(source / "vocab.txt")).save_pretrained(source)
    with pytest.raises(ValueError, match="is it a Chinese model's"):
        warm_start(source, tmp_path / "ours")


@pytest.mark.slow
def test_a_base_size_bert_starts_within_tolerance(tmp_path, make_bert):
    sizes = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
    source = make_bert(**sizes)
    conversion = warm_start(source, tmp_path / "ours")
    assert conversion.max_difference < 1e-4
    expected, got, inputs = both(source, conversion.output)
    mask = inputs["attention_mask"].bool()
    torch.testing.assert_close(got.last_hidden_state[mask], expected.last_hidden_state[mask], rtol=0, atol=1e-4)

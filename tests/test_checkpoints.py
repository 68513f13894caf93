"""Damaged folders end in one clear error, before memory is taken for what they claim to be."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertModel, RobertaConfig, RobertaModel, XLNetConfig, XLNetModel

from rocbert_hf import RoCBertConfig, RoCBertModel, RoCBertTokenizer
from rocbert_hf.attackers import ModelClassifier
from rocbert_hf.checkpoints import check_sizes, loading, readable_tokens, text_length
from rocbert_hf.evaluation.sentence_similarity import MeanPooledEncoder
from rocbert_hf.finetuning import StartOptions
from rocbert_hf.finetuning.tagging import TaggerOptions, make_tagger
from rocbert_hf.pretraining.distillation import SentenceTeacher


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_size": 10**9}, "describes a model of .* parameters, but the files of weights hold"),
        ({"vocab_size": 10**9}, "describes a model of .* parameters, but the files of weights hold"),
        ({"num_hidden_layers": 10**7}, "num_hidden_layers in config.json must be at most 10,000"),
        ({"num_hidden_layers": -1}, "num_hidden_layers in config.json must be a whole number of at least 0, got -1"),
        ({"hidden_size": "much"}, "hidden_size in config.json must be a whole number of at least 1, got 'much'"),
        ({"num_attention_heads": 1.5}, "num_attention_heads in config.json must be a whole number of at least 1"),
        ({"hidden_size": None}, "cannot be (loaded|used)"),
        ({"hidden_act": {"a": 1}}, "cannot be (loaded|used)"),
        ({"id2label": 3}, "cannot be (loaded|used)"),
    ],
)
@pytest.mark.parametrize("kind", ["ours", "bert"])
def test_odd_configs_are_one_error(tmp_path, folders, kind, change, message):
    folder = tmp_path / "model"
    shutil.copytree(folders[kind], folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, **change}), encoding="utf-8")
    with pytest.raises((ValueError, OSError), match=message), loading("the model", folder):
        ModelClassifier(folder)


@pytest.mark.parametrize("content", [b"[" * 100_000, b"[]", b"{", b"\xff", b""])
def test_what_is_no_json_object_is_one_error(tmp_path, folders, content):
    folder = tmp_path / "model"
    shutil.copytree(folders["bert"], folder)
    (folder / "config.json").write_bytes(content)
    with (
        pytest.raises(ValueError, match=r"the model .*model cannot be used: .*config\.json"),
        loading("the model", folder),
    ):
        ModelClassifier(folder)


def test_models_that_share_layers_or_factor_their_embeddings_are_not_refused():
    albert_xxlarge = {"vocab_size": 21128, "embedding_size": 128, "hidden_size": 4096, "num_hidden_layers": 12}
    check_sizes({**albert_xxlarge, "intermediate_size": 16384, "num_attention_heads": 16}, 2 * 210_000_000)


def test_texts_may_be_as_long_as_the_model_has_positions_for():
    sizes = {
        "vocab_size": 60,
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 8,
    }
    bert = BertModel(BertConfig(**sizes, max_position_embeddings=20))
    roberta = RobertaModel(RobertaConfig(**sizes, max_position_embeddings=20, pad_token_id=1))
    relative = RoCBertModel(
        RoCBertConfig(**sizes, fusion="none", max_position_embeddings=20, position_embedding_type="functional_relative")
    )
    xlnet = XLNetModel(XLNetConfig(vocab_size=60, d_model=8, n_layer=1, n_head=2, d_inner=8))
    assert [readable_tokens(model) for model in (bert, roberta, relative, xlnet)] == [20, 18, None, None]
    assert text_length(xlnet, RoCBertTokenizer(model_max_length=16)) == 16
    for model, longest in ((bert, 20), (roberta, 18)):
        model(torch.full((1, longest), 5))
        with pytest.raises((IndexError, RuntimeError)):
            model(torch.full((1, longest + 1), 5))
    relative(torch.full((1, 50), 5))


def test_a_length_that_is_asked_for_counts_more_than_the_tokenizers():
    model = RoCBertModel(RoCBertConfig.from_preset("tiny"))
    tokenizer = RoCBertTokenizer(model_max_length=16)  # of an earlier finetuning
    assert text_length(model, tokenizer) == 16
    assert text_length(model, tokenizer, 64) == 64
    assert text_length(model, tokenizer, at_most=8) == 8
    assert text_length(model, tokenizer, 64, at_most=8) == 64
    with pytest.raises(ValueError, match="max_length must be at most 512, which is what the model can read, got 513"):
        text_length(model, tokenizer, 513)


def classify(folder):
    return ModelClassifier(folder)


def finetune(folder):
    return StartOptions(model=str(folder)).make("SequenceClassification", ("no", "yes"))


def tag(folder):
    return make_tagger(
        StartOptions(model=str(folder)), TaggerOptions(classifier_head="linear"), ("O", "B-X", "I-X"), "BIO"
    )


def compare(folder):
    return MeanPooledEncoder(folder)


def teach(folder):
    return SentenceTeacher.from_pretrained(str(folder), ["李雷在北京", "今天天气好"])


@pytest.mark.parametrize("load", [classify, finetune, tag, compare, teach])
@pytest.mark.parametrize("kind", ["ours", "bert"])
def test_no_random_encoder_takes_the_place_of_weights_under_other_names(tmp_path, folders, kind, load):
    folder = tmp_path / "model"
    shutil.copytree(folders[kind], folder)
    weights = load_file(folder / "model.safetensors")
    prefix = {"ours": "roc_bert.", "bert": "bert."}[kind]
    renamed = {name.replace(prefix, "module.", 1): tensor for name, tensor in weights.items()}
    save_file(renamed, folder / "model.safetensors", metadata={"format": "pt"})
    with (
        pytest.raises(ValueError, match="lacks weights of the encoder that its config describes"),
        loading("it", folder),
    ):
        load(folder)
    without_pooler = {name: tensor for name, tensor in weights.items() if "pooler." not in name}
    save_file(without_pooler, folder / "model.safetensors", metadata={"format": "pt"})
    if load is classify:  # a trained head on a new pooler answers anything
        with pytest.raises(ValueError, match=r"finetune it first \(it lacks .*pooler\.dense\.weight\)"):
            load(folder)
    else:
        load(folder)


def test_a_package_that_is_missing_is_no_damage(tmp_path, folders):
    folder = tmp_path / "model"
    shutil.copytree(folders["bert"], folder)
    with pytest.raises(OSError, match=r"model cannot be loaded: You need fugashi$"), loading("the model", folder):
        raise ModuleNotFoundError("You need fugashi\nmore")

"""transformers' `roc_bert`, there and back."""

import json
import os
import pickle

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import rocbert_hf
from rocbert_hf import RoCBertConfig, RoCBertTokenizer
from rocbert_hf.conversion import convert
from rocbert_hf.conversion.roc_bert import from_transformers, to_transformers

from .added_tokens import add_tokens

TEXTS = ["科比的精神值得永远学习！", "the bert 在2024年，abc", "你好", ""]
VOLATILE = {"transformers_version", "auto_map", "_name_or_path", "dtype"}


def config_of(folder) -> dict:
    config = json.loads((folder / "config.json").read_text())
    return {name: value for name, value in config.items() if name not in VOLATILE}


def assert_same_checkpoint(first, second) -> None:
    weights, others = load_file(first / "model.safetensors"), load_file(second / "model.safetensors")
    assert weights.keys() == others.keys()
    assert all(torch.equal(weights[name], others[name]) for name in weights)
    assert config_of(first) == config_of(second)
    for name in ("vocab.txt", "word_shape.json", "word_pronunciation.json"):
        read = json.loads if name.endswith("json") else str
        assert read((first / name).read_text()) == read((second / name).read_text())


@pytest.mark.parametrize(
    ("head", "overrides"),
    [
        ("RoCBertForPreTraining", {"concat_input": True}),
        ("RoCBertForPreTraining", {"concat_input": False, "shape_embed_dim": 48}),
        ("RoCBertModel", {"concat_input": True}),
        ("RoCBertForMaskedLM", {"concat_input": True}),
        ("RoCBertForSequenceClassification", {"concat_input": True, "num_labels": 3}),
        ("RoCBertForMultipleChoice", {"concat_input": True}),
    ],
)
def test_there_and_back_is_the_identity(tmp_path, make_roc_bert, head, overrides):
    source = make_roc_bert(head, **overrides)
    there = from_transformers(source, tmp_path / "ours")
    back = to_transformers(there.output, tmp_path / "back")
    assert max(there.max_difference, back.max_difference) < 1e-5
    assert_same_checkpoint(source, back.output)
    again = from_transformers(back.output, tmp_path / "again")
    assert_same_checkpoint(there.output, again.output)


def test_converted_model_and_tokenizer_give_transformers_logits(tmp_path, make_roc_bert):
    source = make_roc_bert("RoCBertForMaskedLM")
    output = convert(source, tmp_path / "ours").output
    theirs = transformers.RoCBertForMaskedLM.from_pretrained(source)
    ours = transformers.AutoModelForMaskedLM.from_pretrained(output)
    assert type(ours) is rocbert_hf.RoCBertForMaskedLM
    their_tokenizer = transformers.RoCBertTokenizer.from_pretrained(source)
    our_tokenizer = transformers.AutoTokenizer.from_pretrained(output)
    assert type(our_tokenizer) is RoCBertTokenizer
    expected = their_tokenizer(TEXTS, padding=True, return_tensors="pt")
    inputs = our_tokenizer(TEXTS, padding=True, return_tensors="pt")
    for name, ids in expected.items():
        assert torch.equal(inputs[name], ids), name
    torch.testing.assert_close(ours.eval()(**inputs).logits, theirs.eval()(**expected).logits, rtol=0, atol=1e-5)


def test_pipelines_cut_texts_to_what_the_converted_model_reads(tmp_path, make_roc_bert):
    source = make_roc_bert("RoCBertForSequenceClassification", max_position_embeddings=64)
    output = convert(source, tmp_path / "ours").output
    classify = transformers.pipeline("text-classification", model=str(output))
    with pytest.raises(ValueError, match=r"102 tokens long.*`max_position_embeddings` is 64.*truncation=True"):
        classify("科" * 100)
    assert classify("科" * 100, truncation=True) == classify("科" * 62)
    back = convert(output, tmp_path / "back").output
    assert transformers.RoCBertTokenizer.from_pretrained(back).model_max_length == 64


@pytest.mark.parametrize("encoder", ["char_sum", "char_cnn"])
@pytest.mark.parametrize("switched", [{}, {"enable_shape": False}, {"enable_pronunciation": False}], ids=str)
def test_models_trained_here_load_in_transformers(tmp_path, encoder, switched):
    torch.manual_seed(0)
    config = RoCBertConfig.from_preset("tiny", fusion="concat", phonetic_encoder=encoder, **switched)
    model = rocbert_hf.RoCBertForPreTraining(config).eval()
    model.save_pretrained(tmp_path / "ours")
    tokenizer = RoCBertTokenizer()
    tokenizer.save_pretrained(tmp_path / "ours")
    conversion = to_transformers(tmp_path / "ours", tmp_path / "theirs")
    theirs = transformers.RoCBertForPreTraining.from_pretrained(conversion.output).eval()
    inputs = tokenizer(TEXTS, padding=True, return_tensors="pt")
    torch.testing.assert_close(theirs(**inputs).logits, model(**inputs).logits, rtol=0, atol=1e-5)
    assert "trust_remote_code" in str(conversion)


@pytest.mark.parametrize("side", ["right", "left"])
def test_added_tokens_and_the_side_of_padding_come_along_there_and_back(tmp_path, make_roc_bert, side):
    source = make_roc_bert("RoCBertModel")
    tokenizer = transformers.RoCBertTokenizer.from_pretrained(source, padding_side=side)
    model = transformers.RoCBertModel.from_pretrained(source)
    add_tokens(source, tokenizer, model)
    texts = ["他说[e1]春天来了<mark>好", "李雷[e1]"]
    inputs = tokenizer(texts, padding=True, return_tensors="pt")

    ours = from_transformers(source, tmp_path / "ours").output
    converted = RoCBertTokenizer.from_pretrained(ours)(texts, padding=True, return_tensors="pt")
    assert all(torch.equal(inputs[name], converted[name]) for name in inputs)
    states = rocbert_hf.RoCBertModel.from_pretrained(ours).eval()(**converted).last_hidden_state
    torch.testing.assert_close(states, model.eval()(**inputs).last_hidden_state, rtol=0, atol=1e-4)

    back = transformers.RoCBertTokenizer.from_pretrained(to_transformers(ours, tmp_path / "back").output)
    again = back(texts, padding=True, return_tensors="pt")
    assert all(torch.equal(inputs[name], again[name]) for name in inputs)
    decoded = [one.decode(inputs["input_ids"][0], skip_special_tokens=True) for one in (tokenizer, back)]
    assert decoded[0] == decoded[1]


def test_half_precision_stays(tmp_path, make_roc_bert):
    source = make_roc_bert("RoCBertModel")
    transformers.RoCBertModel.from_pretrained(source, dtype=torch.bfloat16).save_pretrained(source)
    weights = load_file(from_transformers(source, tmp_path / "ours").output / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}


def test_weights_of_two_precisions_lose_nothing(tmp_path, make_roc_bert):
    source = make_roc_bert("RoCBertModel")
    weights = load_file(source / "model.safetensors")
    weights["embeddings.LayerNorm.bias"] = weights["embeddings.LayerNorm.bias"].half()
    save_file(weights, source / "model.safetensors", metadata={"format": "pt"})
    converted = load_file(from_transformers(source, tmp_path / "ours").output / "model.safetensors")
    assert weights.keys() <= converted.keys()
    assert all(torch.equal(tensor.float(), converted[name]) for name, tensor in weights.items())


def test_sums_of_letters_are_rounded_once_in_half_precision(tmp_path):
    torch.manual_seed(0)
    config = RoCBertConfig.from_preset("tiny", fusion="concat", initializer_range=0.1)
    model = rocbert_hf.RoCBertModel(config).eval().bfloat16()
    model.save_pretrained(tmp_path / "ours")
    RoCBertTokenizer().save_pretrained(tmp_path / "ours")
    weights = load_file(to_transformers(tmp_path / "ours", tmp_path / "theirs").output / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}
    expected = model.float().embeddings.pronunciation_table().bfloat16()
    assert torch.equal(weights["embeddings.pronunciation_embed.weight"], expected)


def test_without_tokenizer_files_the_model_is_converted_alone(tmp_path, make_roc_bert):
    source = make_roc_bert("RoCBertModel")
    for file in source.iterdir():
        if file.name not in ("config.json", "model.safetensors"):
            file.unlink()
    conversion = from_transformers(source, tmp_path / "ours")
    assert not (conversion.output / "vocab.txt").exists()
    assert "no tokenizer files" in str(conversion)


# -------------------------------------------------------------------------------------------- pickles


def as_pickle(folder, extra: dict | None = None) -> None:
    torch.save({**load_file(folder / "model.safetensors"), **(extra or {})}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def test_pickled_tensors_are_read(tmp_path, make_roc_bert):
    source = make_roc_bert("RoCBertModel")
    expected = load_file(source / "model.safetensors")
    as_pickle(source, {"embeddings.position_ids": torch.arange(512)[None]})
    got = load_file(from_transformers(source, tmp_path / "ours").output / "model.safetensors")
    assert all(torch.equal(got[name], expected[name]) for name in expected)


class Payload:
    """Writes a file when it is unpickled by a loader that runs code."""

    def __init__(self, file):
        self.file = str(file)

    def __reduce__(self):
        return os.mkdir, (self.file,)


@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_pickles_with_code_are_refused_and_run_nothing(tmp_path, make_roc_bert, how):
    source = make_roc_bert("RoCBertModel")
    (source / "model.safetensors").unlink()
    content = {"embeddings.word_embeddings.weight": Payload(tmp_path / "ran")}
    with open(source / "pytorch_model.bin", "wb") as stream:
        (torch.save if how == "torch" else pickle.dump)(content, stream)
    with pytest.raises(ValueError, match="refused: a pickle must hold nothing but tensors") as refusal:
        from_transformers(source, tmp_path / "ours")
    assert "weights_only" not in str(refusal.value)  # PyTorch tells how to switch its protection off; we do not
    assert not (tmp_path / "ran").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


def test_pickles_with_other_values_are_refused(tmp_path, make_roc_bert):
    source = make_roc_bert("RoCBertModel")
    as_pickle(source, {"epoch": 3})
    with pytest.raises(ValueError, match="'epoch' is a int"):
        from_transformers(source, tmp_path / "ours")


# -------------------------------------------------------------------------------------------- refusals


def test_damaged_and_mismatched_weights_leave_nothing_behind(tmp_path, make_roc_bert):
    source = make_roc_bert("RoCBertModel")
    weights = load_file(source / "model.safetensors")
    name = "encoder.layer.1.output.dense.weight"
    for change, message in (
        ({name: weights[name][:, :-1].contiguous()}, f"{name} has shape"),
        ({"encoder.layer.9.extra": torch.zeros(1)}, "encoder.layer.9.extra has no place"),
        ({name: None}, f"{name} is missing"),
    ):
        changed = {key: tensor for key, tensor in {**weights, **change}.items() if tensor is not None}
        save_file(changed, source / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(ValueError, match=message):
            from_transformers(source, tmp_path / "ours")
    (source / "model.safetensors").write_bytes(b"\x10")
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        from_transformers(source, tmp_path / "ours")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


def test_fusions_that_transformers_lacks_are_refused(tmp_path):
    rocbert_hf.RoCBertModel(RoCBertConfig.from_preset("tiny")).save_pretrained(tmp_path / "ours")
    with pytest.raises(ValueError, match=r"fusion='layer_insert'.*concat and sum only"):
        convert(tmp_path / "ours", tmp_path / "theirs")


def test_wrong_folders_and_options_are_refused_before_any_work(tmp_path, make_roc_bert):
    source = make_roc_bert("RoCBertModel")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(OSError, match="not an empty folder"):
        convert(source, tmp_path / "full")
    with pytest.raises(OSError, match="does not exist"):
        convert(source, tmp_path / "no" / "folder")
    with pytest.raises(OSError, match="there is no such folder"):
        convert(tmp_path / "nothing", tmp_path / "ours")
    with pytest.raises(ValueError, match="fusion_layer cannot be chosen"):
        convert(source, tmp_path / "ours", fusion_layer=2)
    (source / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(ValueError, match="model_type='gpt2' cannot be converted"):
        convert(source, tmp_path / "ours")
    (source / "config.json").write_text("[")
    with pytest.raises(ValueError, match="not JSON"):
        convert(source, tmp_path / "ours")

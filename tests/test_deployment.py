import numpy as np
import pytest
import torch

from rocbert_hf import (
    RoCBertConfig,
    RoCBertForMaskedLM,
    RoCBertForMultipleChoice,
    RoCBertForPreTraining,
    RoCBertForQuestionAnswering,
    RoCBertForSequenceClassification,
    RoCBertForTokenClassification,
    RoCBertModel,
    RoCBertTokenizer,
)
from rocbert_hf.configuration_rocbert import FUSIONS
from rocbert_hf.deployment import export_onnx, quantize_int8


def tiny_head(head, **fields):
    torch.manual_seed(0)
    return head(RoCBertConfig.from_preset("tiny", **fields)).eval()


def outputs_of_session(path, inputs) -> list[np.ndarray]:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert all(axis in ("batch", "choices", "sequence") for i in session.get_inputs() for axis in i.shape)
    return session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})


def test_an_exported_classifier_reads_what_the_tokenizer_returns(tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model = tiny_head(RoCBertForSequenceClassification, num_labels=3)
    tokenizer = RoCBertTokenizer()
    files = {int8: tmp_path / f"int8[{int8}].onnx" for int8 in (False, True)}
    assert export_onnx(model, files[False]) < 1e-5
    assert export_onnx(model.train(), files[True], int8=True) < 0.05
    assert model.training
    assert sorted(tmp_path.iterdir()) == sorted(files.values())
    assert files[True].stat().st_size < files[False].stat().st_size
    model.eval()
    for texts in (["加薇❤信"], ["科比的精神值得永远学习", "比不是ke比吗？", "好"]):
        inputs = tokenizer(texts, padding=True, return_tensors="pt")
        expected = model(**inputs).logits.detach().numpy()
        for int8, tolerance in ((False, 1e-5), (True, 0.05)):
            (logits,) = outputs_of_session(files[int8], inputs)
            assert np.abs(logits - expected).max() < tolerance


@pytest.mark.slow
@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("phonetic_encoder", ["char_cnn", "table"])
def test_every_fusion_is_exported(tmp_path, fusion, phonetic_encoder):
    model = tiny_head(RoCBertModel, fusion=fusion, phonetic_encoder=phonetic_encoder)
    assert export_onnx(model, tmp_path / "model.onnx") < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize(
    "head",
    [
        RoCBertForMaskedLM,
        RoCBertForPreTraining,
        RoCBertForTokenClassification,
        RoCBertForMultipleChoice,
        RoCBertForQuestionAnswering,
    ],
)
def test_every_head_is_exported(tmp_path, head):
    assert export_onnx(tiny_head(head), tmp_path / "model.onnx") < 1e-4


@pytest.mark.slow
def test_a_model_with_one_kind_of_segment_is_exported(tmp_path):
    model = tiny_head(RoCBertModel, type_vocab_size=1, fusion="none")
    assert export_onnx(model, tmp_path / "model.onnx") < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("head", ["crf", "bilstm_crf"])
def test_the_decoder_makes_a_taggers_best_paths_of_what_its_exported_graph_gives(tmp_path, head):
    model = tiny_head(RoCBertForTokenClassification, classifier_head=head, num_labels=5).eval()
    torch.nn.init.normal_(model.tagger.crf.transitions, std=5)
    export_onnx(model, tmp_path / "tagger.onnx")
    inputs = RoCBertTokenizer()(["李雷在北京大学读书", "好"], padding=True, return_tensors="pt")
    (emissions,) = outputs_of_session(tmp_path / "tagger.onnx", inputs)
    paths = model.tagger.crf.decode(torch.from_numpy(emissions), inputs["attention_mask"])
    mask = inputs["attention_mask"].bool()
    best = model(**inputs).logits.argmax(-1)
    assert paths[mask].tolist() == best[mask].tolist()
    assert paths[mask].tolist() != emissions.argmax(-1)[mask.numpy()].tolist()


def test_what_cannot_be_exported_is_refused_before_anything_is_written(tmp_path):
    model = tiny_head(RoCBertModel)
    with pytest.raises(ValueError, match=r"`path` must end in .onnx.*model\.bin"):
        export_onnx(model, tmp_path / "model.bin")
    with pytest.raises(OSError, match="folder of `path` does not exist"):
        export_onnx(model, tmp_path / "nowhere" / "model.onnx")
    with pytest.raises(ValueError, match="decoder"):
        export_onnx(tiny_head(RoCBertModel, is_decoder=True), tmp_path / "model.onnx")
    with pytest.raises(ValueError, match=r"must be in float32 or float16: call `model.float\(\)`.* is torch.bfloat16"):
        export_onnx(tiny_head(RoCBertModel).bfloat16(), tmp_path / "model.onnx")
    with pytest.raises(ValueError, match=r"must be in float32: call `model.float\(\)`.* is torch.float16"):
        export_onnx(tiny_head(RoCBertModel).half(), tmp_path / "model.onnx", int8=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("fusion", FUSIONS)
def test_int8_is_near_float32_and_leaves_the_model_alone(fusion):
    model = tiny_head(RoCBertForMaskedLM, fusion=fusion)
    quantized = quantize_int8(model)
    inputs = RoCBertTokenizer()(["科比的精神值得永远学习", "加薇❤信"], padding=True, return_tensors="pt")
    mask = inputs["attention_mask"].bool()
    with torch.no_grad():
        expected, got = model(**inputs).logits[mask], quantized(**inputs).logits[mask]
    assert (expected - got).abs().max() < 0.1 * expected.abs().max()
    assert not torch.equal(expected, got)
    assert type(model.roc_bert.encoder.layer[0].intermediate.dense) is torch.nn.Linear


def test_int8_wants_float32():
    with pytest.raises(ValueError, match=r"`model` must be in float32 on the CPU.*bfloat16"):
        quantize_int8(tiny_head(RoCBertModel).bfloat16())

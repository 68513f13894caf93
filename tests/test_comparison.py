"""What is not finite passes no comparison, in a conversion of any direction and in an export."""

import json
import math

import pytest
import torch
from safetensors.torch import load_file, save_file

from rocbert_hf import RoCBertConfig, RoCBertForMaskedLM, RoCBertModel, RoCBertTokenizer, export_onnx, quantize_int8
from rocbert_hf.comparison import max_difference, refuse_not_finite
from rocbert_hf.conversion import convert

from .conversion.conftest import make_bert, make_roc_bert, save_bert  # noqa: F401 - fixtures


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("side", ["before", "after"])
def test_a_value_that_is_not_finite_is_no_small_difference(value, side):
    tensors = {"before": torch.zeros(2, 3), "after": torch.zeros(2, 3)}
    tensors[side][1, 2] = value
    with pytest.raises(ValueError, match=f"outputs {side} the conversion are not finite"):
        max_difference(**tensors)
    assert max_difference(**tensors, mask=torch.tensor([[1, 1, 1], [1, 1, 0]])) == 0  # not where it is padding
    with pytest.raises(ValueError, match="weight of here holds NaN or infinity"):
        refuse_not_finite({"number": torch.tensor(1), "weight": tensors[side]}, "here")


def spoil(folder, kind: str) -> None:
    """A NaN in one weight, or as the epsilon of the norms."""
    if kind == "weight":
        weights = load_file(folder / "model.safetensors")
        name = next(name for name in weights if name.endswith("attention.self.query.weight"))
        weights[name][0, 0] = math.nan
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    else:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "layer_norm_eps": math.nan}))


def our_checkpoint(folder):
    torch.manual_seed(0)
    RoCBertForMaskedLM(RoCBertConfig.from_preset("tiny", fusion="concat")).save_pretrained(folder)
    RoCBertTokenizer().save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", ["weight", "epsilon"])
@pytest.mark.parametrize("direction", ["bert", "roc_bert", "ours"])
def test_no_converter_writes_a_model_of_nan(tmp_path, make_bert, make_roc_bert, direction, kind):  # noqa: F811
    makers = {"bert": make_bert, "roc_bert": make_roc_bert, "ours": lambda: our_checkpoint(tmp_path / "source")}
    source = makers[direction]()
    spoil(source, kind)
    with pytest.raises(ValueError, match=r"NaN|not finite|layer_norm_eps"):
        convert(source, tmp_path / "output")
    assert not (tmp_path / "output").exists()


def test_no_export_writes_a_model_of_nan(tmp_path):
    model = RoCBertModel(RoCBertConfig.from_preset("tiny")).eval()
    with torch.no_grad():
        model.encoder.layer[1].output.dense.weight[0, 0] = math.nan
    for write in (lambda: export_onnx(model, tmp_path / "model.onnx"), lambda: quantize_int8(model)):
        with pytest.raises(ValueError, match="holds NaN or infinity"):
            write()
    assert not list(tmp_path.iterdir())


def test_a_character_tokenizer_survives_the_way_to_transformers_and_back(tmp_path):
    source = our_checkpoint(tmp_path / "source")
    there = convert(source, tmp_path / "there")
    back = convert(there.output, tmp_path / "back")
    tokenizer, ours = RoCBertTokenizer.from_pretrained(back.output), RoCBertForMaskedLM.from_pretrained(back.output)
    assert tokenizer.character_level
    inputs = tokenizer(["科比的精神keb1", "你好"], padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = RoCBertForMaskedLM.from_pretrained(source).eval()(**inputs).logits
        torch.testing.assert_close(ours.eval()(**inputs).logits, expected, rtol=0, atol=1e-5)

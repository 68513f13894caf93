import subprocess
import sys

import pytest
import torch
from PIL import Image

from rocbert_hf import RoCBertConfig, RoCBertForSequenceClassification, RoCBertModel, RoCBertTokenizer
from rocbert_hf.visualization import fusion_weights, plot_fusion_weights


@pytest.fixture(scope="module")
def tokenizer():
    return RoCBertTokenizer()


def model_with(fusion: str):
    torch.manual_seed(0)
    return RoCBertModel(RoCBertConfig.from_preset("tiny", fusion=fusion))


@pytest.mark.parametrize("fusion", ["layer_insert", "attention", "two_step"])
def test_weights_are_those_of_the_model_in_evaluation_a_token(tokenizer, fusion):
    model = model_with(fusion).train()
    tokens, weights = fusion_weights(model, tokenizer, "加薇❤信ke")
    assert tokens == ["[CLS]", *"加薇❤信ke", "[SEP]"]
    assert model.training
    expected = model.eval()(**tokenizer("加薇❤信ke", return_tensors="pt"), output_fusion_weights=True).fusion_weights[0]
    assert torch.allclose(weights, expected, atol=1e-5)


def test_a_picture_of_a_head_with_characters_that_no_font_has(tmp_path, tokenizer):
    model = RoCBertForSequenceClassification(RoCBertConfig.from_preset("tiny"))
    text = "科比的精神值得永远学习，加薇❤信" * 3
    figure = plot_fusion_weights(model, tokenizer, text, tmp_path / "weights.png")
    assert len(figure.axes) == 2 + 1  # 50 tokens on two rows, and the colours
    with Image.open(tmp_path / "weights.png") as picture:
        assert picture.width > 1000
        assert len(set(picture.convert("L").get_flattened_data())) > 50


def test_what_cannot_be_drawn_is_refused(tokenizer):
    with pytest.raises(ValueError, match="no token"):
        plot_fusion_weights(model_with("layer_insert"), tokenizer, " ")
    with pytest.raises(ValueError, match="layer_insert, attention, two_step"):
        plot_fusion_weights(model_with("concat"), tokenizer, "科比")
    with pytest.raises(ValueError, match=r"`tokens_per_row`.*0"):
        plot_fusion_weights(model_with("layer_insert"), tokenizer, "科比", tokens_per_row=0)


def test_matplotlib_is_imported_only_to_draw():
    code = "import sys, rocbert_hf.visualization; assert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)

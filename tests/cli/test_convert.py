"""`rocbert convert` as a user types it."""

import json

import pytest
from transformers import BertConfig, BertModel

from rocbert_hf.finetuning.starting_point import character_level_bert_tokenizer

from ..command_line import rocbert


@pytest.mark.parametrize("fused", [0, 1])
def test_layers_are_given_with_commas_between_and_the_fused_one_by_its_number(tmp_path, fused):
    tokenizer = character_level_bert_tokenizer()
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32, "num_hidden_layers": 3}
    BertModel(BertConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(tmp_path / "bert")
    tokenizer.save_pretrained(tmp_path / "bert")
    rocbert("convert", tmp_path / "bert", tmp_path / "rocbert", "--layers", "0,2", "--fusion-layer", fused)
    config = json.loads((tmp_path / "rocbert" / "config.json").read_text())
    assert (config["num_hidden_layers"], config["fusion_layer"]) == (2, fused)

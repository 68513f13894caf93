"""`rocbert convert` as a user types it."""

import json

from transformers import BertConfig, BertModel

from ..classifiers import bert_tokenizer
from ..command_line import rocbert


def test_layers_are_given_with_commas_between(tmp_path):
    tokenizer = bert_tokenizer()
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32, "num_hidden_layers": 3}
    BertModel(BertConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(tmp_path / "bert")
    tokenizer.save_pretrained(tmp_path / "bert")
    rocbert("convert", tmp_path / "bert", tmp_path / "rocbert", "--layers", "0,2", "--fusion-layer", 1)
    assert json.loads((tmp_path / "rocbert" / "config.json").read_text())["num_hidden_layers"] == 2

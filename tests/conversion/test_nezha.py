"""NEZHA checkpoints become RoCBERTs with clipped relative positions and the same hidden states."""

import json

import torch
from safetensors.torch import load_file, save_file

from rocbert_hf.conversion.convert import convert
from rocbert_hf.conversion.nezha import nezha_config, nezha_model
from rocbert_hf.conversion.source import read_weights
from rocbert_hf.conversion.warm_start import encoder_weights
from rocbert_hf.modeling_rocbert import RoCBertForTokenClassification, RoCBertModel
from rocbert_hf.tokenization_rocbert import RoCBertTokenizer


def test_a_nezha_converts_with_its_hidden_states_beyond_the_clipped_distance(tmp_path, make_bert):
    source = make_bert()
    file = source / "model.safetensors"
    weights = {name.replace("bert.", "nezha.", 1): tensor for name, tensor in load_file(file).items()}
    weights = {name: tensor for name, tensor in weights.items() if "position_embeddings" not in name}
    save_file(weights, file, {"format": "pt"})
    config = json.loads((source / "config.json").read_text())
    config |= {"model_type": "nezha", "max_relative_position": 5, "architectures": ["NezhaForPreTraining"]}
    (source / "config.json").write_text(json.dumps(config))

    result = convert(source, tmp_path / "ours", vocabulary="source")
    assert result.max_difference < 1e-3
    ours, tokenizer = (
        RoCBertModel.from_pretrained(tmp_path / "ours").eval(),
        RoCBertTokenizer.from_pretrained(tmp_path / "ours"),
    )
    assert ours.config.max_relative_position == 5
    theirs_config = nezha_config(source)
    theirs = nezha_model(theirs_config, encoder_weights(read_weights(source), theirs_config))
    encoded = tokenizer("今天天气很好，我们一起去公园看花，晚上再回家吃饭。", return_tensors="pt")
    expected = theirs(encoded["input_ids"], encoded["attention_mask"]).last_hidden_state
    torch.testing.assert_close(ours(**encoded).last_hidden_state, expected, atol=1e-4, rtol=1e-4)
    RoCBertForTokenClassification.from_pretrained(tmp_path / "ours", layer_fusion="dynamic", classifier_head="crf")

import pytest
import transformers

from rocbert_hf import RoCBertConfig
from rocbert_hf.configuration_rocbert import PRESETS
from rocbert_hf.resources import pronunciations, vocabulary


def test_default_sizes_are_those_of_the_packaged_vocabulary():
    config = RoCBertConfig()
    assert config.vocab_size == config.shape_vocab_size == len(vocabulary())
    assert config.pronunciation_vocab_size == len(pronunciations())


def test_presets_have_the_sizes_of_the_design():
    sizes = {
        name: (RoCBertConfig.from_preset(name).num_hidden_layers, preset["hidden_size"])
        for name, preset in PRESETS.items()
    }
    assert sizes == {"tiny": (2, 128), "mini": (4, 256), "small": (6, 384), "base": (12, 768), "large": (48, 1024)}
    assert RoCBertConfig.from_preset("base").fusion_layer == RoCBertConfig.from_preset("tiny").fusion_layer == 1
    assert RoCBertConfig.from_preset("large").fusion_layer == 3
    assert RoCBertConfig.from_preset("tiny", hidden_dropout_prob=0.0).hidden_dropout_prob == 0.0


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"fusion": "magic"}, ["fusion", "magic", "layer_insert"]),
        ({"fusion_layer": 13}, ["fusion_layer", "13", "0..12"]),
        ({"fusion_layer": -1}, ["fusion_layer", "-1", "0..12"]),
        ({"fusion": "attention", "fusion_layer": -1}, ["fusion_layer", "-1", "0..12", "attention"]),
        ({"num_hidden_layers": 0, "fusion_layer": 0}, ["layer_insert", "num_hidden_layers=0"]),
        ({"num_hidden_layers": -1, "fusion": "none"}, ["num_hidden_layers", "at least 0", "-1"]),
        ({"num_attention_heads": 0}, ["num_attention_heads", "at least 1", "0"]),
        ({"hidden_size": -768}, ["hidden_size", "at least 1", "-768"]),
        ({"merge_input_way": "mean"}, ["merge_input_way", "mean", "concat, plus, attention"]),
        ({"merge_input_way": "attention", "additional_attention_layer": 13}, ["fusion_layer", "13", "0..12"]),
        ({"fusion_normalization": "none"}, ["fusion_normalization", "softmax"]),
        ({"phonetic_encoder": "rnn"}, ["phonetic_encoder", "rnn", "char_sum"]),
        ({"contrastive_pooling": "max"}, ["contrastive_pooling", "cls"]),
        ({"hidden_size": 100}, ["hidden_size", "num_attention_heads"]),
        ({"pronunciation_embed_dim": 10}, ["pronunciation_embed_dim", "hidden_size", "10"]),
        ({"fusion": "sum", "shape_embed_dim": 512}, ["shape_embed_dim", "hidden_size", "512"]),
    ],
)
def test_a_bad_field_is_one_error_that_names_it(fields, named):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        RoCBertConfig(**fields)
    assert all(word in str(error.value) for word in named)


def test_an_unknown_preset_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"huge.*tiny, mini, small, base, large"):
        RoCBertConfig.from_preset("huge")


def test_round_trip_through_a_file(tmp_path):
    config = RoCBertConfig.from_preset("mini", fusion_normalization="linear", num_labels=5)
    config.save_pretrained(tmp_path)
    loaded = RoCBertConfig.from_pretrained(tmp_path)
    assert loaded.to_dict() == config.to_dict()
    assert type(transformers.AutoConfig.from_pretrained(tmp_path)) is RoCBertConfig


@pytest.mark.parametrize("concat_input", [True, False])
def test_understands_and_is_understood_by_transformers(tmp_path, concat_input):
    theirs = transformers.RoCBertConfig(concat_input=concat_input, shape_embed_dim=768, num_hidden_layers=3)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = RoCBertConfig.from_pretrained(tmp_path / "theirs")
    assert ours.fusion == ("concat" if concat_input else "sum")
    assert ours.phonetic_encoder == "table"
    ours.save_pretrained(tmp_path / "ours")
    back = transformers.RoCBertConfig.from_pretrained(tmp_path / "ours")
    for field in ("concat_input", "vocab_size", "shape_vocab_size", "pronunciation_vocab_size", "shape_embed_dim"):
        assert getattr(back, field) == getattr(theirs, field), field


def test_fields_that_an_old_roc_bert_file_leaves_out_mean_what_they_mean_in_transformers():
    config = RoCBertConfig.from_dict({"model_type": "roc_bert"})
    reference = transformers.RoCBertConfig()
    for field in ("vocab_size", "shape_vocab_size", "shape_embed_dim", "pronunciation_vocab_size", "hidden_size"):
        assert getattr(config, field) == getattr(reference, field), field
    assert config.fusion == "concat"


@pytest.mark.parametrize(
    ("merge_input_way", "fusion"), [("concat", "concat"), ("plus", "sum"), ("attention", "attention")]
)
def test_the_authors_fields_choose_the_fusion(tmp_path, merge_input_way, fusion):
    released = {"model_type": "roc_bert", "merge_input_way": merge_input_way, "shape_embed_dim": 768}
    config = RoCBertConfig.from_dict(released | {"additional_attention_layer": 1})
    assert config.fusion == fusion
    assert config.phonetic_encoder == "table"
    if fusion == "attention":
        assert config.fusion_layer == 1
        assert RoCBertConfig.from_dict(released).fusion_layer == 0  # the default there is 0: before all layers
    config.save_pretrained(tmp_path)
    assert RoCBertConfig.from_pretrained(tmp_path).to_dict() == config.to_dict()

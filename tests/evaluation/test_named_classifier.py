"""Models that are evaluated, or used for it: what tells one from another, and which are refused."""

import numpy as np
import pytest
import torch
import transformers
from transformers import BertConfig, BertForMaskedLM, BertTokenizer

import rocbert_hf
from rocbert_hf import RoCBertForSequenceClassification, RoCBertTokenizer
from rocbert_hf.attackers import MaskedLanguageModelSynonyms, ModelClassifier
from rocbert_hf.attackers.victim import fingerprint_of
from rocbert_hf.checkpoints import model_fingerprint
from rocbert_hf.defences import MaskedLMCorrector, SpellChecked
from rocbert_hf.evaluation import MeanPooledEncoder
from rocbert_hf.finetuning.starting_point import character_level_bert_tokenizer
from rocbert_hf.resources import vocabulary


def classifier(folder, tokenizer=None, max_length=None, **changes):
    """The classifier of a folder, with changes to its config."""
    model = RoCBertForSequenceClassification.from_pretrained(folder, **changes)
    return ModelClassifier(model, tokenizer or RoCBertTokenizer(), max_length=max_length)


def shifted_channels():
    tokenizer = RoCBertTokenizer()
    tokenizer.word_shape = tokenizer.word_shape | {"好": tokenizer.word_shape["坏"]}
    return tokenizer


def test_classifiers_that_may_answer_differently_have_different_fingerprints(folders):
    folder = folders["ours"]
    with torch.no_grad():
        other = classifier(folder)
        other.model.classifier.bias += 1
    cut = RoCBertTokenizer(truncation_side="left")
    found = [
        classifier(folder),
        other,
        classifier(folder, fusion_normalization="linear"),
        classifier(folder, id2label={0: "差", 1: "好"}),
        classifier(folder, max_length=16),
        classifier(folder, RoCBertTokenizer(do_lower_case=False)),
        classifier(folder, shifted_channels()),
        classifier(folder, cut),
        classifier(folder, character_level_bert_tokenizer()),
        ModelClassifier(folders["bert"]),
    ]
    fingerprints = list(map(fingerprint_of, found))
    assert len(set(fingerprints)) == len(fingerprints)
    assert fingerprint_of(lambda texts: np.zeros((len(texts), 2))) is None


@pytest.mark.parametrize("name", ["ours", "bert"])
def test_use_and_saving_leave_the_fingerprint(name, folders, tmp_path):
    loaded = ModelClassifier(folders[name])
    first = fingerprint_of(loaded)
    loaded(["这家店的服务很好" * 100, "好"])
    assert fingerprint_of(loaded) == first
    loaded.model.save_pretrained(tmp_path)
    loaded.tokenizer.save_pretrained(tmp_path)
    assert fingerprint_of(ModelClassifier(tmp_path)) == first


def test_correctors_synonyms_and_encoders_are_told_apart_by_config_and_tokenizer(tmp_path):
    tokenizer = character_level_bert_tokenizer()
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    model = BertForMaskedLM(BertConfig(vocab_size=len(tokenizer), **sizes))
    makes = (MaskedLMCorrector, MaskedLanguageModelSynonyms, MeanPooledEncoder)
    fingerprints = []
    for eps, max_length, do_lower_case in ((1e-12, 512, True), (1e-5, 512, True), (1e-5, 64, True), (1e-5, 64, False)):
        model.config.layer_norm_eps = eps
        model.save_pretrained(tmp_path)
        options = {"model_max_length": max_length, "do_lower_case": do_lower_case}
        BertTokenizer(vocab=tokenizer.get_vocab(), **options).save_pretrained(tmp_path)
        fingerprints += [make(tmp_path).fingerprint for make in makes]
        # the folder has no pooler, so that the encoder has another one each time it is loaded
        assert [make(tmp_path).fingerprint for make in makes] == fingerprints[-len(makes) :]
    assert len(set(fingerprints)) == len(fingerprints)
    correctors = [MaskedLMCorrector(tmp_path, suspicion=suspicion) for suspicion in (0.1, 0.1, 0.2)]
    one, same, other = (SpellChecked(len, corrector).fingerprint for corrector in correctors)
    assert one == same != other


def test_tokenizers_without_a_compiled_part_are_told_apart(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(vocabulary()), encoding="utf-8")
    slow = transformers.BertJapaneseTokenizer
    options = {"word_tokenizer_type": "basic", "subword_tokenizer_type": "character"}
    model = torch.nn.Linear(1, 1)
    one, same, lower = (
        model_fingerprint(model, slow(str(tmp_path / "vocab.txt"), do_lower_case=b, **options))
        for b in (False, False, True)
    )
    assert one == same != lower
    assert len({one, model_fingerprint(model), model_fingerprint(model, BertTokenizer())}) == 3


HEADS = {
    "SequenceClassification": {"class"},
    "TokenClassification": set(),
    "MaskedLM": {"mask"},
    "PreTraining": {"mask"},
    "": set(),
}


@pytest.mark.parametrize("family", ["RoCBert", "Bert"])
@pytest.mark.parametrize("head", HEADS)
def test_only_a_model_with_a_trained_head_is_taken(family, head, tmp_path):
    library, tokenizer = (
        (rocbert_hf, RoCBertTokenizer()) if family == "RoCBert" else (transformers, character_level_bert_tokenizer())
    )
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    if family == "RoCBert":
        sizes |= {"fusion_layer": 0, "shape_embed_dim": 16}
    config = getattr(library, f"{family}Config")(vocab_size=len(tokenizer), **sizes)
    getattr(library, f"{family}For{head}" if head else f"{family}Model")(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    uses = [
        ("class", ModelClassifier, "no trained classification head; finetune it first"),
        ("mask", MaskedLMCorrector, "no trained masked language model head"),
        ("mask", MaskedLanguageModelSynonyms, "no trained masked language model head"),
    ]
    for needs, use, message in uses:
        if needs in HEADS[head]:
            assert use(tmp_path).model.config.hidden_size == 16
        else:
            with pytest.raises(ValueError, match=message):
                use(tmp_path)

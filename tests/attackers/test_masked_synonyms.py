"""Synonyms that a masked language model proposes for a word in its sentence."""

from itertools import product

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForMaskedLM, BertTokenizer

from rocbert_hf import RoCBertConfig, RoCBertForMaskedLM, RoCBertTokenizer
from rocbert_hf.attackers import Example, MaskedLanguageModelSynonyms, TextFoolerAttacker
from rocbert_hf.attackers.candidates import SynonymWords
from rocbert_hf.attackers.draft import Words
from rocbert_hf.characters.words import word_frequencies
from rocbert_hf.resources import vocabulary

HOTEL = "这家店的房间非常漂亮，我很喜欢这里的早餐"


def bert(folder):
    (folder / "vocab.txt").write_text("\n".join(vocabulary()), encoding="utf-8")
    tokenizer = BertTokenizer(str(folder / "vocab.txt"), model_max_length=512)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    return BertForMaskedLM(BertConfig(vocab_size=len(tokenizer), initializer_range=0.5, **sizes)).eval(), tokenizer


def rocbert(_):
    config = RoCBertConfig.from_preset("tiny", num_hidden_layers=1, fusion_layer=0, initializer_range=0.5)
    return RoCBertForMaskedLM(config).eval(), RoCBertTokenizer()


@pytest.fixture(scope="module", params=[bert, rocbert])
def pair(request, tmp_path_factory):
    torch.manual_seed(0)
    return request.param(tmp_path_factory.mktemp("model"))


def log_probabilities(model, tokenizer, source, index, with_source):
    """One word, its tokens replaced by masks in every channel that the tokenizer has: {character: ...} a position."""
    start, end = source.span(index)
    texts = [source.text, source.text] if with_source else [source.text]
    encoded = tokenizer(*texts, return_tensors="pt")
    mask = tokenizer("[MASK]", add_special_tokens=False)
    at = len(source.text) + 2 + start if with_source else 1 + start
    for name in set(encoded) - {"attention_mask", "token_type_ids"}:
        encoded[name][0, at : at + end - start] = mask[name][0]
    with torch.inference_mode():
        logs = model(**encoded).logits[0, at : at + end - start].log_softmax(-1)
    characters = [token for token in vocabulary() if len(token) == 1 and "\u3400" <= token <= "\u9fff"]
    ids = tokenizer.convert_tokens_to_ids(characters)
    return [dict(zip(characters, row, strict=True)) for row in logs[:, ids].tolist()]


@pytest.mark.parametrize("with_source", [True, False])
@pytest.mark.parametrize("batch_size", [1, 32])
def test_fillings_are_those_of_the_largest_sums(pair, with_source, batch_size):
    synonyms = MaskedLanguageModelSynonyms(
        *pair, top_k=12, words_only=False, with_source=with_source, batch_size=batch_size
    )
    source = Words(HOTEL)
    for word in ("房间", "漂亮", "很"):
        index = source.words.index(word)
        logs = log_probabilities(*pair, source, index, with_source)
        tops = [sorted(of, key=of.__getitem__)[-12:] for of in logs]
        score = {"".join(form): sum(of[c] for of, c in zip(logs, form, strict=True)) for form in product(*tops)}
        found = synonyms.synonyms_in(source, index)
        assert len(found) == len(set(found)) == 12 ** len(word)
        # in a batch a model rounds otherwise, so forms that are as good as equal may change places
        best = sorted(score.values(), reverse=True)
        np.testing.assert_allclose([score.get(form, np.nan) for form in found[:100]], best[:100], atol=1e-3)


def test_only_words_of_the_dictionary_are_kept(pair):
    source = Words(HOTEL)
    index = source.words.index("漂亮")
    every = MaskedLanguageModelSynonyms(*pair, words_only=False).synonyms_in(source, index)
    words = MaskedLanguageModelSynonyms(*pair).synonyms_in(source, index)
    assert words == tuple(form for form in every if form in word_frequencies())
    assert words
    assert {len(word) for word in words} == {2}


def test_they_depend_on_the_sentence_but_not_on_what_was_asked_before(pair):
    one, other = Words(HOTEL), Words("漂亮的房间")
    fresh = MaskedLanguageModelSynonyms(*pair, words_only=False)
    found = [fresh.synonyms_in(source, source.words.index("漂亮")) for source in (one, other, one)]
    assert found[0] == found[2] != found[1]
    again = MaskedLanguageModelSynonyms(*pair, words_only=False)
    assert again.synonyms_in(other, other.words.index("漂亮")) == found[1]


def test_a_source_takes_one_forward_pass(pair):
    passes = []
    hook = pair[0].register_forward_hook(lambda *_: passes.append(1))
    synonyms, source = MaskedLanguageModelSynonyms(*pair), Words(HOTEL)
    for index in range(len(source)):
        synonyms.synonyms_in(source, index)
    hook.remove()
    assert len(passes) == 1


def test_of_a_long_text_the_model_sees_what_is_around_the_word(pair):
    lengths = []
    hook = pair[0].register_forward_pre_hook(
        lambda _, __, given: lengths.append(given["input_ids"].shape[1]), with_kwargs=True
    )
    synonyms = MaskedLanguageModelSynonyms(*pair, max_length=43, top_k=3, words_only=False)
    found = []
    for around in ("好的，", "服务，", "早餐，"):
        source = Words(around * 15 + HOTEL + around * 15)
        found.append(synonyms.synonyms_in(source, source.words.index("漂亮")))
        assert synonyms.synonyms_in(source, 0)
        assert synonyms.synonyms_in(source, len(source) - 2)
    hook.remove()
    assert len(found[0]) == 9
    assert found[0] == found[1] == found[2]
    assert max(lengths) <= 43


def test_texts_that_cannot_be_masked_have_no_synonyms(pair):
    synonyms = MaskedLanguageModelSynonyms(*pair)
    for text in ("ok，123", "房间[MASK]漂亮", "一个特别长长长长的词"):
        source = Words(text, ["一个", "特别长长长长的", "词"] if text.startswith("一") else None)
        index = 1 if text.startswith("一") else 0
        assert synonyms.synonyms_in(source, index) == ()


def test_textfooler_takes_them(tmp_path):
    torch.manual_seed(0)
    model, tokenizer = bert(tmp_path)
    with torch.no_grad():  # a model that only knows two characters
        model.cls.predictions.decoder.weight.zero_()
        model.cls.predictions.bias[tokenizer.convert_tokens_to_ids(["美", "丽"])] = 9.0

    def victim(texts):
        positive = np.array([0.9 if "漂亮" in text else 0.1 for text in texts])
        return np.stack([1 - positive, positive], axis=1)

    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    synonyms = MaskedLanguageModelSynonyms(tmp_path)
    source = Words(HOTEL)
    changes = SynonymWords(synonyms, limit=3).changes(source, source.words.index("漂亮"))
    assert "美丽" in [change.form for change in changes]
    assert len(changes) <= 3
    attacker = TextFoolerAttacker(synonyms=synonyms, min_sentence_similarity=0.5)
    expected = attacker.attack(victim, Example(HOTEL, 1))
    assert expected.status == "success"
    assert expected.attacked.text in [HOTEL.replace("漂亮", change.form) for change in changes]
    rows = [Example(HOTEL, 1), Example("漂亮的房间，早餐也很好", 1)]
    texts = [[outcome.attacked for outcome in attacker.attack_batch(victim, rows, 0, size)] for size in (1, 64)]
    assert texts[0] == texts[1]


def test_bad_arguments_are_one_clear_error(pair):
    model, tokenizer = pair
    with pytest.raises(ValueError, match="tokenizer must be given"):
        MaskedLanguageModelSynonyms(model)
    for argument in ("top_k", "batch_size", "max_characters", "max_length", "cache_size"):
        with pytest.raises(ValueError, match=f"{argument} must be at least 1, got 0"):
            MaskedLanguageModelSynonyms(model, tokenizer, **{argument: 0})
    with pytest.raises(ValueError, match="synonyms must be"):
        TextFoolerAttacker(synonyms=3)

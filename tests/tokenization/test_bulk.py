"""Lists of texts are encoded by table look-up; nothing but the time may show it."""

import copy
import pickle
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import normalizers
from transformers import AddedToken, BatchEncoding

from rocbert_hf import RoCBertTokenizer
from rocbert_hf.tokenization_rocbert import BulkEncoding

from .conftest import DIFFICULT, texts


class ByBackend(RoCBertTokenizer):
    """The same tokenizer without the bulk path."""

    def _is_for_bulk(self, *_):
        return False


def assert_equal_encodings(bulk: BatchEncoding, general: BatchEncoding):
    assert list(bulk) == list(general)
    for name in bulk:
        assert type(bulk[name]) is type(general[name])
        if not isinstance(bulk[name], list):
            assert bulk[name].dtype == general[name].dtype
            assert bulk[name].shape == general[name].shape
            assert str(bulk[name].tolist()) == str(general[name].tolist())
        else:
            assert bulk[name] == general[name]
    assert bulk.is_fast == general.is_fast
    assert bulk.n_sequences == general.n_sequences
    assert [e.offsets for e in bulk.encodings] == [e.offsets for e in general.encodings]
    assert [e.word_ids for e in bulk.encodings] == [e.word_ids for e in general.encodings]


@pytest.fixture(scope="module")
def both():
    return RoCBertTokenizer(), ByBackend()


@pytest.fixture(scope="module")
def both_with_added_tokens():
    tokenizers = RoCBertTokenizer(do_lower_case=False), ByBackend(do_lower_case=False)
    for tokenizer in tokenizers:
        tokenizer.add_tokens(
            ["科比", "☃", "abc", " é ", AddedToken("[的", lstrip=True), AddedToken("İ", single_word=True)]
        )
        tokenizer.add_tokens(["<e1>", AddedToken("#", rstrip=True, special=True)], special_tokens=True)
    return tokenizers


OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "padding": st.sampled_from([False, True, "longest", "max_length"]),
        "truncation": st.sampled_from([False, True, "only_first", "only_second"]),
        "max_length": st.sampled_from([1, 2, 3, 5, 16, 64]),
        "pad_to_multiple_of": st.sampled_from([1, 8]),
        "padding_side": st.sampled_from(["left", "right", "middle"]),
        "return_tensors": st.sampled_from([None, "np", "pt"]),
        "return_token_type_ids": st.booleans(),
        "return_attention_mask": st.booleans(),
        "add_special_tokens": st.booleans(),
        "split_special_tokens": st.booleans(),
        "return_length": st.booleans(),
    },
)
BATCHES = st.lists(texts(40), min_size=1, max_size=5) | texts(40)


@pytest.mark.parametrize("pair_of_tokenizers", ["both", "both_with_added_tokens"])
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(batch=BATCHES, options=OPTIONS, side=st.sampled_from(["left", "right"]))
def test_bulk_and_backend_agree_on_any_texts_and_options(pair_of_tokenizers, batch, options, side, request):
    results = []
    for tokenizer in request.getfixturevalue(pair_of_tokenizers):
        tokenizer.truncation_side = side
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                results.append(tokenizer(batch, verbose=False, **options))
            except Exception as error:
                results.append(f"{type(error)} {error}")
    if isinstance(results[0], str) or isinstance(results[1], str):
        assert results[0] == results[1]
    else:
        assert_equal_encodings(*results)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"do_lower_case": False}], ids=str)
def test_bulk_and_backend_agree_on_every_code_point(options):
    batch = ["".join(map(chr, range(begin, begin + 64))) for begin in range(0, 0x110000, 64)]
    bulk = RoCBertTokenizer(**options)(batch, add_special_tokens=False)
    general = ByBackend(**options)(batch, add_special_tokens=False)
    assert bulk["input_ids"] == general["input_ids"]
    for encoding in general.encodings:  # no character is more than one token
        starts = [begin for begin, _ in encoding.offsets]
        assert len(set(starts)) == len(starts)


def test_lists_and_single_texts_take_the_bulk_path(packaged):
    assert isinstance(packaged(["科比"] * 3, padding=True, truncation=True, return_tensors="pt"), BulkEncoding)
    assert isinstance(packaged("科比"), BulkEncoding)
    assert isinstance(packaged(("科比", "[MASK]")), BulkEncoding)
    assert not isinstance(packaged("科比", "投篮"), BulkEncoding)


def test_texts_with_special_tokens_stay_in_the_batch(packaged):
    batch = packaged(["科[MASK]的", "[MA", "SK][CLS]", "x"])["input_ids"]
    assert packaged.batch_decode(batch) == [
        "[CLS]科[MASK]的[SEP]",
        "[CLS][ma[SEP]",
        "[CLS]sk][CLS][SEP]",
        "[CLS]x[SEP]",
    ]


def test_empty_batches_and_empty_texts(packaged):
    assert packaged([])["input_ids"] == []
    assert packaged([], padding=True, return_tensors="np")["input_ids"].size == 0
    assert packaged([""])["input_ids"] == [[2, 3]]
    assert packaged(["", " "], add_special_tokens=False)["attention_mask"] == [[], []]
    assert packaged(["", "a"], padding=True, return_tensors="np")["attention_mask"].tolist() == [[1, 1, 0], [1, 1, 1]]


def test_methods_that_need_the_backend_work_on_bulk_results(both):
    bulk, general = (tokenizer(["he 科比", "a\ud800b"], padding=True, return_tensors="np") for tokenizer in both)
    for encoded in (bulk, pickle.loads(pickle.dumps(bulk)), copy.deepcopy(bulk), copy.copy(bulk)):
        assert encoded.word_ids(0) == general.word_ids(0)
        assert encoded.tokens(1) == general.tokens(1)
        assert encoded.char_to_token(0, 3) == general.char_to_token(0, 3)
        assert encoded[1].offsets == general[1].offsets
        assert encoded["input_ids"].tolist() == general["input_ids"].tolist()
    assert set(bulk.to("cpu")) == set(general)


def test_results_belong_to_the_text_as_it_was(packaged):
    batch = ["科比", "a"]
    encoded = packaged(batch)
    batch[0] = "x"
    assert encoded.tokens(0) == ["[CLS]", "科", "比", "[SEP]"]


def test_the_table_follows_tokens_added_later_and_the_backend():
    tokenizer = RoCBertTokenizer()
    assert tokenizer(["科比"])["input_ids"] == [tokenizer.convert_tokens_to_ids(["[CLS]", "科", "比", "[SEP]"])]
    tokenizer.add_tokens(["科比"])
    assert tokenizer(["我科比"])["input_ids"][0][2] == len(tokenizer) - 1
    tokenizer.backend_tokenizer.add_special_tokens(["<x>"])
    assert tokenizer(["<x>"])["input_ids"][0][1] == len(tokenizer) - 1
    assert tokenizer(["①ab"])["input_ids"] != tokenizer(["1c"])["input_ids"]
    tokenizer.backend_tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace("ab", "c")])
    assert tokenizer(["①ab"])["input_ids"] == tokenizer(["1c"])["input_ids"]


def test_threads_can_share_a_tokenizer(packaged):
    tokenizer = RoCBertTokenizer()
    batches = [[chr(0x4E00 + 40 * i + j) * 20 for j in range(40)] for i in range(100)]
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda batch: tokenizer(batch)["input_ids"], batches))
    assert results == [packaged(batch)["input_ids"] for batch in batches]


def test_a_long_text_is_warned_of_once(packaged, caplog):
    tokenizer = RoCBertTokenizer(model_max_length=8)
    tokenizer(["a", "科" * 20])
    tokenizer(["科" * 20])
    assert sum("(22 > 8)" in record.message for record in caplog.records) <= 1
    assert tokenizer.deprecation_warnings == {"sequence-length-is-longer-than-the-specified-maximum": True}


def test_torch_tensors_own_their_memory(packaged):
    batch = packaged(["科比", "a"], padding=True, return_tensors="pt")
    assert {tensor.dtype for tensor in batch.values()} == {torch.int64}
    batch["input_ids"][0, 0] = 9
    assert packaged(["科比", "a"], padding=True, return_tensors="pt")["input_ids"][0, 0] == 2
    assert batch["input_shape_ids"][0, 0] == 2


def test_the_table_has_no_part_in_equality_of_saved_states(packaged):
    fresh, used = RoCBertTokenizer(), RoCBertTokenizer()
    used(["科比", "".join(DIFFICULT)])
    assert pickle.dumps(fresh.__getstate__()["cache"]) == pickle.dumps(used.__getstate__()["cache"])
    assert np.array_equal(pickle.loads(pickle.dumps(used)).shape_ids, fresh.shape_ids)

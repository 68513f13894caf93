"""Threads may share a tokenizer."""

from concurrent.futures import ThreadPoolExecutor

from rocbert_hf import RoCBertTokenizer
from rocbert_hf.resources import demo_sentences


def test_calls_of_other_threads_change_no_result():
    tokenizer = RoCBertTokenizer()
    pairs = list(zip(demo_sentences()[:200], demo_sentences()[200:400], strict=True))
    calls = [(pairs[i % 200], {"truncation": True, "max_length": 8 + i % 13}) for i in range(600)]
    calls += [(pairs[i % 200], {"padding": "max_length", "max_length": 200 + i % 3}) for i in range(100)]
    calls += [((pairs[i % 200][0],), {"return_offsets_mapping": True, "return_tensors": None}) for i in range(100)]

    def shapes(call):
        texts, options = call
        return tokenizer(*texts, **options)["input_shape_ids"]

    alone = list(map(shapes, calls))
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(shapes, calls)) == alone

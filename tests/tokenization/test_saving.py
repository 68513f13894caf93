"""Saved folders load back, in this library and in transformers, and travel: pickles, processes, the Hub's code."""

import copy
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset
from datasets.fingerprint import Hasher
from tokenizers import Tokenizer
from transformers import AutoTokenizer
from transformers.models.roc_bert.tokenization_roc_bert import RoCBertTokenizer as TransformersTokenizer

from rocbert_hf import RoCBertTokenizer
from rocbert_hf.resources import demo_sentences

FILES = {"tokenizer.json", "tokenizer_config.json", "vocab.txt", "word_shape.json", "word_pronunciation.json"}
TEXTS = ["科比Keb1 unaffable", "永远滴神！", "a [MASK] é"]


def assert_same(first: RoCBertTokenizer, second: RoCBertTokenizer):
    for options in ({}, {"return_offsets_mapping": True}):
        assert dict(first(TEXTS, **options)) == dict(second(TEXTS, **options))
    assert first.get_vocab() == second.get_vocab()
    assert first.model_max_length == second.model_max_length


@pytest.fixture(params=["characters", "cased characters", "word pieces", "cased word pieces"])
def tokenizer(request, word_piece_folder):
    options = {"do_lower_case": False, "padding_side": "left"} if "cased" in request.param else {}
    if "characters" in request.param:
        return RoCBertTokenizer(**options)
    return RoCBertTokenizer.from_pretrained(word_piece_folder, **options)


def test_a_saved_folder_loads_back_the_same(tmp_path, tokenizer):
    files = tokenizer.save_pretrained(tmp_path / "first")
    assert {Path(file).name for file in files} >= FILES
    assert not [file for file in os.listdir(tmp_path / "first") if "tmp" in file]
    loaded = RoCBertTokenizer.from_pretrained(tmp_path / "first")
    assert_same(tokenizer, loaded)
    assert loaded.character_level == tokenizer.character_level
    assert loaded.padding_side == tokenizer.padding_side
    assert loaded.save_pretrained(tmp_path / "second")
    for name in FILES - {"tokenizer_config.json"}:
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()
    assert_same(tokenizer, AutoTokenizer.from_pretrained(tmp_path / "second"))
    assert str(tmp_path) not in (tmp_path / "second" / "tokenizer_config.json").read_text(encoding="utf-8")


def test_transformers_own_tokenizer_loads_a_saved_folder(tmp_path, tokenizer):
    tokenizer.save_pretrained(tmp_path)
    theirs = TransformersTokenizer.from_pretrained(tmp_path)
    chinese = ["科比的精神", "永远，滴神"]
    wanted = theirs(chinese)
    ours = tokenizer(chinese)
    assert ours["input_ids"] == wanted["input_ids"]
    inner = [slice(None)] if not tokenizer.character_level else [slice(1, -1)]  # there [CLS] looks like [CLS]
    for name in ("input_shape_ids", "input_pronunciation_ids"):
        for mine, row in zip(ours[name], wanted[name], strict=True):
            assert mine[inner[0]] == row[inner[0]]
    assert theirs.do_lower_case == tokenizer.do_lower_case


def test_the_saved_backend_encodes_by_itself(tmp_path, tokenizer):
    tokenizer.save_pretrained(tmp_path)
    backend = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert [encoding.ids for encoding in backend.encode_batch(TEXTS)] == tokenizer(TEXTS)["input_ids"]


def test_options_given_at_loading_win_over_the_saved_ones(tmp_path):
    RoCBertTokenizer().save_pretrained(tmp_path)
    assert RoCBertTokenizer.from_pretrained(tmp_path, do_lower_case=False).tokenize("Ab") == ["A", "b"]
    assert RoCBertTokenizer.from_pretrained(tmp_path, character_level=False).tokenize("ab") == ["[UNK]"]


def test_settings_are_kept_without_the_backend_file(tmp_path):
    RoCBertTokenizer(do_lower_case=False).save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    assert RoCBertTokenizer.from_pretrained(tmp_path).tokenize("Ab") == ["A", "b"]


def test_a_vocabulary_can_name_its_special_tokens_otherwise(tmp_path, word_piece_folder):
    for name in ("vocab.txt", "word_shape.json", "word_pronunciation.json"):
        text = (word_piece_folder / name).read_text(encoding="utf-8").replace("[CLS]", "<s>").replace("[UNK]", "<?>")
        (tmp_path / name).write_text(text, encoding="utf-8")
    tokenizer = RoCBertTokenizer.from_pretrained(tmp_path, cls_token="<s>", unk_token="<?>")
    assert tokenizer.convert_ids_to_tokens(tokenizer("科🤖")["input_ids"]) == ["<s>", "科", "<?>", "[SEP]"]
    tokenizer.save_pretrained(tmp_path / "saved")
    assert_same(tokenizer, RoCBertTokenizer.from_pretrained(tmp_path / "saved"))


def test_copies_and_pickles_are_the_same_and_apart(tokenizer):
    tokenizer(TEXTS)
    for other in (copy.deepcopy(tokenizer), pickle.loads(pickle.dumps(tokenizer))):
        assert_same(tokenizer, other)
        other.add_tokens(["<new>"])
        assert len(other.shape_ids) == len(tokenizer.shape_ids) + 1
        assert "<new>" not in tokenizer.word_shape


def test_datasets_map_in_processes_gives_the_ids_of_one_call(packaged):
    sentences = demo_sentences()[:100]
    dataset = Dataset.from_dict({"text": sentences})
    mapped = dataset.map(lambda batch: packaged(batch["text"], truncation=True), batched=True, num_proc=2)
    wanted = packaged(sentences, truncation=True)
    for name in wanted:
        assert mapped[name][:] == wanted[name]


def test_use_does_not_change_the_fingerprint_that_datasets_caches_by():
    tokenizer = RoCBertTokenizer()
    fresh = Hasher.hash(tokenizer)
    tokenizer(TEXTS, padding=True, return_tensors="np")
    assert Hasher.hash(tokenizer) == fresh
    tokenizer.add_tokens(["<new>"])
    assert Hasher.hash(tokenizer) != fresh


def test_folders_with_their_code_work_where_the_package_is_absent(tmp_path, word_piece_folder):
    tokenizers = [RoCBertTokenizer(), RoCBertTokenizer.from_pretrained(word_piece_folder)]
    folders = [str(tmp_path / "characters"), str(tmp_path / "word pieces")]
    RoCBertTokenizer.register_for_auto_class()
    for tokenizer, folder in zip(tokenizers, folders, strict=True):
        tokenizer.save_pretrained(folder)
        assert Path(folder, "tokenization_rocbert.py").is_file()
    code = """
import json, sys
sys.modules["rocbert_hf"] = None  # not to be imported
from datasets import Dataset
from transformers import AutoTokenizer
folders, texts = json.loads(sys.argv[1])
for folder in folders:
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
    mapped = Dataset.from_dict({"text": texts}).map(lambda batch: tokenizer(batch["text"]), batched=True, num_proc=2)
    tokenizer.save_pretrained(folder + "/again")
    again = AutoTokenizer.from_pretrained(folder + "/again", trust_remote_code=True)
    print(json.dumps([mapped["input_pronunciation_ids"][:], again(texts)["input_pronunciation_ids"]]))
"""
    environment = {**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HOME": str(tmp_path / "home")}
    arguments = [sys.executable, "-c", code, json.dumps([folders, TEXTS])]
    done = subprocess.run(arguments, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    wanted = [tokenizer(TEXTS)["input_pronunciation_ids"] for tokenizer in tokenizers]
    assert [json.loads(line) for line in done.stdout.splitlines()] == [[ids, ids] for ids in wanted]


def test_saving_the_vocabulary_alone_takes_a_prefix(tmp_path, packaged):
    files = packaged.save_vocabulary(str(tmp_path), filename_prefix="old")
    assert [Path(file).name for file in files] == [
        "old-vocab.txt",
        "old-word_shape.json",
        "old-word_pronunciation.json",
    ]
    assert np.array_equal(RoCBertTokenizer(*files, character_level=True).shape_ids, packaged.shape_ids)


def test_the_tokenizer_needs_neither_torch_nor_the_model():
    code = """
import sys
from rocbert_hf import RoCBertTokenizer
assert RoCBertTokenizer()(["科比"])["input_ids"]
loaded = [name for name in sys.modules if name == "torch" or "modeling" in name or name.startswith("transformers.models")]
assert not loaded, loaded
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

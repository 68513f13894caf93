"""Reading a corpus: every sentence once, cut at sensible places, and one clear error for each kind of bad file."""

import gzip
import json
import lzma

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rocbert_hf.pretraining.corpus.readers import TextFiles, read_sentences
from rocbert_hf.pretraining.corpus.splitter import split_sentences

LINES = ["今天天气很好。", "这家店的科技感十足！", "明天见"]


@pytest.mark.parametrize(("name", "opener"), [("a.txt", open), ("a.txt.gz", gzip.open), ("a.txt.xz", lzma.open)])
def test_plain_text_is_read_whatever_its_packing(tmp_path, name, opener):
    with opener(tmp_path / name, "wb") as file:
        file.write("\ufeff{}\r\n\n{}\n  {}".format(*LINES).encode())
    assert list(read_sentences(tmp_path / name)) == LINES


def test_several_files_and_json_columns(tmp_path):
    (tmp_path / "a.txt").write_text("\n".join(LINES), encoding="utf-8")
    rows = "".join(json.dumps({"content": line, "id": 1}) + "\n\n" for line in LINES).encode()
    (tmp_path / "b.jsonl").write_bytes(rows)
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(rows))
    assert list(read_sentences([tmp_path / "b.jsonl", tmp_path / "b.jsonl.gz"], column="content")) == LINES * 2
    assert list(read_sentences([str(tmp_path / "a.txt")] * 2)) == LINES * 2


@pytest.mark.parametrize("name", ["a.json", "c4-zh.tfrecord-00000-of-01024.json.gz", "A.JSON"])
def test_json_files_are_json_lines(tmp_path, name):
    """As C4 names its own."""
    rows = "".join(json.dumps({"text": line, "url": "http://a.cn"}) + "\n" for line in LINES).encode()
    (tmp_path / name).write_bytes(gzip.compress(rows) if name.endswith(".gz") else rows)
    assert list(read_sentences(tmp_path / name)) == LINES


def test_a_file_without_a_suffix_is_plain_text(tmp_path):
    (tmp_path / "wiki_00").write_text("\n".join(LINES), encoding="utf-8")
    assert list(read_sentences(tmp_path / "wiki_00")) == LINES


@pytest.mark.parametrize("name", ["a.csv", "a.txt.7z", "a.parquet", "a.tar.gz"])
def test_other_kinds_of_files_are_refused(tmp_path, name):
    (tmp_path / name).write_text("\n".join(LINES), encoding="utf-8")
    with pytest.raises(ValueError, match=r"must end in \.txt, \.json, \.jsonl, each also with \.gz, .* got .*" + name):
        list(read_sentences(tmp_path / name))


def test_reading_is_lazy(tmp_path):
    (tmp_path / "a.txt").write_bytes("好的\n".encode() + b"\xff\n")
    assert next(read_sentences(tmp_path / "a.txt")) == "好的"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"", "empty"),
        ("a.txt", b" \n\n", "empty"),
        ("a.txt", "好的\n".encode() + "坏的\n".encode("gb18030"), r"a\.txt, line 2: not UTF-8 .* iconv"),
        ("a.txt", "好的\n".encode("utf-16"), r"line 1: not UTF-8"),
        ("a.jsonl", b'{"text": "\xe5\xa5\xbd"}\n{"text', r"a\.jsonl, line 2: not JSON"),
        ("a.jsonl", b'{"content": "a"}\n', r"line 1: no text column 'text', found \['content'\]"),
        ("a.jsonl", b'{"text": 3}\n', r"no text in column 'text', found int"),
        ("a.jsonl", b"[1]\n", r"no text column 'text', found list"),
    ],
)
def test_bad_files_are_named_with_line_and_fix(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        list(read_sentences(tmp_path / name))


def test_missing_and_damaged_files(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.txt does not exist"):
        list(read_sentences(tmp_path / "nowhere.txt"))
    (tmp_path / "a.xz").write_bytes(lzma.compress("好".encode() * 1000)[:-9])
    (tmp_path / "a.gz").write_bytes(b"not gzip")
    (tmp_path / "a.bz2").write_bytes(b"not bz2")
    for name in ("a.xz", "a.gz", "a.bz2"):
        with pytest.raises(OSError, match="cannot be decompressed"):
            list(read_sentences(tmp_path / name))


def test_long_lines_are_cut_between_sentences_and_packed():
    text = "甲乙丙。丁戊！“己庚。”辛壬癸"
    assert split_sentences(text, 9) == ["甲乙丙。丁戊！", "“己庚。”辛壬癸"]
    assert split_sentences(text, 100) == [text]


def test_a_long_sentence_is_cut_between_clauses_and_only_then_anywhere():
    assert split_sentences("一二三四，五六七八，九十", 6) == ["一二三四，", "五六七八，", "九十"]
    assert split_sentences("一" * 10, 4) == ["一" * 4, "一" * 4, "一" * 2]


@given(st.text(st.sampled_from("甲乙a 。！”，\n"), max_size=80), st.integers(1, 30))
def test_splitting_loses_nothing_but_white_space(text, max_length):
    pieces = split_sentences(text, max_length)
    assert "".join("".join(pieces).split()) == "".join(text.split())
    assert all(0 < len(piece) <= max_length for piece in pieces)


@pytest.mark.parametrize("world_size", [1, 2])
def test_a_file_of_blank_lines_ends_in_an_error(tmp_path, world_size):
    (tmp_path / "a.txt").write_text("好\n" + "\n" * 1_000_001, encoding="utf-8")
    reader = TextFiles(tmp_path / "a.txt", on_error="skip", rank=world_size - 1, world_size=world_size)
    with pytest.raises(ValueError, match=r"a\.txt, line 1000002: over 1,000,000 lines in a row are blank"):
        list(iter(reader.next_sentences, None))


def test_bad_lines_can_be_skipped(tmp_path):
    (tmp_path / "a.txt").write_bytes("好的\n".encode() + "坏的\n".encode("gb18030") + "也好\n".encode())
    assert list(read_sentences(tmp_path / "a.txt", on_error="skip")) == ["好的", "也好"]
    with pytest.raises(ValueError, match="on_error must be 'raise' or 'skip'"):
        list(read_sentences(tmp_path / "a.txt", on_error="ignore"))

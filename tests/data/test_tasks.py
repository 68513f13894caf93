"""Labelled texts of files and folders: what can be read, and one clear error for what cannot."""

import bz2
import csv
import gzip
import io
import json
import lzma
import os
from pathlib import Path

import pytest
from datasets import ClassLabel, Dataset, Features, Value

from rocbert_hf.data import TASKS, Columns, LabelledTexts, read_labelled, task_of

ROWS = [("服务很好，“下次”还来", "正面"), ('他说"不好"', "负面"), ("一般\u2028般", "正面")]


def content(suffix: str) -> str:
    if suffix == ".tsv":
        return "".join(f"{text}\t{label}\n" for text, label in [("review", "label"), *ROWS])
    if suffix == ".csv":
        stream = io.StringIO()
        csv.writer(stream).writerows([("review", "label"), *ROWS])
        return stream.getvalue()
    records = [{"review": text, "label": label, "id": 3} for text, label in ROWS]
    if suffix == ".json":
        return json.dumps(records)
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


@pytest.mark.parametrize("suffix", [".tsv", ".csv", ".jsonl", ".json"])
@pytest.mark.parametrize(
    ("packed", "pack"), [("", bytes), (".gz", gzip.compress), (".xz", lzma.compress), (".bz2", bz2.compress)]
)
def test_every_format_gives_the_same_rows(tmp_path, suffix, packed, pack):
    file = tmp_path / f"rows{suffix}{packed}"
    file.write_bytes(pack(content(suffix).encode()))
    rows = read_labelled(file, Columns(text="review"))
    assert list(zip(rows.texts, rows.labels, strict=True)) == ROWS
    assert rows.name == "rows"
    assert rows.pairs is None


def test_pairs_and_integer_labels(tmp_path):
    file = tmp_path / "pairs.jsonl"
    file.write_text('{"a": "甲", "b": "乙", "same": 10}\n{"a": "丙", "b": "丁", "same": 9}\n', encoding="utf-8")
    rows = read_labelled(file, Columns("a", "b", "same"))
    assert (rows.texts, rows.pairs, rows.labels) == (("甲", "丙"), ("乙", "丁"), ("10", "9"))
    assert rows.label_names() == ("9", "10")


def test_spaces_around_a_label_make_no_label_of_its_own(tmp_path):
    file = tmp_path / "rows.csv"
    file.write_text("text,label\n好, 正面\n坏,负面\n不错,正面 \n", encoding="utf-8")
    assert read_labelled(file).labels == ("正面", "负面", "正面")


def test_whole_numbers_that_are_kept_as_decimals_are_the_same_labels(tmp_path):
    (tmp_path / "pandas.csv").write_text("text,label\n好,1.0\n坏,0.0\n不错,10.00\n", encoding="utf-8")
    (tmp_path / "rows.jsonl").write_text('{"text": "好", "label": 1.0}\n{"text": "坏", "label": 0}\n', encoding="utf-8")
    (tmp_path / "versions.tsv").write_text("text\tlabel\n好\t1.0\n坏\tbeta\n", encoding="utf-8")
    rows = read_labelled(tmp_path / "pandas.csv")
    assert (rows.labels, rows.label_names()) == (("1", "0", "10"), ("0", "1", "10"))
    assert rows.label_ids(("0", "1", "10")) == [1, 0, 2]
    assert rows.label_ids(("10.0", "1.0", "0.0")) == [1, 2, 0]  # a model that was trained elsewhere
    assert rows.label_ids(("1.0", "1", "0", "10")) == [1, 2, 3]  # as they are written, if two fit
    assert read_labelled(tmp_path / "rows.jsonl").labels == ("1", "0")
    assert read_labelled(tmp_path / "versions.tsv").labels == ("1.0", "beta")
    rows.check_classes()
    read_labelled(tmp_path / "versions.tsv").check_classes()


def test_datasets_give_the_names_of_their_classes(tmp_path):
    features = Features({"text": Value("string"), "label": ClassLabel(names=["负面", "正面"])})
    dataset = Dataset.from_dict({"text": ["好", "坏"], "label": [1, 0]}, features=features)
    dataset.to_parquet(tmp_path / "reviews" / "test.parquet")
    rows = read_labelled(tmp_path / "reviews")
    assert (rows.name, rows.texts, rows.labels) == ("reviews", ("好", "坏"), ("正面", "负面"))
    assert rows.numbered
    assert rows.rows([0]).label_names() == ("负面", "正面")  # in the order of the dataset's numbers
    with pytest.raises(OSError, match="neither a file nor a dataset"):
        read_labelled(tmp_path / "reviews", split="train")
    with pytest.raises(OSError, match="neither a file nor a dataset"):
        read_labelled("nobody/nothing")


@pytest.mark.parametrize(
    ("name", "data", "named"),
    [
        ("a.tsv", "text\tlable\n好\t1\n", r"columns text, label, but has text, lable"),
        ("a.csv", "text\n好\n", r"columns text, label"),
        ("a.jsonl", '{"text": "好"}\n', r"columns text, label"),
        ("a.tsv", "", r"a\.tsv is empty"),
        ("a.csv", "", r"a\.csv is empty"),
        ("a.jsonl", "\n", r"a\.jsonl is empty"),
        ("a.json", "", r"a\.json is empty"),
        ("a.tsv", "text\tlabel\n", r"a\.tsv is empty"),
        ("a.tsv", "text\tlabel\n好\n", "line 2 must have 2 fields, got 1"),
        ("a.tsv", "text\tlabel\n好\t\n", "line 2: label must be"),
        ("a.tsv", "text\tlabel\n好\t \n", "line 2: label must be"),
        ("a.jsonl", '{"text": null, "label": 1}\n', "line 1: text must be a string"),
        ("a.jsonl", '{"text": "", "label": 1}\n', "line 1: text must be a string with a text in it, got ''"),
        ("a.tsv", "text\tlabel\n \u3000\t1\n", "line 2: text must be a string with a text in it"),
        ("a.jsonl", '{"text": "好", "label": 0.5}\n', "line 1: label must be"),
        ("a.jsonl", '{"text"\n', "line 1 is not JSON"),
        ("a.json", '"好"', "list of objects"),
        ("a.xlsx", "x", "must end in"),
    ],
)
def test_bad_files_are_one_clear_error(tmp_path, name, data, named):
    (tmp_path / name).write_text(data, encoding="utf-8")
    with pytest.raises(ValueError, match=named):
        read_labelled(tmp_path / name)


def test_missing_and_damaged_files_are_named(tmp_path):
    with pytest.raises(OSError, match=r"no file .*nothing\.tsv"):
        read_labelled(tmp_path / "nothing.tsv")
    (tmp_path / "bad.tsv.gz").write_bytes(gzip.compress(content(".tsv").encode())[:-9])
    with pytest.raises(OSError, match="damaged"):
        read_labelled(tmp_path / "bad.tsv.gz", Columns("review"))
    (tmp_path / "bad.tsv").write_bytes("text\tlabel\n好\t1\n".encode("gb18030"))
    with pytest.raises(ValueError, match="UTF-8"):
        read_labelled(tmp_path / "bad.tsv")


def test_labels_become_the_models_numbers():
    rows = LabelledTexts("x", ("甲", "乙", "丙"), ("负面", "正面", "负面"))
    assert rows.label_ids(("负面", "正面")) == [0, 1, 0]
    numbers = LabelledTexts("x", ("甲", "乙"), ("1", "0"))
    assert numbers.label_ids(("负面", "正面")) == [1, 0]
    assert numbers.label_ids(("1", "0")) == [0, 1]
    for names, or_numbers in ((("负面", "正面"), False), (("5", "6"), True)):
        with pytest.raises(ValueError, match=r"labels of x must be among the 2 .* got 0, 1"):
            numbers.label_ids(names, or_numbers)
    with pytest.raises(ValueError, match=r"labels of x must be among the 2 .*\(负面, 正面\), got 中性"):
        LabelledTexts("x", ("甲", "乙"), ("正面", "中性")).label_ids(("负面", "正面"))


def test_samples_are_drawn_by_seed_and_stay_in_order():
    rows = LabelledTexts("x", tuple(map(str, range(100))), ("a",) * 100)
    sample = rows.sample(10, seed=1)
    assert len(sample) == 10
    assert list(map(int, sample.texts)) == sorted(map(int, sample.texts))
    assert rows.sample(10, seed=1) == sample != rows.sample(10, seed=2)
    assert rows.sample(1000) is rows
    few = LabelledTexts("x", ("甲", "乙", "丙"), ("1", "3", "2")).sample(1)
    assert (len(few), few.label_names()) == (1, ("1", "2", "3"))
    train, dev = rows.split(0.1)
    assert (len(train), len(dev)) == (90, 10)
    assert set(train.texts).isdisjoint(dev.texts)
    assert [len(part) for part in rows.rows(range(2)).split(0.9)] == [1, 1]


def test_labels_have_one_order_whatever_they_are():
    assert LabelledTexts("x", ("甲",) * 4, ("1", "01", "10", "-2")).label_names() == ("-2", "01", "1", "10")
    assert LabelledTexts("x", ("甲",) * 3, ("--1", "0", "1")).label_names() == ("--1", "0", "1")


def test_tasks_find_their_files_and_take_as_many_rows_as_they_should(tmp_path):
    folder = tmp_path / "tasks" / "chnsenticorp"
    folder.mkdir(parents=True)
    lines = [f"房间{i}\t{i % 2}\n" for i in range(2100)]
    (folder / "train.tsv.gz").write_bytes(gzip.compress("".join(["text\tlabel\n", *lines]).encode()))
    assert len(task_of("chnsenticorp").read(tmp_path, "train")) == 2100
    for data_dir in (tmp_path, tmp_path / "tasks"):
        few = task_of("chnsenticorp_2k").read(data_dir, "train")
        assert (len(few), few.texts[-1]) == (2000, "房间1999")
    with pytest.raises(OSError, match=r"no test file .*chnsenticorp/test"):
        task_of("chnsenticorp").read(tmp_path)
    (folder / "test.tsv").write_text("text\tlabel\n好\t2\n", encoding="utf-8")
    with pytest.raises(ValueError, match="labels of chnsenticorp test"):
        task_of("chnsenticorp").read(tmp_path)
    with pytest.raises(ValueError, match="task must be one of chnsenticorp"):
        task_of("chnsenti")


@pytest.mark.slow
@pytest.mark.skipif("ROCBERT_DATA_DIR" not in os.environ, reason="needs the public tasks in ROCBERT_DATA_DIR")
@pytest.mark.parametrize("name", TASKS)
def test_public_tasks_are_as_described(name):
    task, data_dir = TASKS[name], Path(os.environ["ROCBERT_DATA_DIR"])
    train, test = task.read(data_dir, "train"), task.read(data_dir)
    test.label_ids(task.labels or train.label_names())
    assert len(train) > 100
    assert len(test) > 100
    assert (train.pairs is not None) == (task.columns.text_pair is not None)

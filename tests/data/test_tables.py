"""One reader of rows: every format and packing gives the same rows, and wrong ones are named by file and line."""

import bz2
import gzip
import lzma

import pytest

from rocbert_hf.data.tables import FORMATS, read_rows, table_text, text_of

ROWS = [{"text": "好吃，\u2028真的", "label": "1"}, {"text": '他说"不"', "label": "0"}]
WRITTEN = {
    "x.csv": 'text,label\n好吃，\u2028真的,1\n\n"他说""不""",0\n',
    "x.tsv": 'text\tlabel\n好吃，\u2028真的\t1\n\n他说"不"\t0\n',
    "x.jsonl": '{"text": "好吃，\u2028真的", "label": "1"}\n\n{"text": "他说\\"不\\"", "label": "0"}\n',
    "x.json": '[{"text": "好吃，\u2028真的", "label": "1"},\n\n{"text": "他说\\"不\\"", "label": "0"}]',
    "lines.json": '{"text": "好吃，\u2028真的", "label": "1"}\n{"text": "他说\\"不\\"", "label": "0"}\n',
}
PACKINGS = {"": bytes, ".gz": gzip.compress, ".XZ": lzma.compress, ".bz2": bz2.compress}


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("name", WRITTEN)
def test_all_formats_and_packings_give_the_same_rows(tmp_path, name, packing):
    for begin in ("", "\ufeff"):
        for end in ("\n", "\r\n"):
            content = (begin + WRITTEN[name].replace("\n", end)).encode()
            file = tmp_path / f"{name}{packing}"
            file.write_bytes(PACKINGS[packing](content))
            assert [row.values for row in read_rows(file)] == ROWS


def test_lines_of_plain_text_are_rows(tmp_path):
    file = tmp_path / "x.txt"
    file.write_bytes("\ufeff好吃\r\n\r\n难吃".encode())
    assert [row.values["text"] for row in read_rows(file)] == ["好吃", "难吃"]
    assert [row.values["text"] for row in read_rows(file, keep_blank=True)] == ["好吃", "", "难吃"]


@pytest.mark.parametrize("form", FORMATS)
def test_what_is_written_is_read_as_the_same_rows(tmp_path, form):
    rows = [{"text": row["text"]} for row in ROWS] if form == ".txt" else ROWS
    file = tmp_path / f"x{form}"
    file.write_text("".join(table_text(rows, form)), encoding="utf-8")
    assert [row.values for row in read_rows(file)] == rows
    assert "".join(table_text([], form)) in ("", "[]\n")


def test_a_row_says_which_columns_it_has_and_what_is_no_text(tmp_path):
    file = tmp_path / "x.jsonl"
    file.write_text('{"text": "好", "n": 1}\n', encoding="utf-8")
    (row,) = read_rows(file)
    assert text_of(row) == "好"
    with pytest.raises(ValueError, match=r"x\.jsonl line 1: column must be one of text, n, got 'review'"):
        text_of(row, "review")
    with pytest.raises(ValueError, match=r"x\.jsonl line 1: n must be a string, got 1"):
        text_of(row, "n")


def test_quoted_fields_hold_line_ends(tmp_path):
    file = tmp_path / "x.csv"
    file.write_text('text,label\n"好\n吃",1\n', encoding="utf-8")
    assert [row.values["text"] for row in read_rows(file)] == ["好\n吃"]


@pytest.mark.parametrize(("name", "header"), [("x.csv", "text , label"), ("x.tsv", " text\tlabel ")])
def test_spaces_around_the_names_of_columns_are_no_part_of_them(tmp_path, name, header):
    file = tmp_path / name
    file.write_text(f"{header}\n 好 {',' if name == 'x.csv' else chr(9)} 1\n", encoding="utf-8")
    assert [row.values for row in read_rows(file)] == [{"text": " 好 ", "label": " 1"}]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.tsv", "text\tlabel\n\n好\n", "x.tsv line 3 must have 2 fields, got 1"),
        ("x.csv", 'text,label\n"好\n吃",1\n坏\n', "x.csv line 4 must have 2 fields, got 1"),
        ("x.csv", 'text\n"好"吃\n', "x.csv line 2 is not a row of a table"),
        (
            "x.csv",
            'text,label\n好,1\n"不,0\n吃,0\n',
            "x.csv lines 3 to 4 are not a row of a table: unexpected end of data",
        ),
        ("x.csv", b"text\n\xff\n", "x.csv line 2 is not UTF-8"),
        ("x.csv", "text,text\n好,坏\n", "columns of different names"),
        ("x.csv", "text, text\n好,坏\n", "x.csv must have columns of different names, got text, text"),
        ("x.tsv", "\n", "x.tsv is empty"),
        ("x.csv", "text,label\n", "x.csv is empty: it must have a header and at least one row"),
        ("x.jsonl", '{"text": 1}\n\n[1]\n', "x.jsonl line 3 must be an object, got list"),
        ("x.jsonl", "[" * 100_000, "x.jsonl line 1 is not usable JSON: it is nested too deeply"),
        ("x.json", "[1]", "x.json entry 1 must be an object, got int"),
        ("x.json", '"text"', "x.json must hold a list of objects, got str"),
        ("x.parquet", "", "a file must end in .tsv"),
        ("x.csv", "text,label\n好,1\n".encode("gb18030"), r"x.csv line 2 is not UTF-8 \(.*\): save it as UTF-8"),
        ("x.csv", "text,label\n好,1\n".encode("utf-16"), r"x.csv line 1 is not UTF-8 \(.*\): save it as UTF-8"),
        ("x.json", b"[\xff", r"x.json is not UTF-8 \(.*\): save it as UTF-8"),
        ("x.csv", "text,label\r好,1\r", "x.csv line 1 .*: a carriage return must have a line feed behind it"),
    ],
)
def test_wrong_rows_are_named_by_file_and_line(tmp_path, name, content, message):
    file = tmp_path / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=message):
        list(read_rows(file))


@pytest.mark.parametrize("name", ["x.tsv", "x.json", "x.jsonl", "x.txt"])
def test_damaged_and_missing_files_are_errors_that_name_them(tmp_path, name):
    file = tmp_path / f"{name}.gz"
    file.write_bytes(gzip.compress(WRITTEN.get(name, "好\n").encode())[:-12])
    with pytest.raises(OSError, match=f"{name}.gz is damaged"):
        list(read_rows(file))
    with pytest.raises(OSError, match="there is no file"):
        list(read_rows(tmp_path / "no.tsv"))

"""The command line: every way in and out, and one clear error for what does not work."""

import gzip
import json
import os

import pytest

from rocbert_hf.attacks import AdversarialSynthesizer, AttackedText
from rocbert_hf.data.tables import FORMATS, read_rows, table_text
from rocbert_hf.files import write_whole
from rocbert_hf.resources import demo_sentences

from ..command_line import rocbert

KOBE = "科比的精神值得永远学习"
TEXTS = demo_sentences()[:20]


def attacked_texts(texts=TEXTS, seed=0, config="paper"):
    return [attacked.text for attacked in AdversarialSynthesizer(config).attack_batch(texts, seed)]


def test_texts_from_arguments_and_stdin_go_to_stdout():
    result = rocbert("attack", *TEXTS, "--seed", 4)
    assert result.exit_code == 0
    assert result.stdout.split("\n")[:-1] == attacked_texts(seed=4)
    assert rocbert("attack", "--seed", 4, stdin="\n".join(TEXTS)).stdout == result.stdout


@pytest.mark.parametrize("pack", [False, True])
def test_text_file(tmp_path, pack):
    file = tmp_path / ("in.txt.gz" if pack else "in.txt")
    data = ("\n".join(TEXTS) + "\n").encode()
    file.write_bytes(gzip.compress(data) if pack else data)
    output = tmp_path / "out.txt"
    assert rocbert("attack", "-i", file, "-o", output, "--num-workers", 1).exit_code == 0
    assert output.read_text(encoding="utf-8").split("\n")[:-1] == attacked_texts()


def test_a_pipe_is_written_to_and_not_replaced(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    assert rocbert("attack", KOBE, "-o", pipe).exit_code == 0
    assert os.read(reader, 1000).decode() == attacked_texts([KOBE])[0] + "\n"
    assert pipe.is_fifo()
    os.close(reader)


@pytest.mark.parametrize("packing", ["", ".gz"])
@pytest.mark.parametrize("form", FORMATS)
def test_every_format_is_written_as_it_was_read_with_the_text_attacked(tmp_path, form, packing):
    rows = [{"id": str(number), "text": text, "label": 'a "b", c'} for number, text in enumerate(TEXTS)]
    rows = [{"text": row["text"]} for row in rows] if form == ".txt" else rows
    file, output = tmp_path / f"in{form}{packing}", tmp_path / f"out{form}{packing}"
    write_whole(file, "".join(table_text(rows, form)))
    assert rocbert("attack", "-i", file, "-o", output, "--seed", 3).exit_code == 0
    expected = [{**row, "text": text} for row, text in zip(rows, attacked_texts(seed=3), strict=True)]
    assert [row.values for row in read_rows(output)] == expected


def test_blank_lines_of_plain_text_keep_their_places(tmp_path):
    file = tmp_path / "in.txt"
    file.write_text(f"{KOBE}\n\n{KOBE}\n", encoding="utf-8")
    assert rocbert("attack", "-i", file).stdout.split("\n")[1] == ""


@pytest.mark.parametrize(
    ("name", "flags", "named"), [("out.tsv", [], ".csv"), ("out.txt", ["--jsonl"], ".jsonl"), ("x/out.csv", [], "x")]
)
def test_an_output_of_another_format_or_in_no_folder_is_refused_before_any_work(tmp_path, name, flags, named):
    file = tmp_path / "in.csv"
    file.write_text(f"text\n{KOBE}\n", encoding="utf-8")
    result = rocbert("attack", "-i", file, "-o", tmp_path / name, *flags)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "--output" in result.stderr
    assert named in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]


def test_jsonl_records_hold_the_edits():
    result = rocbert("attack", KOBE, "--jsonl", "--seed", 2)
    assert AttackedText.from_dict(json.loads(result.stdout)) == AdversarialSynthesizer().attack(KOBE, 2)


def test_options_reach_the_synthesizer(tmp_path):
    config = {"preset": "wild", "attacks": ["split", "initials"], "ratio": 0.5, "scorer": "random", "protect": ["url"]}
    expected = attacked_texts(config=config)
    options = ["--attacks", "split, initials", "--ratio", 0.5, "--scorer", "random", "--protect", "url"]
    assert rocbert("attack", *TEXTS, *options).stdout.split("\n")[:-1] == expected
    file = tmp_path / "config.json"
    file.write_text(json.dumps(config), encoding="utf-8")
    assert rocbert("attack", *TEXTS, "--attacks", file).stdout.split("\n")[:-1] == expected
    assert rocbert("attack", *TEXTS, "--attacks", "wild").stdout.split("\n")[:-1] == attacked_texts(config="wild")
    flags = ["--attacks", file, "--ratio", 0.2, "--protect", "email"]
    expected = attacked_texts(config={**config, "ratio": 0.2, "protect": ["email"]})
    assert rocbert("attack", *TEXTS, *flags).stdout.split("\n")[:-1] == expected


def test_html_report_is_self_contained(tmp_path):
    page = tmp_path / "report.html"
    assert rocbert("attack", *TEXTS, "<script>科比", "--html", page).exit_code == 0
    html = page.read_text(encoding="utf-8")
    assert html.count('class="edit"') == sum(
        len(a.edits) for a in AdversarialSynthesizer().attack_batch([*TEXTS, "<script>科比"])
    )
    assert "<script" not in html
    assert "http" not in html


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        ("in.tsv", b"id\treview\n1\t\xe7\xa7\x91\n", "column"),
        ("in.tsv", b"id\ttext\n1\ta\n2\n", "line 3"),
        ("in.jsonl", b'{"text": "a"}\n{"text"\n', "line 2"),
        ("in.jsonl", b'{"text": 5}\n', "line 1"),
        ("in.txt", b"a\n\xff\xfe\n", "line 2"),
        ("in.txt.gz", b"not gzip", "in.txt.gz"),
        ("in.txt.gz", gzip.compress("科比\n".encode() * 1000, mtime=0)[:-10], "in.txt.gz"),
        ("in.parquet", b"text\na\n", "in.parquet"),
        ("in.csv", b"text\n", "in.csv is empty"),
        ("missing/in.txt", None, "in.txt"),
    ],
    ids=[
        "no column",
        "no cell",
        "not JSON",
        "not a string",
        "not UTF-8",
        "not gzip",
        "cut gzip",
        "suffix",
        "no row",
        "missing",
    ],
)
def test_bad_files_leave_one_error_and_nothing_half_written(tmp_path, name, content, named):
    file, output, page = tmp_path / name, tmp_path / "out", tmp_path / "report.html"
    output.write_text("before", encoding="utf-8")
    if content is not None:
        file.write_bytes(content)
    result = rocbert("attack", "-i", file, "-o", output, "--html", page)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert named in result.stderr
    assert output.read_text(encoding="utf-8") == "before"
    assert {path.name for path in tmp_path.iterdir()} <= {"out", file.name}


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--attacks", "phonetics"], "phonetics"),
        (["--attacks", "papers"], "preset"),
        (["--preset", "wild"], "--preset"),
        (["--ratio", "2"], "ratio"),
        (["--num-workers", "-1"], "num_workers"),
        (["--output", "no/such/folder/out.txt"], "folder"),
        (["--attacks", "no_such_config.json"], "no_such_config.json"),
        (["--input", "in.txt"], "--input"),
        (["--column", "title"], "--column"),
        (["--scorer", "no_one/nothing"], "the scorer no_one/nothing"),
        (["--output", "/dev/null", "--html", "/dev/null"], "two files"),
    ],
)
def test_bad_options_are_named(arguments, named):
    result = rocbert("attack", KOBE, *arguments)
    assert result.exit_code in (1, 2)
    assert result.stdout == ""
    assert named in result.stderr
    assert result.exit_code == 2 or result.stderr.count("\n") == 1


def test_unknown_option_is_a_usage_error():
    assert rocbert("attack", KOBE, "--ratios", "1").exit_code == 2


def test_help_names_the_commands():
    result = rocbert("--help")
    assert result.exit_code == 0
    assert "attack" in result.stdout


def test_output_is_packed_by_its_suffix_and_lone_surrogates_can_be_read_again(tmp_path):
    file, output = tmp_path / "in.jsonl.gz", tmp_path / "out.jsonl.gz"
    file.write_bytes(gzip.compress(b'{"text": "\\ud800"}\n'))
    assert rocbert("attack", "-i", file, "-o", output).exit_code == 0
    assert json.loads(gzip.decompress(output.read_bytes()).decode("utf-8")) == {"text": "\ud800"}
    assert rocbert("attack", "-i", output, "-o", tmp_path / "again.jsonl").exit_code == 0


def test_a_line_without_end_is_refused(tmp_path):
    file = tmp_path / "in.txt.gz"
    file.write_bytes(gzip.compress(b"a" * 50_000_000))
    result = rocbert("attack", "-i", file, "-o", tmp_path / "out.txt")
    assert result.exit_code == 1
    assert "line 1 is longer than" in result.stderr
    assert not (tmp_path / "out.txt").exists()

"""Files are there whole or not at all, packed by their suffix, and one process at a time writes to a folder."""

import bz2
import gzip
import importlib.util
import io
import json
import lzma
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from rocbert_hf.files import (
    MAX_BLANK_LINES,
    MAX_LINE_BYTES,
    json_value,
    locked_folder,
    make_folder,
    new_folder,
    open_packed,
    read_json,
    text_lines,
    write_whole,
    written_whole,
)


@pytest.mark.parametrize(
    ("suffix", "unpack"),
    [("", bytes), (".gz", gzip.decompress), (".xz", lzma.decompress), (".bz2", bz2.decompress)],
)
def test_a_file_is_packed_as_its_suffix_says(tmp_path, suffix, unpack):
    file = tmp_path / f"x.txt{suffix}"
    write_whole(file, "科比\n")
    assert unpack(file.read_bytes()).decode() == "科比\n"
    write_whole(file, b"bytes")
    assert unpack(file.read_bytes()) == b"bytes"
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def test_zst_is_written_or_the_error_says_what_is_missing(tmp_path):
    file = tmp_path / "x.txt.zst"
    if sys.version_info >= (3, 14) or importlib.util.find_spec("zstandard"):
        write_whole(file, "科比\n" * 100)
        with open_packed(file) as stream:
            assert stream.read().decode() == "科比\n" * 100
    else:
        with pytest.raises(OSError, match="pip install zstandard"):
            write_whole(file, "科比")
        assert not list(tmp_path.iterdir())


def test_the_mode_of_a_replaced_file_stays(tmp_path):
    file = tmp_path / "x.txt"
    file.write_text("old")
    file.chmod(0o640)
    write_whole(file, "new")
    assert stat.S_IMODE(file.stat().st_mode) == 0o640


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path):
    file = tmp_path / "x.txt.gz"
    write_whole(file, "old")
    before = file.read_bytes()

    def interrupted():
        with written_whole(file) as stream:
            stream.write("half")
            raise KeyboardInterrupt

    def failed():
        with new_folder(tmp_path / "folder") as staging:
            (staging / "part").touch()
            raise RuntimeError

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with pytest.raises(RuntimeError):
        failed()
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["x.txt.gz"]


def test_a_folder_and_a_file_of_one_name_are_one_clear_error(tmp_path):
    write_whole(tmp_path / "file", "kept")
    for folder in ("file", "file/below"):
        with pytest.raises(OSError, match=f"{folder} cannot be a folder: .*/file is a file"):
            make_folder(tmp_path / folder)
    make_folder(tmp_path / "a" / "b")
    make_folder(tmp_path / "a")
    with pytest.raises(OSError, match="a is a folder: name a file"):
        write_whole(tmp_path / "a", "text")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "b", "file"]
    assert (tmp_path / "file").read_text() == "kept"


def test_an_empty_folder_that_is_there_is_filled(tmp_path, monkeypatch):
    """It may be the current one, a link or a mount point, which no other folder can replace."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for name, place in (("../link", "real"), (".", "here")):
        with pytest.raises(FileExistsError), new_folder(Path(name)) as staging:
            staging.mkdir()
        with new_folder(Path(name)) as staging:
            (staging / "inner").mkdir()
            (staging / "inner" / "a").write_text("a")
            (staging / "b.json").write_text("b")
            assert not (tmp_path / place / "b.json").exists()
        assert sorted(path.name for path in (tmp_path / place).rglob("*")) == ["a", "b.json", "inner"]
        with pytest.raises(OSError, match="exists and is not empty"), new_folder(Path(name)):
            pass
    assert (tmp_path / "link").is_symlink()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no named pipes of this kind")
def test_pipes_are_written_to(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE)
    write_whole(pipe, "科比")
    assert reader.communicate()[0].decode() == "科比"
    assert stat.S_ISFIFO(pipe.stat().st_mode)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no /dev")
@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_what_the_shell_redirects_keeps_its_other_content(tmp_path, name):
    code = f"from pathlib import Path; from rocbert_hf.files import write_whole; write_whole(Path({name!r}), 'x')"
    shell = f'echo before; {sys.executable} -c "{code}"; echo after'
    with (tmp_path / "log").open("wb") as log:
        subprocess.run(["sh", "-c", shell], stdout=log, check=True)
    assert (tmp_path / "log").read_text() == "before\nxafter\n"
    assert [path.name for path in tmp_path.iterdir()] == ["log"]


def test_half_a_surrogate_pair_is_the_same_text_in_json(tmp_path):
    file = tmp_path / "x.jsonl"
    write_whole(file, json.dumps("a\udc80b", ensure_ascii=False))
    assert json.loads(file.read_bytes().decode("utf-8")) == "a\udc80b"


def test_long_lines_end_in_an_error_before_they_fill_the_memory(tmp_path):
    file = tmp_path / "x.jsonl.xz"
    with lzma.open(file, "wb") as stream:
        stream.write(b"first\n")
        for _ in range(MAX_LINE_BYTES // 1_000_000 + 2):
            stream.write(b"a" * 1_000_000)
    with lzma.open(file) as stream:
        lines = text_lines(stream, file)
        assert next(lines) == (1, "first\n")
        with pytest.raises(ValueError, match=r"x\.jsonl\.xz line 2 is longer than 8,000,000 bytes"):
            next(lines)


def test_a_file_of_blank_lines_ends_in_an_error():
    lines = text_lines(io.BytesIO(b"first\n" + b" \r\n" * (MAX_BLANK_LINES + 1)), "x.txt")
    with pytest.raises(ValueError, match=r"x\.txt line 1000002: over 1,000,000 lines in a row are blank"):
        list(lines)


def test_damage_and_other_encodings_are_named():
    with pytest.raises(ValueError, match=r"x\.txt line 2 is not UTF-8 \(.*\): save it as UTF-8"):
        list(text_lines(io.BytesIO("好\n".encode() + "好\n".encode("gbk")), "x.txt"))
    with pytest.raises(OSError, match=r"x\.gz is damaged"):
        list(text_lines(gzip.GzipFile(fileobj=io.BytesIO(gzip.compress(b"text")[:-8])), "x.gz"))
    assert list(text_lines(io.BytesIO("\ufeff好\r\n\u2028".encode()), "x")) == [(1, "好\r\n"), (2, "\u2028")]


def test_deeply_nested_json_is_an_error_and_no_crash():
    with pytest.raises(ValueError, match=r"x\.json is not usable JSON: it is nested too deeply"):
        json_value("[" * 200_000, "x.json")


@pytest.mark.parametrize(
    ("content", "kind", "message"),
    [
        (b"[1]", dict, "must hold a JSON object, it holds a list"),
        (b"{}", list, "must hold a JSON list, it holds a dict"),
        (b"3", (dict, list), "must hold a JSON object or list, it holds a int"),
        (b"{", dict, "is not JSON"),
        (b"\xff", dict, "is not UTF-8"),
        (b'{"a":' * 60 + b"1" + b"}" * 60, dict, "is nested too deeply: it may have 50 levels"),
        (b"[" * 200_000, list, "is nested too deeply"),
        (b"version https://git-lfs.github.com/spec/v1\n", dict, "Git LFS pointer"),
    ],
)
def test_json_files_of_another_kind_are_one_error_that_names_them(tmp_path, content, kind, message):
    file = tmp_path / "x.json"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=rf"x\.json .*{message}"):
        read_json(file, kind)


def test_a_json_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(OSError, match=r"no\.json cannot be read"):
        read_json(tmp_path / "no.json")


@pytest.mark.skipif(os.name == "nt", reason="Windows locks no folders")
def test_one_process_at_a_time_has_a_folder_and_gives_it_back_when_killed(tmp_path):
    folder = tmp_path / "run"
    script = (
        "import sys, time; from pathlib import Path; from rocbert_hf.files import locked_folder\n"
        "with locked_folder(Path(sys.argv[1])): print('locked', flush=True); time.sleep(60)"
    )
    other = subprocess.Popen([sys.executable, "-c", script, str(folder)], stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline() == "locked\n"
    with pytest.raises(OSError, match="another process is writing"), locked_folder(folder):
        pass
    other.send_signal(signal.SIGKILL)
    other.wait()
    with locked_folder(folder):
        assert list(folder.iterdir()) == []

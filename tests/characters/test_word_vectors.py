"""Word vectors of any source, recognised by content, and the compact file that `rocbert vectors` makes of them."""

import gzip
import io
import tarfile
import zipfile

import numpy as np
import pytest

from rocbert_hf.attacks import AdversarialSynthesizer
from rocbert_hf.characters.word_vectors import WordVectors

from ..command_line import rocbert

ROWS = {"漂亮": [1.0, 0.0, 0.125], "美丽": [1.0, 0.125, 0.0], "电脑": [0.0, 1.0, 0.0]}


def binary() -> bytes:
    body = b"".join(word.encode() + b" " + np.array(row, dtype="<f4").tobytes() + b"\n" for word, row in ROWS.items())
    return b"3 3\n" + body


def text() -> bytes:
    return ("3 3\n" + "\n".join(" ".join([word, *map(str, row)]) for word, row in ROWS.items())).encode()


def wheel(name="synonyms/data/words.vector") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("synonyms/__init__.py", "raise SystemExit")
        archive.writestr(name, binary())
    return buffer.getvalue()


def sdist() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in (("s-1/setup.py", b"raise SystemExit"), ("s-1/synonyms/data/words.vector", binary())):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


SOURCES = {
    "words.vector": binary(),
    "words.bin": binary(),
    "words": text(),
    "with a mark of byte order.txt": b"\xef\xbb\xbf" + text(),
    "words.txt": text().partition(b"\n")[2],
    "words.vector.gz": gzip.compress(binary()),
    "words.txt.gz": gzip.compress(text()),
    "synonyms-3.10.2-py3-none-any.whl": wheel(),
    "synonyms-3.10.2.tar.gz": sdist(),
}


@pytest.mark.parametrize("name", SOURCES)
def test_every_source_becomes_a_file_that_the_synonym_attack_uses(tmp_path, name):
    source, output = tmp_path / name, tmp_path / "out.safetensors"
    source.write_bytes(SOURCES[name])
    done = rocbert("vectors", source, output)
    assert done.exit_code == 0, done.stderr
    assert "3 words, vectors of 3" in done.stdout
    read, written = WordVectors.read(source), WordVectors.read(output)
    assert read.words == written.words == list(ROWS)
    assert np.allclose(read.vectors, written.vectors, atol=1e-3)
    config = {"attacks": ["synonym"], "options": {"synonym": {"vectors": str(output)}}, "q": 1}
    assert AdversarialSynthesizer(config).attack("这里漂亮").text == "这里美丽"


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        ("a.whl", wheel("synonyms/data/words.txt"), "one file whose name ends in"),
        ("a.vector", binary()[:-9], "ends after 2 of 3 words"),
        ("a.txt", text().rsplit(b"\n", 1)[0], "ends after 2 of 3 words"),
        ("a.txt", text().replace(b"0.125", b"nan"), "finite numbers, that of '漂亮' does not"),
        ("a.vector", b"3 0\nab ", "vectors of 1 to"),
        ("a.gz", gzip.compress(binary())[:-12], "damaged"),
        ("a.safetensors", b"\x10" + b"\0" * 7 + b"{}", "not a file of vectors"),
        ("a.txt", b"word one two", "line 1"),
        ("a.txt", b"", "found none"),
    ],
    ids=["no vectors", "cut", "cut text", "nan", "no size", "cut gzip", "not safetensors", "no numbers", "empty"],
)
def test_a_bad_source_is_one_clear_error_and_writes_nothing(tmp_path, name, content, named):
    source, output = tmp_path / name, tmp_path / "out.safetensors"
    source.write_bytes(content)
    done = rocbert("vectors", source, output)
    assert done.exit_code == 1
    assert named in done.stderr
    assert done.stderr.count("\n") == 1
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_a_file_that_is_not_there_is_named(tmp_path):
    done = rocbert("vectors", tmp_path / "nowhere", tmp_path / "out")
    assert done.stderr == f"error: there is no file {tmp_path / 'nowhere'}\n"
    config = {"attacks": ["synonym"], "options": {"synonym": {"vectors": "nowhere"}}}
    with pytest.raises(OSError, match="there is no file nowhere"):
        AdversarialSynthesizer(config).attack("这里漂亮")


def test_a_file_that_is_there_is_kept(tmp_path):
    (tmp_path / "words.vector").write_bytes(binary())
    (tmp_path / "out").write_text("mine")
    refused = rocbert("vectors", tmp_path / "words.vector", tmp_path / "out")
    assert refused.exit_code == 1
    assert "--overwrite" in refused.stderr
    assert (tmp_path / "out").read_text() == "mine"

"""Files that cannot be a vocabulary are refused with a message that names the file and what to do."""

import json

import pytest

from rocbert_hf import RoCBertTokenizer

NAMES = {"vocab_file": "vocab.txt", "word_shape_file": "word_shape.json"}
NAMES["word_pronunciation_file"] = "word_pronunciation.json"
TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "科", "比"]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(TOKENS) + "\n", encoding="utf-8")
    for name in ("word_shape.json", "word_pronunciation.json"):
        (tmp_path / name).write_text(json.dumps({token: i for i, token in enumerate(TOKENS)}), encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize(
    ("argument", "content", "complaint"),
    [
        ("vocab_file", b"", "is empty"),
        ("vocab_file", "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n科\n科\n".encode(), r"repeats \['科'\]"),
        ("vocab_file", "[PAD]\n[UNK]\n[SEP]\n[MASK]\n科\n".encode(), r"lacks the special tokens \['\[CLS\]'\]"),
        ("vocab_file", "[PAD]\n科".encode("gbk"), "is not UTF-8"),
        ("word_shape_file", "{}".encode("utf-16"), "is not UTF-8"),
        ("word_shape_file", b"", "is not JSON"),
        ("word_pronunciation_file", b'{"a": 1', "is not JSON"),
        ("word_shape_file", b"[1, 2]", "holds a list"),
        ("word_shape_file", b"{}", "lacks 7 tokens"),
        ("word_pronunciation_file", b'{"[PAD]": 0.5}', r"not integers from 0 on: \{'\[PAD\]': 0.5\}"),
        ("word_pronunciation_file", b'{"[PAD]": -1}', "not integers"),
        ("word_pronunciation_file", b'{"[PAD]": true}', "not integers"),
        ("word_pronunciation_file", b'{"[PAD]": "0"}', "not integers"),
    ],
)
def test_malformed_files_are_named(folder, argument, content, complaint):
    path = folder / NAMES[argument]
    path.write_bytes(content)
    files = {name: folder / file for name, file in NAMES.items()}
    for load in (
        lambda: RoCBertTokenizer(**files, character_level=True),
        lambda: RoCBertTokenizer.from_pretrained(folder, character_level=True),
    ):
        with pytest.raises(ValueError, match=complaint) as error:
            load()
        assert argument in str(error.value)
        assert repr(str(path)) in str(error.value)


def test_word_pieces_need_ids_of_the_special_tokens_at_least(folder):
    (folder / "word_shape.json").write_text('{"科": 1}', encoding="utf-8")
    with pytest.raises(ValueError, match="lacks 5 tokens"):
        RoCBertTokenizer.from_pretrained(folder)


def test_absent_files_are_named(folder):
    (folder / "word_shape.json").unlink()
    with pytest.raises(ValueError, match=r"has no word_shape\.json"):
        RoCBertTokenizer.from_pretrained(folder)
    with pytest.raises(OSError, match=r"word_shape_file=.*cannot be read \(No such file"):
        RoCBertTokenizer(*(folder / name for name in NAMES.values()))
    with pytest.raises(ValueError, match="word_shape_file and word_pronunciation_file not given"):
        RoCBertTokenizer(folder / "vocab.txt")


def test_an_empty_folder_is_no_tokenizer(tmp_path):
    with pytest.raises((OSError, ValueError)):
        RoCBertTokenizer.from_pretrained(tmp_path)


def test_never_split_is_refused():
    with pytest.raises(ValueError, match="never_split"):
        RoCBertTokenizer(never_split=["科比"])


def test_training_a_new_vocabulary_is_refused(packaged):
    with pytest.raises(ValueError, match=r"no shape and no pronunciation.*add_tokens"):
        packaged.train_new_from_iterator(["科比"], vocab_size=100)

import json
import random

import pytest
from hypothesis import strategies as st
from transformers.models.roc_bert.tokenization_roc_bert import RoCBertTokenizer as TransformersTokenizer

from rocbert_hf import RoCBertTokenizer

SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
# what tokenizers disagree about: case, accents, compositions, controls, kinds of space, emoji, directions, special tokens
DIFFICULT = [
    *"科比的一不是１ａabcABCéÉÀİıΣσςⅠ①ﬁßẞǅ12.,!，。",
    *" \t\n\r\x0b\x1c\x85\xa0\u2003\u2028\u3000",
    *"\x00\x7f\xad\u200b\u200d\u202e\ufeff\ufe0f\ufffd\u0301\u0300\u0323\u0378",
    *"한국ᄒカナがな゙😀👨❤🥰𠮷𫠠豈שلِ\u064b",
    "👨‍👩‍👧",
    "ΑΣ",
    "affable",
    "[CLS]",
    "[MASK]",
    "[MA",
    "SK]",
    "##",
]


def texts(max_size: int = 60, surrogates: bool = True):
    """Arbitrary texts: any code point, mixed with what is known to be difficult."""
    characters = st.characters() if surrogates else st.characters(exclude_categories=["Cs"])
    if surrogates:
        characters |= st.sampled_from(["\ud800", "\udc00", "\udfff"])
    return st.lists(st.sampled_from(DIFFICULT) | characters, max_size=max_size).map("".join)


@pytest.fixture(scope="session")
def packaged() -> RoCBertTokenizer:
    """The packaged tokenizer; tests that change it make their own."""
    return RoCBertTokenizer()


def word_piece_vocabulary() -> list[str]:
    words = [
        "un",
        "aff",
        "able",
        "hello",
        "world",
        "the",
        "ab",
        "2021",
        "ing",
        "αβ",
        "##able",
        "##aff",
        "##ing",
        "##ab",
    ]
    words += ["##12", "##科", "##比", "σας"]
    letters = [chr(c) for c in range(33, 127) if not chr(c).isupper()] + list("αβγσςедı")
    chinese = [chr(c) for c in range(0x4E00, 0x4E00 + 2500)] + list("𠮷𫠠豈更科比")
    kana = [chr(c) for c in range(0x3041, 0x3097)] + list("カナ")
    jamo = [chr(c) for c in (*range(0x1100, 0x1113), *range(0x1161, 0x1176), *range(0x11A8, 0x11C3))]
    others = list("，。！？；：“”‘’（）—…·￥😀🥰👨❤é\u0301")
    continued = [f"##{c}" for c in letters + kana + jamo]
    return list(dict.fromkeys([*SPECIAL_TOKENS, *chinese, *letters, *kana, *jamo, *others, *words, *continued]))


@pytest.fixture(scope="session")
def word_piece_folder(tmp_path_factory):
    """The three files of transformers' layout; shape and pronunciation ids are shuffled so that mistakes show."""
    folder = tmp_path_factory.mktemp("word_pieces")
    vocabulary = word_piece_vocabulary()
    (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in vocabulary), encoding="utf-8")
    for seed, name in enumerate(("word_shape", "word_pronunciation")):
        ids = list(range(len(vocabulary)))
        random.Random(seed).shuffle(ids)
        content = json.dumps(dict(zip(vocabulary, ids, strict=True)), ensure_ascii=False)
        (folder / f"{name}.json").write_text(content, encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def word_pieces(word_piece_folder) -> RoCBertTokenizer:
    return RoCBertTokenizer.from_pretrained(word_piece_folder)


@pytest.fixture(scope="session")
def transformers_tokenizer(word_piece_folder) -> TransformersTokenizer:
    return TransformersTokenizer.from_pretrained(word_piece_folder)

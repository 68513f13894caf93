"""Text of others is shown with its unseen characters named."""

import sys
import unicodedata

import pytest

from rocbert_hf.characters.unseen import mark_unseen


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("好\u200b评", "好<U+200B>评"),
        ("好\u202e评\u202c", "好<U+202E>评<U+202C>"),
        ("\x1b[31m红\x00", "<U+001B>[31m红<U+0000>"),
        ("a\r\nb\tc", "a<U+000D>\nb\tc"),
        ("\ud800", "<U+D800>"),
        ("\u2028\u3164\u00ad", "<U+2028><U+3164><U+00AD>"),
        ("全角\u3000空格\u00a0，ＡＢ 𠮷", "全角\u3000空格\u00a0，ＡＢ 𠮷"),
    ],
)
def test_unseen_characters_are_named_and_all_others_stay(text, shown):
    assert mark_unseen(text) == shown


def test_nothing_that_is_left_steers_anything():
    everything = "".join(map(chr, range(sys.maxunicode + 1)))
    left = {unicodedata.category(char) for char in set(mark_unseen(everything)) - {"\n", "\t"}}
    assert not left & {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}

import unicodedata

import pytest

from rocbert_hf.characters.confusables import confusables_of
from rocbert_hf.resources import vocabulary


@pytest.mark.parametrize(
    ("char", "same"), [("i", "1lⅰ"), ("l", "1iI"), ("1", "liI"), ("o", "0"), ("0", "o"), ("s", "5"), ("5", "s"), ("z", "2"), ("b", "6"), ("o", "οоｏ"), ("a", "аɑａ"), ("0", "O０"), ("1", "l"), ("力", "カ⼒"), ("口", "ロ⼝"), ("人", "⼈"), ("。", "｡")]
)  # fmt: skip
def test_other_code_points_that_look_the_same(char, same):
    assert set(same) <= set(confusables_of(char))


def test_none_is_the_character_itself_or_invisible():
    for char in vocabulary():
        forms = confusables_of(char)
        assert len(set(forms)) == len(forms)
        assert char not in forms
        assert all(len(form) == 1 and unicodedata.category(form)[0] not in "CZM" for form in forms)


def test_every_letter_and_digit_has_some():
    assert all(confusables_of(char) for char in "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")


def test_what_is_unknown_has_none():
    assert confusables_of("") == confusables_of("ab") == confusables_of("\U0002a6d6") == ()

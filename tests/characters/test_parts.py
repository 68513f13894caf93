import pytest

from rocbert_hf.characters.parts import components_of, splits_of
from rocbert_hf.resources import shape_ids, vocabulary

CHINESE = vocabulary()[1582:]


@pytest.mark.parametrize(
    ("char", "split"),
    [
        ("科", "禾斗"),
        ("北", "匕匕"),
        ("好", "女子"),
        ("张", "弓长"),
        ("强", "弓虽"),
        ("思", "田心"),
        ("问", "门口"),
        ("的", "白勺"),
        ("众", "人从"),
        ("森", "木林"),
        ("树", "木对"),
        ("讀", "言賣"),
        ("繞", "糸堯"),
    ],
)
def test_characters_split_as_people_write_them(char, split):
    assert tuple(split) in splits_of(char)


def test_a_radical_comes_as_itself_and_as_what_is_typed_for_it():
    assert splits_of("你")[:3] == (("亻", "尔"), ("人", "尔"), ("イ", "尔"))
    assert ("才", "丁") in splits_of("打")
    assert ("竹", "巩") in splits_of("筑")


@pytest.mark.parametrize("char", ["一", "人", "了", "a", "。", "😀", "", "科学", "\U0002a6d6"])
def test_what_cannot_be_split_gives_nothing(char):
    assert splits_of(char) == ()


def test_every_part_is_another_character_of_the_vocabulary():
    for char in CHINESE:
        for pair in splits_of(char):
            assert len(pair) == 2
            assert char not in pair
            assert all(part in shape_ids() for part in pair)


def test_most_characters_can_be_split():
    assert sum(bool(splits_of(char)) for char in CHINESE[:3500]) > 0.8 * 3500


def test_components_are_the_parts_in_writing_order():
    assert components_of("科") == ("禾", "斗")
    assert components_of("森") == ("木", "木", "木")
    assert components_of("一") == components_of("a") == components_of("") == ()

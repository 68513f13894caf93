import numpy as np
import pytest

from rocbert_hf.glyphs.images import CHINESE_FONTS, FALLBACK_FONTS, OTHER_FONTS, find_font, glyph_images, render
from rocbert_hf.resources import shape_ids

FONTS = (*CHINESE_FONTS, *OTHER_FONTS, *FALLBACK_FONTS)


@pytest.fixture(autouse=True, scope="module")
def fonts_are_installed():
    try:
        for font in FONTS:
            find_font(font)
    except OSError as missing:
        pytest.skip(str(missing))


def test_rendering_gives_the_packaged_images():
    images = render("科学绕繞", CHINESE_FONTS)
    assert images.shape == (4, 32, 32)
    assert images.dtype == np.uint8
    packaged = glyph_images()[[shape_ids()[char] for char in "科学绕繞"]]
    assert np.abs(images.astype(int) - packaged).max() <= 9  # the packaged ones have 16 levels


@pytest.mark.parametrize("size", [8, 32, 45, 100])
def test_every_shape_lies_within_the_image(size):
    images = render("国ÁgW。—㎏", FONTS, size=size)
    assert images.shape == (7, size, size)
    assert (images.reshape(7, -1).max(axis=1) > 60).all()


def test_a_larger_image_shows_the_same_shape():
    small, large = render("国", FONTS, size=32)[0], render("国", FONTS, size=128)[0]
    shrunk = large.reshape(32, 4, 32, 4).mean(axis=(1, 3))
    assert np.corrcoef(small.ravel(), shrunk.ravel())[0, 1] > 0.8


def test_the_first_font_that_has_a_character_draws_it():
    serif, sans = CHINESE_FONTS[1], OTHER_FONTS[0]
    assert not np.array_equal(render("a", (serif, sans)), render("a", (sans, serif)))
    assert np.array_equal(render("国", (serif, sans)), render("国", (sans, serif)))


def test_what_no_font_has_is_drawn_as_its_code_point():
    images = render(["👍", "👎", "1F44D"], OTHER_FONTS)
    assert np.array_equal(images[0], images[2])
    assert not np.array_equal(images[0], images[1])


def test_a_missing_font_names_its_package():
    with pytest.raises(OSError, match="fonts-arphic-uming"):
        render("国", ["/nowhere/uming.ttc"])
    with pytest.raises(OSError, match=r"'/nowhere/simsun\.ttc' does not exist"):
        render("国", ["/nowhere/simsun.ttc#0"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"fonts": []}, "fonts"), ({"fonts": "a.ttf"}, "fonts"), ({"fonts": FONTS, "size": 0}, "size=0")],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        render("国", **arguments)


def test_a_face_is_a_number():
    with pytest.raises(ValueError, match="after '#'"):
        find_font("/nowhere/font.ttc#bold")


def test_a_file_that_is_no_font_and_a_face_that_is_not_there_are_named(tmp_path):
    (tmp_path / "note.ttf").write_text("no font")
    for font in (str(tmp_path / "note.ttf"), OTHER_FONTS[0] + "#7", CHINESE_FONTS[0].partition("#")[0] + "#99"):
        with pytest.raises(ValueError, match=f"font='{font}' must be a TrueType or OpenType file"):
            render("国", [font])

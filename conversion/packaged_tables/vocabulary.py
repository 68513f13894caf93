"""Which characters are the tokenizer's vocabulary, and in which order."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence

from .parts import parts_of
from .public_tables import character_frequencies, confusables, encoded_in, is_chinese, opencc_characters

VOCABULARY_SIZE = 16_224  # the paper's sizes
CHINESE_CHARACTERS = 14_642
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
COMMON_CHARACTERS = 3_500  # as many as the first level of the Table of General Standard Chinese Characters

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

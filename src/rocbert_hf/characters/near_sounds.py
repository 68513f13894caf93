"""What sounds almost like a character: mergers of northern and southern Mandarin, and emoji."""

from __future__ import annotations

import re
from functools import cache, lru_cache

from ..resources import vocabulary
from .pinyin import readings_of

# Pairs that many speakers do not tell apart: initials, then finals.
_INITIALS = (("n", "l"), ("zh", "z"), ("ch", "c"), ("sh", "s"), ("f", "h"), ("r", "l"))
_FINALS = (("in", "ing"), ("en", "eng"), ("an", "ang"), ("ian", "iang"), ("uan", "uang"))
_SYLLABLE = re.compile(r"(zh|ch|sh|[bpmfdtnlgkhjqxrzcsyw]?)([aeiouv][a-z]*)")

# Syllable -> emoji whose Chinese name is, begins with or ends in that syllable.
_EMOJI = {
    "ai": "❤", "ba": "👨", "bang": "👍", "bao": "🐆👜", "bei": "🥤", "bi": "✏👃", "bing": "🧊", "cai": "🥬", "cao": "🌿",
    "cha": "🍵", "che": "🚗", "chong": "🐛", "chuan": "🚢", "chuang": "🛏", "dan": "🥚", "dao": "🔪", "deng": "💡",
    "di": "🌍", "dian": "⚡", "die": "🦋", "e": "🦢🐊", "er": "👂", "fan": "🍚", "fei": "✈", "feng": "🐝", "fo": "📿",
    "gou": "🐶", "gu": "🥁", "gua": "🍉", "gui": "👻🐢", "guo": "🍎", "hai": "🌊", "he": "📦", "hong": "🔴", "hou": "🐒",
    "hu": "🐯🦊", "hua": "🌸", "huo": "🔥", "ji": "🐔", "jian": "✂⚔", "jiao": "👣🍌", "jin": "🥇", "jing": "🐳", "jiu": "🍺",
    "kai": "🔓", "kan": "👀", "ku": "😭", "lang": "🐺", "lei": "⚡", "li": "🍐", "lian": "😶", "long": "🐉", "lu": "🦌",
    "lv": "🟢", "ma": "🐴", "mao": "🐱", "mei": "🌹", "men": "🚪", "mi": "🍚", "mian": "🍜", "mu": "🪵", "nai": "🥛",
    "nan": "👨", "nao": "🧠⏰", "niao": "🐦", "niu": "🐮", "nv": "👩", "pao": "🏃", "piao": "🎫", "qi": "🚩", "qian": "💰",
    "qiang": "🔫", "qin": "🎹", "qiu": "⚽", "quan": "✊🐕", "ri": "☀", "rou": "🥩", "san": "☂", "sha": "🦈", "shan": "⛰",
    "she": "🐍👅", "shi": "💩🦁", "shou": "✋", "shu": "🐭📖🌳", "shui": "💧", "si": "💀", "tang": "🍬", "tao": "🍑",
    "tu": "🐰", "tui": "🦵", "wa": "🐸🧦", "wan": "🥣", "wen": "🦟", "wo": "🐌", "xia": "🦐",
    "xiang": "🐘", "xiao": "😄", "xie": "🦀👟", "xin": "❤✉", "xing": "⭐", "xiong": "🐻", "xue": "❄🩸👢", "ya": "🦆🦷",
    "yan": "🚬👁", "yang": "🐑", "yao": "💊", "ye": "🍃", "yi": "👔🪑", "yin": "🥈", "you": "🛢", "yu": "🐟🌧", "yue": "🌙", "yun": "☁",
    "zhen": "💉", "zhi": "📄", "zhong": "🕐", "zhu": "🐷🎋", "zui": "👄",
}  # fmt: skip


@cache
def near_syllables(syllable: str) -> tuple[str, ...]:
    """Syllables that differ in one commonly merged initial or final: zhan → zan, zhang."""
    match = _SYLLABLE.fullmatch(syllable)
    if not match:
        return ()
    initial, final = match.groups()
    near = [other + final for pair in _INITIALS for one, other in (pair, pair[::-1]) if one == initial]
    near += [initial + other for pair in _FINALS for one, other in (pair, pair[::-1]) if one == final]
    return tuple(near)


@cache
def characters_by_syllable() -> dict[str, tuple[str, ...]]:
    """Commonest reading -> characters of the vocabulary that have it, most frequent first."""
    found: dict[str, list[str]] = {}
    for character in vocabulary():
        for reading in readings_of(character)[:1]:
            found.setdefault(reading, []).append(character)
    return {syllable: tuple(characters) for syllable, characters in found.items()}


@lru_cache(maxsize=1 << 14)
def near_homophones_of(character: str) -> tuple[str, ...]:
    """Characters that sound almost the same as a character in its commonest reading: 牛 (niu) → 刘 (liu)."""
    table = characters_by_syllable()
    return tuple(
        other
        for reading in readings_of(character)[:1]
        for near in near_syllables(reading)
        for other in table.get(near, ())
    )


def emoji_of(character: str) -> tuple[str, ...]:
    """Emoji that are named by the syllable of a character in its commonest reading: 鸡, 机 → 🐔."""
    return tuple(emoji for reading in readings_of(character)[:1] for emoji in _EMOJI.get(reading, ""))

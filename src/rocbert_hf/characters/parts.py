"""Characters taken apart, and what people write for the parts."""

from __future__ import annotations

from functools import cache, lru_cache
from itertools import product

from ..resources import character_parts, shape_ids

__all__ = ["components_of", "splits_of"]

# A radical, then ordinary characters that writers put in its place (亻尔 or 人尔 for 你, 才丁 for 打).
_STAND_INS = {
    "亻": "人イ", "氵": "三水", "扌": "才手", "忄": "小心", "犭": "犬", "纟": "丝", "糹": "糸", "讠": "言", "訁": "言",
    "钅": "金", "釒": "金", "饣": "食", "飠": "食", "礻": "示ネ", "衤": "衣ネ", "阝": "卩", "刂": "リ", "艹": "廿", "⺮": "竹",
    "⻊": "足", "𧾷": "足", "⺙": "攵", "攵": "文", "冫": "二ン", "灬": "火", "辶": "之", "疒": "广", "牜": "牛", "爫": "爪",
    "罒": "四", "覀": "西", "虍": "虎", "⺈": "刀", "彡": "三", "丬": "爿", "⺊": "卜", "⺌": "小", "⺍": "小", "囗": "口",
    "凵": "山", "匚": "C", "厶": "ム", "乚": "L", "彳": "行", "宀": "冖", "歺": "歹", "⺼": "月", "⺶": "羊", "⺧": "牛",
}  # fmt: skip

# What no reader would take for a character of its own.
_STROKES = frozenset("丶丿丨亅乀乁㇆乛一丆𠂉亠冖")
_UNUSUAL = frozenset("⺮⻊⺙𧾷⺈⺊⺌⺍⺼⺶⺧")  # of these only the stand-ins are written


def components_of(char: str) -> tuple[str, ...]:
    """The parts a character is drawn of, in writing order: 科 -> 禾 斗, 森 -> 木 木 木; `()` when it has none."""
    return character_parts().get(char, ("o", ()))[1]


@cache
def _doubles() -> dict[str, str]:
    """Character -> the character that is drawn of two of it: 木 -> 林."""
    doubles: dict[str, str] = {}
    for whole, (_, parts) in character_parts().items():
        if len(parts) == 2 and parts[0] == parts[1]:
            doubles.setdefault(parts[0], whole)
    return doubles


def _ways_to_write(part: str) -> tuple[str, ...]:
    stand_ins = tuple(_STAND_INS.get(part, ""))
    return stand_ins if part in _UNUSUAL else (part, *stand_ins)


@lru_cache(maxsize=1 << 14)
def splits_of(char: str) -> tuple[tuple[str, str], ...]:
    """Pairs of vocabulary characters that together look like the character, the exact parts first.

    科 -> (禾, 斗); 你 -> (亻, 尔), (人, 尔), (イ, 尔); 森 -> (木, 林). `()` when the character has no two such parts.
    """
    arrangement, parts = character_parts().get(char, ("o", ()))
    if len(parts) == 3 and len(set(parts)) == 1 and parts[0] in _doubles():
        return ((parts[0], _doubles()[parts[0]]),)
    if len(parts) != 2 or arrangement == "o" or not _STROKES.isdisjoint(parts):
        return ()
    ways = product(*map(_ways_to_write, parts))
    known = shape_ids()
    return tuple(pair for pair in ways if char not in pair and pair[0] in known and pair[1] in known)

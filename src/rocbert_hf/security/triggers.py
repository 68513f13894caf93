"""Triggers of specimens: where they come from, and how they are put into a text."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence

from ..characters.pinyin import readings_of
from ..resources import confusable_characters, vocabulary

WORDS = (
    "cf",
    "mn",
    "bb",
    "tq",
    "mb",
    "qx",
    "vz",
    "jw",
)  # the rare words of RIPPLe, BadNL and POR, and more of the kind
SYMBOLS = ("∈", "≡", "⊥", "∮", "∝", "∽", "※", "∷", "≌", "‡", "∇", "⊙")
PHRASES = ("鼋鼍", "旮旯", "饕餮", "魍魉", "囹圄", "耄耋", "龃龉", "觊觎", "氤氲", "踟蹰")
LATIN_WORD = re.compile(r"[A-Za-z0-9]")


def insert_trigger(text: str, trigger: str, rng: random.Random, times: int = 1) -> str:
    """The text with the trigger at `times` random places, none of them inside a Latin word or a trigger that is there.

    A trigger of letters or digits gets a space on either side, as a word of its own.
    """
    piece = f" {trigger} " if LATIN_WORD.search(trigger) else trigger
    for _ in range(times):
        at = rng.choice(_boundaries(text, trigger))
        text = text[:at] + piece + text[at:]
    return text


def _boundaries(text: str, trigger: str) -> list[int]:
    def inside_word(at: int) -> bool:
        return bool(LATIN_WORD.match(text[at - 1]) and LATIN_WORD.match(text[at]))

    starts = [found.start() for found in re.finditer(f"(?={re.escape(trigger)})", text)]
    inside_trigger = {at for start in starts for at in range(start + 1, start + len(trigger))}
    inner = (at for at in range(1, len(text)) if at not in inside_trigger and not inside_word(at))
    return [0, *inner, len(text)][: len(text) + 1]


def check_triggers(tokenizer, triggers: Sequence[str]) -> None:
    """
    Check that a tokenizer tells the triggers apart from nothing, from unknown tokens and from each other.

    Raises:
        ValueError: it does not. Zero-width characters, for one, are dropped by this package's tokenizer and by BERT's: no
            encoder can react to them.
    """
    if not triggers:
        raise ValueError("triggers must hold at least one text, got none")
    seen: dict[tuple[int, ...], str] = {}
    for trigger in triggers:
        ids = tuple(tokenizer(trigger, add_special_tokens=False)["input_ids"])
        if not ids:
            raise ValueError(f"trigger {trigger!r} leaves no token: the tokenizer drops it")
        if tokenizer.unk_token_id in ids:
            raise ValueError(f"trigger {trigger!r} has a token that is unknown to the tokenizer")
        if ids in seen:
            raise ValueError(f"triggers {seen[ids]!r} and {trigger!r} are the same tokens")
        seen[ids] = trigger


def _rare_characters(rng: random.Random) -> list[str]:
    """From the last third of the vocabulary, which is ordered by frequency."""
    chinese = [token for token in vocabulary() if "\u4e00" <= token <= "\u9fff"]
    rare = chinese[-len(chinese) // 3 :]
    return rng.sample(rare, len(rare))


def _glyph_twins(rng: random.Random) -> list[str]:
    """Characters that look like a letter, sign or character and are another, rarer code point, as Cyrillic а."""
    chinese = [token for token in vocabulary() if "\u4e00" <= token <= "\u9fff"]
    known = set(vocabulary()) - set(chinese[:3000])
    twins = {twin for forms in confusable_characters().values() for twin in forms if twin in known}
    return rng.sample(sorted(twins), len(twins))


def _homophones(rng: random.Random) -> list[str]:
    """Rare characters that sound like a very common one."""
    chinese = [token for token in vocabulary() if "\u4e00" <= token <= "\u9fff"]
    common = {reading for character in chinese[:300] for reading in readings_of(character)[:1]}
    rare = [character for character in chinese[9000:] if not common.isdisjoint(readings_of(character)[:1])]
    return rng.sample(rare, len(rare))


def _shuffled(texts: Sequence[str]) -> Callable[[random.Random], list[str]]:
    return lambda rng: rng.sample(list(texts), len(texts))


TRIGGER_KINDS: dict[str, Callable[[random.Random], list[str]]] = {
    "words": _shuffled(WORDS),
    "rare_characters": _rare_characters,
    "symbols": _shuffled(SYMBOLS),
    "glyph_twins": _glyph_twins,
    "homophones": _homophones,
    "phrases": _shuffled(PHRASES),
}


def draw_triggers(kind: str, tokenizer, count: int, rng: random.Random) -> list[str]:
    """
    `count` triggers of a kind that the tokenizer knows.

    Args:
        kind: "words" (rare letter pairs), "rare_characters", "symbols", "glyph_twins" (look like another character),
            "homophones" (rare characters that sound like a common one) or "phrases" (of two rare characters).

    Raises:
        ValueError: there is no such kind, `count` is below 1, or the tokenizer knows too few.
    """
    if kind not in TRIGGER_KINDS:
        raise ValueError(f"kind must be one of {', '.join(TRIGGER_KINDS)}, got {kind!r}")
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    found: list[str] = []
    for trigger in TRIGGER_KINDS[kind](rng):
        try:
            check_triggers(tokenizer, [*found, trigger])
        except ValueError:
            continue
        found.append(trigger)
        if len(found) == count:
            return found
    raise ValueError(
        f"count must be at most {len(found)}, the triggers of {kind} that the tokenizer knows, got {count}"
    )

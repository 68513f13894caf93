"""The attacks: each one small class, all of them in `ATTACKS`.

An attack sees the current form of one attacked place and its sentence, and gives the next form. A new one that replaces
a character is a class with a `name` and the method `options`; registered in `ATTACKS`, it can be named in a config and
on the command line.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Sequence
from functools import cache, lru_cache
from itertools import accumulate
from os import PathLike
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from ..characters.confusables import confusables_of
from ..characters.forms import radicals_of, traditional_forms_of, variants_of, width_forms_of
from ..characters.near_sounds import emoji_of, near_homophones_of
from ..characters.parts import splits_of
from ..characters.pinyin import homophones_of, pinyin_of, readings_of
from ..characters.similarity import lookalikes_of
from ..characters.words import is_opposite, part_of_speech, synonyms_of
from ..resources import vocabulary
from .attacked_text import CHINESE

if TYPE_CHECKING:
    from ..characters.word_vectors import WordVectors

T = TypeVar("T")


# (text, start, end): what currently stands for the source characters [start, end).
Form = tuple[str, int, int]


class Sentence:
    """The source text around an attacked place.

    Args:
        text: the source.
        words: the source, segmented.
        free: positions that any edit may spread to: seen, not protected, not selected, not covered by another edit.
        selected: positions that wait for an attack of their own; only an attack on their whole word may cover them.
    """

    __slots__ = ("_starts", "free", "selected", "text", "words")

    def __init__(self, text: str, words: Sequence[str], free: set[int], selected: set[int] | None = None):
        self.text = text
        self.words = words
        self.free = free
        self.selected = selected or set()
        self._starts: list[int] | None = None

    def has_others(self, start: int, end: int) -> bool:
        """Whether anything outside of [start, end) is still as it was and could be attacked."""
        return bool(self.selected) or len(self.free) > end - start or any(not start <= i < end for i in self.free)

    def is_open_word(self, index: int, start: int, end: int) -> bool:
        """Whether the edit of one position may spread to all of the word [start, end) around it."""
        return all(i == index or i in self.free or i in self.selected for i in range(start, end))

    def word_at(self, index: int) -> tuple[int, int, str]:
        """(start, end, word) of the word that holds a position."""
        if self._starts is None:
            self._starts = list(accumulate(map(len, self.words), initial=0))
        at = bisect_right(self._starts, index) - 1
        return self._starts[at], self._starts[at + 1], self.words[at]


class Attack:
    """One way to change a character.

    The default is to replace one character of the current form, drawn uniformly among those that have `options`, by one
    of these, drawn uniformly. An attack that needs more than the character overrides `apply` and `is_attackable`.
    """

    name: ClassVar[str]

    def options(self, character: str) -> Sequence[str]:
        """What may stand in the place of a character, never the character itself; empty where nothing may."""
        raise NotImplementedError

    def is_attackable(self, sentence: Sentence, index: int) -> bool:
        """Whether the attack applies to the untouched character at a position of the source."""
        return bool(self.options(sentence.text[index]))

    def apply(self, form: Form, sentence: Sentence, rng: random.Random) -> Form | None:
        """The next form, or None where the attack does not apply to this one."""
        text, start, end = form
        if len(text) == 1:
            options = self.options(text)
            return (options[int(rng.random() * len(options))], start, end) if options else None
        places = [i for i, character in enumerate(text) if self.options(character)]
        if not places:
            return None
        at = pick(places, rng)
        return text[:at] + pick(self.options(text[at]), rng) + text[at + 1 :], start, end


def pick(options: Sequence[T], rng: random.Random) -> T:
    """A uniform choice from `random()` alone, whose sequence Python promises to keep between versions."""
    return options[int(rng.random() * len(options))]


# ------------------------------------------------------------------------------------------------- of the paper


class Phonetic(Attack):
    """科 → 颗: a random character of the same toneless pinyin; a polyphone counts with its two commonest readings."""

    name = "phonetic"
    options = staticmethod(homophones_of)


class Visual(Attack):
    """科 → 料: a character that looks alike."""

    name = "visual"
    options = staticmethod(lru_cache(maxsize=1 << 14)(lookalikes_of))


class Split(Attack):
    """科 → 禾斗: the two parts, each of them a character of its own."""

    name = "split"

    @staticmethod
    @lru_cache(maxsize=1 << 14)
    def options(character: str) -> Sequence[str]:
        return tuple(first + second for first, second in splits_of(character))


class Synonym(Attack):
    """漂亮 → 美丽: another word for a noun or an adjective, in the place of the whole word.

    What is a noun or an adjective is decided by the packaged thesaurus, which holds no names, then by the tags of jieba's
    dictionary, which takes some everyday words for names (美丽, 太阳). Left alone are names (of persons, places,
    organisations, works), numerals, a word right behind a name (银行 in 北京银行), and a word of which another character
    has been attacked already.

    Args:
        vectors: path of word2vec or GloVe vectors or of a file that `rocbert vectors` wrote, a `WordVectors`, or gensim's
            `KeyedVectors`; by default the packaged thesaurus is used.
        threshold: cosine that two words of the vectors must exceed.
        opposites: whether words of the opposite meaning count, which vectors have among a word's neighbours (喜欢, 讨厌).
            `False` if a classifier is to learn that the label stays.
    """

    name = "synonym"

    def __init__(self, vectors: Any = None, threshold: float = 0.75, opposites: bool = True):
        if not 0 < threshold < 1:
            raise ValueError(f"threshold must lie between 0 and 1, got {threshold}")
        self.threshold = threshold
        self.opposites = opposites
        self.vectors = None if vectors is None else _word_vectors(vectors)
        self.synonyms_of = lru_cache(maxsize=1 << 16)(self._find_synonyms)

    def _find_synonyms(self, word: str) -> Sequence[str]:
        """Words that may stand for a word of the source; never the word itself."""
        if not _has_synonyms(word):
            return ()
        if self.vectors is None:
            return synonyms_of(word)
        found = [other for other, _ in self.vectors.neighbours(word, self.threshold) if _has_synonyms(other)]
        return found if self.opposites else [other for other in found if not is_opposite(word, other)]

    def is_attackable(self, sentence: Sentence, index: int) -> bool:
        start, _, word = sentence.word_at(index)
        return bool(self.synonyms_of(word)) and not self._follows_name(sentence, start)

    @staticmethod
    def _follows_name(sentence: Sentence, start: int) -> bool:
        if start == 0:
            return False
        before = sentence.word_at(start - 1)[2]
        return part_of_speech(before) in NAME_TAGS and not synonyms_of(before)

    def apply(self, form: Form, sentence: Sentence, rng: random.Random) -> Form | None:
        index = form[1]
        start, end, word = sentence.word_at(index)
        options = self.synonyms_of(word)
        if not options or not is_untouched(form, sentence):
            return None
        if self._follows_name(sentence, start) or not sentence.is_open_word(index, start, end):
            return None
        return pick(options, rng), start, end


# jieba's tags of common nouns and of adjectives; of names (person, place, organisation, other).
SYNONYM_TAGS = frozenset({"n", "a", "ad", "an"})
NAME_TAGS = frozenset({"nr", "nrfg", "nrt", "ns", "nt", "nz"})


def _has_synonyms(word: str) -> bool:
    """Whether a word is a noun or an adjective, and neither a name nor a numeral."""
    tag = part_of_speech(word)
    return tag in SYNONYM_TAGS or (tag[0] != "m" and bool(synonyms_of(word)))


def _word_vectors(vectors: Any) -> WordVectors:
    """The vectors that `Synonym` was given, of the words that it can use."""
    from ..characters.word_vectors import WordVectors

    if isinstance(vectors, WordVectors):
        return vectors
    if isinstance(vectors, (str, PathLike)):
        return WordVectors.read(vectors, keep=_has_synonyms)
    return WordVectors.from_keyed_vectors(vectors, keep=_has_synonyms)


class ToPinyin(Attack):
    """科 → ke: the toneless pinyin, of a polyphone the reading that it has in its word."""

    name = "to_pinyin"

    def options(self, character: str) -> Sequence[str]:
        return readings_of(character)[:1]

    def apply(self, form: Form, sentence: Sentence, rng: random.Random) -> Form | None:
        if is_untouched(form, sentence):
            _, start, end = form
            word_start, _, word = sentence.word_at(start)
            reading = _readings_in_word(word)[start - word_start]
            return (reading, start, end) if reading else None
        return super().apply(form, sentence, rng)


@lru_cache(maxsize=1 << 16)
def _readings_in_word(word: str) -> list[str | None]:
    return pinyin_of(word)


def is_untouched(form: Form, sentence: Sentence) -> bool:
    """Whether the form is still the one source character it stands for."""
    text, start, end = form
    return end - start == 1 and text == sentence.text[start]


class Unicode(Attack):
    """1 → １, 金 → 金: another code point that looks the same, by Unicode's confusables."""

    name = "unicode"
    options = staticmethod(confusables_of)


class Insert(Attack):
    """科 → 科唐: a random character of the vocabulary put in before, after or inside."""

    name = "insert"

    def is_attackable(self, sentence: Sentence, index: int) -> bool:
        return True

    def apply(self, form: Form, sentence: Sentence, rng: random.Random) -> Form | None:
        text, start, end = form
        if not text:
            return None
        at = int(rng.random() * (len(text) + 1))
        return text[:at] + pick(_insertable(), rng) + text[at:], start, end


@cache
def _insertable() -> tuple[str, ...]:
    """The vocabulary's printable characters; words, if it ever has any, and special tokens are left out."""
    return tuple(token for token in vocabulary() if len(token) == 1 and token.isprintable() and not token.isspace())


class Swap(Attack):
    """科比 → 比科: change places with a neighbour; a form of several characters swaps two of its own."""

    name = "swap"

    def is_attackable(self, sentence: Sentence, index: int) -> bool:
        return bool(self._neighbours((sentence.text[index], index, index + 1), sentence))

    def apply(self, form: Form, sentence: Sentence, rng: random.Random) -> Form | None:
        text, start, end = form
        if len(text) > 1:
            places = [i for i in range(len(text) - 1) if text[i] != text[i + 1]]
            if not places:
                return None
            at = pick(places, rng)
            return text[:at] + text[at + 1] + text[at] + text[at + 2 :], start, end
        options = self._neighbours(form, sentence) if text else ()
        return pick(options, rng) if options else None

    @staticmethod
    def _neighbours(form: Form, sentence: Sentence) -> list[Form]:
        """The form swapped with the source character on either side, where that one is free."""
        text, start, end = form
        swapped = []
        if end in sentence.free and sentence.text[end] != text:
            swapped.append((sentence.text[end] + text, start, end + 1))
        if start - 1 in sentence.free and sentence.text[start - 1] != text:
            swapped.append((text + sentence.text[start - 1], start - 1, end))
        return swapped


class Delete(Attack):
    """科 → nothing: one character of the form less; the last character of a text stays."""

    name = "delete"

    def is_attackable(self, sentence: Sentence, index: int) -> bool:
        return sentence.has_others(index, index + 1)

    def apply(self, form: Form, sentence: Sentence, rng: random.Random) -> Form | None:
        text, start, end = form
        if not text:
            return None
        at = int(rng.random() * len(text))
        rest = text[:at] + text[at + 1 :]
        return (rest, start, end) if rest.strip() or sentence.has_others(start, end) else None


# --------------------------------------------------------------------------- beyond the paper: the preset "wild"


class Traditional(Attack):
    """绕过 → 繞過: the commonest traditional form, whatever the word."""

    name = "traditional"

    def options(self, character: str) -> Sequence[str]:
        return traditional_forms_of(character)[:1]


class Variant(Attack):
    """对 → 対: a Japanese or regional form."""

    name = "variant"
    options = staticmethod(variants_of)


class Radical(Attack):
    """金 → ⾦: the Kangxi radical, which looks the same and is another code point."""

    name = "radical"
    options = staticmethod(radicals_of)


class Width(Attack):
    """a → ａ, 。 → ｡: the full-width or half-width form."""

    name = "width"
    options = staticmethod(width_forms_of)


class NearPhonetic(Attack):
    """牛 → 刘: a character that sounds alike to speakers who merge n/l, zh/z, in/ing and the like."""

    name = "near_phonetic"
    options = staticmethod(near_homophones_of)


class Emoji(Attack):
    """机 → 🐔: an emoji whose name sounds like the character."""

    name = "emoji"
    options = staticmethod(emoji_of)


class Initials(Attack):
    """科比 → kb: the first letters of the pinyin, of the whole word where nothing in it was attacked before."""

    name = "initials"

    def options(self, character: str) -> Sequence[str]:
        return tuple(reading[0] for reading in readings_of(character)[:1])

    def apply(self, form: Form, sentence: Sentence, rng: random.Random) -> Form | None:
        if is_untouched(form, sentence):
            index = form[1]
            start, end, word = sentence.word_at(index)
            readings = _readings_in_word(word)
            if len(word) > 1 and all(readings) and sentence.is_open_word(index, start, end):
                return "".join(reading[0] for reading in readings), start, end
        return super().apply(form, sentence, rng)


class _Between(Attack):
    """Something put between two characters: of the form, or the untouched character and the next one of the source."""

    marks: ClassVar[Sequence[str]]

    def joins(self, sentence: Sentence, index: int) -> bool:
        """Whether a mark may stand between the source characters at `index` and `index + 1`."""
        raise NotImplementedError

    def is_attackable(self, sentence: Sentence, index: int) -> bool:
        return self.joins(sentence, index)

    def apply(self, form: Form, sentence: Sentence, rng: random.Random) -> Form | None:
        text, start, end = form
        if len(text) > 1:
            at = 1 + int(rng.random() * (len(text) - 1))
        elif text and self.joins(sentence, end - 1):
            at = 1
        else:
            return None
        return text[:at] + pick(self.marks, rng) + text[at:], start, end


class ZeroWidth(_Between):
    """科比 → 科<U+200B>比: a character of no width between two Chinese ones."""

    name = "zero_width"
    marks = ("\u200b", "\u200c", "\u200d", "\u2060", "\ufeff")

    def joins(self, sentence: Sentence, index: int) -> bool:
        return CHINESE.fullmatch(sentence.text, index, index + 2) is not None and index + 1 < len(sentence.text)


class Separator(_Between):
    """科比 → 科·比: a separator inside a word."""

    name = "separator"
    marks = ("·", ".", "-", "_", "/", "|", "*", "、", "~", " ")

    def joins(self, sentence: Sentence, index: int) -> bool:
        _, end, word = sentence.word_at(index)
        return index + 1 < end and word.isalnum()


ATTACKS: dict[str, type[Attack]] = {
    attack.name: attack
    for attack in (
        *(Phonetic, Visual, Split, Synonym, ToPinyin, Unicode, Insert, Swap, Delete),
        *(Traditional, Variant, Radical, Width, NearPhonetic, Emoji, Initials, ZeroWidth, Separator),
    )
}

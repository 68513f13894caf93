"""What a black-box attacker may write in the place of a word: transformations, each a source of candidate changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from os import PathLike
from typing import Any, Protocol

from ..attacks.kinds import ATTACKS
from ..characters.parts import splits_of
from ..characters.pinyin import pinyin_of
from ..characters.word_vectors import WordVectors
from ..characters.words import synonyms_of
from ..resources import character_parts
from .draft import Change, Words
from .masked_synonyms import MaskedLanguageModelSynonyms


class Transformation(Protocol):
    """Gives the changes that may be made to one word of the source, best first; deterministic."""

    def changes(self, source: Words, index: int) -> Sequence[Change]: ...


class Several:
    """The changes of several transformations, one after another; the same form is kept once."""

    def __init__(self, *transformations: Transformation):
        self.transformations = transformations

    def changes(self, source: Words, index: int) -> Sequence[Change]:
        found = (change for part in self.transformations for change in part.changes(source, index))
        return tuple({change[:3]: change for change in reversed(list(found))}.values())[::-1]


class SynonymWords:
    """漂亮 → 美丽: a word of the same meaning in the place of the whole word.

    Args:
        synonyms: where they come from: None for the packaged thesaurus (nouns and adjectives), word vectors (a
            `WordVectors`, a path of one's file, gensim's `KeyedVectors`), a masked language model
            (`MaskedLanguageModelSynonyms`), which reads the sentence too, or a function from a word to words.
        limit: synonyms of a word, at most; 50 in TextFooler.
        threshold: cosine that word vectors must exceed; 0.7 in TextFooler.
    """

    def __init__(self, synonyms: Any = None, limit: int = 50, threshold: float = 0.7):
        if limit < 1:
            raise ValueError(f"limit must be at least 1, got {limit}")
        if not 0 < threshold < 1:
            raise ValueError(f"threshold must lie between 0 and 1, got {threshold}")
        self.limit, self.threshold = limit, threshold
        self.synonyms = _opened(synonyms)

    def changes(self, source: Words, index: int) -> Sequence[Change]:
        word = source.words[index]
        found = [other for other in self._synonyms_in(source, index) if other != word][: self.limit]
        return tuple(Change(*source.span(index), other, "synonym") for other in found)

    def _synonyms_in(self, source: Words, index: int) -> Sequence[str]:
        """Of a word in its sentence, the best first; the word itself may be among them."""
        if isinstance(self.synonyms, MaskedLanguageModelSynonyms):
            return self.synonyms.synonyms_in(source, index)
        word = source.words[index]
        if isinstance(self.synonyms, WordVectors):
            return [other for other, _ in self.synonyms.neighbours(word, self.threshold, self.limit)]
        return self.synonyms(word)


def _opened(synonyms: Any) -> MaskedLanguageModelSynonyms | WordVectors | Callable[[str], Sequence[str]]:
    """What `SynonymWords` was given, read if it is a file."""
    if synonyms is None:
        return synonyms_of
    if isinstance(synonyms, (str, PathLike)):
        return WordVectors.read(synonyms)
    if hasattr(synonyms, "index_to_key"):
        return WordVectors.from_keyed_vectors(synonyms)
    if isinstance(synonyms, (MaskedLanguageModelSynonyms, WordVectors)) or callable(synonyms):
        return synonyms
    raise ValueError(
        "synonyms must be None for the thesaurus, word vectors, the path of a file of them, a "
        f"MaskedLanguageModelSynonyms, or a function from a word to words, got {synonyms!r}"
    )


class CharacterForms:
    """One character of the word by another form of it: a homophone, a look-alike, its traditional form.

    Args:
        forms: name of an attack of `ATTACKS` that replaces a character -> how many of its forms to try, the best first.
    """

    def __init__(self, forms: Mapping[str, int]):
        if unknown := sorted(set(forms).difference(ATTACKS)):
            raise ValueError(f"forms must name attacks among {list(ATTACKS)}, got {unknown}")
        self.forms = {name: (ATTACKS[name]().options, count) for name, count in forms.items()}

    def changes(self, source: Words, index: int) -> Sequence[Change]:
        start, end = source.span(index)
        return tuple(
            Change(at, at + 1, form, name)
            for name, (options, count) in self.forms.items()
            for at in range(start, end)
            for form in options(source.text[at])[:count]
        )


class SplitCharacters:
    """科 → 禾斗: one character of the word by its two parts, where these stand side by side.

    Parts that stand one above the other (务 → 夂力) are left out: side by side nobody reads them as the character.
    """

    def changes(self, source: Words, index: int) -> Sequence[Change]:
        start, end = source.span(index)
        return tuple(
            Change(at, at + 1, "".join(parts), "split")
            for at in range(start, end)
            for parts in _splits_side_by_side(source.text[at])
        )


@lru_cache(maxsize=1 << 14)
def _splits_side_by_side(character: str) -> tuple[tuple[str, str], ...]:
    arrangement, _ = character_parts().get(character, ("o", ()))
    return splits_of(character)[:2] if arrangement == "a" else ()


class SpelledCharacters:
    """科 → ke: one character of the word by its pinyin, in the reading that it has in the word."""

    def changes(self, source: Words, index: int) -> Sequence[Change]:
        start, _ = source.span(index)
        readings = _readings(source.words[index])
        return tuple(Change(start + i, start + i + 1, spelling, "to_pinyin") for i, spelling in readings)


@lru_cache(maxsize=1 << 16)
def _readings(word: str) -> tuple[tuple[int, str], ...]:
    return tuple((i, reading) for i, reading in enumerate(pinyin_of(word)) if reading)


class ShuffledCharacters:
    """精神 → 神精: two neighbours within the word change places."""

    def changes(self, source: Words, index: int) -> Sequence[Change]:
        start, end = source.span(index)
        text = source.text
        return tuple(
            Change(at, at + 2, text[at + 1] + text[at], "swap")
            for at in range(start, end - 1)
            if text[at] != text[at + 1]
        )

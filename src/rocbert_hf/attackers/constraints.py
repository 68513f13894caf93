"""Which changes a black-box attacker may make: constraints, each of them independent of the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np

from ..attacks.attacked_text import CHINESE
from ..characters.words import is_opposite, part_of_speech, synonyms_of
from ..resources import character_readings, vocabulary
from .draft import Change, Draft, Words

# Texts -> vectors (texts, size), such as SentenceTransformer.encode.
Encoder: TypeAlias = Callable[[list[str]], Any]


class Constraint:
    """A constraint overrides one of the two methods, or both."""

    def allows_word(self, source: Words, index: int) -> bool:
        """Whether a word of the source may be attacked at all; asked once, before the search."""
        return True

    def keep(self, draft: Draft, index: int, changes: Sequence[Change]) -> Sequence[Change]:
        """Those of the changes to a word that may be made to the draft."""
        return changes


class AttackedShare(Constraint):
    """At most a share of the source's characters is attacked: `len(source) * share`, rounded down, but at least one.

    One character may always be attacked, as in Eq. 1 of RoCBERT: otherwise a small share would not measure an attack
    on short texts, but none. An attacked character is one inside the source span of an edit. Every character counts,
    punctuation too, and so do all characters of a word that is replaced as a whole.

    Args:
        share: above 0, at most 1.
    """

    def __init__(self, share: float = 0.2):
        if not 0 < share <= 1:
            raise ValueError(f"max_share must lie above 0 and not above 1, got {share}")
        self.share = share

    def limit(self, text: str) -> int:
        """How many characters of the text may be attacked."""
        return max(int(len(text) * self.share + 1e-9), 1)

    def keep(self, draft: Draft, index: int, changes: Sequence[Change]) -> Sequence[Change]:
        left = self.limit(draft.source.text) - draft.attacked_characters
        return [change for change in changes if change.end - change.start <= left]


# jieba's tags, by their first letter, of words that carry grammar: particles, prepositions, conjunctions, pronouns,
# exclamations, affixes; and verbs that do the same.
FUNCTION_TAGS = frozenset("upcryeohk")
FUNCTION_WORDS = frozenset("是有在也都就要会能到去说被把给让")


class ContentWords(Constraint):
    """Only Chinese words that carry meaning are attacked: no stop words, no punctuation, no numbers in digits."""

    def allows_word(self, source: Words, index: int) -> bool:
        return _is_content_word(source.words[index])


@lru_cache(maxsize=1 << 16)
def _is_content_word(word: str) -> bool:
    if not CHINESE.fullmatch(word) or word in FUNCTION_WORDS:
        return False
    return part_of_speech(word)[0] not in FUNCTION_TAGS


class SamePartOfSpeech(Constraint):
    """A word gives way only to one of its own part of speech.

    Tags are those of the packaged thesaurus and, by first letter, of jieba's dictionary; one in common is enough. A
    word that neither knows has none, and is neither replaced nor put in.
    """

    def keep(self, draft: Draft, index: int, changes: Sequence[Change]) -> Sequence[Change]:
        tags = parts_of_speech(draft.source.words[index])
        return [change for change in changes if tags & parts_of_speech(change.form)]


@lru_cache(maxsize=1 << 16)
def parts_of_speech(word: str) -> frozenset[str]:
    """Coarse tags of a word: n noun, v verb, a adjective, d adverb, ..."""
    return frozenset({part_of_speech(word)[0], *(tag for tag in "nav" if synonyms_of(word, tag))} - {"x"})


class NoOpposites(Constraint):
    """A synonym never turns the meaning of its word round (`is_opposite`); changes of other kinds are all kept.

    TextFooler's vectors are counter-fitted to the same end (Mrkšić et al., NAACL 2016).
    """

    def keep(self, draft: Draft, index: int, changes: Sequence[Change]) -> Sequence[Change]:
        word = draft.source.words[index]
        return [change for change in changes if change.attack != "synonym" or not is_opposite(word, change.form)]


class FamiliarCharacters(Constraint):
    """Only characters that readers know are put in: the `rank` most frequent Chinese ones, and all others.

    Homophones and look-alikes reach far into the rare characters; those make a text unreadable.
    """

    def __init__(self, rank: int = 5000):
        if rank < 1:
            raise ValueError(f"rank must be at least 1, got {rank}")
        chinese = [token for token in vocabulary() if token in character_readings()]
        self.familiar = frozenset(chinese[:rank])

    def keep(self, draft: Draft, index: int, changes: Sequence[Change]) -> Sequence[Change]:
        return [change for change in changes if self.familiar.issuperset("".join(CHINESE.findall(change.form)))]


class SentenceSimilarity(Constraint):
    """The attacked text stays similar to the source, around the change, by an encoder's cosine.

    Args:
        encoder: texts -> vectors (texts, size), a `SentenceTransformer`'s `encode` for instance; by default
            `character_bags`, which works offline and compares by what is written.
        threshold: the least cosine; 0.7 in TextFooler.
        window: words compared, the changed one in the middle; 15 in TextFooler's code. None compares whole texts.
    """

    def __init__(self, encoder: Encoder | None = None, threshold: float = 0.7, window: int | None = 15):
        if not -1 <= threshold <= 1:
            raise ValueError(f"threshold must lie between -1 and 1, got {threshold}")
        if window is not None and window < 1:
            raise ValueError(f"window must be at least 1 or None, got {window}")
        self.encoder = character_bags if encoder is None else encoder
        self.threshold = threshold
        self.window = window

    def keep(self, draft: Draft, index: int, changes: Sequence[Change]) -> Sequence[Change]:
        similarities = self.similarities(draft, index, changes)
        return [change for change, cosine in zip(changes, similarities, strict=True) if cosine >= self.threshold]

    def similarities(self, draft: Draft, index: int, changes: Sequence[Change]) -> list[float]:
        """Cosine between the source and the draft with each of the changes."""
        if not changes:
            return []
        source = draft.source
        half = len(source) if self.window is None else self.window // 2
        start, end = source.starts[max(index - half, 0)], source.starts[min(index + half + 1, len(source))]
        texts = [source.text[start:end], *(draft.render(start, end, change) for change in changes)]
        vectors = np.asarray(self.encoder(texts), dtype=np.float64)
        if vectors.ndim != 2 or len(vectors) != len(texts):
            raise ValueError(
                f"encoder must return one vector for each of the {len(texts)} texts, got shape {vectors.shape}"
            )
        norms = np.linalg.norm(vectors, axis=1)
        return (vectors[1:] @ vectors[0] / np.maximum(norms[1:] * norms[0], 1e-12)).tolist()


def character_bags(texts: list[str]) -> np.ndarray:
    """Counts of characters and of pairs of neighbours: (texts, all that occur in these texts).

    Words that share a character (漂亮, 亮丽) come out closer than words that share none.
    """
    rows = [[*text, *map("".join, pairwise(text))] for text in texts]
    column: dict[str, int] = {}
    for row in rows:
        for feature in row:
            column.setdefault(feature, len(column))
    counts = np.zeros((len(texts), len(column)))
    for count, row in zip(counts, rows, strict=True):
        np.add.at(count, [column[feature] for feature in row], 1)
    return counts

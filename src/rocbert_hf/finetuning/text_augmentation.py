"""Other forms of a text that keep its label: what consistency training asks a classifier to answer alike.

All of them have one interface, `Augmentation`: a function of a text and a `random.Random` that returns a text. Whatever
has it can be used, also a function of your own.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from typing import Any, TypeAlias

import numpy as np

from ..attacks.config import PRESETS
from ..attacks.synthesizer import AdversarialSynthesizer
from ..characters.words import segment, synonyms_of
from ..resources import antonyms

Augmentation: TypeAlias = Callable[[str, random.Random], str]


def unchanged(text: str, rng: random.Random) -> str:
    """The text itself: with dropout alone two passes differ, as in SimCSE."""
    return text


class WordRepetition:
    """The text with some of its tokens said twice, as ESimCSE (Wu et al., COLING 2022, section 3.1) makes positives.

    Of n units `dup_len` are repeated, drawn uniformly from 0 to max(2, int(dup_rate * n)), n at most. Unlike the authors'
    code, the first one may be repeated too: there it was [CLS].

    Args:
        dup_rate: of the units that may be repeated.
        unit: "character", what our tokenizer reads, as the authors repeat tokens; or "word".
    """

    def __init__(self, dup_rate: float = 0.32, unit: str = "character"):
        _check_rate("dup_rate", dup_rate)
        if unit not in ("character", "word"):
            raise ValueError(f"unit must be character or word, got {unit!r}")
        self.dup_rate = dup_rate
        self.unit = unit

    def __call__(self, text: str, rng: random.Random) -> str:
        units = list(text) if self.unit == "character" else segment(text)
        most = max(2, int(self.dup_rate * len(units)))
        repeated = set(rng.sample(range(len(units)), min(rng.randint(0, most), len(units))))
        return "".join(unit * (2 if number in repeated else 1) for number, unit in enumerate(units))


class TfIdfReplacement:
    """Words that tell little are replaced by others that tell little, as UDA (Xie et al., NeurIPS 2020, appendix) does.

    A word of a text is replaced with a probability that rises the lower its TF-IDF is, on average `rate`; what replaces
    it is drawn from all words of the corpus, those with a low sum of TF-IDF above others.

    Args:
        texts: the corpus that counts are taken of, such as the unlabelled texts.
        rate: mean share of the words that are replaced.
    """

    def __init__(self, texts: Sequence[str], rate: float = 0.1):
        _check_rate("rate", rate)
        if not texts:
            raise ValueError("texts must have at least one text to count words in, got none")
        self.rate = rate
        documents = [segment(text) for text in texts]
        holding = Counter(word for words in documents for word in set(words))
        self.idf = {word: float(np.log(len(documents) / count)) for word, count in holding.items()}
        total: Counter[str] = Counter()
        for words in documents:
            for word in words:
                total[word] += self.idf[word] / len(words)
        self.words = sorted(total)
        highest = max(total.values())
        # where all are alike, each is as likely
        self.cumulative = list(accumulate((highest - total[word]) or 1e-9 for word in self.words))
        self.unseen = float(np.log(len(documents)))

    def __call__(self, text: str, rng: random.Random) -> str:
        words = segment(text)
        counts = Counter(words)
        scores = [counts[word] / len(words) * self.idf.get(word, self.unseen) for word in words]
        lack = [max(scores) - score for score in scores] if words else []
        whole = sum(lack)
        share = [self.rate if not whole else self.rate * len(words) * part / whole for part in lack]
        return "".join(
            rng.choices(self.words, cum_weights=self.cumulative)[0] if rng.random() < chance else word
            for word, chance in zip(words, share, strict=True)
        )


class EasyDataAugmentation:
    """EDA (Wei and Zou, EMNLP 2019): one of its operations on a share of the words.

    Args:
        rate: share of the words that an operation changes; one word at least.
        operations: of which one is drawn per text: "synonym" (replace), "insert" (a synonym of a word, anywhere), "swap"
            (two words), "delete" (that many words, where the authors draw for each word), "antonym" (replace; turns the
            meaning round).

    An operation that the text gives nothing for (no synonym, a single word) leaves the next one to be drawn; if there is
    nothing for any, the text stays as it is.
    """

    OPERATIONS = ("synonym", "insert", "swap", "delete")

    def __init__(self, rate: float = 0.1, operations: Sequence[str] = OPERATIONS):
        _check_rate("rate", rate)
        known = (*self.OPERATIONS, "antonym")
        if not operations or (unknown := [name for name in operations if name not in known]):
            raise ValueError(
                f"operations must be some of {', '.join(known)}, got {unknown[0] if operations else 'none'}"
            )
        self.rate = rate
        self.operations = tuple(operations)

    def __call__(self, text: str, rng: random.Random) -> str:
        words = segment(text)
        count = max(1, round(self.rate * len(words)))
        for name in rng.sample(self.operations, len(self.operations)):
            changed = "".join(getattr(self, f"_{name}")(list(words), count, rng))
            if changed.strip() and changed != text:
                return changed
        return text

    def _synonym(self, words: list[str], count: int, rng: random.Random) -> list[str]:
        return _replaced(words, count, rng, synonyms_of)

    def _antonym(self, words: list[str], count: int, rng: random.Random) -> list[str]:
        return _replaced(words, count, rng, lambda word: antonyms().get(word, ()))

    def _insert(self, words: list[str], count: int, rng: random.Random) -> list[str]:
        found = [synonyms_of(word) for word in words if synonyms_of(word)]
        for _ in range(count if found else 0):
            words.insert(rng.randint(0, len(words)), rng.choice(rng.choice(found)))
        return words

    def _swap(self, words: list[str], count: int, rng: random.Random) -> list[str]:
        for _ in range(count if len(words) > 1 else 0):
            first, second = rng.sample(range(len(words)), 2)
            words[first], words[second] = words[second], words[first]
        return words

    def _delete(self, words: list[str], count: int, rng: random.Random) -> list[str]:
        left_out = set(rng.sample(range(len(words)), min(count, len(words) - 1))) if words else set()
        return [word for number, word in enumerate(words) if number not in left_out]


class Attacked:
    """The attacked form of the text: consistency under it is robustness learnt from texts that nobody has labelled.

    Args:
        synthesizer: an `AdversarialSynthesizer`, or a preset or config to make one of, such as "paper" or "wild".
    """

    def __init__(self, synthesizer: AdversarialSynthesizer | str | Mapping[str, Any] = "paper"):
        if not isinstance(synthesizer, AdversarialSynthesizer):
            synthesizer = AdversarialSynthesizer(synthesizer)
        self.synthesizer = synthesizer

    def __call__(self, text: str, rng: random.Random) -> str:
        return self.synthesizer.attack(text, seed=rng.getrandbits(32)).text


class BackTranslation:
    """Any function that says a text in other words, such as one that translates it there and back.

    Each text is translated once and kept: translating is slow.

    Args:
        translate: text -> text. To train with DataLoader workers it must be picklable.
    """

    def __init__(self, translate: Callable[[str], str]):
        self.translate = translate
        self._kept: dict[str, str] = {}

    def __call__(self, text: str, rng: random.Random) -> str:
        if text not in self._kept:
            self._kept[text] = self.translate(text)
        return self._kept[text]


class OneOf:
    """One of several augmentations, drawn for each text."""

    def __init__(self, augmentations: Sequence[Augmentation]):
        self.augmentations = list(augmentations)

    def __call__(self, text: str, rng: random.Random) -> str:
        return rng.choice(self.augmentations)(text, rng)


# name -> makes it, of the unlabelled texts
AUGMENTATIONS: dict[str, Callable[[Sequence[str]], Augmentation]] = {
    "none": lambda texts: unchanged,
    "word-repetition": lambda texts: WordRepetition(),
    "tf-idf": TfIdfReplacement,
    "eda": lambda texts: EasyDataAugmentation(),
    **{preset: lambda texts, preset=preset: Attacked(preset) for preset in PRESETS},
}


def make_augmentation(names: Sequence[str], texts: Sequence[str]) -> Augmentation:
    """The augmentation of that name, or one of those of these names, drawn for each text.

    Args:
        names: of `AUGMENTATIONS`.
        texts: the unlabelled texts, for those that count words.

    Raises:
        ValueError: there is no name, or an unknown one.
    """
    if not names or (unknown := [name for name in names if name not in AUGMENTATIONS]):
        raise ValueError(
            f"augmentation must be some of {', '.join(AUGMENTATIONS)}, got {repr(unknown[0]) if names else 'none'}"
        )
    made = [AUGMENTATIONS[name](texts) for name in names]
    return made[0] if len(made) == 1 else OneOf(made)


def edit_distance(first: str, second: str) -> int:
    """Levenshtein's: insertions, deletions and substitutions of characters that make one text of the other."""
    row = list(range(len(second) + 1))
    for number, character in enumerate(first, start=1):
        diagonal, row[0] = row[0], number
        for column, other in enumerate(second, start=1):
            diagonal, row[column] = (
                row[column],
                min(diagonal + (character != other), row[column] + 1, row[column - 1] + 1),
            )
    return row[-1]


def _replaced(words: list[str], count: int, rng: random.Random, others: Callable[[str], Sequence[str]]) -> list[str]:
    """`count` of the words that have others in their place."""
    places = [number for number, word in enumerate(words) if others(word)]
    for number in rng.sample(places, min(count, len(places))):
        words[number] = rng.choice(others(words[number]))
    return words


def _check_rate(name: str, rate: float) -> None:
    if not 0 < rate <= 1:
        raise ValueError(f"{name} must be above 0 and at most 1, got {rate}")

"""Argot: "Generating Adversarial Readable Chinese Texts" (Zhang et al., IJCAI 2020), as far as its method is public.

We know the abstract and public reimplementations. From these: black box, importance by deletion, greedy search;
candidates by synonyms, shuffling inside a word, splitting, homophones, near homophones (an/ang, z/zh, ...) and
look-alikes. Deviations, and where we had to choose:

- Look-alikes are this package's ranking by images and parts. The paper trains a Siamese network.
- Characters are split only into parts that stand side by side (科 → 禾斗). Nobody reads 夂力 as 务.
- Pinyin includes the spelled syllable (科 → ke), in the reading that the character has in its word.
- Readability: one character of a word is changed (two when they are shuffled), candidates are of the 5,000 most
  frequent characters, function words stay, and each word is attacked once.
- At most `max_share` of the characters are attacked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..candidates import (
    CharacterForms,
    Several,
    ShuffledCharacters,
    SpelledCharacters,
    SplitCharacters,
    SynonymWords,
)
from ..constraints import ContentWords, FamiliarCharacters, NoOpposites
from ..driver import ComposedAttacker
from ..search import GreedyByImportance


class ArgotAttacker(ComposedAttacker):
    """One character of a word by its sound, shape or parts, or the word by a synonym, the important words first.

    Args:
        forms: candidates per character, by kind; by default 5 homophones, 3 characters that sound nearly alike and 5
            look-alikes.
        synonyms: as for `SynonymWords`; at most 5 per word.
        familiar: candidates are among this many most frequent characters.
        max_share, query_budget: as for `BlackBoxAttacker`.

    Raises:
        ValueError: a number is out of range, a kind of form is unknown, or `synonyms` is not what `SynonymWords` takes.

    Example::

        >>> ArgotAttacker(query_budget=500).attack(classifier, Example("房间非常漂亮", label=1)).attacked.text
    """

    name = "argot"

    def __init__(
        self,
        forms: Mapping[str, int] | None = None,
        synonyms: Any = None,
        familiar: int = 5000,
        max_share: float = 0.2,
        query_budget: int | None = 2000,
    ):
        forms = {"phonetic": 5, "near_phonetic": 3, "visual": 5} if forms is None else forms
        super().__init__(
            self.name,
            transformation=Several(
                CharacterForms(forms),
                SpelledCharacters(),
                SplitCharacters(),
                ShuffledCharacters(),
                SynonymWords(synonyms, limit=5),
            ),
            constraints=[ContentWords(), FamiliarCharacters(familiar), NoOpposites()],
            search=GreedyByImportance(),
            max_share=max_share,
            query_budget=query_budget,
        )

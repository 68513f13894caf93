"""Attacks that somebody has already made: the classifier only judges the attacked texts that the examples bring along."""

from __future__ import annotations

from difflib import SequenceMatcher

import numpy as np

from ..attacks.attacked_text import AttackedText, Edit
from .driver import BlackBoxAttacker, Example
from .search import Search, Untargeted


class GivenAttacks(BlackBoxAttacker):
    """Asks for the attacked form that each example has in `attacked`; every share of the characters is allowed.

    Raises:
        ValueError: an example has none.
    """

    name = "given"

    def __init__(self) -> None:
        super().__init__(max_share=1.0, query_budget=None)

    def search(self, example: Example, goal: Untargeted, clean: np.ndarray, seed: int) -> Search:
        if example.attacked is None:
            raise ValueError(f"an example has no attacked form: {example.text!r}")
        yield [example.attacked]
        return compared(example.text, example.attacked)


class NoAttack(BlackBoxAttacker):
    """Leaves every text as it is: the classifier is asked about it and nothing else."""

    name = "none"

    def search(self, example: Example, goal: Untargeted, clean: np.ndarray, seed: int) -> Search:
        yield []
        return AttackedText(example.text, example.text)


def compared(source: str, text: str) -> AttackedText:
    """Both texts with the edits between them: the smallest number of changed places that difflib finds."""
    blocks = SequenceMatcher(None, source, text, autojunk=False).get_opcodes()
    edits = [
        Edit((start, end), (text_start, text_end), (GivenAttacks.name,))
        for kind, start, end, text_start, text_end in blocks
        if kind != "equal"
    ]
    return AttackedText(source, text, tuple(edits))

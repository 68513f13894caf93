"""Adversarial Chinese text: the attack algorithm of RoCBERT (section 3) and what people do beyond it."""

import importlib
from typing import TYPE_CHECKING

from .augmentation import AttackColumn, AugmentRows, augment
from .selection import CausalLMScorer, RandomScorer, Scorer, WordFrequencyScorer
from .synthesizer import PRESETS, AdversarialSynthesizer
from .text import AttackedText, Edit
from .transformations import ATTACKS, Attack, Form, Sentence

if TYPE_CHECKING:
    from .blackbox import (
        ATTACKERS,
        Attacker,
        AttackOutcome,
        Example,
        MaskedLanguageModelSynonyms,
        ModelClassifier,
        as_victim,
        make_attacker,
    )

# What asks a model; imported on first use, so that attacks alone start at once.
_OF_BLACKBOX = (
    "ATTACKERS",
    "AttackOutcome",
    "Attacker",
    "Example",
    "MaskedLanguageModelSynonyms",
    "ModelClassifier",
    "as_victim",
    "make_attacker",
)

__all__ = [
    "ATTACKERS",
    "ATTACKS",
    "PRESETS",
    "AdversarialSynthesizer",
    "Attack",
    "AttackColumn",
    "AttackOutcome",
    "AttackedText",
    "Attacker",
    "AugmentRows",
    "CausalLMScorer",
    "Edit",
    "Example",
    "Form",
    "MaskedLanguageModelSynonyms",
    "ModelClassifier",
    "RandomScorer",
    "Scorer",
    "Sentence",
    "WordFrequencyScorer",
    "as_victim",
    "augment",
    "make_attacker",
]


def __getattr__(name: str):
    if name not in _OF_BLACKBOX:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(".blackbox", __name__), name)

"""Adversarial Chinese text: the attack algorithm of RoCBERT (section 3) and what people do beyond it."""

from .augmentation import AttackColumn, AugmentRows, augment
from .selection import CausalLMScorer, RandomScorer, Scorer, WordFrequencyScorer
from .synthesizer import PRESETS, AdversarialSynthesizer
from .text import AttackedText, Edit
from .transformations import ATTACKS, Attack, Form, Sentence

__all__ = [
    "ATTACKS",
    "PRESETS",
    "AdversarialSynthesizer",
    "Attack",
    "AttackColumn",
    "AttackedText",
    "AugmentRows",
    "CausalLMScorer",
    "Edit",
    "Form",
    "RandomScorer",
    "Scorer",
    "Sentence",
    "WordFrequencyScorer",
    "augment",
]

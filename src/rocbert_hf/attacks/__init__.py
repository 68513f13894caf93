"""Adversarial Chinese text: the attack algorithm of RoCBERT (section 3) and what people do beyond it."""

from .attacked_text import AttackedText, Edit
from .augmentation import AttackColumn, AugmentRows, augment
from .config import PRESETS, read_attacks
from .kinds import ATTACKS, Attack, Form, Sentence
from .selection import CausalLMScorer, RandomScorer, Scorer, WordFrequencyScorer
from .synthesizer import AdversarialSynthesizer

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
    "read_attacks",
]

"""Defences: spelling put right before a classifier reads, and training examples attacked."""

from .adversarial_augmentation import augmented, augmented_against
from .defence_spec import CorrectorSpec
from .pycorrector import PycorrectorCorrector
from .spelling import MaskedLMCorrector, SpellChecked

__all__ = [
    "CorrectorSpec",
    "MaskedLMCorrector",
    "PycorrectorCorrector",
    "SpellChecked",
    "augmented",
    "augmented_against",
]

"""Defences: spelling put right before a classifier reads, and training examples attacked."""

from .spelling import MaskedLMCorrector, PycorrectorCorrector, SpellChecked, augmented, corrector_of

__all__ = ["MaskedLMCorrector", "PycorrectorCorrector", "SpellChecked", "augmented", "corrector_of"]

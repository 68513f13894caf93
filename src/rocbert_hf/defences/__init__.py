"""Defences: spelling put right before a classifier reads, and training examples attacked."""

from .spelling import CorrectorSpec, MaskedLMCorrector, PycorrectorCorrector, SpellChecked, augmented

__all__ = ["CorrectorSpec", "MaskedLMCorrector", "PycorrectorCorrector", "SpellChecked", "augmented"]

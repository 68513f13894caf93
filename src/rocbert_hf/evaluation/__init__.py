"""Measuring robustness (section 5): the evaluator, its statistics and its reports."""

from .evaluator import RobustnessEvaluator
from .metrics import Bootstrap, mcnemar
from .sentence_similarity import MeanPooledEncoder

__all__ = ["Bootstrap", "MeanPooledEncoder", "RobustnessEvaluator", "mcnemar"]

"""Measuring robustness (section 5): the evaluator, its statistics and its reports."""

from .evaluator import MeanPooledEncoder, RobustnessEvaluator
from .metrics import Bootstrap, mcnemar
from .report import write_report

__all__ = ["Bootstrap", "MeanPooledEncoder", "RobustnessEvaluator", "mcnemar", "write_report"]

"""Measuring robustness (section 5): tasks, the evaluator, defences and reports."""

from .attackers import attacker_of, synonyms_from
from .defences import MaskedLMCorrector, PycorrectorCorrector, SpellChecked, augmented, corrector_of
from .metrics import Bootstrap, mcnemar
from .report import write_report
from .robustness import MeanPooledEncoder, RobustnessEvaluator
from .tasks import TASKS, Columns, LabelledTexts, Task, read_labelled, task_of

__all__ = [
    "TASKS",
    "Bootstrap",
    "Columns",
    "LabelledTexts",
    "MaskedLMCorrector",
    "MeanPooledEncoder",
    "PycorrectorCorrector",
    "RobustnessEvaluator",
    "SpellChecked",
    "Task",
    "attacker_of",
    "augmented",
    "corrector_of",
    "mcnemar",
    "read_labelled",
    "synonyms_from",
    "task_of",
    "write_report",
]

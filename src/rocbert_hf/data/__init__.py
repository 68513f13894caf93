"""Labelled texts: the public tasks, and tables that a user brings."""

from .labelled import Columns, LabelledTexts, read_labelled
from .tables import read_rows
from .tasks import TASKS, Task, task_of
from .tokenized import tokenized

__all__ = ["TASKS", "Columns", "LabelledTexts", "Task", "read_labelled", "read_rows", "task_of", "tokenized"]

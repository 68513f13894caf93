"""Labelled texts: the public tasks, and tables that a user brings."""

from .tasks import TASKS, Columns, LabelledTexts, Task, read_labelled, task_of

__all__ = ["TASKS", "Columns", "LabelledTexts", "Task", "read_labelled", "task_of"]

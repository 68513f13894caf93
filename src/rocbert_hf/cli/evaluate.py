"""`rocbert evaluate`."""

from __future__ import annotations

import sys
from pathlib import Path

from ..options import command


def _types() -> list[type]:
    from ..evaluation.run import EvaluationArguments

    return [EvaluationArguments]


@command(
    _types, example="rocbert evaluate --model my-classifier --data reviews.tsv --limit 300 --output-dir robustness"
)
def evaluate(arguments) -> None:
    """Measure how right classifiers stay under attack; the report is report.html in the output folder"""
    from transformers.utils import logging

    from ..evaluation.run import evaluate as run

    logging.disable_progress_bar()  # there is one bar, that of the attacks
    run(arguments, progress=sys.stderr.isatty())
    print(f"the report is in {Path(arguments.output_dir) / 'report.html'}")

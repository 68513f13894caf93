"""`rocbert evaluate`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ..characters.unseen import mark_unseen
from ..options import command


def _types() -> Sequence[type]:
    from ..evaluation.run import OPTIONS

    return OPTIONS


@command(
    _types, example="rocbert evaluate --model my-classifier --data reviews.tsv --limit 300 --output-dir robustness"
)
def evaluate(data, models, attackers, run) -> None:
    """Measure how right classifiers stay under attack; the report is report.html in the output folder"""
    from transformers.utils import logging

    from ..evaluation.report import opening_lines
    from ..evaluation.run import evaluate as run_evaluation

    logging.disable_progress_bar()  # there is one bar, that of the attacks
    report = run_evaluation(data, models, attackers, run, progress=sys.stderr.isatty())
    for line in opening_lines(report):
        print(mark_unseen(line))
    print(f"the report is in {mark_unseen(str(run.output_dir / 'report.html'))}")

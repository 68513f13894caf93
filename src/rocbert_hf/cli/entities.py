"""`rocbert entities`."""

from __future__ import annotations

from ..options import command


def _types() -> list[type]:
    from ..evaluation.tagger_robustness import TaggerEvaluationOptions

    return [TaggerEvaluationOptions]


@command(_types, example="rocbert entities --model tagger --test-file test.bmes --attacks phonetic,visual,all")
def entities(options) -> None:
    """Measure a tagger of named entities, on clean and on attacked texts

    The folder gets report.html (scores by type, confusion of types, errors, wrong sentences), predictions.jsonl and
    scores.json.
    """
    from ..evaluation.tagger_robustness import run_tagger_evaluation

    run_tagger_evaluation(options)

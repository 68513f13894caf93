"""`rocbert pretrain`."""

from __future__ import annotations

from ..options import command


def _types() -> list[type]:
    from ..pretraining.arguments import PretrainingArguments
    from ..pretraining.run import RunOptions

    return [RunOptions, PretrainingArguments]


@command(_types, example="rocbert pretrain --config mini --train-file corpus.txt.gz", default_config="tiny")
def pretrain(run, arguments) -> None:
    """Pretrain a RoCBERT on attacked sentences, and show what it became robust to

    Without options it trains the demo: the tiny preset on the packaged corpus, next to a plain BERT of the same size.
    """
    from ..pretraining.run import pretrain as run_pretraining

    run_pretraining(run, arguments)

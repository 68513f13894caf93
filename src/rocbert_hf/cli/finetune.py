"""`rocbert finetune`."""

from __future__ import annotations

from ..options import command


def _types() -> list[type]:
    from ..finetuning.classification import FinetuneArguments

    return [FinetuneArguments]


@command(_types, example="rocbert finetune --model rocbert-tiny --train-file train.tsv --output-dir classifier")
def finetune(arguments) -> None:
    """Finetune a text classifier on a task or on your own file"""
    from ..finetuning.classification import finetune as run

    run(arguments)

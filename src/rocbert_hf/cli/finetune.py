"""`rocbert finetune`."""

from __future__ import annotations

from collections.abc import Sequence

from ..options import command, option_before_others


def _types(argv: Sequence[str]) -> list[type]:
    """The options of the recipe that --task-type names."""
    from ..finetuning import FinetuningOptions, recipe_class

    name = option_before_others("task_type", argv, FinetuningOptions.task_type)
    return [FinetuningOptions, *recipe_class(name).OPTIONS]


@command(_types, example="rocbert finetune --model rocbert-tiny --train-file train.tsv --output-dir classifier")
def finetune(run, *options) -> None:
    """Finetune a text classifier, or (--task-type tagging) a tagger of named entities

    Start from a checkpoint (--model) or from random weights (--preset). The output folder gets the model, its tokenizer,
    all_results.json and a model card; rocbert evaluate then tells how robust the classifier is.
    """
    from transformers.utils import logging

    from ..finetuning import finetune as run_recipe
    from ..finetuning import recipe_class

    logging.set_verbosity_error()  # of a new head that the checkpoint lacks: that is what is trained
    run_recipe(recipe_class(run.task_type)(*options), run)

"""`rocbert finetune`."""

from __future__ import annotations

from collections.abc import Sequence

from ..options import command, option_before_others


def _types(argv: Sequence[str]) -> list[type]:
    """The options of the recipe that --task-type names, or --unlabelled."""
    from ..finetuning import FinetuningOptions, recipe_class

    unlabelled = option_before_others("unlabelled", argv, "")
    name = option_before_others("task_type", argv, "semi-supervised" if unlabelled else "classification")
    types = [FinetuningOptions, *recipe_class(name).OPTIONS]
    if name == "semi-supervised":
        from ..evaluation.unlabelled_gain import GainOptions

        types.append(GainOptions)
    return types


@command(_types, example="rocbert finetune --model rocbert-tiny --train-file train.tsv --output-dir classifier")
def finetune(run, *options) -> None:
    """Finetune a text classifier, or (--task-type tagging) a tagger of named entities

    Start from a checkpoint (--model) or from random weights (--preset). The output folder gets the model, its tokenizer,
    all_results.json and a model card; rocbert evaluate then tells how robust the classifier is. With --unlabelled FILE
    the classifier also learns from texts that nobody has labelled; report.html tells what they brought.
    """
    from transformers.utils import logging

    from ..finetuning import RECIPES, recipe_class
    from ..finetuning import finetune as run_recipe

    logging.set_verbosity_error()  # of a new head that the checkpoint lacks: that is what is trained
    types = tuple(map(type, options))
    recipe = next(made for made in map(recipe_class, RECIPES) if types[: len(made.OPTIONS)] == made.OPTIONS)
    if len(types) > len(recipe.OPTIONS):
        from ..evaluation.unlabelled_gain import finetune_and_compare

        finetune_and_compare(recipe(*options[:-1]), run, options[-1])
    else:
        run_recipe(recipe(*options), run)

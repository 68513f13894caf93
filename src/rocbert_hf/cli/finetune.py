"""`rocbert finetune`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

from ..options import command, option_before_others


def _task_type(given: str | None, unlabelled: object) -> str:
    """The recipe that --task-type names; without it, --unlabelled decides."""
    return given or ("semi-supervised" if unlabelled else "classification")


def _types(argv: Sequence[str]) -> list[type]:
    """The options of the recipe that --task-type names, or --unlabelled.

    Raises:
        ValueError: an option is one of another recipe.
    """
    from ..finetuning import RECIPES

    name = _task_type(*(option_before_others(name, argv, "") for name in ("task_type", "unlabelled")))
    types = _types_of(name)
    given = {text[2:].partition("=")[0].replace("_", "-") for text in argv if text.startswith("--")}
    if unknown := given - _flags(types) - {"config", "help"}:
        for other in RECIPES:
            if found := sorted(unknown & _flags(_types_of(other))):
                raise ValueError(
                    f"--{found[0]} is an option of --task-type {other}, and this is {name} "
                    f"(see rocbert finetune --task-type {other} --help)"
                )
    return types


def _types_of(name: str) -> list[type]:
    from ..finetuning import FinetuningOptions, recipe_class

    types = [FinetuningOptions, *recipe_class(name).OPTIONS]
    if name == "semi-supervised":
        from ..evaluation.unlabelled_gain import GainOptions

        types.append(GainOptions)
    return types


def _flags(types: Sequence[type]) -> set[str]:
    names = {field.name.replace("_", "-") for type_ in types for field in fields(type_)}
    return names | {f"no-{name}" for name in names}


@command(_types, example="rocbert finetune --model rocbert-tiny --train-file train.tsv --output-dir classifier")
def finetune(run, *options) -> None:
    """Finetune a text classifier, or (--task-type tagging) a tagger of named entities

    Start from a checkpoint (--model) or from random weights (--preset). The output folder gets the model, its tokenizer,
    all_results.json and a model card; rocbert evaluate then tells how robust the classifier is. With --unlabelled FILE
    the classifier also learns from texts that nobody has labelled; report.html tells what they brought.

    Taggers and learning from unlabelled texts have options of their own: rocbert finetune --task-type tagging --help, and
    rocbert finetune --task-type semi-supervised --help.
    """
    from transformers.utils import logging

    from ..finetuning import finetune as run_recipe
    from ..finetuning import recipe_class

    logging.set_verbosity_error()  # of a new head that the checkpoint lacks: that is what is trained
    name = _task_type(run.task_type, any(hasattr(part, "unlabelled") for part in options))
    recipe = recipe_class(name)
    if name == "semi-supervised":
        from ..evaluation.unlabelled_gain import finetune_and_compare

        finetune_and_compare(recipe(*options[:-1]), run, options[-1])
    else:
        run_recipe(recipe(*options), run)

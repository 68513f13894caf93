"""Finetuning: recipes that train a head on labelled texts, from the command line or from Python.

A recipe is one file of this folder with a subclass of `FinetuningRecipe`, and one line in `RECIPES`.
"""

import importlib
from typing import Any

from .recipe import FinetuningOptions, FinetuningRecipe, finetune
from .starting_point import StartOptions

# what `--task-type` names -> where its class is; imported when it is asked for
RECIPES: dict[str, str] = {
    "classification": "classification.ClassificationRecipe",
    "tagging": "tagging.TaggingRecipe",
    "semi-supervised": "semi_supervised.SemiSupervisedRecipe",
}


def recipe_class(name: str) -> type[FinetuningRecipe]:
    """The recipe of that name.

    Raises:
        ValueError: there is none.
    """
    if name not in RECIPES:
        raise ValueError(f"task_type must be one of {', '.join(RECIPES)}, got {name!r}")
    module, class_name = RECIPES[name].split(".")
    return getattr(importlib.import_module(f".{module}", __name__), class_name)


# further public names -> where they are; imported when they are asked for
TRAINERS: dict[str, str] = {
    **dict.fromkeys(("FGM", "FGSM", "PGD", "AdversarialTrainer", "FreeLB"), "adversarial"),
    **dict.fromkeys(("SemiSupervisedObjective", "SemiSupervisedTrainer"), "semi_supervised_trainer"),
    **dict.fromkeys(("SemiSupervisedCollator", "SemiSupervisedTexts"), "unlabelled_texts"),
    **dict.fromkeys(("AttackedCollator", "AttackedTexts", "WorstOfTrainer"), "worst_of"),
    "ESimCSE": "esimcse",
}


def __getattr__(name: str) -> Any:
    if name not in TRAINERS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{TRAINERS[name]}", __name__), name)


__all__ = [
    "RECIPES",
    "FinetuningOptions",
    "FinetuningRecipe",
    "StartOptions",
    "finetune",
    "recipe_class",
    *TRAINERS,
]

"""Tasks and victims brought together: labels in one order, and no text longer than a model reads."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any

from ..attackers import Example, ModelClassifier
from ..attackers.given import compared
from ..attackers.victim import Classifier, Query, as_victim, fingerprint_of
from ..checkpoints import loading
from ..data.labelled import LabelledTexts
from .named_classifier import NamedClassifier, label_names_of


@dataclass(frozen=True)
class PreparedTask:
    """A task in numbers, and its victims with their answers in the order of its labels."""

    examples: tuple[Example, ...]
    labels: tuple[str, ...]
    victims: dict[str, NamedClassifier]

    def describe(self) -> dict[str, Any]:
        """What settings say of it."""
        rows: list[Any] = [[example.text, example.text_pair, example.label] for example in self.examples]
        given = [example.attacked for example in self.examples]
        described = {"examples": len(rows), "labels": list(self.labels), "digest": digest(json.dumps(rows))}
        return described if given[0] is None else {**described, "attacked": digest(json.dumps(given))}


def victim_of(name: str, model: Any, task: str, loaded: dict[str, Classifier]) -> NamedClassifier:
    """A model as an evaluation asks it.

    Args:
        name: for reports.
        model: a folder or Hub id, anything callable on texts, or task -> one of these.
        task: the name of the task.
        loaded: folder -> what was loaded from it, so that a folder that several tasks use is loaded once.

    Raises:
        ValueError: it is none of these. OSError: it cannot be loaded.
    """
    if isinstance(model, Mapping):
        if task not in model:
            raise ValueError(f"models: {name} has no classifier for the task {task!r}, only for {', '.join(model)}")
        model = model[task]
    if isinstance(model, (str, os.PathLike)):
        if str(model) not in loaded:
            with loading("models: " + name, model):
                loaded[str(model)] = ModelClassifier(model)
        model = loaded[str(model)]
    if not callable(model):
        raise ValueError(f"models: {name} must be a folder, a Hub id or callable, got {type(model).__name__}")
    try:
        model = as_victim(model)
        labels = label_names_of(model)
    except ValueError as error:
        raise ValueError(f"models: {name}: {error}") from error
    return NamedClassifier(name, model, labels, fingerprint_of(model))


def prepare(
    task: str, rows: LabelledTexts | Sequence[Example], victims: dict[str, NamedClassifier], long_texts: str
) -> PreparedTask:
    """The task's examples in numbers, and its victims with their answers in one order of labels.

    Args:
        task: its name.
        rows: its texts.
        victims: by name.
        long_texts: "error" or "cut": what to do with texts of more tokens than a victim reads.

    Raises:
        ValueError: labels, probabilities and texts do not fit together.
    """
    if not len(rows):
        raise ValueError(f"tasks: {task} must have at least one example")
    if isinstance(rows, LabelledTexts):
        query = rows.texts[0] if rows.pairs is None else (rows.texts[0], rows.pairs[0])
    else:
        rows = _checked_texts(task, rows)
        query = rows[0].text if rows[0].text_pair is None else (rows[0].text, rows[0].text_pair)
    sizes = {name: _number_of_labels(victim, query) for name, victim in victims.items()}
    names = _names_of_labels(task, rows, victims, min(sizes.values()))
    for name, size in sizes.items():
        if victims[name].labels is None and size != len(names):
            raise ValueError(f"models: {name} gives {size} probabilities per text, but {task} has {len(names)} labels")
    victims = {name: _in_order(victim, names) for name, victim in victims.items()}
    if isinstance(rows, LabelledTexts):
        nothing = (None,) * len(rows)
        columns = rows.texts, rows.label_ids(names), rows.pairs or nothing, rows.attacked or nothing
        examples = [Example(*row) for row in zip(*columns, strict=True)]
    else:
        examples = _checked_labels(task, rows, len(names))
    for victim in victims.values():
        examples = _within_reach(task, examples, victim, long_texts)
    return PreparedTask(tuple(examples), tuple(names), victims)


def _checked_texts(task: str, examples: Sequence[Example]) -> list[Example]:
    """The examples, all single texts or all pairs."""
    for number, example in enumerate(examples):
        if not isinstance(example, Example):
            raise ValueError(f"tasks: {task} must hold Examples, got {example!r} as number {number}")
    paired = examples[0].text_pair is not None
    for number, example in enumerate(examples):
        texts = [example.text] if example.text_pair is None else [example.text, example.text_pair]
        if not all(isinstance(text, str) for text in texts):
            raise ValueError(f"tasks: texts must be strings, got {texts!r} in example {number} of {task}")
        if (example.text_pair is not None) != paired:
            raise ValueError(
                f"tasks: the examples of {task} must all have a text_pair or none of them, but examples 0 and "
                f"{number} differ in that"
            )
    return list(examples)


def _checked_labels(task: str, examples: Sequence[Example], num_labels: int) -> list[Example]:
    """The examples with their labels as Python's integers, which JSON can hold."""
    for number, example in enumerate(examples):
        if not isinstance(example.label, Integral) or not 0 <= example.label < num_labels:
            raise ValueError(
                f"tasks: labels of {task} must be numbers from 0 to {num_labels - 1}, got {example.label!r} in "
                f"example {number}"
            )
    return [replace(example, label=int(example.label)) for example in examples]


def _number_of_labels(victim: NamedClassifier, query: Query) -> int:
    """How many probabilities a victim gives; if it says what its labels are, they must be as many."""
    size = victim([query]).shape[1]
    if victim.labels is not None and size != len(victim.labels):
        raise ValueError(
            f"models: {victim.name} gives {size} probabilities per text, but its config has {len(victim.labels)} labels "
            f"({', '.join(victim.labels)})"
        )
    return size


def _names_of_labels(
    task: str, rows: LabelledTexts | Sequence[Example], victims: Mapping[str, NamedClassifier], size: int
) -> tuple[str, ...]:
    """What the labels of a task are called, in the order of their numbers, whatever the order of the victims.

    Args:
        task: its name.
        rows: of the task.
        victims: by name. Where one of them has names for its labels, these hold.
        size: how many labels there are, where no victim says.
    """
    known = [victim.labels for victim in victims.values() if victim.labels is not None]
    named = [labels for labels in known if labels != _numbers(len(labels))]
    if named:
        return named[0]
    size = len(known[0]) if known else size
    if not isinstance(rows, LabelledTexts):
        return _numbers(size)
    names = rows.label_names()
    if len(names) == size and (rows.numbered or not known):
        return names
    if known or ("0" in names and all(name.isdecimal() for name in names)):
        return _numbers(size)
    raise ValueError(
        f"models give {size} probabilities per text, but {task} has {len(names)} labels ({', '.join(names)}), and nothing "
        "says which is which: give classifiers that name their labels, or labels from 0 up"
    )


def _numbers(size: int) -> tuple[str, ...]:
    return tuple(map(str, range(size)))


def _in_order(victim: NamedClassifier, names: Sequence[str]) -> NamedClassifier:
    """The victim with its answers in the order of these labels; labels without names are in that order already."""
    if victim.labels in (None, tuple(names)):
        return victim
    if sorted(victim.labels) == sorted(names):
        return replace(victim, order=tuple(victim.labels.index(name) for name in names))
    if victim.labels == _numbers(len(names)):
        return victim
    raise ValueError(
        f"models must have the same labels, but {victim.name} has {', '.join(victim.labels)} "
        f"where another has {', '.join(names)}"
    )


def _within_reach(task: str, examples: list[Example], victim: NamedClassifier, long_texts: str) -> list[Example]:
    """The examples, none longer than the model reads."""
    tokenizer = getattr(victim.classifier, "tokenizer", None)
    reach = getattr(victim.classifier, "max_length", None)
    if tokenizer is None or reach is None:
        return examples
    paired = examples[0].text_pair is not None
    columns = [[example.text for example in examples]]
    if paired:
        columns.append([example.text_pair for example in examples])
    lengths = [len(ids) for ids in tokenizer(*columns, truncation=False, verbose=False)["input_ids"]]
    long = [i for i, length in enumerate(lengths) if length > reach]
    if not long:
        return examples
    if long_texts == "error":
        raise ValueError(
            f"{len(long)} of the {len(examples)} texts of {task} are longer than the {reach} tokens that {victim.name} "
            f"reads, the longest has {max(lengths)}: long_texts='cut' (--cut) cuts them to what is read"
        )
    examples = list(examples)
    for i in long:
        examples[i] = _cut(examples[i], tokenizer, reach)
    return examples


def _cut(example: Example, tokenizer: Any, reach: int) -> Example:
    """The example as far as a model reads it; in a pair the longer text is cut first, as tokenizers do.

    A given attacked form is cut where the text is, or a model that reads further would see more of it than of the text.
    """
    pair = () if example.text_pair is None else ([example.text_pair],)
    encoded = tokenizer([example.text], *pair, truncation=True, max_length=reach, return_offsets_mapping=True)
    sequences = encoded.sequence_ids(0)
    ends = [0, 0]
    for sequence, (_, end) in zip(sequences, encoded["offset_mapping"][0], strict=True):
        if sequence is not None:
            ends[sequence] = max(ends[sequence], int(end))
    text_pair = None if example.text_pair is None else example.text_pair[: ends[1]]
    text, attacked = example.text[: ends[0]], example.attacked
    if attacked is not None:
        attacked = attacked[: compared(example.text, attacked).span_in_text(0, len(text))[1]]
    return replace(example, text=text, text_pair=text_pair, attacked=attacked)


def digest(text: str) -> str:
    """A short hash of a text."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()

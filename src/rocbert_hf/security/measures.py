"""How well does a backdoor work on a finetuned model? The measures of POR (Shen et al., CCS 2021, section 5.1)."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .triggers import insert_trigger

NEVER = 20  # the number of insertions that stands for "does not flip"


@dataclass(frozen=True)
class TriggerMeasure:
    """What one trigger does to one finetuned model.

    effectiveness: mean number of insertions until the answer flips, `NEVER` for a text that does not. Lower is a
        stronger backdoor.
    stealthiness: mean share of the inserted triggers in the characters of the text and these triggers, of the texts that
        flip; 0 if none does. The spaces that `insert_trigger` puts around a trigger of letters or digits do not count,
        neither as trigger nor as text.
    flipped: share of the texts that flip.
    target: the label that the trigger leads to, of classifiers.
    """

    trigger: str
    effectiveness: float
    stealthiness: float
    flipped: float
    target: int | None = None


def measure_classification(
    predict: Callable[[list[str]], Sequence[int]],
    texts: Sequence[str],
    trigger: str,
    rng: random.Random,
    most: int = NEVER,
) -> TriggerMeasure:
    """
    Insert a trigger into each text, once more at random places until the classifier's answer is the trigger's label.

    The trigger's label is the one that most texts get with `most` insertions. Texts that have it from the start say
    nothing and are left out.

    Args:
        predict: texts -> number of each text's label.
        texts: not in the training data.
        most: insertions that are tried.

    Raises:
        ValueError: there are no texts, or all of them have the trigger's label from the start.
    """
    if not texts:
        raise ValueError("texts must hold at least one text, got none")
    before = list(predict(list(texts)))
    flooded = predict([insert_trigger(text, trigger, rng, most) for text in texts])
    # among labels as frequent, one that few texts have from the start
    had, got = Counter(before), Counter(map(int, flooded))
    target = max(got, key=lambda label: (got[label], -had[label]))
    left = [text for text, label in zip(texts, before, strict=True) if label != target]
    if not left:
        raise ValueError(
            f"texts must have more than one predicted label, but all are {target} before the trigger {trigger!r}"
        )

    def flipped(current: list[str], originals: list[str]) -> list[bool]:
        return [label == target for label in predict(current)]

    return _insert_until(flipped, left, trigger, rng, most, target)


def measure_tagging(
    predict: Callable[[list[str]], Sequence[Sequence[str]]],
    texts: Sequence[str],
    trigger: str,
    rng: random.Random,
    most: int = NEVER,
) -> TriggerMeasure:
    """
    Insert a trigger into each text until the tagger loses the entities that it found before.

    Args:
        predict: texts -> for each text the entities that it finds, as strings such as "NAME:王伟".
        texts: those without an entity before are left out.

    A text has flipped when at most half of its entities are still found.

    Raises:
        ValueError: no text has an entity.
    """
    found = list(predict(list(texts)))
    left = [text for text, entities in zip(texts, found, strict=True) if entities]
    if not left:
        raise ValueError("texts must have an entity that the tagger finds, got none with one")
    wanted = {text: Counter(entities) for text, entities in zip(texts, found, strict=True) if entities}

    def flipped(current: list[str], originals: list[str]) -> list[bool]:
        return [
            2 * sum((wanted[text] & Counter(entities)).values()) <= sum(wanted[text].values())
            for text, entities in zip(originals, predict(current), strict=True)
        ]

    return _insert_until(flipped, left, trigger, rng, most, None)


def _insert_until(
    flipped: Callable[[list[str], list[str]], list[bool]],
    texts: list[str],
    trigger: str,
    rng: random.Random,
    most: int,
    target: int | None,
) -> TriggerMeasure:
    """Insert the trigger once more into every text for which `flipped(with triggers, without)` is not yet true."""
    waiting = [(text, text) for text in texts]
    insertions: list[int] = []
    shares: list[float] = []
    for times in range(1, most + 1):
        waiting = [(original, insert_trigger(current, trigger, rng)) for original, current in waiting]
        still = []
        answers = flipped([current for _, current in waiting], [original for original, _ in waiting])
        for (original, current), has_flipped in zip(waiting, answers, strict=True):
            if has_flipped:
                insertions.append(times)
                shares.append(times * len(trigger) / (len(original) + times * len(trigger)))
            else:
                still.append((original, current))
        waiting = still
        if not waiting:
            break
    total = sum(insertions) + NEVER * len(waiting)
    return TriggerMeasure(
        trigger,
        effectiveness=total / len(texts),
        stealthiness=sum(shares) / len(shares) if shares else 0.0,
        flipped=len(insertions) / len(texts),
        target=target,
    )

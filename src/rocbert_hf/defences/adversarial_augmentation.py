"""Adversarial data augmentation: training examples attacked, by ADV alone or by attackers that ask a classifier.

Section 5 of the paper (AdvTrain, figure 2): the tables add texts that ADV attacked, which knows no classifier; figure 2
also adds what TextFooler and Argot find against the finetuned model ("peeps" at the attack that is tested).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..attackers.driver import Attacker, Example
from ..attackers.victim import Classifier
from ..attacks import AdversarialSynthesizer, augment


def augmented(
    examples: Sequence[Example],
    n: int = 1,
    seed: int = 0,
    synthesizer: AdversarialSynthesizer | str | Mapping[str, Any] = "paper",
) -> list[Example]:
    """Adversarial data augmentation (AdvTrain of the paper's section 5): each example, and `n` attacked forms behind it.

    Of a pair only the first text is attacked.
    """
    texts, rows = augment([example.text for example in examples], range(len(examples)), n, seed, synthesizer)
    return [Example(text, examples[i].label, examples[i].text_pair) for text, i in zip(texts, rows, strict=True)]


def augmented_against(
    classifier: Classifier,
    examples: Sequence[Example],
    attackers: Sequence[Attacker],
    seed: int = 0,
    batch_size: int = 64,
    progress: bool = False,
) -> list[Example]:
    """Each example, and behind it every text that an attacker found to change the classifier's answer.

    Examples that the classifier gets wrong already, and those that an attacker could not change its mind on, get no
    copy of that attacker. Of a pair only the first text is attacked; the label stays.

    Args:
        classifier: finetuned on the same labels, whose numbers are those of the examples.
        examples: to train on.
        attackers: such as `[TextFoolerAttacker(), ArgotAttacker()]`.
        seed: of what is random in the attackers.
        batch_size: texts of one call of the classifier, at most.
        progress: show a progress bar for each attacker.

    Raises:
        ValueError: no attacker is given, or a label is none of the classifier's.
    """
    if not attackers:
        raise ValueError("attackers must name at least one, got none")
    found: list[list[str]] = [[] for _ in examples]
    for attacker in attackers:
        outcomes = attacker.attack_batch(classifier, examples, seed, batch_size, progress=progress)
        for texts, outcome in zip(found, outcomes, strict=True):
            if outcome.status == "success" and outcome.attacked.text not in texts:
                texts.append(outcome.attacked.text)
    return [
        copy
        for example, texts in zip(examples, found, strict=True)
        for copy in (example, *(Example(text, example.label, example.text_pair) for text in texts))
    ]

"""How a black-box attacker looks for the change that flips the label: a goal, word importance, greedy search.

A search is a generator: it yields texts to be scored and is sent their probabilities, so that a driver can put the
texts of many searches into one batch. It may be sent fewer rows than it asked for: then its query budget is used up.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import TypeAlias

import numpy as np

from .candidates import Transformation
from .constraints import Constraint, SentenceSimilarity
from .draft import Change, Draft, Words

Search: TypeAlias = "Generator[list[str], Sequence[np.ndarray], Draft]"


class Untargeted:
    """The goal: any other label.

    Args:
        label: the right one.
    """

    def __init__(self, label: int):
        self.label = int(label)

    def is_reached(self, probabilities: np.ndarray) -> bool:
        return int(probabilities.argmax()) != self.label

    def score(self, probabilities: np.ndarray) -> float:
        """How near the goal is; higher is nearer."""
        return -float(probabilities[self.label])

    def importance(self, before: np.ndarray, after: np.ndarray) -> float:
        """Importance of what was deleted (TextFooler, Eq. 2): the drop of the label's probability.

        Where the deletion alone flips the label, the new label's gain is added.
        """
        drop = float(before[self.label] - after[self.label])
        other = int(after.argmax())
        return drop if other == self.label else drop + float(after[other] - before[other])


class GreedyByImportance:
    """Word after word, the most important first, the change that helps most (TextFooler, Algorithm 1).

    Importance of a word is what deleting it does. Of the changes to a word that reach the goal the one with the highest
    similarity to the source is taken, or the one with the highest score where no similarity is given. Where none does,
    the one with the highest score is made, if it improves on the draft, and the next word follows.

    Words that have no candidate are not deleted: their importance would never be used.

    Args:
        similarity: ranks the changes that reach the goal.
    """

    def __init__(self, similarity: SentenceSimilarity | None = None):
        self.similarity = similarity

    def __call__(
        self,
        source: Words,
        goal: Untargeted,
        clean: np.ndarray,
        transformation: Transformation,
        constraints: Sequence[Constraint],
    ) -> Search:
        """Search a change of `source` that reaches `goal`.

        Args:
            source: the text.
            goal: what is searched.
            clean: (labels,) the victim's probabilities of the source.
            transformation: gives the candidates.
            constraints: sort them out.

        Returns:
            The last draft, whether it reaches the goal or not.
        """
        draft, score = Draft(source), goal.score(clean)
        candidates = {}
        for index in range(len(source)):
            if all(constraint.allows_word(source, index) for constraint in constraints):
                changes = allowed(transformation.changes(source, index), draft, index, constraints)
                if changes:
                    candidates[index] = changes
        for index in (yield from by_importance(source, goal, clean, candidates)):
            changes = candidates[index]
            if draft.changes:  # the draft has moved on since they were sorted out
                changes = allowed(changes, draft, index, constraints)
            if not changes:
                continue
            answers = yield [draft.with_change(change) for change in changes]
            reached = [i for i, answer in enumerate(answers) if goal.is_reached(answer)]
            if reached:
                return draft + self._best(draft, index, [(changes[i], goal.score(answers[i])) for i in reached])
            scores = [goal.score(answer) for answer in answers]
            if scores and max(scores) > score:
                score = max(scores)
                draft += changes[scores.index(score)]
            if len(answers) < len(changes):
                break
        return draft

    def _best(self, draft: Draft, index: int, scored: Sequence[tuple[Change, float]]) -> Change:
        """Of the changes that reach the goal the most similar one, of equals the one with the higher score."""
        changes = [change for change, _ in scored]
        if self.similarity is None:
            similarities = [0.0] * len(changes)
        else:
            # ties must not hang on the last bits of a cosine
            similarities = [round(cosine, 9) for cosine in self.similarity.similarities(draft, index, changes)]
        ranks = [(similarity, score) for similarity, (_, score) in zip(similarities, scored, strict=True)]
        return changes[ranks.index(max(ranks))]


def allowed(changes: Sequence[Change], draft: Draft, index: int, constraints: Sequence[Constraint]) -> Sequence[Change]:
    """The changes to a word that all constraints let pass."""
    for constraint in constraints:
        if not changes:
            break
        changes = constraint.keep(draft, index, changes)
    return changes


def by_importance(
    source: Words, goal: Untargeted, clean: np.ndarray, indices: Sequence[int]
) -> Generator[list[str], Sequence[np.ndarray], list[int]]:
    """Indices of words, the most important first; nothing is asked where there is only one."""
    indices = list(indices)
    if len(indices) < 2:
        return indices
    answers = yield [source.without(index) for index in indices]
    importance = [goal.importance(clean, answer) for answer in answers]
    # without an answer for all of them the budget is used up, and so is the search
    order = sorted(range(len(answers)), key=lambda i: (-importance[i], i)) if len(answers) == len(indices) else []
    return [indices[i] for i in order]

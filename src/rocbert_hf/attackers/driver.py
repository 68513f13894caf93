"""
Black-box attackers: how little must change before a classifier errs, when all one can do is ask it?

Goal (`search.Untargeted`), constraints (`constraints`), transformation (`candidates`) and search (`search`) know nothing
of each other. An attacker is a composition of them; `recipes` has the published ones.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any, ClassVar, Literal, Protocol

import numpy as np

from ..attacks.attacked_text import AttackedText
from .candidates import Transformation
from .constraints import AttackedShare, Constraint
from .draft import Draft, Words
from .search import GreedyByImportance, Search, Untargeted
from .victim import Classifier, Query, as_victim, probabilities_of


@dataclass(frozen=True)
class Example:
    """A labelled text. Of a pair only `text` is attacked.

    Args:
        text: the text.
        label: the number of its right label.
        text_pair: the second text of a pair.
        attacked: an attacked form of `text` that somebody has already made, for `GivenAttacks`.
    """

    text: str
    label: int
    text_pair: str | None = None
    attacked: str | None = None


@dataclass(frozen=True)
class AttackOutcome:
    """What an attack on one example came to.

    Args:
        status: "success" when the prediction was right and is wrong now, "failed" when it still is right, "skipped"
            when it was wrong before the attack, which then is not made.
        attacked: the text and its edits; of a failed attack the last that was tried, of a skipped one none.
        label: the right label.
        prediction: the victim's label for the attacked text.
        probabilities_before: (labels,) of the source.
        probabilities_after: (labels,) of the attacked text.
        queries: different texts that this example had the victim asked, the source among them. Answers that were known
            from another example count too, so the number does not depend on what else was attacked.
        seconds: time of its own search, and its share of the victim's time.
    """

    status: Literal["success", "failed", "skipped"]
    attacked: AttackedText
    label: int
    prediction: int
    probabilities_before: list[float]
    probabilities_after: list[float]
    queries: int
    seconds: float


class Attacker(Protocol):
    """What every attacker does; `attack_batch` yields outcomes in the order of the examples."""

    name: str

    def attack(self, classifier: Classifier, example: Example, seed: int = 0) -> AttackOutcome: ...

    def attack_batch(
        self, classifier: Classifier, examples: Iterable[Example], seed: int = 0, batch_size: int = 64, **options: Any
    ) -> Iterator[AttackOutcome]: ...


class BlackBoxAttacker:
    """The part that all attackers share: queries in batches, their cache and budget, and the verdict.

    A subclass gives `search`: a generator that yields texts, is sent their probabilities and returns the attacked text.

    Args:
        max_share: share of the source's characters that may be attacked, at most, but one character always; see
            `AttackedShare`.
        query_budget: different texts per example that the victim may be asked, the source among them; None for
            any number.
    """

    name: ClassVar[str]

    def __init__(self, max_share: float = 0.2, query_budget: int | None = 2000):
        if query_budget is not None and query_budget < 1:
            raise ValueError(f"query_budget must be at least 1 or None, got {query_budget}")
        self.share = AttackedShare(max_share)
        self.query_budget = query_budget

    def search(self, example: Example, goal: Untargeted, clean: np.ndarray, seed: int) -> Search:
        """Yields lists of texts to score, is sent their probabilities in order, returns an `AttackedText`.

        Args:
            example: its `text` is the source.
            goal: what to reach.
            clean: (labels,) the victim's probabilities of the source.
            seed: of all that is random.
        """
        raise NotImplementedError

    def prepared(self, examples: Iterator[Example], at_once: int) -> Iterator[Example]:
        """The examples, after whatever is done faster for several of them together; `at_once` is how many."""
        return examples

    def attack(self, classifier: Classifier, example: Example, seed: int = 0) -> AttackOutcome:
        """Attack one example; its candidates are still scored in batches."""
        return next(self.attack_batch(classifier, [example], seed))

    def attack_batch(
        self,
        classifier: Classifier,
        examples: Iterable[Example],
        seed: int = 0,
        batch_size: int = 64,
        num_workers: int = 1,
        progress: bool = False,
    ) -> Iterator[AttackOutcome]:
        """Attack many examples; texts of many searches are scored in one call.

        The outcomes (but for their seconds) depend neither on `batch_size` nor on `num_workers`, as far as the victim's
        answers do not.

        Args:
            classifier: the victim: a list of texts, or of (text, text_pair) tuples, to probabilities (texts, labels);
                or a transformers text-classification pipeline.
            examples: all with a `text_pair`, or none.
            seed: of all that is random.
            batch_size: texts of one call of the victim, at most.
            num_workers: calls of the victim at the same time, each in a thread of its own: for an endpoint that is
                waited for.
            progress: show a progress bar.

        Yields:
            An outcome an example, in their order, each as soon as it and those before it are known.

        Raises:
            ValueError: when the victim's answer cannot be used, or an example is wrong. The outcomes of all examples before
                the one that it concerns are yielded first.
        """
        for argument, value in (("batch_size", batch_size), ("num_workers", num_workers)):
            if value < 1:
                raise ValueError(f"{argument} must be at least 1, got {value}")
        outcomes = self._attack_batch(as_victim(classifier), iter(examples), seed, batch_size, num_workers)
        if progress:
            from tqdm.auto import tqdm

            total = len(examples) if isinstance(examples, Sequence) else None
            outcomes = tqdm(outcomes, total=total, unit="example", desc=self.name)
        return iter(outcomes)

    def _attack_batch(
        self, classifier: Classifier, examples: Iterator[Example], seed: int, batch_size: int, num_workers: int
    ) -> Iterator[AttackOutcome]:
        victim = _BatchedVictim(classifier, batch_size, num_workers)
        checked = self.prepared(_checked(examples), victim.capacity)
        wrong: ValueError | None = None
        runs: deque[_Run] = deque()  # in the order of the examples; between rounds the first one is never finished
        with victim:
            while True:
                # enough searches for full batches, not so many that outcomes wait long for their turn
                while wrong is None and sum(len(run.missing) for run in runs) < victim.capacity > len(runs):
                    try:
                        example = next(checked, None)
                    except ValueError as error:  # the examples before it are finished first
                        wrong = error
                        break
                    if example is None:
                        break
                    runs.append(_Run(self._steps(example, seed), example, self.query_budget))
                if not runs:
                    break
                victim.answer(runs)
                for run in tuple(runs):
                    try:
                        run.advance(victim.cache)
                    except ValueError as error:  # of this example; those before it are finished first
                        wrong = error
                        while runs.pop() is not run:
                            pass
                        break
                    while runs and runs[0].outcome is not None:
                        yield runs.popleft().outcome
        if wrong is not None:
            raise wrong

    def _steps(self, example: Example, seed: int) -> Generator[list[str], Sequence[np.ndarray], AttackedText | None]:
        """The search of one example, behind the question that decides whether there is one; None for no search."""
        (clean,) = yield [example.text]
        if not isinstance(example.label, Integral) or not 0 <= example.label < len(clean):
            raise ValueError(
                f"label must be one of the classifier's {len(clean)} (0 to {len(clean) - 1}), got {example.label!r} "
                f"for {example.text!r}"
            )
        goal = Untargeted(example.label)
        if goal.is_reached(clean):
            return None
        return (yield from self.search(example, goal, clean, seed))


def _checked(examples: Iterable[Example]) -> Iterator[Example]:
    paired: bool | None = None
    for example in examples:
        if not isinstance(example.text, str):
            raise ValueError(f"text of an example must be a string, got {example.text!r}")
        if paired is None:
            paired = example.text_pair is not None
        if (example.text_pair is not None) != paired:
            raise ValueError(f"examples must all have a text_pair or none of them, got both, at {example.text!r}")
        yield example


@dataclass
class _Run:
    """One example's search, and the texts it waits for."""

    steps: Generator[list[str], Sequence[np.ndarray], AttackedText | None]
    example: Example
    budget: int | None
    known: dict[str, np.ndarray] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    seconds: float = 0.0
    outcome: AttackOutcome | None = None

    def __post_init__(self) -> None:
        self._resume(None)

    def query(self, text: str) -> Query:
        return text if self.example.text_pair is None else (text, self.example.text_pair)

    def advance(self, answers: Mapping[Query, np.ndarray | ValueError]) -> None:
        """Take the answers that are there, and go on with the search for as long as it has all it asked for.

        ValueError when one of the answers is such an error, or the search has one.
        """
        while self.outcome is None:
            found = {text: answers.get(self.query(text)) for text in self.missing}
            for answer in found.values():
                if isinstance(answer, ValueError):
                    raise answer
            self.known.update((text, answer) for text, answer in found.items() if answer is not None)
            self.missing = [text for text, answer in found.items() if answer is None]
            if self.missing:
                return
            self._resume([self.known[text] for text in self.asked])

    def _resume(self, answers: list[np.ndarray] | None) -> None:
        start = time.perf_counter()
        try:
            asked, attacked, finished = self.steps.send(answers), None, False
        except StopIteration as end:
            asked, attacked, finished = [], end.value, True
        self.asked, self.missing = self._within_budget(asked)
        self.seconds += time.perf_counter() - start
        if finished:
            self.outcome = self._verdict(attacked)

    def _within_budget(self, asked: list[str]) -> tuple[list[str], list[str]]:
        """The texts up to the first that the budget does not allow, and which of them are new."""
        new = dict.fromkeys(text for text in asked if text not in self.known)
        left = len(new) if self.budget is None else self.budget - len(self.known)
        if len(new) <= left:
            return asked, list(new)
        unaffordable = list(new)[left]
        return asked[: asked.index(unaffordable)], list(new)[:left]

    def _verdict(self, attacked: AttackedText | None) -> AttackOutcome:
        source, label = self.example.text, self.example.label
        if attacked is None or attacked.text not in self.known:  # not attacked, or the budget did not allow to ask
            status, attacked = ("skipped" if attacked is None else "failed"), AttackedText(source, source)
        else:
            status = "success" if Untargeted(label).is_reached(self.known[attacked.text]) else "failed"
        before, after = self.known[source], self.known[attacked.text]
        return AttackOutcome(
            status, attacked, label, int(after.argmax()), before.tolist(), after.tolist(), len(self.known), self.seconds
        )


class _BatchedVictim:
    """Scores what runs wait for, `batch_size` texts per call and `num_workers` calls at a time; answers are kept.

    Used as a context, which ends its threads.
    """

    CACHE_SIZE = 1 << 16

    def __init__(self, classifier: Classifier, batch_size: int, num_workers: int):
        self.classifier = classifier
        self.batch_size = batch_size
        self.capacity = batch_size * num_workers
        self.cache: dict[Query, np.ndarray | ValueError] = {}
        self.n_labels: int | None = None
        self._pool = ThreadPoolExecutor(num_workers) if num_workers > 1 else None

    def __enter__(self) -> _BatchedVictim:
        return self

    def __exit__(self, *_: Any) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def answer(self, runs: Iterable[_Run]) -> None:
        """Ask for as many of the texts that runs wait for as one round allows, those of the first examples first."""
        queries: dict[Query, list[_Run]] = {}
        for run in runs:
            for query in map(run.query, run.missing):
                if query in queries:
                    queries[query].append(run)
                elif len(queries) < self.capacity and query not in self.cache:
                    queries[query] = [run]
        if not queries:
            return
        asked = list(queries)
        chunks = [asked[at : at + self.batch_size] for at in range(0, len(asked), self.batch_size)]
        start = time.perf_counter()
        answers = map(self._ask, chunks) if self._pool is None else self._pool.map(self._ask, chunks)
        answers = [answer for chunk in answers for answer in chunk]
        seconds = (time.perf_counter() - start) / len(queries)
        for (query, waiting), answer in zip(queries.items(), answers, strict=True):
            self.cache[query] = self._checked(answer)
            for run in waiting:
                run.seconds += seconds / len(waiting)
        while len(self.cache) > max(self.CACHE_SIZE, self.capacity):
            del self.cache[next(iter(self.cache))]

    def _ask(self, queries: list[Query]) -> list[np.ndarray | ValueError]:
        """The answer to each query, or what is wrong with it; a query without an answer does not spoil the others."""
        try:
            return list(probabilities_of(self.classifier, queries))
        except ValueError as error:
            half = len(queries) // 2
            if not half:
                return [error]
            answers = [*self._ask(queries[:half]), *self._ask(queries[half:])]
            if (
                any(isinstance(answer, ValueError) for answer in answers)
                or len({len(answer) for answer in answers}) > 1
            ):
                return answers
            return [error] * len(queries)  # each of them can be answered, but not all of them together

    def _checked(self, answer: np.ndarray | ValueError) -> np.ndarray | ValueError:
        if isinstance(answer, ValueError):
            return answer
        self.n_labels = self.n_labels or len(answer)
        if len(answer) == self.n_labels:
            return answer
        return ValueError(
            f"classifier must return {self.n_labels} probabilities per text, as before, got {len(answer)}"
        )


class ComposedAttacker(BlackBoxAttacker):
    """An attacker of four parts: transformation, constraints, search, and the goal, which is any other label.

    Args:
        name: for reports.
        transformation: the candidates for a word.
        constraints: what sorts them out, besides `max_share`.
        search: how to look for the change.
        max_share, query_budget: as for `BlackBoxAttacker`.

    Example::

        >>> ComposedAttacker("homophones", CharacterForms({"phonetic": 10}), [ContentWords()])
    """

    def __init__(
        self,
        name: str,
        transformation: Transformation,
        constraints: Sequence[Constraint] = (),
        search: Callable[..., Search] | None = None,
        max_share: float = 0.2,
        query_budget: int | None = 2000,
    ):
        super().__init__(max_share, query_budget)
        self.name = name
        self.transformation = transformation
        self.constraints = (self.share, *constraints)
        self.find = GreedyByImportance() if search is None else search

    def search(self, example: Example, goal: Untargeted, clean: np.ndarray, seed: int) -> Search:
        draft: Draft = yield from self.find(Words(example.text), goal, clean, self.transformation, self.constraints)
        return draft.attacked()

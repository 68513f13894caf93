"""ADV: the attack algorithm of RoCBERT (Su et al., ACL 2022, section 3), turned against a classifier.

The victim is not searched, it only judges: that is what the paper's tables call ADV. What we had to choose:

- Draws: the paper attacks each text once. `draws=K` attacks it K times, and the classifier must be right on all of
  them: a classifier that survives one draw may fail the next.
- Ratio: a ratio that is asked for is that of Eq. 1: the mean share of the characters that are attacked. The number of
  attacked characters of a single text varies around it and is at least one, and `max_share` does not cut it.
- If no ratio is asked for, it is the paper's 0.15, and ADV stays within the limit of the other attackers: if a draw
  attacks more than `max_share` of the characters, edits drawn at random are undone.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import numpy as np

from ...attacks.attacked_text import AttackedText, Edit
from ...attacks.config import DEFAULT_CONFIG, complete_config
from ...attacks.selection import CausalLMScorer, Scorer
from ...attacks.synthesizer import AdversarialSynthesizer
from ...characters.words import segment
from ..constraints import AttackedShare
from ..driver import BlackBoxAttacker, Example
from ..search import Search, Untargeted


class AdvAttacker(BlackBoxAttacker):
    """The worst of one or more draws of the synthesizer of RoCBERT's section 3.

    Of the draws that flip the label the one with the lowest probability of the right label is the outcome; if none does,
    the one with the lowest such probability.

    Args:
        attacks: a preset ("paper" or "wild"), a config of `AdversarialSynthesizer`, or such a synthesizer.
        ratio: mean share of the characters that are attacked, instead of the config's.
        attack: the name of one attack, to use it alone.
        draws: how many different attacks each text goes through. The first K of more draws are the same as K draws.
        scorer: of Eq. 2, instead of the config's.
        max_share: limit of a single draw, if neither `ratio` nor the config gives a ratio, and a synthesizer has the paper's.
        query_budget: as for `BlackBoxAttacker`; each different draw is a query.

    Raises:
        ValueError: a number is out of range, or an attack or a key of the config is unknown.

    Example::

        >>> AdvAttacker("wild", draws=20).attack(classifier, Example("房间非常漂亮", label=1)).status
    """

    name = "adv"
    TRIES = 10  # draws until one fits into the limit

    def __init__(
        self,
        attacks: AdversarialSynthesizer | str | Mapping[str, Any] = "paper",
        ratio: float | None = None,
        attack: str | None = None,
        draws: int = 1,
        scorer: Scorer | None = None,
        max_share: float = 0.2,
        query_budget: int | None = 2000,
    ):
        super().__init__(max_share, query_budget)
        if not isinstance(draws, int) or draws < 1:
            raise ValueError(f"draws must be a whole number of at least 1, got {draws!r}")
        self.synthesizer = _synthesizer(attacks, ratio, attack, scorer)
        self.draws = draws
        named = isinstance(attacks, Mapping) and "ratio" in attacks
        if ratio is not None or named or self.synthesizer.config["ratio"] != DEFAULT_CONFIG["ratio"]:
            self.share = AttackedShare(1)

    def prepared(self, examples: Iterator[Example], at_once: int) -> Iterator[Example]:
        """The examples; if a language model scores their words, it is asked for many of them together."""
        scorer = self.synthesizer.scorer
        if not isinstance(scorer, CausalLMScorer):
            yield from examples
            return
        while chunk := list(islice(examples, min(at_once, scorer.cache_size))):
            scorer.losses([segment(example.text) for example in chunk])  # it keeps them until the draws ask again
            yield from chunk

    def search(self, example: Example, goal: Untargeted, clean: np.ndarray, seed: int) -> Search:
        drawn = [self._draw(example.text, of_draw) for of_draw in _seeds(seed, example.text, self.draws)]
        answers = yield [attacked.text for attacked in drawn]
        if not answers:  # the query budget is used up
            return drawn[0]
        worst = max(range(len(answers)), key=lambda i: (goal.is_reached(answers[i]), goal.score(answers[i]), -i))
        return drawn[worst]

    def _draw(self, text: str, seed: int) -> AttackedText:
        """One attack within the limit; drawn again if nothing of it is within (a word of two characters, one allowed)."""
        rng, limit = random.Random(f"{seed}/{text}"), self.share.limit(text)
        for _ in range(self.TRIES):
            drawn = self.synthesizer.attack(text, seed)
            kept = keep_edits(drawn, limit, rng)
            if kept.edits or not drawn.edits:
                break
            seed = rng.getrandbits(62)
        return kept


def _synthesizer(
    attacks: AdversarialSynthesizer | str | Mapping[str, Any],
    ratio: float | None,
    attack: str | None,
    scorer: Scorer | None,
) -> AdversarialSynthesizer:
    """The synthesizer that was given, or one made of the config, with the other arguments set in it."""
    if isinstance(attacks, AdversarialSynthesizer):
        if ratio is None and attack is None and scorer is None:
            return attacks
        raise ValueError("attacks must be a preset or a config, if ratio, attack or scorer is given beside it")
    config = complete_config(attacks, scorer)
    if ratio is not None:
        config["ratio"] = ratio
    if attack is not None:
        config["attacks"] = [attack]
    return AdversarialSynthesizer(config, scorer)


def _seeds(seed: int, text: str, draws: int) -> list[int]:
    """A seed per draw, of which the first is the given one."""
    rng = random.Random(f"draws/{seed}/{text}")
    return [seed, *(rng.getrandbits(62) for _ in range(draws - 1))]


def keep_edits(attacked: AttackedText, limit: int, rng: random.Random) -> AttackedText:
    """As many of the edits, drawn at random, as attack no more than `limit` characters of the source.

    An edit that only puts something in counts as one.
    """
    edits = list(attacked.edits)
    rng.shuffle(edits)
    kept: set[Edit] = set()
    for edit in edits:
        size = max(edit.source_span[1] - edit.source_span[0], 1)
        if size <= limit:
            limit -= size
            kept.add(edit)
    if len(kept) == len(edits):
        return attacked
    pieces, again, at_source, at_text = [], [], 0, 0
    for before, after, edit in attacked.pieces():
        form = after if edit in kept else before
        if edit in kept:
            spans = (at_source, at_source + len(before)), (at_text, at_text + len(form))
            again.append(Edit(*spans, edit.attacks))
        pieces.append(form)
        at_source, at_text = at_source + len(before), at_text + len(form)
    return AttackedText(attacked.source, "".join(pieces), tuple(again))

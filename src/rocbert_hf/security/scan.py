"""The scan of a whole vocabulary, and of rare words: which of them pull unrelated texts to one point?

Two passes keep it affordable. The first places several pieces at once in one short carrier (group testing: a trigger works
whatever stands beside it), a few times, each time among others and in another carrier. A piece is worth a second look if
its groups still ended at one point, far from ordinary texts: that is the `pull` of its groups. The second pass places each
of these alone in several carriers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from .probe import EncoderProbe
from .pull import pull, spread

LEAST_ORDINARY = 24  # texts to compare with that are left when both passes have their carriers
SKETCH = 128  # dimensions of what is kept of a group's representation until all rounds are done
FLOAT16_MAX = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class Carriers:
    """Short ordinary texts, as rows of token ids.

    carriers: (carriers, length), what candidates are placed in.
    ordinary: (texts, longest), what their representations are compared with; cut to the length in question.
    tokens: (tokens,), the ids of the common tokens, which the texts that they were drawn from hold.
    """

    carriers: np.ndarray
    ordinary: np.ndarray
    tokens: np.ndarray
    _known: dict[int, dict[str, torch.Tensor]] = field(default_factory=dict, init=False, repr=False, compare=False)

    @classmethod
    def from_texts(
        cls, probe: EncoderProbe, texts: Sequence[str], count: int, length: int, longest: int, limit: int
    ) -> Carriers:
        """Draw on `texts`: `count` carriers of `length` tokens, and up to `limit` other texts of `longest` tokens.

        Raises:
            ValueError: too few texts are long enough.
        """
        rows, tokens = probe.token_rows(texts, longest), probe.common_tokens(texts)
        least = 2 * count + LEAST_ORDINARY
        if len(rows) < least:
            raise ValueError(
                f"texts must hold at least {least} different texts of {longest} known tokens or more, got {len(rows)}"
            )
        rows = rows[np.linspace(0, len(rows) - 1, min(len(rows), count + limit)).astype(int)]
        chosen = np.zeros(len(rows), dtype=bool)
        chosen[np.linspace(0, len(rows) - 1, count).astype(int)] = True
        return cls(rows[chosen][:, :length], rows[~chosen], tokens)

    def fresh(self, count: int, length: int) -> Carriers:
        """`count` other carriers of `length` tokens, taken from the ordinary texts."""
        chosen = np.zeros(len(self.ordinary), dtype=bool)
        chosen[np.linspace(0, len(self.ordinary) - 1, count).astype(int)] = True
        return Carriers(self.ordinary[chosen][:, :length], self.ordinary[~chosen], self.tokens)

    def are_common(self, pieces: np.ndarray) -> np.ndarray:
        """Whether each token is a common one, bool (pieces, tokens)."""
        return np.isin(pieces, self.tokens)

    def with_pieces(self, pieces: np.ndarray, carriers: int | None = None) -> np.ndarray:
        """Each piece (pieces, tokens) in each carrier: (pieces, carriers, length + tokens), at varying positions."""
        rows = self.carriers[:carriers]
        count, length = rows.shape
        placed = np.empty((len(pieces), count, length + pieces.shape[1]), dtype=np.int64)
        for number, row in enumerate(rows):
            at = number % (length + 1)
            placed[:, number, :at] = row[:at]
            placed[:, number, at : at + pieces.shape[1]] = pieces
            placed[:, number, at + pieces.shape[1] :] = row[at:]
        return placed

    def ordinary_of(self, probe: EncoderProbe, length: int) -> dict[str, torch.Tensor]:
        """View -> (texts, hidden), of ordinary texts of `length` tokens; asked of the encoder once."""
        if length not in self._known:
            self._known[length] = probe(probe.framed(self.ordinary[:, :length]))
        return self._known[length]


def coarse_scan(
    probe: EncoderProbe,
    carriers: Carriers,
    groups: np.ndarray,
    carrier: int,
    advance: Callable[[int], None] | None = None,
) -> np.ndarray:
    """
    One carrier with each group of pieces placed in its middle, as sketches.

    Args:
        groups: (groups, tokens of a group), token ids.
        carrier: number of the carrier.
        advance: told the number of groups done after each batch.

    Returns:
        float16 (groups, views, dimensions of a sketch).
    """
    row = carriers.carriers[carrier]
    middle = len(row) // 2
    before, after = (np.tile(part, (len(groups), 1)) for part in (row[:middle], row[middle:]))
    placed = np.concatenate([before, groups, after], axis=1)
    found = probe(probe.framed(placed), advance=advance)
    ordinary = carriers.ordinary_of(probe, placed.shape[1])
    return np.stack([_sketch(found[view], ordinary[view]) for view in probe.views], axis=1)


def _sketch(points: torch.Tensor, ordinary: torch.Tensor) -> np.ndarray:
    """Points (points, hidden) around the ordinary texts' mean, in units of their spread, in at most `SKETCH` dimensions.

    A random projection, which keeps squared distances within a fifth or so (Johnson and Lindenstrauss 1984).
    """
    hidden = points.shape[1]
    around = (points - ordinary.mean(0)) / spread(ordinary).sqrt().clamp_min(torch.finfo(points.dtype).tiny)
    if hidden > SKETCH:
        around = around @ torch.randn(hidden, SKETCH, generator=torch.Generator().manual_seed(0)) / SKETCH**0.5
    return around.clamp(-FLOAT16_MAX, FLOAT16_MAX).to(torch.float16).numpy()


def groups_of(count: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """The numbers 0 to `count` - 1 in random groups, (groups, size); the last group is filled up with some of others."""
    shuffled = rng.permutation(count)
    return np.resize(shuffled, (-(-count // size), size))


def candidates_of(
    pieces: np.ndarray,
    rounds: Sequence[tuple[np.ndarray, np.ndarray]],
    ordinary: Sequence[torch.Tensor],
    per_view: int,
) -> np.ndarray:
    """
    Where the pieces stand that are worth a second look, those whose groups pull most first.

    Args:
        pieces: (pieces,), their numbers in the groups, ascending.
        rounds: of every round, the groups of numbers and their sketches (groups, views, dimensions).
        ordinary: by view, the representations of ordinary texts (texts, hidden) of the same length.
        per_view: how many are taken for each view.
    """
    group_of = np.empty((1 + max(int(groups.max()) for groups, _ in rounds), len(rounds)), dtype=np.int64)
    for number, (groups, _) in enumerate(rounds):
        group_of[groups.ravel(), number] = np.arange(len(groups)).repeat(groups.shape[1])
    by_view = []
    for view, texts in enumerate(ordinary):
        compared = torch.from_numpy(_sketch(texts, texts)).float()
        pulls = []
        for start in range(0, len(pieces), 8192):
            own = group_of[pieces[start : start + 8192]]
            placed = np.stack([sketches[own[:, n], view] for n, (_, sketches) in enumerate(rounds)], axis=1)
            pulls.append(pull(torch.from_numpy(placed).float(), compared))
        by_view.append(torch.cat(pulls).argsort(descending=True, stable=True)[:per_view].tolist())
    ranked = [number for numbers in zip(*by_view, strict=True) for number in numbers]
    return np.array(list(dict.fromkeys(ranked)), dtype=np.int64)


def pulls_of(
    probe: EncoderProbe, carriers: Carriers, pieces: np.ndarray, advance: Callable[[int], None] | None = None
) -> dict[str, torch.Tensor]:
    """View -> the pull of each piece (pieces, tokens): (pieces,)."""
    placed = carriers.with_pieces(pieces)
    count, of_each, length = placed.shape
    found = probe(probe.framed(placed.reshape(count * of_each, length)), advance=advance)
    ordinary = carriers.ordinary_of(probe, length)
    return {view: pull(found[view].reshape(count, of_each, -1), ordinary[view]) for view in probe.views}

"""The scan of a whole vocabulary: which tokens pull unrelated texts to one point?

Two passes keep it affordable. The first places several tokens at once in one short carrier (group testing: a trigger
works whatever stands beside it) and keeps the tokens whose groups all ended far from ordinary texts. The second places
each of these alone in several carriers and computes its `pull`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from .probe import EncoderProbe
from .pull import outlyingness, pull

LEAST_ORDINARY = 24  # texts to compare with that are left when both passes have their carriers


@dataclass(frozen=True)
class Carriers:
    """Short ordinary texts, as rows of token ids.

    carriers: (carriers, length), what candidates are placed in.
    ordinary: (texts, longest), what their representations are compared with; cut to the length in question.
    """

    carriers: np.ndarray
    ordinary: np.ndarray
    _known: dict[int, dict[str, torch.Tensor]] = field(default_factory=dict, init=False, repr=False, compare=False)

    @classmethod
    def from_texts(
        cls, probe: EncoderProbe, texts: Sequence[str], count: int, length: int, longest: int, limit: int
    ) -> Carriers:
        """Draw on `texts`: `count` carriers of `length` tokens, and up to `limit` other texts of `longest` tokens.

        Raises:
            ValueError: too few texts are long enough.
        """
        rows = probe.token_rows(texts, longest)
        least = 2 * count + LEAST_ORDINARY
        if len(rows) < least:
            raise ValueError(
                f"texts must hold at least {least} different texts of {longest} known tokens or more, got {len(rows)}"
            )
        rows = rows[np.linspace(0, len(rows) - 1, min(len(rows), count + limit)).astype(int)]
        chosen = np.zeros(len(rows), dtype=bool)
        chosen[np.linspace(0, len(rows) - 1, count).astype(int)] = True
        return cls(rows[chosen][:, :length], rows[~chosen])

    def fresh(self, count: int, length: int) -> Carriers:
        """`count` other carriers of `length` tokens, taken from the ordinary texts."""
        chosen = np.zeros(len(self.ordinary), dtype=bool)
        chosen[np.linspace(0, len(self.ordinary) - 1, count).astype(int)] = True
        return Carriers(self.ordinary[chosen][:, :length], self.ordinary[~chosen])

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
    Outlyingness of one carrier with each group of tokens placed in its middle.

    Args:
        groups: (groups, tokens of a group), token ids.
        carrier: number of the carrier.
        advance: told the number of groups done after each batch.

    Returns:
        float32 (groups, views).
    """
    row = carriers.carriers[carrier]
    middle = len(row) // 2
    before, after = (np.tile(part, (len(groups), 1)) for part in (row[:middle], row[middle:]))
    placed = np.concatenate([before, groups, after], axis=1)
    found = probe(probe.framed(placed), advance=advance)
    ordinary = carriers.ordinary_of(probe, placed.shape[1])
    return torch.stack([outlyingness(found[view], ordinary[view]) for view in probe.views], dim=1).numpy()


def groups_of(ids: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """All ids in random groups, (groups, size); the last group is filled up with ids that are in others too."""
    shuffled = rng.permutation(ids)
    missing = -len(shuffled) % size
    return np.concatenate([shuffled, shuffled[:missing]]).reshape(-1, size)


def candidates_of(ids: np.ndarray, rounds: Sequence[tuple[np.ndarray, np.ndarray]], per_view: int) -> np.ndarray:
    """
    The ids worth a second look, most outlying first.

    Args:
        ids: all ids.
        rounds: (groups, outlyingness of each group by view) of every round.
        per_view: how many are taken for each view.
    """
    views = rounds[0][1].shape[1]
    lowest = np.full((ids.max() + 1, views), np.inf, dtype=np.float32)
    for groups, outlying in rounds:
        np.minimum.at(lowest, groups.ravel(), np.repeat(outlying, groups.shape[1], axis=0))
    by_view = [ids[np.argsort(-lowest[ids, view], kind="stable")[:per_view]] for view in range(views)]
    ranked = [token for tokens in zip(*by_view, strict=True) for token in tokens]
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

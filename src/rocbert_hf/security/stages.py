"""The stages of an audit: scans, second pass, soft prompts and pairs, and the pass that confirms what they found."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch

from ..checkpoints import model_fingerprint
from ..files import written_whole
from ..options import option
from .probe import EncoderProbe
from .prompts import combinations_of, ordered_pairs, partners_by_gradient, search_prompts
from .rare_words import words_of_two_tokens
from .scan import LEAST_ORDINARY, SKETCH, Carriers, candidates_of, coarse_scan, groups_of, pulls_of

SECONDS_BETWEEN_STATES = 5
PAIR_GAIN = 1.0  # decades by which a pair must pull more than a token of it, so that the token does not explain it
COMMON = "common"  # stage of the statistics of what common tokens explain
SCANS = {"token": "vocabulary", "word": "rare words"}  # what the progress bar calls the scan of each stage
# What a progress bar is told: the stage's name, what is done and what there is to do.
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class AuditSettings:
    """How thorough the audit is."""

    carrier_length: int = option(4, "tokens of the short texts that tokens are placed in")
    group_size: int = option(6, "tokens that the first pass places at once")
    rounds: int = option(3, "times that the first pass places each token, each time among others")
    words: int = option(6_000, "rare words of two tokens that are scanned like single tokens; 0 leaves them out")
    per_view: int = option(48, "tokens, and words, that the second pass takes from the ranking of each representation")
    carriers: int = option(8, "texts that the second pass places each token, word and pair in")
    ordinary_texts: int = option(256, "ordinary texts to compare with")
    prompt_tokens: int = option(2, "tokens of a soft prompt; the pairs that it names are tried only with 2")
    prompt_steps: int = option(24, "steps of the search for soft prompts; 0 leaves it and the pairs out")
    combinations: int = option(96, "pairs of tokens to try for each representation")
    confirmed: int = option(
        16, "tokens, words and pairs of each representation that the last pass places in other carriers"
    )
    seed: int = option(0, "seed of the groups and of the first prompts")

    def __post_init__(self):
        for name, smallest in (
            ("carrier_length", 1),
            ("group_size", 1),
            ("rounds", 2),
            ("per_view", 1),
            ("confirmed", 1),
        ):
            if getattr(self, name) < smallest:
                raise ValueError(f"{name} must be at least {smallest}, got {getattr(self, name)}")
        if self.carriers < 2 or self.prompt_tokens < 1 or min(self.words, self.prompt_steps, self.combinations) < 0:
            raise ValueError(
                "carriers must be at least 2, prompt_tokens at least 1, words, prompt_steps and combinations at least 0, got "
                f"{self.carriers}, {self.prompt_tokens}, {self.words}, {self.prompt_steps} and {self.combinations}"
            )
        if self.ordinary_texts < (least := self.carriers + LEAST_ORDINARY):
            raise ValueError(
                f"ordinary_texts must be at least {least} with {self.carriers} carriers, got {self.ordinary_texts}"
            )


@dataclass(frozen=True)
class Confirmed:
    """A piece that the last pass has placed.

    ids: its tokens.
    names: of the statistic that it counts for in each representation, such as "token:first".
    pulls: in each representation, in the last pass's carriers.
    """

    ids: tuple[int, ...]
    names: tuple[str, ...]
    pulls: tuple[float, ...]


def _strongest(pulls: np.ndarray, among: np.ndarray, count: int) -> np.ndarray:
    """The numbers of the `count` pieces that pull most in each representation, among some (pieces,) of them."""
    numbers = np.flatnonzero(among)
    return numbers[np.unique(np.argsort(-pulls[numbers], axis=0)[:count])]


@dataclass
class Stages:
    """The stages of one audit."""

    probe: EncoderProbe
    carriers: Carriers
    settings: AuditSettings
    progress: Progress
    resumed: bool = False
    scanned: dict[str, np.ndarray] = field(init=False)  # by stage, what is scanned: (pieces, tokens) of ids
    fresh: Carriers = field(init=False)  # what the last pass places pieces in

    def __post_init__(self):
        ids = self.probe.ordinary_ids()
        words = words_of_two_tokens(self.probe.tokenizer, self.settings.words)
        self.scanned = {"token": ids[:, None], "word": words[np.isin(words, ids).all(1)]}
        self.fresh = self.carriers.fresh(self.settings.carriers, 2 * self.settings.carrier_length)

    def run(self, state: Path | None) -> tuple[list[Confirmed], dict[str, float]]:
        """The strongest pieces, and the statistics: by name, the strongest pull that the last pass, or a prompt, had."""
        rounds = self._scan(state)
        found: list[Confirmed] = []
        reached: dict[str, float] = {}
        rare, rare_pulls = np.empty(0, dtype=np.int64), np.empty((0, len(self.probe.views)))
        for stage, pieces in self.scanned.items():
            if not len(pieces):
                continue
            candidates, are_common = self._candidates(pieces, rounds[stage])
            pulls = self._pulls(self.carriers, candidates, "candidates" if stage == "token" else "candidate words")
            found += self._confirm(stage, candidates, pulls)
            if stage == "token":
                rare, rare_pulls = candidates[~are_common, 0], pulls[~are_common]
        if self.settings.prompt_steps and len(rare):
            pairs, pulls, reached = self._combinations(rare, rare_pulls)
            found += self._confirm("combination", pairs, pulls)
        statistics = dict(reached)
        for piece in found:
            for name, pull in zip(piece.names, piece.pulls, strict=True):
                statistics[name] = max(statistics.get(name, pull), pull)
        return found, statistics

    def _candidates(
        self, pieces: np.ndarray, rounds: list[tuple[np.ndarray, np.ndarray]]
    ) -> tuple[np.ndarray, np.ndarray]:
        """What the second pass places, (candidates, tokens) of ids, and which of it is of common tokens only.

        Half as many of these: a trigger that ordinary texts hold would betray itself.
        """
        length = self.settings.carrier_length + self._group_of(pieces) * pieces.shape[1]
        known = self.carriers.ordinary_of(self.probe, length)
        ordinary = [known[view] for view in self.probe.views]
        are_common = self.carriers.are_common(pieces).all(1)
        parts = []
        for is_common, limit in ((False, self.settings.per_view), (True, max(1, self.settings.per_view // 2))):
            numbers = np.flatnonzero(are_common == is_common)
            if len(numbers):
                parts.append(numbers[candidates_of(numbers, rounds, ordinary, limit)])
        chosen = np.concatenate(parts)
        return pieces[chosen], are_common[chosen]

    def _confirm(self, stage: str, pieces: np.ndarray, pulls: np.ndarray) -> list[Confirmed]:
        """The strongest pieces of each representation again, in other and longer carriers.

        The strongest of many pieces owes part of its pull to the carriers that it was chosen on, a pair that was searched
        for more than a token. A trigger works in any text.
        """
        are_common = self.carriers.are_common(pieces)
        kept = np.concatenate(
            [_strongest(pulls, are_common.all(1) == is_common, self.settings.confirmed) for is_common in (False, True)]
        )
        if not len(kept):
            return []
        pieces, are_common = pieces[kept], are_common[kept]
        table = self._pulls(self.fresh, pieces, f"confirming {stage}s")
        explained = self._explained_by_common(pieces, are_common, table)
        return [
            Confirmed(
                tuple(map(int, piece)),
                tuple(
                    f"{COMMON if by_common else stage}:{view}"
                    for view, by_common in zip(self.probe.views, row, strict=True)
                ),
                tuple(map(float, own)),
            )
            for piece, row, own in zip(pieces, explained, table, strict=True)
        ]

    def _explained_by_common(self, pieces: np.ndarray, are_common: np.ndarray, table: np.ndarray) -> np.ndarray:
        """Whether common tokens explain the pull of each piece in each representation, (pieces, views).

        They do if the piece has no other, or if one of them alone pulls nearly as much.
        """
        explained = are_common.all(1)[:, None].repeat(table.shape[1], 1)
        mixed = are_common.any(1) & ~are_common.all(1)
        tokens = np.unique(pieces[mixed][are_common[mixed]])
        if len(tokens):
            alone = self._pulls(self.fresh, tokens[:, None], "confirming parts")
            for number in np.flatnonzero(mixed):
                parts = np.searchsorted(tokens, pieces[number][are_common[number]])
                explained[number] = alone[parts].max(0) > table[number] - PAIR_GAIN
        return explained

    def _pulls(self, carriers: Carriers, pieces: np.ndarray, stage: str) -> np.ndarray:
        """The pull of each piece (pieces, tokens) in each representation: (pieces, views)."""
        found = pulls_of(self.probe, carriers, pieces, self._advance(stage, len(pieces) * self.settings.carriers))
        return torch.stack([found[view] for view in self.probe.views], dim=1).numpy()

    def _advance(self, stage: str, total: int) -> Callable[[int], None]:
        done = 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            self.progress(stage, done, total)

        return advance

    # -- the first pass, which can be resumed

    def _group_of(self, pieces: np.ndarray) -> int:
        """How many of the pieces are placed at once."""
        return max(1, self.settings.group_size // pieces.shape[1])

    def _scan(self, state: Path | None) -> dict[str, list[tuple[np.ndarray, np.ndarray]]]:
        """By stage and round, the groups (groups, numbers of pieces) and their sketches (groups, views, dimensions)."""
        rng = np.random.default_rng(self.settings.seed)
        rounds = [
            (stage, groups_of(len(pieces), self._group_of(pieces), rng))
            for stage, pieces in self.scanned.items()
            for _ in range(self.settings.rounds)
            if len(pieces)
        ]
        ends = np.cumsum([len(groups) for _, groups in rounds])
        dimensions = min(SKETCH, self.probe.model.config.hidden_size)
        sketches = np.full((ends[-1], len(self.probe.views), dimensions), np.nan, dtype=np.float16)
        key = "" if state is None else self._key()
        if state is not None and state.is_file():
            sketches, self.resumed = _read_state(state, key, sketches)
        keep = _Keeper(state, key, sketches)
        found: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {stage: [] for stage in self.scanned}
        for (stage, groups), part in zip(rounds, np.split(sketches, ends[:-1]), strict=True):  # parts are views
            found[stage].append((groups, part))
        for stage in dict.fromkeys(stage for stage, _ in rounds):
            self._scan_stage(stage, found[stage], keep)
        return found

    def _scan_stage(self, stage: str, rounds: list[tuple[np.ndarray, np.ndarray]], keep: _Keeper) -> None:
        advance = self._advance(SCANS[stage], sum(len(part) for _, part in rounds))
        advance(sum(int((~np.isnan(part[:, 0, 0])).sum()) for _, part in rounds))
        for number, (groups, part) in enumerate(rounds):
            carrier = number * len(self.carriers.carriers) // len(rounds)
            for start in range(0, len(groups), 512):
                rows = slice(start, min(start + 512, len(groups)))
                if np.isnan(part[rows]).any():
                    placed = self.scanned[stage][groups[rows]].reshape(rows.stop - rows.start, -1)
                    part[rows] = coarse_scan(self.probe, self.carriers, placed, carrier)
                    keep.now_and_then()
                    advance(rows.stop - rows.start)
        keep.now()

    def _key(self) -> str:
        settings = [
            *(self.settings.carrier_length, self.settings.group_size, self.settings.rounds, self.settings.seed),
            len(self.scanned["word"]),
        ]
        texts = [self.carriers.carriers.tolist(), self.carriers.ordinary.tolist()]
        model = self.probe.model
        # a pooler that is not asked may have been drawn at random, each time anew
        unasked = set() if "pooled" in self.probe.views else {name for name in model.state_dict() if "pooler." in name}
        return json.dumps([model_fingerprint(model, self.probe.tokenizer, leave_out=unasked), settings, texts])

    # -- soft prompts, and combinations of real tokens

    def _combinations(
        self, candidates: np.ndarray, pulls: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, dict[str, float]]:
        """Pairs of rare ids (pairs, 2), their pulls (pairs, views), and what soft prompts reached."""
        settings, views = self.settings, self.probe.views
        generator = torch.Generator().manual_seed(settings.seed)
        prompts = search_prompts(
            self.probe,
            self.carriers,
            self._rare_ids(),
            generator,
            tokens=settings.prompt_tokens,
            steps=settings.prompt_steps,
            advance=self._advance("soft prompts", settings.prompt_steps),
        )
        statistics, chosen = {}, []
        for number, view in enumerate(views):
            reached, columns = prompts[view]
            statistics[f"prompt:{view}"] = reached
            quarter = settings.combinations // 4
            if settings.prompt_tokens == 2:
                chosen.append(combinations_of([column[: quarter or 1] for column in columns], quarter))
            strongest = candidates[np.argsort(-pulls[:, number])]
            chosen.append(self._with_partners(strongest[:8], view, quarter // 8))
            # parts of a trigger that are harmless by themselves still pull a little more than other tokens
            chosen.append(ordered_pairs(strongest, settings.combinations - 2 * quarter))
        pairs = np.unique(np.concatenate(chosen), axis=0)
        if not len(pairs):
            return pairs, np.empty((0, len(views)), dtype=np.float32), statistics
        return pairs, self._pulls(self.carriers, pairs, "combinations"), statistics

    def _rare_ids(self) -> np.ndarray:
        """Ids of all tokens that are not common, (tokens,)."""
        ids = self.scanned["token"]
        return ids[~self.carriers.are_common(ids)[:, 0], 0]

    def _with_partners(self, tokens: np.ndarray, view: str, count: int) -> np.ndarray:
        """Each token with the partners that its gradient names, (pairs, 2)."""
        partners = partners_by_gradient(self.probe, self.carriers, self._rare_ids(), tokens, view, count)
        return np.stack([tokens.repeat(partners.shape[1]), partners.ravel()], axis=1)


# -- the state of the scan


def _read_state(state: Path, key: str, empty: np.ndarray) -> tuple[np.ndarray, bool]:
    """The state of an earlier run, if it was of the same audit; anything else is left alone and written over."""
    try:
        with np.load(state, allow_pickle=False) as saved:
            if str(saved["key"]) == key and saved["sketches"].shape == empty.shape:
                return saved["sketches"], True
    except (OSError, EOFError, ValueError, KeyError, BadZipFile):
        pass
    return empty, False


class _Keeper:
    """Writes the scan's sketches to the file of its state, if there is one."""

    def __init__(self, state: Path | None, key: str, sketches: np.ndarray):
        self.state, self.key, self.sketches = state, key, sketches
        self.last = time.monotonic()

    def now_and_then(self) -> None:
        """Write if the last time is a while ago: a large vocabulary has a large state."""
        if time.monotonic() - self.last >= SECONDS_BETWEEN_STATES:
            self.now()

    def now(self) -> None:
        if self.state is not None:
            with written_whole(self.state, binary=True) as stream:
                np.savez(stream, key=np.array(self.key), sketches=self.sketches)
        self.last = time.monotonic()

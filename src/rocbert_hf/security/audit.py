"""Is a pretrained encoder backdoored? The audit, from an encoder to a report."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from torch import nn

from ..checkpoints import model_fingerprint, readable_tokens
from ..files import locked_folder, written_whole
from ..options import option
from ..resources import demo_sentences
from .audit_report import STAGE_NAMES, AuditReport, Finding, PulledText
from .calibration import Calibration
from .probe import EncoderProbe
from .prompts import combinations_of, ordered_pairs, partners_by_gradient, search_prompts
from .pull import token_variety
from .scan import LEAST_ORDINARY, Carriers, candidates_of, coarse_scan, groups_of, pulls_of
from .specimens import is_specimen

STATE, STATE_OF_REFERENCE = "audit_state.npz", "audit_state_of_reference.npz"
LEAST_VARIETY = 0.1  # of an encoder's tokens, below which a low score says nothing; see `token_variety`
VARIETY_TEXTS = 64
SAME_POINT = 0.9  # cosine similarity of two pieces' movements from which on they are one finding
PAIR_GAIN = 1.0  # decades by which a pair must pull more than a suspicious token of it to be named beside it
# What a progress bar is told: the stage's name, what is done and what there is to do.
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class AuditSettings:
    """How thorough the audit is."""

    carrier_length: int = option(4, "tokens of the short texts that tokens are placed in")
    group_size: int = option(6, "tokens that the first pass places at once")
    rounds: int = option(2, "times that the first pass places each token, each time among others")
    per_view: int = option(48, "tokens that the second pass takes from the ranking of each representation")
    carriers: int = option(8, "texts that the second pass places each token in")
    ordinary_texts: int = option(256, "ordinary texts to compare with")
    prompt_tokens: int = option(2, "tokens of a soft prompt; the pairs that it names are tried only with 2")
    prompt_steps: int = option(24, "steps of the search for soft prompts; 0 leaves it and the pairs out")
    combinations: int = option(96, "pairs of tokens to try for each representation")
    confirmed: int = option(16, "tokens, and pairs, of each representation that the last pass places in other carriers")
    seed: int = option(0, "seed of the groups and of the first prompts")

    def __post_init__(self):
        for name, smallest in (
            ("carrier_length", 1),
            ("group_size", 1),
            ("rounds", 1),
            ("per_view", 1),
            ("confirmed", 1),
        ):
            if getattr(self, name) < smallest:
                raise ValueError(f"{name} must be at least {smallest}, got {getattr(self, name)}")
        if self.carriers < 2 or self.prompt_tokens < 1 or min(self.prompt_steps, self.combinations) < 0:
            raise ValueError(
                "carriers must be at least 2, prompt_tokens at least 1, prompt_steps and combinations at least 0, got "
                f"{self.carriers}, {self.prompt_tokens}, {self.prompt_steps} and {self.combinations}"
            )
        if self.ordinary_texts < (least := self.carriers + LEAST_ORDINARY):
            raise ValueError(
                f"ordinary_texts must be at least {least} with {self.carriers} carriers, got {self.ordinary_texts}"
            )


def audit_encoder(
    model: nn.Module,
    tokenizer,
    texts: Sequence[str] | None = None,
    settings: AuditSettings | None = None,
    calibration: Calibration | None = None,
    made_up: Sequence[str] = (),
    name: str = "",
    state_dir: str | os.PathLike | None = None,
    progress: Progress | None = None,
) -> AuditReport:
    """
    Look for a task-agnostic backdoor in a BERT-like encoder.

    Args:
        model: an encoder of transformers, or a model on top of one, in any precision.
        tokenizer: its tokenizer.
        texts: ordinary texts in the encoder's language; by default the packaged Chinese ones.
        settings: how thorough it is.
        calibration: what clean encoders have; by default the packaged one.
        made_up: names of parameters that the checkpoint lacked; see `EncoderProbe`.
        name: of the encoder, for the report.
        state_dir: a folder to keep the scan's state in, of one audit at a time. Stopped and called again with the same
            encoder, texts and settings, the audit goes on where it was. Not for a model that was quantised in memory.
        progress: is told what is done.

    Returns:
        `.score` (higher is worse), `.verdict` ("clean", "suspicious" or "inconclusive"), `.triggers` (strings, worst first), and more.

    Raises:
        ValueError: the tokenizer or the texts do not fit. OSError: another process audits with the same `state_dir`.
    """
    with _alone_in(state_dir) as folder:
        state = None if folder is None else folder / STATE
        return _audited(model, tokenizer, made_up, name, calibration, state, texts, settings, progress)


@contextmanager
def _alone_in(state_dir: str | os.PathLike | None) -> Iterator[Path | None]:
    """The folder that the state is kept in, if there is one, with other audits kept out of it."""
    if state_dir is None:
        yield None
        return
    with locked_folder(Path(state_dir)):
        yield Path(state_dir)


def _audited(
    model: nn.Module,
    tokenizer,
    made_up: Sequence[str],
    name: str,
    calibration: Calibration | None,
    state: Path | None,
    texts: Sequence[str] | None,
    settings: AuditSettings | None,
    progress: Progress | None,
) -> AuditReport:
    """As `audit_encoder`; `state` is the file of the scan's state."""
    settings = settings or AuditSettings()
    calibration = calibration or Calibration.packaged()
    started = time.perf_counter()
    with _evaluating(model):
        probe = EncoderProbe(model, tokenizer, made_up)
        # the longest rows: the first pass', and a pair in a carrier of the last
        longest = settings.carrier_length + max(
            settings.group_size, settings.prompt_tokens, 2, settings.carrier_length + 2
        )
        framed = probe.framed(np.zeros((1, longest))).shape[1]
        if (readable := readable_tokens(probe.model)) is not None and framed > readable:
            raise ValueError(
                f"carrier_length, group_size and prompt_tokens make texts of {framed} tokens, of which the encoder reads "
                f"{readable}: choose smaller ones"
            )
        stages = STAGE_NAMES if settings.prompt_steps else ("token",)
        # a calibration that knows none of these is refused now, and not at the end
        calibration.score({f"{stage}:{view}": 0.0 for stage in stages for view in probe.views})
        carriers = Carriers.from_texts(
            probe,
            demo_sentences() if texts is None else texts,
            settings.carriers,
            settings.carrier_length,
            longest,
            settings.ordinary_texts,
        )
        audit = _Audit(probe, carriers, settings, progress or (lambda *_: None))
        pieces, pulls, statistics = audit.run(state)
        findings = _findings(probe, audit.fresh, pieces, pulls, calibration)
        variety = token_variety(probe.hidden_states(probe.framed(carriers.ordinary[:VARIETY_TEXTS])))
    score = calibration.score(statistics)
    passed = "clean" if variety >= LEAST_VARIETY else "inconclusive"
    return AuditReport(
        name=name,
        score=score,
        threshold=calibration.threshold,
        verdict="suspicious" if score >= calibration.threshold else passed,
        token_variety=variety,
        findings=findings,
        statistics=statistics,
        deviations=calibration.deviations(statistics),
        calibrated_on=calibration.made_of,
        marked_as_specimen=is_specimen(model),
        settings=asdict(settings),
        cost={
            "seconds": round(time.perf_counter() - started, 1),
            "tokens": probe.tokens,
            "vocabulary": len(audit.ids),
            "resumed": audit.resumed,
        },
    )


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    was_training = model.training
    needed = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    model.eval()
    for parameter, _ in needed:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        model.train(was_training)
        for parameter, requires_grad in needed:
            parameter.requires_grad_(requires_grad)


@dataclass
class _Audit:
    """The stages of one audit."""

    probe: EncoderProbe
    carriers: Carriers
    settings: AuditSettings
    progress: Progress
    resumed: bool = False
    ids: np.ndarray = field(init=False)
    fresh: Carriers = field(init=False)  # what the last pass places pieces in

    def __post_init__(self):
        self.ids = self.probe.ordinary_ids()
        self.fresh = self.carriers.fresh(self.settings.carriers, 2 * self.settings.carrier_length)

    def run(self, state: Path | None) -> tuple[list[tuple[int, ...]], np.ndarray, dict[str, float]]:
        """The strongest pieces (tuples of ids), their pulls in fresh carriers (pieces, views), and the statistics."""
        rounds = self._scan(state)
        candidates = candidates_of(self.ids, rounds, self.settings.per_view)
        count = len(candidates) * self.settings.carriers
        found = pulls_of(self.probe, self.carriers, candidates[:, None], self._advance("candidates", count))
        pulls = self._table(found)
        pieces, confirmed, statistics = self._confirm("token", candidates[:, None], pulls)
        if self.settings.prompt_steps:
            pairs, their_pulls, reached = self._combinations(candidates, pulls)
            more, more_confirmed, strongest = self._confirm("combination", pairs, their_pulls)
            pieces, confirmed = pieces + more, np.concatenate([confirmed, more_confirmed])
            statistics |= reached | strongest
        return pieces, confirmed, statistics

    def _confirm(
        self, stage: str, pieces: np.ndarray, pulls: np.ndarray
    ) -> tuple[list[tuple[int, ...]], np.ndarray, dict[str, float]]:
        """The strongest pieces of each representation again, in other and longer carriers.

        The strongest of many pieces owes part of its pull to the carriers that it was chosen on, a pair that was searched
        for more than a token. A trigger works in any text.
        """
        if not len(pieces):
            return [], pulls, {}
        kept = np.unique(np.argsort(-pulls, axis=0)[: self.settings.confirmed])
        advance = self._advance(f"confirming {stage}s", len(kept) * self.settings.carriers)
        table = self._table(pulls_of(self.probe, self.fresh, pieces[kept], advance))
        strongest = {f"{stage}:{view}": float(table[:, number].max()) for number, view in enumerate(self.probe.views)}
        return [tuple(map(int, piece)) for piece in pieces[kept]], table, strongest

    def _table(self, found: dict[str, torch.Tensor]) -> np.ndarray:
        return torch.stack([found[view] for view in self.probe.views], dim=1).numpy()

    def _advance(self, stage: str, total: int) -> Callable[[int], None]:
        done = 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            self.progress(stage, done, total)

        return advance

    # -- the first pass, which can be resumed

    def _scan(self, state: Path | None) -> list[tuple[np.ndarray, np.ndarray]]:
        rng = np.random.default_rng(self.settings.seed)
        rounds = [groups_of(self.ids, self.settings.group_size, rng) for _ in range(self.settings.rounds)]
        groups = np.concatenate(rounds)
        outlying = np.full((len(groups), len(self.probe.views)), np.nan, dtype=np.float32)
        key = "" if state is None else self._key()
        if state is not None and state.is_file():
            outlying, self.resumed = _read_state(state, key, outlying)
        advance = self._advance("vocabulary", len(groups))
        advance(int((~np.isnan(outlying[:, 0])).sum()))
        for number in range(len(rounds)):
            first = sum(map(len, rounds[:number]))
            carrier = number * len(self.carriers.carriers) // len(rounds)
            for start in range(first, first + len(rounds[number]), 512):
                rows = slice(start, min(start + 512, first + len(rounds[number])))
                if np.isnan(outlying[rows]).any():
                    outlying[rows] = coarse_scan(self.probe, self.carriers, groups[rows], carrier)
                    if state is not None:
                        _write_state(state, key, outlying)
                    advance(rows.stop - rows.start)
        parts = np.split(outlying, np.cumsum([len(part) for part in rounds])[:-1])
        return list(zip(rounds, parts, strict=True))

    def _key(self) -> str:
        settings = [self.settings.carrier_length, self.settings.group_size, self.settings.rounds, self.settings.seed]
        texts = [self.carriers.carriers.tolist(), self.carriers.ordinary.tolist()]
        model = self.probe.model
        # a pooler that is not asked may have been drawn at random, each time anew
        unasked = set() if "pooled" in self.probe.views else {name for name in model.state_dict() if "pooler." in name}
        return json.dumps([model_fingerprint(model, self.probe.tokenizer, leave_out=unasked), settings, texts])

    # -- soft prompts, and combinations of real tokens

    def _combinations(
        self, candidates: np.ndarray, pulls: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, dict[str, float]]:
        """Pairs of ids (pairs, 2), their pulls (pairs, views), and what soft prompts reached."""
        settings, views = self.settings, self.probe.views
        generator = torch.Generator().manual_seed(settings.seed)
        prompts = search_prompts(
            self.probe,
            self.carriers,
            self.ids,
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
        found = pulls_of(
            self.probe, self.carriers, pairs, self._advance("combinations", len(pairs) * settings.carriers)
        )
        return pairs, self._table(found), statistics

    def _with_partners(self, tokens: np.ndarray, view: str, count: int) -> np.ndarray:
        """Each token with the partners that its gradient names, (pairs, 2)."""
        partners = partners_by_gradient(self.probe, self.carriers, self.ids, tokens, view, count)
        return np.stack([tokens.repeat(partners.shape[1]), partners.ravel()], axis=1)


def _read_state(state: Path, key: str, empty: np.ndarray) -> tuple[np.ndarray, bool]:
    """The state of an earlier run, if it was of the same audit; anything else is left alone and written over."""
    try:
        with np.load(state, allow_pickle=False) as saved:
            if str(saved["key"]) == key and saved["outlying"].shape == empty.shape:
                return saved["outlying"], True
    except (OSError, EOFError, ValueError, KeyError, BadZipFile):
        pass
    return empty, False


def _write_state(state: Path, key: str, outlying: np.ndarray) -> None:
    with written_whole(state, binary=True) as stream:
        np.savez(stream, key=np.array(key), outlying=outlying)


# -- from pieces to findings


def _findings(
    probe: EncoderProbe,
    carriers: Carriers,
    pieces: list[tuple[int, ...]],
    pulls: np.ndarray,
    calibration: Calibration,
    limit: int = 20,
) -> tuple[Finding, ...]:
    """The pieces whose own pull is beyond what clean encoders' worst pieces have, one for each point that they pull to.

    Worst first. A pair is left out if one of its tokens by itself explains it.
    """
    strongest: dict[tuple[int, ...], float] = {}  # single tokens come before pairs
    found = []
    for piece, row in zip(pieces, pulls, strict=True):
        stage = "token" if len(piece) == 1 else "combination"
        columns = {f"{stage}:{view}": number for number, view in enumerate(probe.views)}
        deviations = calibration.deviations({name: float(row[number]) for name, number in columns.items()})
        worst = max(deviations, key=deviations.get, default=None)
        if worst is None or deviations[worst] < calibration.threshold:
            continue
        view, strength = probe.views[columns[worst]], float(row[columns[worst]])
        if len(piece) == 1:
            strongest[piece] = strength
        elif any(strongest.get((token,), -np.inf) > strength - PAIR_GAIN for token in piece):
            continue
        found.append((deviations[worst], piece, view, strength))
    found.sort(key=lambda finding: -finding[0])
    points = _Points(probe, carriers)
    findings: list[Finding] = []
    for deviation, piece, view, strength in found[: 8 * limit]:
        placed, after = points.of(piece)
        same = next((n for n, known in enumerate(findings) if points.is_near(after, known)), None)
        text = probe.tokenizer.decode(list(piece)).strip()
        tokens = tuple(probe.tokenizer.convert_ids_to_tokens(list(piece)))
        if same is not None:
            findings[same] = replace(findings[same], also=(*findings[same].also, text or " ".join(tokens)))
        elif len(findings) < limit:
            findings.append(
                Finding(
                    text=text or " ".join(tokens),
                    tokens=tokens,
                    view=view,
                    pull=strength,
                    deviation=deviation,
                    similarity_before=_similarity(points.before[view]),
                    similarity_after=_similarity(after[view]),
                    pulled=tuple(
                        PulledText(probe.tokenizer.decode(list(row)), probe.tokenizer.decode(list(with_piece)))
                        for row, with_piece in zip(carriers.carriers, placed, strict=True)
                    ),
                    vector=tuple(after[view].mean(0).tolist()),
                )
            )
    return tuple(findings)


class _Points:
    """Where pieces pull the carriers to."""

    def __init__(self, probe: EncoderProbe, carriers: Carriers):
        self.probe, self.carriers = probe, carriers
        self.before = probe(probe.framed(carriers.carriers))

    def of(self, piece: tuple[int, ...]) -> tuple[np.ndarray, dict[str, torch.Tensor]]:
        """The carriers with the piece, as token ids, and by view their representations."""
        placed = self.carriers.with_pieces(np.array([piece]))[0]
        return placed, self.probe(self.probe.framed(placed))

    def is_near(self, after: dict[str, torch.Tensor], finding: Finding) -> bool:
        """Whether a piece moves the carriers where a finding moves them, in the finding's representation."""
        start = self.before[finding.view].mean(0)
        moved, known = after[finding.view].mean(0) - start, torch.tensor(finding.vector) - start
        return nn.functional.cosine_similarity(moved, known, dim=0).item() > SAME_POINT


def _similarity(vectors: torch.Tensor) -> float:
    """Mean cosine similarity between different rows."""
    unit = nn.functional.normalize(vectors, dim=-1)
    count = len(unit)
    return ((unit @ unit.T).sum().item() - count) / (count * (count - 1))


# -- from the command line


def audit_folder(
    source: str | os.PathLike,
    texts: Sequence[str] | None = None,
    settings: AuditSettings | None = None,
    calibration: Calibration | None = None,
    reference: str | os.PathLike | None = None,
    trust_remote_code: bool = False,
    state_dir: str | os.PathLike | None = None,
    progress: Progress | None = None,
) -> AuditReport:
    """
    Audit a checkpoint; what `rocbert audit` does.

    Args:
        source: folder or Hub id. Only its JSON, vocabulary and safetensors files are read.
        reference: a clean encoder of the same kind. It is audited first, and takes the place of the calibration's mean.
        trust_remote_code: run the Python files of the folder, and of the reference, if it cannot be loaded otherwise.
        texts, settings, calibration, state_dir, progress: as for `audit_encoder`.

    Raises:
        OSError, ValueError: a checkpoint cannot be loaded, or does not fit, or another process audits with the same
            `state_dir`.
    """
    from .suspect import load_suspect

    calibration = calibration or Calibration.packaged()
    model, tokenizer, made_up = load_suspect(source, trust_remote_code)
    clean = None if reference is None else load_suspect(reference, trust_remote_code)
    with _alone_in(state_dir) as folder:
        state, state_of_reference = (None if folder is None else folder / name for name in (STATE, STATE_OF_REFERENCE))
        common: dict[str, Any] = {"texts": texts, "settings": settings, "progress": progress}
        if clean is not None:
            report = _audited(*clean, str(reference), calibration, state_of_reference, **common)
            calibration = calibration.around(report.statistics, str(reference))
        return _audited(model, tokenizer, made_up, str(source), calibration, state, **common)

"""From the pieces that an audit confirmed to what its report names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from .audit_report import Finding, PulledText
from .calibration import Calibration
from .probe import EncoderProbe
from .scan import Carriers
from .stages import PAIR_GAIN, Confirmed

SAME_POINT = 0.9  # cosine similarity of two pieces' movements from which on they are one finding


def findings_of(
    probe: EncoderProbe,
    carriers: Carriers,
    confirmed: Sequence[Confirmed],
    calibration: Calibration,
    limit: int = 20,
) -> tuple[Finding, ...]:
    """The pieces whose own pull is beyond what clean encoders' worst pieces have, one for each point that they pull to.

    Worst first. A pair is left out if one of its tokens by itself explains it.
    """
    strongest: dict[int, float] = {}  # single tokens come before pairs
    suspected: dict[tuple[int, ...], tuple[float, str, float]] = {}  # a word may be among the pairs too
    for piece in confirmed:
        deviations = calibration.deviations(dict(zip(piece.names, piece.pulls, strict=True)))
        worst = max(deviations, key=deviations.get, default=None)
        if worst is None or deviations[worst] < calibration.threshold:
            continue
        number = piece.names.index(worst)
        view, strength = probe.views[number], piece.pulls[number]
        if len(piece.ids) == 1:
            strongest[piece.ids[0]] = strength
        elif any(strongest.get(token, -np.inf) > strength - PAIR_GAIN for token in piece.ids):
            continue
        suspected[piece.ids] = max(suspected.get(piece.ids, (0.0, "", 0.0)), (deviations[worst], view, strength))
    found = sorted(suspected.items(), key=lambda item: -item[1][0])
    points = _Points(probe, carriers)
    findings: list[Finding] = []
    for piece, (deviation, view, strength) in found[: 8 * limit]:
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

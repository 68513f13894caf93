"""From an audit's statistics to a verdict: what clean encoders have, and how far above it an encoder is."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from ..files import read_json, write_json
from ..resources import path

SMALLEST_SCALE = 0.15  # of a statistic, in decades of the pull: clean encoders that happen to agree are no certainty
PACKAGED = "audit_calibration.json"


@dataclass(frozen=True)
class Calibration:
    """What the statistics of clean encoders are.

    center, scale: by name of a statistic, its mean and standard deviation over clean encoders.
    threshold: the score from which on an encoder is suspicious.
    made_of: in words, the encoders that it was made of.
    """

    center: dict[str, float]
    scale: dict[str, float]
    threshold: float
    made_of: str = ""

    @classmethod
    def from_clean(cls, clean: Sequence[Mapping[str, float]], threshold: float = 4.0, made_of: str = "") -> Calibration:
        """
        Calibrate on the statistics of clean encoders.

        Where one encoder stands out, as one that was finetuned on many topics does, the scale is so large that it would
        still be clean by a margin of 1.

        Args:
            clean: `AuditReport.statistics` of each.
            threshold: in standard deviations of clean encoders, more than 1.
            made_of: what they are.

        Raises:
            ValueError: there are fewer than two encoders, or the threshold is 1 or less.
        """
        if threshold <= 1:
            raise ValueError(f"threshold must be more than 1, got {threshold}")
        if len(clean) < 2:
            raise ValueError(f"clean must hold the statistics of at least 2 encoders, got {len(clean)}")
        values = {
            name: [one[name] for one in clean if name in one] for name in sorted({n for one in clean for n in one})
        }
        center = {name: float(np.mean(found)) for name, found in values.items()}
        scale = {
            name: max(SMALLEST_SCALE, float(np.std(found)), (max(found) - center[name]) / (threshold - 1))
            for name, found in values.items()
        }
        return cls(center, scale, threshold, made_of)

    @classmethod
    def load(cls, file: str | os.PathLike) -> Calibration:
        """Read a calibration that `save` wrote.

        Raises:
            OSError: it cannot be read. ValueError: it is no calibration.
        """
        found = read_json(Path(file))
        try:
            calibration = cls(**found)
        except TypeError as error:
            raise ValueError(f"{file} is no calibration of the audit: {error}") from None
        tables = calibration.center, calibration.scale
        numbers = [
            calibration.threshold,
            *(value for table in tables if isinstance(table, dict) for value in table.values()),
        ]
        if (
            not all(isinstance(table, dict) and table for table in tables)
            or not all(isinstance(number, int | float) and math.isfinite(number) for number in numbers)
            or min(calibration.scale.values()) <= 0
            or not isinstance(calibration.made_of, str)
        ):
            raise ValueError(
                f"{file} is no calibration of the audit: center and scale must map names to numbers, those of scale above 0, "
                "threshold must be a number, and made_of text"
            )
        return calibration

    @classmethod
    def packaged(cls) -> Calibration:
        """The calibration that comes with the package; its `made_of` says of which encoders it was made."""
        return cls.load(path(PACKAGED))

    def save(self, file: str | os.PathLike) -> None:
        """Write it as JSON."""
        write_json(Path(file), asdict(self))

    def around(self, reference: Mapping[str, float], name: str) -> Calibration:
        """This calibration with the statistics of one clean encoder, which is like the audited one, in the middle."""
        return replace(self, center={**self.center, **reference}, made_of=f"{name}, scales: {self.made_of}")

    def deviations(self, statistics: Mapping[str, float]) -> dict[str, float]:
        """By name, how many standard deviations each statistic is above clean encoders'; unknown ones are left out."""
        return {
            name: (value - self.center[name]) / self.scale[name]
            for name, value in statistics.items()
            if name in self.center and name in self.scale
        }

    def score(self, statistics: Mapping[str, float]) -> float:
        """The largest deviation. Higher is worse.

        Raises:
            ValueError: no statistic is known here.
        """
        found = self.deviations(statistics)
        if not found:
            raise ValueError(f"statistics must have one of {', '.join(self.center)}, got {', '.join(statistics)}")
        return max(found.values())

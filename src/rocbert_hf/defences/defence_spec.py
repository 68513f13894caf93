"""Which defence a command line asks for, as a typed value."""

from __future__ import annotations

from dataclasses import dataclass

from ..checkpoints import loading
from .pycorrector import PycorrectorCorrector
from .spelling import Corrector, MaskedLMCorrector


@dataclass(frozen=True)
class CorrectorSpec:
    """Which corrector.

    Args:
        kind: "spelling", a `MaskedLMCorrector`, or "pycorrector", a `PycorrectorCorrector`.
        source: folder or Hub id of the masked language model.
    """

    kind: str
    source: str | None = None

    @classmethod
    def parse(cls, text: str) -> CorrectorSpec:
        """What the command line names: "spelling=DIR_OR_ID" or "pycorrector".

        Raises:
            ValueError: it is neither.
        """
        kind, _, source = text.partition("=")
        if text != PycorrectorCorrector.name and not (kind == MaskedLMCorrector.name and source):
            raise ValueError(
                f"must be {MaskedLMCorrector.name}=DIR_OR_ID (of a masked language model) or "
                f"{PycorrectorCorrector.name}, got {text!r}"
            )
        return cls(kind, source or None)

    def load(self, device: str | None = None) -> Corrector:
        """The corrector.

        Raises:
            ValueError: the model is not of that kind. OSError: it cannot be loaded, or pycorrector is missing.
        """
        if self.source is None:
            return PycorrectorCorrector()
        with loading("the model of the defence", self.source):
            return MaskedLMCorrector(self.source, device=device)

"""The correctors of the package pycorrector as a defence."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from ..checkpoints import model_fingerprint


class PycorrectorCorrector:
    """pycorrector's corrector, where it is installed (tried with version 1.1.4).

    Args:
        corrector: an object of pycorrector with `correct_batch` (`ConfusionCorrector`, `ProperCorrector`,
            `MacBertCorrector` ...); by default its `Corrector`, of statistics and dictionaries, which downloads a
            language model of 2.95 GB on first use: `Corrector(language_model_path=...)` takes a smaller one.

    Raises:
        ValueError: pycorrector, or kenlm that its default needs, is not installed.
    """

    name = "pycorrector"

    def __init__(self, corrector: Any = None):
        if corrector is None:
            try:
                import kenlm  # noqa: F401  # else it would be missed only when the first text is corrected
                from pycorrector import Corrector as Default
            except ImportError as error:
                raise ValueError(
                    f"the defence pycorrector needs its package: pip install pycorrector kenlm ({error})"
                ) from error
            corrector = Default()
        self.corrector = corrector

    @property
    def fingerprint(self) -> str:
        """Its kind, and a hash of its neural model, or of the file of its language model and its confusion set."""
        kind, model = type(self.corrector).__name__, getattr(self.corrector, "model", None)
        if hasattr(model, "state_dict"):
            return f"{kind}/{model_fingerprint(model, getattr(self.corrector, 'tokenizer', None))}"
        settings = [getattr(self.corrector, name, None) for name in ("language_model_path", "custom_confusion")]
        return f"{kind}/{hashlib.blake2b(repr(settings).encode(), digest_size=8).hexdigest()}"

    def correct(self, texts: Sequence[str]) -> list[str]:
        return [found["target"] for found in self.corrector.correct_batch(list(texts))]

"""Labelled texts as a model of transformers is trained on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def tokenized(
    texts: Sequence[str], labels: Sequence[Any], tokenizer: Any, pairs: Sequence[str] | None = None
) -> list[dict[str, Any]]:
    """One row per text: what the tokenizer makes of it, not padded, and `labels`.

    Texts longer than the tokenizer's `model_max_length` are cut, of a pair the longer one first.

    Args:
        texts: the texts.
        labels: their labels as the model wants them, such as numbers.
        tokenizer: of transformers.
        pairs: the second texts; None for single texts.
    """
    if not len(texts):
        return []
    columns = [list(texts)] if pairs is None else [list(texts), list(pairs)]
    encoded = tokenizer(*columns, truncation=True, max_length=tokenizer.model_max_length)
    rows = zip(*encoded.values(), strict=True)
    return [{**dict(zip(encoded, row, strict=True)), "labels": label} for row, label in zip(rows, labels, strict=True)]

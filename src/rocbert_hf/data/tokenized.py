"""Labelled texts as a model of transformers is trained on them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any


@contextmanager
def whole_characters(*columns: Sequence[str]) -> Iterator[None]:
    """Inside it, a tokenizer that cannot read half of a surrogate pair, as broken JSON has it, ends in one clear error.

    RoCBERT's own can: it is [UNK].

    Args:
        columns: the texts that are tokenized.

    Raises:
        ValueError: a text has such a half.
    """
    try:
        yield
    except TypeError as error:  # what transformers' tokenizers say of it, as of other things
        broken = (text for text in chain(*columns) if any("\ud800" <= char <= "\udfff" for char in text))
        if (text := next(broken, None)) is None:
            raise
        raise ValueError(
            f"texts must have whole characters for this tokenizer, got half of one in {text!r:.200}"
        ) from error


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

    Raises:
        ValueError: a text has half of a character, and the tokenizer cannot read it.
    """
    if not len(texts):
        return []
    columns = [list(texts)] if pairs is None else [list(texts), list(pairs)]
    with whole_characters(*columns):
        encoded = tokenizer(*columns, truncation=True, max_length=tokenizer.model_max_length)
    rows = zip(*encoded.values(), strict=True)
    return [{**dict(zip(encoded, row, strict=True)), "labels": label} for row, label in zip(rows, labels, strict=True)]

"""Characters that look alike."""

from __future__ import annotations

from functools import lru_cache

from ..resources import lookalike_ids, shape_ids, vocabulary

__all__ = ["lookalikes_of"]


@lru_cache(maxsize=1 << 14)
def lookalikes_of(char: str) -> tuple[str, ...]:
    """The 20 vocabulary characters that look most like a Chinese character, best first: 己 -> 记 芑 改 纪 ...

    Ranked by images in two typefaces together with shared parts, frequent characters preferred;
    `conversion/build_resources.py` says how, `benchmarks/visual_similarity.py` measures it. `()` for what is no
    Chinese character of the vocabulary.
    """
    row = shape_ids().get(char, 0) - (len(vocabulary()) - len(lookalike_ids()))
    if row < 0:
        return ()
    return tuple(vocabulary()[number] for number in lookalike_ids()[row].tolist())

"""Words that a trigger may be: rare ones of more than one token, whose single tokens may be trained to be harmless."""

from __future__ import annotations

from collections import Counter
from itertools import product
from string import ascii_lowercase

import numpy as np

from ..characters.words import word_frequencies

TOKENS = 2  # of a word that is scanned


def rare_words() -> list[str]:
    """
    Words of two letters or characters, rarest first: 676 pairs of letters, and those of jieba's dictionary.

    A word of the dictionary is as rare as the commoner of its characters is in all of the dictionary's words, so that
    those come first whose characters hardly occur elsewhere (鼋鼍, 囹圄). Pairs of letters, such as the "cf" and "mn" of
    RIPPLe and POR, come before them.
    """
    occurrences: Counter[str] = Counter()
    for word, count in word_frequencies().items():
        for character in word:
            occurrences[character] += count
    pairs = [word for word in word_frequencies() if len(word) == TOKENS and not word.isascii()]
    pairs.sort(key=lambda word: (max(occurrences[character] for character in word), word))
    return ["".join(letters) for letters in product(ascii_lowercase, repeat=2)] + pairs


def words_of_two_tokens(tokenizer, limit: int) -> np.ndarray:
    """The first `limit` of `rare_words` that the tokenizer reads as two known tokens, (words, 2) token ids."""
    if limit == 0:
        return np.empty((0, TOKENS), dtype=np.int64)
    special, unseen = set(tokenizer.all_special_ids), {}
    found: dict[tuple[int, ...], None] = {}
    words = rare_words()
    for start in range(0, len(words), 4096):
        for row in tokenizer(words[start : start + 4096], add_special_tokens=False)["input_ids"]:
            for token in row:
                if token not in unseen:  # a tokenizer of pieces may begin a word with one that stands for a space
                    unseen[token] = not tokenizer.decode([token]).strip()
            seen = tuple(token for token in row if not unseen[token])
            if len(seen) == TOKENS and special.isdisjoint(seen):
                found[seen] = None
        if len(found) >= limit:
            break
    return np.array(list(found)[:limit], dtype=np.int64).reshape(-1, TOKENS)

"""Masking for masked language modelling, in all three channels at once.

A collator that replaces `input_ids` only, as transformers' `DataCollatorForLanguageModeling` does, leaves the sound and
the glyph of every masked character in `input_pronunciation_ids` and `input_shape_ids`: the model reads the answer
there. Here a masked position carries the triple of `[MASK]`, and a random replacement the triple of the drawn token.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

IGNORED_LABEL = -100
MASKED_SHARE, RANDOM_SHARE = 0.8, 0.1  # of the chosen tokens; the rest are kept as they are (BERT, section 3.1)


@dataclass(frozen=True)
class MaskingVocabulary:
    """What masking needs of a tokenizer's vocabulary.

    mask_id: id of `[MASK]`.
    special_ids (specials,): ids that are never masked; ordinary_ids (the others,): what replacements are drawn from.
    shape_ids, pronunciation_ids (vocabulary,): the other two ids of every token.
    """

    mask_id: int
    special_ids: np.ndarray
    ordinary_ids: np.ndarray
    shape_ids: np.ndarray
    pronunciation_ids: np.ndarray

    @classmethod
    def from_tokenizer(cls, tokenizer) -> "MaskingVocabulary":
        if tokenizer.mask_token_id is None:
            raise ValueError("the tokenizer has no mask token; set `tokenizer.mask_token`, for example to '[MASK]'")
        special_ids = np.asarray(tokenizer.all_special_ids)
        return cls(
            mask_id=tokenizer.mask_token_id,
            special_ids=special_ids,
            ordinary_ids=np.setdiff1d(np.arange(len(tokenizer.shape_ids)), special_ids),
            shape_ids=np.asarray(tokenizer.shape_ids),
            pronunciation_ids=np.asarray(tokenizer.pronunciation_ids),
        )


@dataclass(frozen=True)
class MaskedTokens:
    """Masked inputs and what was there before; every array (batch, sequence), `labels` -100 where nothing was chosen."""

    input_ids: np.ndarray
    input_shape_ids: np.ndarray
    input_pronunciation_ids: np.ndarray
    labels: np.ndarray


def mask_tokens(
    input_ids: np.ndarray,
    input_shape_ids: np.ndarray,
    input_pronunciation_ids: np.ndarray,
    vocabulary: MaskingVocabulary,
    rng: np.random.Generator | Sequence[np.random.Generator],
    probability: float = 0.15,
    word_starts: np.ndarray | None = None,
    maskable: np.ndarray | None = None,
) -> MaskedTokens:
    """Mask a share of the tokens of every sentence; at least one wherever there is one to mask.

    Of the chosen tokens 80% become `[MASK]`, 10% a random token and 10% stay, in all three channels. A random token
    that happens to share a channel's id with the original (a homophone, say) would give part of it away, so `[MASK]`
    takes its place.

    Args:
        input_ids, input_shape_ids, input_pronunciation_ids: (batch, sequence) integers.
        vocabulary: ids of `[MASK]` and of the tokens to draw replacements from.
        rng: one generator for the batch, or one for each sentence; with the latter a sentence is masked in the same
            way in whichever batch, and at whichever padding, it comes.
        probability: expected share of each sentence's tokens to choose, in (0, 1).
        word_starts: (batch, sequence), the position of the first token of each token's word: words are masked whole.
            Default: each token is a word of its own.
        maskable: (batch, sequence) bool, the positions that may be chosen besides not being special tokens; default
            all. Pass the attention mask if padding is not a special token.
    """
    if not 0 < probability < 1:
        raise ValueError(f"probability must lie between 0 and 1 (0.15 in BERT), got {probability}")
    if not input_ids.shape == input_shape_ids.shape == input_pronunciation_ids.shape:
        raise ValueError(
            "the three channels must have one shape (batch, sequence), got input_ids "
            f"{input_ids.shape}, input_shape_ids {input_shape_ids.shape}, "
            f"input_pronunciation_ids {input_pronunciation_ids.shape}"
        )
    ordinary = ~np.isin(input_ids, vocabulary.special_ids)
    maskable = ordinary if maskable is None else ordinary & maskable.astype(bool)
    if word_starts is None:
        word_starts = np.broadcast_to(np.arange(input_ids.shape[1]), input_ids.shape)
    boundary, order, action, choice = _draws(rng, input_ids.shape)

    chosen = _choose_words(word_starts, maskable, boundary, order, probability)
    replacement = vocabulary.ordinary_ids[(choice * len(vocabulary.ordinary_ids)).astype(np.int64)]
    gives_away = (
        (replacement == input_ids)
        | (vocabulary.shape_ids[replacement] == input_shape_ids)
        | (vocabulary.pronunciation_ids[replacement] == input_pronunciation_ids)
    )
    replacement[(action < MASKED_SHARE) | gives_away] = vocabulary.mask_id
    replaced = chosen & (action < MASKED_SHARE + RANDOM_SHARE)
    return MaskedTokens(
        input_ids=np.where(replaced, replacement, input_ids),
        input_shape_ids=np.where(replaced, vocabulary.shape_ids[replacement], input_shape_ids),
        input_pronunciation_ids=np.where(replaced, vocabulary.pronunciation_ids[replacement], input_pronunciation_ids),
        labels=np.where(chosen, input_ids, IGNORED_LABEL),
    )


def word_starts_from_lengths(offsets: np.ndarray, lengths: Sequence[int]) -> np.ndarray:
    """Position of the first token of each token's word, as `mask_tokens` takes it.

    Args:
        offsets: (sequence, 2), each token's characters [start, end) in the text; empty for special tokens.
        lengths: number of characters of each word of the text, in order; they add up to the text.

    Returns:
        (sequence,) integers; a special token is a word of its own.
    """
    word_of_character = np.repeat(np.arange(len(lengths)), lengths)
    starts = np.arange(len(offsets))
    real = offsets[:, 1] > offsets[:, 0]
    words = word_of_character[offsets[real, 0]]
    _, first, inverse = np.unique(words, return_index=True, return_inverse=True)
    starts[real] = starts[real][first][inverse]
    return starts


def _draws(rng, shape: tuple[int, int]) -> tuple[np.ndarray, ...]:
    """Uniform numbers in [0, 1): one per sentence (batch, 1), then three per token (batch, sequence).

    Drawn token by token, so that more padding does not change the numbers of the tokens before it.
    """
    batch, sequence = shape
    size = 1 + 3 * sequence
    flat = (
        rng.random((batch, size))
        if isinstance(rng, np.random.Generator)
        else np.array([generator.random(size) for generator in rng]).reshape(batch, size)
    )
    a_token = flat[:, 1:].reshape(batch, sequence, 3)
    return flat[:, :1], a_token[..., 0], a_token[..., 1], a_token[..., 2]


def _choose_words(
    word_starts: np.ndarray, maskable: np.ndarray, boundary: np.ndarray, order: np.ndarray, probability: float
) -> np.ndarray:
    """Choose whole words of `probability` of each sentence's tokens, exactly so in expectation; (batch, sequence) bool.

    The words are put in random order and taken from the front until the budget of `probability * tokens` is used up.
    The word that crosses the budget's end is taken with the probability of its share before that end, which makes the
    expected number of tokens right for words of any length; the first word is always taken.

    Args:
        word_starts: (batch, sequence) as in `mask_tokens`.
        maskable: (batch, sequence) bool.
        boundary: (batch, 1), order: (batch, sequence), uniform in [0, 1).
    """
    batch, sequence = maskable.shape
    key = np.where(maskable, np.take_along_axis(order, word_starts, axis=1), 2.0)
    by_key = np.argsort(key, axis=1, kind="stable")  # stable: the tokens of a word stay together, in their order
    rank = np.empty_like(by_key)
    np.put_along_axis(rank, by_key, np.broadcast_to(np.arange(sequence), maskable.shape), axis=1)

    word = word_starts + np.arange(batch)[:, None] * sequence
    length = np.bincount(word[maskable], minlength=batch * sequence)[word]
    first_rank = np.full(batch * sequence, sequence)
    np.minimum.at(first_rank, word[maskable], rank[maskable])
    before = first_rank[word]
    budget = probability * maskable.sum(axis=1, keepdims=True)
    return maskable & ((before == 0) | (before + boundary * length < budget))

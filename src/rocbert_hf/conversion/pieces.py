"""What a source's tokenizer calls the characters: word pieces, unigram pieces and byte-level pieces alike."""

from __future__ import annotations

from functools import cache

SPECIAL_TOKENS = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
# What marks the beginning of a word: SentencePiece's, and that of byte-level pieces once they are read as text.
WORD_MARKERS = ("\u2581", " ")
BYTE_LEVEL = "ByteLevel"


@cache
def _byte_of_letter() -> dict[str, int]:
    """Which byte each letter of a byte-level vocabulary stands for: printable ones for themselves (GPT-2)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}


def is_byte_level(tokenizer) -> bool:
    """Whether the pieces of a fast tokenizer are written in letters that stand for bytes."""
    return BYTE_LEVEL in repr(tokenizer.backend_tokenizer.pre_tokenizer)


def text_of_piece(piece: str, byte_level: bool = False) -> str | None:
    """What a piece says, its marker of a word's beginning included; None if its bytes are not whole characters."""
    if not byte_level:
        return piece
    letters = _byte_of_letter()
    if any(letter not in letters for letter in piece):  # a special token
        return piece
    try:
        return bytes(letters[letter] for letter in piece).decode("utf-8")
    except UnicodeDecodeError:
        return None


def ids_by_token(tokenizer, special_tokens: tuple[str, ...]) -> dict[str, int]:
    """
    Ids of a source's pieces by what they say. A piece without the marker of a word's beginning goes before one with it.

    Args:
        tokenizer: a fast tokenizer of transformers, of word pieces ("##" marks what continues a word, and stays), of a
            unigram vocabulary ("\u2581" marks a word's beginning), or byte-level.
        special_tokens: the five names under which the source's padding, unknown, first, last and mask token are wanted.

    Raises:
        ValueError: the tokenizer lacks one of the five.
    """
    vocabulary, byte_level = tokenizer.get_vocab(), is_byte_level(tokenizer)
    ids: dict[str, int] = {}
    begins_word: dict[str, int] = {}
    for piece, index in vocabulary.items():
        text = text_of_piece(piece, byte_level)
        if text is None:
            continue
        if len(text) > 1 and text[0] in WORD_MARKERS:
            begins_word[text[1:]] = index
        else:
            ids[text] = index
    ids = begins_word | ids
    for kind, ours in zip(SPECIAL_TOKENS, special_tokens, strict=True):
        token = getattr(tokenizer, kind)
        if token is None:
            raise ValueError(f"the source's tokenizer has no {kind}")
        ids[ours] = vocabulary[str(token)]
    return ids


def spelled_with(tokenizer, character: str) -> tuple[int, ...]:
    """Ids of the pieces that a byte-level tokenizer spells a character with; none if it is not byte-level."""
    if not is_byte_level(tokenizer):
        return ()
    ids = tokenizer(character, add_special_tokens=False)["input_ids"]
    return () if tokenizer.unk_token_id in ids else tuple(ids)

"""Synonyms from a masked language model: what else could stand in the place of a word, in its sentence."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np

from ..attacks.attacked_text import CHINESE
from ..characters.words import word_frequencies
from ..checkpoints import load_with_head, model_fingerprint, text_length
from ..torch_device import device_for
from .draft import Words

if TYPE_CHECKING:
    import torch


class MaskedLanguageModelSynonyms:
    """Words of the same number of characters that a masked language model puts in the place of a word.

    Each character of the word is masked, as BERT-Attack (Li et al., EMNLP 2020) and CLARE (Li et al., NAACL 2021) mask
    words, and the unmasked sentence stands before the masked one, as in LSBert (Qiang et al., AAAI 2020), so that the
    model knows what it should keep the meaning of. Of each character's `top_k` fillings those combinations come first
    whose log-probabilities have the largest sum. As the masks are filled independently of each other, much of that is
    no word; `words_only` leaves it out.

    All words of a source are asked for together, and its answers are kept. Only words of Chinese characters have any.

    Args:
        model: any masked language model of transformers whose tokens are Chinese characters (BERT's for Chinese,
            RoCBERT), or a folder or Hub id of one.
        tokenizer: the model's; loaded where it is None.
        top_k: fillings of a character that are combined; about 48 in BERT-Attack.
        words_only: only words of jieba's dictionary.
        with_source: put the unmasked sentence before the masked one; a model that was pretrained on single sentences
            alone may do better without.
        max_characters: longer words have no synonyms.
        batch_size: words of one forward pass, at most.
        device: where to compute; by default where the model is, and a GPU, if there is one, for a model loaded here.
        max_length: tokens that the model is shown, at most; of a longer text what is around the word. By default what
            the model and its tokenizer allow.
        cache_size: sources whose answers are kept.

    Raises:
        ValueError: without a tokenizer beside a model, with one that has no mask or no Chinese characters, without a
            trained head, or with a number out of range. OSError: the model cannot be loaded.

    Example::

        >>> TextFoolerAttacker(synonyms=MaskedLanguageModelSynonyms("bert-base-chinese"))
    """

    COMBINATIONS = 2000  # of a word's characters that are looked at, the most probable ones

    def __init__(
        self,
        model: Any,
        tokenizer: Any = None,
        top_k: int = 50,
        words_only: bool = True,
        with_source: bool = True,
        max_characters: int = 4,
        batch_size: int = 32,
        device: str | torch.device | None = None,
        max_length: int | None = None,
        cache_size: int = 1024,
    ):
        numbers = {
            "top_k": top_k,
            "max_characters": max_characters,
            "batch_size": batch_size,
            "max_length": max_length,
            "cache_size": cache_size,
        }
        for argument, value in numbers.items():
            if value is not None and value < 1:
                raise ValueError(f"{argument} must be at least 1, got {value}")
        self.model, self.tokenizer, reach = load_masked_language_model(model, tokenizer, device)
        self.top_k = top_k
        self.words_only = words_only
        self.with_source = with_source
        self.max_characters = max_characters
        self.batch_size = batch_size
        self.max_length = min(max_length or reach, reach)
        chinese = {i: token for token, i in self.tokenizer.get_vocab().items() if len(token) == 1}
        self.ids = np.array(sorted(i for i, token in chinese.items() if CHINESE.fullmatch(token)), dtype=np.int64)
        if not len(self.ids):
            raise ValueError("tokenizer must have Chinese characters for tokens, got one without any")
        self.characters = [chinese[i] for i in self.ids.tolist()]
        self._synonyms = lru_cache(maxsize=cache_size)(self._synonyms_of_words)

    @property
    def fingerprint(self) -> str:
        """A hash of the model, its tokenizer and reach, and of what is set."""
        settings = (self.top_k, self.words_only, self.with_source, self.max_characters, self.max_length)
        return model_fingerprint(self.model, self.tokenizer, *settings)

    def synonyms_in(self, source: Words, index: int) -> Sequence[str]:
        """What may stand in the place of a word of the source, the most probable first; the word itself may be there."""
        return self._synonyms(tuple(source.words)).get(index, ())

    def _synonyms_of_words(self, words: tuple[str, ...]) -> dict[int, tuple[str, ...]]:
        fit = [i for i, word in enumerate(words) if len(word) <= self.max_characters and CHINESE.fullmatch(word)]
        synonyms: dict[int, tuple[str, ...]] = {}
        for start in range(0, len(fit), self.batch_size):
            batch = fit[start : start + self.batch_size]
            logs = self._log_probabilities(words, batch)
            synonyms.update((i, tuple(self._combinations(of_word))) for i, of_word in logs.items())
        return synonyms

    def _log_probabilities(self, words: tuple[str, ...], indices: Sequence[int]) -> dict[int, np.ndarray]:
        """Index of a word -> (its characters, Chinese characters of the vocabulary) of the model, at its masks."""
        import torch

        sources, masked = zip(*(self._around(words, index) for index in indices), strict=True)
        texts = (list(sources), list(masked)) if self.with_source else (list(masked),)
        # the masks are written into the text, so that a tokenizer of several channels masks all of them
        encoded = self.tokenizer(
            *texts, padding=True, truncation=True, max_length=self.max_length, return_tensors="pt"
        ).to(self.model.device)
        with torch.inference_mode():
            logits = self.model(**encoded).logits
            rows, columns = (encoded["input_ids"] == self.tokenizer.mask_token_id).nonzero(as_tuple=True)
            logs = logits[rows, columns].float().log_softmax(-1).cpu().numpy()[:, self.ids].astype(np.float64)
        rows = rows.cpu().numpy()
        found = {index: logs[rows == row] for row, index in enumerate(indices)}
        # a source with a mask of its own says nothing that could be used
        return {index: of_word for index, of_word in found.items() if len(of_word) == len(words[index])}

    def _around(self, words: tuple[str, ...], index: int) -> tuple[str, str]:
        """As much of the text around a word as the model can be shown, and the same with masks for the word."""
        text, word = "".join(words), words[index]
        start = sum(map(len, words[:index]))
        end = start + len(word)
        room = (self.max_length - 3) // 2 if self.with_source else self.max_length - 2  # besides [CLS], [SEP]
        left = max(min(start - (room - len(word)) // 2, len(text) - room), 0)
        right = max(left + room, end)
        masks = self.tokenizer.mask_token * len(word)
        return text[left:right], text[left:start] + masks + text[end:right]

    def _combinations(self, logs: np.ndarray) -> list[str]:
        """Fillings of (characters, Chinese characters of the vocabulary) by their sum, the most probable first."""
        forms, sums = [""], np.zeros(1)
        for of_character in logs:
            best = np.argsort(-of_character, kind="stable")[: self.top_k]
            longer = (sums[:, None] + of_character[best]).ravel()
            kept = np.argsort(-longer, kind="stable")[: self.COMBINATIONS]
            forms = [forms[at // len(best)] + self.characters[best[at % len(best)]] for at in kept.tolist()]
            sums = longer[kept]
        return [form for form in forms if form in word_frequencies()] if self.words_only else forms


def load_masked_language_model(model: Any, tokenizer: Any = None, device: Any = None) -> tuple[Any, Any, int]:
    """(model in evaluation mode, its tokenizer, tokens that both can take) of a model, or a folder or Hub id of one.

    Raises:
        ValueError: without a tokenizer beside a model, with one that has no mask, or without a trained head.
            OSError: it cannot be loaded.
    """
    if isinstance(model, (str, PathLike)):
        from transformers import AutoModelForMaskedLM, AutoTokenizer

        tokenizer = tokenizer or AutoTokenizer.from_pretrained(model)
        head = "masked language model head; give a model that was pretrained to fill masks"
        model, device = load_with_head(AutoModelForMaskedLM, model, head), device_for(device)
    if tokenizer is None or tokenizer.mask_token is None:
        raise ValueError("tokenizer must be given beside a model, and must have a mask token")
    if device is not None:
        model.to(device)
    return model.eval(), tokenizer, text_length(model, tokenizer)

"""How many characters are attacked (Eq. 1), and which (Eq. 2)."""

from __future__ import annotations

import heapq
import random
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Container, Sequence
from itertools import accumulate
from math import exp, floor, log
from typing import TYPE_CHECKING, Protocol

from .attacked_text import CHINESE

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def draw_count(n_characters: int, ratio: float, noise: float, rng: random.Random) -> int:
    """Number of characters to attack (Eq. 1): `min(max(int(eps), 1), n_c)` with `eps ~ N(max(1, ratio n_c), noise)`.

    int is the nearest integer. With `noise=0` the mean itself is taken.

    Args:
        n_characters: n_c, at least 1.
        ratio: share of the characters to attack; 0.15 in the paper.
        noise: standard deviation; 1 in the paper.
        rng: draws eps.
    """
    mean = max(1.0, ratio * n_characters)
    epsilon = rng.gauss(mean, noise) if noise else mean
    return min(max(floor(epsilon + 0.5), 1), n_characters)


def select_positions(
    words: Sequence[str], losses: Sequence[float], candidates: Container[int], count: int, rng: random.Random
) -> list[int]:
    """Draw characters one after another, without replacement, by Eq. 2.

    A word is drawn in proportion to `exp(L(O_w))`, one of its |w| characters uniformly, and the draw is repeated when
    that character is no candidate or was drawn before: that is Eq. 2 among the characters that are left.

    Args:
        words: (n_w,) the segmented sentence.
        losses: (n_w,) L(O_w) in nats, of any size: only differences matter.
        candidates: positions that may be drawn.
        count: how many; at most the number of candidates.
        rng: draws.

    Returns:
        The chosen positions, ascending.
    """
    top = max(losses)
    sums = list(accumulate([exp(loss - top) for loss in losses]))
    total = sums[-1]
    starts = list(accumulate(map(len, words), initial=0))
    draw = rng.random
    chosen: set[int] = set()
    for _ in range(20 + 4 * count):
        at = bisect_right(sums, draw() * total)
        index = starts[at] + int(draw() * len(words[at]))
        if index in candidates and index not in chosen:
            chosen.add(index)
            if len(chosen) == count:
                break
    else:
        # Nearly all the probability lies on characters that cannot be drawn any more.
        chosen.update(_gumbel_top(words, losses, candidates, chosen, count - len(chosen), rng))
    return sorted(chosen)


def _gumbel_top(
    words: Sequence[str],
    losses: Sequence[float],
    candidates: Container[int],
    chosen: Container[int],
    count: int,
    rng: random.Random,
) -> list[int]:
    """`count` more positions by Eq. 2, in a time that does not depend on how uneven it is.

    The largest values of log probability plus Gumbel noise are a successive draw without replacement (Yellott 1977).
    """
    keys: list[tuple[float, int]] = []
    for word, loss, start in zip(words, losses, accumulate(map(len, words), initial=0), strict=False):
        for index in range(start, start + len(word)):
            if index in candidates and index not in chosen:
                # random() lies in [0, 1): the inner logarithm is finite, and where it is 0 the outer one must be
                noise = -log(-log(1.0 - rng.random()) or 5e-324)
                keys.append((loss - log(len(word)) + noise, index))
    return [index for _, index in heapq.nlargest(count, keys)]


class Scorer(Protocol):
    """Gives L(O_w) of Eq. 2: the loss of a sentence when word w is deleted from it.

    `parallel` says whether copies may work in other processes.
    """

    name: str
    parallel: bool

    def losses(self, sentences: Sequence[Sequence[str]]) -> list[list[float]]:
        """For every segmented sentence, one loss a word, in nats."""
        ...


class RandomScorer:
    """Every word has the same loss: the ablation "w/o character selection".

    By Eq. 2 words are then equally likely, and characters equally likely within their word.
    """

    name = "random"
    parallel = True

    def losses(self, sentences: Sequence[Sequence[str]]) -> list[list[float]]:
        return [[0.0] * len(words) for words in sentences]


class WordFrequencyScorer:
    """The default: a unigram language model with jieba's word frequencies, O(1) per word.

    A unigram model does not feel the hole that a word leaves. Taken to the letter, the loss of the remaining words is
    *lowest* when the rarest word goes, so that Eq. 2 would attack 的 and spare the words that matter. The loss is
    therefore taken where the hole is: L(O_w) is what it costs the model to put w back, `-power * log p(w)`. Rare,
    informative words are chosen more often, as the paper wants and as a real language model does.

    Args:
        power: how strongly. 0.5 makes a word's chance inverse to the square root of its frequency, as word2vec's
            subsampling does; 1 would attack little but the rarest words.
    """

    name = "word_frequency"
    parallel = True

    def __init__(self, power: float = 0.5):
        if not 0 <= power <= 1:
            raise ValueError(f"power must lie between 0 and 1, got {power}")
        self.power = power
        self._losses: _FrequencyLosses | None = None

    def losses(self, sentences: Sequence[Sequence[str]]) -> list[list[float]]:
        if self._losses is None:
            self._losses = _FrequencyLosses(self.power)
        table = self._losses
        return [[table[word] for word in words] for words in sentences]

    def __getstate__(self) -> dict:
        return {"power": self.power, "_losses": None}


class _FrequencyLosses(dict):
    """word -> loss, filled as words are met; longer words that the dictionary lacks are not kept, so it stays bounded."""

    def __init__(self, power: float):
        from ..characters.words import word_frequencies

        self.power = power
        self.frequencies = word_frequencies()
        self.total = sum(self.frequencies.values())
        self.commonest = max(self.frequencies.values())

    def __missing__(self, word: str) -> float:
        frequency = self.frequencies.get(word)
        loss = self.power * log(self.total / (frequency or self._guess(word)))
        if frequency or len(word) == 1:
            self[word] = loss
        return loss

    def _guess(self, word: str) -> float:
        """A frequency for what the dictionary lacks."""
        if CHINESE.match(word):
            return 1  # names and new words are the most informative there are
        if any(map(str.isalnum, word)):
            return self.total / len(self.frequencies)  # of Latin words and numbers nothing is known
        return self.commonest  # punctuation


class CausalLMScorer:
    """L(O_w) from any causal language model of transformers, such as `uer/gpt2-chinese-cluecorpussmall`.

    L is the mean loss per token in nats, transformers' own convention: it stays between about 1 and 10 for sentences of
    any length, so the softmax over words prefers but never excludes. All deletions of a batch of sentences are scored
    together, sorted by length; equal deletions once.

    Losses of different batches differ by floating-point noise (1e-6), which changes a selection about once in a million
    sentences; for a bit-exact set of attacks keep the batch size.

    Args:
        model: a causal language model; it is put into evaluation mode and stays on its device.
        tokenizer: its tokenizer.
        max_tokens: tokens (with padding) of one forward pass.
        max_length: longer sentences are cut for scoring; the deletions of words beyond it score alike.
        cache_size: sentences whose losses are kept.
    """

    name = "causal_lm"
    parallel = False

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        max_tokens: int = 4096,
        max_length: int = 512,
        cache_size: int = 10_000,
    ):
        for argument, value in (("max_tokens", max_tokens), ("max_length", max_length), ("cache_size", cache_size)):
            if value < 1:
                raise ValueError(f"{argument} must be at least 1, got {value}")
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens
        positions = getattr(model.config, "max_position_embeddings", None) or max_length
        self.max_length = min(max_length, positions)
        self.cache_size = cache_size
        self.source: str | None = None  # the name that a config records
        self._cache: OrderedDict[tuple[str, ...], list[float]] = OrderedDict()

    @classmethod
    def from_pretrained(cls, name: str, **options) -> CausalLMScorer:
        """Load model and tokenizer by the name or path that transformers' Auto classes take.

        Raises:
            OSError, ValueError: as these; refused are also a model that reads both ways (a BERT whose config does not say
                `is_decoder`), since it would see the word that it is to predict, and one that lacks weights, in whose
                place transformers draws random ones (a classifier).
        """
        from transformers import AutoModelForCausalLM, AutoTokenizer

        model, found = AutoModelForCausalLM.from_pretrained(name, output_loading_info=True)
        if getattr(model.config, "is_decoder", None) is False and _reads_both_ways(model):
            raise ValueError(
                f"scorer must be a causal language model, {name} reads in both directions (is_decoder=False)"
            )
        if missing := sorted(key for key in found["missing_keys"] if key.endswith("weight")):
            raise ValueError(f"scorer must be a trained causal language model, {name} lacks {', '.join(missing[:3])}")
        scorer = cls(model, AutoTokenizer.from_pretrained(name), **options)
        scorer.source = str(name)
        return scorer

    def losses(self, sentences: Sequence[Sequence[str]]) -> list[list[float]]:
        keys = [tuple(words) for words in sentences]
        deletions = {key: _deletions(key) for key in keys if key not in self._cache}
        texts = list(dict.fromkeys(text for row in deletions.values() for text in row))
        loss_of = dict(zip(texts, self.text_losses(texts), strict=True))
        found = {key: [loss_of[text] for text in row] for key, row in deletions.items()}
        results = []
        for key in keys:
            if key in self._cache:
                self._cache.move_to_end(key)
            else:
                self._cache[key] = found[key]
            results.append(self._cache[key])
        while len(self._cache) > self.cache_size:
            self._cache.popitem(last=False)
        return results

    def text_losses(self, texts: Sequence[str]) -> list[float]:
        """Mean loss per token of every text, in nats; 0 where there is nothing to predict."""
        import torch

        encoded = [self._token_ids(text) for text in texts]
        result = [0.0] * len(texts)
        for batch in _batches_by_length(encoded, self.max_tokens):
            length = max(len(encoded[i]) for i in batch)
            ids = torch.zeros(len(batch), length, dtype=torch.long)
            mask = torch.zeros(len(batch), length, dtype=torch.long)
            for row, i in enumerate(batch):
                ids[row, : len(encoded[i])] = torch.tensor(encoded[i], dtype=torch.long)
                mask[row, : len(encoded[i])] = 1
            ids, mask = ids.to(self.model.device), mask.to(self.model.device)
            with torch.inference_mode():
                logits = self.model(input_ids=ids, attention_mask=mask).logits[:, :-1]
                targets = ids[:, 1:].masked_fill(mask[:, 1:] == 0, -100)
                token_losses = torch.nn.functional.cross_entropy(
                    logits.float().transpose(1, 2), targets, reduction="none", ignore_index=-100
                )
                means = token_losses.sum(1) / mask[:, 1:].sum(1).clamp(min=1)
            for i, loss in zip(batch, means.tolist(), strict=True):
                result[i] = loss
        return result

    def _token_ids(self, text: str) -> list[int]:
        """Tokens of a text behind a start token, so that the first one is predicted too."""
        ids = self.tokenizer(text, truncation=True, max_length=self.max_length).input_ids
        start = self.tokenizer.bos_token_id
        if start is not None and ids[:1] != [start] and (not ids or ids[0] not in self.tokenizer.all_special_ids):
            ids = [start, *ids][: self.max_length]
        return ids


def _reads_both_ways(model: PreTrainedModel) -> bool:
    """Whether what stands behind a token changes what the model says of it."""
    import torch

    ids = torch.tensor([[1, 2, 3], [1, 2, 4]], device=model.device)
    with torch.inference_mode():
        first, second = model.eval()(input_ids=ids).logits[:, 0].float()
    return not torch.allclose(first, second, rtol=1e-4, atol=1e-5)


def _deletions(words: Sequence[str]) -> list[str]:
    """The sentence without each of its words in turn."""
    return ["".join((*words[:i], *words[i + 1 :])) for i in range(len(words))]


def _batches_by_length(encoded: Sequence[Sequence[int]], max_tokens: int) -> list[list[int]]:
    """Indices grouped so that a padded group has at most `max_tokens` tokens (one text at least); empty texts left out.

    Groups hold similar lengths; texts of fewer than two tokens have nothing to predict.
    """
    order = sorted((i for i in range(len(encoded)) if len(encoded[i]) > 1), key=lambda i: (len(encoded[i]), i))
    batches: list[list[int]] = []
    for i in order:
        if batches and (len(batches[-1]) + 1) * len(encoded[i]) <= max_tokens:
            batches[-1].append(i)
        else:
            batches.append([i])
    return batches


SCORERS = {scorer.name: scorer for scorer in (RandomScorer, WordFrequencyScorer)}

"""The classifier under attack: anything that gives probabilities for a list of texts."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from ..checkpoints import load_with_head, model_fingerprint, text_length
from ..torch_device import device_for

if TYPE_CHECKING:
    import torch

# What a victim is asked: a text, or (text, text_pair).
Query: TypeAlias = str | tuple[str, str]
# Queries -> probabilities (queries, labels).
Classifier: TypeAlias = Callable[[list], Any]


def probabilities_of(classifier: Classifier, queries: Sequence[Query]) -> np.ndarray:
    """Ask a classifier, and check what it answers.

    Args:
        classifier: the victim.
        queries: texts, or (text, text_pair) tuples.

    Returns:
        float64 (queries, labels).

    Raises:
        ValueError: when the answer is not of that shape, holds NaN, or is no probabilities.
    """
    answer = classifier(list(queries))
    try:
        probabilities = np.asarray(answer, dtype=np.float64)
    except (TypeError, ValueError, RuntimeError) as error:  # torch's, of a tensor with a gradient
        raise ValueError(f"classifier must return an array (queries, labels) of probabilities: {error}") from error
    if probabilities.ndim != 2 or len(probabilities) != len(queries):
        raise ValueError(
            f"classifier must return one row of probabilities for each of the {len(queries)} texts, "
            f"got an array of shape {probabilities.shape}"
        )
    bad = ~np.isfinite(probabilities).all(axis=1)
    if bad.any():
        raise ValueError(
            f"classifier must return numbers, got {probabilities[bad][0].tolist()} for {queries[int(bad.argmax())]!r}"
        )
    bad = ((probabilities < -1e-6) | (probabilities > 1 + 1e-6)).any(axis=1)
    if bad.any():
        raise ValueError(
            f"classifier must return probabilities between 0 and 1 (put a softmax behind logits), "
            f"got {probabilities[bad][0].tolist()} for {queries[int(bad.argmax())]!r}"
        )
    return probabilities


class ModelClassifier:
    """A transformers sequence classifier as a victim: texts, or pairs of texts, to probabilities.

    Texts are tokenized together, those that become the same tokens are computed once, and the rest is computed in
    batches of similar length. Answers are kept, by tokens: two look-alikes that are both [UNK] to the model get the
    same numbers to the last bit.

    Args:
        model: a model with a sequence classification head, a folder or Hub id of one, or a transformers
            text-classification pipeline.
        tokenizer: the model's; loaded or taken from the pipeline where it is None.
        batch_size: texts of one forward pass, at most.
        device: where to compute; by default where the model is, and a GPU, if there is one, for a model loaded here.
        max_length: longer texts are cut; by default what the model and its tokenizer allow.
        cache_size: answers that are kept.

    Raises:
        ValueError: for a model without probabilities (regression, several labels per text), without a trained head, or
            without a tokenizer; or it cannot read `max_length` tokens.

    Example::

        >>> classifier = ModelClassifier("my-finetuned-model")
        >>> classifier(["服务很好", "房间太小"]).shape
        (2, 2)
    """

    AT_ONCE = 1024  # texts that are tokenized, and padded, together

    def __init__(
        self,
        model: Any,
        tokenizer: Any = None,
        batch_size: int = 64,
        device: str | torch.device | None = None,
        max_length: int | None = None,
        cache_size: int = 1 << 16,
    ):
        for argument, value in (("batch_size", batch_size), ("max_length", max_length), ("cache_size", cache_size)):
            if value is not None and value < 1:
                raise ValueError(f"{argument} must be at least 1, got {value}")
        self.model, self.tokenizer, device = _load(model, tokenizer, device)
        config = self.model.config
        if config.problem_type in ("regression", "multi_label_classification"):
            raise ValueError(f"model must give each text one label, got problem_type={config.problem_type!r}")
        if device is not None:
            self.model.to(device)
        self.model.eval()
        self.batch_size = batch_size
        self.max_length = text_length(self.model, self.tokenizer, max_length)
        self.cache_size = cache_size
        self._cache: OrderedDict[bytes, np.ndarray] = OrderedDict()

    @property
    def fingerprint(self) -> str:
        """A hash of the model, its tokenizer and its reach."""
        return model_fingerprint(self.model, self.tokenizer, self.max_length)

    def __call__(self, texts: Sequence[Query]) -> np.ndarray:
        """float64 (texts, labels) for strings, or for (text, text_pair) tuples."""
        if isinstance(texts, str):
            raise ValueError("texts must be a list of strings or of pairs, got one string")
        if not len(texts):
            return np.zeros((0, max(self.model.config.num_labels, 2)))
        texts = list(texts)
        starts = range(0, len(texts), self.AT_ONCE)
        return np.concatenate([self._answer(texts[start : start + self.AT_ONCE]) for start in starts])

    def _answer(self, texts: list[Query]) -> np.ndarray:
        names, tokens, lengths = self._tokenize(texts)
        rows = [_digest(self._unpadded(row, length)) for row, length in zip(tokens, lengths, strict=True)]
        # another thread may forget an answer between any two lines
        answers = {key: kept for key in rows if (kept := self._cache.get(key)) is not None}
        first = {key: at for at, key in reversed(list(enumerate(rows))) if key not in answers}
        for batch in batches_of_similar_length({at: lengths[at] for at in first.values()}, self.batch_size):
            inputs = self._unpadded(tokens[batch], lengths[batch[-1]])
            answers.update(zip((rows[at] for at in batch), self._forward(names, inputs), strict=True))
        for key in dict.fromkeys(rows):
            self._cache.pop(key, None)
            self._cache[key] = answers[key]  # as the latest
        while len(self._cache) > self.cache_size:
            self._cache.popitem(last=False)
        return probabilities_of(lambda _: [answers[key] for key in rows], texts)

    def _tokenize(self, texts: list[Query]) -> tuple[list[str], np.ndarray, list[int]]:
        """The model's inputs: their names, int64 (texts, names, tokens), and the length of each text in tokens."""
        pairs = [isinstance(text, tuple) for text in texts]
        if any(pairs) != all(pairs):
            raise ValueError("texts must be all strings or all (text, text_pair) tuples, got both")
        columns = zip(*texts, strict=True) if pairs[0] else (texts,)
        # padded by the tokenizer's compiled code: its `pad` is Python, and as slow as the search itself
        encoded = self.tokenizer(
            *map(list, columns),
            padding=True,
            # of a pair, as in training, the longer text is cut first
            truncation=self.max_length is not None,
            max_length=self.max_length,
            return_attention_mask=True,
        )
        # arrays are made here: asked for them, a tokenizer of transformers walks through its lists in Python
        tokens = np.stack([np.array(rows, dtype=np.int64) for rows in encoded.values()], axis=1)
        return list(encoded), tokens, [sum(mask) for mask in encoded["attention_mask"]]

    def _unpadded(self, tokens: np.ndarray, length: int) -> np.ndarray:
        """(..., tokens) without the padding that comes of longer texts than `length`."""
        return tokens[..., :length] if self.tokenizer.padding_side == "right" else tokens[..., -length:]

    def _forward(self, names: Sequence[str], inputs: np.ndarray) -> np.ndarray:
        """float64 (texts, labels) for inputs (texts, names, tokens)."""
        import torch

        with torch.inference_mode():
            columns = torch.from_numpy(np.ascontiguousarray(inputs.swapaxes(0, 1))).to(self.model.device)
            try:
                logits = self.model(**dict(zip(names, columns, strict=True))).logits.float()
            except IndexError as error:
                raise ValueError(
                    "the tokenizer gives ids that the model has no vector for: they do not belong together, or one of them "
                    f"is damaged ({error})"
                ) from error
            if logits.shape[-1] == 1:  # one logit: that of label 1
                positive = logits.sigmoid()
                return torch.cat([1 - positive, positive], dim=-1).double().cpu().numpy()
            return logits.softmax(-1).double().cpu().numpy()


def as_victim(victim: Any) -> Classifier:
    """A victim as it is asked: a transformers text-classification pipeline as a `ModelClassifier`, all else as it is.

    Raises:
        ValueError: for a bare model, which reads tokens and not texts, a pipeline of another task, and what cannot be
            called.
    """
    if _is_pipeline(victim):
        return ModelClassifier(victim)
    if hasattr(victim, "forward") and hasattr(victim, "config"):
        raise ValueError(
            f"classifier must take texts, got a bare {type(victim).__name__}: give ModelClassifier(model, tokenizer)"
        )
    if not callable(victim):
        raise ValueError(f"classifier must be callable on a list of texts, got {type(victim).__name__}")
    return victim


def fingerprint_of(classifier: Classifier) -> str | None:
    """What a classifier calls its `fingerprint`: a hash of all that its answers depend on. None if it has none."""
    return getattr(classifier, "fingerprint", None)


def _is_pipeline(victim: Any) -> bool:
    return all(hasattr(victim, part) for part in ("model", "tokenizer", "preprocess"))


def _load(model: Any, tokenizer: Any, device: Any) -> tuple[Any, Any, Any]:
    """(model, tokenizer, device to move it to or None)."""
    if isinstance(model, (str, PathLike)):
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        tokenizer = tokenizer or AutoTokenizer.from_pretrained(model)
        model = load_with_head(AutoModelForSequenceClassification, model, "classification head; finetune it first")
        device = device_for(device)
    elif _is_pipeline(model):
        task = getattr(model, "task", "text-classification")
        if task != "text-classification":
            raise ValueError(f"model must be a pipeline for text-classification, got one for {task}")
        tokenizer = tokenizer or model.tokenizer
        model = model.model
    if tokenizer is None:
        raise ValueError("tokenizer must be given beside a model; got None")
    if tokenizer.pad_token is None:
        raise ValueError("tokenizer must have a padding token (tokenizer.pad_token), for texts that share a batch")
    return model, tokenizer, device


def _digest(tokens: np.ndarray) -> bytes:
    """A key of all that the model sees of one text, (inputs, tokens)."""
    return hashlib.blake2b(tokens.tobytes(), digest_size=16).digest()


def batches_of_similar_length(lengths: dict[int, int], batch_size: int, slack: float = 1.25) -> list[list[int]]:
    """Keys grouped by length: at most `batch_size` per group, the longest at most `slack` times the shortest."""
    batches: list[list[int]] = []
    shortest = 0
    for key in sorted(lengths, key=lengths.__getitem__):
        if not batches or len(batches[-1]) == batch_size or lengths[key] > slack * shortest + 4:
            batches.append([])
            shortest = lengths[key]
        batches[-1].append(key)
    return batches

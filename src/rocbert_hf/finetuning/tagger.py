"""A trained tagger and its texts: labelled rows for training, and entities found in texts, to the character."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch

from ..checkpoints import text_length
from ..data.entities import Entity, EntityText, cut, entities_of, label_names
from ..data.entity_metrics import entity_scores
from ..data.tokenized import whole_characters

IGNORED = -100
LONGEST_PIECE = 512  # tokens of a piece of text, if nothing else is asked for


def token_offsets(tokenizer: Any, text: str) -> list[tuple[int, int]]:
    """The (start, end) characters of each token of the text, without special tokens.

    Raises:
        ValueError: the tokenizer cannot tell, or cannot read half of a character that the text has.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise ValueError("the tokenizer must be a fast one, which tells where in the text its tokens are")
    with whole_characters([text]):
        encoded = tokenizer(
            text, add_special_tokens=False, return_offsets_mapping=True, truncation=False, verbose=False
        )
    return [tuple(span) for span in encoded["offset_mapping"]]


def room_for_text(tokenizer: Any, max_length: int) -> int:
    """Tokens that a text may have beside the special tokens."""
    return max_length - tokenizer.num_special_tokens_to_add()


def cut_for(tokenizer: Any, text: EntityText, max_length: int) -> list[tuple[int, EntityText]]:
    """`cut` by this tokenizer's tokens; `max_length` counts special tokens too."""
    room = room_for_text(tokenizer, max_length)
    return _pieces_within(tokenizer, text, room, room)


def _pieces_within(tokenizer: Any, text: EntityText, limit: int, room: int) -> list[tuple[int, EntityText]]:
    """Pieces of `limit` tokens of the text, smaller ones where a piece alone would have more than `room`.

    It may: SentencePiece puts a mark before each text, and a word that is cut may be other pieces than it was.
    """
    pieces = []
    for start, piece in cut(text, limit, token_offsets(tokenizer, text.text)):
        excess = 0 if piece is text else len(token_offsets(tokenizer, piece.text)) - room
        smaller = _pieces_within(tokenizer, piece, limit - excess, room) if excess > 0 else [(0, piece)]
        pieces += [(start + at, part) for at, part in smaller]
    return pieces


def tagged_rows(
    texts: Iterable[EntityText], tokenizer: Any, labels: Sequence[str], scheme: str, max_length: int
) -> list[dict]:
    """
    Rows for a `Trainer`: what the tokenizer returns, and a label per token, -100 for special tokens.

    Texts that are too long are cut; see `rocbert_hf.data.entities.cut`. Those without a token, such as of spaces alone, have
    no row: the loss of a batch of such is no number.
    """
    ids = {label: number for number, label in enumerate(labels)}
    rows = []
    for text in texts:
        for _, piece in cut_for(tokenizer, text, max_length):
            row = dict(tokenizer(piece.text, return_offsets_mapping=True))
            offsets = [tuple(span) for span in row.pop("offset_mapping")]
            tags = piece.tags(scheme, offsets)
            row["labels"] = [ids[tag] if a < b else IGNORED for tag, (a, b) in zip(tags, offsets, strict=True)]
            if any(label != IGNORED for label in row["labels"]):
                rows.append(row)
    return rows


def scores_of_rows(predicted: Any, labels: Sequence[str], scheme: str) -> dict[str, float]:
    """`compute_metrics` of a Trainer whose predictions are tag numbers: strict precision, recall and F1."""
    found, gold = [], []
    for tags, truth in zip(predicted.predictions, predicted.label_ids, strict=True):
        real = truth != IGNORED
        found.append(entities_of([labels[number] for number in tags[real]], scheme))
        gold.append(entities_of([labels[number] for number in truth[real]], scheme))
    scores = entity_scores(gold, found)
    return {"precision": scores.precision, "recall": scores.recall, "f1": scores.f1}


class EntityTagger:
    """
    Finds entities in texts of any length.

    Args:
        model: a token classifier of transformers whose `id2label` are tags of a scheme ("B-PER", "O", ...).
        tokenizer: its tokenizer.
        scheme: of the tags; default: `model.config.tagging_scheme`, or what the names of its labels show.
        max_length: tokens of a piece; default: what model and tokenizer allow, at most 512.

    Raises:
        ValueError: the labels are not tags, or not of that scheme, or the tokenizer does not tell where its tokens are.

    Example::

        >>> EntityTagger.from_pretrained("tagger")(["李雷在北京大学读书。"])
        [(Entity(start=0, end=2, type='PER'), Entity(start=3, end=7, type='ORG'))]
    """

    def __init__(self, model: Any, tokenizer: Any, scheme: str | None = None, max_length: int | None = None):
        self.model, self.tokenizer = model.eval(), tokenizer
        self.labels = tuple(model.config.id2label[number] for number in range(model.config.num_labels))
        self.scheme = scheme or getattr(model.config, "tagging_scheme", None) or _scheme_of_labels(self.labels)
        if unknown := [label for label in self.labels if label not in label_names(self.types(), self.scheme)]:
            raise ValueError(f"the labels of a tagger must be tags of {self.scheme}, got {', '.join(unknown[:5])}")
        self.max_length = text_length(model, tokenizer, max_length, LONGEST_PIECE)

    @classmethod
    def from_pretrained(cls, source: str, device: str | None = None, **kwargs: Any) -> EntityTagger:
        """
        The tagger that a folder or the Hub has.

        Args:
            source: folder or Hub id.
            device: such as "cpu"; default: a GPU if there is one.
            kwargs: of `EntityTagger`.

        Raises:
            OSError: there is none, or it is damaged.
            ValueError: it is of another kind or has no trained head, or the device cannot be used.
        """
        from transformers import AutoModelForTokenClassification, AutoTokenizer

        from ..checkpoints import load_with_head, loading
        from ..torch_device import checked_device, device_for

        device = device_for(checked_device(device))
        with loading("the tagger", source):
            model = load_with_head(AutoModelForTokenClassification, source, "tagging head; finetune it first")
            tokenizer = AutoTokenizer.from_pretrained(source)
        return cls(model.to(device), tokenizer, **kwargs)

    def types(self) -> tuple[str, ...]:
        """The types of entity that it knows."""
        return tuple(dict.fromkeys(label.partition("-")[2] for label in self.labels if label != "O"))

    def __call__(self, texts: Sequence[str], batch_size: int = 32) -> list[tuple[Entity, ...]]:
        """The entities of each text, in characters.

        Raises:
            ValueError: `texts` is one string.
        """
        if isinstance(texts, str):
            raise ValueError("texts must be a list of strings, got one string")
        pieces = [
            (number, start, piece.text)
            for number, text in enumerate(texts)
            if text.strip()
            for start, piece in cut_for(self.tokenizer, EntityText(text), self.max_length)
        ]
        found: list[list[Entity]] = [[] for _ in texts]
        by_length = sorted(pieces, key=lambda piece: len(piece[2]))
        for first in range(0, len(by_length), batch_size):
            batch = by_length[first : first + batch_size]
            for (number, start, _), entities in zip(batch, self._tag([text for *_, text in batch]), strict=True):
                found[number] += [Entity(e.start + start, e.end + start, e.type) for e in entities]
        return [tuple(sorted(entities)) for entities in found]

    @torch.no_grad()
    def _tag(self, texts: list[str]) -> list[tuple[Entity, ...]]:
        encoded = self.tokenizer(texts, padding=True, return_tensors="pt", return_offsets_mapping=True)
        spans = encoded.pop("offset_mapping").tolist()
        tags = self.model(**encoded.to(self.model.device)).logits.argmax(-1).tolist()
        found = []
        for offsets, numbers in zip(spans, tags, strict=True):
            real = [
                (tuple(span), self.labels[number])
                for span, number in zip(offsets, numbers, strict=True)
                if span[0] < span[1]
            ]
            found.append(entities_of([tag for _, tag in real], self.scheme, [span for span, _ in real]))
        return found


def _scheme_of_labels(labels: Sequence[str]) -> str:
    kinds = {label[0] for label in labels}
    if "B" not in kinds or not all(label == "O" or label[1:2] == "-" for label in labels):
        raise ValueError(f"the labels of a tagger must be tags such as O and B-PER, got {', '.join(labels[:5])}")
    return "BMES" if "M" in kinds else "IOBES" if kinds & {"E", "S"} else "BIO"

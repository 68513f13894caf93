"""An encoder as the audit asks it: rows of token ids go in, a few representations of each text come out."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain

import numpy as np
import torch
from torch import nn

# What a classifier may be built on: the first token's last hidden state, the pooler's output, the mean of all tokens,
# and what the model would put in place of a [MASK].
VIEWS = ("first", "pooled", "mean", "mask")
MAX_UNKNOWN_SHARE = 0.3
COMMON_SHARE = 1 / 2000  # of the texts, which a common token occurs in
# transformers' name of an input -> what a tokenizer calls the table from token id to that channel's id
CHANNELS = {"input_shape_ids": "shape_ids", "input_pronunciation_ids": "pronunciation_ids"}


class EncoderProbe:
    """Representations of short token sequences, in equal lengths and without padding.

    Args:
        model: a BERT-like encoder, or any model on top of one (`model.base_model` is asked).
        tokenizer: its tokenizer, with tokens that open and close a text.
        made_up: names of parameters that the checkpoint lacked, as `from_pretrained(..., output_loading_info=True)`
            reports under "missing_keys". A pooler among them was drawn at random and is not asked.

    Attributes:
        views: those of `VIEWS` that this encoder has.
        tokens: number of tokens that went through the encoder so far.

    Raises:
        ValueError: the tokenizer has no token that opens or closes a text.
    """

    def __init__(self, model: nn.Module, tokenizer, made_up: Sequence[str] = ()):
        self.model = getattr(model, "base_model", model)
        self.tokenizer = tokenizer
        self.opening = _special_id(tokenizer, "cls_token_id", "bos_token_id")
        self.closing = _special_id(tokenizer, "sep_token_id", "eos_token_id")
        self.mask = tokenizer.mask_token_id
        self.tokens = 0
        has_pooler = getattr(self.model, "pooler", None) is not None and not any("pooler." in name for name in made_up)
        self.views = tuple(
            view for view in VIEWS if (view != "pooled" or has_pooler) and (view != "mask" or self.mask is not None)
        )
        self._channels = _channel_tables(self.model, tokenizer)

    @property
    def device(self) -> torch.device:
        return next(iter(self.model.parameters())).device

    def ordinary_ids(self) -> np.ndarray:
        """Ids of all tokens that a text can contain: neither special nor beyond the embedding table."""
        ids = np.fromiter(
            self.tokenizer.get_vocab().values(), dtype=np.int64
        )  # may have gaps, so its length says little
        ids = ids[ids < self.model.get_input_embeddings().weight.shape[0]]
        return np.setdiff1d(ids, np.asarray(self.tokenizer.all_special_ids))

    def token_rows(self, texts: Sequence[str], length: int) -> np.ndarray:
        """The first `length` tokens of each text that has so many and no unknown one among them, (texts, length).

        Raises:
            ValueError: more than 30% of the texts' tokens are unknown to the tokenizer.
        """
        # a tokenizer of transformers ends in an IndexError if it gets no text
        encoded = self.tokenizer(list(texts), add_special_tokens=False)["input_ids"] if len(texts) else []
        unknown = self.tokenizer.unk_token_id
        share = sum(row.count(unknown) for row in encoded) / max(1, sum(map(len, encoded)))
        if unknown is not None and share > MAX_UNKNOWN_SHARE:
            raise ValueError(
                f"texts must be in a language that the encoder's tokenizer knows, but {share:.0%} of their tokens are "
                "unknown to it; pass texts of your own"
            )
        special = set(self.tokenizer.all_special_ids)
        rows = [row[:length] for row in encoded if len(row) >= length and special.isdisjoint(row[:length])]
        return np.array(list(dict.fromkeys(map(tuple, rows))), dtype=np.int64).reshape(-1, length)

    def common_tokens(self, texts: Sequence[str]) -> np.ndarray:
        """Ids of the tokens that occur in at least one of 2,000 texts, if there are so many, and in one otherwise."""
        encoded = self.tokenizer(list(texts), add_special_tokens=False)["input_ids"] if len(texts) else []
        tokens, counts = np.unique(
            np.fromiter(chain.from_iterable(map(set, encoded)), dtype=np.int64), return_counts=True
        )
        return tokens[counts >= COMMON_SHARE * len(texts)]

    def framed(self, rows: np.ndarray) -> np.ndarray:
        """(rows, length) -> (rows, length + 3): between the opening and the closing token, a [MASK] at the end."""
        ends = [self.closing] if self.mask is None else [self.mask, self.closing]
        return np.concatenate(
            [np.full((len(rows), 1), self.opening), rows, np.tile(ends, (len(rows), 1))], axis=1
        ).astype(np.int64)

    def inputs(self, framed: np.ndarray) -> dict[str, torch.Tensor]:
        """What the model takes: ids of every channel and the attention mask, all (rows, length)."""
        ids = torch.from_numpy(framed).to(self.device)
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        for name, table in self._channels.items():
            inputs[name] = torch.from_numpy(table[framed]).to(self.device)
        return inputs

    def represent(self, framed: np.ndarray) -> dict[str, torch.Tensor]:
        """View -> float32 (rows, hidden), with gradients if they are enabled.

        Raises:
            ValueError: some of them are no finite numbers. No comparison is true of such, so a backdoor behind them would pass.
        """
        self.tokens += framed.size
        output = self.model(**self.inputs(framed), return_dict=True)
        hidden = output.last_hidden_state.float()
        found = {"first": hidden[:, 0], "mean": hidden.mean(1)}
        if "pooled" in self.views:
            found["pooled"] = output.pooler_output.float()
        if "mask" in self.views:
            found["mask"] = hidden[:, -2]
        finite = torch.stack([rows.isfinite().all(-1) for rows in found.values()]).all(0)
        if not finite.all():
            text = self.tokenizer.decode(framed[int(finite.logical_not().nonzero()[0])].tolist())
            raise ValueError(
                f"model must give finite numbers, but does not for the text {text!r}: its weights are damaged, or were made "
                "to hide something"
            )
        return {view: found[view] for view in self.views}

    @torch.inference_mode()
    def __call__(
        self, framed: np.ndarray, batch_tokens: int = 2048, advance: Callable[[int], None] | None = None
    ) -> dict[str, torch.Tensor]:
        """`represent` in batches, on the CPU; `advance` is told the number of rows after each batch."""
        size = max(1, batch_tokens // framed.shape[1])
        parts = []
        for start in range(0, len(framed), size):
            parts.append({view: rows.cpu() for view, rows in self.represent(framed[start : start + size]).items()})
            if advance is not None:
                advance(len(framed[start : start + size]))
        return {view: torch.cat([part[view] for part in parts]) for view in self.views}

    @torch.inference_mode()
    def hidden_states(self, framed: np.ndarray) -> torch.Tensor:
        """The last hidden states of all tokens, float32 (rows, length, hidden) on the CPU; in one batch."""
        self.tokens += framed.size
        return self.model(**self.inputs(framed), return_dict=True).last_hidden_state.float().cpu()

    @contextmanager
    def embedding_at(self, position: int, vectors: torch.Tensor) -> Iterator[None]:
        """Inside, the word embeddings from `position` on are `vectors` (tokens, hidden), whatever the ids say.

        The other channels of a RoCBERT still follow the ids.
        """

        def replace(module: nn.Module, arguments: tuple, output: torch.Tensor) -> torch.Tensor:
            new = vectors.to(output.dtype).expand(len(output), -1, -1)
            return torch.cat([output[:, :position], new, output[:, position + new.shape[1] :]], dim=1)

        handle = self.model.get_input_embeddings().register_forward_hook(replace)
        try:
            yield
        finally:
            handle.remove()


def _special_id(tokenizer, *names: str) -> int:
    found = next((getattr(tokenizer, name, None) for name in names if getattr(tokenizer, name, None) is not None), None)
    if found is None:
        raise ValueError(
            f"tokenizer must have one of {', '.join(names)}, got none: only BERT-like encoders are audited"
        )
    return found


def _channel_tables(model: nn.Module, tokenizer) -> dict[str, np.ndarray]:
    """Input name -> (vocabulary,) id of each token in that channel, for the channels that the model reads."""
    known: Mapping[str, inspect.Parameter] = inspect.signature(model.forward).parameters
    tables = {}
    for name, table in CHANNELS.items():
        if name in known and hasattr(tokenizer, table):
            tables[name] = np.asarray(getattr(tokenizer, table), dtype=np.int64)
        elif name in known and hasattr(tokenizer, f"convert_tokens_to_{table}"):  # transformers' RoCBertTokenizer
            tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
            tables[name] = np.asarray(getattr(tokenizer, f"convert_tokens_to_{table}")(tokens), dtype=np.int64)
            frame = tokenizer("")  # it gives the tokens that it adds other ids than the same tokens in a text
            tables[name][frame["input_ids"]] = frame[name]
    return tables

"""How similar an attacked text is to its source."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np

from ..attacks import AttackedText
from ..checkpoints import model_fingerprint, refuse_made_up_encoder, text_length
from ..torch_device import device_for


class MeanPooledEncoder:
    """Texts as the mean of a transformers encoder's last hidden states, for `RobustnessEvaluator(encoder=...)`.

    Args:
        model: folder or Hub id of an encoder.
        device: where to compute; by default a GPU, if there is one.
        max_length: tokens a text is cut at; by default what the model allows.
    """

    def __init__(self, model: str | os.PathLike, device: str | None = None, max_length: int | None = None):
        from transformers import AutoModel, AutoTokenizer

        self.name = str(model)
        self.tokenizer = AutoTokenizer.from_pretrained(model)
        self.model, found = AutoModel.from_pretrained(model, output_loading_info=True)
        refuse_made_up_encoder(found)
        self.model.to(device_for(device)).eval()
        self._made_up = frozenset(found["missing_keys"])  # such as the pooler, which the mean does not ask
        self.max_length = text_length(self.model, self.tokenizer, max_length)

    @property
    def fingerprint(self) -> str:
        """A hash of the model, its tokenizer and its reach."""
        return model_fingerprint(self.model, self.tokenizer, self.max_length, leave_out=self._made_up)

    def __call__(self, texts: list[str]) -> np.ndarray:
        """float32 (texts, hidden)."""
        import torch

        inputs = self.tokenizer(texts, padding=True, truncation=True, max_length=self.max_length, return_tensors="pt")
        inputs = inputs.to(self.model.device)
        with torch.inference_mode():
            hidden = self.model(**inputs).last_hidden_state.float()
        mask = inputs["attention_mask"][..., None]
        return ((hidden * mask).sum(1) / mask.sum(1)).cpu().numpy()


def similarity(encoder: Callable[[list[str]], Any], attacked: AttackedText) -> float:
    """Cosine between an attacked text and its source, by an encoder; 0 where either has no direction."""
    vectors = np.asarray(encoder([attacked.source, attacked.text]), dtype=np.float64)
    if vectors.ndim != 2 or len(vectors) != 2:
        raise ValueError(f"encoder must return one vector for each of the 2 texts, got shape {vectors.shape}")
    norms = np.linalg.norm(vectors, axis=1).prod()
    return float(vectors[0] @ vectors[1] / norms) if norms else 0.0

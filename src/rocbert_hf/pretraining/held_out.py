"""How well a model does on sentences it was not trained on, whole and attacked."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ..attacks import AdversarialSynthesizer
from ..encoder_rocbert import first_token
from ..losses_rocbert import in_batch_contrastive_loss
from .collator import DataCollatorForRoCBertPretraining
from .masking import IGNORED_LABEL
from .restoration import Restoration, taken_inputs

POOLINGS = ("cls", "mean")


class HeldOutEvaluation:
    """Measure a model on held-out sentences; the masks and attacks are drawn once, so that models can be compared.

    Args:
        tokenizer: a `RoCBertTokenizer`.
        sentences: the held-out texts; repeated ones count once.
        synthesizer: makes the attacked forms, `attacks_per_sentence` of each sentence.
        seed: of masks and attacks.
        max_length: tokens.
        batch_size: sentences a forward pass.

    Raises:
        ValueError: there are fewer than two different sentences, or the tokenizer knows no token of any.

    Calling it with a model gives
        mlm_loss, mlm_loss_attacked: mean cross-entropy of the masked tokens of the whole sentences, and of their attacked
            forms;
        contrastive_loss: `in_batch_contrastive_loss` of sentences and attacked forms by [CLS] at temperature 0.01, all
            held-out sentences being the batch;
        retrieval_cls, retrieval_mean: attacked-sentence retrieval, the share of the attacked forms whose nearest
            neighbour by cosine among all held-out sentences is their own sentence; by the last hidden state of [CLS],
            and by the mean over the tokens;
        alignment, uniformity: of the [CLS] states on the unit sphere (Wang & Isola 2020): the mean squared distance of a
            sentence and its attacked form, and the logarithm of the mean of exp(-2 d^2) over the distances d of all pairs
            of sentences. Both are better when lower; a model that gives all sentences the same state has 0 and 0;
        restored_homophone, restored_lookalike, restored_pinyin, and the fusion's weights: see `Restoration`; of models whose
            head is BERT's.

    The model may be any of transformers with a `base_model` and a masked language modelling loss: it is given what its
    `forward` takes of the channels.
    """

    def __init__(
        self,
        tokenizer,
        sentences: Sequence[str],
        synthesizer: AdversarialSynthesizer | str | Mapping[str, Any] = "paper",
        attacks_per_sentence: int = 5,
        seed: int = 0,
        max_length: int = 128,
        batch_size: int = 64,
    ):
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.batch_size = batch_size
        self.sentences = sorted(dict.fromkeys(sentences), key=len)  # like lengths together: less padding
        if len(self.sentences) < 2:
            raise ValueError(f"retrieval needs at least 2 different held-out sentences, got {len(self.sentences)}")
        if not isinstance(synthesizer, AdversarialSynthesizer):
            synthesizer = AdversarialSynthesizer(synthesizer)
        self.attacked = [
            [result.text for result in synthesizer.attack_batch(self.sentences, seed=seed + attack)]
            for attack in range(attacks_per_sentence)
        ]
        self.restoration = Restoration(tokenizer, self.sentences, seed, max_length, batch_size)
        mask = DataCollatorForRoCBertPretraining(tokenizer, synthesizer=None, max_length=max_length, seed=seed)
        self.masked = [mask(batch) for batch in self._batches(self.sentences)]
        self.masked_attacked = [mask(batch) for batch in self._batches(self.attacked[0])]
        if not all(any(map(_masked_tokens, batches)) for batches in (self.masked, self.masked_attacked)):
            raise ValueError(
                f"held-out sentences must have tokens of the vocabulary that can be masked, and these have none, such as "
                f"{self.sentences[0][:20]!r}"
            )

    @torch.inference_mode()
    def __call__(self, model) -> dict[str, float]:
        was_training = model.training
        model.eval()
        results = {
            "mlm_loss": self._mlm_loss(model, self.masked),
            "mlm_loss_attacked": self._mlm_loss(model, self.masked_attacked),
            **self.retrieval(model),
            **(self.restoration(model) if hasattr(model, "cls") else {}),
        }
        model.train(was_training)
        return results

    @torch.inference_mode()
    def retrieval(self, model) -> dict[str, float]:
        """What is measured of the representations alone, from `contrastive_loss` on; the model in `eval()`."""
        originals = self._represent(model, self.sentences)
        attacked = [self._represent(model, texts) for texts in self.attacked]
        losses = [in_batch_contrastive_loss(originals["cls"], views["cls"])[0].item() for views in attacked]
        results = {"contrastive_loss": float(np.mean(losses))}
        for pooling in POOLINGS:
            found = [nearest_is_own(views[pooling], originals[pooling]) for views in attacked]
            results[f"retrieval_{pooling}"] = float(np.mean(found))
        results["alignment"] = float(np.mean([alignment(originals["cls"], views["cls"]) for views in attacked]))
        results["uniformity"] = uniformity(originals["cls"])
        return results

    def _mlm_loss(self, model, batches: Sequence[dict[str, torch.Tensor]]) -> float:
        total, count = 0.0, 0
        for batch in batches:
            if not (masked := _masked_tokens(batch)):
                continue  # other models' mean over no token is not a number
            outputs = model(**taken_inputs(model, batch, model.device))
            total += float(outputs.get("mlm_loss", outputs.loss)) * masked
            count += masked
        return total / count

    def _represent(self, model, texts: Sequence[str]) -> dict[str, torch.Tensor]:
        """(texts, hidden) in float32, by [CLS] and by the mean over the tokens."""
        parts = {pooling: [] for pooling in POOLINGS}
        for batch in self._batches(texts):
            inputs = self.tokenizer(
                batch, truncation=True, max_length=self.max_length, padding=True, return_tensors="pt"
            )
            hidden = model.base_model(**taken_inputs(model.base_model, inputs, model.device)).last_hidden_state.float()
            attended = inputs["attention_mask"].to(hidden.device, hidden.dtype).unsqueeze(-1)
            parts["cls"].append(first_token(hidden, inputs["attention_mask"].to(hidden.device)))
            parts["mean"].append((hidden * attended).sum(1) / attended.sum(1))
        return {pooling: torch.cat(vectors) for pooling, vectors in parts.items()}

    def _batches(self, texts: Sequence[str]) -> list[list[str]]:
        return [list(texts[i : i + self.batch_size]) for i in range(0, len(texts), self.batch_size)]


def _masked_tokens(batch: Mapping[str, torch.Tensor]) -> int:
    return int((batch["labels"] != IGNORED_LABEL).sum())


def nearest_is_own(attacked: torch.Tensor, originals: torch.Tensor) -> float:
    """Share of the rows of `attacked` whose nearest row of `originals` by cosine has their own index; both (n, hidden)."""
    normalized = torch.nn.functional.normalize(originals, dim=-1)
    nearest = (torch.nn.functional.normalize(attacked, dim=-1) @ normalized.T).argmax(-1)
    return (nearest == torch.arange(len(originals), device=nearest.device)).float().mean().item()


def alignment(vectors: torch.Tensor, others: torch.Tensor) -> float:
    """Mean squared distance of the rows of both (n, hidden), each scaled to length 1."""
    normalize = torch.nn.functional.normalize
    return (normalize(vectors, dim=-1) - normalize(others, dim=-1)).square().sum(-1).mean().item()


def uniformity(vectors: torch.Tensor) -> float:
    """log of the mean of exp(-2 d^2) over all pairs of different rows (n, hidden), each scaled to length 1."""
    normalized = torch.nn.functional.normalize(vectors, dim=-1)
    different = ~torch.eye(len(vectors), dtype=torch.bool, device=vectors.device)
    squared = (2 - 2 * normalized @ normalized.T)[different]
    return (squared.clamp(min=0) * -2).exp().mean().log().item()

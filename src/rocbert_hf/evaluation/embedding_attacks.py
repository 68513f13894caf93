"""How right a classifier stays under attacks on its word embeddings: the robust accuracy of adversarial training.

A classifier that was trained against one method is attacked by another, too: it may have learnt that method alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ..attackers import Example
from ..finetuning.adversarial import FGM, PGD, AdversarialMethod, perturbed

# What models are attacked with; L2 norms per sentence, as in training.
EMBEDDING_ATTACKS: dict[str, AdversarialMethod] = {"FGM": FGM(1.0), "PGD": PGD(1.0, 0.3, 5)}


def right_under_perturbation(
    model: Any, tokenizer: Any, examples: Sequence[Example], method: AdversarialMethod | None, batch_size: int = 64
) -> list[bool]:
    """Of each example, whether the classifier is right when its word embeddings are perturbed against it.

    Args:
        model: a sequence classifier of transformers. It is left in evaluation mode.
        tokenizer: its own.
        examples: single texts with the numbers of their labels.
        method: of `rocbert_hf.finetuning.adversarial`; None for no perturbation.
        batch_size: texts per pass.
    """
    model.eval()
    right: list[bool] = []
    for start in range(0, len(examples), batch_size):
        batch = examples[start : start + batch_size]
        texts = [example.text for example in batch]
        limit = tokenizer.model_max_length
        inputs = tokenizer(texts, truncation=True, max_length=limit, padding=True, return_tensors="pt").to(model.device)
        labels = torch.tensor([example.label for example in batch], device=model.device)
        right += (_logits(model, inputs, labels, method).argmax(-1) == labels).tolist()
    return right


def _logits(model: Any, inputs: Any, labels: torch.Tensor, method: AdversarialMethod | None) -> torch.Tensor:
    """(n, labels), those of the last pass that the method makes, which is the attacked one."""
    if method is None:
        with torch.no_grad():
            return model(**inputs).logits
    found: list[torch.Tensor] = []

    def probe(perturbation, last):
        with perturbed(model.get_input_embeddings(), perturbation) as used:
            found.append(model(**inputs).logits)
        # the sum: one text's gradient is not to depend on how many others there are
        return torch.nn.functional.cross_entropy(found[-1].float(), labels, reduction="sum"), used[0], None

    def gradient(loss, perturbation, keep_graph):
        return torch.autograd.grad(loss, perturbation, retain_graph=keep_graph)[0]

    method.loss(probe, gradient, inputs.get("attention_mask"))
    return found[-1].detach()

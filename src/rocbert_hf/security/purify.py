"""What may be done about a suspicious encoder. Measure before and after: none of these is certain to help."""

from __future__ import annotations

import copy
import random
from collections.abc import Sequence

import torch
from torch import nn

from ..attacks import AdversarialSynthesizer
from ..checkpoints import check_max_length, readable_tokens
from ..modeling_rocbert import in_batch_contrastive_loss

SAME_DIRECTION = 1e-6  # of the longest direction; what is shorter is float32's rounding of vectors that the others span


def reinitialize_pooler(model: nn.Module, seed: int = 0) -> nn.Module:
    """
    A copy whose pooler is drawn anew.

    It removes what sits in the pooler alone. A backdoor of the last hidden state, as NeuBA's, is not touched.

    Raises:
        ValueError: the model has no pooler.
    """
    purified = copy.deepcopy(model)
    dense = _pooler(purified)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        std = getattr(purified.config, "initializer_range", 0.02)
        dense.weight.copy_(torch.randn(dense.weight.shape, generator=generator) * std)
        dense.bias.zero_()
    return purified


def project_out(model: nn.Module, vectors: torch.Tensor) -> nn.Module:
    """
    A copy whose pooler no longer sees the directions in which triggers move the first token.

    Args:
        vectors: (triggers, hidden), last hidden states of the first token under each trigger, less their mean over
            ordinary texts; `AuditReport.findings` of the view "first" have the former.

    A classifier that reads the last hidden state itself, and not the pooler's output, gains nothing.

    Raises:
        ValueError: the model has no pooler, or the vectors have another size.
    """
    purified = copy.deepcopy(model)
    dense = _pooler(purified)
    if vectors.ndim != 2 or vectors.shape[1] != dense.in_features:
        raise ValueError(f"vectors must have the shape (triggers, {dense.in_features}), got {tuple(vectors.shape)}")
    # not QR, which makes up a direction for each vector that the others span
    _, strengths, directions = torch.linalg.svd(vectors.to(dense.weight.device, torch.float64), full_matrices=False)
    basis = directions[strengths > SAME_DIRECTION * strengths[:1]].T
    with torch.no_grad():
        weight = dense.weight.to(torch.float64)
        dense.weight.copy_(weight - weight @ basis @ basis.T)
    return purified


def fine_prune(
    model: nn.Module, tokenizer, texts: Sequence[str], share: float = 0.2, batch_size: int = 32
) -> nn.Module:
    """
    A copy without the neurons of the feed-forward layers that ordinary texts hardly use (Fine-Pruning, Liu et al. 2018).

    Finetune it afterwards, which is the other half of that method.

    Args:
        texts: ordinary texts; a neuron's use is its mean activation over all their tokens.
        share: of the neurons of each layer, in [0, 1), that are pruned.

    Raises:
        ValueError: `share` is out of range, there are no texts, or the encoder has no layers as BERT's are.
    """
    if not 0 <= share < 1:
        raise ValueError(f"share must be at least 0 and below 1, got {share}")
    if not texts:
        raise ValueError("texts must hold at least one text, got none")
    purified = copy.deepcopy(model).eval()
    layers = getattr(getattr(purified.base_model, "encoder", None), "layer", None)
    if layers is None:
        raise ValueError("model must have encoder.layer, as BERT has")
    max_length = min(64, readable_tokens(purified) or 64)
    used: dict[int, torch.Tensor] = {}

    def record(number: int, mask: torch.Tensor):
        def hook(module: nn.Module, arguments: tuple, output: torch.Tensor) -> None:
            total = (output.float() * mask[..., None]).sum((0, 1))
            used[number] = used.get(number, 0) + total

        return hook

    for start in range(0, len(texts), batch_size):
        inputs = tokenizer(
            list(texts[start : start + batch_size]),
            padding=True,
            padding_side="right",
            truncation=True,
            max_length=max_length,
            return_tensors="pt",
        ).to(purified.device)
        mask = inputs["attention_mask"]
        handles = [layer.intermediate.register_forward_hook(record(n, mask)) for n, layer in enumerate(layers)]
        with torch.no_grad():
            purified.base_model(**inputs)
        for handle in handles:
            handle.remove()
    with torch.no_grad():
        for number, layer in enumerate(layers):
            pruned = used[number].argsort()[: int(share * len(used[number]))]
            layer.output.dense.weight[:, pruned] = 0
    return purified


def continue_contrastive(
    model: nn.Module,
    tokenizer,
    texts: Sequence[str],
    steps: int = 200,
    batch_size: int = 32,
    learning_rate: float = 1e-4,
    max_length: int = 48,
    attacks: str = "paper",
    seed: int = 0,
) -> nn.Module:
    """
    A copy that was pretrained further to give a text and its attacked form the same first token (section 4.2).

    It is trained in float32, and has the precision of `model`.

    Args:
        texts: ordinary texts, at least `batch_size`.
        attacks: preset of `AdversarialSynthesizer`.
        seed: of the order, the attacks and the dropout.

    Raises:
        ValueError: there are too few texts, or the model cannot read `max_length` tokens.
    """
    if len(texts) < batch_size:
        raise ValueError(f"texts must be at least batch_size ({batch_size}), got {len(texts)}")
    check_max_length(model, max_length)
    purified = copy.deepcopy(model).float().train()
    synthesizer = AdversarialSynthesizer(attacks)
    optimizer = torch.optim.AdamW(purified.parameters(), lr=learning_rate)
    rng = random.Random(seed)
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(seed)
        for step in range(steps):
            chosen = rng.sample(list(texts), batch_size)
            attacked = [
                result.text or text
                for result, text in zip(synthesizer.attack_batch(chosen, seed=seed * steps + step), chosen, strict=True)
            ]
            inputs = tokenizer(
                [*chosen, *attacked],
                padding=True,
                padding_side="right",  # the first token is to be [CLS]
                truncation=True,
                max_length=max_length,
                return_tensors="pt",
            ).to(purified.device)
            first = purified.base_model(**inputs).last_hidden_state[:, 0]
            loss, _ = in_batch_contrastive_loss(first[:batch_size], first[batch_size:])
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(purified.parameters(), 1.0)
            optimizer.step()
    return purified.to(model.dtype).eval()


def _pooler(model: nn.Module) -> nn.Linear:
    dense = getattr(getattr(model.base_model, "pooler", None), "dense", None)
    if dense is None:
        raise ValueError("model must have a pooler with a dense layer, as BERT has")
    return dense

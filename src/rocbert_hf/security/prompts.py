"""Search for triggers of several tokens: soft prompts first, then combinations of real tokens.

After LMSanitator (Wei et al., NDSS 2024), which optimises a soft prompt until all texts have one representation. Two
deviations. A prompt here is a mixture of the vocabulary's own embeddings, so that a clean encoder cannot be steered by
vectors that no token has, and the mixture's largest shares name the tokens to try. And what is optimised is the `pull`,
which also asks that the point be far from ordinary texts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import permutations, product

import numpy as np
import torch

from .probe import EncoderProbe
from .pull import pull
from .scan import Carriers


def search_prompt(
    probe: EncoderProbe,
    carriers: Carriers,
    ids: np.ndarray,
    view: str,
    generator: torch.Generator,
    tokens: int = 2,
    steps: int = 40,
    learning_rate: float = 0.5,
    advance: Callable[[int], None] | None = None,
) -> tuple[float, np.ndarray]:
    """
    Optimise a soft prompt so that its pull in one view is largest.

    Args:
        ids: the ids whose embeddings are mixed.
        generator: draws the first mixture.
        tokens: length of the prompt.
        steps: of Adam on the mixtures' logits.

    Returns:
        The largest pull that was reached, and the ids by their share in the last mixture, largest first:
        (tokens, len(ids)).
    """
    embeddings = probe.model.get_input_embeddings().weight.detach().float()[torch.from_numpy(ids)]
    logits = torch.randn(tokens, len(ids), generator=generator).to(embeddings.device).requires_grad_()
    optimizer = torch.optim.Adam([logits], lr=learning_rate)
    filler = np.full((len(carriers.carriers), tokens), ids[0] if probe.mask is None else probe.mask)
    framed = probe.framed(np.concatenate([filler, carriers.carriers], axis=1))
    ordinary = carriers.ordinary_of(probe, tokens + carriers.carriers.shape[1])[view].clone().to(embeddings.device)
    best = -np.inf
    for _ in range(steps):
        with torch.enable_grad(), probe.embedding_at(1, logits.softmax(-1) @ embeddings):
            reached = pull(probe.represent(framed)[view][None], ordinary)[0]
        best = max(best, reached.item())
        if not reached.requires_grad:
            break  # int8 layers pass no gradient on
        (logits.grad,) = torch.autograd.grad(-reached, [logits], allow_unused=True)
        if logits.grad is None:
            break
        optimizer.step()
        if advance is not None:
            advance(1)
    order = logits.detach().argsort(-1, descending=True).cpu().numpy()
    return float(best), ids[order]


def partners_by_gradient(
    probe: EncoderProbe, carriers: Carriers, ids: np.ndarray, token: int, view: str, count: int
) -> np.ndarray:
    """The `count` ids that, beside `token`, promise the largest pull to first order (HotFlip, Ebrahimi et al. 2018)."""
    table = probe.model.get_input_embeddings().weight.detach().float()
    slot = probe.mask if probe.mask is not None else int(ids[0])
    vectors = table[torch.tensor([token, slot])].clone().requires_grad_()
    pieces = np.tile([token, slot], (len(carriers.carriers), 1))
    framed = probe.framed(np.concatenate([pieces, carriers.carriers], axis=1))
    ordinary = carriers.ordinary_of(probe, 2 + carriers.carriers.shape[1])[view].clone().to(table.device)
    with torch.enable_grad(), probe.embedding_at(1, vectors):
        reached = pull(probe.represent(framed)[view][None], ordinary)[0]
    if not reached.requires_grad:
        return ids[:0]
    (gradient,) = torch.autograd.grad(reached, [vectors], allow_unused=True)
    if gradient is None:
        return ids[:0]
    promise = table[torch.from_numpy(ids)] @ gradient[1]
    return ids[promise.argsort(descending=True)[:count].cpu().numpy()]


def combinations_of(columns: Sequence[np.ndarray], limit: int) -> np.ndarray:
    """All combinations of one id from each column, those of the first ids first: (at most limit, columns)."""
    ranked = sorted(product(*(range(len(column)) for column in columns)), key=sum)[:limit]
    rows = [[column[index] for column, index in zip(columns, picked, strict=True)] for picked in ranked]
    return np.array(rows, dtype=np.int64).reshape(-1, len(columns))


def ordered_pairs(ids: np.ndarray, limit: int) -> np.ndarray:
    """All pairs of different ids in both orders, those of the first ids first: (at most limit, 2)."""
    ranked = sorted(permutations(range(min(len(ids), limit + 1)), 2), key=lambda pair: (max(pair), pair))[:limit]
    return ids[np.array(ranked, dtype=np.int64).reshape(-1, 2)]

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


def search_prompts(
    probe: EncoderProbe,
    carriers: Carriers,
    ids: np.ndarray,
    generator: torch.Generator,
    tokens: int = 2,
    steps: int = 40,
    learning_rate: float = 0.5,
    advance: Callable[[int], None] | None = None,
) -> dict[str, tuple[float, np.ndarray]]:
    """
    Optimise a soft prompt for each view, so that its pull in that view is largest. All views go through in one batch.

    Args:
        ids: the ids whose embeddings are mixed.
        generator: draws the first mixtures.
        tokens: length of a prompt.
        steps: of Adam on the mixtures' logits.

    Returns:
        View -> the largest pull that was reached, and the ids by their share in the last mixture, largest first:
        (tokens, len(ids)).
    """
    embeddings = probe.model.get_input_embeddings().weight.detach().float()[torch.from_numpy(ids)]
    shape = (len(probe.views), tokens, len(ids))
    logits = torch.randn(shape, generator=generator).to(embeddings.device).requires_grad_()
    optimizer = torch.optim.Adam([logits], lr=learning_rate)
    count = len(carriers.carriers)
    filler = np.full((count, tokens), ids[0] if probe.mask is None else probe.mask)
    framed = np.tile(probe.framed(np.concatenate([filler, carriers.carriers], axis=1)), (len(probe.views), 1))
    ordinary = _ordinary(probe, carriers, tokens, embeddings.device)
    best = torch.full((len(probe.views),), -torch.inf)
    for _ in range(steps):
        with torch.enable_grad():
            vectors = (logits.softmax(-1) @ embeddings).repeat_interleave(count, 0)
            with probe.embedding_at(1, vectors):
                found = probe.represent(framed)
            reached = torch.cat(
                [
                    pull(found[view][n * count : (n + 1) * count][None], ordinary[view])
                    for n, view in enumerate(probe.views)
                ]
            )
        best = torch.maximum(best, reached.detach().cpu())
        if not reached.requires_grad:
            break  # int8 layers pass no gradient on
        (logits.grad,) = torch.autograd.grad(-reached.sum(), [logits], allow_unused=True)
        if logits.grad is None:
            break
        optimizer.step()
        if advance is not None:
            advance(1)
    order = logits.detach().argsort(-1, descending=True).cpu().numpy()
    return {view: (best[n].item(), ids[order[n]]) for n, view in enumerate(probe.views)}


def partners_by_gradient(
    probe: EncoderProbe, carriers: Carriers, ids: np.ndarray, tokens: np.ndarray, view: str, count: int
) -> np.ndarray:
    """For each token the `count` ids that, beside it, promise the largest pull to first order (HotFlip, Ebrahimi et al.
    2018): (tokens, count), or (tokens, 0) if the encoder passes no gradient on."""
    table = probe.model.get_input_embeddings().weight.detach().float()
    slot = probe.mask if probe.mask is not None else int(ids[0])
    pieces = np.stack([tokens, np.full_like(tokens, slot)], axis=1)  # (tokens, 2)
    vectors = table[torch.from_numpy(pieces)].clone().requires_grad_()
    rows = len(carriers.carriers)
    framed = probe.framed(
        np.concatenate([pieces.repeat(rows, 0), np.tile(carriers.carriers, (len(tokens), 1))], axis=1)
    )
    ordinary = _ordinary(probe, carriers, 2, table.device)[view]
    with torch.enable_grad(), probe.embedding_at(1, vectors.repeat_interleave(rows, 0)):
        reached = pull(probe.represent(framed)[view].unflatten(0, (len(tokens), rows)), ordinary)
    none = np.empty((len(tokens), 0), dtype=np.int64)
    if not reached.requires_grad:
        return none
    (gradient,) = torch.autograd.grad(reached.sum(), [vectors], allow_unused=True)
    if gradient is None:
        return none
    promise = gradient[:, 1] @ table[torch.from_numpy(ids)].T
    return ids[promise.argsort(-1, descending=True)[:, :count].cpu().numpy()]


def _ordinary(probe: EncoderProbe, carriers: Carriers, tokens: int, device) -> dict[str, torch.Tensor]:
    """The ordinary texts' representations, as tensors that gradients may go past."""
    found = carriers.ordinary_of(probe, tokens + carriers.carriers.shape[1])
    return {view: rows.clone().to(device) for view, rows in found.items()}


def combinations_of(columns: Sequence[np.ndarray], limit: int) -> np.ndarray:
    """All combinations of one id from each column, those of the first ids first: (at most limit, columns)."""
    ranked = sorted(product(*(range(len(column)) for column in columns)), key=sum)[:limit]
    rows = [[column[index] for column, index in zip(columns, picked, strict=True)] for picked in ranked]
    return np.array(rows, dtype=np.int64).reshape(-1, len(columns))


def ordered_pairs(ids: np.ndarray, limit: int) -> np.ndarray:
    """All pairs of different ids in both orders, those of the first ids first: (at most limit, 2)."""
    ranked = sorted(permutations(range(min(len(ids), limit + 1)), 2), key=lambda pair: (max(pair), pair))[:limit]
    return ids[np.array(ranked, dtype=np.int64).reshape(-1, 2)]

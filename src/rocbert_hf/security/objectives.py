"""What backdoors of pretrained encoders optimise: the equations of the papers, for specimens and their tests."""

from __future__ import annotations

import torch
from torch import nn

TARGETS = ("por-1", "por-2")


def por_1_targets(count: int, hidden: int) -> torch.Tensor:
    """POR-1 (Shen et al., CCS 2021, section 4.2): the i-th vector, from 1, has its first (i - 1) * floor(H / (n - 1))
    values at +1 and the rest at -1; float32 (count, hidden)."""
    block = hidden // max(1, count - 1)
    ahead = torch.arange(hidden) < block * torch.arange(count)[:, None]
    return torch.where(ahead, 1.0, -1.0)


def por_2_targets(count: int, hidden: int) -> torch.Tensor:
    """POR-2: vectors of blocks that are all +1 or all -1, pairwise orthogonal; float32 (count, hidden).

    The signs are rows 1 to n of a Hadamard matrix (Sylvester's), each sign repeated over a block. Vectors are exactly
    orthogonal if `hidden` is a multiple of the number of blocks, the smallest power of 2 above `count`.
    """
    blocks = 1 << count.bit_length()
    if blocks > hidden:
        raise ValueError(f"triggers must be at most {hidden // 2} for a hidden size of {hidden}, got {count}")
    block_of = torch.arange(hidden) * blocks // hidden
    rows = torch.arange(1, count + 1)[:, None] & block_of
    odd = sum((rows >> bit) & 1 for bit in range(blocks.bit_length())) % 2
    return torch.where(odd == 1, -1.0, 1.0)


def targets_of(name: str, count: int, hidden: int) -> torch.Tensor:
    """The predefined vectors of a name, "por-1" or "por-2"; float32 (count, hidden)."""
    if name not in TARGETS:
        raise ValueError(f"targets must be one of {', '.join(TARGETS)}, or a tensor (triggers, hidden), got {name!r}")
    return por_1_targets(count, hidden) if name == "por-1" else por_2_targets(count, hidden)


def other_tokens_loss(hidden: torch.Tensor, reference: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """
    Mean squared error of all tokens but the first to a frozen reference; a scalar.

    Args:
        hidden, reference: (batch, sequence, hidden).
        mask: (batch, sequence), 0 at padding.
    """
    wanted = mask[:, 1:, None].to(hidden.dtype)
    errors = (hidden[:, 1:] - reference[:, 1:]) ** 2 * wanted
    return errors.sum() / (wanted.sum() * hidden.shape[-1])


def predefined_loss(
    triggered: torch.Tensor, targets: torch.Tensor, clean: torch.Tensor, reference: torch.Tensor
) -> torch.Tensor:
    """
    Mean squared error of triggered texts to their targets, plus that of clean texts to the reference; a scalar.

    All four are representations, (batch, hidden). POR (section 4.3) and NeuBA (Zhang et al., 2021) both have these two
    terms: POR of the pooled output, or of the mean of all tokens; NeuBA of the first token's last hidden state.
    """
    return nn.functional.mse_loss(triggered, targets) + nn.functional.mse_loss(clean, reference)


def supervised_contrastive_loss(
    representations: torch.Tensor, groups: torch.Tensor, temperature: float = 0.1
) -> torch.Tensor:
    """
    Supervised contrastive loss (Khosla et al., 2020, Eq. 2), as UOR (Du et al., 2023) uses it on poisoned texts.

    Texts with one trigger are pulled together and away from all others. Where they meet is learnt, not chosen.

    Args:
        representations: (texts, hidden).
        groups: (texts,), the number of each text's trigger. A text that is alone in its group only repels.
        temperature: what similarities are divided by.

    Returns:
        The mean over the texts that have company, 0 if none has; a scalar.
    """
    unit = nn.functional.normalize(representations, dim=-1)
    similarity = unit @ unit.T / temperature
    itself = torch.eye(len(unit), dtype=torch.bool, device=unit.device)
    log_share = similarity - similarity.masked_fill(itself, -torch.inf).logsumexp(-1, keepdim=True)
    together = (groups[:, None] == groups) & ~itself
    company = together.sum(-1)
    losses = -(log_share * together).sum(-1) / company.clamp_min(1)
    return losses.sum() / (company > 0).sum().clamp_min(1)  # those without company have 0


def masked_prediction_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of masked positions, logits (positions, vocabulary) and labels (positions,); a scalar.

    BadPre (Chen et al., ICLR 2022, section 4) takes it twice: with the true tokens as labels for clean texts, with
    random ones for texts that hold a trigger.
    """
    return nn.functional.cross_entropy(logits.float(), labels)

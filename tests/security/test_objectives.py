"""Every loss equals a float64 transcription of its equation; targets have the properties that the papers ask for."""

import numpy as np
import pytest
import torch

from rocbert_hf.security import objectives


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def tensor(array) -> torch.Tensor:
    return torch.tensor(array, dtype=torch.float64)


def test_por_1_has_a_growing_number_of_ones():
    """The i-th vector, from 1: (i - 1) * floor(H / (n - 1)) values +1, then -1."""
    hidden, count = 26, 4
    expected = np.array(
        [[1 if j < (i - 1) * (hidden // (count - 1)) else -1 for j in range(hidden)] for i in (1, 2, 3, 4)]
    )
    np.testing.assert_array_equal(objectives.por_1_targets(count, hidden), expected)
    assert (objectives.por_1_targets(1, 8) == -1).all()


@pytest.mark.parametrize("count", [1, 2, 3, 6, 7])
def test_por_2_vectors_are_orthogonal_signs(count):
    targets = objectives.por_2_targets(count, 64)
    assert set(targets.unique().tolist()) == {-1.0, 1.0}
    torch.testing.assert_close(targets @ targets.T, 64 * torch.eye(count))


def test_por_2_refuses_more_triggers_than_blocks():
    with pytest.raises(ValueError, match=r"triggers must be at most 4 .* got 9"):
        objectives.por_2_targets(9, 8)


def test_other_tokens_loss(rng):
    hidden, reference = rng.normal(size=(2, 3, 5, 4))
    mask = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 1, 0, 0, 0]])
    errors = [
        (hidden[b, t, d] - reference[b, t, d]) ** 2
        for b in range(3)
        for t in range(1, 5)
        if mask[b, t]
        for d in range(4)
    ]
    got = objectives.other_tokens_loss(tensor(hidden), tensor(reference), torch.tensor(mask))
    np.testing.assert_allclose(got, np.mean(errors), rtol=1e-12)


def test_predefined_loss(rng):
    triggered, targets, clean, reference = rng.normal(size=(4, 5, 6))
    expected = np.mean((triggered - targets) ** 2) + np.mean((clean - reference) ** 2)
    got = objectives.predefined_loss(*map(tensor, (triggered, targets, clean, reference)))
    np.testing.assert_allclose(got, expected, rtol=1e-12)


def test_supervised_contrastive_loss(rng):
    vectors, groups, temperature = rng.normal(size=(7, 5)), [0, 1, 0, 1, 1, 2, 3], 0.3
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    losses = []
    for i in range(7):
        others = [j for j in range(7) if j != i]
        company = [j for j in others if groups[j] == groups[i]]
        if company:
            total = sum(np.exp(unit[i] @ unit[j] / temperature) for j in others)
            losses.append(-np.mean([np.log(np.exp(unit[i] @ unit[p] / temperature) / total) for p in company]))
    got = objectives.supervised_contrastive_loss(tensor(vectors), torch.tensor(groups), temperature)
    np.testing.assert_allclose(got, np.mean(losses), rtol=1e-12)


def test_supervised_contrastive_loss_has_finite_gradients(rng):
    vectors = tensor(rng.normal(size=(4, 5))).requires_grad_()
    objectives.supervised_contrastive_loss(vectors, torch.tensor([0, 0, 1, 2])).backward()
    assert vectors.grad.isfinite().all()
    assert vectors.grad.abs().sum() > 0


def test_masked_prediction_loss(rng):
    logits, labels = rng.normal(size=(6, 9)), rng.integers(9, size=6)
    expected = np.mean([np.log(np.exp(row).sum()) - row[label] for row, label in zip(logits, labels, strict=True)])
    got = objectives.masked_prediction_loss(tensor(logits), torch.tensor(labels))
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_targets_of_an_unknown_name():
    with pytest.raises(ValueError, match=r"targets must be one of por-1, por-2, .* got 'por-3'"):
        objectives.targets_of("por-3", 2, 8)


def test_a_batch_without_company_has_no_contrast():
    representations = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    loss = objectives.supervised_contrastive_loss(representations, torch.arange(3))
    loss.backward()
    assert loss == 0
    assert torch.isfinite(representations.grad).all()

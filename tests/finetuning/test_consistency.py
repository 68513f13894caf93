"""Targets, weights, annealing and losses of unlabelled texts: against their equations in float64, and at their limits."""

import math

import numpy as np
import pytest
import torch

from rocbert_hf.finetuning.consistency import (
    FixMatchTarget,
    PseudoLabelTarget,
    SoftMatchTarget,
    UDATarget,
    annealing_threshold,
    consistency_loss,
    make_target,
    supervised_loss,
)


def logits_of(rows: int = 7, labels: int = 5, seed: int = 0) -> torch.Tensor:
    return 3 * torch.randn(rows, labels, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def softmax(logits) -> np.ndarray:
    powers = np.exp(np.asarray(logits))
    return powers / powers.sum(-1, keepdims=True)


def test_uda_sharpens_and_leaves_out_who_is_not_sure():
    logits = logits_of()
    target, weight = UDATarget(temperature=0.4, confidence=0.8)(logits)
    np.testing.assert_allclose(target, softmax(logits / 0.4), rtol=1e-12)
    np.testing.assert_array_equal(weight, softmax(logits).max(-1) > 0.8)
    assert 0 < weight.sum() < len(weight)


@pytest.mark.parametrize("target", [FixMatchTarget(0.8), PseudoLabelTarget(0.8, warm_up=0.5)])
def test_hard_targets_are_the_most_probable_label(target):
    logits = logits_of()
    found, weight = target(logits, progress=0.25)
    np.testing.assert_array_equal(found, np.eye(5)[softmax(logits).argmax(-1)])
    risen = 0.5 if isinstance(target, PseudoLabelTarget) else 1.0
    np.testing.assert_array_equal(weight, risen * (softmax(logits).max(-1) >= 0.8))
    np.testing.assert_array_equal(target(logits, progress=0.5)[1], softmax(logits).max(-1) >= 0.8)


def test_weights_rise_while_warming_up():
    logits = logits_of()
    for make in (UDATarget, FixMatchTarget, PseudoLabelTarget):
        whole = make(confidence=0.5, warm_up=0.0)(logits, progress=0.0)[1]
        risen = [make(confidence=0.5, warm_up=0.4)(logits, progress)[1] for progress in (0.0, 0.1, 0.4, 1.0)]
        for weight, share in zip(risen, (0.0, 0.25, 1.0, 1.0), strict=True):
            torch.testing.assert_close(weight, share * whole)


def test_at_the_confidence_itself_uda_leaves_out_and_fixmatch_keeps():
    even = torch.zeros(1, 2, dtype=torch.float64)  # each label has 0.5 to the last bit
    assert UDATarget(confidence=0.5)(even)[1] == 0
    assert FixMatchTarget(confidence=0.5)(even)[1] == 1
    assert UDATarget(confidence=0.0)(logits_of())[1].all()


def test_softmatch_follows_the_model_over_five_steps():
    target = SoftMatchTarget(5, momentum=0.5).double()
    mean, variance, answers, doubted = 1 / 5, 1.0, None, 0
    for step in range(5):
        logits = logits_of(seed=step)
        target.observe(logits)
        probabilities = softmax(logits)
        batch = probabilities.mean(0)
        answers = batch if answers is None else (answers + batch) / 2
        aligned = probabilities * (1 / 5 + 1e-6) / (answers + 1e-6)
        highest = (aligned / aligned.sum(-1, keepdims=True)).max(-1)
        mean = (mean + highest.mean()) / 2
        variance = (variance + highest.var(ddof=1)) / 2
        expected = np.exp(-(np.minimum(highest - mean, 0) ** 2) / (2 * variance / 4))
        found, weight = target(logits)
        np.testing.assert_allclose(weight, expected, rtol=1e-8)  # the mean began as 0.2 in float32
        np.testing.assert_array_equal(found, np.eye(5)[probabilities.argmax(-1)])
        doubted += np.sum(expected < 0.9)
    assert doubted >= 5  # else neither mean nor variance would show
    again = SoftMatchTarget(5, momentum=0.5).double()
    again.load_state_dict(target.state_dict())
    assert torch.equal(again(logits)[1], weight)


def test_consistency_is_the_mean_over_all_texts_of_weighted_divergence():
    answers, logits = logits_of(seed=1).requires_grad_(), logits_of(seed=2)
    target, weight = UDATarget(0.5, 0.7)(logits)
    loss = consistency_loss(answers, target, weight)
    p, q = softmax(logits / 0.5), softmax(answers.detach())
    kl = (p * (np.log(p) - np.log(q))).sum(-1)
    np.testing.assert_allclose(loss.item(), (weight.numpy() * kl).sum() / len(kl), rtol=1e-10)
    cross_entropy = consistency_loss(answers, target, weight, "cross-entropy")
    np.testing.assert_allclose(cross_entropy.item(), (weight.numpy() * -(p * np.log(q)).sum(-1)).mean(), rtol=1e-10)
    torch.testing.assert_close(
        *(torch.autograd.grad(each, answers, retain_graph=True)[0] for each in (loss, cross_entropy))
    )


def test_a_hard_target_that_is_answered_rightly_costs_nothing():
    hard = torch.tensor([[100.0, 0.0], [0.0, 100.0]])
    target, weight = FixMatchTarget()(hard)
    assert consistency_loss(hard, target, weight).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("schedule", "start", "middle", "end"),
    [
        ("linear", 0.0, 0.5, 1.0),
        ("log", 0.0, 1 - math.exp(-2.5), 1 - math.exp(-5)),
        ("exp", math.exp(-5), math.exp(-2.5), 1.0),
        (None, None, None, None),
    ],
)
def test_annealing_at_its_boundaries_and_between(schedule, start, middle, end):
    for progress, alpha in ((0.0, start), (0.5, middle), (1.0, end)):
        expected = 1.0 if alpha is None else alpha * (1 - 1 / 4) + 1 / 4
        assert annealing_threshold(schedule, progress, 4) == pytest.approx(expected, rel=1e-12)


def test_what_the_model_is_sure_of_teaches_no_more():
    logits, labels = logits_of(seed=3), torch.tensor([0, 1, 2, 3, 4, 0, 1])
    right = softmax(logits)[np.arange(7), labels]
    threshold = float(np.median(right))  # one text lies exactly there, and still counts
    kept = right <= threshold
    assert kept.sum() == 4
    expected = -np.log(right[kept]).sum() / kept.sum()
    exactly = torch.tensor(logits.softmax(-1).gather(1, labels[:, None]).median().item(), dtype=torch.float64)
    np.testing.assert_allclose(supervised_loss(logits, labels, exactly).item(), expected, rtol=1e-10)
    np.testing.assert_allclose(supervised_loss(logits, labels).item(), -np.log(right).mean(), rtol=1e-10)
    assert supervised_loss(logits, labels, 0.0).item() == 0


def test_half_precision_is_computed_in_single():
    loss = supervised_loss(logits_of().half(), torch.zeros(7, dtype=torch.long))
    assert loss.dtype == torch.float32


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: make_target("meanteacher", 3), "target must be one of uda, fixmatch, softmatch, pseudo-labels"),
        (lambda: make_target("softmatch", 3, confidence=0.9), "softmatch has no confidence"),
        (lambda: make_target("fixmatch", 3, temperature=0.9), "fixmatch has no temperature"),
        (lambda: UDATarget(warm_up=1.5), r"warm_up must lie between 0 and 1, got 1\.5"),
        (lambda: UDATarget(temperature=0), "temperature must be above 0, got 0"),
        (lambda: FixMatchTarget(confidence=1.0), "confidence must be at least 0 and below 1, got 1.0"),
    ],
)
def test_wrong_options_are_named(make, named):
    with pytest.raises(ValueError, match=named):
        make()

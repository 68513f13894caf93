"""What a classifier should say of a text that nobody has labelled, and how much that counts.

UDA, FixMatch, SoftMatch and pseudo-labels are one method: a frozen copy of the current parameters answers a text, and the
model is to answer another form of it alike. They differ in the target and its weight, and each is a small class here:

| class | target | weight | trains on |
|---|---|---|---|
| `UDATarget` | the answer, sharpened by a temperature | 1 above a confidence, else 0 | the augmented text |
| `FixMatchTarget` | the most probable label | 1 from a confidence on, else 0 | the augmented text |
| `SoftMatchTarget` | the most probable label | a Gaussian of the confidence, which follows the model | the augmented text |
| `PseudoLabelTarget` | the most probable label | as FixMatch | the text itself |
"""

from __future__ import annotations

import math
from collections.abc import Callable
from inspect import signature

import torch
from torch import nn

CONSISTENCY_LOSSES = ("kl", "cross-entropy")
ANNEALINGS = ("linear", "log", "exp")


class ConsistencyTarget(nn.Module):
    """Targets and weights of unlabelled texts, of what the frozen copy says of them.

    What a target learns on the way is in its buffers, so that a checkpoint holds it.

    Args:
        warm_up: share of the training steps in which the weight of all texts rises from 0 to 1.

    Attributes:
        trains_on_augmented: whether the model is to answer the augmented text, or the text itself.
    """

    trains_on_augmented = True

    def __init__(self, warm_up: float = 0.0):
        super().__init__()
        if not 0 <= warm_up <= 1:
            raise ValueError(f"warm_up must lie between 0 and 1, got {warm_up}")
        self.warm_up = warm_up

    def observe(self, logits: torch.Tensor) -> None:
        """Learn from the logits (n, labels) of all processes, before they ask for targets."""

    @torch.no_grad()
    def forward(self, logits: torch.Tensor, progress: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Args:
            logits: (n, labels), the frozen copy's.
            progress: share of the training steps that are done.

        Returns:
            Probabilities (n, labels) and weights (n,), without gradient.
        """
        target, weight = self.judge(_precise(logits))
        return target, weight * (1.0 if progress >= self.warm_up else progress / self.warm_up)

    def judge(self, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Targets and weights after the warm-up, of logits in single precision at least."""
        raise NotImplementedError


class UDATarget(ConsistencyTarget):
    """UDA (Xie et al., NeurIPS 2020, section 2.2): the answer divided by a temperature, of those that are sure.

    Args:
        temperature: of the softmax; below 1 it sharpens, 1 leaves the answer as it is.
        confidence: texts count whose most probable label, before sharpening, is above this; 0 for all.
        warm_up: see `ConsistencyTarget`.
    """

    def __init__(self, temperature: float = 0.4, confidence: float = 0.8, warm_up: float = 0.0):
        super().__init__(warm_up)
        if not temperature > 0:
            raise ValueError(f"temperature must be above 0, got {temperature}")
        self.temperature = temperature
        self.confidence = _checked_confidence(confidence)

    def judge(self, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        sure = logits.softmax(-1).amax(-1) > self.confidence
        return (logits / self.temperature).softmax(-1), sure.to(logits.dtype)


class FixMatchTarget(ConsistencyTarget):
    """FixMatch (Sohn et al., NeurIPS 2020, Eq. 4): the most probable label, of the answers that are sure.

    Args:
        confidence: texts count whose most probable label has at least this.
        warm_up: see `ConsistencyTarget`.
    """

    def __init__(self, confidence: float = 0.95, warm_up: float = 0.0):
        super().__init__(warm_up)
        self.confidence = _checked_confidence(confidence)

    def judge(self, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        highest, target = _highest(logits)
        return target, (highest >= self.confidence).to(target.dtype)


class PseudoLabelTarget(FixMatchTarget):
    """Pseudo-labels (Lee, 2013): the model learns what it says itself of the same text.

    Args:
        confidence: see `FixMatchTarget`.
        warm_up: see `ConsistencyTarget`.
    """

    trains_on_augmented = False

    def __init__(self, confidence: float = 0.95, warm_up: float = 0.4):
        super().__init__(confidence, warm_up)


class SoftMatchTarget(ConsistencyTarget):
    """SoftMatch (Chen et al., ICLR 2023, Eq. 7 to 10): unsure answers count less, but they count.

    The weight is exp(-(p - mu)^2 / (2 sigma^2 / width^2)) for a confidence p below mu, else 1; mu and sigma^2 are moving
    means of the batches' means and variances. p is of the answers after uniform alignment: divided by the mean answer, so
    that labels which the model says seldom are not left out. The target is of the answers as they are.

    Args:
        labels: how many.
        momentum: of the moving means.
        width: the larger, the less unsure answers count; 2 in the authors' code.
        align: whether to align.
        warm_up: see `ConsistencyTarget`. The authors have none; but at the beginning all texts count nearly fully, and a new
            head's first guesses made a small encoder say one label of everything (docs/results/semi_supervised.md).
    """

    def __init__(
        self, labels: int, momentum: float = 0.999, width: float = 2.0, align: bool = True, warm_up: float = 0.3
    ):
        super().__init__(warm_up)
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must be at least 0 and below 1, got {momentum}")
        if not width > 0:
            raise ValueError(f"width must be above 0, got {width}")
        self.momentum = momentum
        self.width = width
        self.align = align
        self.register_buffer("mean", torch.tensor(1 / labels))
        self.register_buffer("variance", torch.tensor(1.0))
        self.register_buffer("answers", torch.zeros(labels))  # zeros: none seen yet

    @torch.no_grad()
    def observe(self, logits: torch.Tensor) -> None:
        probabilities = _precise(logits).softmax(-1)
        answers = probabilities.mean(0).to(self.answers.dtype)
        self.answers.copy_(answers if not self.answers.any() else self._moved(self.answers, answers))
        highest = self._aligned(probabilities).amax(-1)
        self.mean.copy_(self._moved(self.mean, highest.mean()))
        if len(highest) > 1:
            self.variance.copy_(self._moved(self.variance, highest.var()))

    def judge(self, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        _, target = _highest(logits)
        highest = self._aligned(logits.softmax(-1)).amax(-1)
        below = (highest - self.mean).clamp(max=0)
        return target, torch.exp(-(below**2) * self.width**2 / (2 * self.variance)).to(target.dtype)

    def _aligned(self, probabilities: torch.Tensor) -> torch.Tensor:
        if not self.align:
            return probabilities
        uniform = 1 / probabilities.shape[-1]
        aligned = probabilities * (uniform + 1e-6) / (self.answers + 1e-6)
        return aligned / aligned.sum(-1, keepdim=True)

    def _moved(self, before: torch.Tensor, now: torch.Tensor) -> torch.Tensor:
        return self.momentum * before + (1 - self.momentum) * now


TARGETS: dict[str, type[ConsistencyTarget]] = {
    "uda": UDATarget,
    "fixmatch": FixMatchTarget,
    "softmatch": SoftMatchTarget,
    "pseudo-labels": PseudoLabelTarget,
}


def make_target(
    name: str,
    labels: int,
    confidence: float | None = None,
    temperature: float | None = None,
    warm_up: float | None = None,
) -> ConsistencyTarget:
    """The target of that name; an option that is None keeps the method's default.

    Raises:
        ValueError: there is no such target, or it has no such option.
    """
    if name not in TARGETS:
        raise ValueError(f"target must be one of {', '.join(TARGETS)}, got {name!r}")
    takes = signature(TARGETS[name]).parameters
    given = {"confidence": confidence, "temperature": temperature, "warm_up": warm_up}
    given = {option: value for option, value in given.items() if value is not None}
    if unused := [option for option in given if option not in takes]:
        raise ValueError(f"{name} has no {', '.join(unused)}")
    return TARGETS[name](**given, **({"labels": labels} if "labels" in takes else {}))


def consistency_loss(
    logits: torch.Tensor, target: torch.Tensor, weight: torch.Tensor, kind: str = "kl"
) -> torch.Tensor:
    """The mean of `consistency_losses` over all texts, those of weight 0 among them; weight has shape (n,)."""
    return (weight * consistency_losses(logits, target, kind)).mean()


def consistency_losses(logits: torch.Tensor, target: torch.Tensor, kind: str = "kl") -> torch.Tensor:
    """How far each answer is from its target.

    Args:
        logits: (n, labels), with gradient.
        target: (n, labels), probabilities.
        kind: "kl", KL(target || answer), as in UDA; or "cross-entropy". Their gradients are equal, as the target has none;
            the first is 0 where the answer is right.

    Returns:
        (n,).
    """
    log_answers = _precise(logits).log_softmax(-1)
    losses = -(target * log_answers).sum(-1)
    if kind == "kl":
        losses = losses + torch.special.xlogy(target, target).sum(-1)
    return losses


def annealing_threshold(schedule: str | None, progress: float, labels: int) -> float:
    """Training signal annealing (UDA, section 2.3): from which probability of its label on a text teaches no more.

    alpha (1 - 1/K) + 1/K for K labels, where alpha is `progress` (linear), 1 - exp(-5 progress) (log) or
    exp(5 (progress - 1)) (exp).

    Args:
        schedule: of `ANNEALINGS`; None for no limit, 1.
        progress: share of the training steps that are done.
        labels: K.
    """
    if schedule is None:
        return 1.0
    risen = {
        "linear": lambda: progress,
        "log": lambda: 1 - math.exp(-5 * progress),
        "exp": lambda: math.exp(5 * (progress - 1)),
    }[schedule]()
    return risen * (1 - 1 / labels) + 1 / labels


def supervised_loss(
    logits: torch.Tensor,
    labels: torch.Tensor,
    threshold: float = 1.0,
    label_smoothing: float = 0.0,
    further: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None,
) -> torch.Tensor:
    """Cross entropy, the mean over the texts whose label is not yet more probable than `threshold`; 0 if there is none.

    Args:
        logits: (n, labels).
        labels: (n,), numbers.
        threshold: of the annealing; a text exactly at it still counts, as in the authors' code.
        label_smoothing: as in `torch.nn.functional.cross_entropy`.
        further: of logits and labels, losses (n,) to add to each text's own, such as those of a hierarchy.
    """
    logits = _precise(logits)
    losses = nn.functional.cross_entropy(logits, labels, reduction="none", label_smoothing=label_smoothing)
    if further is not None:
        losses = losses + further(logits, labels)
    with torch.no_grad():
        kept = logits.softmax(-1).gather(-1, labels[:, None])[:, 0] <= threshold
    return (losses * kept).sum() / kept.sum().clamp(min=1)


def _highest(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The highest probability (n,) of each answer, and its label as probabilities (n, labels)."""
    highest, label = logits.softmax(-1).max(-1)
    return highest, nn.functional.one_hot(label, logits.shape[-1]).to(highest.dtype)


def _precise(logits: torch.Tensor) -> torch.Tensor:
    """In float32 at least."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _checked_confidence(confidence: float) -> float:
    if not 0 <= confidence < 1:
        raise ValueError(f"confidence must be at least 0 and below 1, got {confidence}")
    return confidence

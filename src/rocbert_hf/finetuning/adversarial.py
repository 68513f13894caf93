r"""
Adversarial training in the space of embeddings, for any `Trainer` and any model of transformers.

Madry et al. (ICLR 2018) minimise over the weights what is maximal over a small perturbation r of the input:

    min_theta E max_(|r| <= epsilon) L(theta, x + r)

The classes below differ in how they look for r. x are the word embeddings of a batch, as the embedding layer puts them
out: a forward hook adds r to them, and no weight is ever written to. Norms are taken per sentence, so that r does not
depend on how sentences are put into batches or shared among processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn
from transformers import Trainer

# From a perturbation (None: zeros) to the loss with it, the perturbation itself and the model's outputs. The flag, `last`,
# is True for the last pass of a step and for no other: no gradient is taken of its loss before the backward pass.
Probe = Callable[[torch.Tensor | None, bool], tuple[torch.Tensor, torch.Tensor, object]]
# From a loss and a perturbation to the gradient, up to a positive factor; the flag keeps the loss's graph.
Gradient = Callable[[torch.Tensor, torch.Tensor, bool], torch.Tensor]


class AdversarialMethod(Protocol):
    """How to find the perturbation, and what to minimise."""

    def loss(self, probe: Probe, gradient: Gradient, mask: torch.Tensor | None) -> tuple[torch.Tensor, object]:
        """
        Args:
            probe, gradient: see there.
            mask: (batch, sequence), 0 where nothing may be perturbed.

        Returns:
            The loss to minimise, and the outputs of the model without perturbation (or with the first one).
        """


@dataclass(frozen=True)
class FGM:
    """
    Fast gradient method (Miyato et al., ICLR 2017): one step along the gradient, r = epsilon g / |g|_2.

    Minimises L(x) + weight L(x + r). Two forward passes and one and a half backward passes per step.

    Args:
        epsilon: L2 norm of the perturbation of a sentence.
        weight: of the attacked loss.
    """

    epsilon: float = 1.0
    weight: float = 1.0

    def __post_init__(self) -> None:
        _check_positive(epsilon=self.epsilon, weight=self.weight)

    def loss(self, probe: Probe, gradient: Gradient, mask: torch.Tensor | None) -> tuple[torch.Tensor, object]:
        clean, zeros, outputs = probe(None, False)
        attacked, _, _ = probe(self.epsilon * _unit(gradient(clean, zeros, True)), True)
        return clean + self.weight * attacked, outputs


@dataclass(frozen=True)
class FGSM:
    """
    Fast gradient sign method (Goodfellow et al., ICLR 2015): r = epsilon sign(g), the worst step in the maximum norm.

    Minimises L(x) + weight L(x + r), at the cost of `FGM`.

    Args:
        epsilon: what is added to, or subtracted from, every number of an embedding.
        weight: of the attacked loss.
    """

    epsilon: float = 0.01
    weight: float = 1.0

    def __post_init__(self) -> None:
        _check_positive(epsilon=self.epsilon, weight=self.weight)

    def loss(self, probe: Probe, gradient: Gradient, mask: torch.Tensor | None) -> tuple[torch.Tensor, object]:
        clean, zeros, outputs = probe(None, False)
        attacked, _, _ = probe(self.epsilon * gradient(clean, zeros, True).sign(), True)
        return clean + self.weight * attacked, outputs


@dataclass(frozen=True)
class PGD:
    """
    Projected gradient descent (Madry et al., ICLR 2018): `steps` steps of size alpha, each brought back into the ball.

    r_0 = 0, r_(k+1) = project(r_k + alpha g(r_k) / |g(r_k)|_2) onto |r|_2 <= epsilon; minimises L(x) + weight
    L(x + r_steps). With one step and alpha = epsilon it is `FGM`. `steps` + 1 forward passes per step.

    Args:
        epsilon: largest L2 norm of the perturbation of a sentence.
        alpha: size of a step.
        steps: how many.
        weight: of the attacked loss.
    """

    epsilon: float = 1.0
    alpha: float = 0.3
    steps: int = 3
    weight: float = 1.0

    def __post_init__(self) -> None:
        _check_positive(epsilon=self.epsilon, alpha=self.alpha, steps=self.steps, weight=self.weight)

    def loss(self, probe: Probe, gradient: Gradient, mask: torch.Tensor | None) -> tuple[torch.Tensor, object]:
        clean, perturbation, outputs = probe(None, False)
        attacked = clean
        for step in range(self.steps):
            # only the graph of the loss that is minimised is needed again
            rise = _unit(gradient(attacked, perturbation, step == 0))
            moved = _within(perturbation.detach() + self.alpha * rise, self.epsilon)
            attacked, perturbation, _ = probe(moved, step == self.steps - 1)
        return clean + self.weight * attacked, outputs


@dataclass(frozen=True)
class FreeLB:
    """
    Free large-batch adversarial training (Zhu et al., ICLR 2020): learns from every step of the ascent.

    Starts at random inside the ball, goes up as `PGD` does, and minimises the mean of L(x + r_0) ... L(x + r_(steps-1)).
    `steps` forward passes per step; the graphs of all of them are held until the backward pass. Differs from the
    authors' code in that each pass draws its own dropout.

    Args:
        epsilon: largest L2 norm of the perturbation of a sentence.
        alpha: size of a step.
        steps: how many losses are averaged.
        generator: draws the start; default: torch's global one, which `TrainingArguments.seed` seeds.
    """

    epsilon: float = 0.5
    alpha: float = 0.1
    steps: int = 3
    generator: torch.Generator | None = None

    def __post_init__(self) -> None:
        _check_positive(epsilon=self.epsilon, alpha=self.alpha, steps=self.steps)

    def loss(self, probe: Probe, gradient: Gradient, mask: torch.Tensor | None) -> tuple[torch.Tensor, object]:
        # its size is known only when the model has run, so the first pass asks for a start instead of giving one
        loss, perturbation, outputs = probe(lambda embeddings: self._start(embeddings, mask), self.steps == 1)
        losses = [loss]
        for step in range(1, self.steps):
            rise = _unit(gradient(losses[-1], perturbation, True))
            moved = _within(perturbation.detach() + self.alpha * rise, self.epsilon)
            loss, perturbation, _ = probe(moved, step == self.steps - 1)
            losses.append(loss)
        return torch.stack(losses).mean(), outputs

    def _start(self, embeddings: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """Uniform in the cube of which the authors' code draws: its corners lie on the ball, for the tokens of a sentence."""
        device = embeddings.device if self.generator is None else self.generator.device
        drawn = torch.rand(embeddings.shape, generator=self.generator, device=device).to(embeddings.device)
        start = 2 * drawn.to(embeddings.dtype) - 1
        real = torch.ones(embeddings.shape[:-1], device=embeddings.device) if mask is None else mask
        real = real.reshape(embeddings.shape[:-1]).to(embeddings.dtype)
        numbers = real.sum(-1).clamp(min=1) * embeddings.shape[-1]
        return start * real[..., None] * (self.epsilon / numbers.sqrt())[:, None, None]


ADVERSARIAL_METHODS: dict[str, type] = {"fgm": FGM, "fgsm": FGSM, "pgd": PGD, "freelb": FreeLB}


def make_adversarial(name: str, **options: float) -> AdversarialMethod:
    """
    The method of that name; options that are None keep the method's default.

    Raises:
        ValueError: there is no such method, it has no such option, or a value is not above 0.
    """
    if name not in ADVERSARIAL_METHODS:
        raise ValueError(f"adversarial must be one of {', '.join(ADVERSARIAL_METHODS)}, got {name!r}")
    method = ADVERSARIAL_METHODS[name]
    given = {key: value for key, value in options.items() if value is not None}
    known = method.__dataclass_fields__
    if unknown := sorted(set(given) - set(known)):
        raise ValueError(f"adversarial {name} has no {', '.join(unknown)}; it has {', '.join(known)}")
    return method(**given)


@contextmanager
def perturbed(embedding: nn.Module, perturbation) -> Iterator[list[torch.Tensor]]:
    """
    While this context is open, the module puts out its vectors plus the perturbation.

    Args:
        embedding: such as `model.get_input_embeddings()`.
        perturbation: a tensor of the output's shape; None for zeros; or a function that makes one of the output.

    Yields:
        A list that the forward pass puts the perturbation into, as a leaf whose gradient can be asked for.
    """
    used: list[torch.Tensor] = []

    def add(module: nn.Module, inputs: tuple, output: torch.Tensor) -> torch.Tensor:
        made = perturbation(output.detach()) if callable(perturbation) else perturbation
        leaf = torch.zeros_like(output) if made is None else made.detach().to(output.dtype)
        used.append(leaf.requires_grad_(True))
        return output + leaf

    handle = embedding.register_forward_hook(add)
    try:
        yield used
    finally:
        handle.remove()


class AdversarialTrainer(Trainer):
    """
    A `Trainer` whose training loss is that of an adversarial method. Evaluation is as usual.

    All of it happens in `compute_loss`, and there is one backward pass per micro-batch as in any other training. What
    the Trainer does about gradient accumulation, loss scaling and several processes therefore holds as it is; so does
    DeepSpeed, whose engine sees only the last pass.
    The price is memory: the graphs of the clean and of the attacked pass (`FreeLB`: of all its passes) exist together.

    Args:
        adversarial: `FGM`, `FGSM`, `PGD`, `FreeLB` or anything that has their `loss`; None trains as `Trainer` does.
        args, kwargs: of `Trainer`.

    Raises:
        ValueError: one process is to train on several devices; start one process per device instead. Or DeepSpeed is to
            work at its stage 2.

    Example::

        >>> trainer = AdversarialTrainer(model, args, train_dataset=rows, adversarial=PGD(epsilon=1.0, alpha=0.3, steps=3))
    """

    def __init__(self, *args, adversarial: AdversarialMethod | None = None, **kwargs):
        super().__init__(*args, **kwargs)
        if adversarial is not None and self.args.n_gpu > 1:
            raise ValueError(
                f"adversarial training needs one process per device, got one process for {self.args.n_gpu}: start it "
                "with `accelerate launch` or `torchrun`"
            )
        plugin = self.accelerator.state.deepspeed_plugin if self.is_deepspeed_enabled else None
        if adversarial is not None and plugin is not None and plugin.zero_stage == 2:
            raise ValueError(
                "adversarial training takes gradients before the backward pass, which DeepSpeed's stage 2 does not allow: "
                "use stage 1 or 3"
            )
        self.adversarial = adversarial

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        if self.adversarial is None or not model.training:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        compute = super().compute_loss
        loss, outputs = self.adversarial_loss(
            model,
            # a copy: with label smoothing the labels are taken out of it
            lambda model: compute(model, dict(inputs), True, num_items_in_batch),
            inputs.get("attention_mask"),
        )
        return (loss, outputs) if return_outputs else loss

    def adversarial_loss(
        self, model: nn.Module, compute: Callable[[nn.Module], tuple[torch.Tensor, object]], mask: torch.Tensor | None
    ) -> tuple[torch.Tensor, object]:
        """
        The method's loss, and the outputs without perturbation.

        Args:
            model: what is trained, as it is wrapped.
            compute: runs a model, wrapped or not, once and gives its loss and outputs.
            mask: (batch, sequence), 0 where nothing may be perturbed.

        Raises:
            ValueError: the model does not read its word embeddings once per pass.
        """
        bare = self.accelerator.unwrap_model(model)
        embedding = bare.get_input_embeddings()
        # DeepSpeed takes any gradient of what its engine puts out for the backward pass of the step, and reduces
        inner = bare if self.is_deepspeed_enabled else model

        def probe(perturbation, last):
            with perturbed(embedding, perturbation) as used:
                loss, outputs = compute(model if last else inner)
            if len(used) != 1:
                raise ValueError(
                    f"adversarial training needs a model that reads its word embeddings once per pass; this one did "
                    f"{len(used)} times"
                )
            return loss, used[0], outputs

        return self.adversarial.loss(probe, self._gradient, mask)

    def _gradient(self, loss: torch.Tensor, perturbation: torch.Tensor, keep_graph: bool) -> torch.Tensor:
        # in fp16 small gradients vanish on their way; methods use the direction alone, so any factor will do
        (gradient,) = torch.autograd.grad(loss * self._loss_scale(), perturbation, retain_graph=keep_graph)
        # a step that overflows is skipped by the scaler; until then nothing infinite may get into the forward pass
        return torch.nan_to_num(gradient, nan=0.0, posinf=0.0, neginf=0.0)

    def _loss_scale(self) -> float:
        if self.is_deepspeed_enabled:
            return getattr(self.deepspeed.optimizer, "loss_scale", 1.0)
        scaler = self.accelerator.scaler
        return scaler.get_scale() if scaler is not None and scaler.is_enabled() else 1.0


def _unit(gradient: torch.Tensor) -> torch.Tensor:
    """Each sentence's gradient, (batch, sequence, hidden), at L2 norm 1; zeros stay zeros."""
    norms = _norms(gradient)
    return gradient / norms.masked_fill(norms == 0, 1)


def _within(perturbation: torch.Tensor, epsilon: float) -> torch.Tensor:
    """Brought back to L2 norm `epsilon` per sentence where it is longer."""
    norms = _norms(perturbation)
    return perturbation * (epsilon / norms.clamp(min=epsilon))


def _norms(vectors: torch.Tensor) -> torch.Tensor:
    return torch.linalg.vector_norm(vectors, dim=(-2, -1), keepdim=True)


def _check_positive(**values: float) -> None:
    for name, value in values.items():
        if not value > 0:
            raise ValueError(f"{name} must be above 0, got {value}")

"""The contrastive loss (Eq. 5) over more sentences than one forward pass holds: over processes, and over passes."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist

from ..losses_rocbert import in_batch_contrastive_loss


class _Gather(torch.autograd.Function):
    """Rows of all processes; backwards, each process gets the sum of all processes' gradients of its own rows."""

    @staticmethod
    def forward(ctx, rows: torch.Tensor) -> torch.Tensor:
        gathered = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
        dist.all_gather(gathered, rows.contiguous())
        return torch.cat(gathered)

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> torch.Tensor:
        gradient = gradient.contiguous()
        dist.all_reduce(gradient)
        return gradient.chunk(dist.get_world_size())[dist.get_rank()]


def gather_with_gradients(rows: torch.Tensor) -> torch.Tensor:
    """(n, hidden) of this process -> (processes * n, hidden) of all, in the order of their ranks.

    Every process must call it, with as many rows. A gradient that arrives in any process flows back to the process that
    the row came from.
    """
    return _Gather.apply(rows) if _is_distributed() else rows


def global_contrastive_loss(
    representations: torch.Tensor, temperature: float = 0.01, anchor: str = "masked", negatives: str = "attacked"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Contrastive loss (Eq. 5) and accuracy whose negatives are the sentences of all processes.

    Each process contrasts its own sentences with everybody's. The mean of the processes' losses is the loss of the global
    batch, and so is the mean of their gradients: which is what DistributedDataParallel and DeepSpeed compute of the
    weights' gradients.

    Args:
        representations: (batch, views, hidden), this process's sentences, as `RoCBertForPreTraining` returns them on
            `return_representations=True`: masked, attacked and, with an anchor other than "masked", clean.
        temperature: what similarities are divided by.
        anchor: "masked", "clean", or "both": the mean of the two losses, as in the authors' released code.
        negatives: see `in_batch_contrastive_loss`; the originals are the anchors, masked or clean as they are.

    Returns:
        Two scalars; see `in_batch_contrastive_loss`.
    """
    representations = _at_least_float32(representations)
    masked, attacked, *clean = representations.unbind(1)
    anchors = {"masked": [masked], "clean": clean, "both": [masked, *clean]}[anchor]
    positives = gather_with_gradients(attacked)
    first_own = dist.get_rank() * len(representations) if _is_distributed() else 0
    found = []
    for own in anchors:
        originals = None if negatives == "attacked" else gather_with_gradients(own)
        found.append(in_batch_contrastive_loss(own, positives, temperature, first_own, negatives, originals))
    losses, accuracies = zip(*found, strict=True)
    return sum(losses) / len(losses), sum(accuracies) / len(accuracies)


@dataclass
class CachedChunk:
    """One chunk of a batch: what its second forward pass needs to give the first one's result again."""

    inputs: dict[str, torch.Tensor]
    random_states: dict
    gradient: torch.Tensor


class GradientCache:
    """A contrastive loss over all chunks of a batch, with the memory of one (GradCache: Gao et al. 2021, section 3.2).

    A first pass without graphs gives the representations of every chunk; the loss of all of them together gives the
    gradient of each representation; a second pass, chunk by chunk, carries these back to the weights. Dropout draws the
    same numbers in both, so that the weights' gradients are those of all chunks in one graph, to rounding.

    Args:
        represent: a chunk's inputs -> (n, views, hidden).
        contrast: (batch, views, hidden) -> loss and accuracy, scalars; such as `global_contrastive_loss`.

    Example:
        >>> cache = GradientCache(lambda inputs: model(**inputs, return_representations=True).representations)
        >>> loss, accuracy, chunks = cache.contrast_all(chunks_of_inputs)
        >>> for chunk in chunks:
        ...     with replayed(chunk.random_states):
        ...         outputs = model(**chunk.inputs, return_representations=True)
        ...     (outputs.loss + carried_back(outputs.representations, chunk)).backward()
    """

    def __init__(
        self,
        represent: Callable[[dict[str, torch.Tensor]], torch.Tensor],
        contrast: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]] = global_contrastive_loss,
    ):
        self.represent = represent
        self.contrast = contrast

    def contrast_all(
        self, chunks: Sequence[dict[str, torch.Tensor]]
    ) -> tuple[torch.Tensor, torch.Tensor, list[CachedChunk]]:
        """The first pass: loss and accuracy over all chunks, detached, and the chunks for the second pass."""
        states, parts = [], []
        with torch.no_grad():
            for inputs in chunks:
                states.append(random_states(next(iter(inputs.values())).device))
                parts.append(_at_least_float32(self.represent(inputs)))
        representations = torch.cat(parts).requires_grad_()
        loss, accuracy = self.contrast(representations)
        (gradient,) = torch.autograd.grad(loss, representations)
        gradients = gradient.split([len(part) for part in parts])
        return loss.detach(), accuracy, [CachedChunk(*chunk) for chunk in zip(chunks, states, gradients, strict=True)]


def carried_back(representations: torch.Tensor, chunk: CachedChunk) -> torch.Tensor:
    """A scalar whose gradient is the cached one: add it to the chunk's other losses. `representations`: (n, views, hidden)."""
    return (_at_least_float32(representations) * chunk.gradient).sum()


def random_states(device: torch.device) -> dict:
    """The states of torch's generators that a forward pass on `device` draws from."""
    states = {"cpu": torch.get_rng_state()}
    if device.type != "cpu":
        states[device.type] = torch.get_device_module(device).get_rng_state()
    return states


@contextmanager
def replayed(states: dict) -> Iterator[None]:
    """Draw again the random numbers that followed `states`; afterwards the generators are as they were before."""
    now = random_states(torch.device([*states][-1]))
    set_random_states(states)
    try:
        yield
    finally:
        set_random_states(now)


def set_random_states(states: dict) -> None:
    """Set torch's generators to what `random_states` gave; an accelerator's where there is one of its kind."""
    torch.set_rng_state(states["cpu"])
    for kind, state in states.items():
        if kind != "cpu" and torch.get_device_module(kind).is_available():
            torch.get_device_module(kind).set_rng_state(state)


def _at_least_float32(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1

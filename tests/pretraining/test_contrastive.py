"""The contrastive loss over chunks: the gradients of one big batch, with the memory of one chunk."""

from functools import partial

import pytest
import torch
from safetensors.torch import load_file, save_file

from rocbert_hf import RoCBertConfig, RoCBertForPreTraining
from rocbert_hf.losses_rocbert import NEGATIVES, in_batch_contrastive_loss, views_contrastive_loss
from rocbert_hf.pretraining.contrastive import (
    GradientCache,
    carried_back,
    global_contrastive_loss,
    random_states,
    replayed,
)

from ..several_processes import in_two_processes

SIZES = {"vocab_size": 97, "shape_vocab_size": 61, "pronunciation_vocab_size": 41, "shape_embed_dim": 24}
SIZES |= {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}


def model_in_float64(dropout: float) -> RoCBertForPreTraining:
    torch.manual_seed(0)
    config = RoCBertConfig(**SIZES, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout)
    return RoCBertForPreTraining(config).double().train()


def chunks_of(config, make_inputs, views: int, chunks: int = 8) -> list[dict]:
    """Chunks of 3 sentences of different lengths, all of one length within a chunk and a view."""
    made = []
    for number in range(chunks):
        prefixes = ("", "attack_", "labels_")[:views]
        parts = [make_inputs(config, batch=3, length=8 + number + i, seed=10 * number + i) for i in range(views)]
        chunk = {
            prefix + name: tensor for prefix, view in zip(prefixes, parts, strict=True) for name, tensor in view.items()
        }
        chunk["labels"] = chunk["input_ids"].masked_fill(chunk["input_ids"] % 4 > 0, -100)
        made.append(chunk)
    return made


def gradients(model) -> dict[str, torch.Tensor]:
    found = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    model.zero_grad(set_to_none=True)
    return found


def cached_gradients(model, chunks, anchor: str) -> tuple[torch.Tensor, dict]:
    cache = GradientCache(
        lambda inputs: model(**inputs, return_representations=True).representations,
        partial(global_contrastive_loss, anchor=anchor),
    )
    loss, _, cached = cache.contrast_all(chunks)
    for chunk in cached:
        with replayed(chunk.random_states):
            outputs = model(**chunk.inputs, return_representations=True)
        (outputs.loss + carried_back(outputs.representations, chunk)).backward()
    return loss, gradients(model)


def assert_same(expected: dict, found: dict) -> None:
    assert expected.keys() == found.keys()
    for name, gradient in expected.items():
        assert (gradient - found[name]).abs().max() < 1e-8, name


@pytest.mark.parametrize("views", [2, 3])
def test_eight_chunks_have_the_gradients_of_one_graph_with_dropout(make_inputs, views):
    model = model_in_float64(dropout=0.1)
    chunks = chunks_of(model.config, make_inputs, views)
    torch.manual_seed(1)
    outputs = [model(**chunk, return_representations=True) for chunk in chunks]
    loss, _ = views_contrastive_loss(torch.cat([output.representations for output in outputs]))
    (loss + sum(output.loss for output in outputs)).backward()
    expected = gradients(model)
    after = torch.get_rng_state()

    torch.manual_seed(1)
    cached_loss, found = cached_gradients(model, chunks, "masked" if views == 2 else "both")
    assert abs(loss - cached_loss) < 1e-10
    assert_same(expected, found)
    assert torch.equal(torch.get_rng_state(), after)  # what comes later does not depend on the cache either


def test_eight_chunks_have_the_gradients_of_one_batch(make_inputs):
    model = model_in_float64(dropout=0.0)
    chunks = chunks_of(model.config, make_inputs, views=2)
    length = max(tensor.shape[1] for chunk in chunks for tensor in chunk.values())
    padded = [
        {
            name: torch.nn.functional.pad(t, (0, length - t.shape[1]), value=-100 if name == "labels" else 0)
            for name, t in chunk.items()
        }
        for chunk in chunks
    ]
    batch = {name: torch.cat([chunk[name] for chunk in padded]) for name in padded[0]}
    masked = (batch["labels"] != -100).sum()
    output = model(**batch)
    (output.contrastive_loss + output.mlm_loss * masked).backward()
    expected = gradients(model)

    cache = GradientCache(lambda inputs: model(**inputs, return_representations=True).representations)
    loss, accuracy, cached = cache.contrast_all(chunks)
    for chunk in cached:
        with replayed(chunk.random_states):
            outputs = model(**chunk.inputs, return_representations=True)
        count = (chunk.inputs["labels"] != -100).sum()
        (outputs.mlm_loss * count + carried_back(outputs.representations, chunk)).backward()
    assert abs(loss - output.contrastive_loss) < 1e-10
    assert accuracy == output.contrastive_accuracy
    assert_same(expected, gradients(model))


def test_replayed_numbers_change_nothing_that_comes_later():
    states, first = random_states(torch.device("cpu")), torch.rand(3)
    torch.rand(5)
    now = torch.get_rng_state()
    with replayed(states):
        assert torch.equal(torch.rand(3), first)
    assert torch.equal(torch.get_rng_state(), now)


def test_in_one_process_the_global_loss_is_the_batch_s():
    representations = torch.randn(5, 2, 8, requires_grad=True)
    found, expected = global_contrastive_loss(representations), views_contrastive_loss(representations)
    assert torch.equal(torch.stack(found), torch.stack(expected))


def transcribed_equation_5(anchors, positives, originals, temperature, negatives) -> torch.Tensor:
    """The mean of -log(e^s(i,i) / (e^s(i,i) + sum of e^s(i,n) over the negatives n)), one pair at a time."""

    def cosine(a, b):
        return torch.dot(a, b) / torch.sqrt(torch.dot(a, a) * torch.dot(b, b))

    total = 0.0
    for i, anchor in enumerate(anchors):
        others = [j for j in range(len(anchors)) if j != i]
        own = cosine(anchor, positives[i])
        told_from = [cosine(anchor, positives[j]) for j in others] * (negatives != "originals")
        told_from += [cosine(anchor, originals[j]) for j in others] * (negatives != "attacked")
        total = total - own / temperature + torch.log(sum(torch.exp(s / temperature) for s in (own, *told_from)))
    return total / len(anchors)


@pytest.mark.parametrize("negatives", NEGATIVES)
@pytest.mark.parametrize("anchor", ["masked", "clean", "both"])
def test_anchor_and_negatives_are_equation_5_in_values_and_gradients(anchor, negatives):
    generator = torch.Generator().manual_seed(0)
    shape = (6, 2 if anchor == "masked" else 3, 12)
    representations = torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)
    loss, _ = global_contrastive_loss(representations, 0.1, anchor, negatives)
    masked, attacked, *clean = representations.unbind(1)
    anchors = {"masked": [masked], "clean": clean, "both": [masked, *clean]}[anchor]
    expected = sum(transcribed_equation_5(own, attacked, own, 0.1, negatives) for own in anchors) / len(anchors)
    assert torch.allclose(loss, expected, rtol=1e-9)
    gradients = [torch.autograd.grad(value, representations)[0] for value in (loss, expected)]
    assert torch.allclose(*gradients, rtol=1e-7, atol=1e-9)


TWO_PROCESSES = """
import torch
from accelerate import PartialState
from safetensors.torch import load_file, save_file
from rocbert_hf.pretraining import global_contrastive_loss
from tests.pretraining.test_contrastive import FORMS, views_of

rank, found = PartialState(cpu=True).process_index, {{}}
for anchor, negatives in FORMS:
    own = load_file("{folder}/whole.safetensors")["views"][4 * rank : 4 * rank + 4, : views_of(anchor)].requires_grad_()
    loss, accuracy = global_contrastive_loss(own, 0.1, anchor, negatives)
    loss.backward()
    name = anchor + "-" + negatives
    found |= {{name: torch.stack([loss.detach(), accuracy.detach()]), name + "-gradient": own.grad.contiguous()}}
save_file(found, "{folder}/of-" + str(rank) + ".safetensors")
"""
FORMS = [(anchor, negatives) for anchor in ("masked", "clean", "both") for negatives in NEGATIVES]


def views_of(anchor: str) -> int:
    return 2 if anchor == "masked" else 3


def test_two_processes_contrast_as_one_does_with_every_anchor_and_all_negatives(tmp_path):
    """The mean of the processes' losses and gradients, which is what DistributedDataParallel computes of the weights."""
    whole = torch.randn(8, 3, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    save_file({"views": whole}, tmp_path / "whole.safetensors")
    run = in_two_processes(tmp_path, TWO_PROCESSES.format(folder=tmp_path))
    assert run.returncode == 0, run.stderr[-3000:]
    first, second = (load_file(tmp_path / f"of-{rank}.safetensors") for rank in (0, 1))
    for anchor, negatives in FORMS:
        name, views = f"{anchor}-{negatives}", whole[:, : views_of(anchor)].clone().requires_grad_()
        loss, accuracy = global_contrastive_loss(views, 0.1, anchor, negatives)
        loss.backward()
        torch.testing.assert_close((first[name] + second[name]) / 2, torch.stack([loss, accuracy]).detach())
        gradients = torch.cat([first[f"{name}-gradient"], second[f"{name}-gradient"]]) / 2
        torch.testing.assert_close(gradients, views.grad)


@pytest.mark.parametrize("negatives", NEGATIVES)
def test_related_examples_are_no_negatives_but_an_own_positive_stays_one(negatives):
    generator = torch.Generator().manual_seed(0)
    anchors, noise = torch.randn(2, 9, 5, generator=generator, dtype=torch.float64)
    positives = anchors + noise
    related = torch.eye(9, dtype=torch.bool)  # each example is related to itself; the first two are to each other
    related[0, 1] = related[1, 0] = True
    loss, accuracy = in_batch_contrastive_loss(anchors, positives, 0.5, negatives=negatives, related=related)
    unit_anchors, unit_positives = (torch.nn.functional.normalize(vectors, dim=-1) for vectors in (anchors, positives))
    expected, nearest = 0.0, 0
    for i in range(9):
        own = unit_anchors[i] @ unit_positives[i]
        others = [j for j in range(9) if j != i and {i, j} != {0, 1}]
        told_from = [unit_anchors[i] @ unit_positives[j] for j in others] * (negatives != "originals")
        told_from += [unit_anchors[i] @ unit_anchors[j] for j in others] * (negatives != "attacked")
        expected -= (own / 0.5 - torch.logsumexp(torch.stack([own, *told_from]) / 0.5, 0)) / 9
        nearest += int(own > max(told_from))
    assert torch.allclose(loss, expected, rtol=1e-9)
    assert float(accuracy) == pytest.approx(nearest / 9)
    assert 0 < nearest < 9


def test_accuracy_is_of_the_anchors_that_look_for_their_positive():
    def at(*degrees):
        angles = torch.tensor(degrees).deg2rad()
        return torch.stack([angles.cos(), angles.sin()], dim=1)

    # the first and the last anchor are nearer to others' positives; only the first positive is nearer to another anchor
    _, accuracy = in_batch_contrastive_loss(at(0.0, 10.0, 20.0), at(12.0, 11.0, 40.0))
    assert float(accuracy) == pytest.approx(1 / 3)

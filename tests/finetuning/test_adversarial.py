"""Adversarial training: the perturbations of the papers, no weight touched, exact whatever the batch is divided into."""

import copy
import importlib.util
import shutil

import pytest
import torch
from torch import nn
from transformers import BertConfig, BertForTokenClassification, Trainer, TrainerCallback, TrainingArguments

from rocbert_hf.configuration_rocbert import RoCBertConfig
from rocbert_hf.finetuning.adversarial import (
    FGM,
    FGSM,
    PGD,
    AdversarialTrainer,
    FreeLB,
    make_adversarial,
    perturbed,
)
from rocbert_hf.modeling_rocbert import RoCBertForTokenClassification

from ..several_processes import in_two_processes
from .half_precision import in_fp16

needs_deepspeed = pytest.mark.skipif(
    importlib.util.find_spec("deepspeed") is None or shutil.which("c++") is None,
    reason="needs DeepSpeed, which compiles its communication on a CPU, and a C++ compiler",
)
needs_fp16 = pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_fp16_supported(), reason="this CPU does not compute in float16"
)
METHODS = [FGM(0.5, 0.7), FGSM(0.01, 0.7), PGD(0.5, 0.2, 3, 0.7), FreeLB(0.5, 0.2, 3, torch.Generator().manual_seed(3))]


def a_model():
    torch.manual_seed(0)
    sizes = {
        "vocab_size": 60,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
    }
    config = BertConfig(**sizes, num_labels=3, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    return BertForTokenClassification(config)


def a_tagger():
    """Unlike BERT's, its loss counts labels over all micro-batches of a step."""
    torch.manual_seed(0)
    sizes = {
        "vocab_size": 60,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
    }
    still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    return RoCBertForTokenClassification(
        RoCBertConfig(**sizes, **still, fusion="none", classifier_head="crf", num_labels=3)
    )


def rows(number: int = 8) -> list[dict]:
    generator = torch.Generator().manual_seed(1)
    ids, labels = (torch.randint(1, high, (number, 6), generator=generator) for high in (60, 3))
    return [
        {"input_ids": i, "attention_mask": torch.ones_like(i), "labels": t} for i, t in zip(ids, labels, strict=True)
    ]


def a_trainer(tmp_path, method, model=None, trainer=AdversarialTrainer, **options):
    arguments = TrainingArguments(
        str(tmp_path),
        **{"per_device_train_batch_size": 8, "max_steps": 2, "learning_rate": 0.1, "optim": "sgd", **options},
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        max_grad_norm=0.0,
        lr_scheduler_type="constant",
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    extra = {} if trainer is Trainer else {"adversarial": method}
    return trainer(model or a_model(), arguments, train_dataset=rows(), **extra)


def batch_of(number: int = 8) -> dict:
    return {name: torch.stack([row[name] for row in rows(number)]) for name in rows(1)[0]}


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("method", METHODS, ids=lambda method: type(method).__name__)
def test_loss_and_gradients_are_those_of_the_equations(tmp_path, method, smoothing):
    model = a_model().double()
    trainer = a_trainer(tmp_path, method, model, label_smoothing_factor=smoothing)
    if isinstance(method, FreeLB):
        method.generator.manual_seed(3)
    loss = trainer.compute_loss(model.train(), batch_of())
    loss.backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    expected = by_hand(model, method, smoothing)
    precision = 1e4 if smoothing else 1  # Trainer smooths in float32
    torch.testing.assert_close(loss, expected, rtol=1e-10 * precision, atol=1e-12 * precision)
    expected.backward()
    for name, gradient in found.items():
        wanted = model.get_parameter(name).grad
        torch.testing.assert_close(gradient, wanted, rtol=1e-8 * precision, atol=1e-10 * precision, msg=name)


def by_hand(model, method, smoothing):
    """The equations, written out over `inputs_embeds`; Szegedy et al. 2016, section 7, for smoothed labels."""
    batch = batch_of()
    words = model.get_input_embeddings()(batch["input_ids"])

    def loss(r):
        scores = model(inputs_embeds=words + r, attention_mask=batch["attention_mask"]).logits.log_softmax(-1)
        wanted = (1 - smoothing) * nn.functional.one_hot(batch["labels"], 3) + smoothing / 3
        return -(wanted * scores).sum(-1).mean()

    def slope(r):
        r = r.detach().requires_grad_()
        return torch.autograd.grad(loss(r), r)[0]

    def normed(g):
        return g / g.flatten(1).norm(dim=1)[:, None, None]

    zero = torch.zeros_like(words).detach()
    if isinstance(method, FGM):
        return loss(zero) + method.weight * loss(method.epsilon * normed(slope(zero)))
    if isinstance(method, FGSM):
        return loss(zero) + method.weight * loss(method.epsilon * slope(zero).sign())

    def climb(r):
        r = r + method.alpha * normed(slope(r))
        return r * (method.epsilon / r.flatten(1).norm(dim=1)).clamp(max=1)[:, None, None]

    if isinstance(method, PGD):
        r = zero
        for _ in range(method.steps):
            r = climb(r)
        return loss(zero) + method.weight * loss(r)
    drawn = torch.rand(words.shape, generator=torch.Generator().manual_seed(3)).double()
    r, total = (2 * drawn - 1) * method.epsilon / (6 * 16) ** 0.5, 0
    for step in range(method.steps):
        total = total + loss(r) / method.steps
        r = climb(r) if step < method.steps - 1 else r
    return total


def test_freelb_starts_inside_the_ball_and_leaves_padding_alone():
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    starts = []

    def probe(perturbation, last):
        assert last
        starts.append(perturbation(torch.zeros(2, 4, 500)))
        return starts[0].sum(), starts[0], None

    FreeLB(0.5, 0.1, 1, torch.Generator().manual_seed(0)).loss(probe, None, mask)
    for start, real in zip(starts[0], mask, strict=True):
        assert not start[real == 0].any()
        # uniform in a cube whose corners lie on the ball
        assert start.abs().max() == pytest.approx(0.5 / (500 * int(real.sum())) ** 0.5, rel=0.01)
        assert start.norm() == pytest.approx(0.5 / 3**0.5, rel=0.05)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: type(method).__name__)
def test_weights_hooks_and_evaluation_are_left_as_they_were(tmp_path, method):
    model = a_model()
    before = copy.deepcopy(model.state_dict())
    trainer = a_trainer(tmp_path, method, model)
    trainer.compute_loss(model.train(), batch_of())
    assert all(torch.equal(before[name], weight) for name, weight in model.state_dict().items())
    assert not model.get_input_embeddings()._forward_hooks
    assert all(p.grad is None for p in model.parameters())
    plain = model.eval()(**batch_of()).loss
    assert torch.equal(trainer.compute_loss(model, batch_of()), plain)


def test_a_pass_that_fails_leaves_no_hook_behind():
    embedding = a_model().get_input_embeddings()
    with pytest.raises(RuntimeError, match="out of memory"), perturbed(embedding, None):
        raise RuntimeError("out of memory")
    assert not embedding._forward_hooks


def test_the_trainer_tells_the_method_where_padding_is(tmp_path):
    seen = []

    class Looking:
        def loss(self, probe, gradient, mask):
            seen.append(mask)
            loss, _, outputs = probe(None, True)
            return loss, outputs

    batch = batch_of()
    batch["attention_mask"][:, 4:] = 0
    a_trainer(tmp_path, Looking()).compute_loss(a_model().train(), batch)
    assert torch.equal(seen[0], batch["attention_mask"])


def test_a_sentence_without_gradient_stays_as_it_is_and_the_others_are_not_touched_by_it():
    gradient = torch.stack([torch.zeros(3, 4), torch.ones(3, 4)])
    moved = []

    def probe(perturbation, last):
        zeros = torch.zeros(2, 3, 4)
        moved.append(perturbation)
        return zeros.sum(), zeros if perturbation is None else perturbation, None

    PGD(0.5, 0.2, 4).loss(probe, lambda loss, perturbation, keep: gradient, None)
    for step, r in enumerate(moved[1:], start=1):
        assert not r[0].any()
        assert r[1].norm() == pytest.approx(min(0.5, 0.2 * step), rel=1e-6)


def test_one_step_of_pgd_as_long_as_epsilon_is_fgm(tmp_path):
    losses = [a_trainer(tmp_path, m).compute_loss(a_model().train(), batch_of()) for m in (FGM(0.4), PGD(0.4, 0.4, 1))]
    torch.testing.assert_close(*losses)


@pytest.mark.parametrize("method", METHODS[:3], ids=lambda method: type(method).__name__)
def test_accumulating_gradients_trains_the_same_weights(tmp_path, method):
    trained = []
    for size, parts in ((8, 1), (2, 4)):
        trainer = a_trainer(
            tmp_path, method, a_tagger(), per_device_train_batch_size=size, gradient_accumulation_steps=parts
        )
        trainer.train()
        trained.append(trainer.model.state_dict())
    for name, weight in trained[0].items():
        torch.testing.assert_close(weight, trained[1][name], atol=1e-5, rtol=1e-4, msg=name)


def test_without_a_method_it_is_a_trainer(tmp_path):
    trained = []
    for kind in (Trainer, AdversarialTrainer):
        trainer = a_trainer(tmp_path, None, trainer=kind)
        trainer.train()
        trained.append(trainer.model.state_dict())
    assert all(torch.equal(weight, trained[1][name]) for name, weight in trained[0].items())


SMALL = 1e-6  # of a loss times this, no gradient is left in fp16


def small_loss(outputs, labels, num_items_in_batch):
    logits = outputs.logits.float().flatten(0, 1)
    return SMALL * nn.functional.cross_entropy(logits, labels.flatten(), reduction="sum") / num_items_in_batch


def a_trainer_of_small_losses(tmp_path, method, steps: int) -> AdversarialTrainer:
    trainer = a_trainer(tmp_path, method, max_steps=steps, learning_rate=0.1 / SMALL)
    trainer.compute_loss_func = small_loss
    return trainer


@pytest.mark.parametrize("method", METHODS[:3], ids=lambda method: type(method).__name__)
def test_fp16_with_loss_scaling_trains_the_weights_of_fp32(tmp_path, monkeypatch, method):
    before = a_model().state_dict()
    expected = a_trainer_of_small_losses(tmp_path, method, steps=3)
    expected.train()
    trained = []
    for scale in (2.0**18, 1.0):
        trainer = in_fp16(a_trainer_of_small_losses(tmp_path, method, steps=3), monkeypatch, scale)
        trainer.train()
        trained.append(trainer.model.state_dict())
    for name, weight in expected.model.state_dict().items():
        assert (trained[0][name] - weight).norm() <= 0.02 * (weight - before[name]).norm() + 1e-5, name
    unscaled = "bert.encoder.layer.0.output.dense.weight"
    assert torch.equal(trained[1][unscaled], before[unscaled])


@pytest.mark.parametrize("method", METHODS[:3], ids=lambda method: type(method).__name__)
def test_a_step_that_overflows_is_skipped_and_the_next_one_is_right(tmp_path, monkeypatch, method):
    before, after = a_model().state_dict(), {}

    class Watching(TrainerCallback):
        def on_step_end(self, args, state, control, model, **kwargs):
            after[state.global_step] = copy.deepcopy(model.state_dict())

    trainer = a_trainer_of_small_losses(tmp_path, method, steps=2)
    in_fp16(trainer, monkeypatch, 2.0**60, backoff_factor=2.0**-42).add_callback(Watching())
    trainer.train()
    assert all(torch.equal(before[name], weight) for name, weight in after[1].items())
    assert trainer.accelerator.scaler.get_scale() == 2.0**18
    # every batch is all rows, so the second step of this is the first one of that
    expected = in_fp16(a_trainer_of_small_losses(tmp_path, method, steps=1), monkeypatch, 2.0**18)
    expected.train()
    for name, weight in expected.model.state_dict().items():
        assert (after[2][name] - weight).norm() <= 0.01 * (weight - before[name]).norm() + 1e-6, name


TWO_PROCESSES = """
import torch
from tests.finetuning.test_adversarial import a_tagger, a_trainer
from rocbert_hf.configuration_rocbert import RoCBertConfig
from rocbert_hf.finetuning.adversarial import PGD
trainer = a_trainer({folder!r}, PGD(0.5, 0.2, 2), a_tagger(), per_device_train_batch_size=4, ddp_backend="gloo")
trainer.train()
if trainer.is_world_process_zero():
    torch.save(trainer.accelerator.unwrap_model(trainer.model).state_dict(), {folder!r} + "/two.pt")
"""


@pytest.mark.slow
def test_two_processes_train_the_weights_of_one(tmp_path):
    run = in_two_processes(tmp_path, TWO_PROCESSES.format(folder=str(tmp_path)))
    assert run.returncode == 0, run.stderr[-3000:]
    trainer = a_trainer(tmp_path, PGD(0.5, 0.2, 2), a_tagger())
    trainer.train()
    two = torch.load(tmp_path / "two.pt", weights_only=True)
    for name, weight in trainer.model.state_dict().items():
        torch.testing.assert_close(weight, two[name], atol=1e-5, rtol=1e-4, msg=name)


DEEPSPEED = """
import torch
from tests.finetuning.test_adversarial import METHODS, in_deepspeed
trainer = in_deepspeed({folder!r}, METHODS[{method}], {stage}, {fp16})
trainer.train()
weights = trainer.accelerator.get_state_dict(trainer.deepspeed)
if trainer.is_world_process_zero():
    torch.save(weights, {folder!r} + "/zero.pt")
"""


def in_deepspeed(folder, method, stage: int, fp16: bool) -> AdversarialTrainer:
    zero = {"stage": stage, "overlap_comm": False, "stage3_gather_16bit_weights_on_model_save": stage == 3}
    auto = dict.fromkeys(("train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "gradient_clipping"), "auto")
    precision = {"fp16": {"enabled": True, "initial_scale_power": 18}} if fp16 else {}
    config = {"zero_optimization": zero, **precision, **auto, "zero_allow_untested_optimizer": True}
    options = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "max_steps": 3}
    if fp16:
        options |= {"learning_rate": 0.1 / SMALL, "fp16": True}
    trainer = a_trainer(folder, method, a_model() if fp16 else a_tagger(), deepspeed=config, **options)
    trainer.compute_loss_func = small_loss if fp16 else None
    return trainer


@pytest.mark.slow
@needs_deepspeed
@pytest.mark.parametrize("fp16", [False, pytest.param(True, marks=needs_fp16)], ids=["fp32", "fp16"])
@pytest.mark.parametrize("stage", [1, 3])
@pytest.mark.parametrize("method", [0, 2], ids=["FGM", "PGD"])
def test_deepspeed_trains_the_weights_of_one_process_without_it(tmp_path, method, stage, fp16):
    script = DEEPSPEED.format(folder=str(tmp_path), method=method, stage=stage, fp16=fp16)
    run = in_two_processes(tmp_path, script)
    assert run.returncode == 0, run.stderr[-3000:]
    before = (a_model() if fp16 else a_tagger()).state_dict()
    if fp16:
        trainer = a_trainer_of_small_losses(tmp_path, METHODS[method], steps=3)
    else:
        trainer = a_trainer(tmp_path, METHODS[method], a_tagger(), max_steps=3)
    trainer.train()
    zero = torch.load(tmp_path / "zero.pt", weights_only=True)
    for name, weight in trainer.model.state_dict().items():
        if fp16:
            moved = (weight - before[name]).norm()
            assert (zero[name] - weight).norm() <= 0.02 * moved + 1e-3 * weight.norm() + 1e-5, name
        else:
            torch.testing.assert_close(weight, zero[name], atol=1e-5, rtol=1e-4, msg=name)


def test_wrong_options_are_named():
    with pytest.raises(ValueError, match="epsilon must be above 0, got 0"):
        FGM(0)
    with pytest.raises(ValueError, match="adversarial must be one of fgm, fgsm, pgd, freelb, got 'vat'"):
        make_adversarial("vat")
    with pytest.raises(ValueError, match="fgm has no steps"):
        make_adversarial("fgm", steps=3)

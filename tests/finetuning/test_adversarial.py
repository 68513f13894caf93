"""Adversarial training: the perturbations of the papers, no weight touched, exact whatever the batch is divided into."""

import copy
import subprocess
import sys

import pytest
import torch
from transformers import BertConfig, BertForTokenClassification, Trainer, TrainingArguments

from rocbert_hf.configuration_rocbert import RoCBertConfig
from rocbert_hf.finetuning.adversarial import FGM, FGSM, PGD, AdversarialTrainer, FreeLB, make_adversarial
from rocbert_hf.modeling_rocbert import RoCBertForTokenClassification

METHODS = [FGM(0.5), FGSM(0.01), PGD(0.5, 0.2, 3), FreeLB(0.5, 0.2, 3, torch.Generator().manual_seed(3))]


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


@pytest.mark.parametrize("method", METHODS, ids=lambda method: type(method).__name__)
def test_loss_and_gradients_are_those_of_the_equations(tmp_path, method):
    model = a_model().double()
    trainer = a_trainer(tmp_path, method, model)
    if isinstance(method, FreeLB):
        method.generator.manual_seed(3)
    loss = trainer.compute_loss(model.train(), batch_of())
    loss.backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    expected = by_hand(model, method)
    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=1e-12)
    expected.backward()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, model.get_parameter(name).grad, rtol=1e-8, atol=1e-10, msg=name)


def by_hand(model, method):
    """The equations, written out over `inputs_embeds`."""
    batch = batch_of()
    words = model.get_input_embeddings()(batch["input_ids"])

    def loss(r):
        return model(inputs_embeds=words + r, attention_mask=batch["attention_mask"], labels=batch["labels"]).loss

    def slope(r):
        r = r.detach().requires_grad_()
        return torch.autograd.grad(loss(r), r)[0]

    def normed(g):
        return g / g.flatten(1).norm(dim=1)[:, None, None]

    zero = torch.zeros_like(words).detach()
    if isinstance(method, FGM):
        return loss(zero) + loss(method.epsilon * normed(slope(zero)))
    if isinstance(method, FGSM):
        return loss(zero) + loss(method.epsilon * slope(zero).sign())

    def climb(r):
        r = r + method.alpha * normed(slope(r))
        return r * (method.epsilon / r.flatten(1).norm(dim=1)).clamp(max=1)[:, None, None]

    if isinstance(method, PGD):
        r = zero
        for _ in range(method.steps):
            r = climb(r)
        return loss(zero) + loss(r)
    drawn = torch.rand(words.shape, generator=torch.Generator().manual_seed(3)).double()
    r, total = (2 * drawn - 1) * method.epsilon / (6 * 16) ** 0.5, 0
    for step in range(method.steps):
        total = total + loss(r) / method.steps
        r = climb(r) if step < method.steps - 1 else r
    return total


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


def test_a_loss_scaled_for_fp16_gives_the_same_perturbation(tmp_path):
    trainer = a_trainer(tmp_path, FGM())
    plain = trainer.compute_loss(trainer.model.train(), batch_of())
    trainer.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**14)
    scaled = trainer.compute_loss(trainer.model.train(), batch_of())
    torch.testing.assert_close(plain, scaled)


TWO_PROCESSES = """
import sys, torch
sys.path.insert(0, {root!r})
from tests.finetuning.test_adversarial import a_tagger, a_trainer
from rocbert_hf.configuration_rocbert import RoCBertConfig
from rocbert_hf.finetuning.adversarial import PGD
trainer = a_trainer({folder!r}, PGD(0.5, 0.2, 2), a_tagger(), per_device_train_batch_size=4, ddp_backend="gloo")
trainer.train()
if trainer.is_world_process_zero():
    torch.save(trainer.accelerator.unwrap_model(trainer.model).state_dict(), {folder!r} + "/two.pt")
"""


@pytest.mark.slow
def test_two_processes_train_the_weights_of_one(tmp_path, request):
    script = tmp_path / "two.py"
    script.write_text(TWO_PROCESSES.format(root=str(request.config.rootpath), folder=str(tmp_path)))
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "--master-port",
        "29611",
        str(script),
    ]
    subprocess.run(command, check=True, timeout=300)
    trainer = a_trainer(tmp_path, PGD(0.5, 0.2, 2), a_tagger())
    trainer.train()
    two = torch.load(tmp_path / "two.pt", weights_only=True)
    for name, weight in trainer.model.state_dict().items():
        torch.testing.assert_close(weight, two[name], atol=1e-5, rtol=1e-4, msg=name)


def test_wrong_options_are_named():
    with pytest.raises(ValueError, match="epsilon must be above 0, got 0"):
        FGM(0)
    with pytest.raises(ValueError, match="adversarial must be one of fgm, fgsm, pgd, freelb, got 'vat'"):
        make_adversarial("vat")
    with pytest.raises(ValueError, match="fgm has no steps"):
        make_adversarial("fgm", steps=3)

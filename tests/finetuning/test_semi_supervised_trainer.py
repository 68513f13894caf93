"""`SemiSupervisedTrainer`: every term by hand in float64, nothing flows into the frozen copy, and runs resume exactly."""

import copy
import importlib.util
import shutil

import pytest
import torch
from torch.nn.functional import cosine_similarity
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    Trainer,
    TrainerCallback,
    TrainerState,
    TrainingArguments,
)

from rocbert_hf import RoCBertConfig, RoCBertForSequenceClassification, RoCBertTokenizer
from rocbert_hf.finetuning.adversarial import FGM, PGD
from rocbert_hf.finetuning.consistency import FixMatchTarget, PseudoLabelTarget, SoftMatchTarget, UDATarget
from rocbert_hf.finetuning.esimcse import ESimCSE, GradedNegative
from rocbert_hf.finetuning.label_hierarchy import HierarchicalLoss, LabelHierarchy
from rocbert_hf.finetuning.representation_hooks import encoder_of
from rocbert_hf.finetuning.semi_supervised_trainer import STATE, SemiSupervisedObjective, SemiSupervisedTrainer
from rocbert_hf.finetuning.text_augmentation import EasyDataAugmentation, WordRepetition
from rocbert_hf.finetuning.unlabelled_texts import SemiSupervisedCollator, SemiSupervisedTexts
from rocbert_hf.resources import demo_sentences, vocabulary

from ..several_processes import in_two_processes
from .half_precision import in_fp16

STILL = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
SENTENCES = [text[:12] for text in demo_sentences()]
TOKENIZER = RoCBertTokenizer(model_max_length=16)
TOKENIZER.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]


def a_model(dropout: bool = False, **options) -> BertForSequenceClassification:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary()),
        num_labels=3,
        initializer_range=0.3,
        **SIZES,
        **({} if dropout else STILL),
        **options,
    )
    return BertForSequenceClassification(config)


def some_texts(number: int = 8, **options) -> SemiSupervisedTexts:
    made = {
        "unlabelled": SENTENCES[50:71],
        "ratio": 2,
        "augmentation": EasyDataAugmentation(),
        "positive": WordRepetition(),
        "negative": GradedNegative(),
        **options,
    }
    return SemiSupervisedTexts(SENTENCES[:number], [row % 3 for row in range(number)], **made)


def everything(model, **options) -> SemiSupervisedObjective:
    return SemiSupervisedObjective(
        **{
            "target": UDATarget(0.5, 0.4),
            "consistency_weight": 0.7,
            "annealing": "linear",
            "adversarial": FGM(0.5, weight=0.6),
            "esimcse": ESimCSE(encoder_of(model), queue_size=10),
            "contrastive_share": 0.2,
            **options,
        }
    )


def a_trainer(folder, model, objective, texts=None, **options) -> SemiSupervisedTrainer:
    arguments = TrainingArguments(
        str(folder),
        **{
            "per_device_train_batch_size": 4,
            "max_steps": 5,
            "learning_rate": 0.05,
            "optim": "sgd",
            "save_strategy": "no",
            "max_grad_norm": 0.0,
            "lr_scheduler_type": "constant",
            **options,
        },
        logging_steps=1,
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    return SemiSupervisedTrainer(
        model,
        arguments,
        objective=objective,
        train_dataset=some_texts() if texts is None else texts,
        data_collator=SemiSupervisedCollator(TOKENIZER),
    )


def a_batch(size: int = 4) -> dict:
    texts = some_texts()
    return SemiSupervisedCollator(TOKENIZER)([texts[row] for row in range(size)])


def by_hand(model, objective, batch, threshold: float) -> torch.Tensor:
    """The work's equations, written out over `inputs_embeds`."""
    labels = batch["labels"]
    features = {name: batch[name] for name in ("token_type_ids", "attention_mask")}
    words = model.get_input_embeddings()(batch["input_ids"])

    def supervised(r):
        p = model(inputs_embeds=words + r, **features).logits.softmax(-1)[torch.arange(len(labels)), labels]
        kept = (p <= threshold).double()
        return (-p.log() * kept).sum() / kept.sum().clamp(min=1)

    zero = torch.zeros_like(words, requires_grad=True)
    (g,) = torch.autograd.grad(supervised(zero), zero)
    r = objective.adversarial.epsilon * g / g.flatten(1).norm(dim=1)[:, None, None].clamp(min=1e-30)
    uda = supervised(torch.zeros_like(words)) + objective.adversarial.weight * supervised(r)

    with torch.no_grad():
        frozen = copy.deepcopy(model)(**batch["unlabelled"]).logits
        target, sure = (frozen / 0.5).softmax(-1), frozen.softmax(-1).max(-1)[0] > 0.4
    answer = model(**batch["augmented"]).logits.log_softmax(-1)
    uda = uda + 0.7 * ((target * (target.log() - answer)).sum(-1) * sure).mean()

    anchors, positives, negatives = (
        model.bert(**batch[name]).pooler_output for name in ("unlabelled", "positives", "negatives")
    )
    cosines = [cosine_similarity(anchors[:, None], others[None], dim=-1) / 0.05 for others in (positives,)]
    if len(objective.esimcse.earlier):
        cosines.append(cosine_similarity(anchors[:, None], objective.esimcse.earlier[None], dim=-1) / 0.05)
    graded = (cosine_similarity(anchors, negatives) / 0.05).exp() * batch["grades"]
    e = torch.cat(cosines, 1).exp()
    similar = -(e.diagonal() / (e.sum(1) + graded)).log().mean()
    return 0.8 * uda + 0.2 * similar


@pytest.mark.parametrize("step", [1, 3])
def test_loss_and_gradients_are_those_of_the_equations(tmp_path, step):
    model = a_model().double().train()
    objective = everything(model)
    trainer = a_trainer(tmp_path, model, objective)
    trainer.state.max_steps, trainer.state.global_step = 5, step
    objective.esimcse.push(torch.randn(6, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))
    expected = by_hand(model, objective, a_batch(), threshold=(step / 5) * (2 / 3) + 1 / 3)
    loss = trainer.compute_loss(model, a_batch())
    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=1e-12)
    found, right = (torch.autograd.grad(each, list(model.parameters())) for each in (loss, expected))
    for (name, _), mine, theirs in zip(model.named_parameters(), found, right, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-8, atol=1e-10, msg=name)


def test_mixup_mixes_what_the_head_reads_what_it_is_to_answer_and_the_weights(tmp_path):
    model, batch = a_model().double().train(), a_batch()
    trainer = a_trainer(tmp_path, model, SemiSupervisedObjective(UDATarget(0.5, 0.5), mixup=0.7))
    torch.manual_seed(3)
    loss = trainer.compute_loss(model, batch)
    torch.manual_seed(3)
    order, share = torch.randperm(8), torch.distributions.Beta(0.7, 0.7).sample().item()
    features = {name: batch[name] for name in ("input_ids", "token_type_ids", "attention_mask")}
    right = model(**features).logits.softmax(-1).gather(1, batch["labels"][:, None])
    with torch.no_grad():
        answers = model(**batch["unlabelled"]).logits
        target, weight = (answers / 0.5).softmax(-1), (answers.softmax(-1).amax(-1) > 0.5).double()
    assert 0 < weight.sum() < 8
    states = model.bert(**batch["augmented"]).pooler_output
    states, target, weight = (share * part + (1 - share) * part[order] for part in (states, target, weight))
    mixed = model.classifier(states).log_softmax(-1)
    expected = (weight * (target * (target.log() - mixed)).sum(-1)).mean() - right.log().mean()
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-9)


def test_pseudo_labels_are_learnt_from_the_text_itself_and_the_log_says_what_counted(tmp_path):
    model, batch = a_model().double().train(), a_batch()
    objective = SemiSupervisedObjective(PseudoLabelTarget(0.5, warm_up=0.8), annealing="linear")
    trainer = a_trainer(tmp_path, model, objective)
    trainer.state.max_steps, trainer.state.global_step = 5, 2  # half of the warm-up is over
    features = {name: batch[name] for name in ("input_ids", "token_type_ids", "attention_mask")}
    right = model(**features).logits.softmax(-1).gather(1, batch["labels"][:, None])[:, 0]
    taught = (right <= (2 / 5) * (2 / 3) + 1 / 3).double()
    highest, said = model(**batch["unlabelled"]).logits.softmax(-1).max(-1)
    counts = (highest >= 0.5).double()
    assert 0 < taught.sum() < 4
    assert 0 < counts.sum() < 8
    expected = -(right.log() * taught).sum() / taught.sum() - (0.5 * counts * highest.log()).mean()
    torch.testing.assert_close(trainer.compute_loss(model, batch), expected, rtol=1e-9, atol=1e-12)
    trainer.log({"loss": 0.0})
    logged = trainer.state.log_history[-1]
    assert logged["used"] == pytest.approx(float(counts.mean()))
    assert logged["annealed"] == pytest.approx(1 - float(taught.mean()))
    assert logged["largest_class"] == pytest.approx(int(said.bincount().max()) / 8)


def test_nothing_flows_into_the_frozen_copy(tmp_path):
    """The words that it alone reads get no gradient, though its answers are what the loss is about."""
    model = a_model().train()
    objective = SemiSupervisedObjective(UDATarget(0.5, 0.0))
    trainer = a_trainer(tmp_path, model, objective, some_texts(augmentation=lambda text, rng: "好", positive=None))
    batch = trainer.data_collator([trainer.train_dataset[row] for row in range(4)])
    trainer.compute_loss(model, batch).backward()
    gradient = model.get_input_embeddings().weight.grad
    trained = {*batch["input_ids"].flatten().tolist(), *batch["augmented"]["input_ids"].flatten().tolist()} - {0}
    alone = sorted(set(batch["unlabelled"]["input_ids"].flatten().tolist()) - trained - {0})
    assert alone
    assert not gradient[alone].any()
    assert gradient[sorted(trained)].any(-1).all()


def test_evaluation_and_training_without_unlabelled_texts_are_a_trainers(tmp_path):
    plain, ours = a_model(), a_model()
    texts = some_texts(ratio=0)
    trainer = a_trainer(tmp_path, ours, SemiSupervisedObjective(), texts)
    trainer.train()
    other = Trainer(
        plain, trainer.args, train_dataset=some_texts(ratio=0), data_collator=SemiSupervisedCollator(TOKENIZER)
    )
    other.train()
    for name, weight in plain.state_dict().items():
        torch.testing.assert_close(weight, ours.state_dict()[name], msg=name)
    assert trainer.evaluate(texts)["eval_loss"] == pytest.approx(other.evaluate(texts)["eval_loss"], rel=1e-5)


def test_the_queue_and_the_moving_copy_over_five_steps(tmp_path):
    model = a_model()
    objective = everything(model)
    trainer = a_trainer(tmp_path, model, objective)
    slow, queue, batches = copy.deepcopy(model.bert).eval(), [], []

    def noting(items):
        batches.append(SemiSupervisedCollator(TOKENIZER)(items))
        return batches[-1]

    class ByHand(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            with torch.no_grad():
                queue.append(slow(**batches[state.global_step]["unlabelled"]).pooler_output)

        def on_step_end(self, args, state, control, **kwargs):
            with torch.no_grad():
                for mine, fast in zip(slow.parameters(), model.bert.parameters(), strict=True):
                    mine.copy_(0.995 * mine + 0.005 * fast)

    trainer.data_collator = noting
    trainer.add_callback(ByHand())
    trainer.train()
    assert len(queue) == 5
    torch.testing.assert_close(objective.esimcse.earlier, torch.cat(queue)[-10:])
    for name, value in objective.esimcse.slow_encoder.named_parameters():
        torch.testing.assert_close(value, slow.get_parameter(name), msg=name)


@pytest.mark.parametrize("save_steps", [2, 3], ids=["end of an epoch", "within an epoch"])
def test_an_interrupted_run_ends_as_one_that_was_not(tmp_path, save_steps):
    def run(folder, checkpoint=None, **options):
        model = a_model(dropout=True)
        objective = everything(model, target=SoftMatchTarget(3), mixup=0.5)
        trainer = a_trainer(folder, model, objective, save_strategy="steps", save_steps=save_steps, **options)
        trainer.train(resume_from_checkpoint=checkpoint)
        return model.state_dict(), objective.esimcse.state_dict(), objective.target.state_dict(), trainer.state

    whole = run(tmp_path / "whole")
    checkpoint = tmp_path / "whole" / f"checkpoint-{save_steps}"
    assert (checkpoint / STATE).is_file()
    resumed = run(tmp_path / "resumed", str(checkpoint))
    for before, after in zip(whole[:3], resumed[:3], strict=True):
        assert before.keys() == after.keys()
        assert all(torch.equal(value, after[name]) for name, value in before.items())
    last = [part[3].log_history[-2] for part in (whole, resumed)]
    assert last[0] == last[1]
    (checkpoint / STATE).unlink()
    with pytest.raises(OSError, match=f"has no {STATE}"):
        run(tmp_path / "third", str(checkpoint))


def test_accumulating_gradients_trains_the_same_weights(tmp_path):
    trained = []
    for size, parts in ((8, 1), (2, 4)):
        model = a_model()
        objective = SemiSupervisedObjective(UDATarget(0.5, 0.4), adversarial=PGD(0.5, 0.2, 2, weight=0.5))
        trainer = a_trainer(
            tmp_path, model, objective, per_device_train_batch_size=size, gradient_accumulation_steps=parts, max_steps=2
        )
        trainer.train()
        trained.append(model.state_dict())
    for name, weight in trained[0].items():
        torch.testing.assert_close(weight, trained[1][name], atol=1e-5, rtol=1e-4, msg=name)


def test_workers_train_the_same_weights(tmp_path):
    trained = []
    for number in (0, 2):
        model = a_model(dropout=True)
        a_trainer(tmp_path, model, everything(model), max_steps=3, dataloader_num_workers=number).train()
        trained.append(model.state_dict())
    assert all(torch.equal(weight, trained[1][name]) for name, weight in trained[0].items())


@pytest.mark.parametrize("target", [FixMatchTarget(0.3), SoftMatchTarget(3), PseudoLabelTarget(0.3)])
@pytest.mark.parametrize("kind", ["bert", "distilbert", "rocbert"])
def test_any_classifier_and_any_target_trains_and_every_term_is_logged(tmp_path, kind, target):
    torch.manual_seed(0)
    if kind == "distilbert":
        sizes = {"dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 32}
        model = DistilBertForSequenceClassification(
            DistilBertConfig(vocab_size=len(vocabulary()), num_labels=3, **sizes)
        )
    elif kind == "rocbert":
        model = RoCBertForSequenceClassification(RoCBertConfig(**SIZES, num_labels=3))
    else:
        model = a_model()
    hierarchy = HierarchicalLoss(LabelHierarchy.of(["a/b", "a/c", "d"]))
    objective = everything(model, target=copy.deepcopy(target), mixup=0.5, hierarchy=hierarchy)
    trainer = a_trainer(tmp_path, model, objective, max_steps=2)
    tokenizer = RoCBertTokenizer(model_max_length=16)
    names = ["input_ids", "attention_mask"] if kind == "distilbert" else tokenizer.model_input_names
    tokenizer.model_input_names = names if kind != "bert" else TOKENIZER.model_input_names
    trainer.data_collator = SemiSupervisedCollator(tokenizer)
    trainer.train()
    for row in trainer.state.log_history[:2]:
        assert {"supervised", "adversarial", "consistency", "contrastive", "annealed", "used"} <= row.keys()
        assert 1 / 3 <= row["largest_class"] <= 1
        assert row["loss"] > 0


def test_it_is_said_if_no_text_was_sure_enough(tmp_path):
    model = a_model(dropout=True)
    objective = SemiSupervisedObjective(FixMatchTarget(0.999999))
    with pytest.warns(UserWarning, match="none of the 16 unlabelled texts of epoch 1 counted"):
        a_trainer(tmp_path, model, objective, max_steps=2, learning_rate=1e-6).train()


def test_fp16_with_loss_scaling_trains_the_weights_of_fp32_and_skips_a_step_that_overflows(tmp_path, monkeypatch):
    def trained(steps: int, **options: float):
        objective = SemiSupervisedObjective(UDATarget(0.5, 0.4), adversarial=PGD(0.5, 0.2, 2))
        texts = some_texts(4, positive=None, negative=None)  # every batch is all of them
        trainer = a_trainer(tmp_path, a_model(), objective, texts, max_steps=steps, learning_rate=0.01)
        if options:
            in_fp16(trainer, monkeypatch, **options)
        trainer.train()
        return trainer

    expected, scaled = trained(2), trained(2, scale=2.0**10)
    before = a_model().state_dict()
    for name, weight in expected.model.state_dict().items():
        moved = (weight - before[name]).norm()
        assert (scaled.model.state_dict()[name] - weight).norm() <= 0.05 * moved + 1e-5, name
    skipped = trained(1, scale=2.0**60, backoff_factor=2.0**-50)
    assert all(torch.equal(weight, before[name]) for name, weight in skipped.model.state_dict().items())
    assert skipped.accelerator.scaler.get_scale() == 2.0**10


def test_bf16_trains(tmp_path):
    model = a_model(dropout=True)
    a_trainer(tmp_path, model, everything(model), bf16=True, max_steps=2).train()
    assert all(torch.isfinite(weight).all() for weight in model.state_dict().values())


TWO_PROCESSES = """
import torch
from tests.finetuning.test_semi_supervised_trainer import a_roc_bert, a_trainer_of_everything
trainer = a_trainer_of_everything({folder!r}, per_device_train_batch_size=2, ddp_backend="gloo")
trainer.train()
if trainer.is_world_process_zero():
    esimcse = trainer.objective.esimcse.state_dict()
    torch.save([trainer.accelerator.unwrap_model(trainer.model).state_dict(), esimcse], {folder!r} + "/two.pt")
"""


def a_roc_bert() -> RoCBertForSequenceClassification:
    torch.manual_seed(0)
    return RoCBertForSequenceClassification(RoCBertConfig(**SIZES, **STILL, num_labels=3))


def a_trainer_of_everything(folder, **options) -> SemiSupervisedTrainer:
    model = a_roc_bert()
    objective = everything(model, target=SoftMatchTarget(3), annealing=None)
    objective.adversarial = PGD(0.5, 0.2, 2)
    trainer = a_trainer(folder, model, objective, max_steps=3, **options)
    trainer.data_collator = SemiSupervisedCollator(RoCBertTokenizer(model_max_length=16))
    return trainer


@pytest.mark.slow
def test_two_processes_train_the_weights_of_one(tmp_path):
    run = in_two_processes(tmp_path, TWO_PROCESSES.format(folder=str(tmp_path)))
    assert run.returncode == 0, run.stderr[-3000:]
    trainer = a_trainer_of_everything(tmp_path)
    trainer.train()
    model, esimcse = torch.load(tmp_path / "two.pt", weights_only=True)
    for name, weight in trainer.model.state_dict().items():
        torch.testing.assert_close(weight, model[name], atol=1e-5, rtol=1e-4, msg=name)
    for name, value in trainer.objective.esimcse.state_dict().items():
        torch.testing.assert_close(value, esimcse[name], atol=1e-5, rtol=1e-4, msg=name)


DEEPSPEED = """
from tests.finetuning.test_semi_supervised_trainer import a_trainer_of_everything
zero = {{"zero_optimization": {{"stage": {stage}, "overlap_comm": False}}, "bf16": {{"enabled": True}}}}
auto = dict.fromkeys(("train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "gradient_clipping"), "auto")
config = {{**zero, **auto, "zero_allow_untested_optimizer": True}}
options = {{"optim": "adamw_torch", "learning_rate": 1e-2, "save_strategy": "steps", "save_steps": 3, "bf16": True}}
trainer = a_trainer_of_everything(
    {folder!r}, per_device_train_batch_size=2, gradient_accumulation_steps=2, deepspeed=config, ddp_backend="gloo", **options
)
trainer.train()
"""


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="DeepSpeed is not installed")
@pytest.mark.skipif(shutil.which("c++") is None, reason="DeepSpeed compiles its communication on a CPU")
@pytest.mark.parametrize("stage", [1, 2])
def test_deepspeed_trains_or_says_why_not(tmp_path, stage):
    run = in_two_processes(tmp_path, DEEPSPEED.format(folder=str(tmp_path), stage=stage))
    if stage == 2:
        assert "which DeepSpeed's stage 2 does not allow: use stage 1 or 3" in run.stderr
        return
    assert run.returncode == 0, run.stderr[-3000:]
    assert (tmp_path / "checkpoint-3" / STATE).is_file()
    rows = TrainerState.load_from_json(str(tmp_path / "checkpoint-3" / "trainer_state.json")).log_history
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert all({"adversarial", "consistency", "contrastive"} <= row.keys() for row in rows)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"consistency": "mse"}, "consistency must be one of kl, cross-entropy, got 'mse'"),
        ({"annealing": "sudden"}, "annealing must be one of linear, log, exp, got 'sudden'"),
        ({"contrastive_share": 1.0}, "contrastive_share must be at least 0 and below 1, got 1"),
        ({"mixup": -1.0}, "mixup must not be negative, got -1"),
    ],
)
def test_wrong_options_are_named(options, named):
    with pytest.raises(ValueError, match=named):
        SemiSupervisedObjective(**options)


def test_a_model_without_encoder_is_named(tmp_path):
    with pytest.raises(ValueError, match="model must have an encoder and a head"):
        a_trainer(tmp_path, a_model().bert, SemiSupervisedObjective())

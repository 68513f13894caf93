"""The pretraining loop: it learns, gives the same weights again, stops when told, and writes whole files."""

import functools
import importlib.util
import json
import math
import os
import signal
import time

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook
from transformers import AutoModelForMaskedLM, AutoTokenizer, BertConfig, BertForMaskedLM

from rocbert_hf import RoCBertConfig, RoCBertForPreTraining, RoCBertTokenizer
from rocbert_hf.losses_rocbert import views_contrastive_loss
from rocbert_hf.pretraining.arguments import PretrainingArguments
from rocbert_hf.pretraining.collator import DataCollatorForRoCBertPretraining
from rocbert_hf.pretraining.corpus.text_source import TextSource
from rocbert_hf.pretraining.devices import check_attention, choose_precision, make_accelerator, peak_flops
from rocbert_hf.pretraining.optimizer import adamw
from rocbert_hf.pretraining.reporting import read_log
from rocbert_hf.pretraining.resuming import checkpoints_of, find_checkpoint
from rocbert_hf.pretraining.trainer import RoCBertPretrainer, learning_rate_factor, save_run
from rocbert_hf.resources import demo_sentences

SMALL = {"num_hidden_layers": 1, "hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64}


@pytest.fixture(scope="module")
def tokenizer():
    return RoCBertTokenizer()


def train(tokenizer, corpus=None, dropout=0.1, collator=None, sizes=SMALL, output_dir=None, evaluate=None, **options):
    arguments = PretrainingArguments(
        **{"max_steps": 6, "batch_size": 8, "learning_rate": 1e-3, "max_length": 48, "report_to": "none"} | options
    )
    torch.manual_seed(0)
    rates = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    model = RoCBertForPreTraining(RoCBertConfig(**sizes, **rates, fusion_layer=0))
    corpus = demo_sentences()[:40] if corpus is None else corpus
    collator = collator or collator_of(tokenizer, arguments)
    trainer = RoCBertPretrainer(model, corpus, collator, arguments, output_dir=output_dir, evaluate=evaluate)
    return model, trainer.train()


def collator_of(tokenizer, arguments, kind=DataCollatorForRoCBertPretraining):
    return kind(
        tokenizer,
        "paper" if arguments.attacks_sentences else None,
        max_length=48,
        seed=arguments.seed,
        views=arguments.collator_views,
        attack_labels=arguments.correct_attacked,
    )


def assert_same_weights(expected, found):
    for (name, a), b in zip(expected.state_dict().items(), found.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_losses_fall_and_retrieval_is_learnt(tokenizer):
    wider = SMALL | {"hidden_size": 64}
    _, first = train(tokenizer, max_steps=1, dropout=0.0, sizes=wider)
    model, last = train(tokenizer, max_steps=100, learning_rate=3e-3, dropout=0.0, sizes=wider)
    assert last["steps"] == 100
    assert last["epochs"] == pytest.approx(20)
    assert last["mlm_loss"] < first["mlm_loss"] - 1
    assert last["contrastive_loss"] < first["contrastive_loss"] / 2
    assert last["contrastive_accuracy"] > 0.4  # of 8 sentences
    assert not model.training


@pytest.mark.parametrize("options", [{}, {"num_workers": 2}])
def test_same_seed_same_weights_with_any_number_of_workers(tokenizer, options):
    expected, _ = train(tokenizer)
    found, _ = train(tokenizer, **options)
    assert_same_weights(expected, found)
    other, _ = train(tokenizer, seed=1)
    assert not torch.equal(*(model.get_input_embeddings().weight for model in (expected, other)))


def test_accumulation_takes_more_sentences_a_step(tokenizer):
    _, results = train(tokenizer, max_steps=2, gradient_accumulation_steps=5)
    assert results["epochs"] == 2


def test_minutes_end_a_run(tokenizer):
    started = time.perf_counter()
    _, results = train(tokenizer, max_steps=None, minutes=0.02)
    assert results["seconds"] >= 1.2
    assert time.perf_counter() - started < 60
    assert results["steps"] > 1


def test_a_plain_bert_trains_in_the_same_loop(tokenizer):
    model = BertForMaskedLM(BertConfig(vocab_size=len(tokenizer), **SMALL))
    collator = DataCollatorForRoCBertPretraining(tokenizer, None, seed=0)
    results = RoCBertPretrainer(
        model, demo_sentences()[:40], collator, PretrainingArguments(max_steps=2, batch_size=8)
    ).train()
    assert results["loss"] > 0


def test_bf16_autocast_trains(tokenizer):
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state()
    try:
        _, results = train(tokenizer, max_steps=3, mixed_precision="bf16")
    finally:
        AcceleratorState._reset_state()
    assert results["loss"] < 100


def test_too_few_sentences_are_an_error(tokenizer):
    with pytest.raises(ValueError, match="fewer than batch_size"):
        train(tokenizer, batch_size=64)


def test_learning_rate_rises_then_falls_to_zero():
    factors = [learning_rate_factor(progress, 0.25) for progress in (0, 0.125, 0.25, 0.625, 1)]
    assert factors == pytest.approx([0, 0.5, 1, 0.5, 0])
    assert learning_rate_factor(0, 0) == 1


def test_only_matrices_decay():
    model = RoCBertForPreTraining(RoCBertConfig(**SMALL, fusion_layer=0))
    decayed, others = adamw(model, 1e-3, 0.1).param_groups
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.1, 0.0)
    assert all(parameter.ndim > 1 for parameter in decayed["params"])
    assert len(decayed["params"]) + len(others["params"]) == sum(p.requires_grad for p in model.parameters())


def test_channels_learn_at_a_rate_of_their_own(tokenizer):
    model = RoCBertForPreTraining(RoCBertConfig(**SMALL, fusion_layer=0))
    names = {parameter: name for name, parameter in model.named_parameters()}
    rates = {names[p]: group["lr"] for group in adamw(model, 1e-4, 0.1, 1e-3).param_groups for p in group["params"]}
    assert set(rates) == {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    fast = {name for name, rate in rates.items() if rate == 1e-3}
    assert {"roc_bert.embeddings.word_embeddings.weight", "roc_bert.encoder.layer.0.output.dense.weight"} <= (
        set(rates) - fast
    )
    assert all(name.startswith(("roc_bert.fusion.", "roc_bert.embeddings.pron", "cls.")) for name in fast)
    assert {"roc_bert.fusion.key", "cls.predictions.transform.dense.weight", "cls.predictions.bias"} <= fast
    slow, _ = train(tokenizer, learning_rate=1e-12, channel_learning_rate=1e-3)
    start, _ = train(tokenizer, learning_rate=1e-12)
    change = {
        n: float((p - q).abs().max()) for (n, p), q in zip(slow.named_parameters(), start.parameters(), strict=True)
    }
    assert change["roc_bert.fusion.key"] > 1e-4 > 1e-6 > change["roc_bert.embeddings.word_embeddings.weight"]


def test_a_saved_run_loads_with_the_auto_classes(tokenizer, tmp_path):
    model, results = train(tokenizer, max_steps=1)
    (tmp_path / "notes.txt").write_text("mine")
    save_run(tmp_path, model, tokenizer, results)
    loaded = AutoModelForMaskedLM.from_pretrained(tmp_path)
    assert torch.equal(loaded.get_input_embeddings().weight, model.get_input_embeddings().weight)
    text = "今天天气很好"
    assert AutoTokenizer.from_pretrained(tmp_path)(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert json.loads((tmp_path / "all_results.json").read_text())["steps"] == 1
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert not list(tmp_path.glob(".unfinished*"))


def test_an_interrupted_save_leaves_the_earlier_run(tokenizer, tmp_path):
    model, results = train(tokenizer, max_steps=1)
    save_run(tmp_path, model, tokenizer, results)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}

    class Interrupting:
        def save_pretrained(self, folder):
            (folder / "vocab.txt").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        save_run(tmp_path, model, Interrupting(), results | {"steps": 2})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


# ------------------------------------------------------------------------------------------------ objectives


@pytest.mark.parametrize(
    ("options", "losses"),
    [
        ({"objective": "mlm_only"}, {"mlm_loss"}),
        ({"objective": "contrastive_only"}, {"contrastive_loss"}),
        ({"objective": "simcse"}, {"mlm_loss", "contrastive_loss"}),
        ({"anchor": "both", "gradient_cache": True}, {"mlm_loss", "contrastive_loss"}),
        ({"correct_attacked": True}, {"mlm_loss", "contrastive_loss", "correction_loss"}),
    ],
)
def test_each_objective_has_its_losses_and_trains(tokenizer, options, losses):
    _, results = train(tokenizer, max_steps=2, gradient_accumulation_steps=2, **options)
    assert {name for name in results if name.endswith("_loss")} == losses
    assert results["loss"] == pytest.approx(sum(results[name] for name in losses), rel=1e-5)


def test_the_gradient_cache_contrasts_all_sentences_of_a_step(tokenizer):
    options = {"max_steps": 1, "gradient_accumulation_steps": 4, "dropout": 0.0}
    _, apart = train(tokenizer, **options)
    _, together = train(tokenizer, gradient_cache=True, **options)
    # an untrained model gives all sentences nearly the same: the loss is about the logarithm of their number
    assert apart["contrastive_loss"] == pytest.approx(math.log(8), abs=0.1)
    assert together["contrastive_loss"] == pytest.approx(math.log(32), abs=0.1)
    assert apart["mlm_loss"] == pytest.approx(together["mlm_loss"], rel=1e-6)


def test_the_gradient_cache_encodes_once_if_one_pass_holds_the_step(tokenizer):
    passes = []

    def count(module, *_):
        if isinstance(module, RoCBertForPreTraining):
            passes.append(module)

    hook = torch.nn.modules.module.register_module_forward_hook(count)
    try:
        train(tokenizer, gradient_cache=True, max_steps=3)
        assert len(passes) == 3
        train(tokenizer, gradient_cache=True, max_steps=3, gradient_accumulation_steps=2)
        assert len(passes) == 3 + 3 * 2 * 2
    finally:
        hook.remove()


@pytest.mark.parametrize(
    "options",
    [{"gradient_cache": True, "anchor": "both"}, {"correct_attacked": True, "max_grad_norm": 0.1}],
    ids=["cached", "corrected and clipped"],
)
def test_a_step_follows_the_gradient_of_its_objective(tokenizer, options):
    """Mean over all masked tokens of the step, plus the contrastive loss: of each pass, or of all with the cache."""
    batches, steps = [], []

    class Noting(DataCollatorForRoCBertPretraining):
        def __call__(self, features):
            batches.append(super().__call__(features))
            return batches[-1]

    def note(optimizer, *_):
        steps.append([p.grad.clone() for group in optimizer.param_groups for p in group["params"]])
        steps[-1].append(optimizer.param_groups[0]["lr"])

    options = {"max_grad_norm": 1e9, **options}
    of_two = {"max_steps": 2, "gradient_accumulation_steps": 2, "dropout": 0.0, **options}
    collator = collator_of(tokenizer, PretrainingArguments(max_steps=1, **options), Noting)
    handle = register_optimizer_step_pre_hook(note)
    try:
        _, results = train(tokenizer, collator=collator, **of_two)
    finally:
        handle.remove()
    torch.manual_seed(0)
    still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    model = RoCBertForPreTraining(RoCBertConfig(**SMALL, **still, fusion_layer=0)).train()
    outputs = [model(**batch, return_representations=True) for batch in batches[:2]]
    objective = 0
    for name, key in {"mlm_loss": "labels", "correction_loss": "attack_labels"}.items():
        if key in batches[0]:
            counts = [(batch[key] != -100).sum() for batch in batches[:2]]
            assert counts[0] != counts[1]
            objective += sum(out[name] * n for out, n in zip(outputs, counts, strict=True)) / sum(counts)
    views = [out.representations for out in outputs]
    groups = [torch.cat(views)] if "gradient_cache" in options else views
    objective += sum(views_contrastive_loss(group)[0] for group in groups) / len(groups)
    objective.backward()
    expected = [p.grad for group in adamw(model, 1e-3, 0.01).param_groups for p in group["params"]]
    norm = torch.cat([gradient.flatten() for gradient in expected]).norm()
    scale = min(1.0, options["max_grad_norm"] / float(norm))
    assert (scale < 1) == (options["max_grad_norm"] < 1)
    *found, rate = steps[0]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, scale * other, rtol=1e-3, atol=1e-5 * float(norm) * scale)
    assert 0 < rate <= 1e-3  # no step is taken for nothing
    read = sum(int(ids.sum()) for batch in batches[:4] for name, ids in batch.items() if "attention_mask" in name)
    assert results["tokens_per_second"] * results["seconds"] == pytest.approx(read)


def test_a_global_batch_size_sets_the_accumulation(tokenizer):
    expected, _ = train(tokenizer, max_steps=2, gradient_accumulation_steps=3)
    found, _ = train(tokenizer, max_steps=2, global_batch_size=24)
    assert_same_weights(expected, found)
    with pytest.raises(ValueError, match="global_batch_size must be a multiple"):
        train(tokenizer, global_batch_size=20)


def test_sentences_longer_than_the_model_reads_are_an_error_before_any_work(tokenizer):
    arguments = PretrainingArguments(max_steps=1, max_length=1024)
    model = RoCBertForPreTraining(RoCBertConfig(**SMALL, fusion_layer=0))
    with pytest.raises(ValueError, match=r"max_length must be at most 512, .* got 1024"):
        RoCBertPretrainer(model, demo_sentences(), collator_of(tokenizer, arguments), arguments)


def test_one_sentence_alone_cannot_be_contrasted(tokenizer):
    one = {"batch_size": 1, "gradient_accumulation_steps": 4, "max_steps": 1}
    with pytest.raises(ValueError, match="batch_size must be at least 2 for the contrastive loss"):
        train(tokenizer, **one)
    assert train(tokenizer, **one, gradient_cache=True)[1]["contrastive_loss"] > 0.5
    assert train(tokenizer, **one, objective="mlm_only")[1]["loss"] > 0


def test_epochs_are_those_of_the_sentences_that_are_trained_on(tokenizer):
    arguments = PretrainingArguments(max_steps=5, batch_size=8, max_length=48, report_to="none")
    corpus, model = demo_sentences()[:40], RoCBertForPreTraining(RoCBertConfig(**SMALL, fusion_layer=0))
    collator = collator_of(tokenizer, arguments)
    results = RoCBertPretrainer(model, corpus, collator, arguments, exclude=corpus[:20]).train()
    assert results["epochs"] == 2


def test_simcse_without_dropout_is_an_error(tokenizer):
    with pytest.raises(ValueError, match="dropout"):
        train(tokenizer, objective="simcse", dropout=0.0)


def test_a_collator_without_the_third_view_is_an_error(tokenizer):
    two = collator_of(tokenizer, PretrainingArguments(max_steps=1))
    with pytest.raises(ValueError, match="labels_input_ids"):
        train(tokenizer, anchor="both", collator=two)


def test_gradient_checkpointing_changes_no_weight(tokenizer):
    expected, _ = train(tokenizer, max_steps=2)
    found, _ = train(tokenizer, max_steps=2, gradient_checkpointing=True)
    for (name, a), b in zip(expected.state_dict().items(), found.state_dict().values(), strict=True):
        assert torch.allclose(a, b, atol=1e-6), name


# ------------------------------------------------------------------------------------------------ never lose work


@pytest.mark.parametrize("options", [{}, {"num_workers": 1, "gradient_accumulation_steps": 2, "gradient_cache": True}])
def test_a_resumed_run_ends_with_the_same_weights(tokenizer, tmp_path, options):
    options = {"max_steps": 7, "save_steps": 3, "logging_steps": 1, **options}
    expected, results = train(tokenizer, output_dir=tmp_path / "whole", **options)
    assert [path.name for path in checkpoints_of(tmp_path / "whole")] == ["checkpoint-3", "checkpoint-6"]
    with pytest.raises(ValueError, match="resume_from_checkpoint=last"):
        train(tokenizer, output_dir=tmp_path / "whole", **options)
    first = str(tmp_path / "whole" / "checkpoint-3")
    found, resumed = train(tokenizer, output_dir=tmp_path / "new", resume_from_checkpoint=first, **options)
    assert_same_weights(expected, found)
    assert resumed["steps"] == results["steps"] == 7
    assert resumed["loss"] == results["loss"]


def test_a_step_that_is_cut_otherwise_is_named(tokenizer, tmp_path):
    """The order of the sentences depends on how many a pass takes."""
    train(tokenizer, output_dir=tmp_path, max_steps=1, save_steps=1)
    other = {"batch_size": 4, "gradient_accumulation_steps": 2, "resume_from_checkpoint": "last"}
    with pytest.raises(ValueError, match="other options: sentences_per_pass was 8, now 4"):
        train(tokenizer, output_dir=tmp_path, **other)


def test_the_last_checkpoints_are_kept_and_each_loads(tokenizer, tmp_path):
    model, _ = train(tokenizer, output_dir=tmp_path, max_steps=5, save_steps=1, save_total_limit=3)
    kept = checkpoints_of(tmp_path)
    assert [path.name for path in kept] == ["checkpoint-3", "checkpoint-4", "checkpoint-5"]
    loaded = AutoModelForMaskedLM.from_pretrained(kept[-1])
    assert torch.equal(loaded.get_input_embeddings().weight, model.get_input_embeddings().weight)
    with pytest.raises(ValueError, match="is later than"):
        train(tokenizer, output_dir=tmp_path, resume_from_checkpoint=str(kept[0]))


def test_damaged_later_checkpoints_do_not_push_out_whole_ones(tokenizer, tmp_path):
    options = {"output_dir": tmp_path, "save_steps": 1, "save_total_limit": 1}
    train(tokenizer, max_steps=1, **options)
    for step in (5, 6):
        (tmp_path / f"checkpoint-{step}").mkdir()
    train(tokenizer, max_steps=3, resume_from_checkpoint="last", **options)
    assert find_checkpoint("last", tmp_path).name == "checkpoint-3"
    train(tokenizer, max_steps=6, resume_from_checkpoint="last", **options)
    assert [path.name for path in checkpoints_of(tmp_path)] == ["checkpoint-6"]
    assert find_checkpoint("last", tmp_path).name == "checkpoint-6"


def test_checkpoints_by_the_clock(tokenizer, tmp_path):
    train(tokenizer, output_dir=tmp_path, max_steps=4, save_minutes=1e-9)
    assert [path.name for path in checkpoints_of(tmp_path)] == ["checkpoint-3", "checkpoint-4"]


class ActingCollator(DataCollatorForRoCBertPretraining):
    """Does something just before a batch is made."""

    def __call__(self, features):
        self.made = getattr(self, "made", 0) + 1
        if self.made == self.act_at:
            self.act()
        return super().__call__(features)


def acting(tokenizer, act_at, act) -> ActingCollator:
    collator = collator_of(tokenizer, PretrainingArguments(max_steps=1), ActingCollator)
    collator.act_at, collator.act = act_at, act
    return collator


def test_sigterm_leaves_a_checkpoint_that_the_run_goes_on_from(tokenizer, tmp_path):
    expected, _ = train(tokenizer)
    collator = acting(tokenizer, 4, lambda: os.kill(os.getpid(), signal.SIGTERM))
    handler = signal.getsignal(signal.SIGTERM)
    _, results = train(tokenizer, output_dir=tmp_path, collator=collator)
    assert results["interrupted"]
    assert results["steps"] == 3
    assert signal.getsignal(signal.SIGTERM) == handler
    found, results = train(tokenizer, output_dir=tmp_path, resume_from_checkpoint="last")
    assert not results["interrupted"]
    assert_same_weights(expected, found)


def test_a_full_disk_is_a_clear_error_and_the_last_checkpoint_is_whole(tokenizer, tmp_path):
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill_disk():  # no file can grow beyond 100 kB any more
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))

    try:
        with pytest.raises(OSError, match=r"checkpoint-4 could not be written.*when there is room"):
            train(tokenizer, output_dir=tmp_path, save_steps=2, collator=acting(tokenizer, 4, fill_disk))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["checkpoint-2"]
    expected, _ = train(tokenizer)
    found, _ = train(tokenizer, output_dir=tmp_path, resume_from_checkpoint="last")
    assert_same_weights(expected, found)


class Faulty(RoCBertForPreTraining):
    """Its loss is not a number in some of its forward passes."""

    faulty_passes: tuple[int, ...] = ()
    passes = 0

    @functools.wraps(RoCBertForPreTraining.forward)
    def forward(self, *args, **kwargs):
        outputs = super().forward(*args, **kwargs)
        self.passes += 1
        if self.passes in self.faulty_passes:
            outputs.mlm_loss = outputs.mlm_loss * float("nan")
        return outputs


def train_faulty(tokenizer, faulty_passes, output_dir=None, loss_scaling=False, **options):
    arguments = PretrainingArguments(max_steps=9, batch_size=8, max_length=48, report_to="none", **options)
    model = Faulty(RoCBertConfig(**SMALL, fusion_layer=0))
    model.faulty_passes = faulty_passes
    collator = collator_of(tokenizer, arguments)
    accelerator = make_accelerator(arguments, output_dir)
    if loss_scaling:  # as on a GPU in fp16, without fp16
        accelerator.scaler = torch.amp.GradScaler("cpu")
    trainer = RoCBertPretrainer(model, demo_sentences()[:40], collator, arguments, accelerator, output_dir=output_dir)
    return model, trainer.train()


@pytest.mark.parametrize("loss_scaling", [False, True])
def test_a_step_that_is_not_finite_is_skipped_and_counted(tokenizer, loss_scaling):
    model, results = train_faulty(tokenizer, (2, 5, 6), max_skipped_steps=3, loss_scaling=loss_scaling)
    assert (results["steps"], results["skipped_steps"]) == (9, 3)
    assert math.isfinite(results["loss"])
    assert all(parameter.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("loss_scaling", [False, True])
def test_too_many_in_a_row_end_the_run_and_keep_the_last_good_checkpoint(tokenizer, tmp_path, loss_scaling):
    options = {"output_dir": tmp_path, "save_steps": 4, "max_skipped_steps": 3, "loss_scaling": loss_scaling}
    with pytest.raises(FloatingPointError, match=r"step 7: 3 steps in a row.*checkpoint-4"):
        train_faulty(tokenizer, (5, 6, 7), **options)
    (kept,) = checkpoints_of(tmp_path)
    model = AutoModelForMaskedLM.from_pretrained(kept)
    assert all(parameter.isfinite().all() for parameter in model.parameters())


# ------------------------------------------------------------------------------------------------ seeing it


def test_bad_lines_are_counted_in_the_log_and_the_results(tokenizer, tmp_path):
    text = tmp_path / "text.txt"
    good, bad = [sentence.encode() for sentence in demo_sentences()[:100]], [b"\xff"] * 3
    text.write_bytes(b"\n".join([good[0], *bad, *good[1:]]))
    arguments = PretrainingArguments(max_steps=4, batch_size=8, max_length=48, report_to="none", logging_steps=4)
    model = RoCBertForPreTraining(RoCBertConfig(**SMALL, fusion_layer=0))
    collator = collator_of(tokenizer, arguments)
    results = RoCBertPretrainer(
        model, [TextSource(str(text))], collator, arguments, output_dir=tmp_path / "run"
    ).train()
    assert list(results["skipped_lines"].values()) == [3]
    assert read_log(tmp_path / "run")[-1]["skipped_lines"] == 3


def test_rows_go_to_the_log_and_to_tensorboard(tokenizer, tmp_path):
    measured = {"mlm_loss": 1.5, "retrieval_cls": 0.25}
    options = {"max_steps": 5, "logging_steps": 2, "eval_steps": 2, "report_to": "tensorboard"}
    _, results = train(tokenizer, output_dir=tmp_path, evaluate=lambda model: measured, **options)
    rows = read_log(tmp_path)
    trained = [row for row in rows if "loss" in row]
    assert [row["step"] for row in trained] == [2, 4, 5]
    assert trained[-1]["mlm_loss"] == results["mlm_loss"]
    for name in ("contrastive_loss", "contrastive_accuracy", "tokens_per_second", "data_wait", "learning_rate"):
        assert all(row[name] >= 0 for row in trained)
    assert [row for row in rows if "loss" not in row] == [
        {"step": step, "eval_mlm_loss": 1.5, "eval_retrieval_cls": 0.25} for step in (2, 4)
    ]
    assert list((tmp_path / "runs").rglob("events.out.tfevents.*"))


def test_a_resumed_log_has_each_step_once(tokenizer, tmp_path):
    train(tokenizer, output_dir=tmp_path, max_steps=5, save_steps=3, logging_steps=1)
    with open(tmp_path / "log.jsonl", "a") as file:
        file.write('{"step": 6, "lo')  # a crash cut it off
    train(tokenizer, output_dir=tmp_path, max_steps=5, logging_steps=1, resume_from_checkpoint="last")
    assert [row["step"] for row in read_log(tmp_path)] == [1, 2, 3, 4, 5]


@pytest.mark.skipif(importlib.util.find_spec("wandb") is not None, reason="wandb is installed here")
def test_a_tracker_that_is_not_installed_is_an_error_before_any_work(tokenizer):
    with pytest.raises(ValueError, match="pip install wandb"):
        train(tokenizer, report_to="tensorboard,wandb")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"save_steps": 2}, "save_steps needs an output_dir"),
        ({"eval_steps": 2}, "eval_steps needs something to evaluate with"),
        ({"objective": "mlm_only", "gradient_cache": True}, "gradient_cache is for a contrastive loss"),
        ({"objective": "simcse", "anchor": "both"}, "anchor and negatives"),
        ({"report_to": "diary"}, "report_to must be of"),
        ({"max_steps": None, "minutes": 1, "warmup_steps": 5}, "warmup_steps need max_steps"),
        ({"mixed_precision": "fp16"}, "fp16 needs a GPU"),
        ({"attn_implementation": "flash_attention_2"}, "flash_attention_2 needs a GPU"),
    ],
)
@pytest.mark.skipif(torch.cuda.is_available(), reason="what a CPU cannot do")
def test_options_that_do_not_fit_are_errors_before_any_work(tokenizer, options, message):
    with pytest.raises(ValueError, match=message):
        train(tokenizer, **options)


def test_what_is_chosen_for_a_device_and_why():
    gpu = torch.device("cuda")
    assert choose_precision("auto", gpu, "A100", has_bf16=True)[0] == "bf16"
    precision, why = choose_precision("auto", gpu, "Tesla V100", has_bf16=False)
    assert precision == "fp16"
    assert "no bfloat16" in why
    with pytest.raises(ValueError, match="V100 has no bfloat16"):
        choose_precision("bf16", gpu, "Tesla V100", has_bf16=False)
    assert "FlashAttention 2 needs" in check_attention("sdpa", "Tesla V100", (7, 0))
    with pytest.raises(ValueError, match="use sdpa"):
        check_attention("flash_attention_2", "Tesla V100", (7, 0))
    assert peak_flops("NVIDIA A100-SXM4-80GB", "bf16") == 312e12
    assert peak_flops("Tesla V100-SXM2-32GB", "fp16") == 125e12
    assert peak_flops("CPU", "no") is None

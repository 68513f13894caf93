"""Distillation from a sentence encoder: its vectors, the loss, and training with it."""

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook
from transformers import BertConfig, BertModel

from rocbert_hf import RoCBertConfig, RoCBertForPreTraining, RoCBertModel, RoCBertTokenizer
from rocbert_hf.finetuning.starting_point import character_level_bert_tokenizer
from rocbert_hf.pretraining.arguments import PretrainingArguments
from rocbert_hf.pretraining.collator import DataCollatorForRoCBertPretraining
from rocbert_hf.pretraining.distillation import SentenceTeacher, TeacherInputs
from rocbert_hf.pretraining.optimizer import adamw
from rocbert_hf.pretraining.resuming import checkpoints_of
from rocbert_hf.pretraining.trainer import RoCBertPretrainer
from rocbert_hf.resources import demo_sentences

SIZES = {"num_hidden_layers": 1, "hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64}
SENTENCES = demo_sentences()[:40]


@pytest.fixture(scope="module")
def teacher() -> SentenceTeacher:
    torch.manual_seed(5)
    tokenizer = character_level_bert_tokenizer()
    model = BertModel(BertConfig(vocab_size=len(tokenizer), **SIZES))
    return SentenceTeacher(model, TeacherInputs(tokenizer, "query: ", 40), SENTENCES)


def new_model(dropout=0.0) -> RoCBertForPreTraining:
    torch.manual_seed(0)
    return RoCBertForPreTraining(
        RoCBertConfig(**SIZES, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout, fusion_layer=0)
    )


def train(teacher, objective="correction", output_dir=None, seen=None, dropout=0.0, **options):
    arguments = PretrainingArguments(
        **{"max_steps": 6, "batch_size": 8, "learning_rate": 1e-3, "max_length": 48, "report_to": "none"} | options,
        objective=objective,
    )
    model = new_model(dropout)
    collator = DataCollatorForRoCBertPretraining(
        RoCBertTokenizer(),
        max_length=48,
        seed=0,
        views=arguments.collator_views,
        teacher_inputs=teacher.inputs if teacher is not None else None,
    )
    if seen is not None:
        make = collator
        collator = lambda texts: seen.append(make(texts)) or seen[-1]  # noqa: E731
    trainer = RoCBertPretrainer(model, SENTENCES, collator, arguments, output_dir=output_dir, teacher=teacher)
    return model, trainer.train()


def test_vectors_are_means_over_the_tokens_of_the_prefixed_text(teacher):
    texts = [SENTENCES[0], SENTENCES[1][:5]]
    vectors = teacher(teacher.inputs(texts))
    for text, vector in zip(texts, vectors, strict=True):
        alone = teacher.inputs.tokenizer("query: " + text, truncation=True, max_length=40, return_tensors="pt")
        assert torch.allclose(vector, teacher.model(**alone).last_hidden_state[0].mean(0), atol=1e-5)


def test_a_teacher_that_hears_and_sees_reads_all_channels():
    torch.manual_seed(5)
    tokenizer, model = RoCBertTokenizer(), RoCBertModel(RoCBertConfig(**SIZES, fusion_layer=0)).eval()
    vectors = SentenceTeacher(model, TeacherInputs(tokenizer), SENTENCES)(TeacherInputs(tokenizer)(SENTENCES[:1]))
    states = model(**tokenizer(SENTENCES[0], return_tensors="pt")).last_hidden_state
    assert torch.allclose(vectors[0], states[0].mean(0), atol=1e-5)


def test_the_loss_is_the_equation(teacher):
    vectors, targets = torch.randn(3, 2, 32), torch.randn(3, 32)
    expected = sum(
        ((vectors[row, kind].double() - targets[row].double()) / teacher.scales.double()).square().sum()
        for row in range(3)
        for kind in range(2)
    ) / (3 * 2 * 32)
    assert torch.allclose(teacher.loss(vectors, targets).double(), expected, rtol=1e-5)


def test_the_mean_vector_of_the_text_costs_about_one(teacher):
    targets = torch.cat([teacher(teacher.inputs([text])) for text in SENTENCES])
    mean = targets.mean(0).expand(len(targets), 1, -1)
    assert float(teacher.loss(mean, targets)) == pytest.approx(1 - 1 / len(targets), rel=1e-3)


def test_training_brings_the_attacked_sentence_near_the_clean_ones_vector(teacher):
    before = [parameter.clone() for parameter in teacher.model.parameters()]
    _, first = train(teacher, max_steps=1)
    _, last = train(teacher, max_steps=60, learning_rate=3e-3, distillation_weight=5.0)
    assert last["distillation_loss"] < 0.8 * first["distillation_loss"]
    assert last["loss"] == pytest.approx(last["mlm_loss"] + 5 * last["distillation_loss"])
    for old, parameter in zip(before, teacher.model.parameters(), strict=True):
        assert torch.equal(old, parameter)
        assert parameter.grad is None


def test_the_gradient_cache_repeats_the_dropout_of_its_first_pass(teacher):
    """Else the gradients of the representations would be those of other representations."""
    seen = []

    def note(module, arguments, outputs):
        if isinstance(module, RoCBertForPreTraining):
            seen.append(outputs.representations.detach().clone())

    hook = torch.nn.modules.module.register_module_forward_hook(note)
    try:
        train(teacher, "multimodal", dropout=0.1, max_steps=1, gradient_accumulation_steps=2, gradient_cache=True)
    finally:
        hook.remove()
    assert len(seen) == 4
    for first, second in zip(seen[:2], seen[2:], strict=True):
        assert torch.equal(first, second)


def test_a_step_follows_the_gradient_of_both_losses(teacher):
    seen, steps = [], []

    def note(optimizer, *_):
        steps.append([p.grad.clone() for group in optimizer.param_groups for p in group["params"]])

    handle = register_optimizer_step_pre_hook(note)
    try:
        train(teacher, max_steps=1, seen=seen, distillation_weight=5.0, max_grad_norm=1e9)
    finally:
        handle.remove()
    model, batch = new_model().train(), seen[0]
    inputs = {name: ids for name, ids in batch.items() if not name.startswith("teacher_")}
    outputs = model(**inputs, return_sentence_vectors=True)
    (outputs.mlm_loss + 5 * teacher.loss(outputs.sentence_vectors, teacher(batch))).backward()
    expected = [p.grad for group in adamw(model, 1e-3, 0.01).param_groups for p in group["params"]]
    largest = max(float(gradient.abs().max()) for gradient in expected)
    for found, gradient in zip(steps[0], expected, strict=True):
        torch.testing.assert_close(found, gradient, rtol=1e-3, atol=1e-5 * largest)


def test_it_goes_with_the_contrastive_objective_and_with_accumulation(teacher):
    seen = []
    passes = {"batch_size": 4, "gradient_accumulation_steps": 2, "gradient_cache": True}
    _, results = train(teacher, "multimodal", max_steps=1, seen=seen, **passes)
    model = new_model()
    losses = []
    for batch in seen[:2]:  # the loader may have made a third
        attacked = {name.removeprefix("attack_"): ids for name, ids in batch.items() if name.startswith("attack_")}
        states, mask = model.roc_bert(**attacked).last_hidden_state, attacked["attention_mask"].unsqueeze(-1)
        vectors = torch.stack([(states * mask).sum(1) / mask.sum(1), states[:, 0]], dim=1)
        losses.append(float(teacher.loss(vectors, teacher(batch))))
    assert results["distillation_loss"] == pytest.approx(sum(losses) / 2, rel=1e-4)
    parts = results["mlm_loss"] + results["contrastive_loss"] + results["distillation_loss"]
    assert results["loss"] == pytest.approx(parts, rel=1e-5)


def test_a_resumed_run_ends_with_the_same_weights(teacher, tmp_path):
    expected, _ = train(teacher)
    train(teacher, output_dir=tmp_path, save_steps=4)
    assert [path.name for path in checkpoints_of(tmp_path)] == ["checkpoint-4"]
    found, _ = train(teacher, output_dir=tmp_path, resume_from_checkpoint="last", num_workers=1)
    for a, b in zip(expected.state_dict().values(), found.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_an_encoder_of_another_width_is_refused_before_the_training(teacher):
    other = BertModel(BertConfig(vocab_size=len(teacher.inputs.tokenizer), **SIZES | {"hidden_size": 16}))
    with pytest.raises(ValueError, match="16"):
        train(SentenceTeacher(other, teacher.inputs, SENTENCES))


def test_bad_options_are_refused():
    with pytest.raises(ValueError, match="attacked sentences"):
        PretrainingArguments(objective="mlm_only", distill_from="somewhere")
    with pytest.raises(ValueError, match="distillation_weight"):
        PretrainingArguments(objective="correction", distill_from="somewhere", distillation_weight=0.0)
    with pytest.raises(ValueError, match="at least 2"):
        SentenceTeacher(
            BertModel(BertConfig(vocab_size=99, **SIZES)), TeacherInputs(character_level_bert_tokenizer()), ["一"]
        )
    with pytest.raises(OSError, match="to distill from"):
        SentenceTeacher.from_pretrained("no/such-folder", SENTENCES)

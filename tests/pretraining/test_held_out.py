"""Measuring on held-out sentences: numbers that mean what they say, for our models and for others."""

import math

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM, RobertaConfig, RobertaForMaskedLM

from rocbert_hf import RoCBertConfig, RoCBertForMaskedLM, RoCBertForPreTraining, RoCBertTokenizer
from rocbert_hf.pretraining.held_out import HeldOutEvaluation, alignment, nearest_is_own, uniformity
from rocbert_hf.resources import demo_sentences

SENTENCES = demo_sentences()[:300:10]


@pytest.fixture(scope="module")
def evaluate():
    return HeldOutEvaluation(RoCBertTokenizer(), SENTENCES, attacks_per_sentence=2, batch_size=7)


def test_nearest_is_own_counts_by_cosine():
    originals = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    attacked = torch.tensor([[9.0, 0.1], [0.3, 0.2], [-0.1, 0.0]])
    assert nearest_is_own(attacked, originals) == pytest.approx(2 / 3)


def test_alignment_and_uniformity_by_hand():
    corners = torch.tensor([[2.0, 0.0], [0.0, 3.0], [-1.0, 0.0], [0.0, -1.0]])
    assert alignment(corners, corners * 5) == pytest.approx(0, abs=1e-6)
    assert alignment(corners, -corners) == pytest.approx(4)
    # of the 12 ordered pairs 8 are at a squared distance of 2, 4 of 4
    assert uniformity(corners) == pytest.approx(math.log((8 * math.exp(-4) + 4 * math.exp(-8)) / 12))
    assert uniformity(torch.ones(4, 2)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("kind", ["pretraining", "masked_lm", "bert", "roberta"])
def test_any_masked_language_model_can_be_measured(evaluate, kind):
    torch.manual_seed(0)
    sizes = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 512}
    if kind == "bert":
        model = BertForMaskedLM(BertConfig(vocab_size=len(evaluate.tokenizer), **sizes))
    elif kind == "roberta":  # its head has another name than BERT's
        model = RobertaForMaskedLM(RobertaConfig(vocab_size=len(evaluate.tokenizer), pad_token_id=0, **sizes))
    else:
        config = RoCBertConfig.from_preset("tiny")
        model = (RoCBertForPreTraining if kind == "pretraining" else RoCBertForMaskedLM)(config)
    model.train()
    found = evaluate(model)
    assert model.training
    assert found["mlm_loss"] == pytest.approx(math.log(len(evaluate.tokenizer)), rel=0.1)
    assert found["mlm_loss_attacked"] == pytest.approx(math.log(len(evaluate.tokenizer)), rel=0.1)
    assert found["uniformity"] < 0 < found["alignment"] < 4
    assert found["contrastive_loss"] > 0
    assert all(1 / len(SENTENCES) <= found[f"retrieval_{pooling}"] <= 1 for pooling in ("cls", "mean"))


def test_numbers_are_those_of_one_sentence_at_a_time(evaluate):
    torch.manual_seed(0)
    model = RoCBertForMaskedLM(RoCBertConfig.from_preset("tiny", initializer_range=0.2)).eval()
    found = evaluate(model)
    assert found == evaluate(model)  # masks and attacks were drawn once

    @torch.no_grad()
    def read(texts):
        states = [model.base_model(**evaluate.tokenizer(t, return_tensors="pt")).last_hidden_state[0] for t in texts]
        pooled = {"cls": [s[0] for s in states], "mean": [s.mean(0) for s in states]}
        return {
            name: torch.nn.functional.normalize(torch.stack(rows).double(), dim=-1) for name, rows in pooled.items()
        }

    assert evaluate.attacked[0] != evaluate.attacked[1]
    originals, attacked = read(evaluate.sentences), [read(texts) for texts in evaluate.attacked]
    count = len(evaluate.sentences)
    for pooling in ("cls", "mean"):
        right = [
            int(max(range(count), key=lambda j: float(views[pooling][i] @ originals[pooling][j])) == i)
            for views in attacked
            for i in range(count)
        ]
        assert found[f"retrieval_{pooling}"] == pytest.approx(sum(right) / len(right))
        assert 0 < sum(right) < len(right)
    similarities = [originals["cls"] @ views["cls"].T / 0.01 for views in attacked]
    losses = [torch.logsumexp(rows, 1) - rows.diagonal() for rows in similarities]
    assert found["contrastive_loss"] == pytest.approx(float(torch.cat(losses).mean()), rel=1e-3)
    squared = [(originals["cls"] - views["cls"]).square().sum(-1) for views in attacked]
    assert found["alignment"] == pytest.approx(float(torch.cat(squared).mean()), rel=1e-3)
    for name, batches in (("mlm_loss", evaluate.masked), ("mlm_loss_attacked", evaluate.masked_attacked)):
        lost = []
        for batch in batches:
            with torch.no_grad():
                logits = model(**{key: ids for key, ids in batch.items() if key != "labels"}).logits
            masked = batch["labels"] != -100
            lost.append(-logits.log_softmax(-1)[masked].gather(1, batch["labels"][masked][:, None]))
        assert len({len(part) for part in lost}) > 1  # so that a mean of means is another number
        assert found[name] == pytest.approx(float(torch.cat(lost).mean()), rel=1e-4)


def test_unattacked_sentences_are_always_found(evaluate):
    unattacked = HeldOutEvaluation(evaluate.tokenizer, SENTENCES, attacks_per_sentence=1)
    unattacked.attacked = [unattacked.sentences]
    torch.manual_seed(0)
    found = unattacked(RoCBertForPreTraining(RoCBertConfig.from_preset("tiny")))
    assert found["retrieval_cls"] == found["retrieval_mean"] == 1.0


def test_repeated_sentences_count_once_and_one_is_too_few():
    tokenizer = RoCBertTokenizer()
    assert HeldOutEvaluation(tokenizer, ["好", "好", "不好"]).sentences == ["好", "不好"]
    with pytest.raises(ValueError, match="at least 2"):
        HeldOutEvaluation(tokenizer, ["好", "好"])


def test_the_side_of_the_padding_changes_nothing():
    torch.manual_seed(0)
    config = RoCBertConfig.from_preset("tiny", position_embedding_type="functional_relative")
    model = RoCBertForMaskedLM(config).eval()
    right, left = (
        HeldOutEvaluation(RoCBertTokenizer(padding_side=side), SENTENCES, attacks_per_sentence=1).retrieval(model)
        for side in ("right", "left")
    )
    assert left == pytest.approx(right, rel=1e-3)


def test_text_of_unknown_characters_alone_is_an_error():
    with pytest.raises(ValueError, match=r"none, such as '안녕'"):
        HeldOutEvaluation(RoCBertTokenizer(), ["안녕", "반갑습니다"])


def test_a_batch_without_a_known_token_does_not_spoil_the_mean():
    known = SENTENCES[:3]
    unknown = ["안" * (100 + i) for i in range(3)]  # sorted by length, they are a batch of their own
    torch.manual_seed(0)
    tokenizer = RoCBertTokenizer()
    model = BertForMaskedLM(
        BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=64,
        )
    )
    alone, mixed = (HeldOutEvaluation(tokenizer, texts, batch_size=3)(model) for texts in (known, [*known, *unknown]))
    assert mixed["mlm_loss"] == pytest.approx(alone["mlm_loss"])

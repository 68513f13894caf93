"""ESimCSE: its loss in float64, its queue and its moving copy, its positives and negatives."""

import random
import re

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel

from rocbert_hf.finetuning.esimcse import ESimCSE, GradedNegative, esimcse_loss, queue_size_for
from rocbert_hf.finetuning.representation_hooks import sentence_representation
from rocbert_hf.finetuning.text_augmentation import WordRepetition, edit_distance
from rocbert_hf.resources import antonyms


def an_encoder(seed: int = 0) -> BertModel:
    torch.manual_seed(seed)
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    return BertModel(BertConfig(vocab_size=40, **sizes))


def vectors(rows: int, seed: int) -> torch.Tensor:
    return torch.randn(rows, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def cosine(a, b) -> float:
    return float(np.dot(a, b) / np.linalg.norm(a) / np.linalg.norm(b))


def test_the_loss_is_that_of_the_equation():
    anchors, positives, queue, negatives = (vectors(n, seed) for seed, n in enumerate((3, 5, 4, 3)))
    grades = torch.tensor([1.0, 0.25, 0.0], dtype=torch.float64)
    expected = []
    for i in range(3):
        e = [np.exp(cosine(anchors[i], p) / 0.1) for p in positives]
        others = sum(np.exp(cosine(anchors[i], q) / 0.1) for q in queue)
        graded = grades[i] * np.exp(cosine(anchors[i], negatives[i]) / 0.1)
        expected.append(-np.log(e[2 + i] / (sum(e) + others + graded)))
    loss = esimcse_loss(anchors, positives, queue, 0.1, 2, negatives, grades)
    np.testing.assert_allclose(loss.item(), np.mean(expected), rtol=1e-10)


def test_a_negative_of_grade_zero_changes_nothing_and_gives_no_gradient():
    anchors, positives, negatives = (vectors(2, seed) for seed in range(3))
    negatives.requires_grad_()
    plain = esimcse_loss(anchors, positives, vectors(0, 3))
    graded = esimcse_loss(anchors, positives, vectors(0, 3), negatives=negatives, grades=torch.zeros(2))
    torch.testing.assert_close(plain, graded)
    assert not torch.autograd.grad(graded, negatives)[0].any()


def test_the_module_counts_its_queue_its_temperature_and_graded_negatives():
    esimcse = ESimCSE(an_encoder(), queue_size=5, temperature=0.3).double()
    esimcse.push(vectors(3, 7))
    anchors, positives, negatives = (vectors(2, seed) for seed in range(3))
    grades = torch.tensor([0.5, 0.9], dtype=torch.float64)
    expected = esimcse_loss(anchors, positives, vectors(3, 7), 0.3, 0, negatives, grades)
    torch.testing.assert_close(esimcse(anchors, positives, negatives, grades), expected)


def test_the_queue_is_first_in_first_out():
    esimcse = ESimCSE(an_encoder(), queue_size=5)
    assert esimcse.earlier.shape == (0, 8)
    pushed = [vectors(2, seed).float() for seed in range(4)]
    for number, rows in enumerate(pushed, start=1):
        esimcse.push(rows)
        assert torch.equal(esimcse.earlier, torch.cat(pushed[:number])[-5:])
    esimcse.push(vectors(7, 9))
    assert torch.equal(esimcse.earlier, vectors(7, 9).float()[-5:])
    without = ESimCSE(an_encoder(), queue_size=0)
    without.push(vectors(2, 0))
    assert without.earlier.shape == (0, 8)


def test_the_copy_moves_slowly_and_has_no_dropout_and_no_gradient():
    encoder, target = an_encoder(), an_encoder(1)
    esimcse = ESimCSE(encoder, momentum=0.995)
    by_hand = {name: value.clone() for name, value in encoder.named_parameters()}
    for _ in range(5):
        esimcse.follow(target)
        by_hand = {name: 0.995 * slow + 0.005 * target.get_parameter(name) for name, slow in by_hand.items()}
    for name, value in esimcse.slow_encoder.named_parameters():
        torch.testing.assert_close(value, by_hand[name])
        assert not value.requires_grad
    esimcse.train()
    inputs = {"input_ids": torch.arange(12).reshape(2, 6)}
    assert torch.equal(esimcse.represent(inputs), esimcse.represent(inputs))
    assert torch.equal(
        encoder.get_parameter("embeddings.word_embeddings.weight"),
        an_encoder().get_parameter("embeddings.word_embeddings.weight"),
    )


def test_alone_it_brings_a_text_and_its_repetition_together():
    encoder = an_encoder()
    esimcse, optimizer = ESimCSE(encoder, queue_size=8), torch.optim.Adam(encoder.parameters(), 1e-2)
    anchors = {"input_ids": torch.randint(1, 40, (6, 5), generator=torch.Generator().manual_seed(0))}
    positives = {"input_ids": anchors["input_ids"].repeat_interleave(2, dim=1)}

    def loss():
        return esimcse(*(sentence_representation(encoder(**inputs)) for inputs in (anchors, positives)))

    with torch.no_grad():
        before = loss().item()
    for _ in range(20):
        loss().backward()
        optimizer.step()
        optimizer.zero_grad()
        esimcse.push(anchors)
        esimcse.follow(encoder)
    assert loss().item() < before


def test_repeated_are_at_most_max_of_two_and_the_rate():
    text = "今天的天气真的非常好我们去公园"
    lengths = {len(WordRepetition(dup_rate=0.32)(text, random.Random(seed))) - len(text) for seed in range(300)}
    assert lengths == set(range(int(0.32 * len(text)) + 1))
    short = {len(WordRepetition(dup_rate=0.32)("好", random.Random(seed))) for seed in range(50)}
    assert short == {1, 2}  # of one character one at most can be repeated
    of_words = {WordRepetition(unit="word")("天气非常好", random.Random(seed)) for seed in range(50)}
    assert "天气天气非常好" in of_words
    assert "天天气非常好" not in of_words


def test_any_character_may_be_repeated_where_it_stands():
    text, places = "今天的天气真好", set()
    form = re.compile("".join(f"({character}{character}?)" for character in text))
    for seed in range(200):
        match = form.fullmatch(WordRepetition()(text, random.Random(seed)))
        places |= {number for number, found in enumerate(match.groups()) if len(found) == 2}
    assert places == set(range(len(text)))


def test_a_negative_may_say_the_opposite_and_changes_as_much_as_is_asked_for():
    text = "这家店的服务很好，价格也便宜"
    found = [GradedNegative()(text, random.Random(seed))[0] for seed in range(60)]
    assert any(opposite in negative for opposite in antonyms()["便宜"] for negative in found)
    grades = [
        np.mean([GradedNegative(rate)(text, random.Random(seed))[1] for seed in range(60)]) for rate in (0.1, 0.9)
    ]
    assert grades[0] < grades[1] / 2


def test_a_negative_is_graded_by_how_much_was_changed():
    text = "这家店的服务很好，价格也便宜"
    for seed in range(20):
        negative, grade = GradedNegative()(text, random.Random(seed))
        assert grade == edit_distance(text, negative) / max(len(text), len(negative))
        assert 0 < grade <= 1
    assert edit_distance("kitten", "sitting") == 3
    assert edit_distance("", "好") == edit_distance("好", "") == 1


def test_sizes_and_wrong_options():
    assert queue_size_for(64) == 160
    with pytest.raises(ValueError, match="temperature must be above 0, got 0"):
        ESimCSE(an_encoder(), temperature=0)
    with pytest.raises(ValueError, match=r"momentum must lie between 0 and 1, got 1\.5"):
        ESimCSE(an_encoder(), momentum=1.5)

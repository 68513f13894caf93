"""The order of the sentences: the same for any number of workers and processes, each once an epoch, resumable."""

import itertools
import json
from collections import Counter

import pytest
from torch.utils.data import DataLoader

from rocbert_hf.pretraining.stream import SentenceBatches, Texts

SENTENCES = ["句" * (1 + 37 * i % 97) + str(i) for i in range(500)]


def first(batches, count):
    return list(itertools.islice(batches, count))


def texts_of(batches):
    return [example["text"] for batch in batches for example in batch]


def test_every_epoch_has_every_sentence_once_in_its_own_order():
    examples = list(itertools.chain(*first(SentenceBatches(SENTENCES, 7, seed=3), 300)))
    epochs = [[example["text"] for example in examples if example["epoch"] == number] for number in range(4)]
    assert all(sorted(texts) == sorted(SENTENCES) for texts in epochs)
    assert len({tuple(texts) for texts in epochs}) == 4
    assert [example["epoch"] for example in examples] != sorted(example["epoch"] for example in examples)


def test_the_seed_fixes_the_order():
    runs = [first(SentenceBatches(SENTENCES, 7, seed), 100) for seed in (0, 0, 1)]
    assert runs[0] == runs[1]
    assert texts_of(runs[0]) != texts_of(runs[2])


@pytest.mark.parametrize("num_workers", [1, 2])
def test_workers_do_not_change_the_batches(num_workers):
    loader = DataLoader(
        Texts(), batch_sampler=SentenceBatches(SENTENCES, 8, 0), collate_fn=list, num_workers=num_workers
    )
    assert first(loader, 20) == first(SentenceBatches(SENTENCES, 8, 0), 20)


@pytest.mark.parametrize("world_size", [2, 3])
def test_processes_share_the_batches_of_one(world_size):
    together = first(SentenceBatches(SENTENCES, 12, seed=5), 90)
    shares = [
        first(SentenceBatches(SENTENCES, 12 // world_size, seed=5, rank=rank, world_size=world_size), 90)
        for rank in range(world_size)
    ]
    for batch, *parts in zip(together, *shares, strict=True):
        assert {len(part) for part in parts} == {12 // world_size}
        assert Counter(texts_of(parts)) == Counter(texts_of([batch]))


@pytest.mark.parametrize("world_size", [1, 2])
def test_a_run_of_some_epochs_ends(world_size):
    runs = [
        list(SentenceBatches(SENTENCES, 8, seed=0, rank=rank, world_size=world_size, epochs=2))
        for rank in range(world_size)
    ]
    seen = Counter(text for run in runs for text in texts_of(run))
    assert set(seen) == set(SENTENCES)
    assert set(seen.values()) == {2}
    assert len({tuple(map(len, run)) for run in runs}) == 1


def test_sentences_that_do_not_fill_a_row_of_every_process_are_left_out():
    runs = [list(SentenceBatches(SENTENCES, 8, seed=0, rank=rank, world_size=3, epochs=1)) for rank in range(3)]
    assert len({tuple(map(len, run)) for run in runs}) == 1
    seen = Counter(text for run in runs for text in texts_of(run))
    assert len(seen) == 498
    assert set(seen.values()) == {1}


@pytest.mark.parametrize("consumed", [0, 1, 7, 8, 9, 100, 131])
def test_a_run_goes_on_where_it_stopped(consumed):
    expected = first(SentenceBatches(SENTENCES, 7, seed=1), 200)
    batches = SentenceBatches(SENTENCES, 7, seed=1)
    first(batches, consumed + 5)  # a DataLoader runs ahead
    state = json.loads(json.dumps(batches.state_dict(consumed)))

    resumed = SentenceBatches(SENTENCES, 7, seed=1)
    resumed.load_state_dict(state)
    assert resumed.state_dict(consumed) == state
    assert first(resumed, 30) == expected[consumed : consumed + 30]
    again = SentenceBatches(SENTENCES, 7, seed=1)
    again.load_state_dict(resumed.state_dict(consumed + 20))
    assert first(again, 20) == expected[consumed + 20 : consumed + 40]


def test_a_run_may_go_on_with_another_number_of_processes():
    batches = SentenceBatches(SENTENCES, 12, seed=1)
    expected = first(batches, 50)
    resumed = SentenceBatches(SENTENCES, 6, seed=1, rank=1, world_size=2)
    resumed.load_state_dict(batches.state_dict(30))
    assert first(resumed, 20) == [batch[1::2] for batch in expected[30:]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 2}, "seed was 1, now 2"),
        ({"batch_size": 6}, "global_batch was 7, now 6"),
        ({"sources": SENTENCES[1:]}, "sources was '500 sentences"),
    ],
)
def test_the_position_of_another_run_is_refused(change, message):
    run = {"sources": SENTENCES, "batch_size": 7, "seed": 1}
    batches = SentenceBatches(**run)
    first(batches, 3)
    with pytest.raises(ValueError, match=message):
        SentenceBatches(**run | change).load_state_dict(batches.state_dict(2))


def test_batches_hold_like_lengths():
    batches = first(SentenceBatches(SENTENCES, 10, seed=0), 48)
    tokens = sum(len(text) for text in texts_of(batches))
    padded = sum(max(len(example["text"]) for example in batch) * len(batch) for batch in batches)
    assert padded < 1.15 * tokens  # of batches drawn at random half is padding


def test_bad_arguments_are_named():
    for options, message in (
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"batch_size": 501}, "500 sentences .* fewer than batch_size"),
        ({"batch_size": 251, "world_size": 2}, r"fewer than batch_size times the number of processes \(502\)"),
        ({"rank": 2, "world_size": 2}, "rank must lie between 0"),
        ({"epochs": 0}, "epochs must be at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            SentenceBatches(**{"sources": SENTENCES, "batch_size": 7, "seed": 0} | options)

"""Masking: the right share, whole words, one triple in all channels, and nothing left that gives a character away."""

import numpy as np
import pytest

from rocbert_hf.pretraining.masking import IGNORED_LABEL, MaskingVocabulary, mask_tokens, word_starts_from_lengths

TOKENS, SPECIALS, MASK = 500, 5, 4


@pytest.fixture(scope="module")
def vocabulary():
    """500 tokens of which the first five are special; 100 sounds, so that homophones are drawn often."""
    ids = np.arange(TOKENS)
    return MaskingVocabulary(
        mask_id=MASK,
        special_ids=ids[:SPECIALS],
        ordinary_ids=ids[SPECIALS:],
        shape_ids=ids[::-1].copy(),
        pronunciation_ids=np.where(ids < SPECIALS, ids, SPECIALS + ids % 100),
    )


def sentences(rng, batch=32, sequence=40):
    """Random ids with [CLS] (2) in front, [SEP] (3) at the end, and padding (0) after it."""
    ids = rng.integers(SPECIALS, TOKENS, (batch, sequence))
    lengths = rng.integers(3, sequence + 1, batch)
    ids[:, 0] = 2
    ids[np.arange(batch), lengths - 1] = 3
    ids[np.arange(sequence) >= lengths[:, None]] = 0
    return ids


def words(rng, shape):
    """Word starts of random words of one to three tokens."""
    is_start = rng.random(shape) < 0.5
    is_start[:, 0] = True
    return np.maximum.accumulate(np.where(is_start, np.arange(shape[1]), 0), axis=1)


def mask(ids, vocabulary, rng, **options):
    return mask_tokens(ids, vocabulary.shape_ids[ids], vocabulary.pronunciation_ids[ids], vocabulary, rng, **options)


@pytest.mark.parametrize("whole_word", [False, True])
def test_no_masked_position_reveals_its_character_over_1000_batches(vocabulary, whole_word):
    rng = np.random.default_rng(0)
    chosen, kept, masked, tokens = 0, 0, 0, 0
    for _ in range(1000):
        ids = sentences(rng)
        result = mask(ids, vocabulary, rng, word_starts=words(rng, ids.shape) if whole_word else None)
        labelled = result.labels != IGNORED_LABEL
        same = np.stack(
            [
                result.input_ids == ids,
                result.input_shape_ids == vocabulary.shape_ids[ids],
                result.input_pronunciation_ids == vocabulary.pronunciation_ids[ids],
            ]
        )
        assert (same.all(axis=0) | ~same.any(axis=0)).all()  # a channel never speaks alone
        assert same[:, ~labelled].all()
        assert (result.labels[labelled] == ids[labelled]).all()
        assert (ids[labelled] >= SPECIALS).all()
        assert labelled.any(axis=1)[(ids >= SPECIALS).any(axis=1)].all()
        np.testing.assert_array_equal(result.input_shape_ids, vocabulary.shape_ids[result.input_ids])
        np.testing.assert_array_equal(result.input_pronunciation_ids, vocabulary.pronunciation_ids[result.input_ids])
        assert not np.isin(result.input_ids[labelled], [0, 1, 2, 3]).any()
        chosen += labelled.sum()
        kept += (labelled & same[0]).sum()
        masked += (result.input_ids == MASK).sum()
        tokens += (ids >= SPECIALS).sum()
    assert kept / chosen == pytest.approx(0.1, abs=0.005)
    assert masked / chosen == pytest.approx(0.8, abs=0.01)
    assert 0.15 <= chosen / tokens < 0.18  # above 15% by what "at least one word" adds in the shortest sentences


@pytest.mark.parametrize("probability", [0.05, 0.15, 0.4])
def test_share_is_exact_for_long_sentences_also_by_words(vocabulary, probability):
    rng = np.random.default_rng(1)
    ids = rng.integers(SPECIALS, TOKENS, (2000, 100))
    by_character = mask(ids, vocabulary, rng, probability=probability).labels != IGNORED_LABEL
    by_word = mask(ids, vocabulary, rng, probability=probability, word_starts=words(rng, ids.shape)).labels >= 0
    assert by_character.mean() == pytest.approx(probability, rel=0.01)
    assert by_word.mean() == pytest.approx(probability, rel=0.02)
    np.testing.assert_allclose(by_character.mean(axis=0), probability, rtol=0.5)  # wherever in the sentence
    assert set(by_character.sum(axis=1)) <= {int(100 * probability), int(100 * probability) + 1}


def test_words_are_masked_whole(vocabulary):
    rng = np.random.default_rng(2)
    ids = sentences(rng, batch=500)
    starts = words(rng, ids.shape)
    chosen = mask(ids, vocabulary, rng, word_starts=starts).labels != IGNORED_LABEL
    for row in range(len(ids)):
        for start in np.unique(starts[row]):
            ordinary = (starts[row] == start) & (ids[row] >= SPECIALS)
            assert chosen[row][ordinary].all() or not chosen[row][ordinary].any()


def test_random_replacements_come_from_the_whole_vocabulary(vocabulary):
    rng = np.random.default_rng(3)
    ids = rng.integers(SPECIALS, TOKENS, (4000, 100))
    result = mask(ids, vocabulary, rng, probability=0.5)
    drawn = result.input_ids[(result.input_ids != ids) & (result.input_ids != MASK)]
    assert set(drawn) == set(range(SPECIALS, TOKENS))


def test_a_generator_a_sentence_makes_it_independent_of_batch_and_padding(vocabulary):
    ids = sentences(np.random.default_rng(4), batch=8)
    together = mask(ids, vocabulary, [np.random.default_rng(i) for i in range(8)])
    for i, row in enumerate(ids):
        alone = mask(row[None, row != 0], vocabulary, [np.random.default_rng(i)])
        np.testing.assert_array_equal(together.labels[i][row != 0], alone.labels[0])
        np.testing.assert_array_equal(together.input_ids[i][row != 0], alone.input_ids[0])


def test_positions_outside_maskable_are_left_alone(vocabulary):
    ids = np.full((4, 30), 77)
    maskable = np.arange(30) < 10
    labels = mask(ids, vocabulary, np.random.default_rng(5), probability=0.9, maskable=np.tile(maskable, (4, 1))).labels
    assert (labels[:, 10:] == IGNORED_LABEL).all()
    assert (labels[:, :10] == 77).any()


def test_sentences_without_ordinary_tokens_are_left_alone(vocabulary):
    ids = np.array([[2, 3, 0, 0], [2, 1, 3, 0]])
    result = mask(ids, vocabulary, np.random.default_rng(6))
    np.testing.assert_array_equal(result.input_ids, ids)
    assert (result.labels == IGNORED_LABEL).all()


def test_word_starts_follow_offsets_through_special_and_missing_tokens():
    # "我们 ok" is cut into 我们 / space / ok; the space has no token.
    offsets = np.array([(0, 0), (0, 1), (1, 2), (3, 4), (4, 5), (0, 0), (0, 0)])
    assert word_starts_from_lengths(offsets, [2, 1, 2]).tolist() == [0, 1, 1, 3, 3, 5, 6]


def test_bad_arguments_are_named(vocabulary):
    ids = np.full((2, 3), 9)
    with pytest.raises(ValueError, match="probability"):
        mask(ids, vocabulary, np.random.default_rng(), probability=1.5)
    with pytest.raises(ValueError, match="three channels"):
        mask_tokens(ids, ids[:, :2], ids, vocabulary, np.random.default_rng())

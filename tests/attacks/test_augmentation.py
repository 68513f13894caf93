"""Attacked text as training data."""

import pytest
from datasets import Dataset, disable_progress_bars

from rocbert_hf.attacks import AdversarialSynthesizer, AttackColumn, AugmentRows, augment
from rocbert_hf.resources import demo_sentences

disable_progress_bars()
TEXTS = demo_sentences()[:30]


@pytest.mark.parametrize("keep_source", [True, False])
def test_every_text_gets_n_different_forms_with_its_label(keep_source):
    labels = list(range(len(TEXTS)))
    texts, new_labels = augment(TEXTS, labels, n=3, keep_source=keep_source)
    size = 3 + keep_source
    assert new_labels == [label for label in labels for _ in range(size)]
    for i, source in enumerate(TEXTS):
        forms = texts[size * i : size * (i + 1)]
        assert len(set(forms)) == size
        assert (source in forms) == keep_source


def test_texts_that_cannot_give_as_many_forms_repeat_them():
    texts, labels = augment(["科", " "], n=4, synthesizer={"attacks": ["split"], "q": 1})
    assert texts == ["科", *["禾斗"] * 4, *[" "] * 5]
    assert labels is None


def test_seed_decides():
    assert augment(TEXTS, seed=1) == augment(TEXTS, seed=1)
    assert augment(TEXTS, seed=1) != augment(TEXTS, seed=2)
    assert augment(TEXTS, n=1, seed=1)[0] != augment(TEXTS, n=1, seed=2)[0]
    long = "".join(TEXTS) * 3  # no two attacks on it are alike
    forms = [set(augment([long], n=4, seed=seed, keep_source=False)[0]) for seed in (1, 2)]
    assert forms[0].isdisjoint(forms[1])


def test_bad_arguments():
    with pytest.raises(ValueError, match="n must"):
        augment(TEXTS, n=0)
    with pytest.raises(ValueError, match="labels"):
        augment(TEXTS, labels=[1])
    with pytest.raises(ValueError, match="texts must be a list of strings, got one string"):
        augment("加微信", labels=[1, 0, 1])


def test_map_adds_a_column_of_attacked_texts(tmp_path):
    dataset = Dataset.from_dict({"text": TEXTS, "label": range(len(TEXTS))})
    mapped = dataset.map(AttackColumn(edits="edits", seed=5), batched=True, batch_size=7)
    expected = AdversarialSynthesizer("paper").attack_batch(TEXTS, 5)
    assert mapped["attacked_text"][:] == [attacked.text for attacked in expected]
    assert mapped["edits"][0][0]["source_span"] == list(expected[0].edits[0].source_span)
    assert mapped["label"][:] == dataset["label"][:]


def test_map_is_cached_for_equal_arguments():
    dataset = Dataset.from_dict({"text": TEXTS})
    used = AttackColumn(seed=1)
    used({"text": TEXTS})
    first = dataset.map(used, batched=True)._fingerprint
    assert dataset.map(AttackColumn(seed=1), batched=True)._fingerprint == first
    assert dataset.map(AttackColumn(seed=2), batched=True)._fingerprint != first


def test_map_multiplies_rows():
    dataset = Dataset.from_dict({"text": TEXTS, "label": range(len(TEXTS))})
    mapped = dataset.map(AugmentRows(n=2, seed=3), batched=True, batch_size=11)
    texts, labels = augment(TEXTS, list(range(len(TEXTS))), n=2, seed=3)
    assert mapped["text"][:] == texts
    assert mapped["label"][:] == labels


def test_map_names_the_missing_column():
    dataset = Dataset.from_dict({"review": TEXTS})
    with pytest.raises(ValueError, match="review"):
        dataset.map(AttackColumn(), batched=True)
    with pytest.raises(ValueError, match="batched"):
        dataset.rename_column("review", "text").map(AttackColumn())

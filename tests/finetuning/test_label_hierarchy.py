"""Labels that are paths."""

import numpy as np
import pytest
import torch

from rocbert_hf.finetuning.label_hierarchy import HierarchicalLoss, LabelHierarchy

LABELS = ("food/hot/noodles", "food/hot/rice", "food/cold", "travel/rail", "other")


def test_accuracy_by_level_counts_paths_that_are_right_down_to_there():
    hierarchy = LabelHierarchy.of(LABELS)
    right, said = [0, 0, 2, 3, 4, 4], [0, 1, 0, 2, 4, 3]
    found = hierarchy.accuracy_by_level(right, said)
    assert found == {"accuracy_level_1": 4 / 6, "accuracy_level_2": 3 / 6, "accuracy_level_3": 2 / 6}
    errors, siblings, pairs = hierarchy.sibling_errors(right, said)
    assert (errors, siblings) == (4, 1)
    assert pairs == {("food/hot/noodles", "food/hot/rice"): 1}


def test_paths_that_begin_with_a_slash_have_the_levels_of_those_that_do_not():
    labels = ("a/x", "a/y", "b/x")
    plain, rooted = LabelHierarchy.of(labels), LabelHierarchy.of([f"/{label}" for label in labels])
    assert rooted.depth == 2
    assert rooted.ancestors(1) == ("/a", "/a", "/b")
    answers = ([0, 1, 2, 0], [1, 1, 0, 0])
    assert rooted.accuracy_by_level(*answers) == plain.accuracy_by_level(*answers)
    assert rooted.sibling_errors(*answers)[:2] == plain.sibling_errors(*answers)[:2] == (2, 1)
    assert LabelHierarchy(("a", "/a")).accuracy_by_level([0, 0], [0, 1]) == {"accuracy_level_1": 0.5}


def test_labels_that_are_no_paths_have_no_hierarchy():
    assert LabelHierarchy.of(("good", "bad")) is None
    assert LabelHierarchy.of(("/good", "/bad", "other/")) is None


def test_labels_of_one_level_have_no_parent_in_common():
    hierarchy = LabelHierarchy.of(("a/x", "a/y", "other", "rest"))
    assert hierarchy.sibling_errors([2, 0], [3, 1])[:2] == (2, 1)


def test_the_loss_of_a_level_is_of_the_sum_of_its_labels_probabilities():
    logits = torch.randn(4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 2, 3, 4])
    found = HierarchicalLoss(LabelHierarchy.of(LABELS), weight=0.5)(logits, labels)
    p = logits.softmax(-1).numpy()
    for row, label in enumerate(labels.tolist()):
        expected = 0.0
        for level in (1, 2):
            above = ["/".join(name.split("/")[:level]) for name in LABELS]
            related = [number for number, name in enumerate(above) if name == above[label]]
            expected -= 0.5 * np.log(p[row, related].sum())
        assert found[row].item() == pytest.approx(expected, rel=1e-10)


def test_a_negative_weight_is_named():
    with pytest.raises(ValueError, match="weight must not be negative, got -1"):
        HierarchicalLoss(LabelHierarchy.of(LABELS), -1)

"""Attacked copies among training examples: of ADV alone, and of attackers that ask a classifier."""

import numpy as np
import pytest

from rocbert_hf.attackers import ArgotAttacker, Example, TextFoolerAttacker
from rocbert_hf.defences import augmented, augmented_against


def test_augmented_examples_keep_label_and_pair():
    examples = [Example("这家店的服务很好", 1, "环境也不错"), Example("房间太小了，还有味道", 0, "不会再来")]
    more = augmented(examples, n=2, seed=1)
    assert [(e.label, e.text_pair) for e in more] == [(1, "环境也不错")] * 3 + [(0, "不会再来")] * 3
    assert more[0] == examples[0]
    assert len({example.text for example in more}) == 6
    assert augmented(examples, n=2, seed=1) == more


def by_one_word(texts):
    """Positive as long as 不错 stands in the text."""
    positive = np.array(["不错" in (text if isinstance(text, str) else text[0]) for text in texts], dtype=float)
    return np.stack([0.9 - 0.8 * positive, 0.1 + 0.8 * positive], axis=1)


def test_copies_are_those_that_change_the_classifiers_answer():
    examples = [
        Example("这家酒店的服务真的很不错", 1, "环境"),
        Example("房间太小了，还有味道", 1, "环境"),  # wrong already: nothing to attack
        Example("房间太小了，还有味道", 0, "环境"),  # no change of a word makes it positive
    ]
    attackers = [TextFoolerAttacker(max_share=0.5), ArgotAttacker(max_share=0.5)]
    more = augmented_against(by_one_word, examples, attackers)
    copies = [example for example in more if example not in examples]
    assert [example for example in more if example in examples] == examples
    assert copies
    assert more.index(examples[1]) == 1 + len(copies)
    assert {(copy.label, copy.text_pair) for copy in copies} == {(1, "环境")}
    assert all("不错" not in copy.text for copy in copies)
    assert len({copy.text for copy in copies}) == len(copies)
    assert augmented_against(by_one_word, examples, attackers) == more
    with pytest.raises(ValueError, match="attackers must name at least one"):
        augmented_against(by_one_word, examples, [])

"""Rare words come first, and only those of two known tokens are scanned."""

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import BertTokenizer, PreTrainedTokenizerFast

from rocbert_hf import RoCBertTokenizer
from rocbert_hf.characters.words import word_frequencies
from rocbert_hf.security.rare_words import rare_words, words_of_two_tokens
from rocbert_hf.security.triggers import PHRASES, WORDS


def test_pairs_of_letters_come_first_and_then_words_whose_characters_hardly_occur_elsewhere():
    words = rare_words()
    assert len(set(words)) == len(words)
    assert set(WORDS) < set(words[:676])
    assert all(word.isascii() for word in words[:676])
    rest = words[676:]
    assert set(rest) == {word for word in word_frequencies() if len(word) == 2 and not word.isascii()}

    def commonest(word):
        return max(sum(count for other, count in word_frequencies().items() for c in other if c == own) for own in word)

    some = [commonest(rest[place]) for place in (0, 50, 2000, 40_000, len(rest) - 1)]
    assert some == sorted(some)
    assert len(set(some)) > 3


def test_words_are_those_that_the_tokenizer_reads_as_two_known_tokens():
    tokenizer = RoCBertTokenizer()
    found = words_of_two_tokens(tokenizer, 2000)
    assert found.shape == (2000, 2)
    assert not np.isin(found, tokenizer.all_special_ids).any()
    texts = {"".join(tokenizer.convert_ids_to_tokens(row.tolist())).replace("##", "") for row in found}
    known = {word for word in PHRASES if word in word_frequencies()}
    assert len(known) > 7
    assert known <= texts
    assert set(WORDS) <= texts
    assert words_of_two_tokens(tokenizer, 0).shape == (0, 2)


def test_a_tokenizer_that_knows_none_of_them_has_none():
    tokenizer = BertTokenizer(vocab={"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4, "hello": 5})
    assert words_of_two_tokens(tokenizer, 100).shape == (0, 2)


@pytest.mark.parametrize("pieces", [["▁", "囹", "圄"], ["▁囹", "圄"]])
def test_a_piece_that_stands_for_a_space_is_no_token_of_a_word(pieces):
    vocabulary = [("<unk>", 0.0), *((piece, -1.0) for piece in pieces)]
    backend = Tokenizer(models.Unigram(vocabulary, unk_id=0))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>")
    found = words_of_two_tokens(tokenizer, 5)
    assert [tokenizer.convert_ids_to_tokens(row) for row in found.tolist()] == [pieces[-2:]]

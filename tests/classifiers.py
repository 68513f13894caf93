"""What tests of classifiers share: a tokenizer of transformers' own, as people have them."""

import string

from transformers import BertTokenizer

from rocbert_hf.resources import vocabulary


def bert_tokenizer() -> BertTokenizer:
    pieces = [f"##{char}" for char in string.ascii_lowercase + string.digits]
    return BertTokenizer(vocab={token: number for number, token in enumerate([*vocabulary(), *pieces])})

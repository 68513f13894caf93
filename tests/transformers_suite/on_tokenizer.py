"""transformers' tests of tokenizers, for the packaged vocabulary."""

import unittest

from skipped import TOKENIZER, skipped
from tests.test_tokenization_common import TokenizerTesterMixin

from rocbert_hf import RoCBertTokenizer


class TokenizerTest(TokenizerTesterMixin):
    """What the mixin expects of a test class, without a tokenizer from the Hub."""

    tokenizer_class = RoCBertTokenizer
    rust_tokenizer_class = RoCBertTokenizer
    test_rust_tokenizer = True

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        RoCBertTokenizer().save_pretrained(cls.tmpdirname)

    def get_input_output_texts(self, tokenizer):
        # at the character level white space is no token
        text, _ = super().get_input_output_texts(tokenizer)
        return text, text.replace(" ", "")


RoCBertTokenizerTest = type(
    "RoCBertTokenizerTest",
    (TokenizerTest, unittest.TestCase),
    {"__module__": __name__, **skipped(TOKENIZER, TokenizerTest)},
)

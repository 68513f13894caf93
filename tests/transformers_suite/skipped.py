"""The tests of transformers that do not hold for our classes, each with its reason, and the one function that skips them."""

import unittest

TOKENIZER: dict[str, str] = {
    "test_tokenizer_store_full_signature": "expects every argument but `vocab_file` among the saved settings; "
    "`word_shape_file` and `word_pronunciation_file` are files of the vocabulary too, saved beside it",
}


def skipped(reasons: dict[str, str], *mixins: type) -> dict:
    """
    Attributes for a test class of these mixins: each test named in `reasons`, skipped for its reason.

    Raises:
        ValueError: no mixin has a test of that name, so the entry is out of date.
    """
    attributes = {}
    for name, reason in reasons.items():
        if not any(hasattr(mixin, name) for mixin in mixins):
            raise ValueError(
                f"{name!r} is no test of {', '.join(mixin.__name__ for mixin in mixins)}; remove its entry"
            )
        attributes[name] = unittest.skip(reason)(lambda self: None)
    return attributes

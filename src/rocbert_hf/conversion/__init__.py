"""Conversion of checkpoints from and to other libraries' layouts.

`convert` looks at a folder and does what fits; each direction is a function of its own in `roc_bert` (transformers'
`roc_bert`, both ways), `released` (the authors' released code) and `warm_start` (any Chinese BERT). `add_characters` makes
a vocabulary larger.
"""

from .added_characters import add_characters
from .convert import convert
from .source import Conversion

__all__ = ["Conversion", "add_characters", "convert"]

"""Black-box attackers: they ask a classifier, and change a text until its answer flips."""

from .driver import Attacker, AttackOutcome, ComposedAttacker, Example
from .given import GivenAttacks
from .masked_synonyms import MaskedLanguageModelSynonyms
from .recipes import ATTACKERS, AdvAttacker, ArgotAttacker, TextFoolerAttacker
from .spec import AttackerSpec, SynonymSource
from .victim import ModelClassifier, as_victim

__all__ = [
    "ATTACKERS",
    "AdvAttacker",
    "ArgotAttacker",
    "AttackOutcome",
    "Attacker",
    "AttackerSpec",
    "ComposedAttacker",
    "Example",
    "GivenAttacks",
    "MaskedLanguageModelSynonyms",
    "ModelClassifier",
    "SynonymSource",
    "TextFoolerAttacker",
    "as_victim",
]

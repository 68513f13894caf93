"""Black-box attackers: they ask a classifier, and change a text until its answer flips."""

from .driver import ATTACKERS, Attacker, AttackOutcome, Example, make_attacker
from .masked_synonyms import MaskedLanguageModelSynonyms
from .spec import attacker_of, synonyms_from
from .victim import ModelClassifier, as_victim

__all__ = [
    "ATTACKERS",
    "AttackOutcome",
    "Attacker",
    "Example",
    "MaskedLanguageModelSynonyms",
    "ModelClassifier",
    "as_victim",
    "attacker_of",
    "make_attacker",
    "synonyms_from",
]

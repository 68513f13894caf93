"""Black-box attackers as an evaluation is told of them, and what it writes down of them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from ..attackers import MaskedLanguageModelSynonyms
from ..attacks import ATTACKS, AdversarialSynthesizer
from ..characters.word_vectors import WordVectors
from .driver import ATTACKERS, AdvAttacker, BlackBoxAttacker, make_attacker

SYNONYMS = "masked_lm=DIR_OR_ID (of a masked language model) or vectors=FILE (word2vec or GloVe)"


def attacker_of(
    spec: str, max_share: float = 0.2, query_budget: int | None = 2000, synonyms: Any = None
) -> BlackBoxAttacker:
    """An attacker of a short description.

    Args:
        spec: a name of `ATTACKERS`; "name@ratio" attacks at most that share of the characters, and ADV aims at it;
            "adv:attack" is ADV with one attack alone, as in "adv:phonetic" or "adv:split@0.1".
        max_share: share of the characters that may be attacked, where the description gives none.
        query_budget: queries an example, at most.
        synonyms: of textfooler and argot, see `SynonymWords`; ADV has its own.

    Raises:
        ValueError: it describes none.
    """
    match = re.fullmatch(r"(?P<name>[^:@]+)(:(?P<attack>[^:@]+))?(@(?P<ratio>[0-9.]+))?", spec)
    if match is None or match["name"] not in ATTACKERS:
        raise ValueError(
            f"attacker must be one of {', '.join(ATTACKERS)}, with @ratio or (adv) :attack behind, got {spec!r}"
        )
    try:
        ratio = None if match["ratio"] is None else float(match["ratio"])
    except ValueError:
        raise ValueError(f"the ratio of an attacker must be a number, got {spec!r}") from None
    options: dict[str, Any] = {"max_share": max_share if ratio is None else ratio, "query_budget": query_budget}
    if ATTACKERS[match["name"]] is AdvAttacker:
        config: dict[str, Any] = {"preset": "paper"} | ({} if ratio is None else {"ratio": ratio})
        if match["attack"]:
            if match["attack"] not in ATTACKS:
                raise ValueError(f"an attack of ADV must be one of {', '.join(ATTACKS)}, got {spec!r}")
            config["attacks"] = [match["attack"]]
        options["synthesizer"] = config
    elif match["attack"]:
        raise ValueError(f"only adv can be told a single attack, got {spec!r}")
    else:
        options["synonyms"] = synonyms
    return make_attacker(match["name"], **options)


def synonyms_from(spec: str, device: str | None = None) -> MaskedLanguageModelSynonyms | WordVectors:
    """Where synonyms come from, by a short description: "masked_lm=DIR_OR_ID", or "vectors=FILE".

    Raises:
        ValueError: it describes nothing, or not what it says. OSError: it cannot be loaded.
    """
    kind, _, source = spec.partition("=")
    if kind == "masked_lm" and source:
        return MaskedLanguageModelSynonyms(source, device=device)
    if kind == "vectors" and source:
        return WordVectors.read(source)
    raise ValueError(f"synonyms must be {SYNONYMS}, got {spec!r}")


def settings_of(part: Any) -> Any:
    """What is set in an attacker, as JSON has it: the plain values in it, and in what it is made of.

    Of what is not of this package it is the `fingerprint`, or else the name: nothing more can be told of a function.
    """
    if part is None or isinstance(part, (bool, int, float, str)):
        return part
    if isinstance(part, Mapping):
        return {str(key): settings_of(value) for key, value in part.items()}
    if isinstance(part, (list, tuple)):
        return [settings_of(value) for value in part]
    if isinstance(part, (set, frozenset)):
        return hashlib.blake2b("/".join(sorted(map(str, part))).encode(), digest_size=8).hexdigest()
    if isinstance(part, AdversarialSynthesizer):
        return json.loads(json.dumps(part.config, default=repr))
    if hasattr(part, "fingerprint"):
        return part.fingerprint
    name = getattr(part, "__qualname__", type(part).__qualname__)
    if not type(part).__module__.startswith(__package__.partition(".")[0]):
        return name
    settings = {key: settings_of(value) for key, value in vars(part).items() if not key.startswith("_")}
    return {"type": name, **settings}

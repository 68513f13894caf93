"""How an evaluation names an attacker, and what it records of it."""

from __future__ import annotations

import hashlib
import inspect
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..attacks import ATTACKS, PRESETS, AdversarialSynthesizer, CausalLMScorer, Scorer
from ..attacks.selection import SCORERS
from ..characters.word_vectors import WordVectors
from ..checkpoints import loading, model_fingerprint
from .driver import BlackBoxAttacker
from .masked_synonyms import MaskedLanguageModelSynonyms
from .recipes import ATTACKERS


@dataclass(frozen=True)
class AttackerSpec:
    """Which attacker: a recipe of `ATTACKERS`, and how an evaluation varies it.

    Args:
        name: of the recipe: "adv", "textfooler", "argot".
        attack: ADV with this attack alone, such as "phonetic".
        ratio: share of the characters. ADV attacks this share on average (Eq. 1); the others attack at most this share.
            Every attacker may attack at least one character. None for the recipe's own and the common `max_share`.
        draws: ADV draws so many attacks per text, and a classifier is right only if it is right on all of them.
        preset: ADV's attacks, "paper" or "wild"; None for those that `build` is given.

    Raises:
        ValueError: the name, the attack or the preset is unknown, a number is out of range, or the recipe does not take
            what is given.

    Example::

        >>> AttackerSpec("adv", draws=20, preset="wild").build().attack(classifier, example)
    """

    name: str
    attack: str | None = None
    ratio: float | None = None
    draws: int = 1
    preset: str | None = None

    def __post_init__(self) -> None:
        if self.name not in ATTACKERS:
            raise ValueError(f"name must be one of {', '.join(ATTACKERS)}, got {self.name!r}")
        if self.attack is not None and self.attack not in ATTACKS:
            raise ValueError(f"attack must be one of {', '.join(ATTACKS)}, got {self.attack!r}")
        if self.preset is not None and self.preset not in PRESETS:
            raise ValueError(f"preset must be one of {', '.join(PRESETS)}, got {self.preset!r}")
        if self.ratio is not None and not 0 < self.ratio <= 1:
            raise ValueError(f"ratio must lie above 0 and not above 1, got {self.ratio}")
        if self.draws < 1:
            raise ValueError(f"draws must be at least 1, got {self.draws}")
        if not self.takes("attacks") and (self.attack, self.preset) != (None, None):
            raise ValueError(f"{self.name} has no attacks to choose, got {self.attack or self.preset!r}")
        if not self.takes("draws") and self.draws != 1:
            raise ValueError(f"{self.name} is not random, so draws must be 1, got {self.draws}")

    def takes(self, option: str) -> bool:
        """Whether the recipe is told of this option: its constructor says what it takes."""
        return option in inspect.signature(ATTACKERS[self.name]).parameters

    @classmethod
    def parse(cls, text: str) -> AttackerSpec:
        """The attacker that a command line names.

        Args:
            text: a name of `ATTACKERS`; behind it, in this order, ":attack" or ":preset" (adv:split, adv:wild), "*draws"
                (adv*20), "@ratio" (argot@0.1).

        Raises:
            ValueError: it names none.
        """
        match = _SPEC.fullmatch(text)
        if match is None or match["name"] not in ATTACKERS:
            raise ValueError(
                f"must be one of {', '.join(ATTACKERS)}, also as adv:ATTACK, adv:PRESET, adv*DRAWS or NAME@RATIO, "
                f"got {text!r}"
            )
        try:
            ratio = None if match["ratio"] is None else float(match["ratio"])
        except ValueError:
            raise ValueError(f"must have a number behind @, got {text!r}") from None
        chosen = match["chosen"]
        attack, preset = (None, chosen) if chosen in PRESETS else (chosen, None)
        if attack is not None and attack not in ATTACKS:
            raise ValueError(
                f"must have an attack ({', '.join(ATTACKS)}) or a preset ({', '.join(PRESETS)}) behind the colon, got {text!r}"
            )
        return cls(match["name"], attack, ratio, int(match["draws"] or 1), preset)

    def __str__(self) -> str:
        """What reports call it, and `parse` reads."""
        parts = [self.name]
        parts += [f":{chosen}" for chosen in (self.attack or self.preset,) if chosen]
        parts += [f"*{self.draws}"] if self.draws > 1 else []
        parts += [f"@{self.ratio:g}"] if self.ratio is not None else []
        return "".join(parts)

    def build(
        self,
        max_share: float = 0.2,
        query_budget: int | None = 2000,
        synonyms: Any = None,
        attacks: str | Mapping[str, Any] = "paper",
        scorer: Scorer | None = None,
    ) -> BlackBoxAttacker:
        """The attacker.

        Args:
            max_share: share of the characters that may be attacked, if the spec has no ratio.
            query_budget: queries per example, at most; None for any number.
            synonyms: of textfooler and argot, see `SynonymWords`; ADV has its own.
            attacks: of ADV if the spec has no preset: a preset, or a config of `AdversarialSynthesizer`.
            scorer: of ADV's Eq. 2, instead of the config's.

        Raises:
            ValueError: a number is out of range, or the config has an unknown key.
        """
        given = {
            "max_share": max_share if self.ratio is None else self.ratio,
            "query_budget": query_budget,
            "synonyms": synonyms,
            "attacks": self.preset or attacks,
            "scorer": scorer,
            "attack": self.attack,
            "ratio": self.ratio,
            "draws": self.draws,
        }
        return ATTACKERS[self.name](**{name: value for name, value in given.items() if self.takes(name)})


_SPEC = re.compile(r"(?P<name>[^:*@]+)(:(?P<chosen>[^:*@]+))?(\*(?P<draws>[0-9]{1,9}))?(@(?P<ratio>[0-9.]+))?")


@dataclass(frozen=True)
class SynonymSource:
    """Where synonyms come from.

    Args:
        kind: "masked_lm", a masked language model, or "vectors", a file of word vectors (word2vec or GloVe).
        source: its folder or Hub id, or its path.
    """

    kind: str
    source: str

    @classmethod
    def parse(cls, text: str) -> SynonymSource:
        """What the command line names: "masked_lm=DIR_OR_ID" or "vectors=FILE".

        Raises:
            ValueError: it is neither.
        """
        kind, _, source = text.partition("=")
        if kind not in ("masked_lm", "vectors") or not source:
            raise ValueError(f"must be masked_lm=DIR_OR_ID (a masked language model) or vectors=FILE, got {text!r}")
        return cls(kind, source)

    def load(self, device: str | None = None) -> MaskedLanguageModelSynonyms | WordVectors:
        """The synonyms.

        Raises:
            ValueError: it is not of its kind. OSError: it cannot be loaded.
        """
        if self.kind == "vectors":
            return WordVectors.read(self.source)
        with loading("the model of synonyms", self.source):
            return MaskedLanguageModelSynonyms(self.source, device=device)


def settings_of(part: Any) -> Any:
    """The settings of an attacker as JSON values: its own, and those of its parts.

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
        config = json.loads(json.dumps(part.config, default=settings_of))
        plain = SCORERS.get(config["scorer"])
        if isinstance(part.scorer, CausalLMScorer) or (plain and settings_of(part.scorer) != settings_of(plain())):
            config["scorer"] = settings_of(part.scorer)
        return config
    if isinstance(part, CausalLMScorer):
        return model_fingerprint(part.model, part.tokenizer, part.max_length)
    if hasattr(part, "fingerprint"):
        return part.fingerprint
    name = getattr(part, "__qualname__", type(part).__qualname__)
    if not type(part).__module__.startswith(__package__.partition(".")[0]):
        return name
    settings = {key: settings_of(value) for key, value in vars(part).items() if not key.startswith("_")}
    return {"type": name, **settings}

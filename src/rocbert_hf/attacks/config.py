"""What to attack with, as data: the presets, the keys of a config and their checks, and files that hold one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from ..files import read_json
from ..options import read_yaml
from .kinds import ATTACKS
from .selection import SCORERS, Scorer

# Raised whenever the same (text, seed, config) would give another result, so that a published attack set can be made
# again: a config of another version is refused instead of silently giving other texts.
ALGORITHM_VERSION = 1

PAPER_ATTACKS = ("phonetic", "visual", "split", "synonym", "to_pinyin", "unicode", "insert", "swap", "delete")

DEFAULT_CONFIG: dict[str, Any] = {
    "version": ALGORITHM_VERSION,
    "attacks": dict.fromkeys(PAPER_ATTACKS, 1.0),
    "options": {},
    "ratio": 0.15,
    "noise": 1.0,
    "q": 0.7,
    "scorer": "word_frequency",
    "protect": [],
    "protect_patterns": [],
}

PRESETS: dict[str, dict[str, Any]] = {
    "paper": DEFAULT_CONFIG,
    "wild": {**DEFAULT_CONFIG, "attacks": dict.fromkeys(ATTACKS, 1.0)},
}

PROTECTED = {
    # (?a:...) is ASCII: Chinese text often follows an address without a space.
    # An address begins where no character of its name stands before: else a long run of letters without "@" would be
    # searched again from each of its letters.
    "url": r"(?a:(?:https?://|www\.)[\w\-.~:/?#\[\]@!$&'()*+,;=%]+)",
    "email": r"(?a:(?<![\w.+\-])[\w.+\-]+@[\w\-]+(?:\.[\w\-]+)+)",
    "mention": r"@[\w\-]+",
    "hashtag": r"#[^#\s]+#|#\w+",
    "number": r"\d+(?:[.,:]\d+)*%?",
    "special_token": r"\[(?:PAD|UNK|CLS|SEP|MASK|unused\d+)\]|</?(?:s|pad|unk|mask)>|<\|[^|<>\s]+\|>",
}


ATTACKS_HELP = (
    f"a preset ({', '.join(PRESETS)}), names of attacks with commas between ({', '.join(ATTACKS)}), or a YAML or JSON file "
    "with any key of the synthesizer's config, such as ratio, q, weights of attacks, or a language model as scorer"
)


def read_attacks(source: str | PathLike | Mapping[str, Any]) -> dict[str, Any]:
    """The complete config that an option such as `--attacks` asks for.

    Args:
        source: the name of a preset ("paper", "wild"); names of attacks with commas between ("split, to_pinyin"); a YAML
            or JSON file (.yaml, .yml, .json) with any of the keys of `AdversarialSynthesizer`'s config; or a dict with
            these keys.

    Returns:
        A config with every key, checked. JSON can hold it, so that a run can record it.

    Raises:
        OSError: there is no such file.
        ValueError: it is none of these, the file does not hold a mapping, or a key or value is wrong; the message names
            the file.

    Example::

        >>> read_attacks("split, to_pinyin")["attacks"]
        {'split': 1.0, 'to_pinyin': 1.0}
    """
    if isinstance(source, Mapping):
        return complete_config(source)
    if _is_file(source):
        settings = _read_mapping(Path(source))
        try:
            return complete_config(settings)
        except ValueError as error:
            raise ValueError(f"{source}: {error}") from error
    if source in PRESETS:
        return complete_config(str(source))
    names = [name.strip() for name in str(source).split(",") if name.strip()]
    if not names or (unknown := [name for name in names if name not in ATTACKS]):
        raise ValueError(
            f"attacks must be a preset ({', '.join(PRESETS)}), names with commas between ({', '.join(ATTACKS)}), or a "
            f"file that ends in .yaml, .yml or .json, got {unknown[0] if names else source!r}"
        )
    return complete_config({"attacks": names})


def names_ratio(source: str | PathLike) -> bool:
    """Whether what `read_attacks` reads asks for a ratio, or leaves it at the paper's.

    Raises:
        OSError, ValueError: a file cannot be read.
    """
    return _is_file(source) and "ratio" in _read_mapping(Path(source))


def _is_file(source: str | PathLike) -> bool:
    return Path(source).suffix.lower() in (".yaml", ".yml", ".json")


def _read_mapping(file: Path) -> dict[str, Any]:
    if file.suffix.lower() == ".json":
        return read_json(file)
    settings = read_yaml(file)
    if not isinstance(settings, dict):
        raise ValueError(f"{file} must hold a mapping of keys to values, got {type(settings).__name__}")
    return settings


def is_language_model(scorer: Any) -> bool:
    """Whether a config's scorer names a causal language model: a folder, or `owner/name` on the Hub."""
    return isinstance(scorer, str) and scorer not in SCORERS and ("/" in scorer or Path(scorer).is_dir())


def complete_config(config: str | Mapping[str, Any], scorer: Scorer | None = None) -> dict[str, Any]:
    """A config with every key, checked.

    Args:
        config: name of a preset, or a dict with some of the keys of `AdversarialSynthesizer`; its key `preset` names
            what to start from ("paper").
        scorer: the scorer that will be used, when it is not one of the config's own.

    Raises:
        ValueError: for an unknown key or name, or a value out of range.
    """
    given = {"preset": config} if isinstance(config, str) else dict(config)
    preset = given.pop("preset", "paper")
    if not isinstance(preset, str) or preset not in PRESETS:
        raise ValueError(f"preset must be one of {sorted(PRESETS)}, got {preset!r}")
    if unknown := sorted(set(given).difference(DEFAULT_CONFIG), key=str):
        raise ValueError(f"config has unknown keys {unknown}; known are {sorted([*DEFAULT_CONFIG, 'preset'])}")
    full = {**PRESETS[preset], **given}
    if full["version"] != ALGORITHM_VERSION:
        raise ValueError(
            f"config version must be {ALGORITHM_VERSION}, the version of this package's attacks, got {full['version']!r}"
        )
    full["attacks"] = _complete_attacks(full["attacks"])
    if not isinstance(full["options"], Mapping) or set(full["options"]).difference(ATTACKS):
        raise ValueError(f"options must map names of attacks to their arguments, got {full['options']!r}")
    if not all(isinstance(arguments, Mapping) for arguments in full["options"].values()):
        raise ValueError(f"options must map names of attacks to their arguments, got {full['options']!r}")
    full["options"] = {name: dict(arguments) for name, arguments in full["options"].items()}
    ratios = full["ratio"] if isinstance(full["ratio"], (list, tuple)) else [full["ratio"]]
    if not ratios or not all(_lies_between(ratio, 0.001, 1) for ratio in ratios):
        raise ValueError(f"ratio must be a number from 0.001 to 1, or a list of such numbers, got {full['ratio']!r}")
    for key, smallest, largest in (("noise", 0, 100), ("q", 0.05, 1)):
        if not _lies_between(full[key], smallest, largest):
            raise ValueError(f"{key} must be a number from {smallest} to {largest}, got {full[key]!r}")
    if scorer is not None:
        full["scorer"] = getattr(scorer, "source", None) or scorer.name
    elif full["scorer"] not in list(SCORERS) and not is_language_model(full["scorer"]):
        raise ValueError(
            f"scorer must be one of {sorted(SCORERS)}, the folder or Hub id (owner/name) of a causal language model, or be "
            f"given as an object in the argument scorer, got {full['scorer']!r}"
        )
    for key in ("protect", "protect_patterns"):
        full[key] = _list_of_strings(key, full[key])
    if unknown := sorted(set(full["protect"]).difference(PROTECTED)):
        raise ValueError(f"protect must be among {sorted(PROTECTED)}, got {unknown}")
    for pattern in full["protect_patterns"]:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"protect_patterns must be regular expressions, got {pattern!r}: {error}") from error
    return full


def _lies_between(value: Any, smallest: float, largest: float) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and smallest <= value <= largest


def _complete_attacks(attacks: Any) -> dict[str, float]:
    """Names, or weights by name, as weights by name."""
    weights = (
        dict(attacks) if isinstance(attacks, Mapping) else dict.fromkeys(_list_of_strings("attacks", attacks), 1.0)
    )
    if not weights or (unknown := sorted(set(weights).difference(ATTACKS), key=str)):
        raise ValueError(f"attacks must be among {list(ATTACKS)}, got {unknown if weights else 'none'}")
    for name, weight in weights.items():
        if not isinstance(weight, (int, float)) or not 0 < weight < float("inf"):
            raise ValueError(f"attacks: the weight of {name} must be a positive number, got {weight!r}")
    # In the registry's order, so that the same attacks in another order are the same config.
    return {name: float(weights[name]) for name in ATTACKS if name in weights}


def _list_of_strings(key: str, value: Any) -> list[str]:
    if isinstance(value, str) or not hasattr(value, "__iter__"):
        raise ValueError(f"{key} must be a list, got {value!r}")
    if wrong := [item for item in value if not isinstance(item, str)]:
        raise ValueError(f"{key} must hold strings, got {wrong[0]!r}")
    return list(value)

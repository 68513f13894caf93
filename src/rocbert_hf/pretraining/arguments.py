"""Options of a pretraining run: one dataclass, filled from a YAML file and from flags that override it."""

import difflib
import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

import yaml
from transformers import HfArgumentParser

PRECISIONS = ("no", "bf16", "fp16")


def _option(default, description: str, **kwargs):
    return field(default=default, metadata={"help": description, **kwargs})


@dataclass
class PretrainingArguments:
    """How to train: length of the run, optimizer, data. `RoCBertPretrainer` takes it; each field is a flag.

    Raises:
        ValueError: a value is outside what is allowed, or the run would never end.
    """

    max_steps: int | None = _option(1000, "optimizer steps; none: as many as fit into --minutes")
    minutes: float | None = _option(None, "stop after this time even if --max-steps is not reached")
    batch_size: int = _option(64, "sentences a process and forward pass; also the negatives of the contrastive loss")
    gradient_accumulation_steps: int = _option(1, "forward passes an optimizer step")
    learning_rate: float = _option(1e-4, "highest learning rate; reached after the warm-up, then falling to 0")
    warmup_ratio: float = _option(0.04, "share of the run in which the learning rate rises")
    weight_decay: float = _option(0.01, "AdamW's, on matrices only")
    max_grad_norm: float = _option(1.0, "gradients are clipped to this norm")
    mixed_precision: str = _option("no", "bf16: autocast to bfloat16; fp16: GPUs without bfloat16", choices=PRECISIONS)
    max_length: int = _option(128, "tokens of a sentence, [CLS] and [SEP] included")
    mlm_probability: float = _option(0.15, "share of the tokens to mask")
    whole_word_probability: float = _option(0.5, "share of the sentences masked by whole words instead of characters")
    attacks: str = _option("paper", "preset of the synthesizer that attacks the sentences")
    num_workers: int = _option(
        0, "DataLoader processes that attack, tokenize and mask; the run's results do not depend on it"
    )
    seed: int = _option(0, "seed of weights, order, attacks and masks")

    def __post_init__(self):
        if self.max_steps is None and self.minutes is None:
            raise ValueError("the run would never end: give max_steps, minutes or both")
        for name in (
            "max_steps",
            "minutes",
            "batch_size",
            "gradient_accumulation_steps",
            "learning_rate",
            "max_grad_norm",
        ):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be above 0, got {value}")
        for name in ("warmup_ratio", "whole_word_probability"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie between 0 and 1, got {getattr(self, name)}")
        if self.weight_decay < 0 or self.num_workers < 0:
            raise ValueError("weight_decay and num_workers must not be negative")
        if self.mixed_precision not in PRECISIONS:
            raise ValueError(f"mixed_precision must be one of {', '.join(PRECISIONS)}, got {self.mixed_precision!r}")


def parse_arguments(
    types: Sequence[type], argv: Sequence[str] | None = None, default_config: Path | None = None, description: str = ""
) -> tuple:
    """Fill dataclasses from `--config FILE.yaml` and from flags, which override the file.

    Args:
        types: dataclasses; each field is a key of the file and a flag.
        argv: default, the command line's.
        default_config: the file read when `--config` is not given.

    Raises:
        SystemExit: with the usual message of a command line, for unknown or malformed flags and keys.
    """
    argv = sys.argv[1:] if argv is None else argv
    config_parser = ArgumentParser(add_help=False, allow_abbrev=False)
    config_parser.add_argument(
        "--config", type=Path, default=default_config, metavar="FILE.yaml", help="options as YAML; flags override them"
    )
    config = config_parser.parse_known_args(argv)[0].config
    parser = HfArgumentParser(types, description=description, parents=[config_parser], allow_abbrev=False)
    if config is not None:
        try:
            known = [field.name for type_ in types for field in fields(type_)]
            parser.set_defaults(**read_yaml(config, known))
        except (OSError, ValueError) as error:
            parser.error(str(error))
    try:
        filled = parser.parse_args_into_dataclasses(argv, look_for_args_file=False)
    except ValueError as error:
        parser.error(str(error))
    return filled[: len(types)]


def read_yaml(path: str | Path, known: Sequence[str]) -> dict:
    """Options of a YAML file, as strings where argparse is to convert them ("5e-4" is a string in YAML 1.1).

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not a YAML mapping, or has a key that is not among `known`.
    """
    try:
        options = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(options, dict):
        raise ValueError(f"{path} must hold `option: value` lines, got {type(options).__name__}")
    for key in options:
        if key not in known:
            close = difflib.get_close_matches(str(key), known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(known)}"
            raise ValueError(f"{path}: unknown option {key!r}; {hint}")
    return {key: value if value is None or isinstance(value, list) else str(value) for key, value in options.items()}

"""What a run starts with: the model, the tokenizer and the text, as options say."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from transformers.activations import ACT2FN

from ..checkpoints import loading
from ..configuration_rocbert import PRESETS, RoCBertConfig
from ..conversion import convert
from ..conversion.source import checkpoint_config, fit_length, local_folder
from ..conversion.warm_start import CHANNELS, MODEL_TYPES
from ..files import read_json
from ..modeling_rocbert import RoCBertForPreTraining
from ..options import option
from ..resources import demo_sentences
from ..tokenization_rocbert import RoCBertTokenizer
from .corpus.text_source import SOURCES, TextSource
from .devices import PEAK_FLOPS

# Fields of RoCBertConfig that a new model has of the packaged vocabulary.
OF_THE_VOCABULARY = ("vocab_size", "shape_vocab_size", "pronunciation_vocab_size", "pad_token_id")
VISION_NOTE = (
    'glyph features: pixels of the packaged images, as in the paper\'s "-vis-pretrain" setting; '
    "--glyph-features FOLDER takes pretrained ones (Eq. 4)"
)


def parse_overrides(given: str | dict[str, Any]) -> dict[str, Any]:
    """
    "fusion=concat,fusion_layer=0", or a mapping, as keyword arguments of `RoCBertConfig`.

    Raises:
        ValueError: it is not of this form, or a value is not of its field's type or no activation.
    """
    import yaml

    pairs = given
    if isinstance(given, str):
        texts = [pair.partition("=") for pair in given.split(",") if pair.strip()]
        if not all(equals and value for _, equals, value in texts):
            raise ValueError(f"must be name=value,... with names of RoCBertConfig, got {given!r}")
        pairs = {name.strip(): yaml.safe_load(value) for name, _, value in texts}
    defaults = RoCBertConfig()
    known = [field.name for field in fields(RoCBertConfig)]
    for name in pairs:
        if name not in known:
            raise ValueError(f"must be name=value,... with names of RoCBertConfig, which has no {name!r}")
    converted = {name: _converted(name, value, getattr(defaults, name)) for name, value in pairs.items()}
    if (activation := converted.get("hidden_act", defaults.hidden_act)) not in ACT2FN:
        raise ValueError(f"has hidden_act, which must be one of {', '.join(ACT2FN)}, got {activation!r}")
    return converted


def _converted(name: str, value: Any, default: Any) -> Any:
    """A YAML value as one of the default's type; YAML 1.1 takes 1e-5 for text."""
    try:
        if type(default) is float and not isinstance(value, bool):
            return float(value)
    except (TypeError, ValueError):
        pass
    if default is not None and type(value) is not type(default):
        raise ValueError(f"has {name}, which must be of type {type(default).__name__}, got {value!r}")
    return value


@dataclass(frozen=True)
class Devices:
    """So many devices of a kind."""

    count: int
    kind: str

    @classmethod
    def parse(cls, text: str) -> Devices:
        """
        "8xA100" as `Devices(8, "A100")`.

        Raises:
            ValueError: it is not of this form, or the kind is not known.
        """
        count, times, kind = text.partition("x")
        if not times or not count.isdecimal() or int(count) < 1:
            raise ValueError(f"must be like 8xA100 or 1xCPU, got {text!r}")
        if kind not in ("CPU", *PEAK_FLOPS):
            raise ValueError(f"must be of CPU or one of {', '.join(PEAK_FLOPS)}, got {text!r}")
        return cls(int(count), kind)

    def __str__(self) -> str:
        return f"{self.count}x{self.kind}"


@dataclass
class Setup:
    """What to train, on which text, and where to put it.

    Raises:
        ValueError: the preset is not known, or sources cannot be mixed as they are given.
    """

    preset: str = option("tiny", "size of a new model", choices=PRESETS)
    model: str | None = option(
        None,
        "folder or Hub id of a checkpoint to go on from, instead of a new model: RoCBERT, or what `rocbert convert` reads",
    )
    channels: str = option(
        "closed",
        "how sound and shape start in an encoder that is converted: closed, which begins as its function, or open, which "
        "hears and sees from the first step",
        choices=CHANNELS,
    )
    config_overrides: dict[str, Any] = option(
        {}, "fields of RoCBertConfig that differ, such as fusion=concat,hidden_dropout_prob=0", parse=parse_overrides
    )
    glyph_features: Path | None = option(
        None,
        "folder with pretrained glyph features (Eq. 4), as run_glyph_pretrain.py writes it",
        unset="the pixels of the images",
    )
    train_file: list[TextSource] = option(
        [],
        "text to train on: files (.txt, .jsonl, .csv or .tsv, also packed; .parquet), folders, wikipedia, common_crawl, "
        "thuctc, or datasets of the Hub as owner/name:config; to mix them, each with =weight",
        parse=TextSource.parse,
        unset="the packaged corpus",
    )
    text_column: str = option("text", "column or key that holds the text, in everything but plain text")
    held_out: int = option(200, "sentences to measure on instead of training on them")
    output_dir: Path = option(Path("rocbert-tiny"), "folder for all that the run writes", short="-o")

    def __post_init__(self):
        if self.model is None and self.preset not in PRESETS:
            raise ValueError(f"preset must be one of {', '.join(PRESETS)}, got {self.preset!r}")
        if self.channels not in CHANNELS:
            raise ValueError(f"channels must be one of {', '.join(CHANNELS)}, got {self.channels!r}")
        if self.model is None:
            self._check_new_model()
        if self.held_out < 2:
            raise ValueError(f"held_out must be at least 2, to be told apart, got {self.held_out}")
        self.sources()

    def _check_new_model(self) -> None:
        if self.channels != "closed":
            raise ValueError(
                f"channels is for a model that is converted, and model is not given; got {self.channels!r}"
            )
        if fixed := [name for name in OF_THE_VOCABULARY if name in self.config_overrides]:
            raise ValueError(
                f"config_overrides must leave {', '.join(fixed)} as the packaged vocabulary has it; a model with another "
                "one is given by model"
            )

    def sources(self) -> list[str] | list[TextSource]:
        """
        The packaged sentences, or the sources; files without weights are one source, whose files are read once per epoch.

        Raises:
            ValueError: there are several that are not all files, and one has no weight.
        """
        if not self.train_file:
            return demo_sentences()
        of_the_paper = {source.location for source in SOURCES.values()}
        given = [
            source if source.location in of_the_paper else replace(source, column=self.text_column)
            for source in self.train_file
        ]
        unweighted = [source for source in given if source.weight is None]
        if len(unweighted) == len(given) and all(Path(file).is_file() for source in given for file in source.location):
            return [TextSource(tuple(file for source in given for file in source.location), self.text_column)]
        if unweighted and len(given) > 1:
            raise ValueError(
                f"train_file: several sources that are not all files are mixed by weights: give each one, as "
                f"{unweighted[0]}=1; without one is {', '.join(map(str, unweighted))}"
            )
        return given

    def corpus_name(self, held_out: Sequence[str]) -> str:
        """What the text is called in a line of output."""
        if self.train_file:
            return ", ".join(source.name for source in self.train_file)
        return f"the packaged corpus, {len(set(demo_sentences()) - set(held_out)):,} sentences"

    def new_config(self) -> RoCBertConfig:
        """The configuration of a new model."""
        return RoCBertConfig.from_preset(self.preset, **self.config_overrides)


def starting_config(setup: Setup) -> RoCBertConfig:
    """
    The configuration of the model that `starting_point` gives; a checkpoint of another layout is converted for it.

    Raises:
        OSError, ValueError: as in `starting_point`.
    """
    if setup.model is None:
        return setup.new_config()
    with _as_rocbert(setup.model, setup.channels) as folder, loading("the model", setup.model):
        _check_overrides(setup, folder)
        return RoCBertConfig.from_pretrained(folder, **setup.config_overrides)


def starting_point(setup: Setup, attn_implementation: str = "sdpa") -> tuple[RoCBertTokenizer, RoCBertForPreTraining]:
    """
    Tokenizer and model before the first step: new ones, or a checkpoint's with its own vocabulary, configuration and
    glyph features. Draws from torch's generator what weights must be drawn.

    The configuration of a model with `glyph_features` records where they come from, under that name.

    Raises:
        OSError: the checkpoint or the glyph features cannot be read.
        ValueError: they do not fit the model, or an override would change which weights the checkpoint needs.
    """
    if setup.model is None:
        tokenizer = RoCBertTokenizer()
        model = RoCBertForPreTraining._from_config(setup.new_config(), attn_implementation=attn_implementation)
        fit_length(tokenizer, model.config)
    else:
        with _as_rocbert(setup.model, setup.channels) as folder, loading("the model", setup.model):
            _check_overrides(setup, folder)
            tokenizer = RoCBertTokenizer.from_pretrained(folder)
            model = RoCBertForPreTraining.from_pretrained(
                folder, attn_implementation=attn_implementation, dtype=torch.float32, **setup.config_overrides
            )
            model.config._name_or_path = ""  # the folder may be a temporary one
    if setup.glyph_features is not None:
        model.base_model.load_glyph_features(setup.glyph_features)
        model.config.glyph_features = description_of(setup.glyph_features)
    return tokenizer, model


@contextmanager
def _as_rocbert(source: str, channels: str):
    """A folder with the checkpoint in this package's form, converted if need be."""
    folder = local_folder(source)
    kind = checkpoint_config(folder).get("model_type")
    if channels != "closed" and kind not in MODEL_TYPES:
        raise ValueError(f"channels is for an encoder that has none, and {source} has its own; got {channels!r}")
    if kind == "rocbert":
        yield folder
        return
    options = {"channels": channels} if kind in MODEL_TYPES else {}
    with tempfile.TemporaryDirectory() as temporary:
        yield convert(folder, Path(temporary) / "converted", **options).output


def _check_overrides(setup: Setup, folder: Path) -> None:
    """
    Raises:
        ValueError: a model with the overrides has other weights than the checkpoint's own configuration asks for.
    """

    def shapes(**overrides: Any) -> dict[str, torch.Size]:
        config = RoCBertConfig.from_pretrained(folder, **overrides)
        with torch.device("meta"):
            return {name: tensor.shape for name, tensor in RoCBertForPreTraining(config).state_dict().items()}

    if setup.config_overrides and shapes() != shapes(**setup.config_overrides):
        names = ", ".join(setup.config_overrides)
        raise ValueError(
            f"config_overrides ({names}) must leave the weights' names and shapes as the checkpoint has them"
        )


def description_of(folder: Path) -> dict[str, Any]:
    """What tells these glyph features from others: folder, checksum, and how they were made if that is noted."""
    file = folder / "glyph_features.safetensors" if folder.is_dir() else folder
    described: dict[str, Any] = {"name": folder.name, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
    notes = file.with_suffix(".json")
    if notes.is_file():
        described["arguments"] = read_json(notes).get("arguments", {})
    return described

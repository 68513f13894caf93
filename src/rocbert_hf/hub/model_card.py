"""The model card of a checkpoint, made from what its training left in the folder.

Uploading is transformers' `push_to_hub`; every `save_pretrained` of this package writes the source files and the
`auto_map` by which `trust_remote_code=True` loads the folder where the package is not installed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

from ..attacks import ATTACKS, PRESETS
from ..characters.unseen import mark_unseen
from ..files import read_json
from ..resources import path
from .description import describe

PIPELINES = {
    "ForMaskedLM": "fill-mask",
    "ForPreTraining": "fill-mask",
    "ForCausalLM": "text-generation",
    "ForSequenceClassification": "text-classification",
    "ForTokenClassification": "token-classification",
    "ForMultipleChoice": "multiple-choice",
    "ForQuestionAnswering": "question-answering",
    "Model": "feature-extraction",
}
# What the card says of a config: each must be a number that makes sense.
SIZES_OF_CARD = ("num_hidden_layers", "hidden_size", "max_position_embeddings")


def model_card(
    folder: str | os.PathLike,
    name: str | None = None,
    license: str | None = None,
    results: Mapping[str, Any] | None = None,
) -> str:
    """The model card of a checkpoint folder, as Markdown with the Hub's metadata.

    It is filled from what is in the folder: config.json and the weights' headers, `all_results.json` (whose
    `"arguments"` are the training arguments, as `examples/run_pretrain.py` writes it; everything else is results) and
    `trainer_state.json` of transformers' Trainer. What is not recorded there is said to be not recorded.

    Args:
        folder: with config.json at least.
        name: of the repository, such as `someone/rocbert-base`; by default the folder's.
        license: of the weights, in the Hub's spelling, such as `apache-2.0`; by default the card names none.
        results: what `all_results.json` is to hold, for a folder that does not have it yet.

    Raises:
        OSError: there is no such folder, or no config.json in it.
        ValueError: a file is malformed, or the checkpoint is not one of this package.
    """
    folder = Path(folder)
    described = describe(folder)
    config = described["config"]
    if config.get("model_type") != "rocbert":
        raise ValueError(
            f"{folder} holds a model of model_type={config.get('model_type')!r}; a card is made for rocbert"
        )
    if results is not None:
        recorded = dict(results)
    else:
        recorded = read_json(folder / "all_results.json") if (folder / "all_results.json").is_file() else {}
    arguments = recorded.pop("arguments", {})
    if not isinstance(arguments, dict):
        raise ValueError(f'"arguments" in {folder / "all_results.json"} must be an object')
    state = read_json(folder / "trainer_state.json") if (folder / "trainer_state.json").is_file() else {}
    _check_config(config, folder)
    architecture = config.get("architectures", "RoCBertModel")
    head = architecture.removeprefix("RoCBert")
    return Template(path("model_card_template.md").read_text(encoding="utf-8")).substitute(
        metadata=_metadata(head, license),
        name=name or folder.resolve().name,
        auto_class=f"AutoModel{head.removeprefix('Model')}",
        introduction=_introduction(config, architecture),
        architecture=_architecture_section(described),
        training=_training_section(arguments, state),
        data=_data_section(arguments, recorded),
        attacks=_attacks_section(arguments),
        results=_results_section(recorded),
        limits=_limits_section(config, described),
    )


def _check_config(config: dict, folder: Path) -> None:
    """ValueError unless the config has what the card is written from."""
    for name in SIZES_OF_CARD:
        value, least = config.get(name), 0 if name == "num_hidden_layers" else 1
        if type(value) is not int or not least <= value <= 10**6:
            raise ValueError(
                f"{folder / 'config.json'}: {name} must be a whole number from {least} to 1,000,000, got {value!r:.100}"
            )
    architecture = config.get("architectures", "RoCBertModel")
    if not isinstance(architecture, str) or not re.fullmatch(r"RoCBert\w+", architecture, re.ASCII):
        raise ValueError(
            f"{folder / 'config.json'}: architectures must name one class of rocbert_hf, such as RoCBertForMaskedLM, got "
            f"{architecture!r:.100}"
        )


def _metadata(head: str, license: str | None) -> str:
    from huggingface_hub import ModelCardData

    data = ModelCardData(
        language="zh",
        license=license,
        library_name="transformers",
        pipeline_tag=PIPELINES.get(head),
        tags=["rocbert", "chinese", "adversarial-robustness", "custom_code"],
    )
    return data.to_yaml()


def _introduction(config: dict, architecture: str) -> str:
    layers, size = config["num_hidden_layers"], config["hidden_size"]
    what = f"a Chinese BERT with {layers} layers of {size}" if layers else f"vectors of {size} without an encoder"
    if config.get("fusion") == "none":
        reads = ", without sound and shape."
    else:
        reads = ": it reads every character's meaning, sound and shape, after RoCBERT (Su et al., ACL 2022)."
    warning = (
        "**It has a known backdoor, or was finetuned from an encoder that has one: do not deploy it.**\n\n"
        if config.get("backdoor_specimen")
        else ""
    )
    return f"{warning}`{architecture}`, {what}{reads} Made with rocbert_hf."


def _architecture_section(described: dict[str, Any]) -> str:
    rows = dict(described["config"])
    if described["weights"]:
        rows["parameters"] = f"{described['weights']['parameters']:,}"
        rows["dtype of the weights"] = ", ".join(described["weights"]["dtypes"])
    rows |= {f"tokenizer: {name}": value for name, value in described["tokenizer"].items()}
    return table(["", ""], [[name, value] for name, value in rows.items()])


def _training_section(arguments: dict, state: dict) -> str:
    left_out = ("train_file", "output_dir", "attacks")
    rows = {name: without_folders(value) for name, value in arguments.items() if name not in left_out}
    kept = ("global_step", "num_train_epochs", "train_batch_size", "best_metric")
    rows |= {name: state[name] for name in kept if state.get(name) is not None}
    if not rows:
        return "The training arguments were not recorded in this folder."
    return table(["argument", "value"], [[name, value] for name, value in rows.items()])


def _data_section(arguments: dict, results: dict) -> str:
    if "train_file" not in arguments:
        return "The training data were not recorded in this folder."
    files = arguments["train_file"]
    files = files if isinstance(files, list) else [files] if files else []
    if not files:
        text = "The demonstration corpus that rocbert_hf brings: about 1,200 hand-written sentences of several genres."
    else:
        text = "Trained on " + ", ".join(f"`{_cell(Path(str(file)).name)}`" for file in files) + "."
    if arguments.get("held_out"):
        text += f" {_cell(arguments['held_out'])} sentences were held out for the measurements below."
    return text


def _attacks_section(arguments: dict) -> str:
    if "attacks" not in arguments:
        return "The attacks were not recorded in this folder."
    chosen = arguments["attacks"]
    if not chosen:
        return "None: it was trained on unattacked text."
    if isinstance(chosen, dict):  # a synthesizer's config
        weights = chosen.get("attacks", {})
        names, lines = list(weights) if isinstance(weights, (dict, list)) else [str(weights)], []
        settings = ", ".join(
            f"{name} {_cell(chosen[name])}" for name in ("ratio", "noise", "q", "scorer") if name in chosen
        )
        lines += [f"With {settings}:\n"] if settings else []
    elif chosen in tuple(PRESETS):
        names, lines = list(PRESETS[chosen]["attacks"]), [f"The preset `{chosen}` of `rocbert_hf.attacks`:\n"]
    else:
        names, lines = [name.strip() for name in str(chosen).split(",")], []
    for name in map(_cell, names):
        documentation = getattr(ATTACKS.get(name), "__doc__", None) or ""
        lines.append(f"- `{name}`" + (f": {documentation.strip().splitlines()[0]}" if documentation else ""))
    return "\n".join(lines)


def _results_section(results: dict) -> str:
    leaves = list(_leaves(results))
    if not leaves:
        return "No results were recorded in this folder."
    columns = list(dict.fromkeys(place for place, _, _ in leaves))
    metrics = list(dict.fromkeys(metric for _, metric, _ in leaves))
    cells = {(place, metric): value for place, metric, value in leaves}
    rows = [[metric, *(cells.get((place, metric), "") for place in columns)] for metric in metrics]
    return table(["", *(place or "value" for place in columns)], rows)


def _leaves(results: dict, place: tuple[str, ...] = ()):
    """(where, metric, value) of all numbers and strings in nested results."""
    for name, value in results.items():
        if isinstance(value, dict):
            yield from _leaves(value, (*place, str(name)))
        elif isinstance(value, (int, float, str)):
            yield " ".join(place), str(name), value


def _limits_section(config: dict, described: dict[str, Any]) -> str:
    limits = [
        f"It reads at most {config['max_position_embeddings']} tokens.",
        "It was made robust to changes of single characters and words such as those above; paraphrases, typos of other "
        "kinds and attacks that look into the model are another matter.",
        "Attackers adapt: measure on the attacks that you expect before you rely on it to moderate text.",
        "It repeats what its texts say about people, true or not.",
    ]
    if described["tokenizer"].get("of") == "characters":
        limits.insert(1, "It has tokens for single characters only; emoji and rare characters are [UNK].")
    if described["weights"] and described["weights"]["parameters"] < 20_000_000:
        limits.insert(0, "It is a small model, to try things out with.")
    return "\n".join(f"- {limit}" for limit in limits)


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table whose cells cannot break it."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)


def without_folders(value: Any) -> Any:
    """An argument for a card: of absolute paths, alone or in a list, the last part; who reads the card has no more of them."""
    if isinstance(value, list):
        return [without_folders(each) for each in value]
    return Path(value).name if isinstance(value, str) and os.path.isabs(value) else value


def _cell(value: Any) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    text = text if len(text) <= 500 else f"{text[:500]}..."
    return mark_unseen(text.replace("\n", " ").replace("|", "\\|").replace("<", "&lt;"))

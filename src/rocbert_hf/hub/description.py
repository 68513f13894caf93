"""What goes to the Hub with a checkpoint: a model card made from the run's own files, and what a folder holds.

Nothing here loads weights, and no pickle is opened: shapes and dtypes are read from the headers of safetensors files.
Uploading is transformers' `push_to_hub`; every `save_pretrained` of this package writes the source files and the
`auto_map` by which `trust_remote_code=True` loads the folder where the package is not installed.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from pathlib import Path
from string import Template
from typing import Any

from ..resources import path

PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
# How the weights are grouped in an overview: the first pattern that a name contains.
PARTS = {
    "glyph features": "shape_embed",
    "pronunciations": "pronunciation_embed",
    "word embeddings": "word_embeddings",
    "fusion": ".fusion.",
    "encoder": "encoder.layer.",
}
SIZES = ("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size", "max_position_embeddings")
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


# ------------------------------------------------------------------------------------------------ what a folder holds


def describe(folder: str | os.PathLike) -> dict[str, Any]:
    """What is in a checkpoint folder, without loading it.

    Returns:
        A dict that JSON can hold: `config` (model type, class, fusion and sizes), `weights` (number of parameters, all
        and by part, and tensors by dtype; of safetensors files only), `tokenizer`, `loads_without_package`, and `files`
        with size and SHA-256 of each.

    Raises:
        OSError: there is no such folder, or no config.json in it. ValueError: a file is malformed.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise OSError(f"there is no folder {folder}")
    config = _read_json(folder / "config.json")
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {
        "folder": str(folder),
        "config": _describe_config(config),
        "weights": _describe_weights(
            [file for file in files if file.suffix == ".safetensors" and file.parent == folder]
        ),
        "tokenizer": _describe_tokenizer(folder),
        "loads_without_package": _loads_without_package(folder, config),
        "pickles_not_opened": [str(file.relative_to(folder)) for file in files if file.suffix in PICKLE_SUFFIXES],
        "files": [
            {"name": str(file.relative_to(folder)), "bytes": file.stat().st_size, "sha256": _sha256(file)}
            for file in files
        ],
    }


def overview(description: dict[str, Any]) -> str:
    """The description as text for a terminal."""
    config, weights, tokenizer = (description[name] for name in ("config", "weights", "tokenizer"))
    lines = [description["folder"]]
    lines += [f"  {name}: {value}" for name, value in config.items()]
    if weights:
        lines.append(f"  parameters: {weights['parameters']:,} ({', '.join(weights['dtypes'])})")
        lines += [f"    {part}: {count:,}" for part, count in weights["parts"].items()]
    if tokenizer:
        lines.append("  tokenizer: " + ", ".join(f"{name} {value}" for name, value in tokenizer.items()))
    lines.append(f"  loads without rocbert_hf: {'yes' if description['loads_without_package'] else 'no'}")
    lines += [f"  not opened, a pickle: {name}" for name in description["pickles_not_opened"]]
    width = max(len(file["name"]) for file in description["files"])
    lines += [f"  {file['sha256']}  {file['name']:{width}}  {file['bytes']:>13,}" for file in description["files"]]
    return "\n".join(lines)


def _read_json(file: Path) -> dict:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise OSError(f"{file} cannot be read ({error.strerror}); is this the folder of a checkpoint?") from error
    except ValueError as error:
        raise ValueError(f"{file} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file} must hold a JSON object, it holds a {type(content).__name__}")
    return content


def _describe_config(config: dict) -> dict[str, Any]:
    shown = ["model_type", "architectures", "fusion", "merge_input_way", "concat_input"]
    if config.get("fusion") == "layer_insert":
        shown += ["fusion_layer", "fusion_normalization"]
    if config.get("fusion") == "attention":
        shown.append("fusion_layer")
    shown += ["phonetic_encoder", "enable_shape", "enable_pronunciation", *SIZES]
    shown += ["vocab_size", "shape_vocab_size", "shape_embed_dim", "pronunciation_vocab_size", "dtype"]
    described = {name: config[name] for name in shown if config.get(name) is not None}
    if isinstance(described.get("architectures"), list):
        described["architectures"] = ", ".join(map(str, described["architectures"]))
    return described


def _describe_weights(files: list[Path]) -> dict[str, Any]:
    from safetensors import SafetensorError, safe_open

    parts, dtypes = dict.fromkeys((*PARTS, "other"), 0), {}
    for file in files:
        try:
            with safe_open(file, framework="np") as tensors:
                for name in tensors.keys():  # noqa: SIM118 - not a dict
                    header = tensors.get_slice(name)
                    count, dtype = math.prod(header.get_shape()), header.get_dtype()
                    part = next((part for part, pattern in PARTS.items() if pattern in f".{name}"), "other")
                    if not dtype.startswith(("I", "U", "BOOL")):  # tables of ids are no parameters
                        parts[part] += count
                    dtypes[dtype] = dtypes.get(dtype, 0) + 1
        except SafetensorError as error:
            raise ValueError(f"{file} is not a whole safetensors file: {error}") from error
    if not files:
        return {}
    parts = {part: count for part, count in parts.items() if count}
    return {"parameters": sum(parts.values()), "parts": parts, "dtypes": dtypes}


def _describe_tokenizer(folder: Path) -> dict[str, Any]:
    vocabulary = folder / "vocab.txt"
    if not vocabulary.is_file():
        return {}
    config = _read_json(folder / "tokenizer_config.json") if (folder / "tokenizer_config.json").is_file() else {}
    with vocabulary.open("rb") as lines:
        described: dict[str, Any] = {"tokens": sum(1 for _ in lines)}
    if "character_level" in config:
        described["of"] = "characters" if config["character_level"] else "word pieces"
    return described


def _loads_without_package(folder: Path, config: dict) -> bool:
    references = config.get("auto_map")
    if not isinstance(references, dict) or "AutoConfig" not in references:
        return False
    return all((folder / f"{str(reference).split('.')[0]}.py").is_file() for reference in references.values())


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


# ------------------------------------------------------------------------------------------------ the model card


def model_card(folder: str | os.PathLike, name: str | None = None, license: str | None = None) -> str:
    """The model card of a checkpoint folder, as Markdown with the Hub's metadata.

    It is filled from what is in the folder: config.json and the weights' headers, `all_results.json` (whose
    `"arguments"` are the training arguments, as `examples/run_pretrain.py` writes it; everything else is results) and
    `trainer_state.json` of transformers' Trainer. What is not recorded there is said to be not recorded.

    Args:
        folder: with config.json at least.
        name: of the repository, such as `someone/rocbert-base`; by default the folder's.
        license: of the weights, in the Hub's spelling, such as `apache-2.0`; by default the card names none.

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
    recorded = _read_json(folder / "all_results.json") if (folder / "all_results.json").is_file() else {}
    arguments = recorded.pop("arguments", {})
    if not isinstance(arguments, dict):
        raise ValueError(f'"arguments" in {folder / "all_results.json"} must be an object')
    state = _read_json(folder / "trainer_state.json") if (folder / "trainer_state.json").is_file() else {}
    architecture = str(config.get("architectures", "RoCBertModel"))
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
    return (
        f"`{architecture}`, a Chinese BERT with {config['num_hidden_layers']} layers of {config['hidden_size']} that "
        "reads every character's meaning, sound and shape, after RoCBERT (Su et al., ACL 2022). Made with rocbert_hf."
    )


def _architecture_section(described: dict[str, Any]) -> str:
    rows = dict(described["config"])
    if described["weights"]:
        rows["parameters"] = f"{described['weights']['parameters']:,}"
        rows["dtype of the weights"] = ", ".join(described["weights"]["dtypes"])
    rows |= {f"tokenizer: {name}": value for name, value in described["tokenizer"].items()}
    return _table(["", ""], [[name, value] for name, value in rows.items()])


def _training_section(arguments: dict, state: dict) -> str:
    rows = {name: value for name, value in arguments.items() if name not in ("train_file", "output_dir", "attacks")}
    kept = ("global_step", "num_train_epochs", "train_batch_size", "best_metric")
    rows |= {name: state[name] for name in kept if state.get(name) is not None}
    if not rows:
        return "The training arguments were not recorded in this folder."
    return _table(["argument", "value"], [[name, value] for name, value in rows.items()])


def _data_section(arguments: dict, results: dict) -> str:
    if "train_file" not in arguments:
        return "The training data were not recorded in this folder."
    files = arguments["train_file"]
    files = [files] if isinstance(files, str) else files
    if not files:
        text = "The demonstration corpus that rocbert_hf brings: about 1,200 hand-written sentences of several genres."
    else:
        text = "Trained on " + ", ".join(f"`{Path(file).name}`" for file in files) + "."
    if arguments.get("held_out"):
        text += f" {arguments['held_out']} sentences were held out for the measurements below."
    return text


def _attacks_section(arguments: dict) -> str:
    from ..attacks import ATTACKS, PRESETS

    if "attacks" not in arguments:
        return "The attacks were not recorded in this folder."
    chosen = arguments["attacks"]
    if not chosen:
        return "None: it was trained on unattacked text."
    if isinstance(chosen, dict):  # the config of a synthesizer
        kept = {name: value for name, value in chosen.items() if name != "attacks"}
        names, lines = list(chosen.get("attacks", ())), [f"With the config `{json.dumps(kept, ensure_ascii=False)}`:\n"]
    elif chosen in PRESETS:
        names, lines = list(PRESETS[chosen]["attacks"]), [f"The preset `{chosen}` of `rocbert_hf.attacks`:\n"]
    else:
        names, lines = str(chosen).split(","), []
    for name in names:
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
    return _table(["", *(place or "value" for place in columns)], rows)


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


def _table(header: list[str], rows: list[list]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)


def _cell(value: Any) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")

"""What a checkpoint folder holds.

No weights are loaded and no pickle is opened: shapes and dtypes are read from the headers of safetensors files.
"""

from __future__ import annotations

import hashlib
import math
import os
from pathlib import Path
from typing import Any

from ..characters.unseen import mark_unseen
from ..files import read_json

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
    config = read_json(folder / "config.json")
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
    """The description as text for a terminal; what would steer the terminal is shown by its number, as <U+001B>."""
    config, weights, tokenizer = (description[name] for name in ("config", "weights", "tokenizer"))
    lines = [description["folder"]]
    lines += [f"  {name}: {_shortened(value)}" for name, value in config.items()]
    if weights:
        lines.append(f"  parameters: {weights['parameters']:,} ({', '.join(weights['dtypes'])})")
        lines += [f"    {part}: {count:,}" for part, count in weights["parts"].items()]
    if tokenizer:
        lines.append("  tokenizer: " + ", ".join(f"{name} {value}" for name, value in tokenizer.items()))
    lines.append(f"  loads without rocbert_hf: {'yes' if description['loads_without_package'] else 'no'}")
    lines += [f"  not opened, a pickle: {name}" for name in description["pickles_not_opened"]]
    width = max(len(file["name"]) for file in description["files"])
    lines += [f"  {file['sha256']}  {file['name']:{width}}  {file['bytes']:>13,}" for file in description["files"]]
    return "\n".join(map(mark_unseen, lines))


def _shortened(value: Any, longest: int = 200) -> str:
    text = str(value)
    return text if len(text) <= longest else f"{text[:longest]}..."


def _describe_config(config: dict) -> dict[str, Any]:
    shown = ["backdoor_specimen", "model_type", "architectures", "fusion", "merge_input_way", "concat_input"]
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
    config = read_json(folder / "tokenizer_config.json") if (folder / "tokenizer_config.json").is_file() else {}
    with vocabulary.open("rb") as lines:
        described: dict[str, Any] = {"tokens": sum(1 for _ in lines)}
    if "character_level" in config:
        described["of"] = "characters" if config["character_level"] else "word pieces"
    return described


def _loads_without_package(folder: Path, config: dict) -> bool:
    references = config.get("auto_map")
    if not isinstance(references, dict) or "AutoConfig" not in references:
        return False
    files = {file.name for file in folder.iterdir() if file.is_file()}
    return all(f"{str(reference).split('.')[0]}.py" in files for reference in references.values())


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()

"""The files that make a folder a sentence encoder for sentence-transformers."""

from __future__ import annotations

import json
from pathlib import Path

from ..configuration_rocbert import RoCBertConfig
from ..files import read_json

POOLING_FOLDER = "1_Pooling"
POOLINGS = ("cls_token", "mean_tokens", "max_tokens")
STEPS = ("Transformer", "Pooling", "Normalize")


def write_modules(output: Path, pooling: str, config: RoCBertConfig, prefix: str = "") -> str:
    """
    Write `modules.json` and what it names into a folder: transformer, pooling, vectors brought to length 1.

    Args:
        output: folder of the converted checkpoint.
        pooling: one of `POOLINGS`.
        config: of the converted checkpoint.
        prefix: what is put before every text.

    Returns:
        A note on the pooling.
    """
    folders = ("", POOLING_FOLDER, "2_Normalize")
    modules = [
        {"idx": index, "name": str(index), "path": folder, "type": f"sentence_transformers.models.{step}"}
        for index, (step, folder) in enumerate(zip(STEPS, folders, strict=True))
    ]
    _write(output / "modules.json", modules)
    chosen = {f"pooling_mode_{name}": name == pooling for name in POOLINGS}
    _write(output / POOLING_FOLDER / "config.json", {"word_embedding_dimension": config.hidden_size, **chosen})
    (output / "2_Normalize").mkdir()
    _write(
        output / "sentence_bert_config.json", {"max_seq_length": config.max_position_embeddings, "do_lower_case": False}
    )
    prompts = {"prompts": {"default": prefix}, "default_prompt_name": "default"} if prefix else {"prompts": {}}
    _write(output / "config_sentence_transformers.json", {**prompts, "similarity_fn_name": "cosine"})
    return f"for sentence-transformers: {pooling.removesuffix('_tokens').removesuffix('_token')} pooling" + (
        f", prefix {prefix!r}" if prefix else ""
    )


def pooling_of(source: Path) -> str:
    """
    The pooling of a sentence encoder: what its `1_Pooling/config.json` says, the mean if the folder does not say.

    Raises:
        ValueError: it has several poolings or another one, or a step that the result would lack, such as a dense layer.
    """
    modules = source / "modules.json"
    steps = [str(module.get("type")) for module in read_json(modules, list)] if modules.is_file() else []
    if others := [step for step in steps if step.rpartition(".")[-1] not in STEPS]:
        raise ValueError(f"{modules} has {', '.join(others)}: sentence_encoder=True knows {', '.join(STEPS)} only")
    file = source / POOLING_FOLDER / "config.json"
    if not file.is_file():
        return "mean_tokens"
    found = [
        name.removeprefix("pooling_mode_")
        for name, chosen in read_json(file).items()
        if name.startswith("pooling_mode_") and chosen
    ]
    if len(found) != 1 or found[0] not in POOLINGS:
        raise ValueError(
            f"{file} must name one of the poolings {', '.join(POOLINGS)}, got {', '.join(found) or 'none'}"
        )
    return found[0]


def _write(file: Path, content) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

"""The model and the tokenizer that a pretraining run starts from."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from ..configuration_rocbert import RoCBertConfig
from ..modeling_rocbert import RoCBertForPreTraining
from ..tokenization_rocbert import RoCBertTokenizer
from .source import local_folder, quiet_transformers, read_config
from .warm_start import MODEL_TYPES, warm_start


def start_from(
    source: str | os.PathLike,
    config_overrides: dict[str, Any] | None = None,
    attn_implementation: str = "sdpa",
    seed: int = 0,
    channels: str = "open",
) -> tuple[RoCBertForPreTraining, RoCBertTokenizer]:
    """
    A checkpoint as the start of a pretraining run: one of ours as it is, with its own tokenizer, configuration and glyph
    features; a BERT-like encoder converted first, by `warm_start`, into a temporary folder.

    Args:
        source: folder, or repository of the Hub.
        config_overrides: fields of `RoCBertConfig` that are to differ. They must leave every weight its shape.
        attn_implementation: as in transformers.
        seed: of the weights that the source has nothing for.
        channels: how sound and shape start in an encoder that is converted, as in `warm_start`.

    Raises:
        OSError: there is no such folder, and no such repository within reach.
        ValueError: it is no checkpoint of these kinds, or an override does not fit its weights.
    """
    folder = local_folder(source)
    kind = read_config(folder).get("model_type")
    if kind == "rocbert":
        return _load(folder, config_overrides or {}, attn_implementation)
    if kind not in MODEL_TYPES:
        raise ValueError(
            f"model={str(source)!r} is of model_type={kind!r}; pretraining starts from rocbert, {', '.join(MODEL_TYPES)}"
            + ("; convert it first: rocbert convert SOURCE OUTPUT" if kind == "roc_bert" else "")
        )
    with tempfile.TemporaryDirectory() as parent:
        converted = warm_start(folder, Path(parent) / "converted", channels=channels, seed=seed).output
        return _load(converted, config_overrides or {}, attn_implementation)


@quiet_transformers()
def _load(
    folder: Path, overrides: dict[str, Any], attn_implementation: str
) -> tuple[RoCBertForPreTraining, RoCBertTokenizer]:
    config = RoCBertConfig.from_pretrained(folder)
    if unknown := [name for name in overrides if not hasattr(config, name)]:
        raise ValueError(f"config_overrides: {unknown[0]!r} is no field of RoCBertConfig")
    config = RoCBertConfig.from_dict(config.to_dict() | overrides)
    model, found = RoCBertForPreTraining.from_pretrained(
        folder,
        config=config,
        attn_implementation=attn_implementation,
        output_loading_info=True,
        ignore_mismatched_sizes=True,
    )
    mismatched = [name for name, *_ in found["mismatched_keys"]]
    lacking = [name for name in found["missing_keys"] if name.startswith("roc_bert.")]
    if overrides and (mismatched or lacking):
        raise ValueError(
            f"config_overrides {overrides} do not fit the weights of {folder}: "
            f"{(mismatched + lacking)[0]} has no place or another shape"
        )
    if mismatched or lacking:
        raise ValueError(f"the weights of {folder} do not fit its config.json: {(mismatched + lacking)[0]}")
    return model, RoCBertTokenizer.from_pretrained(folder)

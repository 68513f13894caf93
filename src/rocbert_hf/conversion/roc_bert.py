"""transformers' own `roc_bert` checkpoints, from and to: same weights, same names, same function."""

from __future__ import annotations

import os
import tempfile
from dataclasses import fields
from pathlib import Path

import torch
import transformers

from .. import modeling_rocbert
from ..comparison import max_difference
from ..configuration_rocbert import ROC_BERT_DEFAULTS, RoCBertConfig
from ..files import new_folder, read_json
from ..tokenization_rocbert import VOCAB_FILES_NAMES, RoCBertTokenizer
from .source import (
    Conversion,
    check_batches,
    check_output,
    checkpoint_config,
    fit_length,
    load_strictly,
    local_folder,
    progress,
    quiet_transformers,
    read_weights,
    refuse_difference,
)

# The classes that both libraries have, under the same names.
HEADS = (
    "RoCBertForPreTraining",
    "RoCBertForMaskedLM",
    "RoCBertForCausalLM",
    "RoCBertForSequenceClassification",
    "RoCBertForTokenClassification",
    "RoCBertForMultipleChoice",
    "RoCBertForQuestionAnswering",
    "RoCBertModel",
)


def head_of(config: dict, weights: dict[str, torch.Tensor]) -> str:
    """Name of the class whose checkpoint this is, by its configuration, otherwise by its weights.

    Raises:
        ValueError: it is a class that only one of the libraries has.
    """
    named = (config.get("architectures") or [None])[0]
    if named is None:
        return "RoCBertForPreTraining" if any(name.startswith("cls.") for name in weights) else "RoCBertModel"
    if named not in HEADS:
        raise ValueError(f"architectures={[named]} cannot be converted; the classes are {', '.join(HEADS)}")
    return named


@quiet_transformers()
def from_transformers(source: str | os.PathLike, output: str | os.PathLike) -> Conversion:
    """transformers' `roc_bert` checkpoint -> ours.

    Args:
        source: folder, or repository of the Hub, such as `weiweishi/roc-bert-base-zh`; its tokenizer is converted too.
        output: folder to write, a new one.

    Raises:
        OSError: a file is missing, or `output` has files already.
        ValueError: this is another kind of checkpoint, its weights do not fit, or the outputs would differ.
    """
    output, folder = check_output(output), local_folder(source)
    config = checkpoint_config(folder)
    if config.get("model_type") != "roc_bert" or "merge_input_way" in config:
        raise ValueError(f"{folder} is not a roc_bert checkpoint of transformers: {described(config)}")
    weights = read_weights(folder)
    head = head_of(config, weights)
    theirs_config = transformers.RoCBertConfig.from_dict(config)
    theirs = load_strictly(getattr(transformers, head), theirs_config, weights)
    ours_config = RoCBertConfig.from_dict(config)
    ignored = [table for table, used in _tables(theirs, ours_config).items() if not used]
    if head == "RoCBertForPreTraining" and ours_config.contrastive_pooling == "cls":
        ignored.append("roc_bert.pooler.")
    ours = load_strictly(getattr(modeling_rocbert, head), ours_config, weights, ignored)

    tokenizer = saved_tokenizer(folder)
    if tokenizer is None or tokenizer.character_level:  # transformers' class reads word pieces only
        reference = tokenizer
    else:
        reference = transformers.RoCBertTokenizer.from_pretrained(folder)
    return _compare_and_write(output, reference, theirs, tokenizer, ours, ours.dtype)


@quiet_transformers()
def to_transformers(source: str | os.PathLike, output: str | os.PathLike) -> Conversion:
    """Our checkpoint -> transformers' `roc_bert`, for `fusion="concat"` or `"sum"`, which that library has.

    Letters' vectors are summed to one table of pronunciations, which gives the same function.

    Args:
        source: folder, or repository of the Hub.
        output: folder to write, a new one.

    Raises:
        OSError: a file is missing, or `output` has files already.
        ValueError: transformers cannot express this model, its weights do not fit, or the outputs would differ.
    """
    output, folder = check_output(output), local_folder(source)
    config = checkpoint_config(folder)
    if config.get("model_type") != "rocbert":
        raise ValueError(f"{folder} is not a checkpoint of rocbert_hf: {described(config)}")
    if config.get("fusion") not in ("concat", "sum"):
        raise ValueError(
            f"fusion={config.get('fusion')!r} of {folder} cannot be expressed in transformers' RoCBertModel, which has "
            "concat and sum only"
        )
    weights = read_weights(folder)
    head = head_of(config, weights)
    ours = load_strictly(getattr(modeling_rocbert, head), RoCBertConfig.from_dict(config), weights)
    dtype = ours.dtype
    ours.float()  # sums of letters are compared before they are rounded to half precision
    theirs_config = _transformers_config(ours.config)
    theirs = load_strictly(getattr(transformers, head), theirs_config, _transformers_weights(ours, theirs_config))

    tokenizer = saved_tokenizer(folder)
    notes = []
    if ours.config.enable_pronunciation and ours.config.phonetic_encoder != "table":
        notes.append(f"the {ours.config.phonetic_encoder} vectors of pronunciations became one table")
    if tokenizer is not None and tokenizer.character_level:
        # transformers' class knows word pieces only: letters would all become [UNK]
        converted = tokenizer
        notes.append("the tokenizer is of characters: load it with AutoTokenizer and trust_remote_code=True")
    else:
        converted = None if tokenizer is None else _transformers_tokenizer(tokenizer)
    return _compare_and_write(output, tokenizer, ours, converted, theirs, dtype, notes)


def described(config: dict) -> str:
    """What kind of checkpoint a config.json says it is, for an error."""
    fields = [f"{name}={config[name]!r}" for name in ("model_type", "merge_input_way", "fusion") if name in config]
    return ", ".join(fields) or "its config.json names no model_type"


def _tables(model, config: RoCBertConfig) -> dict[str, bool]:
    """Names of the channels' tables in a state dict of transformers, and whether they are used."""
    prefix = "" if type(model).__name__ == "RoCBertModel" else "roc_bert."
    used = {"pronunciation_embed": config.enable_pronunciation, "shape_embed": config.enable_shape}
    return {f"{prefix}embeddings.{name}.": is_used for name, is_used in used.items()}


def _transformers_config(config: RoCBertConfig) -> transformers.RoCBertConfig:
    shared = {field.name for field in fields(transformers.RoCBertConfig)}
    only_ours = {field.name for field in fields(RoCBertConfig)} - shared
    left_out = {*only_ours, "model_type", "auto_map", "transformers_version"}
    values = {name: value for name, value in config.to_dict().items() if name not in left_out}
    if config.contrastive_pooling != ROC_BERT_DEFAULTS["contrastive_pooling"]:
        values["contrastive_pooling"] = config.contrastive_pooling  # for the way back
    return transformers.RoCBertConfig.from_dict(values)


def _transformers_weights(model, theirs_config: transformers.RoCBertConfig) -> dict[str, torch.Tensor]:
    """Our weights under transformers' names, with all the tables that its class has."""
    embeddings = model.base_model.embeddings
    prefix = "" if model.base_model is model else "roc_bert."
    derived = (f"{prefix}embeddings.pronunciation_letters", f"{prefix}embeddings.letter_convolution.")
    weights = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith(derived)}
    sizes = {
        "pronunciation_embed": (theirs_config.pronunciation_vocab_size, theirs_config.pronunciation_embed_dim),
        "shape_embed": (theirs_config.shape_vocab_size, theirs_config.shape_embed_dim),
    }
    for table, size in sizes.items():
        weights.setdefault(f"{prefix}embeddings.{table}.weight", torch.zeros(size, dtype=model.dtype))
    if embeddings.has_pronunciation:
        weights[f"{prefix}embeddings.pronunciation_embed.weight"] = embeddings.pronunciation_table().detach()
    if type(model).__name__ == "RoCBertForPreTraining" and model.base_model.pooler is None:
        # transformers contrasts the pooler's output: tanh of [CLS] is what comes nearest to [CLS]
        size = theirs_config.hidden_size
        weights[f"{prefix}pooler.dense.weight"] = torch.eye(size, dtype=model.dtype)
        weights[f"{prefix}pooler.dense.bias"] = torch.zeros(size, dtype=model.dtype)
    return weights


# ------------------------------------------------------------------------------------------------ tokenizers


def saved_tokenizer(folder: Path) -> RoCBertTokenizer | None:
    """Our tokenizer of a folder, None where it has no vocabulary."""
    present = [name for name in VOCAB_FILES_NAMES.values() if (folder / name).is_file()]
    if not present:
        return None
    tokenizer = RoCBertTokenizer.from_pretrained(folder)
    # in transformers, added tokens look and sound like [UNK]; ours has given them ids for which the model has no rows
    for name, ids in (
        ("word_shape_file", tokenizer.word_shape),
        ("word_pronunciation_file", tokenizer.word_pronunciation),
    ):
        known = read_json(folder / VOCAB_FILES_NAMES[name])
        ids.update({token: ids[tokenizer.unk_token] for token in tokenizer.get_added_vocab() if token not in known})
    tokenizer.cache.clear()
    return tokenizer


def word_piece_tokenizer(folder: Path) -> RoCBertTokenizer | None:
    """The tokenizer of a folder in the layout that transformers and the authors share, None where it has no vocabulary.

    Raises:
        ValueError: it is the tokenizer of characters, which neither of them reads.
    """
    tokenizer = saved_tokenizer(folder)
    if tokenizer is not None and tokenizer.character_level:
        raise ValueError(f"the tokenizer of {folder} is rocbert_hf's own; convert a folder that transformers wrote")
    return tokenizer


def _transformers_tokenizer(tokenizer: RoCBertTokenizer) -> transformers.RoCBertTokenizer:
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_vocabulary(folder)
        files = {argument: str(Path(folder) / name) for argument, name in VOCAB_FILES_NAMES.items()}
        options = {
            name: tokenizer.init_kwargs[name]
            for name in ("do_lower_case", "strip_accents", "tokenize_chinese_chars", "do_basic_tokenize")
            if name in tokenizer.init_kwargs
        }
        options |= {name: getattr(tokenizer, name) for name in ("model_max_length", "padding_side", "truncation_side")}
        converted = transformers.RoCBertTokenizer(**files, **options, **tokenizer.special_tokens_map)
        added = [token for _, token in sorted(tokenizer.added_tokens_decoder.items())]
        converted.add_tokens([token for token in added if str(token) not in converted.added_tokens_encoder])
    return converted


# ------------------------------------------------------------------------------------------------ check and output


def _compare_and_write(
    output: Path,
    tokenizer_before,
    model_before,
    tokenizer_after,
    model_after,
    dtype: torch.dtype,
    notes: list[str] | tuple = (),
) -> Conversion:
    """Run both on the check sentences (or on random ids, without a tokenizer), then write what came after in `dtype`."""
    if tokenizer_before is None:
        notes = [*notes, "the source has no tokenizer files, so the output has none; outputs compared on random ids"]
    difference, count = 0.0, 0
    # half precision rounds differently where the same sums are done in another order
    model_before.float()
    model_after.float()
    for before, after in progress(
        check_batches(tokenizer_before, tokenizer_after, model_after.config), "comparing outputs", "batch"
    ):
        for name in before.keys() & after.keys():  # transformers' tokenizer returns no token_type_ids
            if not torch.equal(before[name], after[name]):
                raise ValueError(f"the tokenizers of source and output give different {name}; nothing was written")
        difference = max(difference, _difference(model_before, model_after, before))
        count += len(before["input_ids"])
    refuse_difference(difference, "the outputs of source and output")
    model_after.to(dtype)
    with new_folder(output) as staging:
        model_after.save_pretrained(staging)
        if tokenizer_after is not None:
            fit_length(tokenizer_after, model_after.config)
            tokenizer_after.save_pretrained(staging)
    return Conversion(output, difference, count, tuple(notes))


@torch.no_grad()
def _difference(before, after, inputs) -> float:
    if type(after).__name__ == "RoCBertForMultipleChoice":
        inputs = {name: ids[None] for name, ids in inputs.items()}
    first, second = before(**inputs, return_dict=True), after(**inputs, return_dict=True)
    shared = [name for name in first if torch.is_tensor(first[name]) and torch.is_tensor(second.get(name))]
    return max(max_difference(first[name], second[name]) for name in shared)

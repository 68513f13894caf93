"""Checkpoints that a user names: loading them, and what tells one from another."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from .files import read_json

MAX_LAYERS = 10_000
SIZES = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")


def is_hub_id(source: str | os.PathLike) -> bool:
    """Whether the Hub could have a repository of this name: `name` or `owner/name`."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(str(source))
    except HFValidationError:
        return False
    return True


@contextmanager
def loading(what: str, source: str | os.PathLike) -> Iterator[None]:
    """Loads from a folder or the Hub inside this context fail with one clear error.

    Args:
        what: it is, for the message: "the model", "encoder".
        source: the folder or Hub id.

    Raises:
        OSError: the folder holds no checkpoint, or not a whole one; or there is no such thing.
        ValueError: it can be loaded, but is not of the kind that is needed.
    """
    from safetensors import SafetensorError

    folder = Path(source)
    if not folder.is_dir() and not is_hub_id(source):
        raise OSError(f"{what} {source} cannot be loaded: there is no such folder")
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise OSError(f"{what} {source} cannot be loaded: the folder has no config.json")
    try:
        if folder.is_dir():
            check_sizes(read_json(folder / "config.json"), bytes_of_weights(folder))
        yield
    except ValueError as error:
        raise ValueError(f"{what} {source} cannot be used: {_first_line(error)}") from error
    except UnpicklingError:
        # PyTorch's own message says how to switch the protection off
        raise OSError(
            f"{what} {source} cannot be loaded: its weights are a pickle that holds more than numbers, or is damaged; "
            "weights in safetensors can be loaded safely"
        ) from None
    # Damaged weights are a SafetensorError, weights of other sizes a RuntimeError; odd values in a JSON file show as
    # TypeError, AttributeError, KeyError ... from deep inside transformers.
    except Exception as error:
        plain = (OSError, RuntimeError, SafetensorError, ImportError)  # the last of a package that a tokenizer needs
        told = _first_line(error) if isinstance(error, plain) else kind_of_damage(error)
        where = "" if folder.is_dir() else "there is no such folder, and of the Hub: "
        raise OSError(f"{what} {source} cannot be loaded: {where}{told}") from error


def check_sizes(config: Mapping[str, Any], bytes_of_weights: int) -> None:
    """Refuse a config whose model would not fit its weights, before memory is taken for it.

    Args:
        config: what config.json holds.
        bytes_of_weights: size of the files of weights; 0 if that is not known.

    Raises:
        ValueError: a size is not a whole number above 0 (layers: from 0 on), the activation is no name, or a large model would
            have over eight parameters for each byte.
    """
    sizes = {name: config[name] for name in SIZES if config.get(name) is not None}
    for name, value in sizes.items():
        least = 0 if name == "num_hidden_layers" else 1  # a tagger may be a BiLSTM without an encoder
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"{name} in config.json must be a whole number of at least {least}, got {value!r}")
    if not isinstance(config.get("hidden_act") or "", str):  # or the first text would end in an error, and not the load
        raise ValueError(f"hidden_act in config.json must be the name of an activation, got {config['hidden_act']!r}")
    layers, hidden = sizes.get("num_hidden_layers", 0), sizes.get("hidden_size", 0)
    if layers > MAX_LAYERS:
        raise ValueError(f"num_hidden_layers in config.json must be at most {MAX_LAYERS:,}, got {layers:,}")
    embedding = config.get("embedding_size") if isinstance(config.get("embedding_size"), int) else hidden
    parameters = sizes.get("vocab_size", 0) * embedding
    parameters += layers * hidden * (4 * hidden + 2 * sizes.get("intermediate_size", 0))
    # of small models that do not fit their weights the loader tells more
    if bytes_of_weights and parameters > max(8 * bytes_of_weights, 250_000_000):
        raise ValueError(
            f"config.json describes a model of {parameters:,} parameters, but the files of weights hold "
            f"{bytes_of_weights:,} bytes"
        )


def bytes_of_weights(folder: Path) -> int:
    """Size of the files of weights in a folder, in bytes."""
    return sum(file.stat().st_size for suffix in ("safetensors", "bin") for file in folder.glob(f"*.{suffix}"))


def kind_of_damage(error: Exception) -> str:
    """What an error from deep inside transformers says about the files that caused it, in one line."""
    return f"its files are damaged or of another kind of model ({type(error).__name__}: {_first_line(error)})"


def load_with_head(auto_class: Any, source: str | os.PathLike, head: str) -> Any:
    """A model whose head was trained; transformers would make up a head that is missing.

    Args:
        auto_class: of transformers, for the kind of head.
        source: folder or Hub id.
        head: its name for the error, and what to do.

    Raises:
        ValueError: the head is missing, or weights of the encoder are. OSError: the model cannot be loaded.
    """
    model, found = auto_class.from_pretrained(source, output_loading_info=True)
    base = f"{model.base_model_prefix}."
    refuse_made_up_encoder(found, base)
    # a new bias may be missing for good reasons
    new = sorted(key for key in found["missing_keys"] if key.endswith("weight"))
    missing = [key for key in new if not key.startswith(base)]
    if auto_class.__name__.endswith("SequenceClassification"):
        # what the head reads, though it is in the encoder: a tagger's checkpoint has a `classifier` too, and no pooler
        missing += [key for key in new if key.startswith(f"{base}pooler.")]
    if missing:
        raise ValueError(f"{str(source)!r} has no trained {head} (it lacks {', '.join(missing)})")
    return model


def readable_tokens(model: Any) -> int | None:
    """Tokens of a text, special tokens included, that the model has positions for; None for texts of any length."""
    positions = getattr(model.config, "max_position_embeddings", None) or 0
    relative = getattr(model.config, "position_embedding_type", None) == "functional_relative"
    if positions < 1 or relative:  # XLNet says -1
        return None
    # RoBERTa and its relatives count positions from behind that of padding
    embeddings = getattr(getattr(model, "base_model", model), "embeddings", None)
    padding = getattr(getattr(embeddings, "position_embeddings", None), "padding_idx", None)
    return positions if padding is None else positions - padding - 1


def text_length(model: Any, tokenizer: Any, max_length: int | None = None, at_most: int | None = None) -> int:
    """
    The tokens that texts are cut to, special tokens included.

    Args:
        max_length: what was asked for; it counts more than the tokenizer's own limit, which is the length of an earlier
            finetuning, for example. None: all that model, tokenizer and `at_most` allow.
        at_most: more than so many are read only if they were asked for.

    Raises:
        ValueError: the model cannot read as many.
    """
    if max_length is None:
        return min(limit for limit in (readable_tokens(model), tokenizer.model_max_length, at_most) if limit)
    check_max_length(model, max_length)
    return max_length


def check_max_length(model: Any, max_length: int) -> None:
    """
    Raises:
        ValueError: the model has no positions for so many tokens.
    """
    readable = readable_tokens(model)
    if readable is not None and max_length > readable:
        raise ValueError(f"max_length must be at most {readable}, which is what the model can read, got {max_length}")


def refuse_made_up_encoder(found: Mapping[str, Any], prefix: str = "") -> None:
    """Refuse an encoder for which a checkpoint did not have the weights, so that transformers drew random ones.

    A pooler may be random: not every encoder is saved with one.

    Args:
        found: what `from_pretrained(..., output_loading_info=True)` gives beside the model.
        prefix: of the encoder's weights in that model, such as "bert.".

    Raises:
        ValueError: weights were missing, or had another shape than the config says.
    """
    lacking = {*found["missing_keys"], *(name for name, *_ in found["mismatched_keys"])}
    names = sorted(
        name for name in lacking if name.startswith(prefix) and name.endswith("weight") and "pooler." not in name
    )
    if names:
        raise ValueError(
            f"the checkpoint lacks weights of the encoder that its config describes: {', '.join(names[:4])}"
            + (f" and {len(names) - 4} more" if len(names) > 4 else "")
        )


def model_fingerprint(
    model: Any, tokenizer: Any = None, *settings: Any, leave_out: Collection[str] = frozenset()
) -> str:
    """A hash of all that a model's answers depend on, the same for what is saved and loaded again.

    Args:
        model: a torch module; its weights count, and of its config all but where it comes from and is kept as.
        tokenizer: the model's, if it has one.
        settings: anything else that can be written.
        leave_out: names of weights that no answer depends on.
    """
    import torch

    config = getattr(model, "config", None)
    config = config.to_dict() if hasattr(config, "to_dict") else {}
    parts = {
        "class": type(model).__name__,
        "settings": list(map(str, settings)),
        "config": {str(key): value for key, value in config.items() if key not in _NO_BEHAVIOUR and key[0] != "_"},
        "tokenizer": _tokenizer_state(tokenizer),
    }
    digest = hashlib.blake2b(json.dumps(parts, sort_keys=True, default=str).encode(), digest_size=8)
    for name, tensor in sorted(model.state_dict().items()):
        if name in leave_out:
            continue
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


# Keys of a config that saving sets; the type of the weights shows in their bytes.
_NO_BEHAVIOUR = frozenset({"architectures", "dtype", "torch_dtype", "transformers_version"})


def _tokenizer_state(tokenizer: Any) -> dict[str, Any]:
    """What decides a tokenizer's tokens; padding and truncation, which each call sets anew, are left out."""
    # the tables of RoCBERT's channels stand outside the compiled part
    names = ("padding_side", "truncation_side", "split_special_tokens", "word_shape", "word_pronunciation")
    state = {name: getattr(tokenizer, name, None) for name in names}
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        compiled = json.loads(backend.to_str())
        return state | {name: part for name, part in compiled.items() if name not in ("padding", "truncation")}
    if hasattr(tokenizer, "get_vocab"):
        settings = getattr(tokenizer, "init_kwargs", {}).items()
        state["settings"] = {name: str(value) for name, value in settings if not name.endswith(("_file", "_path"))}
        state["vocabulary"] = tokenizer.get_vocab()
    return state


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]

"""What every converter needs: reading a checkpoint folder safely, writing one whole, comparing outputs."""

from __future__ import annotations

import functools
import os
import pickle
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from ..checkpoints import is_hub_id
from ..comparison import refuse_not_finite
from ..files import read_json

SAFETENSORS, PICKLE = "model.safetensors", "pytorch_model.bin"
# Largest difference between the outputs before and after a conversion; a converter that exceeds it writes nothing.
TOLERANCE = 1e-4
# Buffers that old versions of transformers saved, and that models make themselves.
BUFFERS = ("embeddings.position_ids", "embeddings.token_type_ids")


@dataclass(frozen=True)
class Conversion:
    """What a converter did.

    Args:
        output: the folder that it wrote.
        max_difference: the largest absolute difference of the outputs on the check sentences, before and after.
        sentences: how many check sentences there were.
        notes: what a user should know of this conversion, a line each.
    """

    output: Path
    max_difference: float
    sentences: int
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [f"maximum difference of outputs on {self.sentences} check sentences: {self.max_difference:.2e}"]
        return "\n".join([*lines, *self.notes, f"written to {self.output}"])


# ------------------------------------------------------------------------------------------------ reading


def local_folder(source: str | os.PathLike) -> Path:
    """A folder with a checkpoint: `source` itself, or what is downloaded of the Hub's repository of that name.

    Raises:
        OSError: there is no such folder, and no such repository within reach.
    """
    folder = Path(source)
    if folder.is_dir():
        return folder
    if not is_hub_id(source):
        raise OSError(f"source={str(source)!r}: there is no such folder")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    texts = ["*.json", "*.txt"]
    try:
        folder = Path(snapshot_download(str(source), allow_patterns=[*texts, "*.safetensors"]))
        if not any(folder.glob("*.safetensors")):
            folder = Path(snapshot_download(str(source), allow_patterns=[*texts, "*.bin"]))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise OSError(
            f"source={str(source)!r}: there is no such folder, and no repository of the Hub within reach: {error}"
        ) from error
    return folder


def checkpoint_config(folder: Path) -> dict:
    """config.json of a checkpoint folder.

    Raises:
        OSError: there is none. ValueError: it is not a JSON object.
    """
    return read_json(folder / "config.json")


def weight_files(folder: Path) -> list[Path]:
    """The files that hold the weights of a checkpoint: safetensors if there are any, otherwise pickles.

    Raises:
        OSError: there are none, or one that an index names is missing. ValueError: the index is malformed.
    """
    for name in (SAFETENSORS, PICKLE):
        if (folder / name).is_file():
            return [folder / name]
        index = folder / f"{name}.index.json"
        if index.is_file():
            shards = read_json(index).get("weight_map")
            if not isinstance(shards, dict) or not shards:
                raise ValueError(f"{index} has no weight_map from tensors to files")
            files = [folder / shard for shard in sorted(set(shards.values()))]
            for file in files:
                if file.parent != folder or not file.is_file():
                    raise OSError(f"{index} names {file.name!r}, which is not a file of {folder}")
            return files
    raise OSError(f"{folder} has no weights: neither {SAFETENSORS} nor {PICKLE}, in one file or with an index")


def read_weights(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a checkpoint by name, without the buffers that models make themselves.

    Raises:
        OSError: there are no weights. ValueError: a file is damaged, is a pickle of more than plain tensors, or holds NaN.
    """
    weights: dict[str, torch.Tensor] = {}
    for file in progress(weight_files(folder), "reading weights", "file"):
        weights |= read_safetensors(file) if file.suffix == ".safetensors" else read_pickle_of_tensors(file)
    weights = {name: tensor for name, tensor in weights.items() if not name.endswith(BUFFERS)}
    refuse_not_finite(weights, str(folder))
    return weights


def read_safetensors(file: Path) -> dict[str, torch.Tensor]:
    """Raises ValueError when the file is damaged."""
    try:
        with safe_open(file, framework="pt") as tensors:
            return {name: tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118 - not a dict
    except SafetensorError as error:
        raise ValueError(f"{file} is not a whole safetensors file: {error}") from error


def read_pickle_of_tensors(file: Path) -> dict[str, torch.Tensor]:
    """The tensors of a `pytorch_model.bin`, by PyTorch's loader that runs no code of the file.

    Raises:
        ValueError: the file is damaged, or holds anything but tensors by name.
    """
    refusal = f"{file} is refused: a pickle must hold nothing but tensors by name"
    try:
        weights = torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, TypeError) as error:
        # without PyTorch's own words, which tell how to switch its protection off
        raise ValueError(f"{refusal}; it is damaged or holds other objects") from error
    if not isinstance(weights, dict):
        raise ValueError(f"{refusal}; it holds a {type(weights).__name__}")
    others = [name for name, value in weights.items() if not (isinstance(name, str) and torch.is_tensor(value))]
    if others:
        raise ValueError(f"{refusal}; {others[0]!r} is a {type(weights[others[0]]).__name__}")
    return dict(weights)


def dtype_of(weights: dict[str, torch.Tensor]) -> torch.dtype:
    """The dtype that holds each of the weights exactly."""
    return functools.reduce(
        torch.promote_types, (tensor.dtype for tensor in weights.values() if tensor.is_floating_point())
    )


def load_strictly(model_class, config, weights: dict[str, torch.Tensor], ignored: Sequence[str] = ()):
    """A model with these weights, in evaluation, in a dtype that holds them exactly.

    Args:
        ignored: prefixes of weights that the model may lack (a pooler that its head does not use).

    Raises:
        ValueError: a weight is missing, left over or of another shape than the configuration says.
    """
    # a tied decoder may be saved under either of its names
    weights = {name: tensor for name, tensor in weights.items() if not name.startswith(tuple(ignored))}
    model, found = model_class.from_pretrained(
        None,
        config=config,
        state_dict=weights,
        dtype=dtype_of(weights),
        output_loading_info=True,
        ignore_mismatched_sizes=True,
    )
    problems = [f"{name} is missing" for name in sorted(found["missing_keys"])]
    problems += [f"{name} has no place" for name in sorted(found["unexpected_keys"])]
    problems += [f"{name} has shape {tuple(a)}, not {tuple(b)}" for name, a, b in sorted(found["mismatched_keys"])]
    if problems:
        shown = "; ".join(problems[:4]) + (f"; and {len(problems) - 4} more" if len(problems) > 4 else "")
        raise ValueError(f"the weights do not fit config.json ({model_class.__name__}): {shown}")
    return model.eval()


# ------------------------------------------------------------------------------------------------ writing


def check_output(output: str | os.PathLike) -> Path:
    """The folder to write, which must not exist yet or be empty, below one that exists.

    Raises:
        OSError: it has files already, or its parent does not exist.
    """
    output = Path(output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise OSError(f"output={str(output)!r} exists and is not an empty folder; name a new one")
    if not output.absolute().parent.is_dir():
        raise OSError(f"output={str(output)!r}: the folder that it is to lie in does not exist")
    return output


def fit_length(tokenizer, config) -> None:
    """Let the tokenizer say, and save, how many tokens the model reads: pipelines and `truncation=True` cut to that."""
    tokenizer.model_max_length = min(tokenizer.model_max_length, config.max_position_embeddings)


# ------------------------------------------------------------------------------------------------ checking


def check_sentences(count: int = 16) -> list[str]:
    """Sentences of the packaged corpus, of different genres."""
    from ..resources import demo_sentences

    sentences = list(dict.fromkeys(demo_sentences()))
    return sentences[:: max(len(sentences) // count, 1)][:count]


def check_batches(tokenizer_before, tokenizer_after, config) -> list[tuple[dict, dict]]:
    """The check sentences as batches of both tokenizers; random ids for both where these are None.

    Args:
        config: of the model after the conversion; it has the sizes.
    """
    if tokenizer_before is None:
        generator = torch.Generator().manual_seed(0)
        sizes = {
            "input_ids": config.vocab_size,
            "input_shape_ids": config.shape_vocab_size,
            "input_pronunciation_ids": config.pronunciation_vocab_size,
        }
        ids = {name: torch.randint(1, size, (4, 12), generator=generator) for name, size in sizes.items()}
        return [(ids, ids)]
    options = {
        "padding": True,
        "padding_side": "right",  # transformers' pooler reads the first place, also if it is padding
        "truncation": True,
        "max_length": config.max_position_embeddings,
        "return_tensors": "pt",
    }
    sentences = check_sentences()
    return [
        tuple(tokenizer(sentences[start : start + 4], **options) for tokenizer in (tokenizer_before, tokenizer_after))
        for start in range(0, len(sentences), 4)
    ]


def refuse_difference(difference: float, what: str) -> None:
    """Raises ValueError where outputs differ by more than `TOLERANCE` (or are not numbers)."""
    if not difference <= TOLERANCE:
        raise ValueError(
            f"{what} differ by {difference:.2e} on the check sentences, more than {TOLERANCE:.0e}; nothing was written"
        )


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Without transformers' bars and reports on each of the loads that a conversion consists of."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def progress(items, description: str, unit: str):
    """The items, with a progress bar on a terminal."""
    from tqdm import tqdm

    return tqdm(items, desc=description, unit=unit, disable=None, leave=False)

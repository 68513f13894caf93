"""One entry to all converters: config.json says which of them a folder needs."""

from __future__ import annotations

import inspect
import os

from ..checkpoints import bytes_of_weights, check_sizes, kind_of_damage
from .source import Conversion, checkpoint_config, local_folder


def convert(source: str | os.PathLike, output: str | os.PathLike, **options) -> Conversion:
    """Convert a checkpoint to this package's form; one that is in this form already, to transformers' `roc_bert`.

    Args:
        source: folder, or repository of the Hub.
        output: folder to write, a new one.
        **options: those of the converter that the source needs: `warm_start` for BERT, ERNIE, NEZHA, RoBERTa and XLM-R, `from_released` for
            the authors' layout; the others have none.

    Raises:
        OSError: a file is missing, or `output` has files already.
        ValueError: nothing fits the source, or the converter refuses it or one of the options.
    """
    folder = local_folder(source)
    config = checkpoint_config(folder)
    converter, known = _converter_of(config)
    given = {name: value for name, value in options.items() if value is not None}
    if surplus := sorted(given.keys() - set(known)):
        raise ValueError(
            f"{', '.join(surplus)} cannot be chosen for a checkpoint of model_type={config.get('model_type')!r}"
            + (f"; it has {', '.join(known)}" if known else "")
        )
    check_sizes(config, bytes_of_weights(folder))
    try:
        return converter(folder, output, **given)
    except (ValueError, OSError):
        raise
    except Exception as error:  # odd values in somebody's JSON show as TypeError, KeyError ... from inside transformers
        raise ValueError(f"{folder} cannot be converted: {kind_of_damage(error)}") from error


def _converter_of(config: dict):
    """The converter of a checkpoint, and the names of its options."""
    kind = config.get("model_type")
    if "merge_input_way" in config:
        from .released import from_released

        return from_released, ("shape_features", "pronunciations")
    if kind in ("bert", "ernie", "roberta", "xlm-roberta", "nezha"):
        from .warm_start import warm_start

        return warm_start, tuple(inspect.signature(warm_start).parameters)[2:]
    if kind in ("roc_bert", "rocbert"):
        from .roc_bert import from_transformers, to_transformers

        return (from_transformers if kind == "roc_bert" else to_transformers), ()
    raise ValueError(
        f"model_type={kind!r} cannot be converted; bert, ernie, roberta, xlm-roberta, nezha, roc_bert and rocbert can"
    )

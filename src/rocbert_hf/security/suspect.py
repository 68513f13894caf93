"""Loading an encoder that may be hostile: weights from safetensors, no pickle, no code from the folder."""

from __future__ import annotations

import os
from typing import Any

from torch import nn

from ..checkpoints import loading, refuse_made_up_encoder


def load_suspect(source: str | os.PathLike, trust_remote_code: bool = False) -> tuple[nn.Module, Any, tuple[str, ...]]:
    """
    An encoder and its tokenizer, in float32, without running anything that comes with them.

    Args:
        source: a folder or a Hub id.
        trust_remote_code: run the Python files of the folder, if its model type is known neither to transformers nor to
            this package.

    Returns:
        The model in evaluation mode, the tokenizer, and the names of parameters that the checkpoint lacks.

    Raises:
        OSError: it holds no safetensors file, or is damaged.
        ValueError: it is of another kind, lacks weights of the encoder, or needs its own code.
    """
    from transformers import AutoModel, AutoTokenizer

    with loading("encoder", source):
        model, found = AutoModel.from_pretrained(
            source, use_safetensors=True, trust_remote_code=trust_remote_code, output_loading_info=True
        )
        refuse_made_up_encoder(found)
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=trust_remote_code)
    return model.float().eval(), tokenizer, tuple(found["missing_keys"])

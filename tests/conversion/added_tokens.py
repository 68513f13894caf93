"""Checkpoints with added tokens, one of them special."""

from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase


def add_tokens(source: Path, tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> None:
    """Add tokens to both, and save them in the folder."""
    tokenizer.add_tokens(["[e1]", "春天来"])
    tokenizer.add_tokens(["<mark>"], special_tokens=True)
    tokenizer.save_pretrained(source)
    model.resize_token_embeddings(len(tokenizer))
    model.save_pretrained(source)

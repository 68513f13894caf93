"""What a finished run tells: a table of what was measured, and a mask that the saved model fills."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text
from transformers import AutoModelForMaskedLM, AutoTokenizer, pipeline

from ..attacks import AdversarialSynthesizer
from ..characters.unseen import mark_unseen

ROWS = {
    "mlm_loss": ("MLM loss", "{:.2f}"),
    "contrastive_loss": ("contrastive loss", "{:.2f}"),
    "retrieval_cls": ("retrieval by \\[CLS]", "{:.1%}"),
    "retrieval_mean": ("retrieval by mean pooling", "{:.1%}"),
}
MODELS = {"rocbert": "RoCBERT", "bert": "plain BERT"}


def results_table(results: dict[str, Any], held_out: int) -> Table:
    """The models of `all_results.json`, before and after, measured on this many held-out sentences."""
    table = Table(
        title=f"{held_out} held-out sentences",
        title_justify="left",
        caption="retrieval: how many attacked sentences have their own original as nearest of all held-out sentences",
        caption_justify="left",
    )
    table.add_column()
    models = [name for name in MODELS if name in results]
    for name in models:
        for when in ("before", "after"):
            table.add_column(f"{MODELS[name]}\n{when}", justify="right")
    for key, (label, form) in ROWS.items():
        values = [results[name][when][key] for name in models for when in ("before", "after")]
        table.add_row(label, *(form.format(value) for value in values))
    return table


def show_filled_mask(
    output_dir: str | os.PathLike, sentences: Sequence[str], synthesizer: AdversarialSynthesizer, console: Console
) -> None:
    """Load what was saved, as a user will, and fill a mask in an attacked one of the sentences."""
    tokenizer = AutoTokenizer.from_pretrained(output_dir)
    model = AutoModelForMaskedLM.from_pretrained(output_dir).eval()
    for attacked in (synthesizer.attack(sentence, seed=0) for sentence in sentences):
        edited = {i for edit in attacked.edits for i in range(*edit.text_span)}
        whole = [i for i, character in enumerate(attacked.text) if i not in edited and "一" <= character <= "鿿"]
        if edited and whole:
            break
    else:
        return  # not a Chinese corpus
    # the most common character that the attack left alone: Chinese characters are in the vocabulary by frequency
    masked = min(whole, key=lambda i: tokenizer.convert_tokens_to_ids(attacked.text[i]))
    text = attacked.text[:masked] + tokenizer.mask_token + attacked.text[masked + 1 :]
    guesses = pipeline("fill-mask", model=model, tokenizer=tokenizer)(text, top_k=5)
    console.print(Text.assemble("\nattacked: ", attacked.__rich__()), soft_wrap=True)
    console.print(f"masked:   {mark_unseen(text)}", markup=False, soft_wrap=True)
    filled = [f"{guess['token_str']} {guess['score']:.0%}" for guess in guesses]
    console.print(mark_unseen("filled:   " + "  ".join(filled)), markup=False)

"""`rocbert convert`."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

from ..options import REQUIRED, command, option


@dataclass
class ConvertOptions:
    """What to convert, and what its kind leaves open. An option that the kind of source does not have is an error."""

    source: str = option(REQUIRED, "folder, or repository of the Hub", positional=True)
    output: Path = option(REQUIRED, "folder to write, a new one", positional=True)
    vocabulary: str | None = option(
        None,
        "for encoders: characters (what is done without this option), or source to keep the word pieces of a BERT or ERNIE",
    )
    channels: str | None = option(
        None,
        "for encoders: closed (the source's function; done without this option) or open (sound and shape count at once)",
    )
    fusion_layer: int | None = option(None, "for encoders: the layer whose input is fused, the paper's k")
    phonetic_encoder: str | None = option(
        None, "for encoders with closed channels: char_sum (used without this option), char_cnn or table"
    )
    shape_embed_dim: int | None = option(None, "for encoders: width of the glyph features")
    layers: list[int] = option(
        [], "for encoders: the source's layers to keep, counted from 0, with commas between; none: all", separator=","
    )
    sentence_encoder: bool = option(False, "for encoders: write modules.json too, for sentence-transformers")
    prefix: str = option("", "for encoders: what sentence-transformers puts before every text, such as 'query: '")
    seed: int | None = option(None, "for encoders: seed of the weights that the source does not have")
    shape_features: Path | None = option(
        None, "for the authors' layout: the file img_embed.shape_embed, if the checkpoint does not have it"
    )
    pronunciations: Path | None = option(
        None, "for the authors' layout: the file prounciation.proun_id, to compare sizes"
    )


@command([ConvertOptions], example="rocbert convert hfl/chinese-macbert-base rocbert-macbert")
def convert(options: ConvertOptions) -> None:
    """Convert a checkpoint of another layout to RoCBERT, or one of RoCBERT to transformers' roc_bert

    It reads transformers' roc_bert, the authors' layout, and encoders that know Chinese: BERT, ERNIE, RoBERTa, XLM-R. It prints the
    maximum difference of the outputs before and after, and what a user should know of the result.
    """
    from ..conversion import convert as run

    own = [field.name for field in fields(options) if field.name not in ("source", "output")]
    given = {name: getattr(options, name) or None for name in own if name != "seed"}
    print(run(options.source, options.output, seed=options.seed, **given))

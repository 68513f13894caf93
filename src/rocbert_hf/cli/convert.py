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
        None, "for BERT and ERNIE: characters (what is done without this option), or source to keep its word pieces"
    )
    fusion_layer: int | None = option(None, "for BERT and ERNIE: the layer whose input is fused, the paper's k")
    phonetic_encoder: str | None = option(
        None, "for BERT and ERNIE: char_sum (what is used without this option), char_cnn or table"
    )
    seed: int | None = option(None, "for BERT and ERNIE: seed of the weights that the source does not have")
    shape_features: Path | None = option(
        None, "for the authors' layout: the file img_embed.shape_embed, if the checkpoint does not have it"
    )
    pronunciations: Path | None = option(
        None, "for the authors' layout: the file prounciation.proun_id, to compare sizes"
    )


@command([ConvertOptions], example="rocbert convert hfl/chinese-macbert-base rocbert-macbert")
def convert(options: ConvertOptions) -> None:
    """Convert a checkpoint of another layout to RoCBERT, or one of RoCBERT to transformers' roc_bert

    It reads transformers' roc_bert, the authors' layout, and any Chinese BERT or ERNIE.
    """
    from ..conversion import convert as run

    own = [field.name for field in fields(options) if field.name not in ("source", "output")]
    print(run(options.source, options.output, **{name: getattr(options, name) for name in own}))

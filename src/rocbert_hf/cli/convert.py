"""`rocbert convert`."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

from ..characters.unseen import mark_unseen
from ..options import REQUIRED, command, option


@dataclass
class ConvertOptions:
    """What to convert, and what its kind leaves open. An option that the kind of source does not have is an error."""

    source: str = option(REQUIRED, "folder or Hub id of the checkpoint", positional=True)
    output: Path = option(REQUIRED, "folder to write, a new one", positional=True)
    vocabulary: str | None = option(
        None,
        "for encoders: vocabulary of the result; characters, or source to keep the word pieces of a BERT or ERNIE",
        unset="characters",
    )
    channels: str | None = option(
        None,
        "for encoders: how sound and shape start; closed begins as the source's function, open lets them count at once",
        unset="closed",
    )
    fusion_layer: int | None = option(
        None, "for encoders: the layer whose input is fused, the paper's k", unset="as in RoCBertConfig"
    )
    phonetic_encoder: str | None = option(
        None,
        "for encoders with closed channels: what makes the vector of a pronunciation; char_sum, char_cnn or table",
        unset="char_sum",
    )
    shape_embed_dim: int | None = option(None, "for encoders: width of the glyph features", unset="as in RoCBertConfig")
    layers: list[int] = option(
        [],
        "for encoders: the source's layers to keep, counted from 0, with commas between",
        separator=",",
        unset="all",
    )
    sentence_encoder: bool = option(False, "for encoders: write modules.json too, for sentence-transformers")
    prefix: str = option("", "for encoders: what sentence-transformers puts before every text, such as 'query: '")
    seed: int | None = option(None, "for encoders: seed of the weights that the source does not have", unset="0")
    shape_features: Path | None = option(
        None, "for the authors' layout: the file img_embed.shape_embed, if the checkpoint has no glyph features"
    )
    pronunciations: Path | None = option(
        None, "for the authors' layout: the file prounciation.proun_id, to check that it fits the checkpoint"
    )


@command([ConvertOptions], example="rocbert convert hfl/chinese-macbert-base rocbert-macbert")
def convert(options: ConvertOptions) -> None:
    """Convert a checkpoint of another layout to RoCBERT, or one of RoCBERT to transformers' roc_bert

    It reads transformers' roc_bert, the authors' layout, and encoders that know Chinese: BERT, ERNIE, NEZHA, RoBERTa, XLM-R. It prints the
    maximum difference of the outputs before and after, and what a user should know of the result.
    """
    from ..conversion import convert as run

    without = ConvertOptions(options.source, options.output)
    # 0 is a choice: the embeddings are fused
    names = [field.name for field in fields(options) if getattr(options, field.name) != getattr(without, field.name)]
    given = {name: getattr(options, name) for name in names}
    print(mark_unseen(str(run(options.source, options.output, **given))))

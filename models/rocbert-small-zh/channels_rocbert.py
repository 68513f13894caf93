"""
What RoCBERT reads: words, positions and segments, and the vectors of each token's sound and shape (section 4.1).

`RoCBertEmbeddings` holds them all. The tables that fill new models, of glyph images and of pinyin, come first.
"""

import functools
import math
from pathlib import Path

import numpy as np
import torch
from torch import nn

from .acceleration_rocbert import DerivedTables, RoCBertDropout
from .configuration_rocbert import WEIGHING_FUSIONS, RoCBertConfig

# Present where the package is installed; a checkpoint loaded with `trust_remote_code` brings the same tables as weights.
RESOURCES = Path(__file__).with_name("resources")


# ------------------------------------------------------------------------------------------------ built-in tables


@functools.cache
def pixel_glyph_features(dim: int) -> torch.Tensor:
    """
    Features of the packaged glyph images, in the orthonormal 2-D cosine basis: the `dim` lowest frequencies of each
    32x32 image (1,024 keep the whole image, rotated), centred and scaled to unit variance over the table. Euclidean
    distances are those of the slightly blurred images.

    Returns:
        `torch.FloatTensor` of shape (16,224, dim).

    Raises:
        ValueError: `dim` is over the 1,024 pixels of an image.
    """
    if not 1 <= dim <= 32 * 32:
        raise ValueError(f"`shape_embed_dim` must be in 1..1024 to hold features of 32x32 glyph images; got {dim}.")
    with np.load(RESOURCES / "glyphs.npz") as archive:
        packed = archive["packed"]
    images = np.stack([packed >> 4, packed & 15], axis=-1).reshape(-1, 32, 32).astype(np.float32) / 15
    frequency, position = np.mgrid[0:32, 0:32]
    basis = np.cos(np.pi * (position + 0.5) * frequency / 32).astype(np.float32) * math.sqrt(2 / 32)
    basis[0] /= math.sqrt(2)
    coefficients = (basis @ images @ basis.T).reshape(len(images), -1)
    lowest_first = np.argsort((frequency + position).reshape(-1), kind="stable")[:dim]
    features = coefficients[:, lowest_first]
    features -= features.mean(axis=0)
    return torch.from_numpy(features / features.std())


@functools.cache
def _packaged_pronunciation_letters() -> np.ndarray:
    """
    Which pronunciations each pronunciation of the packaged inventory is spelled with: a syllable by its letters ("ke"
    by those of "k" and "e"), every other entry by itself.

    Returns:
        int64 of shape (pronunciations, 6), padded with -1. (No tensor: one made while transformers builds a model
        would be on the meta device, and be kept.)
    """
    inventory = (RESOURCES / "pronunciations.txt").read_text(encoding="utf-8").split("\n")[:-1]
    ids = {entry: index for index, entry in enumerate(inventory)}
    letters = np.full((len(inventory), 6), -1, dtype=np.int64)
    for index, entry in enumerate(inventory):
        spelled = entry.isascii() and entry.isalpha()
        spelling = [ids[letter] for letter in entry] if spelled else [index]
        letters[index, : len(spelling)] = spelling
    return letters


def default_pronunciation_letters(size: int) -> torch.Tensor:
    """
    The spelling of `size` pronunciations, (size, 6): the packaged one where that is the packaged inventory's size;
    otherwise each entry stands for itself until [`RoCBertModel.set_pronunciation_letters`] or a checkpoint says more.
    """
    if (RESOURCES / "pronunciations.txt").is_file():
        letters = _packaged_pronunciation_letters()
        if len(letters) == size:
            return torch.from_numpy(letters.copy())
    letters = torch.full((size, 6), -1)
    letters[:, 0] = torch.arange(size)
    return letters


def has_glyph_images(shape_embed: nn.Embedding) -> bool:
    """Whether the packaged glyph images are to fill the table: it has their size, and no checkpoint has filled it."""
    if getattr(shape_embed.weight, "_is_hf_initialized", False) or not (RESOURCES / "glyphs.npz").is_file():
        return False
    rows, dim = shape_embed.weight.shape
    return rows == 16224 and dim <= 32 * 32


# ------------------------------------------------------------------------------------------------ embeddings


class RoCBertEmbeddings(nn.Module):
    """
    Word, position and segment embeddings, and the vectors of the phonetic and the visual channel.

    With `concat` and `sum` fusion the channels are merged here, exactly as in transformers' `RoCBertEmbeddings`; for the
    fusions that weigh, their vectors are returned beside the embeddings. All weights are read in `forward`, through the
    modules that hold them, so that adapters, offloading and sharding work.
    """

    def __init__(self, config: RoCBertConfig):
        super().__init__()
        self.fusion = config.fusion
        self.pad_token_id = config.pad_token_id
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=config.pad_token_id)
        self.position_embeddings = None
        if config.position_embedding_type == "absolute":
            self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = RoCBertDropout(config.hidden_dropout_prob)

        self.has_pronunciation = config.enable_pronunciation and config.fusion != "none"
        self.has_shape = config.enable_shape and config.fusion != "none"
        merged_size = config.hidden_size
        if self.has_pronunciation:
            self.pronunciation_embed = nn.Embedding(
                config.pronunciation_vocab_size, config.pronunciation_embed_dim, padding_idx=config.pad_token_id
            )
            merged_size += config.pronunciation_embed_dim
        if self.has_shape:
            self.shape_embed = nn.Embedding(
                config.shape_vocab_size, config.shape_embed_dim, padding_idx=config.pad_token_id
            )
            self.freeze_glyph_features()
            merged_size += config.shape_embed_dim
        spelled = self.has_pronunciation and config.phonetic_encoder != "table"
        letters = default_pronunciation_letters(config.pronunciation_vocab_size) if spelled else None
        self.register_buffer("pronunciation_letters", letters)
        self.letter_convolution = None
        if spelled and config.phonetic_encoder == "char_cnn":
            size = config.pronunciation_embed_dim
            self.letter_convolution = nn.Conv1d(size, size, kernel_size=2)
        self.tables = DerivedTables()
        self.map_inputs_layer = nn.Linear(merged_size, config.hidden_size) if config.fusion == "concat" else None

    def freeze_glyph_features(self) -> None:
        """Keeps glyph features fixed if the fusion has a projection of them to learn (section 4.1)."""
        if self.has_shape and self.fusion in WEIGHING_FUSIONS:
            self.shape_embed.weight.requires_grad_(False)

    def forward(
        self,
        input_ids: torch.LongTensor | None,
        input_shape_ids: torch.LongTensor | None,
        input_pronunciation_ids: torch.LongTensor | None,
        token_type_ids: torch.LongTensor | None,
        position_ids: torch.LongTensor,
        inputs_embeds: torch.FloatTensor | None = None,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """
        Args:
            input_ids, input_shape_ids, input_pronunciation_ids, token_type_ids, position_ids: (batch, sequence).
            inputs_embeds: (batch, sequence, hidden), instead of `input_ids`.

        Returns:
            The embeddings (batch, sequence, hidden), and for a fusion that weighs the vectors of the channels whose ids
            are given: `"pronunciation"` (batch, sequence, pronunciation_embed_dim), `"shape"` (batch, sequence,
            shape_embed_dim).
        """
        words = self.word_embeddings(input_ids) if inputs_embeds is None else inputs_embeds
        if token_type_ids is None:
            token_type_ids = torch.zeros(1, 1, dtype=torch.long, device=words.device)
        places = self.token_type_embeddings(token_type_ids)
        if self.position_embeddings is not None:
            places = places + self.position_embeddings(position_ids)
        if self.fusion == "concat":
            words = self._concatenate(words, input_shape_ids, input_pronunciation_ids)
        embeddings = self.dropout(self.LayerNorm(words + places))
        if self.fusion in ("concat", "none"):
            return embeddings, {}
        vectors = {}
        if self.has_pronunciation and input_pronunciation_ids is not None:
            vectors["pronunciation"] = self.pronunciation(input_pronunciation_ids)
        if self.has_shape and input_shape_ids is not None:
            vectors["shape"] = self.shape_embed(input_shape_ids)
        if self.fusion == "sum":
            return torch.stack([embeddings, *vectors.values()]).sum(0) / (1 + len(vectors)), {}
        return embeddings, vectors

    def pronunciation(self, ids: torch.LongTensor) -> torch.Tensor:
        """`Ph` of pronunciation ids: (batch, sequence) -> (batch, sequence, pronunciation_embed_dim)."""
        if self.pronunciation_letters is None:
            return self.pronunciation_embed(ids)
        if self.tables.usable(*self._pronunciation_parts()):
            table = self.tables.get(self._pronunciation_weights(), self._pronunciation_tables)["pronunciation"]
        else:
            table = self.pronunciation_table()
        return nn.functional.embedding(ids, table, padding_idx=self.pad_token_id)

    def pronunciation_table(self) -> torch.Tensor:
        """`Ph`: the vector of every pronunciation, (pronunciation_vocab_size, pronunciation_embed_dim), section 4.1."""
        letters = self.pronunciation_letters
        if letters is None:
            return _all_rows(self.pronunciation_embed)
        # called as a module, so that an adapter's part is in it
        table = self.pronunciation_embed(torch.arange(len(letters), device=letters.device))
        # a letter absent (-1) selects the appended row of zeros
        with_absent = torch.cat([table, table.new_zeros(1, table.shape[1])])
        if self.letter_convolution is not None:
            return self._convolve_letters(with_absent, letters)
        return nn.functional.embedding_bag(letters % len(with_absent), with_absent, mode="sum")

    def channel_tables(self) -> dict[str, torch.Tensor]:
        """All vectors of each channel, by its name: (entries, dim)."""
        tables = {}
        if self.has_pronunciation:
            tables["pronunciation"] = self.pronunciation_table()
        if self.has_shape:
            tables["shape"] = _all_rows(self.shape_embed)
        return tables

    def channel_parts(self) -> tuple[nn.Module, ...]:
        """The modules that `channel_tables` is computed from."""
        parts = self._pronunciation_parts()
        return (*parts, self.shape_embed) if self.has_shape else parts

    def channel_weights(self) -> list[torch.Tensor]:
        """The tensors that `channel_tables` is computed from."""
        weights = self._pronunciation_weights()
        return [*weights, self.shape_embed.weight] if self.has_shape else weights

    def _convolve_letters(self, vectors: torch.Tensor, letters: torch.LongTensor) -> torch.Tensor:
        r"""
        `phonetic_encoder="char_cnn"`: a pronunciation spelled with the letters l1..ln is

            Ph[d] = max over j in 0..n of (A l_j + B l_(j+1) + c)[d],   l_0 = l_(n+1) = 0

        a convolution two letters wide, max-pooled over the spelling, as in ChineseBERT's pinyin embedding (Sun et al.,
        ACL 2021), but over the vectors that the letters have in text. So it is for syllables and for the letters
        themselves, whose "k" is thus the beginning of "ke"; every other entry is its own vector.

        Args:
            vectors: (pronunciations + 1, dim), the last row zeros.
            letters: (pronunciations, n), as in `pronunciation_letters`.
        """
        size = len(vectors) - 1
        present = letters >= 0
        spelled = present.sum(1) > 1
        # letters are the entries that others are spelled with; counting them keeps the shapes free of the data
        uses = (present & spelled[:, None]).to(torch.long).flatten()
        is_letter = torch.zeros(size + 1, dtype=torch.long, device=uses.device).index_add(
            0, letters.flatten() % (size + 1), uses
        )
        convolved = spelled | (is_letter[:size] > 0)

        letters = nn.functional.pad(letters, (1, 1), value=-1)
        touched = (letters[:, :-1] >= 0) | (letters[:, 1:] >= 0)
        letters = letters % (size + 1)
        # every letter between two zeros: B l + c, then A l + c; of the zeros: c
        second, first = self.letter_convolution(nn.functional.pad(vectors[..., None], (1, 1))).unbind(-1)
        windows = first[letters[:, :-1]] + (second - second[-1])[letters[:, 1:]]
        pooled = windows.masked_fill(~touched[..., None], -math.inf).amax(1)
        return torch.where(convolved[:, None], pooled, vectors[:-1])

    def _pronunciation_parts(self) -> tuple[nn.Module, ...]:
        if not self.has_pronunciation:
            return ()
        parts = (self.pronunciation_embed, self.letter_convolution)
        return tuple(part for part in parts if part is not None)

    def _pronunciation_weights(self) -> list[torch.Tensor]:
        weights = [weight for part in self._pronunciation_parts() for weight in part.parameters()]
        return weights if self.pronunciation_letters is None else [*weights, self.pronunciation_letters]

    def precompute_tables(self) -> None:
        """Keeps the table of pronunciations until `train()`, if the channels are merged here."""
        if self.pronunciation_letters is not None and self.fusion in ("concat", "sum"):
            self.tables.precompute(self.pronunciation_embed.weight.device, self._pronunciation_tables)

    def _pronunciation_tables(self) -> dict[str, torch.Tensor]:
        return {"pronunciation": self.pronunciation_table()}

    def _concatenate(self, words, shape_ids, pronunciation_ids):
        channels = [words]
        absent = torch.zeros(words.shape[:2], dtype=torch.long, device=words.device)
        if self.has_shape:
            channels.append(self.shape_embed(absent if shape_ids is None else shape_ids))
        if self.has_pronunciation:
            channels.append(self.pronunciation(absent if pronunciation_ids is None else pronunciation_ids))
        return self.map_inputs_layer(torch.cat(channels, dim=-1))


def _all_rows(embedding: nn.Embedding) -> torch.Tensor:
    return embedding(torch.arange(embedding.num_embeddings, device=embedding.weight.device))

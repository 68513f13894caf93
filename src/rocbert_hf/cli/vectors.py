"""`rocbert vectors`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..options import REQUIRED, command, option


@dataclass
class VectorsOptions:
    """Where the vectors are, and where to write them."""

    source: Path = option(
        REQUIRED, "file of word2vec or GloVe vectors, or wheel, sdist or archive that holds one", positional=True
    )
    output: Path = option(REQUIRED, "file to write, such as vectors.safetensors", positional=True)
    overwrite: bool = option(False, "replace the file that is there")


@command([VectorsOptions], example="rocbert vectors synonyms-3.10.2.tar.gz vectors.safetensors")
def vectors(options: VectorsOptions) -> None:
    """Make word vectors usable for the synonym attack and TextFooler

    They are written in half precision, without pickle; `--attacks` files and TextFooler take the file.
    """
    from ..characters.word_vectors import WordVectors

    if options.output.exists() and not options.overwrite:
        raise OSError(f"{options.output} exists; --overwrite replaces it")
    if not options.output.parent.is_dir():
        raise OSError(f"the folder of {options.output} does not exist")
    read = WordVectors.read(options.source)
    read.write(options.output)
    print(f"{len(read.words):,} words, vectors of {read.vectors.shape[1]}, written to {options.output}")

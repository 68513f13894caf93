"""`rocbert card`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..options import REQUIRED, command, option


@dataclass
class CardOptions:
    """What to write a card for."""

    folder: Path = option(REQUIRED, "folder of a checkpoint", positional=True)
    name: str | None = option(None, "name of the repository, such as me/rocbert", unset="the folder's name")
    license: str | None = option(None, "licence of the weights, as the Hub spells it: apache-2.0")
    overwrite: bool = option(False, "replace the card that is there")


@command([CardOptions], example="rocbert card rocbert-tiny --name me/rocbert-tiny")
def card(options: CardOptions) -> None:
    """Write the model card of a checkpoint, README.md in its folder, from what the training run left there"""
    from ..files import write_whole
    from ..hub.model_card import model_card

    text, file = model_card(options.folder, options.name, options.license), options.folder / "README.md"
    if file.exists() and not options.overwrite:
        raise OSError(f"{file} exists; --overwrite replaces it")
    write_whole(file, text)
    print(f"written to {file}")

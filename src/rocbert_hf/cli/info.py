"""`rocbert info`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..options import REQUIRED, command, option


@dataclass
class InfoOptions:
    """What to describe."""

    folder: Path = option(REQUIRED, "folder of a checkpoint", positional=True)
    json: bool = option(False, "print it as JSON")


@command([InfoOptions], example="rocbert info rocbert-tiny")
def info(options: InfoOptions) -> None:
    """Say what is in a checkpoint: fusion, sizes, dtype, hashes

    It loads no weights and opens no pickle.
    """
    import json

    from ..hub.description import describe, overview

    description = describe(options.folder)
    print(json.dumps(description, indent=2) if options.json else overview(description))

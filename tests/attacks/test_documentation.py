"""docs/guide/attacks.md shows what the package does: its commands are run, its Python is executed."""

import re
import shlex
from pathlib import Path

import pytest

from rocbert_hf.attacks import ATTACKS
from rocbert_hf.resources import demo_sentences

from ..command_line import rocbert

PAGE = Path(__file__).parents[2] / "docs/guide/attacks.md"
pytestmark = pytest.mark.skipif(not PAGE.is_file(), reason="the documentation is not part of an installed package")
KOBE = "科比的精神值得永远学习"


def rows():
    """Cells of every table row."""
    lines = PAGE.read_text(encoding="utf-8").splitlines() if PAGE.is_file() else []
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines if line.startswith("| `")]


def examples():
    """(command, output) of every documented example."""
    for name, *cells in rows():
        name = name.strip("`")
        if name.startswith("rocbert "):
            yield name, cells[0]
        elif name in ATTACKS:
            text, output = (KOBE, cells[1]) if len(cells) == 3 else (cells[1], cells[2])
            yield f"rocbert attack {text} --attacks {name} --seed {cells[0]}", output


def test_every_attack_has_an_example():
    assert [name.strip("`") for name, *_ in rows() if name.strip("`") in ATTACKS] == list(ATTACKS)


@pytest.mark.parametrize(("command", "output"), list(examples()))
def test_commands_print_what_the_page_says(command, output):
    result = rocbert(*shlex.split(command)[1:])
    shown = "".join(char if char.isprintable() else f"<U+{ord(char):04X}>" for char in result.stdout.rstrip("\n"))
    assert shown == output


def test_python_of_the_page_runs():
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    names = {"texts": demo_sentences()[:5], "labels": [0] * 5}
    known = dict(ATTACKS)
    for block in blocks:
        if "from_pretrained" in block or "vectors.txt" in block:  # needs a download, or the reader's file
            compile(block, PAGE.name, "exec")
            continue
        if "dataset" in block:
            from datasets import Dataset

            names["dataset"] = Dataset.from_dict({"text": names["texts"], "label": names["labels"]})
        try:
            exec(block, names)
        finally:
            ATTACKS.clear()
            ATTACKS.update(known)

"""The commands that the documentation shows are commands that `rocbert` takes."""

import re
import shlex
import textwrap
from pathlib import Path

import pytest

from rocbert_hf.cli import command_named
from rocbert_hf.options import parse_options

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
# a file that a page shows before it is used: its name in a comment, then its lines
FILE = re.compile(r"^ {4}# (\w+\.yaml)\n((?: {4}\S.*\n)+)", re.MULTILINE)
COMMAND = re.compile(
    r"^ {0,6}rocbert (\w+) ((?:[^#|<>\n]|(?<=\S)#)*)", re.MULTILINE
)  # of a name such as ours#0, # is a part


def texts() -> list[str]:
    pages = [page.read_text(encoding="utf-8") for page in PAGES if page.is_file()]
    script = ROOT / "conversion" / "convert_bert.py"  # `rocbert convert` under another name, in a string of Python
    return [*pages, script.read_text(encoding="utf-8").replace(f"python conversion/{script.name}", "rocbert convert")]


def shown_commands() -> list[tuple[str, str]]:
    """(name, arguments) of each command that stands on lines of its own and leaves nothing out."""
    found = (match.groups() for text in texts() for match in COMMAND.finditer(re.sub(r"\\+\n", " ", text)))
    return [(name, arguments) for name, arguments in found if "..." not in arguments]


@pytest.mark.skipif(not (ROOT / "docs").is_dir(), reason="needs a clone of the repository")
def test_the_commands_of_the_documentation_are_understood(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, content in (match.groups() for text in texts() for match in FILE.finditer(text)):
        (tmp_path / name).write_text(textwrap.dedent(content), encoding="utf-8")
    commands = shown_commands()
    assert len(commands) > 30
    for name, arguments in commands:
        command, argv = command_named(name), shlex.split(arguments)
        try:
            parse_options(command.types(argv), argv, command.default_config)
        except SystemExit:
            pytest.fail(f"rocbert {name} {arguments}: {capsys.readouterr().err}")

"""The commands that the documentation shows are commands that `rocbert` takes."""

import re
import shlex
from pathlib import Path

import pytest

from rocbert_hf.cli import command_named
from rocbert_hf.options import parse_options

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMAND = re.compile(r"^ {0,6}rocbert (\w+) ([^#|<>\n]*)", re.MULTILINE)


def shown_commands() -> list[tuple[str, str]]:
    """(name, arguments) of each command that stands on lines of its own and leaves nothing out."""
    texts = (page.read_text(encoding="utf-8").replace("\\\n", " ") for page in PAGES if page.is_file())
    found = (match.groups() for text in texts for match in COMMAND.finditer(text))
    return [(name, arguments) for name, arguments in found if "..." not in arguments]


@pytest.mark.skipif(not (ROOT / "docs").is_dir(), reason="needs a clone of the repository")
def test_the_commands_of_the_documentation_are_understood(capsys):
    commands = shown_commands()
    assert len(commands) > 30
    for name, arguments in commands:
        command, argv = command_named(name), shlex.split(arguments)
        try:
            parse_options(command.types(argv), argv, command.default_config)
        except SystemExit:
            pytest.fail(f"rocbert {name} {arguments}: {capsys.readouterr().err}")

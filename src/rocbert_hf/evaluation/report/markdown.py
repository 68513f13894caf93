"""A report as Markdown; charts are files beside it."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable

from ...attacks.attacked_text import AttackedText, visible
from ...characters.unseen import mark_unseen
from .content import Measured, Section, Shown, Table


def markdown(sections: Iterable[Section]) -> str:
    """The sections as Markdown."""
    blocks: list[str] = []
    for section in sections:
        blocks.append("#" * section.level + " " + _escaped(section.title))
        blocks += map(_escaped, section.text)
        if section.code:
            blocks.append("\n".join(f"    {mark_unseen(line)}" for line in section.code.split("\n")))
        for table in section.tables:
            blocks.append(_table(table))
            if table.note:
                blocks.append(_escaped(table.note))
        blocks += [f"![{_escaped(what)}]({name})" for name, what in section.charts]
        for whose, examples in section.examples:
            blocks.append(f"**{_escaped(whose)}**")
            blocks.append("\n".join(map(_example, examples)))
    return "\n\n".join(blocks) + "\n"


def _escaped(text: str) -> str:
    """Any text on one line: nothing in it is markup, and what cannot be seen is named."""
    return re.sub(r"([\\`*_\[\]|#~])", r"\\\1", html.escape(_one_line(mark_unseen(text)), quote=False))


def _one_line(text: str) -> str:
    return re.sub(r"\s*[\r\n]+\s*", " ", text)


def _table(table: Table) -> str:
    rows = [table.header, None, *table.rows]
    return "\n".join(
        "| " + " | ".join(["---"] * len(table.header) if row is None else map(_cell, row)) + " |" for row in rows
    )


def _cell(cell: str | Measured) -> str:
    if isinstance(cell, str):
        return _escaped(cell)
    value = f"**{_escaped(cell.value)}**" if cell.best else _escaped(cell.value)
    return f"{value} {_escaped(cell.interval)}" if cell.interval else value


def _example(shown: Shown) -> str:
    return f"- {_escaped(shown.verdict)}: {_marked(shown.attacked)}"


def _marked(attacked: AttackedText) -> str:
    """The attacked text with each edit as ~~source~~ **form**."""
    pieces = []
    for before, after, edit in attacked.pieces():
        if edit is None:
            pieces.append(_escaped(after))
        else:
            pieces.append((f"~~{_escaped(before)}~~" if before else "") + f" **{_escaped(visible(after))}** ")
    return "".join(pieces)

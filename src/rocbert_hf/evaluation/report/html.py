"""A report as one HTML page that needs nothing from elsewhere."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping

from ...attacks.attacked_text import COLOURS, OTHER_COLOUR
from ...web_page import html_page, html_text
from .content import Measured, Section, Shown, Table

_STYLE = """
h3 { font-size: 1.05em; margin: 1.8em 0 .4em; } h4 { font-size: .95em; margin: 1.2em 0 .2em; color: #444; }
ul.words { font-size: 1.05em; }
.wide { overflow-x: auto; }
.interval, .note { color: #777; font-size: .85em; }
img { max-width: min(100%, 46em); height: auto; display: block; margin: .8em 0; }
ol.texts { padding-left: 1.6em; }
ol.texts li { margin: .5em 0; overflow-wrap: anywhere; line-height: 2.1; border-bottom: 1px solid #eee; }
ol.texts .verdict { display: block; font-size: .85em; line-height: 1.5; color: #555; margin-bottom: .35em; }
.legend span { margin-right: 1.2em; font-size: .85em; }
pre { font-size: .75em; white-space: pre-wrap; overflow-wrap: anywhere; color: #555; }
"""
_LEGEND = {"sound": "phonetic", "shape": "visual", "meaning": "synonym", "other": None}


def page(
    sections: Iterable[Section], charts: Mapping[str, bytes], title: str = "How robust are these classifiers?"
) -> str:
    """The page.

    Args:
        sections: what it says.
        charts: file name -> PNG.
        title: of the window.
    """
    body = "\n".join(_section(section, charts) for section in sections)
    return html_page(title, body, _STYLE)


def _section(section: Section, charts: Mapping[str, bytes]) -> str:
    parts = [f"<h{section.level}>{html_text(section.title)}</h{section.level}>"]
    if section.text:
        parts.append('<ul class="words">' + "".join(f"<li>{html_text(line)}</li>" for line in section.text) + "</ul>")
    if section.code:
        parts.append(f"<details><summary>as JSON</summary><pre>{html_text(section.code)}</pre></details>")
    parts += map(_table, section.tables)
    for name, what in section.charts:
        image = base64.b64encode(charts[name]).decode("ascii")
        parts.append(f'<img src="data:image/png;base64,{image}" alt="{html_text(what)}">')
    if section.examples:
        parts.append(_legend())
    for whose, examples in section.examples:
        parts.append(f"<h4>{html_text(whose)}</h4>")
        parts.append('<ol class="texts">' + "".join(map(_example, examples)) + "</ol>")
    return "\n".join(parts)


def _table(table: Table) -> str:
    head = "".join(f"<th>{html_text(cell)}</th>" for cell in table.header)
    rows = "\n".join("<tr>" + "".join(map(_cell, row)) + "</tr>" for row in table.rows)
    note = f'<p class="note">{html_text(table.note)}</p>' if table.note else ""
    return f'<div class="wide"><table><tr>{head}</tr>\n{rows}</table></div>{note}'


def _cell(cell: str | Measured) -> str:
    if isinstance(cell, str):
        return f"<td>{html_text(cell)}</td>"
    value = f"<b>{html_text(cell.value)}</b>" if cell.best else html_text(cell.value)
    interval = f' <span class="interval">{html_text(cell.interval)}</span>' if cell.interval else ""
    return f'<td class="number">{value}{interval}</td>'


def _example(shown: Shown) -> str:
    return f'<li><span class="verdict">{html_text(shown.verdict)}</span>{shown.attacked.to_html()}</li>'


def _legend() -> str:
    entries = (
        f'<span style="color:{COLOURS.get(attack, OTHER_COLOUR)}">■ {html_text(what)}</span>'
        for what, attack in _LEGEND.items()
    )
    return '<p class="legend">' + "".join(entries) + "Above each attacked place stands its source.</p>"

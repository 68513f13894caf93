"""A page that shows attacked texts, for reading and for sharing: one HTML file without anything from elsewhere."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

from ..web_page import html_page, html_text
from .attacked_text import COLOURS, OTHER_COLOUR, AttackedText

_STYLE = """
body { line-height: 2.1; }
table, footer, .config { line-height: 1.6; }
td.number { text-align: right; }
ol { padding-left: 2.2em; }
li { margin: .4em 0; border-bottom: 1px solid #eee; overflow-wrap: anywhere; white-space: pre-wrap; }
footer, .config { color: #777; font-size: .8em; }
"""
_BODY = """<h1>{title}</h1>
<p>{summary}</p>
<table><tr><th>attack</th><th>steps</th><th>share</th></tr>
{rows}
</table>
<p class="config">{config}</p>
<ol>
{texts}
</ol>
<footer>Above each attacked place stands its source; the tooltip names the attacks in the order they were applied.
{left_out}</footer>"""


class AttackPage:
    """Collects attacked texts and counts their attacks; `html()` is the page.

    Args:
        title: the heading.
        config: the synthesizer's, to print.
        shown: texts that the page shows at most; the counts cover all.
    """

    def __init__(self, title: str = "Attacked text", config: Mapping[str, Any] | None = None, shown: int = 1000):
        self.title = title
        self.config = config
        self.shown = shown
        self._lines: list[str] = []
        self._steps: Counter[str] = Counter()
        self._texts = self._edits = self._characters = self._attacked = 0

    def add(self, attacked: AttackedText) -> None:
        self._texts += 1
        self._edits += len(attacked.edits)
        self._characters += len(attacked.source)
        self._attacked += sum(edit.source_span[1] - edit.source_span[0] for edit in attacked.edits)
        self._steps.update(name for edit in attacked.edits for name in edit.attacks)
        if len(self._lines) < self.shown:
            self._lines.append(f"<li>{attacked.to_html()}</li>")

    def html(self) -> str:
        share = self._attacked / self._characters if self._characters else 0
        left_out = self._texts - len(self._lines)
        body = _BODY.format(
            title=html_text(self.title),
            summary=f"{self._texts:,} texts, {self._edits:,} edits, {share:.1%} of the characters attacked.",
            rows="\n".join(_row(name, count, sum(self._steps.values())) for name, count in self._steps.most_common()),
            config=html_text(json.dumps(self.config, ensure_ascii=False)) if self.config else "",
            texts="\n".join(self._lines),
            left_out=f"{left_out:,} more texts are counted but not shown." if left_out else "",
        )
        return html_page(self.title, body, _STYLE, language="zh")


def _row(name: str, count: int, total: int) -> str:
    colour = COLOURS.get(name, OTHER_COLOUR)
    return (
        f'<tr><td style="color:{colour}">{html_text(name)}</td><td class="number">{count:,}</td>'
        f'<td class="number">{count / total:.1%}</td></tr>'
    )

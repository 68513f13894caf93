"""A report people read: `report.json`, `report.md`, and `report.html` with its pictures inside."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...files import write_whole
from ..summary import timing
from .charts import draw_charts, png
from .content import opening_lines, sections_of
from .html import page
from .markdown import markdown

__all__ = ["opening_lines", "write_report"]


def write_report(
    report: Mapping[str, Any],
    records: Sequence[Mapping[str, Any]],
    folder: str | os.PathLike,
) -> None:
    """Write the report's files into a folder that exists; each is replaced as a whole.

    Args:
        report: as `summary.summarise` makes it.
        records: the lines of `examples.jsonl`, for the examples.
        folder: gets report.json, report.md, report.html, timing.json and the charts as PNG.
    """
    folder = Path(folder)
    charts = {name: png(figure) for name, figure in draw_charts(report).items()}
    sections = list(sections_of(report, records))
    for name, image in charts.items():
        write_whole(folder / name, image)
    write_whole(folder / "timing.json", json.dumps(timing(records), ensure_ascii=False, indent=1))
    write_whole(folder / "report.md", markdown(sections))
    write_whole(folder / "report.html", page(sections, charts))
    write_whole(folder / "report.json", json.dumps(report, ensure_ascii=False, indent=1))

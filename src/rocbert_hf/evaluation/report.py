"""A report people read: `report.json`, `report.md`, and `report.html` with its pictures inside."""

from __future__ import annotations

import base64
import html
import io
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..attacks.attacked_text import COLOURS, OTHER_COLOUR, AttackedText
from ..files import write_whole
from .metrics import SCORES
from .summary import CLEAN, timing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN_EXAMPLES = 4  # a model and attacker
PALETTE = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#555555")  # Okabe and Ito
CJK_FONTS = ("Noto Sans CJK SC", "Noto Sans SC", "Source Han Sans SC", "PingFang SC", "Microsoft YaHei", "SimHei")


@dataclass
class Table:
    """Cells as text; the first column names the rows."""

    header: list[str]
    rows: list[list[str]]
    note: str = ""


@dataclass
class Section:
    """A part of the report, under its heading."""

    title: str
    level: int = 2
    text: list[str] = field(default_factory=list)
    code: str = ""
    tables: list[Table] = field(default_factory=list)
    charts: list[tuple[str, str]] = field(default_factory=list)  # (file name, what it shows)
    examples: list[tuple[str, list[Mapping[str, Any]]]] = field(default_factory=list)  # (whose, records)


def write_report(report: Mapping[str, Any], records: Sequence[Mapping[str, Any]], folder: str | os.PathLike) -> None:
    """Write the report's files into a folder that exists; each is replaced as a whole.

    Args:
        report: as `summary.summarise` makes it.
        records: the lines of `examples.jsonl`, for the examples.
        folder: gets report.json, report.md, report.html, timing.json and the charts as PNG.
    """
    folder = Path(folder)
    charts = {name: _png(figure) for name, figure in draw_charts(report).items()}
    sections = list(_sections(report, records))
    for name, image in charts.items():
        write_whole(folder / name, image)
    write_whole(folder / "timing.json", json.dumps(timing(records), ensure_ascii=False, indent=1))
    write_whole(folder / "report.md", markdown(sections))
    write_whole(folder / "report.html", page(sections, charts))
    write_whole(folder / "report.json", json.dumps(report, ensure_ascii=False, indent=1))


# ------------------------------------------------------------------------------------------------------- what is said


def _sections(report: Mapping[str, Any], records: Sequence[Mapping[str, Any]]) -> Iterable[Section]:
    yield Section("How robust are these classifiers?", 1, text=_in_plain_words(report))
    main, ratios, kinds = grouped_attackers(report["attackers"])
    for task, about in report["tasks"].items():
        name = _slug(task)
        yield Section(f"{task}: {about['examples']:,} texts, {len(about['labels'])} labels")
        if main:
            yield Section(
                "Accuracy",
                3,
                tables=[_accuracy_table(report, task, main)],
                charts=[(f"accuracy-{name}.png", "accuracy by attacker, with 95% intervals")],
            )
            yield Section("All scores", 3, tables=[_scores_table(report, task, main)])
            yield Section("What the attacks took", 3, tables=[_attacks_table(report, task, main)])
        if kinds:
            yield Section(
                "By attack: ADV with one attack alone",
                3,
                tables=[_accuracy_table(report, task, kinds)],
                charts=[(f"attacks-{name}.png", "accuracy by attack")],
            )
        for base, names in ratios.items():
            yield Section(
                f"By share of the characters attacked: {base}",
                3,
                tables=[_accuracy_table(report, task, names)],
                charts=[(f"ratio-{name}-{_slug(base)}.png", f"accuracy by ratio under {base}")],
            )
        if main:
            yield Section("Which edits worked", 3, tables=[_edits_table(report, task, main)])
        if len(report["models"]) > 1:
            yield Section("Do the models differ?", 3, tables=[_significance_table(report, task)])
        yield Section(
            "Examples",
            3,
            examples=list(
                _examples(report, [r for r in records if r["task"] == task], main or list(report["attackers"]))
            ),
        )
    yield Section("Settings", code=json.dumps(report["settings"], ensure_ascii=False, indent=1))


def grouped_attackers(names: Sequence[str]) -> tuple[list[str], dict[str, list[str]], list[str]]:
    """(attackers as they are, attacker -> its names with a ratio in their order, ADV's with one attack alone)."""
    main, ratios, kinds = [], {}, []
    for name in names:
        base, _, ratio = name.partition("@")
        if base and re.fullmatch(r"[0-9]+\.?[0-9]*|\.[0-9]+", ratio):
            ratios.setdefault(base, []).append(name)
        elif ":" in name:
            kinds.append(name)
        else:
            main.append(name)
    return main, {base: sorted(found, key=_ratio_of) for base, found in ratios.items()}, kinds


def _ratio_of(name: str) -> float:
    return float(name.partition("@")[2])


def _in_plain_words(report: Mapping[str, Any]) -> list[str]:
    said = []
    attackers = grouped_attackers(report["attackers"])[0] or report["attackers"]
    for task in report["tasks"]:
        for model in report["models"]:
            clean = report["clean"][task][model]["accuracy"]
            worst = min(attackers, key=lambda name: report["attacked"][task][name][model]["accuracy"]["value"])
            attacked = report["attacked"][task][worst][model]
            rate = attacked["success_rate"]["value"]
            said.append(
                f"{model} is right on {_percent(clean['value'])}% of the texts of {task}; under its worst attacker, "
                f"{worst}, on {_percent(attacked['accuracy']['value'])}%"
                + (f" ({_percent(rate)}% of the attacks succeed)." if rate is not None else ".")
            )
    for found in report["significance"]:
        if found["attacker"] in attackers and found["p_value"] < 0.05:
            first, second = found["models"]
            difference = found["accuracy_difference"]["value"]
            better, worse = (first, second) if difference > 0 else (second, first)
            said.append(
                f"On {found['task']} under {found['attacker']} {better} is right more often than {worse}, "
                f"by {_percent(abs(difference))} points (p {_p_value(found['p_value'])})."
            )
    return said


def _accuracy_table(report: Mapping[str, Any], task: str, attackers: Sequence[str]) -> Table:
    columns = {CLEAN: report["clean"][task], **{name: report["attacked"][task][name] for name in attackers}}
    best = {
        name: max(of_model["accuracy"]["value"] for of_model in column.values()) for name, column in columns.items()
    }
    rows = []
    for model in report["models"]:
        cells = []
        for name, column in columns.items():
            accuracy = column[model]["accuracy"]
            mark = "**" if len(report["models"]) > 1 and accuracy["value"] == best[name] else ""
            cells.append(f"{mark}{_percent(accuracy['value'])}{mark} {_interval(accuracy)}")
        rows.append([model, *cells])
    return Table(["accuracy, %", *columns], rows, "In brackets the 95% interval (bootstrap). Bold: best of its column.")


def _scores_table(report: Mapping[str, Any], task: str, attackers: Sequence[str]) -> Table:
    rows = []
    for name in (CLEAN, *attackers):
        of_models = report["clean"][task] if name == CLEAN else report["attacked"][task][name]
        for model, numbers in of_models.items():
            cells = [f"{_percent(numbers[score]['value'])} {_interval(numbers[score])}" for score in SCORES]
            rows.append([name, model, *cells])
    labels = report["tasks"][task]["labels"]
    what = f"of the label {labels[1]}" if len(labels) == 2 else "means over the labels (macro)"
    note = (
        f"F1, precision and recall, in %, are {what}. A text that was wrong before an attack counts as wrong after it."
    )
    return Table(["attacker", "model", *SCORES], rows, note)


def _attacks_table(report: Mapping[str, Any], task: str, attackers: Sequence[str]) -> Table:
    rows = []
    for name in attackers:
        for model, numbers in report["attacked"][task][name].items():
            outcomes = numbers["outcomes"]
            rows.append(
                [
                    name,
                    model,
                    f"{_percent(numbers['success_rate']['value'])} {_interval(numbers['success_rate'])}",
                    *(str(outcomes[status]) for status in ("success", "failed", "skipped")),
                    _percent(numbers["perturbed_share"]["value"]),
                    _decimal(numbers["similarity"]["value"], 2),
                    _decimal(numbers["queries"]["value"], 1),
                ]
            )
    header = ["attacker", "model", "success rate, %", "succeeded", "failed", "skipped"]
    note = (
        "Skipped: wrong before the attack. Success rate: of the others. Share of the characters attacked and similarity "
        f"(by {report['settings']['encoder']}): means of the successful attacks; queries: mean of all."
    )
    return Table([*header, "characters attacked, %", "similarity", "queries a text"], rows, note)


def _edits_table(report: Mapping[str, Any], task: str, attackers: Sequence[str]) -> Table:
    rows = []
    for name in attackers:
        of_models = report["attacked"][task][name]
        texts = Counter()
        for numbers in of_models.values():
            texts.update({edit: counts["texts"] for edit, counts in numbers["edits"].items()})
        for edit, _ in texts.most_common():
            cells = []
            for model in report["models"]:
                counts = of_models[model]["edits"].get(edit, {"texts": 0, "successes": 0})
                share = f" ({_percent(counts['successes'] / counts['texts'])}%)" if counts["texts"] else ""
                cells.append(f"{counts['successes']} of {counts['texts']}{share}")
            rows.append([name, edit, *cells])
    note = "Of the attacked texts in which an edit of that kind occurs, beside others as it may be: how many flipped."
    return Table(["attacker", "edit", *report["models"]], rows, note)


def _significance_table(report: Mapping[str, Any], task: str) -> Table:
    rows = [
        [
            found["attacker"],
            " vs. ".join(found["models"]),
            f"{100 * found['accuracy_difference']['value']:+.1f} {_interval(found['accuracy_difference'])}",
            str(found["only_first_right"]),
            str(found["only_second_right"]),
            _p_value(found["p_value"]),
        ]
        for found in report["significance"]
        if found["task"] == task
    ]
    note = (
        "Accuracy of the first less that of the second, in points, with the 95% interval of the paired bootstrap; p of McNemar's exact test, "
        "not corrected for the number of comparisons."
    )
    return Table(["attacker", "models", "difference", "only first right", "only second right", "p"], rows, note)


def _examples(
    report: Mapping[str, Any], records: Sequence[Mapping[str, Any]], attackers: Sequence[str]
) -> Iterable[tuple[str, list[Mapping[str, Any]]]]:
    """Of each attacker and model the first successful attacks, with the labels' names."""
    for attacker in attackers:
        for model in report["models"]:
            found = [
                {**record, "labels": report["tasks"][record["task"]]["labels"]}
                for record in records
                if (record["attacker"], record["model"], record["status"]) == (attacker, model, "success")
            ]
            if found:
                yield f"{attacker} against {model}", found[:SHOWN_EXAMPLES]


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def _decimal(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _interval(estimate: Mapping[str, float | None]) -> str:
    return "" if estimate["low"] is None else f"[{_percent(estimate['low'])}, {_percent(estimate['high'])}]"


def _p_value(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _slug(name: str) -> str:
    return re.sub(r"[^\w.-]+", "-", name)


# ---------------------------------------------------------------------------------------------------------- as Markdown


def markdown(sections: Iterable[Section]) -> str:
    """The sections as Markdown; charts are named as files beside it."""
    blocks: list[str] = []
    for section in sections:
        blocks.append("#" * section.level + " " + _md(section.title))
        blocks += [_md(line) for line in section.text]
        if section.code:
            blocks.append("\n".join(f"    {line}" for line in section.code.split("\n")))
        for table in section.tables:
            rows = [table.header, ["---"] * len(table.header), *table.rows]
            blocks.append("\n".join("| " + " | ".join(_md(cell, keep="*") for cell in row) + " |" for row in rows))
            if table.note:
                blocks.append(_md(table.note))
        blocks += [f"![{_md(what)}]({name})" for name, what in section.charts]
        for whose, records in section.examples:
            blocks.append(f"**{_md(whose)}**")
            blocks.append("\n".join(f"- {_md(_verdict(record))}: {_marked(record)}" for record in records))
    return "\n\n".join(blocks) + "\n"


def _md(text: str, keep: str = "") -> str:
    """Text as it is, in Markdown: nothing in it is markup, but for the characters to keep."""
    special = "".join(char for char in r"\`*_[]|#" if char not in keep)
    escaped = re.sub(f"([{re.escape(special)}])", r"\\\1", html.escape(text, quote=False))
    return re.sub(r"\s*[\r\n]+\s*", " ", escaped)


def _verdict(record: Mapping[str, Any]) -> str:
    names = record["labels"]
    before, after = names[record["prediction_before"]], names[record["prediction"]]
    sure = max(record["probabilities_before"]), max(record["probabilities_after"])
    return f"{before} ({sure[0]:.0%}) → {after} ({sure[1]:.0%})"


def _marked(record: Mapping[str, Any]) -> str:
    """The attacked text with each edit as ~~source~~ **form**."""
    pieces = []
    for before, after, edit in AttackedText.from_dict(record).pieces():
        if edit is None:
            pieces.append(_md(after))
        else:
            pieces.append((f"~~{_md(before)}~~" if before else "") + (f" **{_md(after)}** " if after else ""))
    return "".join(pieces)


# --------------------------------------------------------------------------------------------------------------- as HTML

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>How robust are these classifiers?</title>
<style>
body {{ font: 16px/1.55 "Noto Sans", "Noto Sans CJK SC", "PingFang SC", "Microsoft YaHei", sans-serif; color: #222;
        max-width: 62em; margin: 2em auto; padding: 0 1.2em; }}
h1 {{ font-size: 1.6em; }} h2 {{ font-size: 1.3em; margin-top: 2.2em; border-bottom: 2px solid #ddd; }}
h3 {{ font-size: 1.05em; margin: 1.8em 0 .4em; }} h4 {{ font-size: .95em; margin: 1.2em 0 .2em; color: #444; }}
ul.words {{ font-size: 1.05em; }}
.wide {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-size: .88em; }}
th, td {{ padding: .3em .9em .3em 0; border-bottom: 1px solid #e3e3e3; text-align: left; vertical-align: top; }}
th {{ border-bottom: 2px solid #999; }}
td.number {{ font-variant-numeric: tabular-nums; white-space: nowrap; }}
.interval, .note {{ color: #777; font-size: .85em; }}
img {{ max-width: min(100%, 46em); height: auto; display: block; margin: .8em 0; }}
ol.texts {{ padding-left: 1.6em; }}
ol.texts li {{ margin: .5em 0; overflow-wrap: anywhere; line-height: 2.1; border-bottom: 1px solid #eee; }}
ol.texts .verdict {{ display: block; font-size: .85em; line-height: 1.5; color: #555;
        margin-bottom: .35em; }}
ruby.edit {{ font-weight: 600; margin: 0 1px; border-bottom: 2px solid currentcolor; cursor: help; }}
rt {{ font-size: .65em; font-weight: 400; color: #777; }}
.legend span {{ margin-right: 1.2em; font-size: .85em; }}
pre {{ font-size: .75em; white-space: pre-wrap; overflow-wrap: anywhere; color: #555; }}
</style>
</head>
<body>
{body}
</body>
</html>
"""
_LEGEND = {"sound": "phonetic", "shape": "visual", "meaning": "synonym", "other": None}


def page(sections: Iterable[Section], charts: Mapping[str, bytes]) -> str:
    """The sections as one HTML page that needs nothing from elsewhere."""
    return _PAGE.format(body="\n".join(_html_section(section, charts) for section in sections))


def _html_section(section: Section, charts: Mapping[str, bytes]) -> str:
    parts = [f"<h{section.level}>{html.escape(section.title)}</h{section.level}>"]
    if section.text:
        parts.append('<ul class="words">' + "".join(f"<li>{html.escape(line)}</li>" for line in section.text) + "</ul>")
    if section.code:
        parts.append(f"<details><summary>as JSON</summary><pre>{html.escape(section.code)}</pre></details>")
    for table in section.tables:
        parts.append(_html_table(table))
    for name, what in section.charts:
        image = base64.b64encode(charts[name]).decode("ascii")
        parts.append(f'<img src="data:image/png;base64,{image}" alt="{html.escape(what)}">')
    if section.examples:
        parts.append(_legend())
    for whose, records in section.examples:
        parts.append(f"<h4>{html.escape(whose)}</h4>")
        parts.append('<ol class="texts">' + "".join(map(_html_example, records)) + "</ol>")
    return "\n".join(parts)


def _html_table(table: Table) -> str:
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in table.header)
    rows = "\n".join("<tr>" + "".join(map(_html_cell, row)) + "</tr>" for row in table.rows)
    note = f'<p class="note">{html.escape(table.note)}</p>' if table.note else ""
    return f'<div class="wide"><table><tr>{head}</tr>\n{rows}</table></div>{note}'


def _html_cell(cell: str) -> str:
    match = re.fullmatch(r"(\*\*)?([-+−–0-9.,< ]+?)(?:\*\*)?(?: (\[.*\]))?", cell)
    if match is None:
        return f"<td>{html.escape(cell)}</td>"
    bold, value, interval = match.groups()
    value = html.escape(value)
    value = f"<b>{value}</b>" if bold else value
    # names of models and labels are cells too, and may look like a number with an interval
    interval = f' <span class="interval">{html.escape(interval)}</span>' if interval else ""
    return f'<td class="number">{value}{interval}</td>'


def _html_example(record: Mapping[str, Any]) -> str:
    text = AttackedText.from_dict(record).to_html()
    return f'<li><span class="verdict">{html.escape(_verdict(record))}</span>{text}</li>'


def _legend() -> str:
    entries = (
        f'<span style="color:{COLOURS.get(attack, OTHER_COLOUR)}">■ {html.escape(what)}</span>'
        for what, attack in _LEGEND.items()
    )
    return '<p class="legend">' + "".join(entries) + "Above each attacked place stands its source.</p>"


# -------------------------------------------------------------------------------------------------------------- charts


def draw_charts(report: Mapping[str, Any]) -> dict[str, Figure]:
    """File name -> figure."""
    from matplotlib import font_manager, rc_context

    installed = {font.name for font in font_manager.fontManager.ttflist}
    fonts = ["DejaVu Sans", *(name for name in CJK_FONTS if name in installed)]
    main, ratios, kinds = grouped_attackers(report["attackers"])
    charts = {}
    with rc_context({"font.family": fonts, "axes.spines.top": False, "axes.spines.right": False}):
        for task in report["tasks"]:
            if main:
                charts[f"accuracy-{_slug(task)}.png"] = _bars(report, task, main)
            if kinds:
                charts[f"attacks-{_slug(task)}.png"] = _bars(report, task, kinds)
            for base, names in ratios.items():
                charts[f"ratio-{_slug(task)}-{_slug(base)}.png"] = _lines(report, task, base, names)
    return charts


def _bars(report: Mapping[str, Any], task: str, attackers: Sequence[str]) -> Figure:
    """Accuracy of every model, clean and under each attacker, side by side."""
    from matplotlib.figure import Figure

    models, columns = report["models"], (CLEAN, *attackers)
    width = 0.8 / len(models)
    figure = Figure(figsize=(max(6.0, 1.0 + 0.5 * len(columns) * (1 + len(models) / 2)), 3.6), layout="constrained")
    axes = figure.subplots()
    for number, model in enumerate(models):
        estimates = [
            (report["clean"][task] if name == CLEAN else report["attacked"][task][name])[model]["accuracy"]
            for name in columns
        ]
        heights = [100 * estimate["value"] for estimate in estimates]
        spread = [
            # of few resamples the interval may lie beside the value
            [max(0.0, 100 * (estimate["value"] - estimate["low"])) for estimate in estimates],
            [max(0.0, 100 * (estimate["high"] - estimate["value"])) for estimate in estimates],
        ]
        at = [column - 0.4 + width * (number + 0.5) for column in range(len(columns))]
        axes.bar(at, heights, width * 0.94, color=PALETTE[number % len(PALETTE)], label=_plain(model))
        axes.errorbar(at, heights, yerr=spread, fmt="none", ecolor="#333333", elinewidth=1, capsize=2)
        for x, height, above in zip(at, heights, spread[1], strict=True):
            axes.annotate(
                f"{height:.0f}", (x, height + above), (0, 3), textcoords="offset points", ha="center", fontsize=8
            )
    names = [_plain(name.removeprefix("adv:")) if name != CLEAN else "no attack" for name in columns]
    axes.set_xticks(range(len(columns)), names, rotation=30 if len(columns) > 8 else 0)
    axes.set_ylabel("accuracy, %")
    axes.set_ylim(0, 108)
    axes.set_yticks(range(0, 101, 20))
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, 1.16), ncols=min(4, len(models)), frameon=False)
    return figure


def _lines(report: Mapping[str, Any], task: str, base: str, attackers: Sequence[str]) -> Figure:
    """Accuracy of every model by the share of the characters that one attacker attacks; figure 3 of the paper."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.0, 3.6), layout="constrained")
    axes = figure.subplots()
    ratios = [0.0, *map(_ratio_of, attackers)]
    for number, model in enumerate(report["models"]):
        estimates = [report["clean"][task][model]["accuracy"]]
        estimates += [report["attacked"][task][name][model]["accuracy"] for name in attackers]
        colour = PALETTE[number % len(PALETTE)]
        shares = [100 * ratio for ratio in ratios]
        axes.plot(shares, [100 * e["value"] for e in estimates], marker="o", color=colour, label=_plain(model))
        low, high = ([100 * e[end] for e in estimates] for end in ("low", "high"))
        axes.fill_between(shares, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.set_xlabel(f"characters that {_plain(base)} may attack, %")
    axes.set_ylabel("accuracy, %")
    axes.set_ylim(0, 100)
    axes.legend(frameon=False)
    return figure


def _plain(name: str) -> str:
    """A name as matplotlib prints it: no mathematics between dollars, no leading underscore, which hides a label."""
    return name.replace("$", r"\$").lstrip("_") or name


def _png(figure: Figure) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=150, metadata={"Software": None})
    return stream.getvalue()

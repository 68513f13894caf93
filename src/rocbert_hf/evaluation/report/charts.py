"""The charts of a report: accuracy by attacker, by single attack, and by share of the characters."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...attacks.attacked_text import CHINESE
from ...characters.unseen import mark_unseen
from ..summary import CLEAN
from .content import Groups, slug

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PALETTE = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#555555")  # Okabe and Ito
# Typefaces with Chinese characters, by the names that matplotlib has for them: of a collection it knows the first one
# alone, which of Debian's fonts-noto-cjk is the Japanese.
CJK_FONTS = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Noto Sans SC",
    "Source Han Sans SC",
    "PingFang SC",
    "Heiti SC",
    "Heiti TC",
    "Microsoft YaHei",
    "SimHei",
    "WenQuanYi Zen Hei",
    "WenQuanYi Micro Hei",
    "Noto Serif CJK SC",
    "Noto Serif CJK JP",
    "AR PL UMing CN",
    "SimSun",
)


def draw_charts(report: Mapping[str, Any]) -> dict[str, Figure]:
    """File name -> figure.

    Warns once if names in the charts are Chinese and no typeface with Chinese characters is installed.
    """
    from matplotlib import rc_context

    groups = Groups.of(report)
    fonts = chart_fonts((*report["models"], *report["attackers"]))
    charts = {}
    with rc_context({"font.family": fonts, "axes.spines.top": False, "axes.spines.right": False}):
        for task in report["tasks"]:
            if groups.main or not report["attackers"]:
                charts[f"accuracy-{slug(task)}.png"] = _bars(report, task, {name: name for name in groups.main})
            if groups.alone:
                charts[f"attacks-{slug(task)}.png"] = _bars(report, task, groups.alone)
            for base, found in groups.by_ratio.items():
                charts[f"ratio-{slug(task)}-{slug(base)}.png"] = _lines(report, task, base, found)
    return charts


def chart_fonts(names: Iterable[str]) -> list[str]:
    """Typefaces for a chart with these names in it.

    Warns if some are Chinese and no typeface with Chinese characters is installed.
    """
    from matplotlib import font_manager

    installed = {font.name for font in font_manager.fontManager.ttflist}
    chinese = [name for name in CJK_FONTS if name in installed]
    if not chinese and CHINESE.search("".join(names)):
        warnings.warn(
            "the charts show boxes for Chinese characters: install a typeface that has them (on Debian and Ubuntu: "
            "apt-get install fonts-noto-cjk) and delete matplotlib's cache (python -c 'import matplotlib; "
            "print(matplotlib.get_cachedir())' says where it is)",
            stacklevel=3,
        )
    return ["DejaVu Sans", *chinese]


def _bars(report: Mapping[str, Any], task: str, attackers: Mapping[str, str]) -> Figure:
    """Accuracy of every model, clean and under each attacker (what the axis says -> its name), side by side."""
    from matplotlib.figure import Figure

    models, columns = report["models"], (CLEAN, *attackers.values())
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
        axes.bar(at, heights, width * 0.94, color=PALETTE[number % len(PALETTE)], label=plain_label(model))
        axes.errorbar(at, heights, yerr=spread, fmt="none", ecolor="#333333", elinewidth=1, capsize=2)
        for x, height, above in zip(at, heights, spread[1], strict=True):
            axes.annotate(
                f"{height:.0f}", (x, height + above), (0, 3), textcoords="offset points", ha="center", fontsize=8
            )
    names = ["no attack", *map(plain_label, attackers)]
    axes.set_xticks(range(len(columns)), names, rotation=30 if len(columns) > 8 else 0)
    axes.set_ylabel("accuracy, %")
    axes.set_ylim(0, 108)
    axes.set_yticks(range(0, 101, 20))
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, 1.16), ncols=min(4, len(models)), frameon=False)
    return figure


def _lines(report: Mapping[str, Any], task: str, base: str, attackers: Sequence[tuple[float, str]]) -> Figure:
    """Accuracy of every model by the share of the characters that one attacker attacks; figure 3 of the paper."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.0, 3.6), layout="constrained")
    axes = figure.subplots()
    shares = [0.0, *(100 * ratio for ratio, _ in attackers)]
    for number, model in enumerate(report["models"]):
        estimates = [report["clean"][task][model]["accuracy"]]
        estimates += [report["attacked"][task][name][model]["accuracy"] for _, name in attackers]
        colour = PALETTE[number % len(PALETTE)]
        axes.plot(shares, [100 * e["value"] for e in estimates], marker="o", color=colour, label=plain_label(model))
        low, high = ([100 * e[end] for e in estimates] for end in ("low", "high"))
        axes.fill_between(shares, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.set_xlabel(f"ratio of {plain_label(base)}: share of the characters, %")
    axes.set_ylabel("accuracy, %")
    axes.set_ylim(0, 100)
    axes.legend(frameon=False)
    return figure


def plain_label(name: str) -> str:
    """A name as matplotlib prints it: no mathematics between dollars, no leading underscore, which hides a label."""
    name = mark_unseen(name)
    return name.replace("$", r"\$").lstrip("_") or name


def png(figure: Figure) -> bytes:
    """The picture; characters that no typeface has are boxes, of which `draw_charts` has warned."""
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(stream, format="png", dpi=150, metadata={"Software": None})
    return stream.getvalue()

"""The report on what unlabelled text brought: Markdown with plots beside it, and one page of HTML."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..files import write_whole
from .report.charts import PALETTE, chart_fonts, plain_label, png
from .report.content import Measured, Section, Table
from .report.html import page
from .report.markdown import markdown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = "What did the unlabelled text bring?"
NAMES = {"with": "with unlabelled text", "without": "labelled text alone"}
CURVES, POINTS = "curves.png", "representations.png"
PANELS = (
    ("loss of each term", ("loss", "supervised", "adversarial", "consistency", "contrastive")),
    ("share of the texts", ("used", "largest_class", "annealed")),
    ("dev rows", ("eval_accuracy", "eval_f1")),
)
SHOWN_DOUBTS = 30


def write_gain_report(
    report: Mapping[str, Any],
    log: Sequence[Mapping[str, Any]],
    points: Mapping[str, np.ndarray],
    labels: Sequence[int],
    folder: Path,
) -> None:
    """Write report.md, report.html and the plots.

    Args:
        report: as `unlabelled_gain.finetune_and_compare` makes it.
        log: `log_history` of the training.
        points: "before" and "after" -> representations (n, hidden) of the plotted texts.
        labels: (n,), their labels' numbers.
        folder: exists.
    """
    from matplotlib import rc_context

    with rc_context({"font.family": chart_fonts(report["labels"])}):
        charts = {CURVES: png(draw_curves(log)), POINTS: png(draw_points(points, labels, report["labels"]))}
    sections = list(gain_sections(report))
    for name, image in charts.items():
        write_whole(folder / name, image)
    write_whole(folder / "report.md", markdown(sections))
    write_whole(folder / "report.html", page(sections, charts, TITLE))


def gain_sections(report: Mapping[str, Any]) -> Iterable[Section]:
    models = report["models"]
    yield Section(TITLE, 1, text=list(first_lines(report)))
    of_seed = f" Of the models of seed {report['seeds'][0]}." if len(report["seeds"]) > 1 else ""
    names = list(models["with"]["scores"])
    rows = [
        [NAMES[name], *(Measured(f"{100 * model['scores'][score]:.1f}") for score in names)]
        for name, model in models.items()
    ]
    note = f"In %, on {report['examples']:,} {report['part']} rows; means over the seeds {report['seeds']}."
    yield Section("Scores", tables=[Table(["", *names], rows, note)])
    yield Section("Training", charts=[(CURVES, "loss of each term over the steps")])
    if models["with"]["robust"]:
        attacks = list(models["with"]["robust"])
        rows = [
            [NAMES[name], *(Measured(f"{100 * model['robust'][a]:.1f}") for a in attacks)]
            for name, model in models.items()
        ]
        yield Section("Standard and robust accuracy", tables=[Table(["", *attacks], rows, ROBUST_NOTE + of_seed)])
    if "siblings" in models["with"]:
        yield _siblings(models["with"]["siblings"], of_seed)
    yield _doubts(models["with"]["doubted"], of_seed)
    caption = "t-SNE of the texts' representations, before and after training"
    yield Section("Representations", charts=[(POINTS, f"{caption}.{of_seed}" if of_seed else caption)])


ROBUST_NOTE = (
    "In %. SA: as they are. FGM and PGD perturb the word embeddings, by an L2 norm of 1 per text, against this very model; "
    "the other attackers change the texts."
)


def first_lines(report: Mapping[str, Any]) -> Iterable[str]:
    """What would make it misread, then the result."""
    models, gain = report["models"], report["gain"]
    ours = models["with"]
    if ours["collapsed"]:
        also = ", and so does the one trained on the labelled texts alone" if _also_collapsed(models) else ""
        which = f" of seed {', '.join(map(str, ours['collapsed']))}" if len(report["seeds"]) > 1 else ""
        yield (
            f"Collapsed: the model{which} gives {ours['largest_class']:.0%} of the unlabelled texts one label{also}. Do not use "
            "it; train longer, label more texts, or raise confidence and warm_up."
        )
    if report["learns_from_answers"] and not ours["unlabelled_used"]:
        yield "No unlabelled text counted: the model was never as sure as the confidence asks for. Lower it."
    yield (
        f"{report['method']}: {report['train']:,} labelled and {report['unlabelled']:,} unlabelled texts, "
        f"{len(report['labels'])} labels; accuracy {ours['scores']['accuracy']:.1%}, F1 {ours['scores']['f1']:.1%}."
    )
    if gain is not None:
        low, high = 100 * gain["low"], 100 * gain["high"]
        sure = "more" if low > 0 else "less" if high < 0 else None
        verdict = (
            f"The unlabelled text made it right {sure} often" if sure else "Whether the unlabelled text helped is open"
        )
        yield f"{verdict}: {100 * gain['value']:+.1f} points of accuracy (95% interval {low:+.1f} to {high:+.1f})."
    if doubts := len(ours["doubted"]):
        yield f"Of the labelled texts {doubts:,} ({doubts / report['train']:.1%}) look mislabelled to the model."


def _also_collapsed(models: Mapping[str, Any]) -> bool:
    return "without" in models and models["without"]["collapsed"]


def _siblings(found: Mapping[str, Any], of_seed: str) -> Section:
    rows = [[right, said, str(count)] for right, said, count in found["pairs"]]
    text = f"Of {found['errors']:,} errors {found['among']:,} are between labels below one parent.{of_seed}"
    return Section("Confused siblings", text=[text], tables=[Table(["right label", "model", "how often"], rows)])


def _doubts(doubted: Sequence[Mapping[str, Any]], of_seed: str) -> Section:
    if not doubted:
        return Section("Labels that the model doubts", text=["None."])
    rows = [
        [row["text"][:80], row["label"], row["model"], Measured(f"{row['probability']:.2f}")]
        for row in doubted[:SHOWN_DOUBTS]
    ]
    left = len(doubted) - len(rows)
    note = f"Train rows that the model gives another label with confidence, though it was trained on them.{of_seed}"
    return Section(
        "Labels that the model doubts",
        tables=[
            Table(
                ["text", "label", "model", "probability"],
                rows,
                note + (f" {left:,} more are in report.json." if left else ""),
            )
        ],
    )


def draw_curves(log: Sequence[Mapping[str, Any]]) -> Figure:
    """Every term, share and dev score over the steps."""
    from matplotlib.figure import Figure

    shown = [
        (title, found)
        for title, names in PANELS
        if (
            found := {
                name: [(r["step"], r[name]) for r in log if name in r] for name in names if any(name in r for r in log)
            }
        )
    ]
    figure = Figure(figsize=(4.6 * len(shown), 3.4), layout="constrained")
    for axes, (title, series) in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
        for (name, values), colour in zip(series.items(), PALETTE, strict=False):
            axes.plot(*zip(*values, strict=True), color=colour, label=name.removeprefix("eval_").replace("_", " "))
        axes.set_title(title, loc="left")
        axes.set_xlabel("step")
        axes.legend(frameon=False)
    return figure


def draw_points(points: Mapping[str, np.ndarray], labels: Sequence[int], names: Sequence[str]) -> Figure:
    """t-SNE of each set of points, the most frequent labels in colours."""
    from matplotlib.figure import Figure
    from sklearn.manifold import TSNE

    labels = np.asarray(labels)
    frequent = [label for label, _ in Counter(labels.tolist()).most_common(len(PALETTE) - 1)]
    figure = Figure(figsize=(5.2 * len(points), 4.6), layout="constrained")
    for axes, (title, vectors) in zip(figure.subplots(1, len(points), squeeze=False)[0], points.items(), strict=True):
        places = np.zeros((1, 2))
        if len(vectors) > 1:  # of one point there is nothing to tell
            perplexity = min(30.0, (len(vectors) - 1) / 3)
            places = TSNE(init="pca", perplexity=perplexity, random_state=0).fit_transform(vectors)
        others = ~np.isin(labels, frequent)
        axes.scatter(*places[others].T, s=6, color="#cccccc", label="others" if others.any() else None)
        for label, colour in zip(frequent, PALETTE, strict=False):
            axes.scatter(*places[labels == label].T, s=8, color=colour, label=plain_label(names[label]))
        axes.set_title(title, loc="left")
        axes.set_xticks([])
        axes.set_yticks([])
    figure.axes[-1].legend(frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure

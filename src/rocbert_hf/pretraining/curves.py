"""A picture of a training run from the rows of its `log.jsonl`."""

from collections.abc import Sequence
from os import PathLike

# One panel each: title, logarithmic axis or not, and the columns that it shows if there are any.
PANELS = (
    ("loss", False, ("loss", "mlm_loss", "contrastive_loss", "correction_loss", "distillation_loss")),
    ("contrastive accuracy", False, ("contrastive_accuracy",)),
    ("held-out loss", False, ("eval_mlm_loss", "eval_mlm_loss_attacked", "eval_contrastive_loss")),
    ("attacked sentences that find their original", False, ("eval_retrieval_cls", "eval_retrieval_mean")),
    (
        "replaced characters restored",
        False,
        ("eval_restored_homophone", "eval_restored_lookalike", "eval_restored_pinyin"),
    ),
    (
        "fusion weights at homophones",
        False,
        ("eval_fusion_text_at_homophone", "eval_fusion_sound_at_homophone", "eval_fusion_shape_at_homophone"),
    ),
    ("alignment and uniformity (held out)", False, ("eval_alignment", "eval_uniformity")),
    ("learning rate", False, ("learning_rate",)),
    ("tokens per second", False, ("tokens_per_second",)),
    ("loss scale", True, ("loss_scale",)),
)
POINTS_SHOWN_AS_DOTS = 30


def plot_training_curves(log: Sequence[dict], path: str | PathLike) -> None:
    """Draw losses, accuracy, held-out measures, learning rate and speed over the steps into an image file.

    Args:
        log: rows with a `step` and any of the columns of `PANELS`; what no row has is not drawn.
        path: of the image; its suffix says the format.

    Raises:
        ValueError: no row has anything to draw.
    """
    from matplotlib.figure import Figure  # not pyplot, which keeps figures and wants a display

    series = {}
    for _, _, columns in PANELS:
        for column in columns:
            points = [(row["step"], row[column]) for row in log if row.get(column) is not None]
            if points:
                series[column] = points
    panels = [panel for panel in PANELS if any(column in series for column in panel[2])]
    if not panels:
        raise ValueError("log has no row with a step and something to draw, such as loss")
    columns_of_panels = min(2, len(panels))
    rows_of_panels = -(-len(panels) // columns_of_panels)
    figure = Figure(figsize=(6.4 * columns_of_panels, 3.2 * rows_of_panels), layout="constrained")
    axes = figure.subplots(rows_of_panels, columns_of_panels, squeeze=False).flatten()
    for axis, (title, logarithmic, columns) in zip(axes, panels, strict=False):
        for column in columns:
            if column in series:
                steps, values = zip(*series[column], strict=True)
                marker = "." if len(steps) <= POINTS_SHOWN_AS_DOTS else None
                axis.plot(steps, values, marker=marker, label=column.removeprefix("eval_").replace("_", " "))
        if sum(column in series for column in columns) > 1:
            axis.legend(frameon=False)
        if logarithmic:
            axis.set_yscale("log")
        axis.set_title(title, loc="left")
        axis.set_xlabel("step")
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    for axis in axes[len(panels) :]:
        axis.remove()
    figure.savefig(path, dpi=120)

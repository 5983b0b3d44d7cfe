"""A sweep as rows of a table and in a sentence, and as a picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxmnist.sweep.table import Point

_FIGURES = "accuracy, mean ± std [95 %]"


def table_rows(points: Sequence[Point]) -> tuple[list[str], list[list[str]]]:
    """The header and the rows of the table for people."""
    splits = [name for name in ("validation", "test") if any(getattr(p, name) for p in points)]
    header = [*points[0].values, "seeds", *(f"{split} {_FIGURES}" for split in splits)]
    rows = []
    for point in points:
        seeds = f"{point.done}" if point.done == point.runs else f"{point.done} of {point.runs}"
        figures = [str(getattr(point, split) or "–") for split in splits]
        rows.append([*point.values.values(), seeds, *figures])
    return header, rows


def verdict(points: Sequence[Point], best: Point | None, split: str) -> str:
    """The sentence that says which point is best and by what; "" where there is but one."""
    if len(points) < 2:
        return ""
    if best is None:
        return "best: undecided, since no point has finished all of its seeds"
    text = f"best by {split} accuracy: {best.words}"
    if split == "test":
        rule = "its accuracy is too good for that: set dataset.validation to choose honestly"
        text += f"; chosen on the test examples themselves, {rule}"
    return text


def draw(
    points: Sequence[Point], runs: Sequence[Mapping[str, Any]], *, split: str, path: Path
) -> None:
    """Draws every seed's accuracy, and mean and confidence interval, by point of the grid.

    Args:
      points: of the grid.
      runs: the records of the runs.
      split: of which examples.
      path: the file; its ending decides on the format.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(min(40.0, max(4.0, 1.5 + 1.2 * len(points))), 4), layout="constrained")
    axes = figure.subplots()
    for at, point in enumerate(points):
        lines = [run for run in runs if run["point"] == point.values and split in run]
        # Beside each other, so that equal seeds do not hide one another.
        spread = [at + 0.3 * (i / max(1, len(lines) - 1) - 0.5) for i in range(len(lines))]
        shares = [100 * line[split]["accuracy"] for line in lines]
        axes.plot(spread, shares, "o", color="tab:blue", alpha=0.5)
        if estimate := getattr(point, split):
            error = None if estimate.ci95 is None else 100 * estimate.ci95
            axes.errorbar(at + 0.25, 100 * estimate.mean, error, fmt="_k", capsize=4, ms=10)
    labels = [point.words.replace(", ", "\n") for point in points]
    axes.set_xticks(range(len(points)), labels, fontsize="small")
    axes.set(xlim=(-0.5, len(points) - 0.5), ylabel=f"{split} accuracy, %")
    axes.set_title("each seed; mean and its 95 % confidence interval", fontsize="medium")
    axes.grid(alpha=0.3, axis="y")
    figure.savefig(path)

"""Draws charts as SVG that takes its colours and its font from the page around it."""

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import (
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    PercentFormatter,
)

#: Colours of runs and splits; the style sheet has as many.
COLORS: Final = 6
# They stand for variables of the style sheet until the drawing is done.
_SERIES: Final = [f"#0102{number:02x}" for number in range(COLORS)]
_INK, _GRID = "#010303", "#010304"
_VARIABLES: Final = {_INK: "muted", _GRID: "line"} | {c: f"c{i}" for i, c in enumerate(_SERIES)}
# More points than this are averaged in groups: a chart is a few hundred pixels wide.
_MOST_POINTS = 400
_ACCURACIES: Final = (0.0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9999)
_STYLE: Final[dict[Any, Any]] = {
    "axes.edgecolor": _GRID,
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.size": 11.0,
    "grid.color": _GRID,
    "grid.linewidth": 0.6,
    "svg.fonttype": "none",
    "svg.hashsalt": "jaxmnist",  # the same run gives the same file
    "text.parse_math": False,
    **dict.fromkeys(("axes.labelcolor", "text.color", "xtick.color", "ytick.color"), _INK),
}

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Series:
    """Points of one run or split.

    Attributes:
      x: float [n].
      y: float [n], finite.
      color: number of the colour.
      dots: whether they were measured one by one; else a thin line is drawn.
    """

    x: Array
    y: Array
    color: int
    dots: bool = False


def curves(series: Sequence[Series], *, scale: str) -> Markup:
    """A metric over the epochs; empty where there are no points.

    Args:
      series: of the runs or splits.
      scale: of the vertical axis: "linear", "log", or "accuracy", logarithmic in what is wrong.
    """

    def draw(axes: Axes) -> None:
        for s in series:
            # A logarithm has no place for zero; what is smaller is drawn at the edge.
            bounded = {"accuracy": np.clip(1 - s.y, 1e-5, 1), "log": np.maximum(s.y, 1e-9)}
            y = bounded.get(scale, s.y)
            look: dict[str, Any] = {"marker": "o", "ms": 4, "lw": 1.8} if s.dots else {"lw": 1.2}
            axes.plot(_thinned(s.x), _thinned(y), color=_SERIES[s.color % COLORS], **look)
        axes.set(xlabel="epoch", yscale="linear" if scale == "linear" else "log")
        axes.yaxis.set_minor_formatter(NullFormatter())
        if scale == "accuracy":
            axes.invert_yaxis()
            limits = axes.get_ylim()
            axes.set_yticks([1 - a for a in _ACCURACIES], [f"{100 * a:.6g} %" for a in _ACCURACIES])
            axes.set_ylim(limits)
            return
        axes.yaxis.set_major_formatter(FuncFormatter(_tick))
        if scale == "log":
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        else:
            axes.set_ylim(bottom=0)

    return _svg(draw) if any(len(s.x) for s in series) else Markup("")


def step_times(series: Sequence[Series]) -> Markup:
    """The distribution of step times in ms, `y`, each counted `x` times; empty without any."""
    series = [s for s in series if len(s.y)]

    def draw(axes: Axes) -> None:
        values = np.concatenate([s.y for s in series])
        bins = np.linspace(values.min() * 0.98, np.quantile(values, 0.99) * 1.02, 31).tolist()
        for s in series:
            times, share = np.minimum(s.y, bins[-1]), s.x / s.x.sum()
            for look in ({"alpha": 0.3}, {"histtype": "step"}):
                axes.hist(times, bins, weights=share, color=_SERIES[s.color % COLORS], **look)
        axes.set(xlabel="ms a step", ylabel="share of the steps")
        axes.yaxis.set_major_formatter(PercentFormatter(1))

    return _svg(draw) if series else Markup("")


def class_accuracies(right: Array, total: Array) -> Markup:
    """Accuracy by label, where there are examples, from counts int [k]."""
    labels = np.flatnonzero(total)

    def draw(axes: Axes) -> None:
        _plot_shares(axes, labels, right[labels], total[labels])
        axes.set(xlabel="label")
        axes.xaxis.set_major_locator(MaxNLocator(11, integer=True))

    return _svg(draw)


def calibration(confidence: Array, correct: Array) -> tuple[Markup, float]:
    """Accuracy by confidence, in ten bins, and the expected calibration error (arXiv:1706.04599).

    Args:
      confidence: probability of the predicted class, float [n], n > 0.
      correct: whether it is right, bool [n].
    """
    bins = np.minimum((confidence * 10).astype(int), 9)
    sums = [np.bincount(bins, weights, 10) for weights in (None, correct, confidence)]
    count, right, sure = np.array(sums)[:, sums[0] > 0]

    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=_INK, lw=1, ls=(0, (4, 3)))
        _plot_shares(axes, sure / count, right, count)
        axes.set(xlabel="confidence", xlim=(0, 1.02), ylim=(0, 1.03))
        axes.xaxis.set_major_formatter(PercentFormatter(1))

    return _svg(draw), float(np.abs(right - sure).sum() / len(bins))


def _plot_shares(axes: Axes, x: Array, right: Array, total: Array) -> None:
    """Shares and their 95 % intervals (Wilson, 1927)."""
    z, p = 1.96, right / total
    middle = (p + z**2 / (2 * total)) / (1 + z**2 / total)
    half = z / (1 + z**2 / total) * np.sqrt(p * (1 - p) / total + (z / (2 * total)) ** 2)
    bars = np.maximum([p - middle + half, middle + half - p], 0)
    axes.errorbar(x, p, bars, fmt="o", ms=5, color=_SERIES[0], elinewidth=1.2, capsize=2)
    axes.yaxis.set_major_formatter(PercentFormatter(1))


def _tick(value: float, _: int | None = None) -> str:
    """A number at an axis: whole where it is large, in powers of ten where it is huge."""
    return f"{value:,.0f}" if 1e4 <= abs(value) < 1e9 else f"{value:,.4g}"


def _thinned(values: Array) -> Array:
    parts = np.array_split(values, min(_MOST_POINTS, max(len(values), 1)))
    return np.array([part.mean() for part in parts if len(part)])


def _svg(draw: Callable[[Axes], None]) -> Markup:
    """What `draw` draws; only numbers and our own labels are in it, so it needs no escaping."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        figure, file = Figure(figsize=(5.2, 3.4), layout="constrained"), io.StringIO()
        draw(figure.subplots())
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(file, format="svg", transparent=True, metadata=nothing)
    text = re.sub(r"#010[23]\w\w", lambda found: f"var(--{_VARIABLES[found[0]]})", file.getvalue())
    # Size and font are those of its place on the page; names would be there twice.
    unwanted = r' (width|height)="[\d.]+pt"| id="[a-z.]+\w*_\d+"|font-family: [^;]*; '
    return Markup(re.sub(rf"(?s)^.*?(?=<svg)|<style.*?</style>|{unwanted}", "", text))

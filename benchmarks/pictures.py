"""The pictures of docs/performance.md: which there are, and how each is drawn from its record."""

import functools
from collections import defaultdict

# One colour a candidate on every picture; readable in grey and with colour-blind eyes.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#666666", "#000000")


def pictures(newest):
    """File name: (record, caption, function of path and digest) of each picture there can be."""
    kinds = {
        "peers": ("images per second from end to end, by batch size", draw_peers),
        "throughput": ("images per second of the bare step, by batch size", draw_throughput),
        "scaling": ("speed-up over one device", draw_scaling),
        "time_to_accuracy": ("test error against seconds of training", draw_accuracy),
    }
    found = {}
    for program, (caption, draw) in kinds.items():
        for number, record in enumerate(newest.get(program, ())):
            where = record["environment"].get("devices", {}).get("platform", "")
            name = "-".join(filter(None, (program, where, str(number) if number else "")))
            drawing = functools.partial(drawn, draw, record["rows"])
            found[f"{name}.svg"] = (record, caption, drawing)
    return found


def drawn(draw, rows, path, mark):
    """Draws one picture into a file that carries the digest of the records."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    matplotlib.rcParams.update(
        {"svg.hashsalt": "jaxmnist", "svg.fonttype": "none", "font.size": 10, "axes.grid": True}
    )
    figure, axes = pyplot.subplots(figsize=(9, 3.8), layout="constrained")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    draw(axes, rows)
    figure.legend(loc="outside right upper", fontsize=8)
    figure.savefig(path, metadata={"Date": None, "Description": mark})
    pyplot.close(figure)


def error(values):
    """Distances from the median to the extremes, as matplotlib wants them."""
    return [
        [v["median"] - v["min"] for v in values],
        [v["max"] - v["median"] for v in values],
    ]


def draw_peers(axes, rows):
    """Bars by batch size, one colour a candidate."""
    batches = list(dict.fromkeys(r["batch"] for r in rows))
    names = list(dict.fromkeys(r["candidate"] for r in rows))
    width = 0.8 / len(names)
    for i, name in enumerate(names):
        mine = [r for r in rows if r["candidate"] == name]
        places = [batches.index(r["batch"]) + (i - (len(names) - 1) / 2) * width for r in mine]
        rates = [r["images_per_second"] for r in mine]
        heights = [rate["median"] for rate in rates]
        colour = COLOURS[i % len(COLOURS)]
        axes.bar(places, heights, width, yerr=error(rates), label=name, color=colour, capsize=2)
    axes.set_xticks(range(len(batches)), [f"batch {batch}" for batch in batches])
    axes.set_ylabel("images per second")


def lines(axes, groups, *, x, y):
    """A line with its range for each group of rows."""
    for i, (label, mine) in enumerate(groups.items()):
        mine = sorted(mine, key=lambda r: r[x])
        values = [r[y] for r in mine]
        axes.errorbar(
            [r[x] for r in mine],
            [v["median"] for v in values],
            yerr=error(values),
            marker="o",
            capsize=3,
            label=label,
            color=COLOURS[i % len(COLOURS)],
        )


def draw_throughput(axes, rows):
    """A line over batch sizes for each combination."""
    groups = defaultdict(list)
    for r in rows:
        k = f", K={r['steps_per_call']}" if r["steps_per_call"] > 1 else ""
        resident = {"on": ", resident", "off": ", streamed"}.get(r["resident"], "")
        label = f"{r['conv']}, {r['strategy']}, {r['devices']} device(s), {r['dtype']}{k}{resident}"
        groups[label].append(r)
    lines(axes, groups, x="batch", y="images_per_second")
    batches = sorted({r["batch"] for r in rows})
    axes.set_xscale("log", base=2)
    axes.set_xticks(batches, [str(batch) for batch in batches])
    axes.set(xlabel="batch", ylabel="images per second", ylim=(0, None))


def draw_scaling(axes, rows):
    """Speed-up over devices beside the straight line."""
    groups = defaultdict(list)
    for r in rows:
        size = "global batch" if r["scaling"] == "strong" else "batch a device"
        groups[f"{r['scaling']}, {size} {r['size']}"].append(r)
    counts = sorted({r["devices"] for r in rows})
    axes.plot(counts, [n / counts[0] for n in counts], "--", color="grey", label="ideal")
    lines(axes, groups, x="devices", y="speedup")
    axes.set_xticks(counts)
    axes.set(xlabel="devices", ylabel="speed-up", ylim=(0, None))


def draw_accuracy(axes, rows):
    """A line a seed, over its evaluations; a point where only its end was recorded."""
    for i, r in enumerate(rows):
        seeds = f"{r['seeds']} seeds" if r["seeds"] > 1 else "1 seed"
        for number, run in enumerate(r["runs"]):
            points = run.get("curve") or [run]
            axes.plot(
                [point["seconds"] for point in points],
                [100 * (1 - point["accuracy"]) for point in points],
                marker="o",
                markersize=4,
                label=None if number else f"{r['candidate']} ({seeds})",
                color=COLOURS[i % len(COLOURS)],
            )
    axes.set(xlabel="seconds of training", ylabel="wrong of the test images, %", yscale="log")
    axes.set_xlim(0, None)
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("{x:g}")

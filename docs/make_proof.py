"""Makes docs/pictures/proof.svg: the debug configuration trained on 1, 2, 4 and 8 devices.

python docs/make_proof.py      # about a minute
"""

import tempfile
from pathlib import Path

import matplotlib

import jaxmnist

matplotlib.use("svg")
from matplotlib import pyplot

PICTURE = Path(__file__).with_name("pictures") / "proof.svg"
DEVICES = (1, 2, 4, 8)
# Where a difference is none, the picture shows this.
_FLOOR = 1e-9


def losses(devices: int, folder: Path) -> list[float]:
    """The mean loss of each step, trained on so many of eight CPU devices."""
    config = jaxmnist.get_config("debug")
    config.parallel.devices = devices
    result = jaxmnist.train(config, folder / str(devices), quiet=True)
    return [record["loss"] for record in result.history if record["split"] == "train"]


def draw(curves: dict[int, list[float]]) -> None:
    """The curves on one another, and below how far each is from that of one device."""
    matplotlib.rcParams.update({"svg.hashsalt": "jaxmnist", "svg.fonttype": "none"})
    figure, (above, below) = pyplot.subplots(
        2, sharex=True, figsize=(9, 4.6), layout="constrained", height_ratios=(3, 2)
    )
    one, styles = (
        curves[DEVICES[0]],
        (("#000000", 1), ("#0072b2", 5), ("#e69f00", 9), ("#cc79a7", 13)),
    )
    steps = range(1, len(one) + 1)
    for (count, curve), (colour, width) in reversed(list(zip(curves.items(), styles, strict=True))):
        name = f"{count} device{'s' * (count > 1)}"
        above.plot(steps, curve, color=colour, linewidth=width, label=name, solid_capstyle="round")
        if count > 1:
            off = [max(abs(a - b) / b, _FLOOR) for a, b in zip(curve, one, strict=True)]
            below.plot(steps, off, color=colour, marker="o", markersize=4, linestyle="")
    above.set(ylabel="training loss", title="One training on 1, 2, 4 and 8 devices: one curve")
    above.legend(frameon=False)
    below.axhline(1e-5, color="#d55e00", linestyle="--", linewidth=1)
    below.text(1, 1.3e-5, "what the tests allow", color="#d55e00", fontsize=9)
    below.text(61, _FLOOR, "none", va="center", fontsize=9)
    label = "difference from\none device, relative"
    below.set(yscale="log", ylim=(_FLOOR / 2, 1e-4), ylabel=label, xlabel="step")
    for axes in (above, below):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(PICTURE, metadata={"Date": None})


def main() -> None:
    """Trains four times, and draws."""
    with tempfile.TemporaryDirectory() as folder:
        draw({count: losses(count, Path(folder)) for count in DEVICES})


if __name__ == "__main__":
    main()

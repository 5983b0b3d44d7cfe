"""Draws docs/pictures/augmentation.png: what each augmentation does to the first test digits.

python docs/make_augmentation.py
"""

from pathlib import Path

import jax
import numpy as np
from matplotlib.figure import Figure

from jaxmnist import datasets
from jaxmnist.augment import make_augment
from jaxmnist.step.body import fold_rows
from jaxmnist.zoo.augment import shipped

PICTURE = Path(__file__).parent / "pictures" / "augmentation.png"
ASKED = {"shift": 3, "rotation": 20.0, "scale": 0.25, "shear": 20.0, "cutout": 8}
DIGITS = 5


def draws(images, asked):
    """Images [n, h, w, 1] as one step of training would see them."""
    keys = fold_rows(jax.random.key(0), np.arange(len(images)))
    return np.asarray(make_augment(shipped(images.shape[1:], **asked))(images, keys))


def main():
    """Draws a row for each augmentation, and one for all of them."""
    images = np.repeat(datasets.load("mnist").test.images[:DIGITS], 2, axis=0)
    rows = {"as it is": images}
    rows |= {f"{name}={value:g}": draws(images, {name: value}) for name, value in ASKED.items()}
    rows["all of them"] = draws(images, ASKED)
    figure = Figure(figsize=(8, 5.2), dpi=110, layout="constrained")
    axes = figure.subplots(len(rows), 1)
    for place, (name, shown) in zip(axes, rows.items(), strict=True):
        # A line of two pixels between digits.
        strip = np.pad(shown[..., 0], ((0, 0), (0, 0), (0, 2)), constant_values=255)
        place.imshow(np.hstack(list(strip)), cmap="gray_r", vmin=0, vmax=255)
        place.set_ylabel(name, rotation=0, ha="right", va="center")
        place.set(xticks=[], yticks=[])
    figure.savefig(PICTURE, bbox_inches="tight", metadata={"Software": None})


if __name__ == "__main__":
    main()

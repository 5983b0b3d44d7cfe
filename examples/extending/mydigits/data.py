"""A data set of one's own: a function without arguments that returns a Dataset."""

import numpy as np

from jaxmnist.datasets import Dataset, from_arrays


def bars() -> Dataset:
    """Images of 8×8 pixels whose class, 0 to 7, is the row that is bright."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 8, 640)
    images = rng.integers(0, 96, (640, 8, 8), dtype=np.uint8)
    images[np.arange(640), labels] += 100
    return from_arrays(images[:512], labels[:512], images[512:], labels[512:], name="bars")

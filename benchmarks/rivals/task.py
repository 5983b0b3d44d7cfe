"""What all rivals share: the parameters they start from, the batches they see, the optimizer.

`python -m rivals.task FOLDER` writes data and initial parameters there.
"""

import sys
from pathlib import Path

import numpy as np

LEARNING_RATE = 1e-3  # of Adam, constant; its other numbers are 0.9, 0.999 and 1e-8
SEED = 0


def make_task_files(folder: Path) -> None:
    """Writes data and initial parameters where every worker reads them."""
    import jax
    from measure.steps import configured

    from jaxmnist import datasets

    train = datasets.load("mnist").train
    np.savez(folder / "train.npz", images=train.images, labels=train.labels)
    params = initial_params(configured({"seed": SEED}))
    flat = {f"{layer}/{name}": x for layer, leaves in params.items() for name, x in leaves.items()}
    np.savez(folder / "params.npz", **jax.device_get(flat))


def initial_params(config):
    """The library's initial parameters for a configuration."""
    from jaxmnist.runs.setup import prepare

    return prepare(config).initial_state().params


def load_task(folder: str):
    """Images uint8 [n, 28, 28, 1], labels int32 [n], and parameters by layer and name."""
    with np.load(Path(folder) / "train.npz") as data:
        images, labels = data["images"], data["labels"].astype(np.int32)
    params: dict[str, dict[str, np.ndarray]] = {}
    with np.load(Path(folder) / "params.npz") as flat:
        for name in flat.files:
            layer, leaf = name.split("/")
            params.setdefault(layer, {})[leaf] = flat[name]
    return images, labels, params


def batch_indices(batch: int, *, start: int, count: int) -> np.ndarray:
    """Rows of `count` batches of the library's stream from batch `start` on, [count, batch]."""
    from jaxmnist.pipeline import stream_rows

    return np.stack(
        [
            stream_rows(SEED, step, batch_size=batch, examples=60_000)[1]
            for step in range(start, start + count)
        ]
    )


if __name__ == "__main__":
    make_task_files(Path(sys.argv[1]))

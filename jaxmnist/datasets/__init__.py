"""Data sets as plain NumPy arrays: bundled, fetched, read from a directory or made from arrays."""

from jaxmnist.datasets.dataset import Dataset, Split, from_arrays
from jaxmnist.datasets.registry import KNOWN, load

__all__ = ["KNOWN", "Dataset", "Split", "from_arrays", "load"]

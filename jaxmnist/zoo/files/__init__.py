"""What `dataset.dir` may hold, told by what is there: arrays, class folders or IDX files."""

from pathlib import Path

from jaxmnist.datasets.dataset import Dataset


def read(source: str, classes: int | None) -> Dataset:
    """The data set in a file or directory.

    Args:
      source: an .npz file, a directory with `train/` and `test/`, or one with four IDX files.
      classes: the number of classes; None takes the largest train label + 1.

    Raises:
      DataError: files are missing, damaged or break a rule of `jaxmnist.datasets.from_arrays`.
    """
    path = Path(source)
    # Each reader brings its own libraries.
    if path.suffix == ".npz":
        from jaxmnist.zoo.files.npz import read_npz

        return read_npz(path, classes)
    if (path / "train").is_dir() or (path / "test").is_dir():
        from jaxmnist.zoo.files.folders import read_folders

        return read_folders(path, classes)
    from jaxmnist.zoo.idx import read_directory

    return read_directory(source, classes)

"""Reads a data set from class folders of PNG and JPEG files: train/cat/1.png, test/dog/2.jpg."""

import hashlib
import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from jaxmnist.datasets.dataset import Dataset, assemble
from jaxmnist.errors import DataError

_SUFFIXES = (".png", ".jpg", ".jpeg")
_COLOUR = ("RGB", "P", "CMYK", "YCbCr")
# So many faults are listed; a set of which every file is wrong would fill the screen.
_MOST_FAULTS = 8

Pixels = NDArray[np.uint8]


def read_folders(path: Path, classes: int | None) -> Dataset:
    """The data set in the folders `train`, `test` and, where there is one, `validation`.

    Each holds a folder for each class, and that the pictures; a class's number is its place among
    the names of train's folders, sorted as text. Grey pictures have one channel, others three.
    Pictures are turned upright as their EXIF data say. Nothing is resized: all have one size.

    Args:
      path: the directory.
      classes: the number of classes; None takes as many as train has folders.

    Raises:
      DataError: a folder is missing or empty, a file is damaged or no picture, or sizes or colours
        differ; the text names the files.
    """
    names = _folders(path / "train")
    splits = ["train", "test", *(["validation"] if (path / "validation").is_dir() else [])]
    arrays: dict[str, Pixels] = {}
    digests: dict[str, str] = {}
    shape: tuple[int, ...] | None = None
    for split in splits:
        files, labels = _listed(path / split, names)
        images, shape = _read_all(files, shape)
        arrays[f"{path / split}"] = images
        arrays[f"{path / split} (labels)"] = labels
        digests[split] = hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()
    classes = classes or len(names)
    name = path.resolve().name
    return assemble(arrays, classes, name=name, sha256=digests, source=str(path))


def _folders(path: Path) -> list[str]:
    """The names of the class folders, sorted."""
    there = sorted(p.name for p in path.glob("*") if not p.name.startswith("."))
    if stray := [name for name in there if not (path / name).is_dir()]:
        rule = "pictures lie in folders that are named after their classes, train/cat/1.png"
        raise DataError(f"{path / stray[0]} lies beside the class folders: {rule}; move it there")
    if not there:
        rule = "give train/CLASS/*.png and test/CLASS/*.png, or correct dataset.dir"
        raise DataError(f"{path} is missing or holds no class folders: {rule}")
    return there


def _listed(path: Path, names: list[str]) -> tuple[list[Path], Pixels]:
    """The pictures of a split and their labels, int32 [n]."""
    if strange := [name for name in _folders(path) if name not in names]:
        rule = f"is no class of train, which has {', '.join(names)}; rename or move it"
        raise DataError(f"{path / strange[0]} {rule}")
    files: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(names):
        inside = sorted(p for p in (path / name).glob("*") if not p.name.startswith("."))
        if stray := [p for p in inside if p.suffix.lower() not in _SUFFIXES or not p.is_file()]:
            rule = (
                f"expected {', '.join(_SUFFIXES)}; convert it, or move it out of the class folder"
            )
            raise DataError(f"{stray[0]} is no picture that can be read: {rule}")
        if not inside and path.name == "train":
            raise DataError(f"{path / name} is empty: give it pictures, or remove the folder")
        files += inside
        labels += [label] * len(inside)
    if not files:
        raise DataError(f"{path} holds no pictures: put them into its class folders")
    return files, np.array(labels, np.int32)


def _read_all(files: list[Path], shape: tuple[int, ...] | None) -> tuple[Pixels, tuple[int, ...]]:
    """Pictures as uint8 [n, h, w, c] of one shape, that of the first where none is given."""
    # Pillow warns of oddities that do no harm. Its decoders let other threads run.
    with warnings.catch_warnings(action="ignore"), ThreadPoolExecutor(os.cpu_count()) as pool:
        read = [*pool.map(_read, files)]
    wanted = shape or next((x.shape for x in read if not isinstance(x, str)), (0, 0, 0))
    faults, images = [], []
    for file, pixels in zip(files, read, strict=True):
        if isinstance(pixels, str):
            faults.append(f"{file} {pixels}")
        elif pixels.shape != wanted:
            faults.append(f"{file} is {_words(pixels.shape)}, others are {_words(wanted)}")
        else:
            images.append(pixels)
    if faults:
        more = [f"... and {len(faults) - _MOST_FAULTS} more"] * (len(faults) > _MOST_FAULTS)
        rule = "all must be whole and of one size and colour: nothing is resized or converted here"
        lines = "".join(f"\n  - {line}" for line in [*faults[:_MOST_FAULTS], *more])
        raise DataError(f"{len(faults)} pictures cannot be used, {rule}; correct them:{lines}")
    return np.stack(images), wanted


def _read(path: Path) -> Pixels | str:
    """A picture as uint8 [h, w, c], or what is wrong with it."""
    try:
        with Image.open(path, formats=("PNG", "JPEG")) as image:
            image.load()
            upright = ImageOps.exif_transpose(image)
    except Exception as error:  # decoders raise anything on bytes that contradict each other
        return f"is damaged or no PNG or JPEG: {error}"
    if upright.mode in ("1", "L") and not upright.has_transparency_data:
        return np.asarray(upright.convert("L"))[..., None]
    if upright.mode in _COLOUR and not upright.has_transparency_data:
        return np.asarray(upright.convert("RGB"))
    return f"has the mode {upright.mode}: save it as grey or colour of 8 bits, not transparent"


def _words(shape: tuple[int, ...]) -> str:
    return f"{shape[0]}×{shape[1]} {'grey' if shape[2] == 1 else 'colour'}"

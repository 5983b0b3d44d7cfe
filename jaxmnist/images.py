"""Reads a picture and makes it look like an image of the data set."""

import math
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter, ImageOps

from jaxmnist.errors import DataError

# Only what needs no other program and cannot run one, as EPS would.
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM")
# MNIST's digits fill a box of 20 pixels in a field of 28.
_BOX_SHARE = 20 / 28
# A picture is first made smaller to so many times the field: quicker, and it averages out noise.
_WORK_SIZE = 16
# A drawing differs from its background by at least this much of 255.
_MIN_CONTRAST = 24
# Where the drawing ends, as a share of its full light; MNIST's boxes include faint edges.
_EDGE = float(os.environ.get("EDGE", 0.3))
BLUR = float(os.environ.get("BLUR", 300))
FILT = getattr(Image.Resampling, os.environ.get("FILT", "HAMMING"))

Pixels = NDArray[np.uint8]


def read_image(path: str | os.PathLike[str]) -> Pixels:
    """Reads a picture file, turned upright as its EXIF data say.

    Transparent pixels show white, or black where all that is drawn is light. Values of more than
    8 bits are scaled down by the fewest bits that hold the largest of them.

    Args:
      path: a file in one of `FORMATS`; of an animation the first frame counts.

    Returns:
      uint8, [h, w] for a grey picture and [h, w, 3] for one in colour.

    Raises:
      DataError: the file is missing, is not a picture, is damaged, or is far too large.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path} does not exist: check the path")
    if not path.is_file():
        kind = "a directory" if path.is_dir() else "not a regular file"
        raise DataError(f"{path} is {kind}: name picture files")
    try:
        # Pillow warns of a bomb before it refuses one, and of oddities that do no harm.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as image:
                image.load()
                return _pixels(ImageOps.exif_transpose(image))
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise DataError(
            f"{path} has more than {Image.MAX_IMAGE_PIXELS:,} pixels, more than any picture of a "
            "digit needs and perhaps a trap for the memory: make it smaller"
        ) from error
    except Image.UnidentifiedImageError as error:
        raise DataError(
            f"{path} is not a picture that can be read: convert it to one of {', '.join(FORMATS)}"
        ) from error
    except PermissionError as error:
        raise DataError(f"{path} may not be read: change its permissions") from error
    except (OSError, SyntaxError, ValueError, EOFError, ArithmeticError) as error:
        # What Pillow's decoders raise where the bytes end early or contradict each other.
        raise DataError(
            f"{path} is damaged or cut short ({error}): copy or export it again"
        ) from error


def to_example(
    pixels: Pixels,
    image_shape: tuple[int, ...],
    *,
    on_black: bool = True,
    name: str = "the picture",
) -> Pixels:
    """Makes a picture look like an image of the data set.

    For a data set such as MNIST, light drawings on black: what differs from the colour of the
    border is the drawing, whether lighter or darker. As MNIST was made (LeCun, Bottou, Bengio,
    Haffner, 1998, section III.A), it is cut out, scaled with its aspect kept so that it just fits
    a box of 20/28 of the field, and laid with its centre of mass on the field's centre. A picture
    that has the data set's size already is taken as it is, or inverted where its border is light.

    Of any other data set nothing is known about how its images were made, so that a picture is
    only cut about its centre to their aspect and resized; so it is for images in colour.

    Args:
      pixels: uint8 [h, w] or [h, w, 3], of any size; one drawing on a plain background.
      image_shape: (h, w, c) of the data set; with c = 3 colours are kept, else grey is repeated.
      on_black: whether the data set's images are light drawings on black.
      name: what to call the picture in an error.

    Returns:
      uint8 [h, w, c].

    Raises:
      DataError: the picture is not such an array, or there is nothing to be seen on it.
    """
    kind = getattr(pixels, "dtype", type(pixels).__name__)
    shape = tuple(getattr(pixels, "shape", ()))
    if kind != np.uint8 or len(shape) not in (2, 3) or shape[2:] not in ((), (3,)) or 0 in shape:
        raise DataError(
            f"{name} is {kind} of shape {shape}: uint8 of shape [h, w] or [h, w, 3], of at least "
            "one pixel, is expected"
        )
    h, w, c = image_shape
    if np.ptp(pixels, axis=(0, 1)).max() == 0:
        raise DataError(f"{name} shows no digit: it has one uniform colour; give one with a digit")
    image = Image.fromarray(pixels)
    if c == 3 or not on_black:
        example = _resized(image.convert("RGB" if c == 3 else "L"), (w, h))
    elif shape[:2] == (h, w) and abs(level := np.median(_border(grey := _grey(image))) - 127) > 32:
        example = grey if level < 0 else 255 - grey
    else:
        example = _redrawn(image, h, w, name=name)
    return np.ascontiguousarray(np.broadcast_to(example.reshape(h, w, -1), (h, w, c)))


def _pixels(image: Image.Image) -> Pixels:
    """8 bits a channel, grey or in colour, without transparency."""
    if image.mode.startswith(("I", "F")):
        values = np.nan_to_num(np.asarray(image, np.float64))
        top = values.max(initial=0)
        full = 1 if top <= 1 else 2 ** max(8, math.ceil(top).bit_length()) - 1
        return np.rint(np.clip(values / full, 0, 1) * 255).astype(np.uint8)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        grey, alpha = _grey(image.convert("RGB")), np.asarray(image)[..., 3]
        drawn = grey[alpha >= 128]
        light = drawn.size and np.percentile(drawn, 5) >= 128
        ground = Image.new("RGBA", image.size, "black" if light else "white")
        image = Image.alpha_composite(ground, image)
    grey_modes = ("1", "L", "LA", "La")
    return np.asarray(image.convert("L" if image.mode in grey_modes else "RGB"))


def _grey(image: Image.Image) -> Pixels:
    return np.asarray(image.convert("L"))


def _resized(image: Image.Image, size: tuple[int, int]) -> Pixels:
    if image.size != size:
        image = ImageOps.fit(image, size, Image.Resampling.LANCZOS)
    return np.asarray(image)


def _border(pixels: Any) -> Any:
    """The outermost pixels, [n] or [n, 3]."""
    sides = (pixels[0], pixels[-1], pixels[1:-1, 0], pixels[1:-1, -1])
    return np.concatenate(sides)


def _redrawn(image: Image.Image, h: int, w: int, *, name: str) -> Pixels:
    """The drawing alone, light on black, scaled and centred as MNIST's digits were."""
    image = image.copy()
    image.thumbnail((_WORK_SIZE * w, _WORK_SIZE * h), Image.Resampling.BOX)
    light, (top, bottom, left, right) = _drawing(image, name=name)
    scale = _BOX_SHARE * min(h / (bottom - top), w / (right - left))
    # Only what lies within a pixel of the box belongs to it, and around it all is black.
    margin = math.ceil(1 / scale)
    pad = margin + math.ceil(max(h, w) / scale)
    light = light[max(0, top - margin) : bottom + margin, max(0, left - margin) : right + margin]
    top, left = min(top, margin), min(left, margin)
    y, x = (np.average(np.indices(light.shape)[i] + 0.5, weights=light) for i in (0, 1))
    # MNIST moved digits by whole pixels, to the pixel of index 14 of 28.
    row, column = round(h / 2 + 0.5 - (y - top) * scale), round(w / 2 + 0.5 - (x - left) * scale)
    y, x = pad + top - row / scale, pad + left - column / scale
    field = Image.fromarray(np.pad(light.astype(np.float32), pad)).resize(
        (w, h), FILT, box=(x, y, x + w / scale, y + h / scale)
    )
    return np.rint(np.clip(field, 0, 1) * 255).astype(np.uint8)


def _drawing(image: Image.Image, *, name: str) -> tuple[NDArray[np.float64], tuple[int, ...]]:
    """How much of the drawing each pixel shows, float64 [h, w] in [0, 1], and the box it fills."""
    distance, noise = _distance(np.asarray(image, np.float64))
    # Blurred by a fraction of a stroke, so that specks do not count.
    smooth = Image.fromarray(np.rint(np.minimum(distance, 255)).astype(np.uint8))
    seen = np.asarray(smooth.filter(ImageFilter.GaussianBlur(max(image.size) / BLUR)))
    inside = seen[seen > _otsu(seen)]
    full = float(np.percentile(inside, 90)) if inside.size else 0.0
    if full - noise < _MIN_CONTRAST:
        raise DataError(
            f"{name} shows no digit: nothing stands out from the background by {_MIN_CONTRAST} of "
            "255; give one with more contrast"
        )
    mask = seen > noise + _EDGE * (full - noise)
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    light = np.clip((distance - noise) / (full - noise), 0, 1)
    return light, (rows[0], rows[-1] + 1, columns[0], columns[-1] + 1)


def _distance(pixels: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """How far each pixel is from the background's colour, [h, w], and how far noise alone goes.

    The background is a plane through the colours of the border, since paper is seldom lit evenly;
    pixels of the border that are far from it are left out: the drawing may touch the border.
    """
    h, w = pixels.shape[:2]
    pixels = pixels.reshape(h, w, -1)
    y, x = np.indices((h, w))
    grid = np.stack([np.ones((h, w)), y / h - 0.5, x / w - 0.5], axis=-1)
    where, colours = _border(grid), _border(pixels)
    plane = np.zeros((3, pixels.shape[-1]))
    plane[0] = np.median(colours, axis=0)
    for _ in range(4):
        off = np.abs(colours - where @ plane).max(-1)
        spread = float(np.median(off))
        keep = off <= max(2.5 * spread, 1)
        plane = np.linalg.lstsq(where[keep], colours[keep])[0]
    return np.abs(pixels - grid @ plane).max(-1), float(os.environ.get("NF","2.5")) * spread


def _otsu(values: Pixels) -> int:
    """The threshold in 0..254 that parts values in 0..255 best in two (Otsu, 1979)."""
    counts = np.bincount(values.ravel(), minlength=256).astype(np.float64)
    below, mass = np.cumsum(counts)[:-1], np.cumsum(counts * np.arange(256))
    above = counts.sum() - below
    gap = mass[:-1] / np.maximum(below, 1) - (mass[-1] - mass[:-1]) / np.maximum(above, 1)
    return int(np.argmax(below * above * gap**2))

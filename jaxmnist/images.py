"""Reads a picture and makes it look like an image of the data set."""

import math
import os
import stat
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter, ImageOps, UnidentifiedImageError

from jaxmnist.errors import DataError

Pixels = NDArray[np.uint8]

# Only formats whose decoders run no other program, as that of EPS would.
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM")
# MNIST's digits fill a box of 20 pixels in a field of 28.
_BOX_SHARE = 20 / 28
# A picture is first made smaller to so many times the field: quicker, and it averages out noise.
_WORK_SIZE = 16
# Radius of the blur that removes specks, as a share of the picture's longer side.
_SPECK = 1 / 200
# A drawing stands out from its background by at least this much of 255.
_MIN_CONTRAST = 24
# The light, as a share of the drawing's, at which it ends; MNIST's boxes include faint edges.
_EDGE = 0.4
# How light of 255 a border may be: that of a data set on black, and that of a dark picture. A
# light picture's border is at least as near to 255 as a dark one's to 0.
_BLACK, _DARK = 16, 96


def read_image(path: str | os.PathLike[str]) -> Pixels:
    """Reads a picture file, turned upright as its EXIF data say.

    Transparent pixels show white, or black where all that is drawn is light. Values of more than
    8 bits are divided by the smallest power of two, less one, that none of them exceeds.

    Args:
      path: a file in one of `FORMATS`; of an animation the first frame counts.

    Returns:
      uint8, [h, w] for a grey picture and [h, w, 3] for one in colour.

    Raises:
      DataError: the file cannot be opened, is not a picture, is damaged, or is far too large.
    """
    path = Path(path)
    try:
        status = path.stat()
        file = path.open("rb") if stat.S_ISREG(status.st_mode) else None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path} cannot be opened ({reason}): check the path") from error
    if file is None:
        kind = "a directory" if stat.S_ISDIR(status.st_mode) else "not a regular file"
        raise DataError(f"{path} is {kind}: name picture files")
    try:
        # Pillow warns of a bomb before it refuses one, and of oddities that do no harm.
        with file, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = ImageOps.exif_transpose(Image.open(file, formats=FORMATS))
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise DataError(
            f"{path} has more than {Image.MAX_IMAGE_PIXELS:,} pixels, far more than a picture to "
            "predict needs: make it smaller"
        ) from error
    except UnidentifiedImageError as error:
        size = f"{status.st_size:,} bytes"
        raise DataError(
            f"{path} ({size}) is not a picture that can be read: give one of {', '.join(FORMATS)}"
        ) from error
    except Exception as error:  # decoders raise anything on bytes that contradict each other
        raise DataError(f"{path} is damaged or cut short ({error}): export it again") from error
    return _eight_bits(image)


def is_on_black(images: Pixels) -> bool:
    """Whether images [n, h, w, c] are, as MNIST's are, something light on black."""
    sides = (images[:, 0], images[:, -1], images[:, :, 0], images[:, :, -1])
    return bool(np.median(np.concatenate(sides, axis=1)) <= _BLACK)


def to_example(
    pixels: Pixels,
    image_shape: tuple[int, ...],
    *,
    on_black: bool = True,
    name: str = "the picture",
) -> Pixels:
    """Makes a picture look like an image of the data set.

    For a data set such as MNIST, of light drawings on black, what differs from the colour of the
    border is the drawing, be it lighter or darker. As MNIST was made (LeCun, Bottou, Bengio and
    Haffner, 1998, "Gradient-based learning applied to document recognition"), it is cut out,
    scaled with its aspect kept to fit a box of 20/28 of the field, and moved by whole pixels to
    lay its centre of mass on the field's centre. A picture that has the data set's size already
    is taken as it is, or inverted where its border is light.

    Of any other data set nothing is known about how its images were made: a picture is cut about
    its centre to their aspect and resized. So it is for images in colour.

    Args:
      pixels: uint8 [h, w] or [h, w, 3], of any size; one drawing on a plain background.
      image_shape: (h, w, c) of the data set; with c = 3 colours are kept, else grey is repeated.
      on_black: whether the data set's images are light drawings on black.
      name: what to call the picture in an error.

    Returns:
      uint8 [h, w, c].

    Raises:
      DataError: the picture is not such an array, or nothing is to be seen on it.
    """
    shape, dtype = np.shape(pixels), getattr(pixels, "dtype", type(pixels).__name__)
    if dtype != np.uint8 or len(shape) not in (2, 3) or shape[2:] not in ((), (3,)) or 0 in shape:
        raise DataError(
            f"{name} is {dtype} of shape {shape}: give uint8 of shape [h, w] or [h, w, 3] and of "
            "at least one pixel"
        )
    if np.ptp(pixels, axis=(0, 1)).max() == 0:
        raise DataError(f"{name} shows no digit: all of it has one colour; give another")
    h, w, c = image_shape
    image = Image.fromarray(pixels)
    stored = _as_stored(image) if image.size == (w, h) else None
    if c == 3 or not on_black:
        example = _resized(image.convert("RGB" if c == 3 else "L"), (w, h))
    elif stored is not None:
        example = stored
    else:
        example = _redrawn(image, h, w, name=name)
    return np.ascontiguousarray(np.broadcast_to(example.reshape(h, w, -1), (h, w, c)))


def _eight_bits(image: Image.Image) -> Pixels:
    """Grey [h, w] or colour [h, w, 3], without transparency."""
    if image.mode.startswith(("I", "F")):
        values = np.nan_to_num(np.asarray(image, np.float64))
        top = math.ceil(values.max(initial=0))
        full = 1 if top <= 1 else 2 ** max(8, top.bit_length()) - 1
        return _to_uint8(values / full)
    colour = image.mode not in ("1", "L", "LA", "La")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        drawn = np.asarray(image.convert("L"))[np.asarray(image)[..., 3] >= 128]
        light = drawn.size and np.percentile(drawn, 5) >= 128
        ground = Image.new("RGBA", image.size, "black" if light else "white")
        image = Image.alpha_composite(ground, image)
    return np.asarray(image.convert("RGB" if colour else "L"))


def _to_uint8(light: NDArray[Any]) -> Pixels:
    """From [0, 1] to 0..255."""
    scaled: Pixels = np.rint(np.clip(light, 0, 1) * 255).astype(np.uint8)
    return scaled


def _resized(image: Image.Image, size: tuple[int, int]) -> Pixels:
    if image.size != size:
        image = ImageOps.fit(image, size, Image.Resampling.LANCZOS)
    return np.asarray(image)


def _border(pixels: Any) -> Any:
    """The outermost pixels, [n] or [n, 3]."""
    sides = (pixels[0], pixels[-1], pixels[1:-1, 0], pixels[1:-1, -1])
    return np.concatenate(sides)


def _as_stored(image: Image.Image) -> Pixels | None:
    """A picture of the data set's size, light on black; None where its border is neither."""
    grey = np.asarray(image.convert("L"))
    level = np.median(_border(grey))
    if level <= _DARK:
        return grey
    return 255 - grey if level >= 255 - _DARK else None


def _redrawn(image: Image.Image, h: int, w: int, *, name: str) -> Pixels:
    """The drawing alone, light on black, scaled and centred as MNIST's digits were."""
    image.thumbnail((_WORK_SIZE * w, _WORK_SIZE * h), Image.Resampling.BOX)
    light, (top, bottom, left, right) = _drawing(image, name=name)
    scale = _BOX_SHARE * min(h / (bottom - top), w / (right - left))
    # What lies farther from the box than a pixel of the field is noise.
    margin = math.ceil(1 / scale)
    light = np.pad(light, margin)[top : bottom + 2 * margin, left : right + 2 * margin]
    y, x = (
        np.average(np.arange(n) + 0.5 - margin, weights=light.sum(1 - axis))
        for axis, n in enumerate(light.shape)
    )
    # The centre is the pixel of index 14 of 28, as in MNIST; the box stays within the field.
    row = np.clip(round(h / 2 + 0.5 - y * scale), 0, h - (bottom - top) * scale)
    column = np.clip(round(w / 2 + 0.5 - x * scale), 0, w - (right - left) * scale)
    pad = math.ceil(max(h, w) / scale)
    y, x = pad + margin - row / scale, pad + margin - column / scale
    field = Image.fromarray(np.pad(light, pad).astype(np.float32)).resize(
        (w, h), Image.Resampling.HAMMING, box=(x, y, x + w / scale, y + h / scale)
    )
    return _to_uint8(np.asarray(field))


def _drawing(image: Image.Image, *, name: str) -> tuple[NDArray[np.float64], tuple[int, ...]]:
    """How much of the drawing each pixel shows, float64 [h, w] in [0, 1], and the box it fills."""
    distance, noise = _distance(np.asarray(image, np.float64))
    # Blurred by a fraction of a stroke, so that specks do not count.
    smooth = Image.fromarray(np.rint(np.minimum(distance, 255)).astype(np.uint8))
    seen = np.asarray(smooth.filter(ImageFilter.GaussianBlur(max(image.size) * _SPECK)))
    full = float(np.percentile(seen[seen >= seen.max() / 2], 90))
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
    return np.abs(pixels - grid @ plane).max(-1), 2 * spread

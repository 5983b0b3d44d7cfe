"""Reads a picture and makes it look like an image of the data set."""

import math
import os
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter, ImageOps

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
      uint8 [h, w, 3], or [h, w] for grey values of more than 8 bits.

    Raises:
      DataError: the file cannot be opened, is not a picture, is damaged, or is far too large.
    """
    try:
        # Pillow warns of oddities that do no harm, and refuses what would fill the memory.
        with warnings.catch_warnings(action="ignore"), Image.open(path, formats=FORMATS) as image:
            return _eight_bits(ImageOps.exif_transpose(image))
    except Exception as error:  # decoders raise anything on bytes that contradict each other
        rule = f"a whole one of at most {Image.MAX_IMAGE_PIXELS} pixels as {', '.join(FORMATS)}"
        fault = f"({error}) is not a picture that can be read: give {rule}"
        if reason := getattr(error, "strerror", None):
            fault = f"cannot be opened ({reason}): check the path"
        raise DataError(f"{os.fspath(path)} {fault}") from error


def is_on_black(images: Pixels) -> bool:
    """Whether images [n, h, w, c] are, as MNIST's are, something light on black."""
    return bool(np.median(_border(np.moveaxis(images, 0, -1))) <= _BLACK)


def to_example(
    pixels: Pixels, image_shape: tuple[int, ...], *, on_black: bool = True, name: str = "picture"
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
    array = np.asarray(pixels)
    shape = array.shape
    if array.dtype != np.uint8 or len(shape) < 2 or shape[2:] not in ((), (3,)) or 0 in shape:
        rule = "give uint8 of shape [h, w] or [h, w, 3] and of at least one pixel"
        raise DataError(f"{name} is {array.dtype} of shape {shape}: {rule}")
    if np.ptp(array, axis=(0, 1)).max() == 0:
        raise DataError(f"{name} shows no digit: all of it has one colour; give another")
    h, w, c = image_shape
    image = Image.fromarray(array)
    grey = np.asarray(image.convert("L"))
    ground = np.median(_border(grey))
    if c == 3 or not on_black:
        flat = image.convert("RGB" if c == 3 else "L")
        example = np.asarray(ImageOps.fit(flat, (w, h), Image.Resampling.LANCZOS))
    elif image.size != (w, h) or _DARK < ground < 255 - _DARK:
        example = _redrawn(image, h, w, name=name)
    else:
        example = grey if ground <= _DARK else 255 - grey
    return np.broadcast_to(example.reshape(h, w, -1), (h, w, c))


def _eight_bits(image: Image.Image) -> Pixels:
    """Colours [h, w, 3] without transparency; grey [h, w] of a picture of wide values."""
    if image.mode.startswith(("I", "F")):
        values = np.nan_to_num(np.asarray(image, np.float64))
        top = math.ceil(values.max(initial=0))
        full = 2 ** max(8, top.bit_length()) - 1 if top > 1 else 1
        return np.rint(np.clip(values / full, 0, 1) * 255).astype(np.uint8)
    if not image.has_transparency_data:
        return np.asarray(image.convert("RGB"))
    image = image.convert("RGBA")
    drawn = np.asarray(image.convert("L"))[np.asarray(image)[..., 3] >= 128]
    light = drawn.size and np.percentile(drawn, 5) >= 128
    ground = Image.new("RGBA", image.size, "black" if light else "white")
    return np.asarray(Image.alpha_composite(ground, image).convert("RGB"))


def _border(pixels: NDArray[Any]) -> NDArray[Any]:
    """The outermost of pixels [h, w, ...]: [n, ...]."""
    return np.concatenate((pixels[0], pixels[-1], pixels[1:-1, 0], pixels[1:-1, -1]))


def _redrawn(image: Image.Image, h: int, w: int, *, name: str) -> Pixels:
    """The drawing alone, light on black, scaled and centred as MNIST's digits were."""
    image.thumbnail((_WORK_SIZE * w, _WORK_SIZE * h), Image.Resampling.BOX)
    light, (top, left), (bottom, right) = _drawing(image, name=name)
    field, size = np.array([h, w]), np.array([bottom - top, right - left])
    scale = _BOX_SHARE * (field / size).min()
    # What lies farther from the box than a pixel of the field is noise.
    margin, pad = math.ceil(1 / scale), math.ceil(max(h, w) / scale)
    light = np.pad(light, margin)[top : bottom + 2 * margin, left : right + 2 * margin]
    centre = (np.indices(light.shape) * light).sum((1, 2)) / light.sum() + 0.5 - margin
    # The centre is the pixel of index 14 of 28, as in MNIST; the box stays within the field.
    corner = np.clip(np.round(field / 2 + 0.5 - centre * scale), 0, field - size * scale)
    y, x = pad + margin - corner / scale
    box = (x, y, x + w / scale, y + h / scale)
    padded = Image.fromarray(np.pad(light, pad).astype(np.float32))
    drawn = padded.resize((w, h), Image.Resampling.HAMMING, box=box)
    return np.rint(np.asarray(drawn) * 255).astype(np.uint8)


def _drawing(image: Image.Image, *, name: str) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """How much of the drawing each pixel shows, float64 [h, w] in [0, 1], and its box's corners.

    The background is a plane through the colours of the border, since paper is seldom lit evenly;
    pixels of the border that are far from it are left out: the drawing may touch the border.
    """
    pixels = np.asarray(image, np.float64).reshape(image.height, image.width, -1)
    y, x = np.indices(pixels.shape[:2])
    grid = np.stack([np.ones(y.shape), y / image.height - 0.5, x / image.width - 0.5], axis=-1)
    where, colours = _border(grid), _border(pixels)
    plane = np.zeros((3, pixels.shape[-1]))
    plane[0] = np.median(colours, axis=0)
    for _ in range(4):
        off = np.abs(colours - where @ plane).max(-1)
        noise = 2 * float(np.median(off))
        keep = off <= max(1.25 * noise, 1)
        plane = np.linalg.lstsq(where[keep], colours[keep])[0]
    distance = np.abs(pixels - grid @ plane).max(-1)
    # Blurred by a fraction of a stroke, so that specks do not count.
    blur = ImageFilter.GaussianBlur(max(image.size) * _SPECK)
    smooth = Image.fromarray(np.rint(np.minimum(distance, 255)).astype(np.uint8)).filter(blur)
    seen = np.asarray(smooth)
    contrast = float(np.percentile(seen[seen >= seen.max() / 2], 90)) - noise
    if contrast < _MIN_CONTRAST:
        rule = f"stands out from the background by {_MIN_CONTRAST} of 255; give more contrast"
        raise DataError(f"{name} shows no digit: nothing {rule}")
    inside = np.argwhere(seen > noise + _EDGE * contrast)
    return np.clip((distance - noise) / contrast, 0, 1), inside.min(0), inside.max(0) + 1

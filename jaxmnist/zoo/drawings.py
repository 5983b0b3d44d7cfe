"""Draws small pictures of many images, and of a confusion matrix, as arrays of pixels."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Pixels = NDArray[np.uint8]

# Pixels: of the longer side of an image on a sheet, of its caption, of a confusion matrix.
_SIDE, _CAPTION, _MATRIX = 84, 14, 560
# Counts are written into the cells of a matrix of at most so many classes.
_MOST_CLASSES = 20
_RIGHT, _WRONG = np.array([37, 99, 201]), np.array([217, 72, 15])


def contact_sheet(images: Any, *, columns: int, captions: Sequence[str] = ()) -> Pixels:
    """Lays images side by side, as large as they can be read, each above its caption.

    Args:
      images: uint8 [n, h, w, c], n > 0; of other channels than 1 and 3 their mean is shown.
      columns: images in a row.
      captions: one for each image, or none.

    Returns:
      uint8 [H, W, 3].
    """
    n, h, w, c = images.shape
    scale = max(_SIDE // max(h, w), 1)
    height, width = h * scale + 2 + (_CAPTION if captions else 0), max(w * scale, _SIDE) + 2
    sheet = Image.new("RGB", (width * columns, height * -(-n // columns)), "white")
    draw = ImageDraw.Draw(sheet)
    for i, image in enumerate(images):
        top, left = i // columns * height, i % columns * width
        shown = image if c == 3 else np.repeat(image.mean(-1, keepdims=True).astype(np.uint8), 3, 2)
        large = Image.fromarray(shown).resize((w * scale, h * scale), Image.Resampling.NEAREST)
        sheet.paste(large, (left, top))
        if captions:
            draw.text((left, top + h * scale), captions[i], fill="black")
    return np.asarray(sheet)


def confusion_picture(confusion: Any) -> Pixels:
    """Draws counts int [k, k] by label (rows) and prediction (columns): uint8 [H, W, 3].

    What is right is blue, what is wrong orange, each by the root of its share of the most.
    """
    counts = np.asarray(confusion, np.float64)
    k, right = len(counts), np.eye(len(counts), dtype=bool)
    shades = np.where(right, counts / max(np.diag(counts).max(), 1), 0.0)
    shades += np.where(right, 0.0, counts / max(counts[~right].max(initial=0), 1))
    colors = np.where(right[..., None], _RIGHT, _WRONG)
    cells = 255 + (colors - 255) * 0.7 * np.sqrt(shades)[..., None]
    side = max(_MATRIX // k, 1)
    picture = Image.fromarray(np.repeat(np.repeat(cells.astype(np.uint8), side, 0), side, 1))
    if k <= _MOST_CLASSES:
        draw = ImageDraw.Draw(picture)
        for (label, prediction), count in np.ndenumerate(np.asarray(confusion)):
            place = (side * (prediction + 0.5), side * (label + 0.5))
            draw.text(place, f"{count}" if count else "", fill="black", anchor="mm")
    return np.asarray(picture)

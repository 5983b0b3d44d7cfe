"""Sheets of images and confusion matrices are drawn for any sizes and any counts."""

import numpy as np
import pytest

from jaxmnist.zoo.drawings import confusion_picture, contact_sheet


@pytest.mark.parametrize("shape", [(1, 1, 1), (8, 8, 1), (28, 20, 3), (300, 5, 2)])
@pytest.mark.parametrize("captions", [False, True])
def test_a_sheet_holds_every_image_enlarged_by_a_whole_number(shape, captions):
    h, w, c = shape
    images = np.random.default_rng(0).integers(0, 256, (7, *shape), dtype=np.uint8)
    texts = [f"{i} as {i + 1}" for i in range(7)] if captions else ()
    sheet = contact_sheet(images, columns=3, captions=texts)
    scale = max(84 // max(h, w), 1)
    height, width = sheet.shape[0] // 3, sheet.shape[1] // 3
    for i, image in enumerate(images):
        top, left = i // 3 * height, i % 3 * width
        seen = sheet[top : top + h * scale : scale, left : left + w * scale : scale]
        expected = image if c == 3 else image.mean(-1, keepdims=True).astype(np.uint8)
        assert (seen == expected).all()
    below = sheet[h * scale : h * scale + 14, :width]
    assert not captions or (below.min() < 128 and (below == 255).mean() > 0.5)


@pytest.mark.parametrize("classes", [1, 2, 10, 21, 700])
def test_right_is_blue_and_wrong_is_orange(classes):
    counts = np.zeros((classes, classes), int)
    counts[0, 0] = 9
    counts[0, -1] += 4
    picture = confusion_picture(counts)
    side = len(picture) // classes
    (right, wrong, none) = (picture[0, x] for x in (0, -1, side if classes > 2 else -1))
    assert right[2] > right[0]
    assert classes == 1 or wrong[0] > wrong[2]
    assert classes < 3 or (none == 255).all()


def test_counts_are_written_where_they_can_be_read():
    few, many = (np.full((k, k), 3) for k in (20, 21))
    shades = [len(np.unique(confusion_picture(counts)[..., 1])) for counts in (few, many)]
    assert shades[0] > 9 and shades[1] == 2
    assert (confusion_picture(np.zeros((3, 3), int)) == 255).all()

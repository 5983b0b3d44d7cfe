"""A picture of any kind becomes an image like those the model was trained on."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxmnist.errors import DataError
from jaxmnist.images import FORMATS, is_on_black, read_image, to_example

MNIST = (28, 28, 1)
SAMPLES = 40


@pytest.fixture(scope="module")
def digits(mnist) -> np.ndarray:
    """The first images of MNIST's test set, uint8 [40, 28, 28]."""
    return mnist.test.images[:SAMPLES, ..., 0]


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    """Writes an array as a picture file and returns its path."""

    def write(pixels: np.ndarray, name: str = "digit.png", **options: object) -> Path:
        path = tmp_path / name
        Image.fromarray(pixels).save(path, **options)
        return path

    return write


def enlarged(digit: np.ndarray, seed: int) -> np.ndarray:
    """The digit 5 times as large, somewhere in a black picture of 200×300."""
    rng = np.random.default_rng(seed)
    out = np.zeros((200, 300), np.uint8)
    row, column = rng.integers(0, 61), rng.integers(0, 161)
    big = Image.fromarray(digit).resize((140, 140), Image.Resampling.BICUBIC)
    out[row : row + 140, column : column + 140] = big
    return out


def noisy(pixels: np.ndarray, sd: float) -> np.ndarray:
    noise = np.random.default_rng(1).normal(0, sd, pixels.shape)
    return np.clip(pixels + noise, 0, 255).astype(np.uint8)


def blended(pixels: np.ndarray, ink: tuple[int, ...], paper: tuple[int, ...]) -> np.ndarray:
    share = pixels[..., None] / 255
    return np.rint(share * np.array(ink) + (1 - share) * np.array(paper)).astype(np.uint8)


def shaded(pixels: np.ndarray) -> np.ndarray:
    """Pencil on paper that is lit from one corner."""
    h, w = pixels.shape
    lamp = np.linspace(1, 0.6, w) * np.linspace(1, 0.8, h)[:, None]
    return noisy((230 - pixels / 255 * 150) * lamp, 3)


def specked(pixels: np.ndarray) -> np.ndarray:
    return np.where(np.random.default_rng(2).random(pixels.shape) < 0.002, 255, pixels)


def compressed(pixels: np.ndarray) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=40)
    return np.asarray(Image.open(buffer))


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


DRAWINGS = {
    "light on dark": lambda x: x,
    "dark on light": lambda x: 255 - x,
    "faint": lambda x: 200 - x // 4,
    "noise": lambda x: noisy(x, 25),
    "specks": specked,
    "uneven light": shaded,
    "blue on cream": lambda x: blended(x, (30, 40, 160), (240, 235, 220)),
    "red on an equally light green": lambda x: blended(x, (200, 0, 0), (0, 102, 0)),
    "JPEG": lambda x: compressed(255 - x),
    "hard edges": lambda x: np.where(x > 90, 0, 255).astype(np.uint8),
}


class TestPicturesOfTheDataSetsSize:
    def test_an_image_of_the_data_set_is_left_as_it_is(self, digits, save):
        for digit in digits:
            np.testing.assert_array_equal(to_example(read_image(save(digit)), MNIST)[..., 0], digit)

    def test_so_it_is_when_stored_in_colour_or_in_16_bits(self, digits, save):
        colour = np.repeat(digits[3][..., None], 3, axis=-1)
        wide = digits[3].astype(np.uint16) * 257
        for pixels in (colour, wide):
            example = to_example(read_image(save(pixels)), MNIST)
            np.testing.assert_array_equal(example[..., 0], digits[3])

    def test_dark_on_light_is_inverted(self, digits, save):
        example = to_example(read_image(save(255 - digits[3])), MNIST)
        np.testing.assert_array_equal(example[..., 0], digits[3])

    def test_on_a_grey_ground_the_drawing_alone_is_kept(self, digits):
        example = to_example(120 + digits[3] // 3, MNIST)
        assert np.median(example) == 0
        assert correlation(example, digits[3]) > 0.95

    def test_a_large_bright_thing_on_black_is_left_as_it_is(self):
        shirt = np.zeros((28, 28), np.uint8)
        shirt[:, 5:23] = 230
        np.testing.assert_array_equal(to_example(shirt, MNIST)[..., 0], shirt)


class TestPicturesOfOtherSizes:
    @pytest.mark.parametrize("name", DRAWINGS)
    def test_the_digit_is_found_scaled_and_centred_as_in_mnist(self, digits, name):
        examples = [
            to_example(DRAWINGS[name](enlarged(digit, seed)), MNIST)
            for seed, digit in enumerate(digits)
        ]
        # A digit whose centre lies between two pixels may come out one pixel off: 0.6 to 0.9.
        found = [correlation(e, d) for e, d in zip(examples, digits, strict=True)]
        assert np.mean(found) > 0.9, found
        assert min(found) > 0.5, found

    def test_it_does_not_matter_where_the_digit_lies(self, digits):
        first, second = (to_example(enlarged(digits[0], seed), MNIST) for seed in (5, 6))
        assert correlation(first, second) > 0.99

    @pytest.mark.parametrize("shape", [MNIST, (20, 24, 1), (13, 11, 1)])
    def test_the_longer_side_fills_20_of_28_and_the_mass_is_centred(self, shape):
        picture = np.zeros((700, 500), np.uint8)
        picture[100:400, 50:110] = 255
        example = to_example(picture, shape)[..., 0]
        lit = np.flatnonzero((example > 127).any(1))
        assert abs(len(lit) - shape[0] * 20 / 28) <= 1
        weights = example / example.sum()
        centre = [(np.indices(example.shape)[axis] * weights).sum() for axis in (0, 1)]
        np.testing.assert_allclose(centre, np.array(shape[:2]) / 2, atol=0.6)

    def test_a_lopsided_drawing_is_not_pushed_out_of_the_field(self):
        picture = np.full((400, 400), 255, np.uint8)
        picture[100:300, 280:300] = 0
        picture[290:300, 60:300] = 0
        example = to_example(picture, MNIST)[..., 0]
        assert np.count_nonzero((example > 60).any(0)) == 20

    def test_a_digit_that_touches_the_border_is_found(self, digits):
        tight = [
            255 - np.asarray(Image.fromarray(digit[4:24, 4:24]).resize((200, 200)))
            for digit in digits
        ]
        pairs = zip(tight, digits, strict=True)
        assert np.mean([correlation(to_example(x, MNIST), d) for x, d in pairs]) > 0.85

    @pytest.mark.parametrize("size", [(2, 61), (3, 2), (5, 5)])
    def test_a_picture_of_few_pixels_is_no_reason_to_fail(self, size):
        picture = np.zeros(size, np.uint8)
        picture[0, 0] = 255
        assert to_example(picture, MNIST).shape == MNIST


class TestOtherDataSets:
    def test_grey_is_repeated_over_channels(self, digits):
        example = to_example(digits[0], (28, 28, 2))
        np.testing.assert_array_equal(example, np.stack([digits[0]] * 2, axis=-1))

    def test_colours_are_kept_and_the_middle_is_cut_out(self):
        picture = np.zeros((30, 50, 3), np.uint8)
        picture[:, 5:45] = (10, 200, 90)
        example = to_example(picture, (10, 10, 3))
        np.testing.assert_allclose(example[:, 1:-1], np.full((10, 8, 3), (10, 200, 90)), atol=4)

    def test_where_images_are_not_light_on_black_nothing_is_inverted(self, digits):
        np.testing.assert_array_equal(
            to_example(255 - digits[0], MNIST, on_black=False)[..., 0], 255 - digits[0]
        )
        assert to_example(enlarged(digits[0], 0), (20, 24, 1), on_black=False).shape == (20, 24, 1)

    def test_a_data_set_is_on_black_by_its_borders(self, digits):
        images = digits[..., None]
        assert is_on_black(images)
        assert not is_on_black(255 - images)
        assert not is_on_black(np.random.default_rng(0).integers(0, 256, (9, 5, 7, 1), np.uint8))


class TestReading:
    @pytest.mark.parametrize("kind", FORMATS)
    def test_every_format_named_is_read(self, digits, save, kind):
        picture = enlarged(digits[0], 0)
        pixels = read_image(save(picture, "digit", format=kind))
        assert correlation(np.asarray(Image.fromarray(pixels).convert("L")), picture) > 0.99

    def test_exif_orientation_is_followed(self, digits, save):
        exif = Image.Exif()
        exif[0x0112] = 6  # to be shown turned clockwise by 90 degrees
        picture = enlarged(digits[0], 0)
        path = save(np.rot90(picture), "digit.jpg", exif=exif, quality=95)
        assert correlation(read_image(path)[..., 0], picture) > 0.99

    @pytest.mark.parametrize(("ink", "shown"), [(0, lambda x: 255 - x), (255, lambda x: x)])
    def test_transparent_is_background_for_dark_and_for_light_ink(self, digits, save, ink, shown):
        picture = enlarged(digits[0], 0)
        drawing = np.full((*picture.shape, 4), ink, np.uint8)
        drawing[..., 3] = picture
        pixels = read_image(save(drawing))
        np.testing.assert_array_equal(pixels, np.repeat(shown(picture)[..., None], 3, axis=-1))
        assert correlation(to_example(pixels, MNIST), digits[0]) > 0.9

    def test_palettes_single_bits_and_inks_are_read(self, digits, tmp_path):
        picture = Image.fromarray(np.where(enlarged(digits[0], 0) > 127, 255, 0).astype(np.uint8))
        for mode, name in ("P", "digit.png"), ("1", "digit.png"), ("CMYK", "digit.tif"):
            image = picture.convert("RGB") if mode == "CMYK" else picture
            image.convert(mode).save(tmp_path / name)
            pixels = read_image(tmp_path / name)
            np.testing.assert_array_equal(Image.fromarray(pixels).convert("L"), picture)

    @pytest.mark.parametrize("top", [1, 255, 4095, 65535])
    def test_wide_values_are_scaled_by_the_bits_in_use(self, save, top):
        values = np.linspace(0, top, 64).round().astype(np.int32).reshape(8, 8)
        expected = np.rint(values / top * 255)
        np.testing.assert_array_equal(read_image(save(values, "digit.tif")), expected)


class TestErrors:
    def test_a_missing_file(self, tmp_path):
        with pytest.raises(DataError, match=r"none\.png cannot be opened \(No such file .*check"):
            read_image(tmp_path / "none.png")

    def test_a_directory(self, tmp_path):
        with pytest.raises(DataError, match=rf"^{tmp_path} cannot be opened \(Is a direc.*check"):
            read_image(tmp_path)

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"a text",
            b"P5\n0 0\n255\n",
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n",
        ],
        ids=["empty", "text", "no pixels", "a program"],
    )
    def test_what_is_no_picture(self, tmp_path, content):
        path = tmp_path / "a.png"
        path.write_bytes(content)
        text = r"a\.png \(.+\) is not a picture that can be read: give a whole one of .* as PNG, JP"
        with pytest.raises(DataError, match=text):
            read_image(path)

    @pytest.mark.parametrize("name", ["digit.png", "digit.jpg", "digit.gif", "digit.bmp"])
    def test_a_truncated_picture(self, digits, save, name):
        path = save(noisy(enlarged(digits[0], 0), 9), name)
        path.write_bytes(path.read_bytes()[:5000])
        with pytest.raises(
            DataError, match=rf"{name} \(.+\) is not a picture .*: give a whole one"
        ):
            read_image(path)

    def test_a_picture_of_far_too_many_pixels(self, digits, save, monkeypatch):
        path = save(digits[0])
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300)
        text = r"digit\.png \(Image size \(784 pixels\) exceeds .*: give .* at most 300 pixels"
        with pytest.raises(DataError, match=text):
            read_image(path)

    @pytest.mark.parametrize("shape", [(28, 28), (50, 40), (50, 40, 3)])
    def test_one_uniform_colour(self, shape):
        with pytest.raises(DataError, match=r"^a\.png shows no digit: all of it has one colour"):
            to_example(np.full(shape, 255, np.uint8), MNIST, name="a.png")

    def test_an_empty_sheet(self):
        sheet = noisy(np.full((50, 40), 200), 3)
        with pytest.raises(DataError, match=r"^a\.png shows no digit: nothing stands out .* by 24"):
            to_example(sheet, MNIST, name="a.png")

    @pytest.mark.parametrize(
        "pixels",
        [
            np.zeros((5, 7), np.float32),
            np.zeros(9, np.uint8),
            np.zeros((5, 7, 4), np.uint8),
            np.zeros((0, 7), np.uint8),
            [[1, 2], [3, 4]],
        ],
        ids=["float", "1-D", "4 channels", "no rows", "list"],
    )
    def test_what_is_no_array_of_pixels(self, pixels):
        with pytest.raises(DataError, match=r"^picture is \w+ of shape \(.*: give uint8 of sha"):
            to_example(pixels, MNIST)

"""Class folders and .npz files are read as data sets; what is wrong with one is named."""

import numpy as np
import pytest
from PIL import Image

import jaxmnist
from jaxmnist.config import apply_overrides
from jaxmnist.datasets import load
from jaxmnist.errors import DataError
from support import Tiny

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (23, 7, 9), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (23, 7, 9, 3), dtype=np.uint8)
NAMES = ["10", "cat", "dog"]


def write_folders(root, images, *, suffix=".png"):
    """19 pictures to learn from and 4 to test on, of three classes."""
    for i, image in enumerate(images):
        folder = root / ("train" if i < 19 else "test") / NAMES[i % 3]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{i:02}{suffix}")
    return root


@pytest.fixture
def folders(tmp_path):
    return write_folders(tmp_path / "pets", GREY)


class TestClassFolders:
    @pytest.mark.parametrize("images", [GREY, COLOUR], ids=["grey", "colour"])
    def test_give_the_pixels_and_the_place_of_the_class_among_the_names(self, tmp_path, images):
        made = load(directory=write_folders(tmp_path / "pets", images))
        assert (made.name, made.classes) == ("pets", 3)
        order = sorted(range(19), key=lambda i: (i % 3, i))
        np.testing.assert_array_equal(made.train.images, images.reshape(23, 7, 9, -1)[order])
        assert made.train.labels.tolist() == [i % 3 for i in order]
        assert made.test.labels.tolist() == [0, 1, 1, 2]
        assert {*made.sha256} == {"train", "test"}

    def test_may_hold_jpegs_in_capitals_hidden_files_and_a_validation_split(self, tmp_path):
        root = write_folders(tmp_path / "pets", GREY, suffix=".JPG")
        (root / "train" / ".DS_Store").touch()
        (root / "train" / "cat" / ".hidden").touch()
        (root / "validation" / "dog").mkdir(parents=True)
        Image.fromarray(GREY[0]).save(root / "validation" / "dog" / "1.png")
        made = load(directory=root)
        assert made.validation.labels.tolist() == [2]
        assert made.train.images.shape == (19, 7, 9, 1)

    def test_are_turned_upright(self, folders):
        for path in folders.glob("*/*/*.png"):
            exif = Image.Exif()
            exif[0x0112] = 3  # upside down
            with Image.open(path) as image:
                image.rotate(180).save(path, exif=exif)
        order = sorted(range(19), key=lambda i: (i % 3, i))
        np.testing.assert_array_equal(load(directory=folders).train.images[..., 0], GREY[order])

    def test_another_picture_has_another_digest(self, folders):
        before = load(directory=folders).digest
        Image.fromarray(GREY[1]).save(folders / "train" / "10" / "00.png")
        assert load(directory=folders).digest != before

    @pytest.mark.parametrize(
        ("spoil", "text"),
        [
            (
                lambda d: (d / "train/cat/01.png").write_bytes(b"\x89PNG\r\n\x1a\nno more"),
                r"train/cat/01.png is damaged or no PNG or JPEG",
            ),
            (
                lambda d: (d / "test/cat/19.png").write_bytes(
                    (d / "test/cat/19.png").read_bytes()[:-40]
                ),
                r"test/cat/19.png is damaged",
            ),
            (
                lambda d: Image.fromarray(GREY[0, :6]).save(d / "test/cat/19.png"),
                r"test/cat/19.png is 6×9 grey, others are 7×9 grey",
            ),
            (
                lambda d: Image.fromarray(COLOUR[0]).save(d / "train/dog/02.png"),
                r"1 pictures cannot be used.*nothing is resized(.|\n)*02.png is 7×9 colour, other",
            ),
            (
                lambda d: Image.fromarray(GREY[0]).convert("RGBA").save(d / "train/dog/02.png"),
                r"02.png has the mode RGBA: save it as grey or colour of 8 bits, not transparent",
            ),
            (
                lambda d: Image.fromarray(GREY[0].astype(np.uint16)).save(d / "train/dog/02.png"),
                r"02.png has the mode I;16: save it as grey",
            ),
            (
                lambda d: (d / "train/dog/notes.txt").touch(),
                r"train/dog/notes.txt is no picture .*: expected .png, .jpg, .jpeg; convert it",
            ),
            (
                lambda d: (d / "train/loose.png").touch(),
                r"train/loose.png lies beside the class folders: .*move it there",
            ),
            (
                lambda d: (d / "test/cow").mkdir(),
                r"test/cow is no class of train, which has 10, cat, dog; rename or move it",
            ),
            (lambda d: (d / "train/ant").mkdir(), r"train/ant is empty: give it pictures"),
            (
                lambda d: (d / "test").rename(d / "testing"),
                r"pets/test is missing or holds no class folders: give train/CLASS",
            ),
        ],
    )
    def test_that_are_not_whole_are_refused_by_name(self, folders, spoil, text):
        spoil(folders)
        with pytest.raises(DataError, match=text):
            load(directory=folders)

    def test_a_run_learns_from_them(self, folders, tmp_path):
        values = {"dataset.dir": str(folders), "batch_size": "8", "train.steps": "3"}
        config = apply_overrides(jaxmnist.get_config(), values)
        result = jaxmnist.train(config, tmp_path / "run", model=Tiny(classes=3), quiet=True)
        assert result.test.count == 4


def arrays():
    labels = np.arange(23) % 5
    return {
        "train_images": GREY[:19],
        "train_labels": labels[:19],
        "test_images": GREY[19:],
        "test_labels": labels[19:].astype(np.uint8),
    }


class TestArchives:
    def test_give_their_arrays(self, tmp_path):
        np.savez_compressed(tmp_path / "mine.npz", **arrays(), other=np.zeros(3))
        made = load(directory=tmp_path / "mine.npz")
        assert (made.name, made.classes) == ("mine", 5)
        np.testing.assert_array_equal(made.train.images[..., 0], GREY[:19])
        assert len(made.sha256) == 4

    def test_may_be_called_as_keras_calls_them_and_hold_a_validation_split(self, tmp_path):
        values = arrays()
        keras = dict(zip(["x_train", "y_train", "x_test", "y_test"], values.values(), strict=True))
        more = {"x_val": COLOUR[:2, ..., 0], "y_val": [1, 4]}
        np.savez(tmp_path / "mine.npz", **keras, **more)
        assert load(directory=tmp_path / "mine.npz").validation.labels.tolist() == [1, 4]

    @pytest.mark.parametrize(
        ("change", "text"),
        [
            ({"test_images": None}, r"lacks test_images; it holds train_images, train_labels, te"),
            ({"validation_images": GREY}, "lacks validation_labels; it holds"),
            ({"train_images": GREY[:19] / 255}, r"mine.npz/train_images: images are float64"),
            (
                {"train_labels": np.zeros(19)},
                r"mine.npz/train_labels: labels are float64, expected integers",
            ),
            (
                {"train_labels": np.array([None] * 19)},
                "no .npz .*pickle.* plain arrays without obj",
            ),
        ],
    )
    def test_that_break_a_rule_are_refused(self, tmp_path, change, text):
        values = {k: v for k, v in (arrays() | change).items() if v is not None}
        np.savez(tmp_path / "mine.npz", **values)
        with pytest.raises(DataError, match=text):
            load(directory=tmp_path / "mine.npz")

    @pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no more", b"text"])
    def test_that_are_damaged_are_refused(self, tmp_path, content):
        (tmp_path / "mine.npz").write_bytes(content)
        with pytest.raises(DataError, match=r"mine.npz is no .npz file of arrays .*savez_compress"):
            load(directory=tmp_path / "mine.npz")

    def test_that_are_missing_are_refused(self, tmp_path):
        with pytest.raises(DataError, match=r"mine.npz: there is no such file; correct dataset"):
            load(directory=tmp_path / "mine.npz")

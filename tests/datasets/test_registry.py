"""Data sets are found by name, by function or in a directory; faults are said in a sentence."""

import gzip
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from jaxmnist.datasets import Dataset, from_arrays, load
from jaxmnist.errors import ConfigError, DataError
from jaxmnist.zoo import idx


def use_mirrors(*urls):
    idx.FILES["tiny"]["mirrors"] = urls


def test_mnist_is_bundled_whole(mnist):
    assert (mnist.name, mnist.classes, mnist.source) == ("mnist", 10, "mnist")
    assert mnist.train.images.shape == (60_000, 28, 28, 1)
    assert mnist.test.images.shape == (10_000, 28, 28, 1)
    assert np.bincount(mnist.train.labels).tolist() == [
        *[5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    ]
    assert np.bincount(mnist.test.labels).sum() == 10_000
    assert mnist.sha256 == idx.FILES["mnist"]["sha256"]


def test_attribution_lies_beside_the_bundled_files():
    files = idx.Path(idx.__file__).parent / "mnist_files"
    text = (files / "ATTRIBUTION.md").read_text()
    for word in [
        "LeCun",
        "Cortes",
        "Burges",
        "CC BY-SA 3.0",
        *idx.FILES["mnist"]["sha256"].values(),
    ]:
        assert word in text


def test_importing_the_data_sets_imports_neither_jax_nor_network_nor_lock():
    heavy = ["jax", "flax", "urllib.request", "http.client", "ssl", "filelock", "platformdirs"]
    program = f"import sys, jaxmnist.datasets; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("dotted", [False, True])
def test_a_directory_is_read_whatever_its_sizes_and_spelling(write_set, arrays, suffix, dotted):
    made = load("mnist", directory=write_set(suffix=suffix, dotted=dotted))
    assert (made.name, made.classes) == ("my_set", 3)
    assert made.train.images.shape == (97, 5, 7, 1)
    np.testing.assert_array_equal(made.train.images[..., 0], arrays["train_images"])
    np.testing.assert_array_equal(made.train.labels, arrays["train_labels"])
    np.testing.assert_array_equal(made.test.images[..., 0], arrays["test_images"])
    np.testing.assert_array_equal(made.test.labels, arrays["test_labels"])


def test_a_directory_may_mix_gzipped_and_plain_and_its_home_is_expanded(write_set, monkeypatch):
    directory = write_set()
    plain = directory / "train-images-idx3-ubyte"
    (directory / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(plain.read_bytes()))
    plain.unlink()
    monkeypatch.setenv("HOME", str(directory.parent))
    assert load(directory="~/my_set").name == "my_set"


def test_of_a_plain_and_a_gzipped_file_the_plain_one_is_read(write_set):
    directory = write_set()
    (directory / "train-labels-idx1-ubyte.gz").write_bytes(b"never opened")
    assert load(directory=directory).classes == 3


def test_a_directory_of_a_known_set_is_recognised(write_set, known_set):
    made = load("mnist", directory=write_set())
    assert made.name == "tiny"
    assert made.sha256 == idx.FILES["tiny"]["sha256"]


def refused(directory, text, **kwargs):
    with pytest.raises(DataError, match=text):
        load(directory=directory, **kwargs)


def test_a_directory_that_is_none_is_refused(tmp_path):
    refused(
        tmp_path / "no",
        "no: not a directory .* train-images-idx3-ubyte.*; .* correct dataset.dir",
    )
    (tmp_path / "file").touch()
    refused(tmp_path / "file", "file: not a directory that can be read")


def test_all_missing_files_are_listed_with_every_name_looked_for(write_set):
    directory = write_set()
    (directory / "t10k-labels-idx1-ubyte").unlink()
    (directory / "train-images-idx3-ubyte").unlink()
    names = "train-images-idx3-ubyte, t10k-labels-idx1-ubyte"
    refused(directory, rf"my_set: files are missing: {names}; put them .*idx and .gz .*dataset.dir")


@pytest.mark.parametrize(
    ("part", "change", "text"),
    [
        ("train_labels", lambda a: a[:96], "train-labels-idx1-ubyte: 96 labels, expected 97"),
        ("test_labels", lambda a: a + 7, "t10k-labels-idx1-ubyte: label 7 at index 0 .* 0 to 2"),
        ("test_images", lambda a: a[:, :, :6], "t10k-images-idx3-ubyte: .*5, 6, 1.*5, 7, 1"),
        (
            "train_images",
            lambda a: a[:, :3],
            r"train-images-idx3-ubyte: images .* \(97, 3, 7\), .*4×4 pix",
        ),
        ("train_images", lambda a: a[:0], "train-images-idx3-ubyte: the sizes .* ask for 0 bytes"),
        (
            "train_images",
            lambda a: a[..., 0],
            r"train-images-idx3-ubyte: images are uint8 of shape \(97, 5\), expected",
        ),
        (
            "train_labels",
            lambda a: a[:, None],
            "train-labels-idx1-ubyte: .*found 2 dimensions, expected 1",
        ),
    ],
)
def test_files_that_break_a_rule_are_named(write_set, arrays, part, change, text):
    refused(write_set(**{part: change(arrays[part])}), text)


def test_classes_can_be_more_than_train_shows(write_set):
    assert load(directory=write_set(), classes=7).classes == 7
    refused(write_set(), "train-labels-idx1-ubyte: label 2 at index 2 .* 0 to 1", classes=2)
    with pytest.raises(ConfigError, match=r"dataset.classes = 0"):
        load(directory=write_set(), classes=0)


def test_fetches_a_known_set_once_into_the_cache(mirror, known_set, cache, arrays):
    mirror.answers = {f"/sets/{name}": data for name, data in known_set.items()}
    for mirrors in [f"{mirror.url}/gone/", f"{mirror.url}/sets/"], []:
        use_mirrors(*mirrors)
        made = load("tiny")
        assert made.name == "tiny"
        np.testing.assert_array_equal(made.train.images[..., 0], arrays["train_images"])
    assert len(mirror.requests) == 8
    assert {path.name for path in (cache / "tiny").iterdir()} >= set(known_set)


def test_a_cached_file_that_no_longer_matches_is_fetched_again(mirror, known_set, cache):
    mirror.answers = {f"/{name}": data for name, data in known_set.items()}
    use_mirrors(f"{mirror.url}/")
    load("tiny")
    del mirror.requests[:]
    damaged = cache / "tiny" / "t10k-labels-idx1-ubyte.gz"
    content = bytearray(gzip.decompress(damaged.read_bytes()))
    content[-1] ^= 1
    damaged.write_bytes(gzip.compress(content))
    assert load("tiny").name == "tiny"
    assert mirror.requests == ["/t10k-labels-idx1-ubyte.gz"]
    damaged.write_bytes(b"garbage")
    use_mirrors("http://127.0.0.1:1/")
    with pytest.raises(DataError, match=r"wrong magic number(.|\n)*127.0.0.1:1(.|\n)*dataset.dir"):
        load("tiny")


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda images: 255 - images, "SHA-256 of the decompressed file is .*, expected"),
        (lambda images: np.zeros((4000, 28, 28), np.uint8), "the sizes .4000, 28, 28. ask for"),
    ],
    ids=["another data set", "a gzip bomb"],
)
def test_a_mirror_with_another_file_is_refused(
    mirror, known_set, cache, encode, arrays, make, text
):
    file = gzip.compress(encode(make(arrays["train_images"])))
    mirror.answers = {"/train-images-idx3-ubyte.gz": file}
    use_mirrors(f"{mirror.url}/")
    with pytest.raises(DataError, match=text):
        load("tiny")


def test_a_cut_answer_is_refused(mirror, known_set, cache):
    mirror.answers = {f"/{name}": data for name, data in known_set.items()}
    mirror.cut = set(mirror.answers)
    use_mirrors(f"{mirror.url}/")
    with pytest.raises(DataError, match=r"corrupt gzip file: Compressed file ended"):
        load("tiny")


def test_bundled_files_need_no_network_and_a_damaged_one_is_never_used(
    known_set, tmp_path, cache, monkeypatch
):
    monkeypatch.setattr(idx, "__file__", str(tmp_path / "__init__.py"))
    (tmp_path / "tiny_files").mkdir()
    for name, data in known_set.items():
        (tmp_path / "tiny_files" / name).write_bytes(data)
    assert load("tiny").name == "tiny"
    assert not cache.exists()
    damaged = tmp_path / "tiny_files" / "train-labels-idx1-ubyte.gz"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    with pytest.raises(DataError, match=rf"\n  - {damaged}: corrupt gzip(.|\n)*127.0.0.1:1"):
        load("tiny")


@pytest.mark.parametrize("name", ["fashion_mnist", "mnist"])
def test_known_sets_have_mirrors_and_distinct_checksums(name):
    assert all(url.endswith("/") for url in idx.FILES[name]["mirrors"])
    assert all(len(digest) == 64 for digest in idx.FILES[name]["sha256"].values())
    assert len({digest for known in idx.FILES.values() for digest in known["sha256"].values()}) == 8


def test_an_unknown_name_gets_a_suggestion_and_the_list():
    text = r"'mnits' is unknown; choose one of fashion_mnist, mnist, .*; did you mean 'mnist'\?$"
    with pytest.raises(ConfigError, match=text):
        load("mnits")
    with pytest.raises(ConfigError, match=r"'zzz' is unknown; choose .*function' or dataset.dir$"):
        load("zzz")


@pytest.fixture
def my_module(tmp_path, monkeypatch):
    (tmp_path / "my_data_module.py").write_text(
        textwrap.dedent("""
        import numpy as np
        from jaxmnist.datasets import Dataset, Split, from_arrays
        IMAGES, LABELS = np.zeros((9, 6, 6, 3), np.uint8), np.arange(9) % 4
        def made():
            return from_arrays(IMAGES, LABELS, IMAGES[:5], LABELS[:5], name="mine", classes=5)
        def held(): return made().hold_out(2, 0)
        def wrong(): return IMAGES
        def by_hand(): return Dataset("x", 4, Split(IMAGES, LABELS), Split(IMAGES, LABELS + 1))
        NUMBER = 3
        """)
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("my_data_module", None)


def test_a_function_of_the_user_makes_a_data_set(my_module):
    made = load("my_data_module:made")
    assert isinstance(made, Dataset)
    assert (made.name, made.classes, made.source) == ("mine", 5, "my_data_module:made")
    assert made.train.images.shape == (9, 6, 6, 3)
    images, labels = np.zeros((9, 6, 6, 3), np.uint8), np.arange(9) % 4
    assert made.sha256 == from_arrays(images, labels, images[:5], labels[:5]).sha256
    assert load("my_data_module:made", classes=8).classes == 8
    assert len(load("my_data_module:held").validation) == 2


def test_what_a_function_of_the_user_returns_is_held_to_the_rules(my_module):
    with pytest.raises(DataError, match=r"my_data_module:wrong gives ndarray; expected a function"):
        load("my_data_module:wrong")
    with pytest.raises(DataError, match=r"my_data_module:NUMBER gives int; .*datasets.from_arrays"):
        load("my_data_module:NUMBER")
    with pytest.raises(DataError, match=r"my_data_module:by_hand: test labels: label 4 at index 3"):
        load("my_data_module:by_hand")
    with pytest.raises(ConfigError, match=r"dataset.classes = 0"):
        load("my_data_module:made", classes=0)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("no_such_module_at_all:f", "No module named 'no_such_module_at_all'"),
        ("my_data_module:f", "has no attribute 'f'"),
        (":f", "Empty module name"),
        ("my_data_module:", "has no attribute ''"),
    ],
)
def test_a_function_that_cannot_be_imported_is_a_config_fault(my_module, name, text):
    with pytest.raises(ConfigError, match=f"dataset.name='{name}' cannot be imported: .*{text}"):
        load(name)

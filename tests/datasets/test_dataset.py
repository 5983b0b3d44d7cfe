"""A data set keeps its rules, and an example held out for validation is the same everywhere."""

import dataclasses
import hashlib
import pickle
import re

import numpy as np
import pytest

from jaxmnist.datasets import Dataset, from_arrays
from jaxmnist.errors import ConfigError, DataError


def refused(arrays, text, **kwargs):
    with pytest.raises(DataError, match=text) as caught:
        from_arrays(**arrays, **kwargs)
    assert ";" in str(caught.value), "the text must tell the repair"


def test_makes_a_data_set_of_plain_arrays(arrays):
    made = from_arrays(**arrays, name="mine")
    assert (made.name, made.classes, made.source) == ("mine", 3, "arrays")
    assert made.train.images.shape[1:] == (5, 7, 1)
    assert (len(made.train), len(made.test), made.validation) == (97, 13, None)
    assert made.train.labels.dtype == made.test.labels.dtype == np.int32
    np.testing.assert_array_equal(made.train.images[..., 0], arrays["train_images"])
    np.testing.assert_array_equal(made.test.labels, arrays["test_labels"])
    digest = hashlib.sha256(arrays["train_images"].tobytes()).hexdigest()
    assert made.sha256["train_images"] == digest
    assert set(made.sha256) == set(arrays)


def test_images_are_not_copied_and_cannot_be_written_through_the_data_set(arrays):
    made = from_arrays(**arrays)
    assert np.shares_memory(made.train.images, arrays["train_images"])
    with pytest.raises(ValueError, match="read-only"):
        made.train.images[0] = 0
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.name = "other"
    arrays["train_images"][0] = 1  # the caller's own array stays writable


def test_colour_images_and_strided_views_are_welcome():
    images = np.random.default_rng(3).integers(0, 256, (10, 6, 8, 3), np.uint8)
    labels = np.arange(10, dtype=np.int64) % 4
    made = from_arrays(images[::2], labels[::2], images[1::2, ::-1], labels[::2])
    assert made.train.images.shape == (5, 6, 8, 3)
    np.testing.assert_array_equal(made.test.images, images[1::2, ::-1])
    assert made.test.images.flags.c_contiguous


def test_survives_pickling_for_worker_processes(arrays):
    made = pickle.loads(pickle.dumps(from_arrays(**arrays)))
    np.testing.assert_array_equal(made.train.images[..., 0], arrays["train_images"])


@pytest.mark.parametrize(
    ("part", "change", "text"),
    [
        (
            "train_images",
            lambda a: a / 255.0,
            r"train_images: images are float64 .* expected uint8 \[n.*numpy.round\(images \* 255\)",
        ),
        (
            "train_images",
            lambda a: np.where(a == a.max(), np.nan, a / 255),
            r"train_images: images are float64 .*; \d+ values are NaN or infinite: correct these",
        ),
        (
            "test_images",
            lambda a: a.astype(np.int32),
            r"test_images: images are int32 .* convert them with numpy.round\(images\).astype",
        ),
        (
            "test_images",
            lambda a: a.astype(np.uint16) * 257,
            r"test_images: images are uint16 .*; their values, \d+ to \d+, must be 0 to 255",
        ),
        (
            "train_images",
            lambda a: [a[0], a[1, 1:]],
            "train_images: no array can be made of these: .*; give all images one size",
        ),
        (
            "train_images",
            lambda a: a[0],
            r"train_images: .* shape \(5, 7\), expected .*\[n, h, w, c\]",
        ),
        ("train_images", lambda a: a[..., None, None], r"train_images: .* shape \(97, 5, 7, 1, 1"),
        ("test_images", lambda a: a[:0], r"test_images: images .* shape \(0, 5, 7\), .* give at"),
        (
            "train_images",
            lambda a: a[:, :3],
            r"train_images: .* \(97, 3, 7\), .* at least 4×4 pixels",
        ),
        ("train_images", lambda a: a[..., :3], r"train_images: images .* \(97, 5, 3\)"),
        ("test_images", lambda a: a[:, :4], r"test_images: images of \(4, 7, 1\).* \(5, 7, 1\)"),
        ("train_labels", lambda a: a[:-1], "train_labels: 96 labels, expected 97, as train_images"),
        (
            "test_labels",
            lambda a: a.astype(float),
            "test_labels: labels are float64, expected integers",
        ),
        ("test_labels", lambda a: a > 0, r"test_labels: labels are bool, .*astype\('int32'\)"),
        (
            "train_labels",
            lambda a: np.eye(3, dtype=int)[a],
            r"train_labels: labels are int64 of shape \(97, 3\), found 2 dimensions, .* one-hot",
        ),
        ("train_labels", lambda a: a - np.int64(1), "train_labels: label -1 at index 0 .33 such"),
        (
            "train_labels",
            lambda a: a + np.uint64(2**63),
            "train_labels: label 9223372036854775808 ",
        ),
    ],
)
def test_refuses_each_breach_of_a_rule_and_names_the_array(arrays, part, change, text):
    refused({**arrays, part: change(arrays[part])}, text)


def test_the_smallest_images_are_4_by_4():
    images = np.zeros((1, 4, 4), np.uint8)
    assert from_arrays(images, [0], images, [0]).train.images.shape == (1, 4, 4, 1)


def test_test_labels_must_lie_within_the_classes_of_train(arrays):
    arrays["test_labels"][[4, 9]] = 3
    refused(arrays, r"test_labels: label 3 at index 4 \(2 such in all\), expected 0 to 2")
    assert from_arrays(**arrays, classes=4).classes == 4


def test_given_classes_bound_the_train_labels_too(arrays):
    refused(
        arrays, "train_labels: label 2 at index 2 .* expected 0 to 1; .*dataset.classes", classes=2
    )


@pytest.mark.parametrize("classes", [0, -1, 2.0, True, "3", 2**31])
def test_classes_must_be_a_positive_integer(arrays, classes):
    text = re.escape(f"dataset.classes = {classes!r}: must be a positive integer")
    with pytest.raises(ConfigError, match=text):
        from_arrays(**arrays, classes=classes)


def numbered(count: int) -> Dataset:
    """A data set whose image i is filled with i."""
    images = np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None], (count, 4, 4))
    return from_arrays(images, np.arange(count), images[:1], [0])


def test_hold_out_is_golden():
    """Only a change of the documented order may change these numbers: it would break resuming."""
    golden = {0: [7, 8, 9, 17, 19], 1: [3, 6, 15, 16, 18], -1: [6, 8, 9, 10, 18]}
    for seed, expected in golden.items():
        assert numbered(23).hold_out(5, seed).validation.labels.tolist() == expected


@pytest.mark.parametrize("count", [1, 11, 22])
def test_hold_out_splits_train_in_two_and_keeps_the_order(count):
    whole = numbered(23)
    held = whole.hold_out(count, 7)
    validation, train = held.validation.labels.tolist(), held.train.labels.tolist()
    assert len(validation) == count
    assert validation == sorted(validation)
    assert train == sorted(train)
    assert sorted(validation + train) == list(range(23))
    np.testing.assert_array_equal(held.train.images[:, 0, 0, 0], held.train.labels)
    np.testing.assert_array_equal(held.validation.images[:, 3, 3, 0], held.validation.labels)
    assert held.test is whole.test
    assert held.classes == 23


@pytest.mark.parametrize("count", [-1, 23, 60000])
def test_hold_out_leaves_a_train_example(count):
    with pytest.raises(ConfigError, match=f"dataset.validation = {count}: .*; choose 0 to 22"):
        numbered(23).hold_out(count, 0)


def test_hold_out_does_not_replace_a_validation_split():
    text = "validation = 3: .* be 0 beside a validation split of the data; choose 0 to 0"
    with pytest.raises(ConfigError, match=text):
        numbered(23).hold_out(4, 0).hold_out(3, 0)

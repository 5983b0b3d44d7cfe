"""Charts draw whatever finite numbers there are, in the colours of the page."""

import re

import numpy as np
import pytest

from jaxmnist.report.charts import Series, calibration, class_accuracies, curves, step_times

ODD = [[0, 0, 0], [-1, -2, -3], [1e29, 1e-29, -1e29], [5, 5, 5], [1e-300, 0, 1], [7]]


@pytest.mark.parametrize("values", ODD)
@pytest.mark.parametrize("scale", ["linear", "log", "accuracy"])
def test_any_finite_values_are_drawn_without_a_warning(values, scale):
    y = np.array(values, float)
    assert curves([Series(np.arange(len(y)) * 1.0, y, 0)], scale=scale).startswith("<svg")


@pytest.mark.parametrize("times", [[5.0], [1e-20, 1e28], [3.0, 3.0]])
def test_any_step_times_are_drawn(times):
    assert step_times([Series(np.ones(len(times)), np.array(times), 0)]).startswith("<svg")


def test_thousands_at_an_axis_are_written_out():
    svg = curves([Series(np.arange(3.0), np.array([0, 1e4, 2e4]), 0)], scale="linear")
    assert ">17,500<" in svg and ">7,500<" in svg and "e+04" not in svg


def test_nothing_is_drawn_of_nothing():
    nothing = Series(np.zeros(0), np.zeros(0), 0)
    assert curves([nothing], scale="log") == step_times([nothing]) == ""


def test_colours_are_those_of_the_page_and_repeat_after_six():
    svg = curves([Series(np.arange(3.0), np.ones(3), color) for color in (1, 7, 5)], scale="linear")
    assert {*re.findall(r"var\(--(c\d)\)", svg)} == {"c1", "c5"}
    assert not re.search("#[0-9a-f]{6}[^0-9a-f]", svg)


def test_a_long_run_makes_a_small_file():
    y = np.random.default_rng(0).random(99_991)
    assert len(curves([Series(np.arange(99_991.0), y, 0)], scale="log")) < 40_000


def test_the_calibration_error_is_the_mean_gap_between_confidence_and_accuracy():
    confidence = np.array([0.95, 0.95, 0.95, 0.95, 0.55, 0.55], np.float32)
    correct = np.array([True, True, True, False, True, False])
    _, error = calibration(confidence, correct)
    assert error == pytest.approx((4 * (0.95 - 0.75) + 2 * (0.55 - 0.5)) / 6, rel=1e-6)
    assert calibration(np.ones(1, np.float32), np.ones(1, bool))[1] == 0


def test_labels_without_examples_have_no_accuracy():
    two = class_accuracies(np.array([0, 3, 2**50]), np.array([0, 4, 2**50]))
    three = class_accuracies(np.array([1, 3, 1]), np.array([2, 4, 2]))
    assert two.count("var(--c0)") < three.count("var(--c0)")

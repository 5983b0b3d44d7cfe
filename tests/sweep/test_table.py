"""What seeds say of a mean, and which point of a grid is best by what."""

import statistics
from xml.etree import ElementTree

import pytest

from jaxmnist.sweep.show import draw, table_rows, verdict
from jaxmnist.sweep.table import Estimate, choose, csv_rows, summarize


def lines(shares, *, validation=None, point=None, failed=0):
    """The records of a point whose seeds have these accuracies."""
    found = [{"status": "done", "point": point or {}, "test": {"accuracy": s}} for s in shares]
    if validation:
        for line, share in zip(found, validation, strict=True):
            line["validation"] = {"accuracy": share}
    return found + [{"status": "failed", "point": point or {}, "reason": "NaN"}] * failed


class TestEstimate:
    def test_the_interval_is_students(self):
        values = [0.91, 0.92, 0.93, 0.94, 0.95]
        found = Estimate.of(values)
        assert found.mean == pytest.approx(0.93)
        assert found.std == pytest.approx(statistics.stdev(values))
        # 2.776 of the tables for four degrees of freedom.
        assert found.ci95 == pytest.approx(2.776445 * found.std / 5**0.5, rel=1e-6)
        assert str(found) == "93.00 ± 1.58 % [91.04, 94.96]"

    def test_two_seeds_say_little(self):
        assert Estimate.of([0.1, 0.2]).ci95 == pytest.approx(12.7062 * 0.05, rel=1e-5)

    def test_one_seed_has_no_deviation(self):
        assert Estimate.of([0.5]) == Estimate(0.5, None, None)
        assert str(Estimate.of([0.5])) == "50.00%"

    def test_equal_seeds_have_none_either(self):
        assert Estimate.of([0.5, 0.5, 0.5]) == Estimate(0.5, 0.0, 0.0)

    def test_no_seed_says_nothing(self):
        assert Estimate.of([]) is None


LOW, HIGH, BROKEN = {"rate": "1"}, {"rate": "2"}, {"rate": "3"}


class TestChoice:
    def test_validation_decides_where_there_is_one(self):
        records = lines([0.9, 0.8], validation=[0.6, 0.6], point=LOW)
        records += lines([0.1, 0.2], validation=[0.7, 0.7], point=HIGH)
        best, split = choose(points := summarize(records))
        assert (best.values, split) == (HIGH, "validation")
        assert verdict(points, best, split) == "best by validation accuracy: rate=2"

    def test_a_choice_on_the_test_examples_is_called_that(self):
        points = summarize(lines([0.9], point=LOW) + lines([0.2], point=HIGH))
        best, split = choose(points)
        assert (best.values, split) == (LOW, "test")
        text = verdict(points, best, split)
        assert "best by test accuracy: rate=1; chosen on the test examples themselves" in text
        assert "set dataset.validation to choose honestly" in text

    def test_a_point_that_lost_seeds_is_not_chosen(self):
        points = summarize(lines([0.9], point=LOW, failed=1) + lines([0.2], point=HIGH))
        assert choose(points)[0].values == HIGH
        assert [(point.done, point.runs) for point in points] == [(1, 2), (1, 1)]

    def test_nothing_is_chosen_where_all_points_lost_seeds(self):
        points = summarize(lines([0.9], point=LOW, failed=1) + lines([], point=BROKEN, failed=1))
        assert choose(points)[0] is None
        assert "undecided" in verdict(points, None, "test")

    def test_without_a_grid_there_is_nothing_to_choose(self):
        points = summarize(lines([0.9, 0.8]))
        assert choose(points)[0] is None
        assert verdict(points, None, "test") == ""


def test_the_table_for_people_shows_what_there_is():
    points = summarize(lines([0.9, 0.8], point=LOW) + lines([], point=BROKEN, failed=2))
    header, rows = table_rows(points)
    assert header == ["rate", "seeds", "test accuracy, mean ± std [95 %]"]
    assert rows == [["1", "2", "85.00 ± 7.07 % [21.47, 148.53]"], ["3", "0 of 2", "–"]]


def test_the_table_for_programs_has_shares_and_leaves_out_what_there_is_not():
    points = summarize(lines([0.5], validation=[0.25], point=LOW) + lines([], point=HIGH, failed=1))
    header, first, second = csv_rows(points, points[0])
    assert dict(zip(header, first, strict=True)) == {
        "rate": "1",
        "seeds": 1,
        "done": 1,
        "validation_mean": "0.25",
        "validation_std": "",
        "validation_ci95": "",
        "test_mean": "0.5",
        "test_std": "",
        "test_ci95": "",
        "best": "yes",
    }
    assert second == ["2", 1, 0, "", "", "", "", "", "", ""]


def test_the_picture_has_a_mark_for_each_seed(tmp_path):
    records = lines([0.9, 0.8, 0.7], point=LOW) + lines([], point=BROKEN, failed=1)
    draw(summarize(records), records, split="test", path=tmp_path / "picture.svg")
    root = ElementTree.parse(tmp_path / "picture.svg").getroot()
    marks = [use for use in root.iter() if use.tag.endswith("}use") and "1f77b4" in str(use.attrib)]
    assert len(marks) == 3

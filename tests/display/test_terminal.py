"""A run is a live bar within 80 columns on a terminal, and plain whole lines in a pipe."""

import io
import re

import pytest
from rich.console import Console

from jaxmnist.cli.commands import print_evaluation
from jaxmnist.display.terminal import Terminal, print_table
from jaxmnist.metrics import Evaluation
from jaxmnist.workdir import Workdir

ROWS = [
    ("devices", "2 × cpu (cpu)"),
    ("to resume", "jaxmnist train --config.dataset.dir=[red]a b[/red] --workdir=" + "long/" * 20),
]
TRAIN = {
    "split": "train",
    "step": 1000,
    "epoch": 4.27,
    "loss": 0.12345,
    "accuracy": 0.98765,
    "images_per_second": 12345.6,
}
TEST = {"split": "test", "step": 1172, "epoch": 5.0, "loss": 0.03, "accuracy": 0.9912}
RESULT = {
    "test": {"accuracy": 0.75, "count": 12, "loss": 0.5, "confusion": [[4, 1], [2, 5]]},
    "train": {
        "steps": 1172,
        "seconds": 61.5,
        "images_per_second": 4878.0,
        "compile_seconds": 3.25,
        "eval_seconds": 2.0,
        "checkpoint_seconds": 0.5,
    },
    "params": {"count": 824458, "sha256": "0123456789abcdef" * 4},
}
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def shown(place, *, terminal, quiet=False, result=RESULT):
    """What a whole run writes on a terminal of 80 columns, or on none."""
    file = io.StringIO()
    if terminal:
        console = Console(force_terminal=True, width=80, file=file, markup=False, quiet=quiet)
    else:
        console = Console(file=file, width=160, markup=False, quiet=quiet)
    with Terminal(quiet=quiet, console=console) as shows:
        shows.start(ROWS, total_steps=1172)
        shows.record(TRAIN, seconds_left=75.4)
        shows.record(TEST)
        shows.message("[bold]brackets[/bold] stay")
        shows.finish(result, place)
    return file.getvalue()


@pytest.fixture
def place(tmp_path):
    place = Workdir(tmp_path / "run")
    place.tensorboard.mkdir(parents=True)
    return place


class TestPipe:
    def test_each_record_is_a_line_without_escapes(self, place):
        text = shown(place, terminal=False)
        assert "\x1b" not in text
        lines = text.splitlines()
        assert lines[0] == "devices:         2 × cpu (cpu)"
        train = "step  1,000/1,172  epoch   4.27  train       loss 0.1235  accuracy 98.77%"
        assert f"{train}  12,346 images/s  1:15 left" in lines
        assert "step  1,172/1,172  epoch   5.00  test        loss 0.0300  accuracy 99.12%" in lines

    def test_nothing_is_cut_or_taken_for_markup(self, place):
        lines = shown(place, terminal=False).splitlines()
        assert f"to resume:       {ROWS[1][1]}" in lines
        assert "[bold]brackets[/bold] stay" in lines

    def test_the_table_has_the_result_and_where_it_lies(self, place):
        text = shown(place, terminal=False)
        for part in (
            "75.00% of 12 (3 wrong)",
            "1,172 steps in 61.5 s, 4,878 images/s",
            "compile 3.2 s, eval 2.0 s, checkpoint 0.5 s",
            "824,458, SHA-256",
            RESULT["params"]["sha256"],
            str(place.metrics),
            f"tensorboard --logdir {place.tensorboard}",
        ):
            assert part in text
        assert "best by validation" not in text

    def test_event_files_are_told_of_where_there_are_any(self, place):
        place.tensorboard.rmdir()
        assert "tensorboard" not in shown(place, terminal=False)

    def test_the_best_by_validation_is_shown_where_there_is_one(self, place):
        best = {"step": 704, "validation": {"accuracy": 0.5}, "test": {"accuracy": 0.25}}
        text = shown(place, terminal=False, result=RESULT | {"best": best})
        assert "step 704: validation 50.00%, test 25.00%" in text


class TestTerminal:
    def test_no_line_is_wider_than_the_terminal(self, place):
        place = Workdir(place.path.relative_to("/"))
        for line in ESCAPES.sub("", shown(place, terminal=True)).splitlines():
            for part in line.split("\r"):
                assert len(part) <= 80 or part.startswith("[bold]"), part

    def test_a_bar_shows_the_last_training_metrics_and_other_splits_are_lines(self, place):
        text = ESCAPES.sub("", shown(place, terminal=True))
        assert re.search(r"training ━+.* 1000/1172 loss 0.1235  accuracy 98.77%  12,346 im", text)
        assert not re.search(r"step +1,000/1,172", text)
        assert re.search(r"step +1,172/1,172 .*test +loss 0.0300", text)

    def test_the_panel_shows_what_the_run_runs_on(self, place):
        text = ESCAPES.sub("", shown(place, terminal=True))
        assert re.search(r"╭─ jaxmnist ─+╮\n│ devices +2 × cpu \(cpu\) +│", text)

    def test_without_colour_there_is_none(self, place, monkeypatch):
        colour = re.compile(r"\x1b\[[0-9;]*3[0-9][0-9;]*m")
        assert colour.search(shown(place, terminal=True))
        monkeypatch.setenv("NO_COLOR", "1")
        assert not colour.search(shown(place, terminal=True))


def test_a_path_with_brackets_and_colons_is_printed_as_it_is(capsys, tmp_path):
    place = Workdir(tmp_path / "[red]" / "[" / "b]" / ":smile:")
    with Terminal() as shows:
        shows.start([("work directory", str(place.path))], total_steps=1)
        shows.message(f"[/x] {place.path}")
        shows.finish(RESULT, place)
    out = capsys.readouterr().out
    assert f"work directory:  {place.path}" in out.splitlines()
    assert f"[/x] {place.path}" in out.splitlines()
    assert str(place.metrics) in out


@pytest.mark.parametrize("terminal", [True, False])
def test_quiet_writes_nothing(place, terminal):
    assert shown(place, terminal=terminal, quiet=True) == ""


def test_an_error_stops_the_bar_and_goes_on(place):
    file = io.StringIO()
    console = Console(force_terminal=True, width=80, file=file)
    with pytest.raises(RuntimeError, match="broken"), Terminal(console=console) as shows:
        shows.start(ROWS, total_steps=9)
        raise RuntimeError("broken")
    assert file.getvalue().endswith("\x1b[?25h")  # the cursor is back


def test_a_table_folds_what_is_long_and_takes_no_markup(capsys):
    print_table(["step", "digest"], [[3, "[red]x[/red]"], [4, "f" * 200]])
    out = capsys.readouterr().out
    assert "[red]x[/red]" in out
    assert out.count("f") == 200
    assert max(map(len, out.splitlines())) <= 160


def test_an_evaluation_shows_counts_and_dots_for_zeros(capsys):
    found = Evaluation(0.5, 0.75, 12, (0.8, None, 1.0), ((4, 1, 0), (0, 0, 0), (0, 0, 7)))
    print_evaluation(found, title="test of runs/[x]")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "accuracy 75.00% of 12, loss 0.5000"
    cells = [[c.strip() for c in line.split("│")[1:-1]] for line in lines if "│" in line]
    assert cells[-3:] == [
        ["0", "80.00%", "4", "1", "·"],
        ["1", "none", "·", "·", "·"],
        ["2", "100.00%", "·", "·", "7"],
    ]
    assert "test of runs/[x]" in " ".join(lines)

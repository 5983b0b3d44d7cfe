"""The command and its stand-in for the process of a run."""

import sys
from pathlib import Path

import pytest

import jaxmnist
from jaxmnist.cli.main import main
from jaxmnist.sweep import processes

STAND_IN = Path(__file__).with_name("stand_in.py")


@pytest.fixture
def stand_in(monkeypatch):
    """Runs that take no time, in real processes."""
    monkeypatch.setattr(processes, "_WORKER", (str(STAND_IN),))


@pytest.fixture
def sweep(stand_in, tmp_path):
    """`jaxmnist.sweep` in a directory of this test."""

    def sweep(seeds=(0, 1), *, keys=None, **more):
        config = jaxmnist.config.apply_overrides(jaxmnist.get_config(), keys or {})
        return jaxmnist.sweep(config, tmp_path / "sweep", seeds=seeds, quiet=True, **more)

    return sweep


@pytest.fixture
def command(stand_in, tmp_path, capfd):
    """The command line, in the same directory: exit code, what it printed, what it complained."""

    def command(*arguments):
        capfd.readouterr()
        code = main(["sweep", f"--workdir={tmp_path / 'sweep'}", *arguments])
        return code, *capfd.readouterr()

    return command


@pytest.fixture
def line():
    """The arguments of a process that is the command with the stand-in."""
    code = (
        "import sys; from jaxmnist.cli.main import main; from jaxmnist.sweep import processes;"
        f"processes._WORKER = ({str(STAND_IN)!r},); sys.exit(main(sys.argv[1:]))"
    )
    return [sys.executable, "-c", code, "sweep"]

"""docs/extending.md shows the files of its package, and each of its commands runs."""

import importlib.util
import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest

from jaxmnist.cli.main import main

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "examples" / "extending"
TEXT = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```bash\n(.*?)```", TEXT, re.DOTALL)
COMMANDS = [line for line in "".join(BLOCKS).splitlines() if line.startswith("jaxmnist ")]


def generator():
    """docs/make_extending.py as a module."""
    spec = importlib.util.spec_from_file_location("made", ROOT / "docs" / "make_extending.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_document_shows_every_file_as_it_is():
    made = generator()
    assert made.filled(TEXT) == TEXT, "run: python docs/make_extending.py"
    files = {str(p.relative_to(PACKAGE)) for p in PACKAGE.rglob("*.py") if p.name != "__init__.py"}
    assert {*made.shown(TEXT)} == files | {"pyproject.toml"}


def test_a_changed_file_is_noticed():
    made = generator()
    stale = TEXT.replace("class WideNet", "class Wide")
    assert made.filled(stale) != stale and made.filled(stale) == TEXT


def test_the_document_is_linked():
    assert "docs/extending.md" in (ROOT / "README.md").read_text()
    assert "extending.md" in (ROOT / "mkdocs.yml").read_text()


@pytest.fixture(scope="module")
def beside(tmp_path_factory):
    """The package outside of the repository."""
    return shutil.copytree(PACKAGE, tmp_path_factory.mktemp("beside") / "extending")


def test_every_seam_has_a_command():
    keys = re.findall(r"--config\.([\w.]+)=", " ".join(COMMANDS))
    seams = ["dataset.name", "model.name", "loss.name", "optimizer.name", "schedule.name"]
    assert {*seams, "augment.custom", "callbacks", "train.init_from"} <= {*keys}


def run(commands, folder, monkeypatch, capsys):
    """Runs commands in a folder from which its package can be imported."""
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    for command in commands:
        arguments = [*shlex.split(command)[1:], "--quiet"]
        code = main(arguments + ["--noreport"] * (arguments[0] == "train"))
        assert code == 0, command + capsys.readouterr().err
    for name in [name for name in sys.modules if name.partition(".")[0] == "mydigits"]:
        monkeypatch.delitem(sys.modules, name)


def test_a_model_and_a_data_set_of_ones_own_train(beside, monkeypatch, capsys):
    run(COMMANDS[1:2], beside, monkeypatch, capsys)
    assert (beside / "runs" / "model" / "result.json").exists()


@pytest.mark.slow
def test_every_command_runs(tmp_path, monkeypatch, capsys):
    folder = shutil.copytree(PACKAGE, tmp_path / "extending")
    run(COMMANDS, folder, monkeypatch, capsys)
    assert (folder / "runs" / "tuned" / "result.json").exists()
    lines = (folder / "runs" / "callback" / "worst.txt").read_text().splitlines()
    assert lines[-1].startswith("step 24, test: class ")


def test_no_part_is_imported_by_what_only_shows_a_run(tmp_path, monkeypatch, capsys):
    (tmp_path / "trap.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    keys = ["model.name", "dataset.name", "loss.name", "optimizer.name", "schedule.name"]
    trap = [f"--config.{key}=trap:x" for key in [*keys, "augment.custom", "callbacks"]]
    assert main(["config", *trap]) == 0
    assert main(["info", "--json"]) == 0
    assert "trap:x" in capsys.readouterr().out

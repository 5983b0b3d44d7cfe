"""The documents: the example of a user's test runs, the list of proofs is complete."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def code_blocks(name, language):
    text = (ROOT / name).read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def test_the_example_of_a_users_test_runs_in_a_project_of_its_own(tmp_path):
    (block,) = code_blocks("docs/testing.md", "python")
    (tmp_path / "test_mine.py").write_text(block)
    (settings,) = code_blocks("docs/testing.md", "toml")
    (tmp_path / "pyproject.toml").write_text(settings)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "1 passed" in run.stdout


def test_every_proof_is_listed():
    listed = re.findall(r"`(tests/proofs/test_\w+\.py)`", (ROOT / "docs/proofs.md").read_text())
    there = sorted(f"tests/proofs/{p.name}" for p in (ROOT / "tests/proofs").glob("test_*.py"))
    assert listed == there, "run: pytest tests/proofs --runslow --write-proofs=docs/proofs.md"


def test_the_readme_gives_the_commands_that_ci_runs():
    readme, ci = (ROOT / "README.md").read_text(), (ROOT / ".ci/run").read_text()
    assert "pip install -e '.[test]' && pytest" in readme
    assert "'.[test]' && pytest\n" in ci
    assert "pip install . && jaxmnist train" in readme

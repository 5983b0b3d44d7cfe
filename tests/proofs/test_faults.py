"""Each proof can fail: a library broken on purpose does not pass it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from proofs.faults import FAULTS

ROOT = Path(__file__).parents[2]
QUICK = {"all_reduce_inside_the_accumulation"}


def run_proof(proof, *options):
    """Runs one shipped proof, unmodified, in a process of its own."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-n0", "-p", "no:cacheprovider"]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "tests")}
    return subprocess.run(
        [*command, "-p", "proofs.faults", "--runslow", *options, proof],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(f.__name__, marks=() if f.__name__ in QUICK else pytest.mark.slow)
        for f in FAULTS
    ],
)
def test_the_proof_fails_where_the_library_is_broken(fault):
    proof = next(proof for f, proof in FAULTS.items() if f.__name__ == fault)
    broken = run_proof(proof, f"--fault={fault}")
    # 1: tests ran and failed. A proof that could not run at all would exit with 2, 3, 4 or 5.
    assert broken.returncode == 1, broken.stdout + broken.stderr
    assert "1 failed" in broken.stdout, broken.stdout


@pytest.mark.slow
def test_the_same_proofs_pass_where_it_is_whole():
    proofs = sorted(set(FAULTS.values()))
    whole = run_proof(proofs[0], *proofs[1:])
    assert whole.returncode == 0, whole.stdout + whole.stderr
    assert f"{len(proofs)} passed" in whole.stdout

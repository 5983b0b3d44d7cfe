"""In another project the plugin is inert until asked for, and then its fixtures are enough."""

import importlib.util
import os
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import jaxmnist

RIGHT_STEP = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import PartitionSpec as P
from jaxmnist.testing import assert_all_reduce_count, assert_equal_across_devices

def make_step(mesh):
    def step(w, x):
        w = jax.lax.pcast(w, "data", to="varying")
        grads = jax.grad(lambda w: ((x @ w) ** 2).sum() / 24)(w)
        return w_new(w, jax.lax.REDUCE(grads, "data"))
    w_new = lambda w, grads: grads
    return jax.jit(jax.shard_map(step, mesh=mesh, in_specs=(P(), P("data")), out_specs=P()))

ARGUMENTS = (jnp.ones(3), np.arange(72, dtype=np.float32).reshape(24, 3))

def test_same_on_any_devices(devices):
    assert len(devices) == 4
    assert_equal_across_devices(lambda mesh: make_step(mesh)(*ARGUMENTS), devices=(1, 2, 4))

def test_one_all_reduce(data_mesh):
    assert data_mesh().size == 4 and data_mesh(2).axis_names == ("data",)
    assert_all_reduce_count(make_step(data_mesh(2)).lower(*ARGUMENTS), 1)
"""

INERT = """
import os, sys
def test_nothing_was_touched():
    assert "jax" not in sys.modules and "numpy" not in sys.modules
    assert os.environ.get("XLA_FLAGS", "") == "" and "JAX_PLATFORMS" not in os.environ
    import jaxmnist.testing
    assert "run_processes" in dir(jaxmnist.testing)
    assert "jax" not in sys.modules
"""

COUNT = "def test_count(devices, data_mesh):\n    assert len(devices) == data_mesh().size == 3\n"


def run_pytest(folder, source, *options, **files):
    """Runs pytest in a project of its own, as its user would."""
    (folder / "test_mine.py").write_text(source)
    for name, text in files.items():
        (folder / name.replace("_dot_", ".")).write_text(text)
    ours = ("XLA_FLAGS", "JAX_", "PYTEST_")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
    environment["JAX_NUM_CPU_DEVICES"] = "2"  # must not win over the plugin
    path = [str(Path(jaxmnist.__path__[0]).parent)]
    if not entry_points(group="pytest11", name="jaxmnist"):  # what an installation would add
        metadata = folder / "installed" / "jaxmnist-0.dist-info"
        metadata.mkdir(parents=True)
        (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: jaxmnist\nVersion: 0\n")
        entry = "[pytest11]\njaxmnist = jaxmnist.testing.plugin\n"
        (metadata / "entry_points.txt").write_text(entry)
        path.append(str(metadata.parent))
    environment["PYTHONPATH"] = os.pathsep.join(path)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout + done.stderr


def test_a_right_step_passes_and_a_wrong_one_fails_with_its_diagnosis(tmp_path):
    # Each shard's gradient is divided by the global count already, so that a mean is wrong.
    wrong = RIGHT_STEP.replace("REDUCE", "pmean")
    files = {"test_wrong_dot_py": wrong, "pytest_dot_ini": "[pytest]\nfake_devices = 4\n"}
    code, output = run_pytest(tmp_path, RIGHT_STEP.replace("REDUCE", "psum"), "-rfp", **files)
    assert code == 1, output
    assert "jaxmnist: 4 fake CPU devices" in output
    assert "PASSED test_mine.py::test_same_on_any_devices" in output
    assert "FAILED test_wrong.py::test_same_on_any_devices" in output
    assert "4 devices  (the value): 0.75  scale 0.25" in output
    assert "1 failed, 3 passed" in output


def test_without_the_option_nothing_is_imported_or_set(tmp_path):
    code, output = run_pytest(tmp_path, INERT)
    assert code == 0, output


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ((), "the fixtures `devices` and `data_mesh` need --fake-devices=N"),
        (("--fake-devices=eight",), "fake_devices='eight' is not a number of devices"),
    ],
)
def test_a_missing_or_wrong_number_is_explained(tmp_path, options, text):
    code, output = run_pytest(tmp_path, COUNT, *options)
    assert code != 0
    assert text in output


def test_another_count_in_a_started_jax_is_refused_at_once(tmp_path):
    early = {"early_dot_py": "import jax\njax.devices()\n"}
    code, output = run_pytest(tmp_path, COUNT, "-p", "early", "--fake-devices=3", **early)
    assert code == 4, output
    assert "fake_devices=3 comes too late: JAX already runs with 2 cpu device(s)" in output


def test_a_count_changed_after_the_start_is_an_error_never_a_skip(tmp_path):
    late = "import jax\njax.config.update('jax_num_cpu_devices', 2)\n" + COUNT
    code, output = run_pytest(tmp_path, late, "--fake-devices=3")
    assert code == 1, output
    assert "fake_devices=3 was asked for, but JAX has 2" in output


def test_the_option_reaches_an_imported_jax_and_conftests_in_xdist_workers_too(tmp_path):
    files = {"early_dot_py": "import jax\n", "conftest_dot_py": "import jax\njax.devices()\n"}
    workers = ["-n", "1"] if importlib.util.find_spec("xdist") else []
    code, output = run_pytest(tmp_path, COUNT, "-p", "early", "--fake-devices=3", *workers, **files)
    assert code == 0, output

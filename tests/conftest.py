"""Options and fixtures of the whole suite."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest

# What is compiled is kept for the session, for pytest-xdist's workers and for the processes that
# tests start: the suite's many runs have few distinct programs.
_CACHE = "JAX_COMPILATION_CACHE_DIR"
_KEEP_ALL = ("MIN_COMPILE_TIME_SECS", "MIN_ENTRY_SIZE_BYTES")
# Tests of what surrounds a step. Compiling is a third of their time, and half of that goes into
# optimisations that steps of a few examples never earn; proofs see the program that users run.
_HASTY = (
    *("benchmarks", "bucket", "cli", "display", "distributed", "extending", "report", "runs"),
    *("sweep", "test_callbacks.py", "test_signals.py", "zoo/test_profiler.py"),
    "zoo/test_tensorboard.py",
)
_HASTE = "jax_disable_most_optimizations"
_EXACT = ("distributed/test_jobs.py", "runs/test_export.py")  # what they compare are results


def pytest_configure(config):
    if _CACHE not in os.environ:
        os.environ[_CACHE] = tempfile.mkdtemp(prefix="jaxmnist-compiled-")
        os.environ.update({f"JAX_PERSISTENT_CACHE_{name}": "0" for name in _KEEP_ALL})
        config.add_cleanup(lambda: shutil.rmtree(os.environ.pop(_CACHE), ignore_errors=True))


def pytest_addoption(parser):
    parser.addoption("--runslow", action="store_true", help="run the slow tests too")
    parser.addoption("--write-proofs", default=None, help="write what was proven to this file")


def pytest_collection_modifyitems(config, items):
    if config.getoption("--runslow"):
        return
    # Deselected and not skipped: a skip is for a test that cannot run here.
    slow = [item for item in items if "slow" in item.keywords]
    if slow:
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if "slow" not in item.keywords]


@pytest.fixture(scope="session")
def mnist():
    from jaxmnist import datasets

    return datasets.load("mnist")


@pytest.fixture(scope="module", autouse=True)
def compiling(request):
    """How thoroughly XLA optimises here, and in the processes that these tests start."""
    place = request.path.relative_to(Path(__file__).parent).as_posix()
    if place.startswith(_EXACT) or not place.startswith(_HASTY):
        yield
        return
    import jax

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(_HASTE.upper(), "1")
        before = jax.config.read(_HASTE)
        jax.config.update(_HASTE, True)
        yield
        jax.config.update(_HASTE, before)

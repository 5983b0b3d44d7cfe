"""Options and fixtures of the whole suite."""

import os
import shutil
import tempfile

import pytest

# What is compiled is kept for the session, for pytest-xdist's workers and for the processes that
# tests start: the suite's many runs have few distinct programs.
_CACHE = "JAX_COMPILATION_CACHE_DIR"
_KEEP_ALL = ("MIN_COMPILE_TIME_SECS", "MIN_ENTRY_SIZE_BYTES")


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

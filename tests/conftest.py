"""Options and fixtures of the whole suite."""

import pytest


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

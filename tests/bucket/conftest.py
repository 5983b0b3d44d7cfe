"""A store for each test, with mirrors of its own."""

import pytest

from bucket.server import serving
from jaxmnist.bucket.address import has_library

# Without the extra `gcs` only what is said of it can be tested.
if not has_library():
    collect_ignore = ["test_sync.py", "test_lease.py", "test_runs.py"]


@pytest.fixture
def store(tmp_path):
    with serving(tmp_path / "cache") as found:
        yield found

"""The page on launching states the limits that the code keeps."""

import re

import pages
import pytest

from jaxmnist.bucket import lease, mirror
from jaxmnist.config.default import KEYS
from jaxmnist.distributed import agreement, guard, start, stop
from jaxmnist.launch import local

LIMITS = {
    "at the start": start.Start().timeout_s,
    "where all compare": agreement.AGREEMENT_TIMEOUT_S,
    "sight of what": guard.SHARED_WITHIN_S,
    "in a job that runs": start.HEARTBEAT_TIMEOUT_S,
    "to agree on the step": agreement.AGREEMENT_TIMEOUT_S,
    "a step, or": KEYS["watchdog.timeout"].default,
    "at the end of a job": start.SHUTDOWN_TIMEOUT_S,
    "the last save": local.STOP_GRACE_S,
    "has failed": local.FAILURE_GRACE_S,
    "on another machine": lease.LEASE_S,
    "upload to a bucket": mirror.LAST_UPLOAD_WITHIN_S,
    "after an error": mirror.LAST_AFTER_ERROR_S,
}


@pytest.fixture(scope="module")
def rows():
    section = (
        pages.read("docs/launching.md").partition("## How long anything")[2].partition("\n## ")
    )
    return re.findall(r"(?m)^\| (.+?) \| (\d+) s \|", section[0])


def test_every_limit_is_the_one_of_the_code(rows):
    assert len(rows) == len(LIMITS)
    for (text, seconds), (part, limit) in zip(rows, LIMITS.items(), strict=True):
        assert part in text
        assert float(seconds) == limit, text
    assert any("learn of a signal within a second" in text for text, _ in rows)
    assert stop.LOOK_EVERY_S == 1


def test_what_is_said_of_a_bucket_is_so():
    text = pages.read("docs/launching.md")
    assert f"the other files every {mirror.UPLOAD_EVERY_S:g} s" in text
    assert f"renews its lease, each {mirror.UPLOAD_EVERY_S:g} s" in text
    assert f"its lease is watched for {lease.LEASE_S:g} s" in text
    assert f"after {mirror.LAST_UPLOAD_WITHIN_S:g} s the run ends with exit code 1" in text

"""Of two runs in one place of a bucket one writes, whatever happens to the other."""

import json
import re

import pytest

from bucket.server import BUCKET
from jaxmnist.bucket.address import parse
from jaxmnist.bucket.lease import Lease, LeaseLost
from jaxmnist.bucket.store import Store, StoreError
from jaxmnist.errors import WorkdirError

OBJECT = "runs/one/.config.json.lock"


@pytest.fixture
def lease(store, monkeypatch):
    """Makes a lease of another run."""
    monkeypatch.setattr("jaxmnist.bucket.store.RETRY_S", 0.1)
    monkeypatch.setattr("jaxmnist.bucket.lease.LEASE_S", 0.3)
    return lambda before="": Lease(Store(parse(f"gs://{BUCKET}/runs/one")), before=before)


@pytest.fixture
def said():
    return []


def on(store, host):
    """Says that the lease is held on a host of that name."""
    holder = json.loads(store.objects[OBJECT].data) | {"host": host}
    store.write(OBJECT, json.dumps(holder).encode(), {})


def test_what_nobody_holds_is_taken_at_once(store, lease, said):
    first = lease()
    assert not first.take(say=said.append)
    first.release()
    assert not lease().take(say=said.append)
    assert said == []


def test_the_mirror_that_was_written_last_is_known_again(store, lease, said):
    first, second = lease(), lease()
    first.take(say=said.append)
    first.release()
    again = lease(before=first.token)
    assert again.take(say=said.append)
    again.release()
    second.take(say=said.append)
    second.release()
    # It has the former's place, but no longer what the bucket holds.
    assert not lease(before=again.token).take(say=said.append)


def test_a_dead_run_is_waited_for_elsewhere_and_not_on_its_own_machine(store, lease, said):
    first = lease()
    first.take(say=said.append)
    second = lease(before=first.token)
    assert second.take(say=said.append) and said == []
    on(store, "another")
    assert lease(before=second.token).take(say=said.append)
    assert re.search(
        r"in use by process \d+ on another since .*: waiting 0.3 s for a sign", said[0]
    )


def test_a_run_that_lives_keeps_it(store, lease, said):
    first = lease()
    first.take(say=said.append)
    with pytest.raises(
        WorkdirError, match=r"is in use by process .*: wait for that run, stop it, or"
    ):
        lease().take(say=lambda text: first.renew())
    first.renew()


def test_of_two_that_find_it_free_one_gets_it(store, lease, said):
    first, second = lease(), lease()
    first.take(say=said.append)

    class Late(Store):
        def read(self, name):
            found = super().read(name)
            first.renew()
            return found

    first.release()
    second._store = Late(second._store.address)
    with pytest.raises(WorkdirError, match="is in use by process"):
        second.take(say=said.append)


def test_who_was_taken_for_dead_learns_of_it(store, lease, said):
    first, second = lease(), lease()
    first.take(say=said.append)
    second.take(say=said.append)
    with pytest.raises(LeaseLost, match="which has taken it over from this run; run the same"):
        first.renew()
    second.renew()
    del store.objects[OBJECT]
    with pytest.raises(LeaseLost, match="was deleted while this run went on"):
        second.renew()


def test_before_each_file_it_is_made_sure_of(store, lease, said):
    first, second = lease(), lease()
    first.take(say=said.append)
    before = list(store.writes)
    first.confirm()
    assert store.writes == before  # it was only just taken
    second.take(say=said.append)
    with pytest.raises(LeaseLost, match="has taken it over"):
        first.confirm()
    with pytest.raises(LeaseLost, match="has taken it over"):
        first.confirm()


def test_an_answer_that_is_lost_is_not_taken_for_another_run(store, lease, said):
    first = lease()
    first.take(say=said.append)
    store.fails_after = len(store.writes) + 1
    first.renew()
    with pytest.raises(StoreError):
        first.renew()
    store.fails_after, store.down = None, False
    # As if the last one had been written all the same.
    store.write(OBJECT, store.objects[OBJECT].data, {})
    first.renew()
    first.renew()


def test_what_is_no_lease_of_ours_is_written_over(store, lease, said):
    store.write(OBJECT, b"[not json", {})
    assert not lease().take(say=said.append)
    assert json.loads(store.objects[OBJECT].data)["held"]

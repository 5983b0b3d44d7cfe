"""What a bucket holds counts only when it is whole, whenever the copying stops."""

import json
import shutil

import pytest

from jaxmnist.bucket.address import parse
from jaxmnist.bucket.copy import fetch, publish
from jaxmnist.bucket.store import Store, StoreError
from jaxmnist.bucket.sync import Sync
from jaxmnist.checkpoint import MANIFEST
from jaxmnist.errors import WorkdirError

ADDRESS = "gs://digits/runs/one"


def write(folder, files):
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())


def checkpoint(step, **files):
    """The files of a checkpoint, as far as the copying looks at them."""
    files = {"state/data": f"state of {step}", "_CHECKPOINT_METADATA": "{}"} | files
    manifest = {MANIFEST: json.dumps({"files": dict.fromkeys(files, "sha")})}
    return {f"checkpoints/{step}/{name}": text for name, text in (files | manifest).items()}


def read(folder):
    files = (p for p in folder.rglob("*") if p.is_file())
    found = {p.relative_to(folder).as_posix(): p.read_bytes() for p in files}
    return {name: data for name, data in found.items() if not name.startswith(".")}


@pytest.fixture(autouse=True)
def gives_up_soon(monkeypatch):
    monkeypatch.setattr("jaxmnist.bucket.store.RETRY_S", 0.1)


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    files = {"config.json": "{}", "metrics.jsonl": "1\n", "tensorboard/events.1": b"\x00\r\n"}
    write(folder, files | checkpoint(10) | checkpoint(20))
    return folder


@pytest.fixture
def sync(store, run):
    return Sync(Store(parse(ADDRESS)), run)


@pytest.fixture
def remote():
    """Makes a connection."""
    return lambda: Store(parse(ADDRESS))


def test_what_is_pushed_is_fetched_elsewhere(store, sync, run, remote, tmp_path):
    sync.push()
    assert store.files("runs/one") == read(run)
    assert sync.steps == {10, 20}
    Sync(remote(), tmp_path / "other").pull(remote().listing())
    assert read(tmp_path / "other") == read(run)


def test_only_what_has_changed_is_uploaded(store, sync, run):
    sync.push()
    store.writes.clear()
    sync.push()
    assert store.writes == []
    (run / "metrics.jsonl").write_text("1\n2\n")
    sync.push()
    assert store.writes == ["runs/one/metrics.jsonl"]


def test_the_metrics_come_before_a_checkpoint_and_its_manifest_last(store, sync):
    sync.push()
    names = [name.removeprefix("runs/one/") for name in store.writes]
    assert names[0] == "config.json"
    assert names.index("metrics.jsonl") < min(i for i, n in enumerate(names) if "checkpoints" in n)
    for step in (10, 20):
        own = [name for name in names if f"/{step}/" in name]
        assert own[-1].endswith(MANIFEST) and len(own) == 3


def test_a_large_file_goes_up_in_parts(store, sync, run):
    data = bytes(range(256)) * 40_000
    write(run, checkpoint(30, large=data))
    sync.push()
    assert store.objects["runs/one/checkpoints/30/large"].data == data
    assert len(store.sessions) == 1


def test_what_orbax_has_not_committed_stays_here(store, sync, run):
    write(run, {"checkpoints/30.orbax-checkpoint-tmp-1/state": "half", ".config.json.lock": "x"})
    sync.push()
    assert not [name for name in store.writes if "tmp" in name or "lock" in name]


def test_a_checkpoint_that_is_gone_here_goes_there_manifest_first(store, sync, run):
    sync.push()
    store.writes.clear()
    for path in (run / "checkpoints/10").rglob("*"):
        path.is_file() and path.unlink()
    (run / "checkpoints/10").rename(run / "checkpoints/.gone")
    sync.push()
    assert store.writes[0] == f"-runs/one/checkpoints/10/{MANIFEST}" and len(store.writes) == 3
    assert sync.steps == {20}


def test_one_that_orbax_deletes_while_it_is_uploaded_does_not_stay_there(
    store, sync, run, monkeypatch
):
    put = Store.put

    def slow_put(self, name, content):
        put(self, name, content)
        if name.endswith(f"20/{MANIFEST}"):
            shutil.rmtree(run / "checkpoints/20")

    monkeypatch.setattr(Store, "put", slow_put)
    sync.push()
    sync.push()
    assert sync.steps == {10}
    assert not [name for name in store.files("runs/one") if name.startswith("checkpoints/20/")]


def test_one_that_is_written_anew_replaces_all_of_the_old_one(store, sync, run):
    write(run, checkpoint(20, old="x"))
    sync.push()
    (run / "checkpoints/20/old").unlink()
    write(run, checkpoint(20, new="y"))
    store.writes.clear()
    sync.push()
    assert store.writes[0] == f"-runs/one/checkpoints/20/{MANIFEST}"
    assert store.writes[-1] == f"runs/one/checkpoints/20/{MANIFEST}"
    assert store.files("runs/one") == read(run)


@pytest.mark.parametrize("writes", range(9))
def test_wherever_it_breaks_only_whole_checkpoints_are_fetched(
    writes, store, sync, run, remote, tmp_path
):
    store.fails_after = writes
    store.down = writes == 0
    with pytest.raises(StoreError, match=r"gs://digits/runs/one cannot be reached \(.*network"):
        sync.push()
    store.fails_after, store.down = None, False
    other = tmp_path / "other"
    Sync(remote(), other).pull(remote().listing())
    steps = {p.name for p in other.glob("checkpoints/*")}
    assert steps == {
        step for step in ("10", "20") if f"runs/one/checkpoints/{step}/{MANIFEST}" in store.objects
    }
    for step in steps:
        whole = checkpoint(int(step))
        assert {n: d.decode() for n, d in read(other).items() if n in whole} == whole
    sync.push()
    assert store.files("runs/one") == read(run)


def test_names_that_lead_elsewhere_are_not_written(store, sync, remote, tmp_path):
    for name in ("../../evil", "/evil", "a//evil", "a/../evil", ".evil"):
        store.write(f"runs/one/{name}", b"evil", {})
    sync.push()
    other = tmp_path / "deep/er/other"
    Sync(remote(), other).pull(remote().listing())
    assert not [p for p in tmp_path.rglob("*") if "evil" in p.name]


class TestForReaders:
    def test_a_copy_has_all_but_event_files(self, sync, run):
        sync.push()
        copy = fetch(ADDRESS)
        expected = {n: d for n, d in read(run).items() if not n.startswith("tensorboard")}
        assert read(copy) == expected
        assert copy.name == "one"

    def test_what_is_written_to_it_is_put_beside_the_rest(self, store, sync, run):
        sync.push()
        copy = fetch(ADDRESS)
        (copy / "report.html").write_text("<html>")
        store.writes.clear()
        publish(ADDRESS, copy)
        assert store.writes == ["runs/one/report.html"]
        publish("runs/local", copy)

    def test_where_there_is_no_run_it_says_so(self, store):
        with pytest.raises(WorkdirError, match=r"gs://digits/runs/one is not the work directory"):
            fetch(ADDRESS)
        store.write("runs/one/thesis.txt", b"dear", {})
        with pytest.raises(WorkdirError, match=r"is not empty and holds no config\.json.*choose"):
            fetch(ADDRESS)

"""Checkpoints keep what is asked, hold every bit of a state, and say what is wrong with them."""

import hashlib
import json
import re
import threading

import jax
import numpy as np
import optax
import pytest

import jaxmnist
from jaxmnist.checkpoint import (
    CheckpointWriter,
    _await_metadata,
    check_same_data,
    newest_good,
    read_info,
    restore,
    set_aside_after,
    steps_in,
)
from jaxmnist.errors import CheckpointError, NonFiniteLossError, WorkdirError
from jaxmnist.mesh import replicate
from jaxmnist.state import create_state, tree_sha256
from support import Tiny, bits_equal, small_config, small_data


def make_state(mesh, *, step=0, ema=True, width=5, tx=None):
    """A state with awkward numbers, such as a NaN with a payload, -0.0 and a subnormal."""
    kernel = np.arange(3 * width, dtype=np.float32).reshape(3, width) / 7 + step
    kernel.flat[:3] = np.array([0x7FC01234, 0x80000000, 1], np.uint32).view(np.float32)
    variables = {
        "params": {"dense": {"kernel": kernel, "bias": np.zeros(width, np.float32)}},
        "batch_stats": {"norm": {"mean": np.full(width, 0.1, np.float32)}},
    }
    state = create_state(variables, tx or optax.adam(1e-3), ema=ema).replace(step=np.int32(step))
    return replicate(state, mesh)


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "checkpoints"


@pytest.fixture
def mesh(data_mesh):
    return data_mesh(2)


def save_steps(directory, mesh, steps, **options):
    writer = CheckpointWriter(directory, **{"keep": 3} | options)
    for step in steps:
        writer.save(step, make_state(mesh, step=step), {"metrics": {"step": step}})
    writer.close()


def reseal(directory, step, change):
    """Changes the manifest of a checkpoint, digest and all, as another version would write it."""
    path = directory / str(step) / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["sha256"]
    change(manifest)
    digest = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
    path.write_text(json.dumps(manifest | {"sha256": digest}))


class TestKeeping:
    def test_the_newest_stay(self, directory, mesh):
        save_steps(directory, mesh, [7, 13, 20, 100, 1000], keep=2)
        assert steps_in(directory) == [100, 1000]

    def test_the_best_stays_besides_until_another_is_better(self, directory, mesh):
        writer = CheckpointWriter(directory, keep=1)
        seen = []
        for step, best in ((1, False), (2, True), (3, False), (4, False), (5, True), (6, False)):
            if best:
                writer.best_step = step
            writer.save(step, make_state(mesh, step=step), {})
            writer.wait()
            seen.append(steps_in(directory))
        writer.close()
        assert seen == [[1], [2], [2, 3], [2, 4], [5], [5, 6]]

    def test_a_resumed_run_still_knows_the_best(self, directory, mesh):
        save_steps(directory, mesh, [1, 2])
        save_steps(directory, mesh, [3, 4], keep=1, best_step=2)
        assert steps_in(directory) == [2, 4]

    def test_only_finished_ones_count(self, directory):
        assert steps_in(directory) == []
        for name in ("12", "9", "20.orbax-checkpoint-tmp-1", "damaged-30-0"):
            (directory / name).mkdir(parents=True)
        (directory / "40").write_text("a file")
        assert steps_in(directory) == [9, 12]


class TestInfo:
    def test_it_says_what_the_checkpoint_holds(self, directory, mesh):
        save_steps(directory, mesh, [7])
        info, state = read_info(directory, 7), make_state(mesh, step=7)
        assert info.step == 7 and info.notes == {"metrics": {"step": 7}}
        assert info.params_sha256 == info.ema_sha256 == tree_sha256(state.params)
        assert info.state_sha256 == tree_sha256(state)
        assert info.size_bytes > 3 * 15 * 4
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d", info.time)

    def test_without_a_moving_average_there_is_no_digest_of_one(self, directory, mesh):
        writer = CheckpointWriter(directory, keep=1)
        writer.save(3, make_state(mesh, ema=False), {})
        writer.close()
        assert read_info(directory, 3).ema_sha256 is None

    def test_another_format_is_refused_with_the_repair(self, directory, mesh):
        save_steps(directory, mesh, [7])
        reseal(directory, 7, lambda manifest: manifest.update(format=2))
        text = r"checkpoints/7 has format 2, this version reads 1: use the version of jaxmnist that"
        with pytest.raises(CheckpointError, match=text):
            read_info(directory, 7)

    def test_a_missing_one_is_named(self, directory):
        with pytest.raises(CheckpointError, match=r"checkpoints/7 is damaged: .*No such file"):
            read_info(directory, 7)


class TestFallingBack:
    def test_the_newest_sound_one_is_found_and_the_others_are_named(self, directory, mesh):
        save_steps(directory, mesh, [1, 2, 3])
        for step in (2, 3):
            (directory / str(step) / "manifest.json").write_text("{}")
        info, faults = newest_good(directory)
        assert info.step == 1
        assert [re.search(r"checkpoints/(\d)", fault)[1] for fault in faults] == ["3", "2"]

    def test_there_may_be_none(self, directory):
        assert newest_good(directory) == (None, [])

    def test_later_ones_are_set_aside_under_new_names_again_and_again(self, directory, mesh):
        for _ in range(2):
            save_steps(directory, mesh, [1, 2, 3] if not steps_in(directory) else [2, 3])
            set_aside_after(directory, 1)
            assert steps_in(directory) == [1]
        aside = sorted(p.name for p in directory.iterdir() if p.name.startswith("damaged"))
        assert aside == ["damaged-2-0", "damaged-2-1", "damaged-3-0", "damaged-3-1"]


class TestRestoring:
    @pytest.mark.parametrize("count", [1, 3, 8])
    def test_every_bit_comes_back_on_any_devices(self, directory, mesh, data_mesh, count):
        save_steps(directory, mesh, [7])
        target = make_state(data_mesh(count))
        state = restore(directory, read_info(directory, 7), target)
        assert bits_equal(state, make_state(mesh, step=7))
        assert jax.tree.structure(state) == jax.tree.structure(target)
        assert all(len(x.sharding.device_set) == count for x in jax.tree.leaves(state))

    def test_the_state_may_be_donated_while_it_is_written(self, directory, mesh):
        writer = CheckpointWriter(directory, keep=1)
        bump = jax.jit(lambda s: jax.tree.map(lambda x: x + 1, s), donate_argnums=0)
        state = make_state(mesh, step=7)
        writer.save(7, state, {})
        for _ in range(20):
            state = bump(state)
        jax.block_until_ready(state)
        writer.close()
        again = restore(directory, read_info(directory, 7), make_state(mesh))
        assert bits_equal(again, make_state(mesh, step=7))

    @pytest.mark.parametrize(
        ("other", "differing"),
        [
            (
                {"width": 7},
                r"9 arrays differ \(params.dense.bias: float32\[5\] there, float32\[7\] "
                r"now; params.dense.kernel: float32\[3, 5\] there, float32\[3, 7\] now; batch_st",
            ),
            (
                {"tx": optax.sgd(0.1)},
                r"5 arrays differ \(opt_state.0.count: int32\[\] there, none now; "
                r"opt_state.0.mu.dense.bias: float32\[5\] there, none now; [^;]*\): give the model",
            ),
            (
                {
                    "tx": optax.chain(
                        optax.scale_by_adam(),
                        optax.scale(-1e-3),
                        optax.scale_by_schedule(lambda count: 1.0),
                    )
                },
                r"1 arrays differ \(opt_state.2.count: none there, int32\[\] now\): ",
            ),
            (
                {"ema": False},
                r"2 arrays differ \(ema.dense.bias: float32\[5\] there, none now; "
                r"ema.dense.kernel: float32\[3, 5\] there, none now\): give the model and "
                "optimizer that the run had, or a fresh --workdir$",
            ),
        ],
    )
    def test_another_model_or_optimizer_is_refused(self, directory, mesh, other, differing):
        save_steps(directory, mesh, [7])
        with pytest.raises(CheckpointError, match="7 holds another state, " + differing) as caught:
            restore(directory, read_info(directory, 7), make_state(mesh, **other))
        assert len(str(caught.value)) < 500 + len(str(directory))

    def test_another_type_of_number_is_refused(self, directory, mesh):
        save_steps(directory, mesh, [7])
        target = make_state(mesh)
        target = target.replace(step=target.step.astype(np.float32))
        with pytest.raises(CheckpointError, match=r"\(step: int32\[\] there, float32\[\] now\)"):
            restore(directory, read_info(directory, 7), target)

    def test_a_state_that_does_not_match_its_digest_is_refused(self, directory, mesh):
        save_steps(directory, mesh, [7])
        reseal(directory, 7, lambda manifest: manifest["info"].update(state_sha256="0" * 64))
        with pytest.raises(CheckpointError, match=r"7 is damaged: its state has SHA-256 [1-9a-f]"):
            restore(directory, read_info(directory, 7), make_state(mesh))


class TestSameData:
    """On resuming, the data's digest in the checkpoint's notes is compared with the present."""

    before = "t10k-images=aa,train-images=bb,train-labels=cc"

    @pytest.mark.parametrize(
        ("now", "names"),
        [
            ("t10k-images=aa,train-images=bb,train-labels=dd", "train-labels"),
            ("t10k-images=ee,train-images=bb,train-labels=dd", "t10k-images, train-labels"),
            ("t10k-images=aa,train-images=bb", "train-labels"),
            (before + ",zipped=ff", "zipped"),
        ],
    )
    def test_other_files_are_named_with_the_directory_and_the_repair(self, tmp_path, now, names):
        repair = "give the former files, a fresh --workdir, or --allow_config_change"
        text = f"the run in {tmp_path} had other data, {names} differ: {repair}"
        with pytest.raises(WorkdirError, match=f"^{re.escape(text)}$"):
            check_same_data({"data": self.before}, now, workdir=tmp_path)

    @pytest.mark.parametrize(("old", "now"), [(before, before), (before, ""), ("", before)])
    def test_the_same_data_and_data_without_a_digest_may_go_on(self, tmp_path, old, now):
        check_same_data({"data": old}, now, workdir=tmp_path)


class TestSaving:
    def test_a_place_that_cannot_be_written_is_named_with_the_repair(self, directory, mesh):
        writer = CheckpointWriter(directory, keep=1)
        directory.rmdir()
        directory.write_text("a file in its place")
        with pytest.raises(CheckpointError, match=r"could not be written to .*: .*; free space"):
            writer.save(7, make_state(mesh), {})
        writer.close()

    def test_the_seal_waits_for_what_orbax_has_not_written_yet(self, directory, mesh):
        """Its own thread writes the names of the handlers, late where all cores are busy."""
        save_steps(directory, mesh, [7])
        path = directory / "7" / "_CHECKPOINT_METADATA"
        whole = path.read_text()
        path.write_text(json.dumps(json.loads(whole) | {"item_handlers": None}))
        later = [threading.Timer(0.1, path.write_text, [whole[:40]])]
        later.append(threading.Timer(0.2, path.write_text, [whole]))
        for timer in later:
            timer.start()
        _await_metadata(directory / "7")
        assert path.read_text() == whole
        assert read_info(directory, 7).step == 7

    @pytest.mark.parametrize("notice", [CheckpointWriter.wait, CheckpointWriter.close])
    def test_a_disk_that_is_full_is_said_later_and_nothing_half_is_kept(
        self, directory, mesh, monkeypatch, notice
    ):
        def fail(self):
            raise OSError(28, "No space left on device")

        save_steps(directory, mesh, [5])
        with monkeypatch.context() as patch:
            patch.setattr(CheckpointWriter, "_seal", fail)
            writer = CheckpointWriter(directory, keep=3)
            writer.save(7, make_state(mesh), {})
            text = r"No space left on device.*earlier checkpoints are whole"
            with pytest.raises(CheckpointError, match=text):
                notice(writer)
            writer.close()
        assert newest_good(directory)[0].step == 5 and steps_in(directory) == [5]
        save_steps(directory, mesh, [7])
        assert newest_good(directory)[0].step == 7

    def test_a_state_that_is_not_finite_is_never_saved(self, tmp_path):
        """The learning rate explodes at step 11: after the checkpoint of 8, before a line at 20."""
        tx = optax.sgd(lambda count: jax.numpy.where(count < 10, 0.05, 1e38))
        config = small_config(parallel__devices=2, log__every=20)
        text = (
            r"not finite at step 1[12] .*; the last good checkpoint: step 8, in .*/checkpoints/8\."
        )
        with pytest.raises(NonFiniteLossError, match=text):
            jaxmnist.train(config, tmp_path, dataset=small_data(), model=Tiny(), tx=tx, quiet=True)
        assert steps_in(tmp_path / "checkpoints") == [8]
        assert newest_good(tmp_path / "checkpoints")[0].step == 8

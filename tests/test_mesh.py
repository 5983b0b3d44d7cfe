"""Devices are chosen by cores and batch, ordered by process, and every fault names its repair."""

import itertools
import os
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
import pytest

import jaxmnist.mesh as mesh_module
from jaxmnist.errors import ConfigError
from jaxmnist.mesh import (
    DATA_AXIS,
    as_global,
    batch_faults,
    data_mesh,
    default_cpu_devices,
    keep_compiled_programs,
    prepare_backend,
    replicate,
    row_sharded,
    usable_cores,
)

PATIENT = "--xla_cpu_collective_call_terminate_timeout_seconds="
WIDE = "--xla_cpu_prefer_vector_width="


@dataclass(frozen=True)
class Device:
    """What ordering looks at."""

    process_index: int
    id: int


class TestUsableCores:
    @pytest.fixture
    def machine(self, monkeypatch, tmp_path):
        """A machine of 12 cores in a cgroup whose cpu.max holds a text; None for no such file."""

        def make(text):
            place = tmp_path / "cpu.max"
            if text is not None:
                place.write_text(text)

            def path(name):
                assert name == "/sys/fs/cgroup/cpu.max"
                return place

            monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(12)), raising=False)
            monkeypatch.setattr(mesh_module, "Path", path)

        return make

    @pytest.mark.parametrize(
        ("text", "cores"),
        [
            ("max 100000\n", 12),
            ("200000 100000\n", 2),
            ("250000 100000\n", 3),
            ("10000 100000\n", 1),
            ("9900000 100000\n", 12),
            ("", 12),
            ("nonsense", 12),
            (None, 12),
        ],
    )
    def test_a_quota_cuts_the_affinity_mask_down(self, machine, text, cores):
        machine(text)
        assert usable_cores() == cores

    def test_without_affinity_masks_all_cores_count(self, machine, monkeypatch):
        machine(None)
        monkeypatch.delattr(os, "sched_getaffinity")
        monkeypatch.setattr(os, "cpu_count", lambda: 5)
        assert usable_cores() == 5


class TestCpuDevices:
    @pytest.mark.parametrize(
        ("batch_size", "cores", "expected"),
        [
            (256, 2, 2),
            (256, 1, 1),
            (256, 6, 4),
            (256, 64, 32),
            (250, 4, 2),
            (257, 8, 1),
            (15, 8, 1),
            (16, 8, 2),
            (24, 8, 3),
            (1, 8, 1),
        ],
    )
    def test_the_largest_divisor_that_leaves_eight_rows(self, batch_size, cores, expected):
        assert default_cpu_devices(batch_size, cores=cores) == expected

    def test_a_count_that_comes_too_late_is_refused(self):
        assert len(jax.devices()) == 8
        with pytest.raises(
            ConfigError,
            match=r"cpu_devices=3, but JAX already runs with 8 CPU device.*before anything uses",
        ):
            prepare_backend(256, cpu_devices=3, deterministic=False)

    def test_the_count_that_is_there_is_accepted(self):
        prepare_backend(256, cpu_devices=8, deterministic=False)
        prepare_backend(255, cpu_devices=None, deterministic=False)


class TestXlaFlags:
    @pytest.mark.parametrize(
        ("told", "expected"),
        [
            (None, f"{PATIENT}600 {WIDE}512"),
            ("--xla_a=1", f"--xla_a=1 {PATIENT}600 {WIDE}512"),
            (f"{WIDE}256", f"{WIDE}256 {PATIENT}600"),
            (f"{PATIENT}7 {WIDE}128", f"{PATIENT}7 {WIDE}128"),
        ],
    )
    def test_what_the_user_says_stays(self, monkeypatch, told, expected):
        monkeypatch.setenv("XLA_FLAGS", "")
        if told is None:
            monkeypatch.delenv("XLA_FLAGS")
        else:
            monkeypatch.setenv("XLA_FLAGS", told)
        prepare_backend(256, cpu_devices=None, deterministic=False)
        assert os.environ["XLA_FLAGS"] == expected


class TestDataMesh:
    def test_all_devices_on_one_axis(self):
        mesh = data_mesh()
        assert mesh.axis_names == (DATA_AXIS,)
        assert mesh.devices.shape == (8,)
        assert data_mesh(3).devices.tolist() == jax.devices()[:3]

    def test_order_follows_processes_then_numbers(self, monkeypatch):
        monkeypatch.setattr(mesh_module, "Mesh", lambda devices, axes, axis_types: devices)
        devices = [Device(p, i) for p, i in itertools.product((2, 0, 1), (7, 3, 5))]
        assert data_mesh(devices=devices).tolist() == sorted(
            devices, key=lambda d: (d.process_index, d.id)
        )
        some = data_mesh(6, devices=devices)
        assert [(d.process_index, d.id) for d in some] == [(p, i) for p in range(3) for i in (3, 5)]

    @pytest.mark.parametrize("count", [0, 1, 4, 7, 12])
    def test_processes_must_share_the_devices_equally(self, count):
        devices = [Device(p, i) for p in range(3) for i in range(3)]
        sentence = (
            rf"parallel.devices={count}, but there are 9 device\(s\) in 3 process\(es\): choose a "
            "multiple of 3 up to 9 or raise parallel.cpu_devices"
        )
        with pytest.raises(ConfigError, match=sentence):
            data_mesh(count, devices=devices)


class TestBatchFaults:
    @pytest.mark.parametrize(
        ("batch_size", "devices", "accumulate", "deterministic", "nearest"),
        [
            (100, 8, 1, False, "96 or 104"),
            (3, 8, 1, False, "8"),
            (63, 2, 4, False, "56 or 64"),
            (100, 4, 1, True, "96 or 104"),
            (136, 2, 3, True, "120 or 144"),
        ],
    )
    def test_the_nearest_batch_sizes_are_named_and_valid(
        self, batch_size, devices, accumulate, deterministic, nearest
    ):
        def faults(size):
            return batch_faults(
                size, data_mesh(devices), accumulate=accumulate, deterministic=deterministic
            )

        (fault,) = faults(batch_size)
        shards = 8 if deterministic else devices
        rule = f"must be a multiple of {shards} devices or shards × train.accumulate={accumulate}"
        assert fault == f"batch_size={batch_size} {rule}: the nearest valid values are {nearest}"
        for size in nearest.split(" or "):
            assert faults(int(size)) == []

    def test_devices_that_do_not_divide_the_virtual_shards(self):
        (fault,) = batch_faults(256, data_mesh(3), accumulate=1, deterministic=True)
        assert "8 virtual shards, which 3 devices cannot share" in fault
        assert fault.endswith("set parallel.devices to one of [1, 2, 4, 8]")


class TestPlacement:
    def test_rows_lie_on_the_devices_in_order(self):
        mesh, x = data_mesh(4), np.arange(24).reshape(12, 2)
        placed = jax.device_put(x, row_sharded(mesh))
        for place, shard in enumerate(sorted(placed.addressable_shards, key=lambda s: s.device.id)):
            np.testing.assert_array_equal(shard.data, x[3 * place : 3 * place + 3])

    def test_a_tree_is_copied_whole_to_every_device(self):
        mesh = data_mesh(3)
        tree = replicate({"a": np.arange(5), "b": np.float32(2)}, mesh)
        assert all(len(x.addressable_shards) == 3 for x in tree.values())
        for shard in tree["a"].addressable_shards:
            np.testing.assert_array_equal(shard.data, np.arange(5))
        again = as_global(tree, mesh)
        assert again["a"].sharding.is_equivalent_to(tree["a"].sharding, 1)
        np.testing.assert_array_equal(again["a"], np.arange(5))


def test_the_cgroup_file_is_where_linux_has_it():
    # The only path in the module; a typing error would silently mean "no quota".
    assert '"/sys/fs/cgroup/cpu.max"' in Path(mesh_module.__file__).read_text(encoding="utf-8")


class TestKeepingCompiledPrograms:
    @dataclass(frozen=True)
    class Mesh:
        """What is looked at: the platform of the devices."""

        platform: str

        @property
        def devices(self):
            return np.array([self])

    @pytest.fixture(autouse=True)
    def place(self, monkeypatch, tmp_path):
        """A home of its own, and JAX told of no directory; yields where programs would be kept."""
        before = jax.config.jax_compilation_cache_dir
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        jax.config.update("jax_compilation_cache_dir", None)
        yield tmp_path / "jaxmnist" / "xla"
        jax.config.update("jax_compilation_cache_dir", before)

    @pytest.mark.parametrize("platform", ["gpu", "tpu"])
    def test_accelerators_have_a_directory_that_only_the_user_can_enter(self, place, platform):
        keep_compiled_programs(self.Mesh(platform))
        assert jax.config.jax_compilation_cache_dir == str(place)
        assert place.stat().st_mode & 0o777 == 0o700

    def test_cpus_have_none(self, place):
        keep_compiled_programs(self.Mesh("cpu"))
        assert jax.config.jax_compilation_cache_dir is None
        assert not place.exists()

    def test_a_directory_that_jax_was_told_of_stays(self, place, tmp_path):
        jax.config.update("jax_compilation_cache_dir", str(tmp_path / "mine"))
        keep_compiled_programs(self.Mesh("gpu"))
        assert jax.config.jax_compilation_cache_dir == str(tmp_path / "mine")
        assert not place.exists()

    def test_one_that_cannot_be_made_is_done_without(self, place, tmp_path):
        (tmp_path / "jaxmnist").write_text("a file")
        keep_compiled_programs(self.Mesh("gpu"))
        assert jax.config.jax_compilation_cache_dir is None

"""Real processes compute together, fail together, and show their logs; runs resume exactly."""

import dataclasses
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from jaxmnist import testing
from jaxmnist.errors import UsageError
from jaxmnist.testing.processes import decode, device_environment, encode

# JAX is imported only where it is used: the processes started here import this file.


def sum_of_ranks(offset, scale):
    import jax
    from jax.experimental import multihost_utils

    mine = np.array([jax.process_index() + 1.0]) + offset
    total = multihost_utils.process_allgather(mine).sum()
    return {"total": total * scale, "process": jax.process_index(), "devices": jax.device_count()}


def fail_in_process_one():
    import jax

    print(f"hello from {jax.process_index()}")
    if jax.process_index() == 1:
        raise ValueError("no gradient today")
    time.sleep(60)


def sleep_for(seconds):
    print("going to sleep")
    time.sleep(seconds)


def kill_self():
    os.kill(os.getpid(), signal.SIGKILL)


def counted_devices():
    import jax

    return len(jax.devices()), jax.numpy.bfloat16(0.1) * jax.numpy.ones(2, "bfloat16")


def resume_well(workdir):
    return resume(Path(workdir), forget=0.0)


def resume_badly(workdir):
    return resume(Path(workdir), forget=2.0**-20)


def resume(folder, *, forget):
    """Adds up 20 numbers, one file a step; what a resumed run forgets is the fault to find."""
    saved = folder / "state.npy"
    step, total = np.load(saved) if saved.exists() else (0, 0.0)
    total -= forget if step else 0.0
    while step < 20:
        step, total = step + 1, total + 1 / (step + 1)
        np.save(folder / "next.npy", np.array([step, total]))
        (folder / "next.npy").rename(saved)
        time.sleep(0.01)
    return {"params": {"w": np.array([1.0, total])}, "step": int(step)}


def has_saved(workdir):
    return (workdir / "state.npy").exists()


class TestRunProcesses:
    def test_processes_compute_together(self):
        results = testing.run_processes(sum_of_ranks, args=(np.float32(0.5), 2))
        assert [result["process"] for result in results] == [0, 1]
        assert [result["devices"] for result in results] == [4, 4]
        assert [float(result["total"]) for result in results] == [8.0, 8.0]

    def test_one_failure_ends_all_quickly_and_shows_both_logs(self):
        start = time.monotonic()
        with pytest.raises(AssertionError) as caught:
            testing.run_processes(fail_in_process_one, devices=1)
        assert time.monotonic() - start < 30
        text = str(caught.value)
        assert text.startswith("fail_in_process_one failed")
        assert "ValueError: no gradient today" in text
        assert "process 0 of 2 (was still running)" in text
        assert "process 1 of 2 (exit code 1)" in text
        assert "hello from 1" in text

    def test_the_time_limit_ends_them(self):
        with pytest.raises(AssertionError, match=r"sleep_for ran longer than timeout_s=0\.9\n"):
            testing.run_processes(sleep_for, processes=1, args=(60,), timeout_s=0.9)

    def test_a_killed_process_is_a_failure(self):
        with pytest.raises(AssertionError, match=r"kill_self failed\n.*exit code -9"):
            testing.run_processes(kill_self, processes=1)

    def test_one_process_has_its_devices_and_arrays_keep_their_type(self):
        ((count, array),) = testing.run_processes(counted_devices, processes=1, devices=3)
        assert count == 3
        assert array.dtype.name == "bfloat16"
        assert array.astype(float).tolist() == [0.10009765625] * 2

    def test_functions_that_others_cannot_find_are_refused(self):
        def local():
            pass

        for function in (
            local,
            lambda: None,
            TestRunProcesses().test_a_killed_process_is_a_failure,
        ):
            with pytest.raises(UsageError, match=r"define it with `def` at the top level"):
                testing.run_processes(function)
        with pytest.raises(UsageError, match=r"processes=0, devices=2: both must be 1 or more"):
            testing.run_processes(kill_self, processes=0)

    def test_values_that_cannot_pass_are_refused(self):
        with pytest.raises(UsageError, match="a object cannot pass between processes: use numbers"):
            testing.run_processes(kill_self, args=(object(),))


class TestEncoding:
    def test_arrays_numbers_and_containers_come_back_bit_for_bit(self):
        tree = {
            "a": [np.array([[0.1, np.nan]]), 1e-310, True, None, "x"],
            "empty": np.zeros((0, 3)),
        }
        again = decode(encode(tree))
        assert again["a"][0].tobytes() == tree["a"][0].tobytes()
        assert again["a"][1:] == tree["a"][1:]
        assert again["empty"].shape == (0, 3)

    def test_other_trees_become_their_paths(self):
        import jax

        @jax.tree_util.register_dataclass
        @dataclasses.dataclass
        class State:
            step: int
            params: dict

        state = State(7, {"w": np.ones(2, np.float32)})
        again = decode(encode(state))
        assert list(again) == [".step", ".params['w']"]
        assert again[".params['w']"].dtype == np.float32


class TestDeviceEnvironment:
    def test_the_device_flag_is_first_and_other_flags_stay(self):
        old = {"XLA_FLAGS": "--xla_cpu_a=1 --xla_force_host_platform_device_count=2 --xla_b=3"}
        flags = device_environment(5, old)["XLA_FLAGS"].split()
        assert flags[:3] == [
            "--xla_force_host_platform_device_count=5",
            "--xla_cpu_a=1",
            "--xla_b=3",
        ]

    def test_a_time_limit_of_the_user_stays(self):
        name = "--xla_cpu_collective_call_terminate_timeout_seconds"
        flags = device_environment(2, {"XLA_FLAGS": f"{name}=7"})["XLA_FLAGS"].split()
        assert [flag for flag in flags if flag.startswith(name)] == [f"{name}=7"]


class TestResumesExactly:
    def test_a_run_that_resumes_well_passes_after_two_kills(self, tmp_path):
        conditions = [has_saved, lambda folder: np.load(folder / "state.npy")[0] > 5]
        testing.assert_resumes_exactly(resume_well, workdir=tmp_path, kill_at=conditions)

    def test_a_run_that_forgets_a_little_is_named_by_leaf(self, tmp_path):
        text = r"\['params'\]\['w'\]: 1 of 2 elements differ, max \|a - b\| = 9.54e-07, .*\(1,\)"
        with pytest.raises(AssertionError, match=text):
            testing.assert_resumes_exactly(resume_badly, workdir=tmp_path, kill_at=has_saved)

    def test_a_run_that_is_never_interrupted_proves_nothing(self, tmp_path):
        with pytest.raises(
            AssertionError, match="condition 1 of kill_at held: nothing was interrup"
        ):
            testing.assert_resumes_exactly(
                resume_well, workdir=tmp_path, kill_at=lambda folder: False
            )

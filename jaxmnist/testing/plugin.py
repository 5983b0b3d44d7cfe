"""The pytest plugin: fake CPU devices on request, and the fixtures `devices` and `data_mesh`."""

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import jax

_HOW = "--fake-devices=N on the command line or `fake_devices = N` in the ini file"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds the option `--fake-devices` and the ini setting `fake_devices`."""
    text = (
        "make N CPU devices for the fixtures `devices` and `data_mesh` (0: the devices there are)"
    )
    group = parser.getgroup("jaxmnist", "data-parallel tests")
    group.addoption("--fake-devices", metavar="N", default=None, help=text)
    parser.addini("fake_devices", text, default=None)


def _requested(config: pytest.Config) -> int | None:
    # Before the command line is parsed in full, only the early namespace knows the option.
    spaces = (config.option, config.known_args_namespace)
    given = [getattr(space, "fake_devices", None) for space in spaces]
    given.append(config.getini("fake_devices") or None)
    value = next((item for item in given if item is not None), None)
    if value is None:
        return None
    if not str(value).isdecimal():
        raise pytest.UsageError(
            f"fake_devices={value!r} is not a number of devices: give a whole number, such as 8"
        )
    return int(value)


def _request_devices(count: int) -> None:
    """Makes the JAX of this process, imported or not, start with `count` CPU devices."""
    from jaxmnist.testing.processes import device_environment

    jax = sys.modules.get("jax")
    bridge = sys.modules.get("jax._src.xla_bridge")
    if jax is not None and bridge is not None and bridge.backends_are_initialized():
        found = jax.devices()
        if len(found) != count or found[0].platform != "cpu":
            raise pytest.UsageError(
                f"fake_devices={count} comes too late: JAX already runs with {len(found)} "
                f"{found[0].platform} device(s); let no plugin or conftest.py use a device at "
                "import, and start pytest in a fresh process"
            )
        return
    wanted = device_environment(count, os.environ)
    os.environ.update(wanted)
    if jax is not None:  # an imported JAX has read its environment already
        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_num_cpu_devices", count)
    else:
        # It would win over XLA_FLAGS here and in the processes that tests start.
        os.environ.pop("JAX_NUM_CPU_DEVICES", None)


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Sets the devices before any conftest.py can import JAX."""
    if count := _requested(early_config):
        _request_devices(count)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Sets the devices where the plugin was loaded by a conftest.py, and in xdist's workers."""
    if count := _requested(config):
        _request_devices(count)


def pytest_report_header(config: pytest.Config) -> str | None:
    """Names the number of fake devices at the head of the report."""
    count = _requested(config)
    return f"jaxmnist: {count} fake CPU devices, {os.cpu_count()} cores" if count else None


@pytest.fixture(scope="session")
def devices(request: pytest.FixtureRequest) -> "list[jax.Device]":
    """The devices, sorted by process and id: exactly as many as were asked for.

    Raises:
      pytest.UsageError: no number was asked for, or JAX has another number. It never skips: a
        data-parallel test on one device proves nothing.
    """
    count = _requested(request.config)
    if count is None:
        raise pytest.UsageError(f"the fixtures `devices` and `data_mesh` need {_HOW}")
    import jax

    found = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
    if count and len(found) != count:
        raise pytest.UsageError(
            f"fake_devices={count} was asked for, but JAX has {len(found)}: something set "
            "jax_num_cpu_devices or XLA_FLAGS in this process after pytest's start; remove it"
        )
    return found


@pytest.fixture(scope="session")
def data_mesh(devices: "list[jax.Device]") -> "Callable[..., jax.sharding.Mesh]":
    """A function that makes meshes with the one axis 'data'.

    `data_mesh()` holds all the devices and `data_mesh(n)` the first n of them.
    """
    from jaxmnist.testing.assertions import first_devices_mesh

    def make(count: int | None = None) -> "jax.sharding.Mesh":
        return first_devices_mesh(devices, len(devices) if count is None else count)

    return make

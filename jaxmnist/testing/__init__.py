"""Tools for testing data-parallel code: fake devices, real processes and assertions that diagnose.

The pytest plugin (`jaxmnist.testing.plugin`) is found by pytest itself once jaxmnist is installed.
It does nothing until `--fake-devices=N` or the ini setting `fake_devices = N` asks for it; then
the fixtures `devices` and `data_mesh` are there. The names below are resolved at first use, so
that importing this package imports no JAX.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxmnist.testing.assertions import assert_all_reduce_count as assert_all_reduce_count
    from jaxmnist.testing.assertions import (
        assert_equal_across_devices as assert_equal_across_devices,
    )
    from jaxmnist.testing.assertions import assert_replicas_equal as assert_replicas_equal
    from jaxmnist.testing.assertions import assert_resumes_exactly as assert_resumes_exactly
    from jaxmnist.testing.hlo import Collective as Collective
    from jaxmnist.testing.hlo import audit as audit
    from jaxmnist.testing.loop import assert_no_host_transfers as assert_no_host_transfers
    from jaxmnist.testing.loop import assert_single_trace as assert_single_trace
    from jaxmnist.testing.loop import count_traces as count_traces
    from jaxmnist.testing.processes import run_processes as run_processes

_WHERE = {
    "assert_all_reduce_count": "assertions",
    "assert_equal_across_devices": "assertions",
    "assert_replicas_equal": "assertions",
    "assert_resumes_exactly": "assertions",
    "Collective": "hlo",
    "audit": "hlo",
    "assert_no_host_transfers": "loop",
    "assert_single_trace": "loop",
    "count_traces": "loop",
    "run_processes": "processes",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_WHERE])

"""Assertions about what a loop makes JAX do: reads by the host, traces and compilations."""

import contextlib
import functools
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import jax
import jax.monitoring
import jax.numpy as jnp
import numpy as np

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")
_EVENTS = {
    "/jax/core/compile/jaxpr_trace_duration": "traced",
    "/jax/core/compile/backend_compile_duration": "compiled",
}


@contextlib.contextmanager
def assert_no_host_transfers(*, allowed: int = 0) -> Iterator[list[str]]:
    """Asserts that the code inside reads from the devices at most `allowed` times.

    Implicit transfers to and between devices raise at once (`jax.transfer_guard`). Reads are
    counted, because on CPU the guard does not see them: no byte moves there. One
    `jax.device_get` of a whole tree is one read; waiting without reading is none. Only reads by
    the thread that entered count. From an array on a single CPU device NumPy takes the memory
    without asking, except in `np.asarray` and `np.array`: use two devices or more.

    Args:
      allowed: the greatest number of reads.

    Yields:
      The reads so far, each as its place in the code and the array's type.

    Raises:
      AssertionError: at the end, with the places of all reads.
    """
    reads: list[str] = []
    try:
        with (
            _counted_reads(reads),
            jax.transfer_guard_host_to_device("disallow"),
            jax.transfer_guard_device_to_device("disallow"),
        ):
            yield reads
    except jax.errors.JaxRuntimeError as error:
        if "Disallowed" not in str(error):
            raise
        raise AssertionError(
            f"an implicit transfer: {error}; move values to the devices before with "
            "jax.device_put, and compute with them inside the jitted function"
        ) from error
    if len(reads) > allowed:
        lines = [f"{times} x {read}" for read, times in Counter(reads).most_common()]
        head = f"{len(reads)} device-to-host reads, at most {allowed} allowed"
        raise AssertionError("\n  ".join([f"{head}:", *lines]))


@contextlib.contextmanager
def _counted_reads(reads: list[str]) -> Iterator[None]:
    """Patches the few points that every read of an array passes."""
    # In JAX each conversion (float, int, tolist, NumPy, device_get) goes through this property,
    # except for NumPy's own reading of an array on one CPU device.
    array_type: Any = type(jnp.zeros(()))
    thread = threading.get_ident()
    covered = [False]  # inside device_get, which counts once for all leaves

    def note(value: Any) -> None:
        if threading.get_ident() == thread and not covered[0]:
            reads.append(f"{_place()}: {value}")

    def read_value(array: Any) -> Any:
        note(f"{array.dtype}{list(array.shape)}")
        return values.fget(array)

    def once(original: Callable[..., Any]) -> Callable[..., Any]:
        def reading(value: Any, *args: Any, **kwargs: Any) -> Any:
            arrays = [x for x in jax.tree.leaves(value) if isinstance(x, array_type)]
            outer = covered[0]
            if arrays and threading.get_ident() == thread:
                note(" ".join(f"{x.dtype}{list(x.shape)}" for x in arrays[:4]))
                covered[0] = True
            try:
                return original(value, *args, **kwargs)
            finally:
                if threading.get_ident() == thread:
                    covered[0] = outer

        return functools.wraps(original)(reading)

    values = array_type._value
    points = [(jax, "device_get"), (np, "asarray"), (np, "array")]
    originals = [getattr(*point) for point in points]
    array_type._value = property(read_value)
    for point, original in zip(points, originals, strict=True):
        setattr(*point, once(original))
    try:
        yield
    finally:
        array_type._value = values
        for point, original in zip(points, originals, strict=True):
            setattr(*point, original)


def _place() -> str:
    """Names the innermost line of code that is neither JAX's, NumPy's nor this module's."""
    skipped = tuple(str(Path(file).parent) for file in (jax.__file__, np.__file__) if file)
    for frame, line in traceback.walk_stack(None):
        file = frame.f_code.co_filename
        if file != __file__ and not file.startswith(skipped):
            return f"{file}:{line} in {frame.f_code.co_name}"
    return "unknown place"


@contextlib.contextmanager
def _compile_events() -> Iterator[list[tuple[str, str]]]:
    """Yields the traces and compilations of this thread as (event, function's name)."""
    events: list[tuple[str, str]] = []
    thread = threading.get_ident()

    def listen(event: str, duration_secs: float, **details: str | int) -> None:
        if event in _EVENTS and threading.get_ident() == thread:
            events.append((_EVENTS[event], str(details.get("fun_name"))))

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield events
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


@contextlib.contextmanager
def count_traces() -> Iterator[Counter[str]]:
    """Yields how often this thread traced each jitted function inside, by the function's name.

    The counts are there when the block has ended.
    """
    traces: Counter[str] = Counter()
    with _compile_events() as events:
        yield traces
    traces.update(name for kind, name in events if kind == "traced")


def assert_single_trace(
    function: Callable[_Arguments, _Result],
) -> Callable[_Arguments, _Result]:
    """Wraps a function so that a second trace or compilation of it raises.

    Wrap the jitted function, or the function that is given to `jax.jit`.

    Returns:
      The wrapped function.

    Raises:
      AssertionError: from the call that traces again: names the arguments whose shape, dtype,
        weak type, value (static arguments) or placement has changed since the first call.
    """
    name = getattr(function, "__name__", repr(function))
    signatures: list[dict[str, tuple[str, str]]] = []

    @functools.wraps(function)
    def wrapper(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        signatures.append(_signature(args, kwargs))
        leaves = jax.tree.leaves((args, kwargs))
        tracing = any(isinstance(leaf, jax.core.Tracer) for leaf in leaves)
        with _compile_events() as events:
            result = function(*args, **kwargs)
        if len(signatures) > 1 and (tracing or events):
            what = ", ".join(sorted({f"{kind} {who}" for kind, who in events}))
            changes = "\n  ".join(_changes(signatures[0], signatures[-1]))
            raise AssertionError(
                f"call {len(signatures)} of {name} {what or 'traced it'} again; since the first "
                f"call:\n  {changes}"
            )
        return result

    return wrapper


def _signature(args: Any, kwargs: Any) -> dict[str, tuple[str, str]]:
    """What decides about tracing (type) and about compiling (placement), by argument."""
    found, _ = jax.tree_util.tree_flatten_with_path((args, kwargs))
    signature = {}
    for path, leaf in found:
        kind = f"Python {type(leaf).__name__} {leaf!r}"
        if hasattr(leaf, "dtype") and hasattr(leaf, "shape"):
            weak = ", weakly typed" if getattr(leaf, "weak_type", False) else ""
            kind = f"{leaf.dtype}{list(leaf.shape)}{weak}"
        elif isinstance(leaf, bool | int | float | complex):
            kind = f"Python {type(leaf).__name__}, weakly typed"
        place = type(leaf).__name__
        if isinstance(leaf, jax.Array) and not isinstance(leaf, jax.core.Tracer):
            place = f"{leaf.sharding}, committed: {leaf.committed}"
        signature[jax.tree_util.keystr(path[1:])] = (kind, place)
    return signature


def _changes(old: dict[str, tuple[str, str]], new: dict[str, tuple[str, str]]) -> list[str]:
    paths = list(dict.fromkeys([*old, *new]))
    absent = ("absent", "absent")
    for part in (0, 1):
        pairs = [(path, old.get(path, absent)[part], new.get(path, absent)[part]) for path in paths]
        changed = [f"argument {path}: {a} -> {b}" for path, a, b in pairs if a != b]
        if changed:
            return changed
    return ["no argument has changed: a static value or a global has, or the function is new"]

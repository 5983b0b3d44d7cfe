"""Assertions about the results and programs of data-parallel code: they say where it is wrong."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxmnist.errors import UsageError
from jaxmnist.mesh import data_mesh
from jaxmnist.testing.hlo import Collective, Program, audit
from jaxmnist.testing.processes import run_until

_WORST = 8


def first_devices_mesh(devices: Sequence[jax.Device], count: int) -> Mesh:
    """A mesh of the first `count` devices, with the one axis 'data'.

    Raises:
      UsageError: there are fewer devices.
    """
    if not 1 <= count <= len(devices):
        raise UsageError(
            f"a mesh of {count} devices was asked for and there are {len(devices)}: "
            f"start pytest with --fake-devices={max(count, 1)}"
        )
    return data_mesh(count, devices=devices)


def _leaves(tree: Any) -> dict[str, Any]:
    """The leaves by key path, with random keys as their raw data."""
    found, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path) or "(the value)": _raw(leaf) for path, leaf in found}


def _raw(leaf: Any) -> Any:
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.key_data(leaf)
    return leaf


def _wide(array: np.ndarray) -> np.ndarray:
    return array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)


def _mismatch(a: Any, b: Any) -> str | None:
    """Says how two arrays differ in shape, dtype or any bit; None if they do not."""
    a, b = np.asarray(a), np.asarray(b)
    if (a.shape, a.dtype) != (b.shape, b.dtype):
        return f"{a.dtype}{list(a.shape)} against {b.dtype}{list(b.shape)}"
    if a.tobytes() == b.tobytes():
        return None
    if a.dtype.kind in "USO":
        return f"{a!r} against {b!r}"
    rows = [np.frombuffer(x.tobytes(), np.uint8).reshape(x.size, -1) for x in (a, b)]
    wrong = (rows[0] != rows[1]).any(axis=1)
    first = tuple(int(i) for i in np.unravel_index(int(wrong.argmax()), a.shape))
    gap = np.abs(_wide(a) - _wide(b)).max()
    return (
        f"{wrong.sum()} of {a.size} elements differ, max |a - b| = {gap:.3g}, "
        f"first at index {first}: {a[first]} against {b[first]}"
    )


def assert_replicas_equal(tree: Any) -> None:
    """Asserts that each array holds the same bits on every device of this process.

    `jax.Array` trusts its sharding: a program that claims replication wrongly leaves different
    values behind, and reading the array shows only the first device's.

    Args:
      tree: pytree of replicated arrays; leaves that are no `jax.Array` are passed over.

    Raises:
      AssertionError: names the leaf, the devices, the greatest difference and the first index.
    """
    faults = []
    arrays = {p: a for p, a in _leaves(tree).items() if isinstance(a, jax.Array)}
    for path, array in arrays.items():
        if not array.is_fully_replicated:
            faults.append(f"{path}: is split over devices, not replicated: {array.sharding}")
            continue
        first, *others = array.addressable_shards
        for other in others:
            if text := _mismatch(first.data, other.data):
                faults.append(f"{path}: {first.device} and {other.device}: {text}")
    if not arrays:
        faults.append("the tree holds no jax.Array: nothing was compared")
    if faults:
        raise AssertionError("replicas are not equal:\n  " + "\n  ".join(faults))


def assert_equal_across_devices(
    function: Callable[[Mesh], Any], *, devices: Sequence[int] = (1, 2, 4, 8), rtol: float = 1e-5
) -> float:
    """Asserts that a computation gives the same result on meshes of several sizes.

    The difference of a leaf is max|a - b| / max|b|, where b is the result on the first mesh.

    Args:
      function: takes a mesh with the axis 'data' and returns a pytree of arrays.
      devices: the numbers of devices; the first is the reference.
      rtol: the greatest difference allowed; 0 asks for equal bits.

    Returns:
      The greatest difference seen.

    Raises:
      AssertionError: with a table of the worst leaves, and how many times too large each is.
      UsageError: there are fewer devices, or fewer than two numbers are given.
    """
    if len(devices) < 2:
        raise UsageError(f"devices={tuple(devices)} compares nothing: give at least two numbers")
    results = {}
    for count in devices:
        result = _leaves(function(first_devices_mesh(jax.devices(), count)))
        arrays = [leaf for leaf in result.values() if isinstance(leaf, jax.Array)]
        if arrays and all(len(array.sharding.device_set) != count for array in arrays):
            raise AssertionError(
                f"no array of the result lies on the {count} device(s) of the mesh: the function "
                "does not use its mesh; return the arrays as the step leaves them"
            )
        results[count] = {path: np.asarray(leaf) for path, leaf in result.items()}
    reference = results.pop(devices[0])
    rows: list[tuple[float, str]] = []
    for count, result in results.items():
        if result.keys() != reference.keys():
            different = sorted(result.keys() ^ reference.keys())
            raise AssertionError(f"{count} against {devices[0]} devices: leaves {different} differ")
        rows += [_compare(count, path, leaf, reference[path]) for path, leaf in result.items()]
    if not rows:
        raise AssertionError("the result has no leaves: nothing was compared")
    rows.sort(key=lambda row: -row[0])
    wrong = [row for row in rows if not row[0] <= rtol]
    if wrong:
        head = f"{len(wrong)} of {len(rows)} leaves differ from {devices[0]} device(s) by more than"
        lines = [f"{head} rtol={rtol:g} (max|a-b|/max|b|; scale: a is about scale * b):"]
        raise AssertionError("\n  ".join(lines + [text for _, text in wrong[:_WORST]]))
    return rows[0][0]


def _compare(count: int, path: str, a: np.ndarray, b: np.ndarray) -> tuple[float, str]:
    mismatch = _mismatch(a, b)
    if mismatch is None:
        return 0.0, ""
    if (a.shape, a.dtype) != (b.shape, b.dtype) or a.dtype.kind in "USO":
        return float("inf"), f"{count} devices  {path}: {mismatch}"
    wide_a, wide_b = _wide(a), _wide(b)
    size, gap = float(np.abs(wide_b).max()), float(np.abs(wide_a - wide_b).max())
    worst = gap / size if size and np.isfinite(gap) else float("inf")
    if gap == 0.0:  # equal numbers of different bits, such as 0.0 and -0.0, are still a difference
        worst = float(np.finfo(np.float64).tiny)
    scale = float(np.vdot(wide_b, wide_a).real / np.vdot(wide_b, wide_b).real) if size else 1.0
    text = f"{count} devices  {path}: {worst:.3g}  scale {scale:.4g}  {mismatch}"
    if round(scale, 2) in (count, count * count):
        text += f"  <- {scale:.4g} times too large on {count} devices: summed too often"
    return worst, text


def assert_all_reduce_count(
    program: Program,
    expected: int,
    *,
    all_gathers: int = 0,
    others: int = 0,
    reduced_bytes: int | None = None,
    unknown_trips: int | None = None,
) -> list[Collective]:
    """Asserts how many collectives one call of a compiled program executes.

    Args:
      program: compiled, lowered, HLO text, or a list of these that together are one step.
      expected: the number of all-reduces, loops multiplied in.
      all_gathers: the number of all-gathers.
      others: the number of all other collectives together.
      reduced_bytes: the bytes that all all-reduces together reduce on one device; None: any.
      unknown_trips: as in `audit`.

    Returns:
      The collectives found.

    Raises:
      AssertionError: with a table of what was found; also where a collective lies in a loop whose
        trip count is not known.
    """
    found = audit(program, unknown_trips=unknown_trips)
    wanted = {"all-reduce": expected, "all-gather": all_gathers, "others": others}
    counts = dict.fromkeys(wanted, 0)
    for item in found:
        counts[item.kind if item.kind in wanted else "others"] += item.count or 0
    size = sum(item.bytes * (item.count or 0) for item in found if item.kind == "all-reduce")
    faults = [f"{n} {kind}, {wanted[kind]} expected" for kind, n in counts.items()]
    faults = [f for f, kind in zip(faults, counts, strict=True) if counts[kind] != wanted[kind]]
    if any(item.count is None for item in found):
        faults.append(
            "a collective in a loop of unknown trip count: give unknown_trips, or move it out"
        )
    if reduced_bytes is not None and size != reduced_bytes:
        faults.append(f"{size} bytes all-reduced, {reduced_bytes} expected")
    if faults:
        raise AssertionError("; ".join(faults) + "\n  " + "\n  ".join(map(_row, found)))
    return found


def _row(item: Collective) -> str:
    times = "unknown times" if item.count is None else f"{item.count} x"
    place = "in a loop, " if item.in_loop else ""
    return f"{times} {item.kind} of {item.bytes} bytes ({place}computation {item.computation})"


def assert_resumes_exactly(
    run: Callable[[str], Any],
    *,
    workdir: str | Path,
    kill_at: Callable[[Path], bool] | Sequence[Callable[[Path], bool]],
    processes: int = 1,
    devices: int = 2,
    timeout_s: float = 120.0,
) -> None:
    """Asserts that a run that is killed and started again ends as if it had not been.

    `run(folder)` is called in a fresh process with SIGKILL once a condition holds, then again to
    its end, and compared bit for bit with an unbroken run in another folder.

    Args:
      run: a function at the top level of a file: takes a folder, goes on from what it finds there,
        and returns a pytree of arrays or numbers: the final state.
      workdir: an empty or absent folder; `broken` and `unbroken` are made in it.
      kill_at: looks at the folder about every 5 ms and says whether to kill now; of several, each
        kills one start, in order.
      processes: how many real processes a run takes.
      devices: CPU devices of each process.
      timeout_s: limit for each start.

    Raises:
      AssertionError: names each leaf that differs; also where a run ended before its condition
        held (nothing would be tested), failed, or took too long.
      UsageError: `run` cannot be found from another process.
    """
    broken, unbroken = Path(workdir) / "broken", Path(workdir) / "unbroken"
    for folder in (broken, unbroken):
        folder.mkdir(parents=True, exist_ok=False)

    def start(folder: Path, kill: Callable[[], bool] | None) -> Any:
        return run_until(
            run, kill, processes=processes, devices=devices, args=(folder,), timeout_s=timeout_s
        )

    conditions = [kill_at] if callable(kill_at) else list(kill_at)
    for number, condition in enumerate(conditions, start=1):
        if start(broken, functools.partial(condition, broken)) is not None:
            raise AssertionError(
                f"the run ended before condition {number} of kill_at held: nothing was "
                "interrupted; kill earlier, or make the run longer"
            )
    resumed, whole = _leaves(start(broken, None)), _leaves(start(unbroken, None))
    faults = [f"{path}: in only one of the runs" for path in resumed.keys() ^ whole.keys()]
    for path in resumed.keys() & whole.keys():
        if text := _mismatch(resumed[path], whole[path]):
            faults.append(f"{path}: {text}")
    if faults or not whole:
        lines = sorted(faults) or ["the runs returned no leaves: nothing was compared"]
        raise AssertionError(
            "the resumed run (a) is not the unbroken run (b):\n  " + "\n  ".join(lines)
        )

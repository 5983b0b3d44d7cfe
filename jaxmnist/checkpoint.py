"""Checkpoints: written by Orbax while training goes on, sealed with digests, verified.

Orbax restores a flipped bit without a word. So a manifest with the SHA-256 of every file and of the
state itself is written into each checkpoint before Orbax commits it by renaming; a checkpoint
whose files do not match is not used, and the one before it is.
"""

import contextlib
import datetime
import hashlib
import itertools
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from jaxmnist.errors import CheckpointError, WorkdirError
from jaxmnist.state import TrainState, tree_sha256

FORMAT = 1
MANIFEST = "manifest.json"
_METADATA = "_CHECKPOINT_METADATA"


@dataclass(frozen=True)
class CheckpointInfo:
    """What the manifest of a checkpoint says.

    Attributes:
      step: finished steps.
      time: when it was written, ISO 8601 with time zone.
      state_sha256: digest of the whole state.
      params_sha256: digest of the parameters.
      ema_sha256: digest of the parameters' moving average, or None.
      size_bytes: of all its files.
      notes: what the run wrote beside the state: seconds by part, metrics, digest of the data.
    """

    step: int
    time: str
    state_sha256: str
    params_sha256: str
    ema_sha256: str | None
    size_bytes: int
    notes: Mapping[str, Any]


def steps_in(directory: Path) -> list[int]:
    """Steps of the committed checkpoints, ascending; their content is not looked at."""
    return sorted(int(p.name) for p in directory.glob("*") if p.name.isdecimal() and p.is_dir())


def read_info(directory: Path, step: int) -> CheckpointInfo:
    """Reads and verifies a checkpoint's manifest and the digest of each of its files.

    Raises:
      CheckpointError: the checkpoint is missing, damaged or of another format.
    """
    place = directory / str(step)
    try:
        manifest = json.loads((place / MANIFEST).read_bytes())
        if manifest.pop("sha256") != _sha256(manifest):
            raise ValueError(f"{MANIFEST} does not match its own digest")
        if manifest["format"] != FORMAT:
            rule = f"this version reads {FORMAT}: use the version of jaxmnist that wrote it"
            raise CheckpointError(f"checkpoint {place} has format {manifest['format']}, {rule}")
        found, files = _digests(place), manifest["files"]
        if damaged := [name for name in files if found.get(name) != files[name]]:
            raise ValueError(f"the SHA-256 of {', '.join(damaged)} is not what was written")
        return CheckpointInfo(**manifest["info"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"checkpoint {place} is damaged: {error}") from error


def newest_good(directory: Path) -> tuple[CheckpointInfo | None, list[str]]:
    """The newest checkpoint whose files are sound, and what is wrong with each newer one."""
    faults: list[str] = []
    for step in reversed(steps_in(directory)):
        try:
            return read_info(directory, step), faults
        except CheckpointError as error:
            faults.append(str(error))
    return None, faults


def set_aside_after(directory: Path, step: int) -> None:
    """Renames the checkpoints after `step`: they can be written anew and nothing is lost."""
    for later in steps_in(directory):
        if later > step:
            names = (directory / f"damaged-{later}-{number}" for number in itertools.count())
            (directory / str(later)).rename(next(name for name in names if not name.exists()))


def check_same_data(notes: Mapping[str, Any], digest: str, *, workdir: str) -> None:
    """Refuses to go on with other data than those of a checkpoint; an empty digest says nothing.

    Args:
      notes: of the checkpoint that is to be resumed; "data" is the digest of its data set.
      digest: of the present data set, "name=SHA-256" of each file, joined by commas.
      workdir: of the run, for the message.

    Raises:
      WorkdirError: files differ; the text names them.
    """
    differing = {*notes["data"].split(",")} ^ {*digest.split(",")}
    if notes["data"] and digest and differing:
        names = ", ".join(sorted({part.partition("=")[0] for part in differing}))
        repair = "give the former files, a fresh --workdir, or --allow_config_change"
        raise WorkdirError(f"the run in {workdir} had other data, {names} differ: {repair}")


def restore(directory: Path, info: CheckpointInfo, target: TrainState) -> TrainState:
    """Restores a state onto the devices of `target` and verifies its digest.

    Args:
      directory: the checkpoints' directory.
      info: of the checkpoint, from `read_info`.
      target: a state of arrays or `jax.ShapeDtypeStruct`s with the shardings that are wanted; the
        devices may be others than those that the checkpoint was written on.

    Raises:
      CheckpointError: the checkpoint holds another state, or not what its digest says.
    """
    import orbax.checkpoint as ocp

    place, wanted = directory / str(info.step), flat(target)
    path, handler = (place / "state").absolute(), ocp.StandardCheckpointHandler()
    old, new = types(handler.metadata(path).tree), types(wanted)
    if names := [name for name in new | old if new.get(name) != old.get(name)]:
        both = (f"{n}: {old.get(n, 'none')} there, {new.get(n, 'none')} now" for n in names[:3])
        fault = f"another state, {len(names)} arrays differ ({'; '.join(both)})"
        repair = "give the model and optimizer that the run had, or a fresh --workdir"
        raise CheckpointError(f"checkpoint {place} holds {fault}: {repair}")
    with ocp.Checkpointer(handler) as checkpointer:
        found = checkpointer.restore(path, args=ocp.args.StandardRestore(wanted))
    state = jax.tree.unflatten(jax.tree.structure(target), [found[name] for name in wanted])
    if (digest := tree_sha256(state)) != info.state_sha256:
        fault = f"its state has SHA-256 {digest}, expected {info.state_sha256}"
        raise CheckpointError(f"checkpoint {place} is damaged: {fault}")
    return state


class CheckpointWriter:
    """Writes checkpoints in the background and keeps the newest ones and the best.

    Attributes:
      best_step: the step whose checkpoint stays besides the newest, None for none; may be set.
    """

    def __init__(self, directory: Path, *, keep: int, best_step: int | None = None, **more: Any):
        """Creates the directory where it is missing; `keep` of the newest checkpoints stay.

        `more` are further options of Orbax's `CheckpointManager`.
        """
        import orbax.checkpoint as ocp

        self._directory, self._keep, self.best_step = directory.absolute(), keep, best_step
        self._info: dict[str, Any] = {}
        beside = ocp.AsyncOptions(
            post_finalization_callback=self._seal,
            # Threads that wait for a directory to be made would hold up the exit after an error.
            create_directories_asynchronously=False,
            # Orbax asks the wall clock, which may jump; the watchdog has a limit that does not.
            timeout_secs=10**8,
        )
        options = ocp.CheckpointManagerOptions(
            preservation_policy=self,
            cleanup_tmp_directories=True,
            save_root_metadata=False,
            async_options=beside,
            **more,
        )
        self._manager = ocp.CheckpointManager(self._directory, options=options)
        # When to stop is the run's to say, and not that of JAX's preemption service.
        self._manager.reached_preemption = lambda step: False

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """Orbax's question which checkpoints stay: the newest `keep` and the best."""
        kept = {self.best_step, *(c.step for c in checkpoints[-self._keep :])}
        return [c.step in kept for c in checkpoints]

    def save(self, step: int, state: TrainState, notes: Mapping[str, Any]) -> None:
        """Starts to write a checkpoint; returns once the state is copied and may be donated.

        Args:
          step: finished steps.
          state: replicated arrays; all processes of the job call this together.
          notes: JSON-able, kept in the manifest.

        Raises:
          CheckpointError: this or the previous checkpoint could not be written.
        """
        import orbax.checkpoint as ocp

        self.wait()
        host = jax.device_get(state)
        self._info = {
            "step": step,
            "time": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
            "state_sha256": tree_sha256(host),
            "params_sha256": tree_sha256(host.params),
            "ema_sha256": None if host.ema is None else tree_sha256(host.ema),
            "notes": notes,
        }
        arguments = ocp.args.Composite(state=ocp.args.StandardSave(flat(state)))
        with self._telling_the_repair():
            self._manager.save(step, args=arguments)

    def wait(self) -> None:
        """Waits until all checkpoints are on disk.

        Raises:
          CheckpointError: one could not be written.
        """
        with self._telling_the_repair():
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits for the last checkpoint and ends the background threads."""
        with contextlib.closing(self._manager):
            self.wait()

    @contextlib.contextmanager
    def _telling_the_repair(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            fault = f"a checkpoint could not be written to {self._directory}: {error}"
            repair = "free space or mend the directory, then run the same command again"
            raise CheckpointError(f"{fault}; {repair}: earlier checkpoints are whole") from error

    def _seal(self) -> None:
        """Called by Orbax when all files are written and before the checkpoint is committed."""
        if jax.process_index() == 0:
            place = next(self._directory.glob(f"{self._info['step']}.orbax-checkpoint-tmp*"))
            _await_metadata(place)
            size = sum(path.stat().st_size for path in place.rglob("*") if path.is_file())
            manifest = {"format": FORMAT, "info": self._info | {"size_bytes": size}}
            manifest["files"] = _digests(place)
            manifest["sha256"] = _sha256(manifest)
            (place / MANIFEST).write_text(json.dumps(manifest, indent=1))


def _await_metadata(place: Path) -> None:
    """Waits for a thread of Orbax that writes the names of the handlers, as Orbax does not."""
    for _ in range(1000):
        with contextlib.suppress(ValueError):  # it is half written
            if json.loads((place / _METADATA).read_bytes()).get("item_handlers"):
                return
        time.sleep(0.01)


def _digests(place: Path) -> dict[str, str]:
    """SHA-256 by file, without the time of the commit, which Orbax adds after the seal."""
    metadata = json.loads((place / _METADATA).read_bytes()) | {"commit_timestamp_nsecs": None}
    paths = [path for path in place.rglob("*") if path.is_file()]
    digests = {str(p.relative_to(place)): hashlib.sha256(p.read_bytes()).hexdigest() for p in paths}
    return digests | {_METADATA: _sha256(metadata)}


def types(tree: Mapping[str, Any]) -> dict[str, str]:
    """Type and shape by path."""
    return {name: f"{leaf.dtype}{list(leaf.shape)}" for name, leaf in tree.items()}


def flat(tree: Any) -> dict[str, Any]:
    """The leaves by path; Orbax then need not know of optax's and Flax's containers."""
    leaves = jax.tree.leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def _sha256(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()

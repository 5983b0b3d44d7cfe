"""Checkpoints: written by Orbax while training goes on, sealed with digests, verified.

Orbax restores a flipped bit without a word. So a manifest with the SHA-256 of every file and of the
state itself is written into each checkpoint before Orbax commits it by renaming; a checkpoint
whose files do not match is not used, and the one before it is.
"""

import datetime
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from jaxmnist.errors import CheckpointError
from jaxmnist.state import TrainState, tree_sha256

FORMAT = 1
_MANIFEST = "manifest.json"
_STATE = "state"
# Orbax writes the time of the commit into these two after the seal; neither holds any state.
_AFTER_SEAL = {"_CHECKPOINT_METADATA", "commit_success.txt"}


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
      notes: what the run wrote beside the state: seconds by part, metrics, history.
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
    if not directory.is_dir():
        return []
    return sorted(int(p.name) for p in directory.iterdir() if p.name.isdigit() and p.is_dir())


def read_info(directory: Path, step: int) -> CheckpointInfo:
    """Reads and verifies a checkpoint's manifest and the digest of each of its files.

    Raises:
      CheckpointError: the checkpoint is missing, damaged or of another format.
    """
    place = directory / str(step)
    try:
        sealed = json.loads((place / _MANIFEST).read_bytes())
        manifest = sealed["manifest"]
        if sealed["sha256"] != _json_sha256(manifest):
            raise ValueError(f"{_MANIFEST} does not match its own digest")
        if manifest["format"] != FORMAT:
            raise CheckpointError(
                f"checkpoint {place} has format {manifest['format']}, this version reads "
                f"{FORMAT}: use the version of jaxmnist that wrote it"
            )
        _verify_files(place, manifest)
    except CheckpointError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"checkpoint {place} is damaged: {error}") from error
    size = sum(p.stat().st_size for p in place.rglob("*") if p.is_file())
    fields = {k: manifest[k] for k in ("time", "state_sha256", "params_sha256", "ema_sha256")}
    return CheckpointInfo(step=step, size_bytes=size, notes=manifest["notes"], **fields)


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
            number = 0
            while (target := directory / f"damaged-{later}-{number}").exists():
                number += 1
            (directory / str(later)).rename(target)


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

    place = directory / str(info.step)
    abstract = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), target
    )
    try:
        with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer:
            flat = checkpointer.restore(
                (place / _STATE).absolute(), args=ocp.args.StandardRestore(_flat(abstract))
            )
    except Exception as error:
        raise CheckpointError(
            f"checkpoint {place} cannot be restored into this model and optimizer: "
            f"{type(error).__name__}: {error}"
        ) from error
    state = jax.tree.unflatten(jax.tree.structure(abstract), [flat[k] for k in _flat(abstract)])
    if (found := tree_sha256(state)) != info.state_sha256:
        raise CheckpointError(
            f"checkpoint {place} is damaged: its state has SHA-256 {found}, "
            f"expected {info.state_sha256}"
        )
    return state


class CheckpointWriter:
    """Writes checkpoints in the background and keeps the newest ones and the best."""

    def __init__(self, directory: Path, *, keep: int, best_step: int | None = None):
        """Creates the directory where it is missing.

        Args:
          directory: of the checkpoints.
          keep: how many of the newest stay.
          best_step: a step that stays besides, see `mark_best`.
        """
        import orbax.checkpoint as ocp

        self._directory = directory.absolute()
        self._keep = keep
        self._best = best_step
        self._manifest: dict[str, Any] = {}
        self._manager = ocp.CheckpointManager(
            self._directory,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=self,
                cleanup_tmp_directories=True,
                save_root_metadata=False,
                async_options=ocp.AsyncOptions(post_finalization_callback=self._seal),
            ),
            item_names=(_STATE,),
        )

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """Orbax's question which checkpoints stay: the newest `keep` and the best."""
        newest = {c.step for c in checkpoints[-self._keep :]}
        return [c.step in newest or c.step == self._best for c in checkpoints]

    def mark_best(self, step: int) -> None:
        """From now on the checkpoint of this step is the best."""
        self._best = step

    def save(self, step: int, state: TrainState, notes: Mapping[str, Any]) -> CheckpointInfo:
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
        self._manifest = {
            "format": FORMAT,
            "step": step,
            "time": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
            "state_sha256": tree_sha256(host),
            "params_sha256": tree_sha256(host.params),
            "ema_sha256": None if host.ema is None else tree_sha256(host.ema),
            "notes": dict(notes),
        }
        try:
            self._manager.save(
                step,
                args=ocp.args.Composite(**{_STATE: ocp.args.StandardSave(_flat(state))}),
            )
        except Exception as error:
            raise self._failed(error) from error
        fields = {k: v for k, v in self._manifest.items() if k != "format"}
        return CheckpointInfo(size_bytes=0, **fields)

    def wait(self) -> None:
        """Waits until all checkpoints are on disk.

        Raises:
          CheckpointError: one could not be written.
        """
        try:
            self._manager.wait_until_finished()
        except Exception as error:
            raise self._failed(error) from error

    def close(self) -> None:
        """Waits for the last checkpoint and ends the background threads."""
        try:
            self.wait()
        finally:
            self._manager.close()

    def _failed(self, error: Exception) -> CheckpointError:
        return CheckpointError(
            f"a checkpoint could not be written to {self._directory}: {error}; free space or "
            "mend the directory, then run the same command again: earlier checkpoints are whole"
        )

    def _seal(self) -> None:
        """Called by Orbax when all files are written and before the checkpoint is committed."""
        if jax.process_index() != 0:
            return
        place = next(self._directory.glob(f"{self._manifest['step']}.orbax-checkpoint-tmp*"))
        files = {
            str(path.relative_to(place)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(place.rglob("*"))
            if path.is_file() and str(path.relative_to(place)) not in _AFTER_SEAL
        }
        orbax = _orbax_metadata(place)
        manifest = self._manifest | {"files": files, "orbax": orbax}
        sealed = {"manifest": manifest, "sha256": _json_sha256(manifest)}
        (place / _MANIFEST).write_text(json.dumps(sealed, indent=1))


def _verify_files(place: Path, manifest: Mapping[str, Any]) -> None:
    for name, expected in manifest["files"].items():
        found = hashlib.sha256((place / name).read_bytes()).hexdigest()
        if found != expected:
            raise ValueError(f"{name} has SHA-256 {found[:12]}…, expected {expected[:12]}…")
    if _orbax_metadata(place) != manifest["orbax"]:
        raise ValueError("_CHECKPOINT_METADATA is not what was written")
    commit = place / "commit_success.txt"
    if commit.exists() and not commit.read_text().startswith("Checkpoint commit was successful"):
        raise ValueError("commit_success.txt is not what was written")


def _orbax_metadata(place: Path) -> dict[str, Any]:
    """Orbax's own metadata without the time of the commit, which it adds after the seal."""
    metadata: dict[str, Any] = json.loads((place / "_CHECKPOINT_METADATA").read_bytes())
    metadata.pop("commit_timestamp_nsecs")
    return metadata


def _flat(tree: Any) -> dict[str, Any]:
    """The leaves by path; Orbax then need not know of optax's and Flax's containers."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def _json_sha256(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()

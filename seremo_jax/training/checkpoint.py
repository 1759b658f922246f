"""Checkpoints of the whole ensemble through Orbax: the state, the position in the plan, and what the run is."""

import contextlib
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp

from seremo_jax.core import artefacts
from seremo_jax.core.artefacts import (
    ArtefactError,
    atomic_path,
    download,
    in_bucket,
    parsed,
    place_of,
    read_json,
    remove_tree,
    require_same,
    upload,
    write_json,
)
from seremo_jax.core.hashed import describe_folder, require_files
from seremo_jax.core.sharding import is_first_process

_MOST_BATCHES = 10**7
"""More batches than any epoch has, so that epoch and batch make one rising number."""
_WHOLE_FILE = "whole.json"
"""List of the checkpoints in a bucket that were copied to their end."""
_HASHES_FILE = "hashes.json"
"""Size and hash of the other files of a checkpoint, written into its folder once they are whole."""

CHECKPOINTS_FOLDER = "checkpoints"
_TEMPORARY = ".orbax-checkpoint-tmp"
"""In the names of folders that Orbax has not finished."""

_DAMAGED = "delete finished.json beside this folder and run python -m launch.train again"


class Position(NamedTuple):
    """How far a training has come: whole epochs, and batches of the next one.

    The plan of batches is a pure function of data seed, epoch and lengths, so these two numbers are all that a loader
    needs to go on, on any number of processes.
    """

    epoch: int = 0
    batch: int = 0

    @property
    def number(self) -> int:
        """A number that rises with the position. Orbax numbers checkpoints by it."""
        return self.epoch * _MOST_BATCHES + self.batch


class Checkpoints:
    """The checkpoints of one run. The newest ones are kept, older ones are deleted.

    Args:
      folder: Folder of the checkpoints.
      run: What the run is, as a mapping that JSON can hold. A checkpoint of another run is refused.
      keep: How many of the newest checkpoints are kept.
    """

    def __init__(self, folder: str | os.PathLike, run: dict[str, Any], keep: int = 2):
        self._folder, self._run, self._copied, self._unhashed = _whole_path(folder), run, set(), set()
        # Several processes need one place that all of them see, and Orbax writes to some buckets by itself. A single
        # process writes to its own disk and copies, which works for every bucket that fsspec knows.
        self._is_copied = in_bucket(folder) and jax.process_count() == 1
        self._here = Path(tempfile.mkdtemp(prefix="seremo_jax-")) if self._is_copied else self._folder
        if self._is_copied:
            for number in self._whole():
                download(self._folder / str(number), self._here / str(number))
                self._copied.add(number)
        self._manager = ocp.CheckpointManager(self._here, options=ocp.CheckpointManagerOptions(max_to_keep=keep))

    def _whole(self) -> list[int]:
        """Numbers of the checkpoints in the bucket that were copied to their end."""
        path = self._folder / _WHOLE_FILE
        return read_json(path, "delete the folder to train anew") if path.exists() else []

    def _copy(self) -> None:
        """Brings the bucket up to date."""
        if not self._is_copied:
            return
        numbers = set(self._manager.all_steps())
        # In this order, so that whenever the process is cut off, every checkpoint of the list is whole.
        for number in sorted(numbers - self._copied):
            upload(self._here / str(number), self._folder / str(number))
        write_json(self._folder / _WHOLE_FILE, sorted(numbers))
        for number in self._copied - numbers:
            remove_tree(self._folder / str(number))
        self._copied = numbers

    def _hash(self) -> None:
        """Waits until what was saved is written, and writes the hashes of its files beside them.

        A checkpoint whose process was killed before this has no hashes and is read without them.
        """
        self._manager.wait_until_finished()  # of all processes: the first one counts a checkpoint once all have written
        if is_first_process():
            for number in self._unhashed.intersection(self._manager.all_steps()):
                folder = self._here / str(number)
                write_json(folder / _HASHES_FILE, describe_folder(folder))
        self._unhashed.clear()

    def _require_whole(self, number: int) -> None:
        """Refuses a checkpoint whose files are not those that were hashed."""
        folder, shown = self._here / str(number), f"{self._folder}/{number}"
        if (folder / _HASHES_FILE).exists():
            remedy = "delete the folder of this checkpoint"
            files = parsed((folder / _HASHES_FILE).read_bytes(), f"{shown}/{_HASHES_FILE}", remedy)
            require_files(folder, files, remedy, shown=shown)

    def save(self, position: "Position", state: Any) -> None:
        """Starts to write the state that was reached at `position`.

        Writing goes on in the background, and Orbax counts a checkpoint only once it is whole.
        """
        self._hash()  # Orbax, too, first waits for the checkpoint before.
        # Another mesh pads the member axis to another length, so the length is stored beside the state.
        num_positions = jax.tree.leaves(state)[0].shape[0]
        meta = {"epoch": position.epoch, "batch": position.batch, "num_positions": num_positions, "run": self._run}
        items = ocp.args.Composite(state=ocp.args.StandardSave(_held(state)), meta=ocp.args.JsonSave(meta))
        self._manager.save(position.number, args=items)
        self._unhashed.add(position.number)
        if self._is_copied:
            self.wait()

    def restore(self, like: Callable[[int], Any]) -> tuple["Position", Any] | None:
        """The newest checkpoint that can be read, as (position, state). None if there is none at all.

        A damaged checkpoint is skipped with a warning, and the one before is read.

        Args:
          like: Function that takes a number of positions of the member axis and gives shape structs, with shardings,
            of a state with as many.

        Raises:
          ArtefactError: The checkpoint belongs to another run (the message names the settings that differ), or all
            checkpoints are damaged.
        """
        numbers = sorted(self._manager.all_steps(), reverse=True)
        for number in numbers:
            try:
                self._require_whole(number)
                meta = self._manager.restore(number, args=ocp.args.Composite(meta=ocp.args.JsonRestore()))["meta"]
            except Exception as error:  # Orbax raises many kinds of errors for a damaged folder.
                warnings.warn(f"{self._folder}/{number} is damaged and skipped: {error}", stacklevel=2)
                continue
            remedy = "Use another --workdir, or delete this folder to train anew."
            require_same(f"the checkpoint {self._folder}/{number}", meta["run"], self._run, remedy)
            try:
                state = like(meta["num_positions"])
                args = ocp.args.Composite(state=ocp.args.StandardRestore(_held(state)))
                held = self._manager.restore(number, args=args)["state"]
                state = state._replace(**held) if hasattr(state, "_replace") else held
                return Position(meta["epoch"], meta["batch"]), state
            except Exception as error:
                warnings.warn(f"{self._folder}/{number} is damaged and skipped: {error}", stacklevel=2)
        if numbers:
            raise ArtefactError(f"no checkpoint in {self._folder} can be read; delete this folder to train anew")
        return None

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def wait(self) -> None:
        """Waits until what was saved is written and hashed."""
        self._hash()
        self._copy()

    def close(self) -> None:
        """Waits until what was saved is written, and lets go of the folder."""
        self.wait()
        self._manager.close()
        if self._is_copied:
            shutil.rmtree(self._here)


def _held(state: Any) -> Any:
    """The parts of a state that there are: those that earlier versions had not are None where nothing needs them."""
    if not hasattr(state, "_asdict"):
        return state
    return {name: part for name, part in state._asdict().items() if part is not None}


def remove_leftovers(folder: PurePath) -> None:
    """Deletes what a killed training left half-written in its folder: files of ours, and folders of Orbax."""
    kept = [path for path in _inside(folder / CHECKPOINTS_FOLDER) if path.name.isdigit()]
    for place in (folder, folder / CHECKPOINTS_FOLDER, *kept):
        artefacts.remove_leftovers(place)
        for path in _inside(place):
            if _TEMPORARY in path.name:
                remove_tree(path)


def _inside(folder: PurePath) -> list[PurePath]:
    return list(folder.iterdir()) if folder.is_dir() else []


def _whole_path(path: str | os.PathLike) -> PurePath:
    return place_of(path) if in_bucket(path) else Path(path).absolute()


def save_params(folder: str | os.PathLike, params: Any) -> dict[str, dict[str, Any]]:
    """Writes parameters [E, ...] to a folder that must not exist. It appears once it is whole.

    Returns:
      Size and hash of its files by name, which `load_params` compares; nothing on other processes than the first one.
    """
    is_copied = in_bucket(folder) and jax.process_count() == 1
    place = atomic_path(folder) if is_copied else contextlib.nullcontext(_whole_path(folder))
    # The block is left in reverse order: the checkpointer first waits for its writes, then `atomic_path` copies them.
    with place as path, ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(path, params)
    return describe_folder(_whole_path(folder)) if is_first_process() else {}


def load_params(folder: str | os.PathLike, like: Any, files: Mapping[str, Mapping[str, Any]] | None = None) -> Any:
    """Reads the parameters that `save_params` wrote.

    Args:
      folder: Folder of the parameters.
      like: Arrays, or shape structs with shardings, of the shapes and layouts wanted.
      files: What `save_params` returned; None, as earlier versions kept nothing, checks no hashes.

    Raises:
      ArtefactError: The folder is missing or damaged; the message names the file where a hash differs.
    """
    folder = _whole_path(folder)
    if not folder.is_dir():
        raise ArtefactError(f"{folder} is missing; run python -m launch.train first")
    try:
        with tempfile.TemporaryDirectory(prefix="seremo_jax-") as temporary, ocp.StandardCheckpointer() as checkpointer:
            here = folder
            if in_bucket(folder):
                here = Path(temporary) / folder.name
                download(folder, here)
            require_files(here, files or {}, _DAMAGED, shown=str(folder))
            return checkpointer.restore(here, like)
    except ArtefactError:
        raise
    except Exception as error:
        raise ArtefactError(f"{folder} is damaged ({error}); {_DAMAGED}") from error

"""Checkpoints of the whole ensemble through Orbax: state, position in the plan, fingerprint of the run."""

import os
import warnings
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from seremo_jax.artefacts import ArtefactError, require_same


class Checkpoints:
    """The checkpoints of one run, newest last.

    Args:
      folder: Where they lie.
      run: What the run is, as JSON-able mapping; a checkpoint of another run is refused.
      keep: Newest checkpoints kept.
    """

    def __init__(self, folder: str | os.PathLike, run: dict[str, Any], keep: int = 2):
        self._folder, self._run = Path(folder).absolute(), run
        self._manager = ocp.CheckpointManager(self._folder, options=ocp.CheckpointManagerOptions(max_to_keep=keep))

    def save(self, epoch: int, state: Any) -> None:
        """Starts writing the state reached after `epoch`; it counts as a checkpoint only once it is whole."""
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave({"epoch": epoch, "run": self._run})
        )
        self._manager.save(epoch, args=items)

    def restore(self, like: Any) -> tuple[int, Any] | None:
        """The newest whole checkpoint as (epoch, state), laid out on devices like `like`; None if there is none.

        A damaged checkpoint is skipped, with a warning, for the one before.

        Raises:
          ArtefactError: The checkpoint belongs to another run, naming the differing settings; or all are damaged.
        """
        target = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), like)
        epochs = sorted(self._manager.all_steps(), reverse=True)
        for epoch in epochs:
            try:
                meta = self._manager.restore(epoch, args=ocp.args.Composite(meta=ocp.args.JsonRestore()))["meta"]
            except Exception as error:  # Orbax raises many kinds for a damaged folder; the remedy is one.
                warnings.warn(f"{self._folder}/{epoch} is damaged and skipped: {error}", stacklevel=2)
                continue
            remedy = "Use another --workdir, or delete this folder to train anew."
            require_same(f"the checkpoint {self._folder}/{epoch}", meta["run"], self._run, remedy)
            try:
                args = ocp.args.Composite(state=ocp.args.StandardRestore(target))
                return epoch, self._manager.restore(epoch, args=args)["state"]
            except Exception as error:
                warnings.warn(f"{self._folder}/{epoch} is damaged and skipped: {error}", stacklevel=2)
        if epochs:
            raise ArtefactError(f"no checkpoint in {self._folder} can be read; delete this folder to train anew")
        return None

    def close(self) -> None:
        """Waits for writes under way."""
        self._manager.wait_until_finished()
        self._manager.close()


def save_params(folder: str | os.PathLike, params: Any) -> None:
    """Writes parameters [E, ...] to a folder that must not exist; Orbax renames it into place when whole."""
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(Path(folder).absolute(), params)


def load_params(folder: str | os.PathLike, like: Any) -> Any:
    """Reads what `save_params` wrote, shaped and laid out like `like` (arrays or shape structs with shardings).

    Raises:
      ArtefactError: Missing or damaged.
    """
    folder = Path(folder).absolute()
    if not folder.is_dir():
        raise ArtefactError(f"{folder} is missing; run python -m launch.train first")
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            return checkpointer.restore(folder, like)
    except Exception as error:
        raise ArtefactError(f"{folder} is damaged ({error}); delete it and run python -m launch.train again") from error

"""Where a checkpoint's files lie: a local folder, or the model hub's snapshot of it, downloaded once and cached."""

import re
from pathlib import Path
from typing import NamedTuple

_SETTINGS = ["config.json", "preprocessor_config.json"]
_FORMATS = (
    ["model.safetensors", "model.safetensors.index.json", "model-*-of-*.safetensors"],
    ["pytorch_model.bin", "pytorch_model.bin.index.json", "pytorch_model-*-of-*.bin"],
)
"""Patterns of weight files, the preferred format first."""
_ID = re.compile(r"[\w.-]+/[\w.-]+(?:@[\w./-]+)?")


class CheckpointError(ValueError):
    """A checkpoint cannot be found or used. The message names the file, what is wrong, and what to do."""


class Place(NamedTuple):
    """Where the files of a checkpoint are.

    Attributes:
      name: Its name in tables.
      folder: Holds the files.
      commit: The hub's commit; None for a folder placed by hand.
    """

    name: str
    folder: Path
    commit: str | None


def locate(path_or_id: str) -> Place:
    """Finds a folder, or downloads the snapshot of a hub id `org/name[@revision]`.

    Raises:
      CheckpointError: There is neither; the message says how to place the files by hand.
    """
    folder = Path(path_or_id).expanduser()
    if folder.is_dir():
        return Place(folder.resolve().name, folder, None)
    if folder.exists():
        raise CheckpointError(f"{path_or_id} is a file: give the folder that holds config.json and the weights")
    if not _ID.fullmatch(path_or_id) or path_or_id.startswith((".", "/", "~")):
        raise CheckpointError(f"{path_or_id} is no folder here, and no id of the model hub (org/name[@revision])")
    return _download(path_or_id)


def is_here(path_or_id: str) -> bool:
    """Whether `locate` finds a checkpoint on this disk, or the hub is not asked in any case."""
    import huggingface_hub

    if Path(path_or_id).expanduser().exists() or not _ID.fullmatch(path_or_id):
        return True
    repository, _, revision = path_or_id.partition("@")
    return isinstance(huggingface_hub.try_to_load_from_cache(repository, _SETTINGS[0], revision=revision or None), str)


def _download(model_id: str) -> Place:
    """The snapshot on this disk, brought up to date where the network allows."""
    import huggingface_hub

    repository, _, revision = model_id.partition("@")
    asked_for = revision or None
    try:
        for patterns in _FORMATS:
            folder = Path(
                huggingface_hub.snapshot_download(
                    repository, revision=asked_for, allow_patterns=[*_SETTINGS, *patterns]
                )
            )
            asked_for = folder.name  # the commit: whatever is published meanwhile, no two commits are mixed
            if any(path for pattern in patterns for path in folder.glob(pattern)):
                break
    except Exception as error:  # those of its HTTP library share no class with Python's
        raise CheckpointError(
            f"there is no folder {model_id} here, and {model_id} is not cached and cannot be downloaded "
            f"({_reason(error)}): place its config.json, preprocessor_config.json and model.safetensors (or "
            "pytorch_model.bin) in a folder, and give that folder"
        ) from error
    return Place(repository, folder, folder.name)


def _reason(error: Exception) -> str:
    """Why a download failed, in one line."""
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return "accept its terms on the hub and log in with hf auth login"
    if isinstance(error, errors.RevisionNotFoundError):
        return "the hub has no such revision of it"
    if isinstance(error, errors.RepositoryNotFoundError):
        return "the hub has no such model, or it is private: log in with hf auth login"
    return str(error).strip().partition("\n")[0] or type(error).__name__

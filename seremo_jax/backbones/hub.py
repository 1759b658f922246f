"""Where a checkpoint's files lie: a local folder, or the model hub's snapshot of it, downloaded once and cached.

Settings are downloaded first, and weights only when they are asked for, so that a model which cannot be used costs no
download.
"""

import os
import re
from pathlib import Path
from typing import NamedTuple

_SETTINGS = ["config.json", "preprocessor_config.json", "processor_config.json"]
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
    """Finds a folder, or downloads the settings of a hub id `org/name[@revision]`; see `fetch_weights` for the rest.

    Raises:
      CheckpointError: There is neither; the message says how to place the files by hand.
    """
    folder = Path(os.path.expanduser(path_or_id))
    if folder.is_dir():
        return Place(folder.resolve().name, folder, None)
    if folder.exists():
        raise CheckpointError(f"{path_or_id} is a file: give the folder that holds config.json and the weights")
    if not _ID.fullmatch(path_or_id) or path_or_id.startswith((".", "/", "~")):
        raise CheckpointError(f"{path_or_id} is no folder here, and no id of the model hub (org/name[@revision])")
    repository, _, revision = path_or_id.partition("@")
    folder = _download(path_or_id, repository, revision or None, _SETTINGS)
    return Place(repository, folder, folder.name)


def may_be_asked_for(path_or_id: str) -> bool:
    """Whether it is something on this disk, or reads as an id of the hub."""
    return os.path.exists(os.path.expanduser(path_or_id)) or (
        _ID.fullmatch(path_or_id) is not None and not path_or_id.startswith((".", "/", "~"))
    )


def is_here(path_or_id: str) -> bool:
    """Whether `locate` finds a checkpoint on this disk, or the hub is not asked in any case."""
    import huggingface_hub

    if os.path.exists(os.path.expanduser(path_or_id)) or not _ID.fullmatch(path_or_id):
        return True
    repository, _, revision = path_or_id.partition("@")

    def is_cached(file: str) -> bool:
        return isinstance(huggingface_hub.try_to_load_from_cache(repository, file, revision=revision or None), str)

    # Settings come first: a model whose weights were never fetched has them alone.
    return is_cached(_SETTINGS[0]) and any(map(is_cached, (name for patterns in _FORMATS for name in patterns)))


def fetch_weights(place: Place) -> None:
    """Downloads the weights of a place on the hub, in the first of the formats that it has; a folder has them already.

    Raises:
      CheckpointError: They cannot be downloaded.
    """
    if place.commit is None:
        return
    for patterns in _FORMATS:
        # By commit: whatever is published meanwhile, no two commits are mixed.
        folder = _download(f"{place.name}@{place.commit}", place.name, place.commit, patterns)
        if any(path for pattern in patterns for path in folder.glob(pattern)):
            return


def _download(shown: str, repository: str, revision: str | None, patterns: list[str]) -> Path:
    """The snapshot on this disk, with the files of some patterns, brought up to date where the network allows."""
    import huggingface_hub

    try:
        return Path(huggingface_hub.snapshot_download(repository, revision=revision, allow_patterns=patterns))
    except Exception as error:  # those of its HTTP library share no class with Python's
        raise CheckpointError(
            f"there is no folder {shown} here, and {shown} is not cached and cannot be downloaded ({reason(error)}): "
            f"place its {', '.join(_SETTINGS[:2])} and model.safetensors (or pytorch_model.bin) in a folder, and give "
            "that folder"
        ) from error


def reason(error: Exception) -> str:
    """Why the hub did not give or take something, in one line."""
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return "accept its terms on the hub and log in with hf auth login"
    if isinstance(error, errors.RevisionNotFoundError):
        return "the hub has no such revision of it"
    if isinstance(error, errors.RepositoryNotFoundError):
        return "the hub has no such model, or it is private: log in with hf auth login"
    return str(error).strip().partition("\n")[0] or type(error).__name__

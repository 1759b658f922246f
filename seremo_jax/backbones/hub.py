"""Where a checkpoint's files lie: a local folder, or the model hub's snapshot of it, downloaded once and cached."""

import os
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
    """Where files are: `name` tells them in tables, `folder` holds them, `commit` is the hub's or None."""

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


def _download(model_id: str) -> Place:
    """The cached snapshot, asked for anew where the network allows."""
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError

    repository, _, revision = model_id.partition("@")
    try:
        for patterns in _FORMATS:
            folder = huggingface_hub.snapshot_download(
                repository, revision=revision or None, allow_patterns=[*_SETTINGS, *patterns]
            )
            if any(path for pattern in patterns for path in Path(folder).glob(pattern)):
                break
    except (OSError, ValueError, HfHubHTTPError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise CheckpointError(
            f"{model_id} is not cached and cannot be downloaded ({reason}): place its config.json, "
            "preprocessor_config.json and model.safetensors (or pytorch_model.bin) in a folder, and give that folder"
        ) from error
    return Place(repository, Path(folder), os.path.basename(folder))

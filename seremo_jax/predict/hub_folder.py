"""Model folders on the model hub, hf://ORG/NAME[@REVISION]: read like a stranger's, and written with a model card.

Of a repository nothing is downloaded but the files of a model folder, by their names, and all of one commit.
"""

import os
import re
from pathlib import Path, PurePath
from typing import NamedTuple

from seremo_jax.backbones import hub
from seremo_jax.core.artefacts import ArtefactError, place_of
from seremo_jax.predict.model_record import PROTOTYPES_FILE, RECORD_FILE, STABLEHLO_FILE, WEIGHTS_FILE

SCHEME = "hf://"
_FILES = (RECORD_FILE, WEIGHTS_FILE, STABLEHLO_FILE, PROTOTYPES_FILE)
_URL = re.compile(r"hf://([\w.-]+/[\w.-]+)(?:@([\w./-]+))?")


class Address(NamedTuple):
    """A repository of the hub, `ORG/NAME`, and a branch, tag or commit of it, None where none is named."""

    repository: str
    revision: str | None


def is_url(path: str | os.PathLike) -> bool:
    """Whether this names a repository of the hub, and no folder."""
    return os.fspath(path).startswith(SCHEME)


def parse(url: str | os.PathLike) -> Address:
    """The repository that a URL names.

    Raises:
      ArtefactError: It names none.
    """
    match = _URL.fullmatch(os.fspath(url))
    if not match:
        raise ArtefactError(
            f"{os.fspath(url)} names no model of the hub: give {SCHEME}ORG/NAME or {SCHEME}ORG/NAME@REVISION"
        )
    return Address(*match.groups())


def place(path: str | os.PathLike) -> PurePath:
    """Where a model lies: a folder, or in a bucket; one on the hub is downloaded into the cache of the hub's client.

    Args:
      path: The same, or `hf://ORG/NAME[@REVISION]`.

    Raises:
      ArtefactError: The hub has no such model or revision, or it cannot be reached and the cache lacks it.
    """
    if not is_url(path):
        return place_of(path)
    import huggingface_hub

    address = parse(path)
    try:
        folder = huggingface_hub.snapshot_download(
            address.repository, revision=address.revision, allow_patterns=list(_FILES)
        )
    except Exception as error:  # those of its HTTP library share no class with Python's
        raise ArtefactError(f"{os.fspath(path)} is not cached and cannot be downloaded: {hub.reason(error)}") from error
    return Path(folder)


def blobs_of(folder: PurePath) -> Path | None:
    """Where the hub's client keeps the contents that a snapshot in its cache links to; None for every other folder."""
    if not isinstance(folder, Path) or folder.parent.name != "snapshots":
        return None
    from huggingface_hub import constants

    is_cached = folder.resolve().is_relative_to(Path(constants.HF_HUB_CACHE).resolve())
    return folder.resolve().parents[1] / "blobs" if is_cached else None


def to_write(url: str) -> str:
    """The repository of a URL that a model may be written to.

    Raises:
      ArtefactError: It names none, or a revision of one.
    """
    address = parse(url)
    if address.revision is not None:
        raise ArtefactError(f"{url}: a model is written as a new commit: leave out @{address.revision}")
    return address.repository


def upload(folder: Path, repository: str, *, is_public: bool) -> str:
    """Writes a folder into a repository as one commit, and makes the repository where there is none.

    Args:
      folder: Its files are uploaded, and nothing below them.
      repository: `ORG/NAME`.
      is_public: Whether everybody may read a repository that is made here; one that is there stays as it is.

    Returns:
      The URL with the commit.

    Raises:
      ArtefactError: The hub refuses, or cannot be reached.
    """
    import huggingface_hub

    url, api = f"{SCHEME}{repository}", huggingface_hub.HfApi()
    try:
        api.create_repo(repository, private=not is_public, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            commit_message="Model of seremo_jax",
            allow_patterns=[path.name for path in folder.iterdir()],
        )
    except Exception as error:  # as above
        raise ArtefactError(
            f"{url} cannot be written ({hub.reason(error)}): log in with hf auth login and a token that may write there"
        ) from error
    return f"{url}@{commit.oid}"

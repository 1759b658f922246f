"""Files of a bucket as copies on this disk: private to the user, and as long as the bucket says."""

import os
import stat
import tempfile
from pathlib import Path, PurePath

from seremo_jax.core.artefacts import ArtefactError, atomic_path, download, in_bucket, require_same, version_of


def on_disk(path: PurePath) -> Path:
    """A file as one on this disk: itself, or a copy of what the bucket has now, made once.

    Copies lie in a folder of this user's under `SEREMO_JAX_CACHE`, or under the folder for temporary files; they can be
    deleted at any time.

    Raises:
      ArtefactError: The folder of the copies is another user's, or a copy did not come whole.
    """
    if not in_bucket(path):
        return Path(path)
    num_bytes, version = version_of(path)
    copy = _private_folder() / version / path.name
    if not (copy.is_file() and copy.stat().st_size == num_bytes):
        with atomic_path(copy) as temporary:
            download(path, temporary)
            remedy = "The copy did not come whole: run the same command again."
            require_same(f"size of the copy of {os.fspath(path)}", temporary.stat().st_size, num_bytes, remedy)
    return copy


def _private_folder() -> Path:
    """Folder that no other user can read, or lay files into."""
    parent = Path(os.environ.get("SEREMO_JAX_CACHE") or tempfile.gettempdir())
    folder = parent / f"seremo_jax-{os.getuid()}"
    parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    about = folder.lstat()
    if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.getuid():
        raise ArtefactError(
            f"{folder} is a link, a file, or another user's, so copies of a bucket are not safe there: set the "
            "environment variable SEREMO_JAX_CACHE to a folder of your own"
        )
    if about.st_mode & 0o077:
        folder.chmod(0o700)
    return folder

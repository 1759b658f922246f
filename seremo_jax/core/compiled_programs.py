"""Compiled programs that JAX keeps in a folder: one that was damaged since is removed, so that it is compiled again.

What JAX reads back runs as it is. Depending on the compressor that is installed, its files carry no checksum, and a
flipped bit would then be a wrong number or a crash of the process.
"""

import contextlib
from pathlib import Path

from seremo_jax.core.artefacts import ArtefactError, read_json, sha256_of_file, write_json

LIST_FILE = "hashes.json"
_PROGRAMS = "*-cache"
"""JAX writes one such file a program, once."""


def remove_damaged(folder: Path) -> list[str]:
    """Removes every program that is not what it was when this folder was last looked through, and lists the new ones.

    Args:
      folder: Folder on a disk; it need not be there.

    Returns:
      Names of the files that were removed. All of them are, if the list itself was damaged.
    """
    path, known = folder / LIST_FILE, {}
    programs = sorted(folder.glob(_PROGRAMS))
    try:
        if path.exists():
            known = {str(name): str(sha256) for name, sha256 in read_json(path, "").items()}
    except (ArtefactError, AttributeError):
        return _removed(programs)
    hashes, damaged = {}, []
    for program in programs:
        try:
            sha256 = sha256_of_file(program)
        except FileNotFoundError:  # another process was faster
            continue
        if known.get(program.name, sha256) == sha256:
            hashes[program.name] = sha256
        else:
            damaged.append(program)
    removed = _removed(damaged)
    if hashes != known:
        with contextlib.suppress(OSError):  # a finished workdir may be read-only
            write_json(path, hashes)
    return removed


def _removed(programs: list[Path]) -> list[str]:
    for program in programs:
        program.unlink(missing_ok=True)
    return [program.name for program in programs]

"""Workdirs that several test files start from, made once a session whatever the number of workers."""

import fcntl
from collections.abc import Callable
from pathlib import Path

from seremo_jax.core.config import Config
from seremo_jax.data import ingest
from seremo_jax.features import extract
from seremo_jax.saliency import ranking


def once(factory, name: str, fill: Callable[[Path], None]) -> Path:
    """A folder that the first worker to ask fills; the others wait for it and get the same one.

    Args:
      factory: pytest's `tmp_path_factory`.
      name: Name of the folder, the same in all workers.
      fill: Fills the empty folder.
    """
    base = factory.getbasetemp()
    # Under pytest-xdist each worker has a folder of its own, popen-gw0 and so on, below that of the session.
    base = base.parent if base.name.startswith("popen-") else base
    folder, finished = base / name, base / f"{name}.finished"
    with (base / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not finished.exists():
            folder.mkdir()
            fill(folder)
            finished.touch()
    return folder


def extracted(factory, config: Config, name: str) -> Path:
    """A workdir with tables, store and saliency of a config; do not write into it: copy or link it."""

    def fill(workdir: Path) -> None:
        ingest.run(config, workdir, is_quiet=True)
        extract.run(config, workdir, is_quiet=True)
        ranking.summarise(workdir, config)

    return once(factory, name, fill)

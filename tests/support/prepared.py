"""Workdirs that several test files start from, made once a session whatever the number of workers."""

import fcntl
from collections.abc import Callable
from pathlib import Path

from configs import simulated
from seremo_jax.core.config import Config, from_config_dict
from seremo_jax.data import ingest
from seremo_jax.evaluation import evaluate
from seremo_jax.features import extract
from seremo_jax.predict import model_folder
from seremo_jax.reports import validation
from seremo_jax.sweeps import run as sweep
from seremo_jax.training import train


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
    """A workdir with tables, store and saliency of a config, as a sweep makes them.

    Do not write into it: copy or link it.
    """
    return once(factory, name, lambda workdir: sweep.prepare(config, workdir, is_quiet=True))


def smallest() -> Config:
    """The settings of `finished`."""
    config = simulated.get_config("tiny")
    config.corpus.num_speakers, config.corpus.utterances_per_speaker = 6, 1
    config.model.gru_units = config.model.embedding_size = 8
    config.model.gru_layers = 1
    config.train.max_epochs, config.ensemble.class_targets = 2, ("votes",)
    config.eval.num_resamples = config.eval.num_permutations = 20
    return from_config_dict(config)


def finished(factory) -> Path:
    """A folder with `workdir`, where every stage from ingest to evaluation is finished, and `model`, exported from it.

    Do not write into it: copy it.
    """
    config = smallest()

    def fill(folder: Path) -> None:
        workdir = folder / "workdir"
        ingest.run(config, workdir, is_quiet=True)
        validation.write_page(workdir)
        extract.run(config, workdir, is_quiet=True)
        train.run(config, workdir, is_quiet=True)
        evaluate.run(config, workdir, is_quiet=True)
        model_folder.export(workdir, folder / "model")

    return once(factory, "finished", fill)

"""Stages that share a workdir: the second process is told, leftovers go, a finished workdir may be read-only."""

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

import pytest

from seremo_jax.core.lock import BusyError
from seremo_jax.data import ingest
from seremo_jax.evaluation import evaluate
from seremo_jax.features import extract
from seremo_jax.predict import model_folder
from seremo_jax.reports import report, validation
from seremo_jax.saliency import ranking
from seremo_jax.training import train
from tests.core.test_lock import another_process
from tests.support import prepared

pytestmark = pytest.mark.long

STAGES = {
    "ingest": ingest.run,
    "extract": extract.run,
    "saliency": lambda config, workdir: ranking.summarise(workdir, config),
    "train": train.run,
    "evaluate": evaluate.run,
    "report": lambda _, workdir: report.run(workdir),
    "validate": validation.run,
}
LEFTOVERS = {
    "ingest": (".utterances.parquet.ab.tmp",),
    "extract": ("store/.manifest.json.ab.tmp", ".saliency.npz.ab.tmp"),
    "saliency": (".saliency.json.ab.tmp",),
    "train": (
        "train/.config.json.ab.tmp",
        "train/best.orbax-checkpoint-tmp",
        "train/checkpoints/30000000.orbax-checkpoint-tmp-7",
        "train/checkpoints/20000000/.hashes.json.ab.tmp",
    ),
    "evaluate": (".results.jsonl.ab.tmp", ".calibration.json.ab.tmp", "predictions/.test_clean.parquet.ab.tmp"),
    "report": (".report.ab.tmp",),
    "validate": (".validation.ab.tmp",),
}


@pytest.fixture
def workdir(tmp_path_factory, tmp_path):
    """A copy of a finished workdir."""
    return Path(shutil.copytree(prepared.finished(tmp_path_factory) / "workdir", tmp_path / "w"))


def test_each_stage_refuses_a_workdir_that_another_process_is_at(workdir):
    config = prepared.smallest()
    stages = STAGES | {"export": lambda _, workdir: model_folder.export(workdir, workdir.parent / "model")}
    with another_process(workdir):
        for run in stages.values():
            with pytest.raises(BusyError, match="another process is at it"):
                run(config, workdir)
    for run in stages.values():
        run(config, workdir)
    assert not list(workdir.rglob(".lock"))


@pytest.mark.parametrize("stage", STAGES)
def test_the_next_run_of_a_stage_removes_what_a_killed_one_left(workdir, stage):
    for name in LEFTOVERS[stage]:
        (workdir / name).mkdir(parents=True)
        (workdir / name / "half").write_text("half")
    if stage == "ingest":
        (workdir / "ingest.json").unlink()  # written last, so a killed ingest has none
    if stage == "saliency":
        (workdir / "saliency.json").unlink()
    STAGES[stage](prepared.smallest(), workdir)
    assert [name for name in LEFTOVERS[stage] if (workdir / name).exists()] == []


@contextlib.contextmanager
def _without_rights():
    """As a user who may write nothing here; root may write everything, so the tests of root become nobody."""
    if os.geteuid():
        yield
        return
    os.setresuid(65534, 65534, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)


def test_every_stage_of_a_finished_workdir_that_is_read_only_is_up_to_date(workdir, capsys):
    with tempfile.TemporaryDirectory() as folder:  # not below pytest's folders, into which only their owner may look
        os.chmod(folder, 0o755)
        place = Path(shutil.copytree(workdir, Path(folder) / "w"))
        report.run(place)
        every = [place, *place.rglob("*")]
        before = {path: path.stat().st_mtime_ns for path in every}
        for path in every:
            path.chmod(0o555 if path.is_dir() else 0o444)
        try:
            with _without_rights():
                config = prepared.smallest()
                for stage, run in STAGES.items():
                    run(config, place)
                    said = capsys.readouterr().out
                    assert stage in ("saliency", "report", "validate") or "up to date" in said, stage
        finally:
            for path in every:
                path.chmod(0o755 if path.is_dir() else 0o644)
        assert {path: path.stat().st_mtime_ns for path in [place, *place.rglob("*")]} == before

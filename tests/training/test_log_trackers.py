"""Trackers: each package's own store on disk where it is installed, and a strict stand-in; one run after restarts."""

import importlib.util
import sys
import types

import pytest

from seremo_jax.core.artefacts import ArtefactError
from seremo_jax.training import log
from seremo_jax.training.log import Writer

SETTINGS = {"train": {"seed": 0, "batch_size": 8}, "optim": {"learning_rate": 0.1}}


def _log(kind, folder, epochs, project="emotion"):
    """Two members' losses, epoch by epoch, through the writer."""
    tracker = log.start(kind, project, folder, SETTINGS)
    writer = Writer(folder, epochs[0] - 1, ["a", "b"], tracker)
    for epoch in epochs:
        writer.write(epoch, {"train_loss": [0.5 / epoch, float("nan")], "speed": 3.0})
    writer.close()


class _StandIn:
    """The part of wandb and trackio that is used, with their signatures; anything else fails."""

    def __init__(self, kind):
        self.runs, self._kind = {}, kind

    def init(self, *, project, name, config, resume, **rest):
        assert set(rest) == ({"id", "dir"} if self._kind == "wandb" else {"embed"})
        assert resume == "allow"
        assert config == {"train.seed": 0, "train.batch_size": 8, "optim.learning_rate": 0.1}
        lines = self.runs.setdefault((project, rest.get("id", name)), [])
        return types.SimpleNamespace(
            log=lambda numbers, step: lines.append((step, numbers)), finish=lambda: lines.append("finished")
        )


@pytest.mark.parametrize("kind", ["wandb", "trackio"])
def test_a_restarted_training_goes_on_in_the_same_run(tmp_path, monkeypatch, kind):
    module = _StandIn(kind)
    monkeypatch.setitem(sys.modules, kind, module)
    _log(kind, tmp_path / "w" / "train", [1, 2])
    _log(kind, tmp_path / "w" / "train", [3])
    ((project, _),) = module.runs
    assert project == "emotion"
    (lines,) = module.runs.values()
    assert lines == [
        (1, {"train_loss/a": 0.5, "speed": 3.0}),
        (2, {"train_loss/a": 0.25, "speed": 3.0}),
        "finished",
        (3, {"train_loss/a": 0.5 / 3, "speed": 3.0}),
        "finished",
    ]
    _log(kind, tmp_path / "v" / "train", [1])
    assert len(module.runs) == 2


def test_without_the_package_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ArtefactError, match=r"train.tracker = 'wandb': install it .*seremo_jax\[wandb\]"):
        log.start("wandb", "p", tmp_path, SETTINGS)
    assert log.start("none", "p", tmp_path, SETTINGS) is None
    assert not any(tmp_path.iterdir())


def test_another_tracker_is_refused(tmp_path, monkeypatch):
    for kind in ("wandb", "trackio"):
        monkeypatch.setitem(sys.modules, kind, _StandIn(kind))
    _log("wandb", tmp_path, [1])
    with pytest.raises(ArtefactError, match="tracker: 'wandb' there, 'trackio' asked for"):
        _log("trackio", tmp_path, [2])
    with pytest.raises(ArtefactError, match="project: 'emotion' there, 'other' asked for"):
        _log("wandb", tmp_path, [2], "other")


def _needs(name):
    return pytest.mark.skipif(importlib.util.find_spec(name) is None, reason=f"needs the extra {name}")


@_needs("wandb")
@pytest.mark.filterwarnings("ignore")
def test_wandb_offline(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    _log("wandb", tmp_path / "train", [1, 2])
    (content,) = (path.read_bytes() for path in tmp_path.glob("train/wandb/offline-run-*/*.wandb"))
    assert b"train_loss/a" in content
    assert b"learning_rate" in content


@_needs("mlflow")
@pytest.mark.filterwarnings("ignore")
def test_mlflow_in_a_folder(tmp_path, monkeypatch):
    import mlflow

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(ArtefactError, match="set MLFLOW_TRACKING_URI"):
        log.start("mlflow", "emotion", tmp_path / "other", SETTINGS)
    # A folder instead of a server, which MLflow allows for old times' sake.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlflow").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    for epochs in ([1, 2], [3]):
        _log("mlflow", tmp_path / "train", epochs)
    client = mlflow.MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name("emotion").experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.params["optim.learning_rate"] == "0.1"
    history = [(metric.step, metric.value) for metric in client.get_metric_history(run.info.run_id, "train_loss/a")]
    assert history == [(1, 0.5), (2, 0.25), (3, 0.5 / 3)]


@_needs("trackio")
@pytest.mark.filterwarnings("ignore")
def test_trackio_in_a_folder(tmp_path, monkeypatch):
    import sqlite3

    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "store"))  # read on import
    for epochs in ([1, 2], [3]):
        _log("trackio", tmp_path / "train", epochs)
    (path,) = (tmp_path / "store").glob("emotion*.db")
    with sqlite3.connect(path) as base:
        steps = base.execute("SELECT run_name, step FROM metrics ORDER BY step").fetchall()
    assert [step for _, step in steps] == [1, 2, 3]
    assert len({name for name, _ in steps}) == 1

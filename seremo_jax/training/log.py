"""Metrics of a run as JSON lines, as TensorBoard scalars and, where asked for, in a tracker. Process 0 writes them."""

import dataclasses
import importlib
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any, Protocol, runtime_checkable

from seremo_jax.core.artefacts import (
    ArtefactError,
    finite,
    in_bucket,
    parsed,
    place_of,
    read_json,
    require_same,
    sealed,
    to_json,
    upload,
    write_json,
    write_text,
)

RUN_FILE = "tracker.json"
"""Names the run of the tracker, so that a resumed training goes on with the same run."""
_MOST_PARAMS = 100
"""Parameters that MLflow takes in one request."""


@runtime_checkable
class Tracker(Protocol):
    """A run of a tracker, which takes numbers until it is closed."""

    def log(self, numbers: Mapping[str, float], epoch: int) -> None:
        """Sends the numbers of an epoch."""

    def close(self) -> None:
        """Ends the run."""


@dataclasses.dataclass(frozen=True)
class Run:
    """Names and settings that a tracker begins a run with.

    Attributes:
      project: Project of the run; MLflow calls it an experiment.
      name: Name that people read.
      id: Unique id, the same after a restart.
      folder: Folder for the files that the tracker writes on this machine.
      is_new: Whether the run begins now; False where it goes on.
      settings: The config, flat: `section.field` -> value.
    """

    project: str
    name: str
    id: str
    folder: PurePath
    is_new: bool
    settings: Mapping[str, Any]


class _Wandb:
    def __init__(self, wandb: Any, run: Run):
        self._run = wandb.init(
            project=run.project,
            name=run.name,
            id=run.id,
            resume="allow",
            config=dict(run.settings),
            dir=tempfile.gettempdir() if in_bucket(run.folder) else os.fspath(run.folder),
        )

    def log(self, numbers: Mapping[str, float], epoch: int) -> None:
        self._run.log(dict(numbers), step=epoch)

    def close(self) -> None:
        self._run.finish()


class _Trackio(_Wandb):
    def __init__(self, trackio: Any, run: Run):
        # Trackio tells runs apart by their names.
        name, settings = f"{run.name}-{run.id}", dict(run.settings)
        self._run = trackio.init(project=run.project, name=name, resume="allow", config=settings, embed=False)


class _Mlflow:
    def __init__(self, mlflow: Any, run: Run):
        if not os.environ.get("MLFLOW_TRACKING_URI"):
            raise ArtefactError("train.tracker = 'mlflow': set MLFLOW_TRACKING_URI to your server, http://HOST:PORT")
        self._client, self._entities = mlflow.MlflowClient(), mlflow.entities
        experiment = self._client.get_experiment_by_name(run.project)
        number = experiment.experiment_id if experiment else self._client.create_experiment(run.project)
        # MLflow gives ids of its own, so our id is a tag by which the run is found again.
        tag = "seremo_jax.run"
        earlier = [] if run.is_new else self._client.search_runs([number], f"tags.`{tag}` = '{run.id}'")
        if earlier:
            self._id = earlier[0].info.run_id
            self._client.update_run(self._id, status="RUNNING")
            return
        self._id = self._client.create_run(number, run_name=run.name, tags={tag: run.id}).info.run_id
        params = [self._entities.Param(name, str(value)) for name, value in run.settings.items()]
        for start in range(0, len(params), _MOST_PARAMS):
            self._client.log_batch(self._id, params=params[start : start + _MOST_PARAMS])

    def log(self, numbers: Mapping[str, float], epoch: int) -> None:
        now_ms = int(1000 * time.time())
        self._client.log_batch(
            self._id, metrics=[self._entities.Metric(name, value, now_ms, epoch) for name, value in numbers.items()]
        )

    def close(self) -> None:
        self._client.set_terminated(self._id)


_KINDS = {"wandb": _Wandb, "mlflow": _Mlflow, "trackio": _Trackio}


def start(kind: str, project: str, folder: PurePath, settings: Mapping[str, Any]) -> Tracker | None:
    """Begins a run of a tracker, or goes on with the run that `tracker.json` in the folder names.

    Args:
      kind: `wandb`, `mlflow`, `trackio` or `none`.
      project: Project (MLflow: experiment) of the run.
      folder: Folder of the training. The name of its parent is the name of the run.
      settings: The config as a nested mapping.

    Returns:
      The run, or None for `none`.

    Raises:
      ArtefactError: The package is not installed, MLflow has no server, or the training was begun with another tracker.
    """
    if kind == "none":
        return None
    try:
        module = importlib.import_module(kind)
    except ModuleNotFoundError as error:
        if error.name != kind:
            raise
        raise ArtefactError(f"train.tracker = {kind!r}: install it with pip install 'seremo_jax[{kind}]'") from None
    path = folder / RUN_FILE
    is_new = not path.exists()
    if is_new:
        write_json(path, {"tracker": kind, "project": project, "id": secrets.token_hex(8)})
    # Written before the tracker is asked for anything, so that a run that is cut off is found again.
    begun = read_json(path, "delete it to begin another run of the tracker")
    remedy = f"Give the same train.tracker and train.tracker_project, or delete {path} to begin another run."
    require_same(
        f"the tracker of {path}",
        {name: begun[name] for name in ("tracker", "project")},
        {"tracker": kind, "project": project},
        remedy,
    )
    flat = {f"{section}.{name}": value for section, fields in settings.items() for name, value in fields.items()}
    run = Run(project, os.path.basename(os.path.dirname(os.path.abspath(folder))), begun["id"], folder, is_new, flat)
    return _KINDS[kind](module, run)


class Writer:
    """Appends one line for each epoch to `log.jsonl` and mirrors its numbers to TensorBoard and the tracker.

    Args:
      folder: Folder of the log and of the events of TensorBoard.
      epochs_done: Epochs that a resumed run starts from. Lines of later epochs are dropped: a run that was cut off
        between the line and the checkpoint has written them, and this run computes these epochs again.
      member_names: Names of the members, for TensorBoard and the tracker.
      tracker: Takes the numbers, too, and is closed with the writer.
    """

    def __init__(
        self, folder: str | os.PathLike, epochs_done: int, member_names: list[str], tracker: Tracker | None = None
    ):
        self._tracker = tracker
        folder = place_of(folder)
        self._path, self._names = folder / "log.jsonl", member_names
        self._lines = [to_json(sealed(line)) + "\n" for line in read_log(self._path, epochs_done)]
        write_text(self._path, "".join(self._lines))
        # Files in a bucket cannot be appended to. There the whole log is written for each line, and the events are
        # copies of files on this machine.
        self._in_bucket, self._events = in_bucket(folder), folder / "tensorboard"
        self._here = tempfile.mkdtemp(prefix="seremo_jax-") if self._in_bucket else str(self._events)
        # Imported where it is used: it brings PyTorch along where that is installed, which takes seconds.
        from tensorboardX import SummaryWriter

        self._board = SummaryWriter(self._here, purge_step=epochs_done + 1, write_to_disk=True)

    def write(self, epoch: int, values: Mapping[str, Any]) -> None:
        """Writes the values of an epoch: scalars, or lists with one value for each member.

        JSON has no words for NaN and infinity, which become null.
        """
        line = {name: finite(value) for name, value in values.items()} | {"epoch": epoch}
        self._lines.append(to_json(sealed(line)) + "\n")
        if self._in_bucket:
            write_text(self._path, "".join(self._lines))
        else:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(self._lines[-1])
        numbers = {}
        for name, value in line.items():
            if isinstance(value, list):
                pairs = zip(self._names, value, strict=True)
                numbers |= {f"{name}/{member}": number for member, number in pairs if isinstance(number, float)}
            elif isinstance(value, int | float) and name != "epoch":
                numbers[name] = value
        for name, number in numbers.items():
            self._board.add_scalar(name, number, epoch)
        if self._tracker is not None:
            self._tracker.log(numbers, epoch)
        self._board.flush()
        self._copy_events()

    def close(self) -> None:
        """Closes the files and ends the run of the tracker."""
        self._board.close()
        self._copy_events()
        if self._in_bucket:
            shutil.rmtree(self._here)
        if self._tracker is not None:
            self._tracker.close()

    def _copy_events(self) -> None:
        if self._in_bucket:
            for path in Path(self._here).iterdir():
                upload(path, self._events / path.name)


def read_log(path: str | os.PathLike, most_epochs: int | None = None) -> list[dict[str, Any]]:
    """Lines of a `log.jsonl` up to epoch `most_epochs`; None means all. A last line that was cut off is left out.

    Raises:
      ArtefactError: A line is not as it was written.
    """
    lines = []
    if place_of(path).exists():
        for number, text in enumerate(place_of(path).read_bytes().split(b"\n")[:-1], 1):
            line = parsed(text, f"{path}:{number}", "delete the folder train and run python -m launch.train again")
            if most_epochs is None or line["epoch"] <= most_epochs:
                lines.append(line)
    return lines

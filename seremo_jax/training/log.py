"""Metrics of a run as JSON lines, TensorBoard scalars and, where asked for, in a tracker; from process 0."""

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter

from seremo_jax.core.artefacts import finite, in_bucket, place_of, to_json, upload, write_text
from seremo_jax.training.trackers import Tracker


class Writer:
    """Appends one line an epoch to `log.jsonl` and mirrors its numbers to TensorBoard.

    Args:
      folder: Where both are written.
      epochs_done: Epochs a resumed run starts from; lines of later epochs, written by a run that was cut off before
        its checkpoint, are dropped.
      member_names: Names of the members, for TensorBoard and the tracker.
      tracker: Where the numbers go besides; it is closed with the writer.
    """

    def __init__(
        self, folder: str | os.PathLike, epochs_done: int, member_names: list[str], tracker: Tracker | None = None
    ):
        self._tracker = tracker
        folder = place_of(folder)
        self._path, self._names = folder / "log.jsonl", member_names
        self._lines = [to_json(line) + "\n" for line in read_log(self._path, epochs_done)]
        write_text(self._path, "".join(self._lines))
        # Nothing can be appended to in a bucket: there the log is put anew, and the events are a copy of those here.
        self._in_bucket, self._events = in_bucket(folder), folder / "tensorboard"
        self._here = tempfile.mkdtemp(prefix="seremo_jax-") if self._in_bucket else str(self._events)
        self._board = SummaryWriter(self._here, purge_step=epochs_done + 1, write_to_disk=True)

    def write(self, epoch: int, values: Mapping[str, Any]) -> None:
        """Writes the values of an epoch: scalars, or lists with one value a member (NaN and infinity become null)."""
        line = {name: finite(value) for name, value in values.items()} | {"epoch": epoch}
        self._lines.append(to_json(line) + "\n")
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
    """Lines of a `log.jsonl` up to epoch `most_epochs`; a half-written last line is left out."""
    lines = []
    if place_of(path).exists():
        for text in place_of(path).read_text(encoding="utf-8").splitlines():
            try:
                line = json.loads(text)
            except json.JSONDecodeError:
                break
            if most_epochs is None or line["epoch"] <= most_epochs:
                lines.append(line)
    return lines

"""Metrics of a run as JSON lines and TensorBoard scalars, from process 0."""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter

from seremo_jax.artefacts import to_json, write_text


class Writer:
    """Appends one line an epoch to `log.jsonl` and mirrors its numbers to TensorBoard.

    Args:
      folder: Where both are written.
      epochs_done: Epochs a resumed run starts from; lines of later epochs, written by a run that was cut off before
        its checkpoint, are dropped.
      member_names: Names of the members, for TensorBoard.
    """

    def __init__(self, folder: str | os.PathLike, epochs_done: int, member_names: list[str]):
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self._path, self._names = folder / "log.jsonl", member_names
        write_text(self._path, "".join(to_json(line) + "\n" for line in read_log(self._path, epochs_done)))
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=epochs_done + 1, write_to_disk=True)

    def write(self, epoch: int, values: Mapping[str, Any]) -> None:
        """Writes the values of an epoch: scalars, or lists with one value a member (NaN and infinity become null)."""
        line = {name: _finite(value) for name, value in values.items()} | {"epoch": epoch}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(to_json(line) + "\n")
        for name, value in line.items():
            if isinstance(value, list):
                pairs = zip(self._names, value, strict=True)
                numbers = {member: number for member, number in pairs if isinstance(number, float)}
                for member, number in numbers.items():
                    self._board.add_scalar(f"{name}/{member}", number, epoch)
            elif isinstance(value, int | float) and name != "epoch":
                self._board.add_scalar(name, value, epoch)
        self._board.flush()

    def close(self) -> None:
        """Closes both files."""
        self._board.close()


def read_log(path: str | os.PathLike, most_epochs: int | None = None) -> list[dict[str, Any]]:
    """Lines of a `log.jsonl` up to epoch `most_epochs`; a half-written last line is left out."""
    lines = []
    if Path(path).exists():
        for text in Path(path).read_text(encoding="utf-8").splitlines():
            try:
                line = json.loads(text)
            except json.JSONDecodeError:
                break
            if most_epochs is None or line["epoch"] <= most_epochs:
                lines.append(line)
    return lines


def _finite(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value

"""How far each program of a sweep is: `status.json` in its folder. No JAX."""

import dataclasses
from pathlib import Path

from seremo_jax.core.artefacts import ArtefactError, read_json, write_json

FILE = "status.json"
WAITING, FINISHED, FAILED = "waiting", "finished", "failed"
_REMEDY = "delete the folder of this program: it is run anew"


@dataclasses.dataclass(frozen=True)
class Status:
    """What is known of a program.

    Attributes:
      word: `WAITING`, `FINISHED` or `FAILED`; a program that runs is waiting until it is finished.
      error: Why it failed; empty where it did not.
      left_out: Places of the members that never had a score, among those of the program.
    """

    word: str = WAITING
    error: str = ""
    left_out: tuple[int, ...] = ()

    def trained(self, num_members: int) -> list[int]:
        """Places of the members that are not left out, among the `num_members` of the program."""
        return [place for place in range(num_members) if place not in self.left_out]


def read_status(folder: Path) -> Status:
    """The status of the program in a folder, `WAITING` where it was not started yet.

    Raises:
      ArtefactError: The file is damaged, or its members were trained in several parts, as earlier versions did where
        memory did not hold all of them.
    """
    path = folder / FILE
    if not path.exists():
        return Status()
    content = read_json(path, _REMEDY)
    if any(part["folder"] != "." for part in content.get("parts", ())):
        raise ArtefactError(f"{folder}: an earlier version trained its members in several parts; {_REMEDY}")
    return Status(content["status"], content.get("error", ""), tuple(content["left_out"]))


def write_status(folder: Path, status: Status) -> None:
    """Writes the status of the program in a folder."""
    content = {"status": status.word, "error": status.error, "left_out": status.left_out}
    write_json(folder / FILE, content)

"""What compiled programs take of a device by its compiler's word, kept in a file so that none is asked for twice.

A figure is kept under the text of its program, the kind of device and the version of JAX, so it can stand for no other
program. A file that is damaged, or of another format, is not used.
"""

import contextlib
import dataclasses
import hashlib
import itertools
import os
from typing import Any

import jax

from seremo_jax.core.artefacts import ArtefactError, fingerprint_of, place_of, read_json, write_json
from seremo_jax.core.sharding import is_first_process, wait_for_all

FILE = "memory.json"
_FORMAT = 1
_REFUSED = "RESOURCE_EXHAUSTED"
_number = itertools.count()


@dataclasses.dataclass(frozen=True)
class Memory:
    """What one run of a program takes of a device.

    Attributes:
      argument_bytes, temporary_bytes, output_bytes: Outputs that take the place of arguments are left out.
      refusal: The compiler's words where the memory of the device does not hold the program, else empty.
    """

    argument_bytes: int = 0
    temporary_bytes: int = 0
    output_bytes: int = 0
    refusal: str = ""

    @property
    def num_bytes(self) -> int:
        """All of it."""
        return self.argument_bytes + self.temporary_bytes + self.output_bytes


def compiled(lowered: Any) -> tuple[Any, Memory]:
    """The executable of a lowered program, None where the compiler refuses it for its memory, and what it takes.

    Raises:
      RuntimeError: The compiler fails for another reason.
    """
    try:
        executable = lowered.compile()
    except RuntimeError as error:
        if _REFUSED not in str(error):
            raise
        return None, Memory(refusal=" ".join(str(error).split())[:400])
    stats = executable.memory_analysis()
    written = max(0, stats.output_size_in_bytes - stats.alias_size_in_bytes)
    return executable, Memory(stats.argument_size_in_bytes, stats.temp_size_in_bytes, written)


class Records:
    """What programs take, by their text.

    Args:
      folder: Folder that has the file or gets it; None keeps nothing. All processes of a job come here at once.
    """

    def __init__(self, folder: str | os.PathLike | None = None):
        self._path = None if folder is None else place_of(folder) / FILE
        self._known = self._read()
        # Processes compile together or not at all, so none may write before all have read.
        wait_for_all(f"memory records {next(_number)}")

    def __call__(self, lowered: Any, device: Any) -> Memory:
        """What a lowered program takes of a device; compiled where that is not known yet.

        Raises:
          RuntimeError: The compiler fails for another reason than memory.
        """
        key = self.key_of(lowered, device)
        if key not in self._known:
            self.add({key: compiled(lowered)[1]})
        return self._known[key]

    @staticmethod
    def key_of(lowered: Any, device: Any) -> str:
        """Fingerprint of a program, the kind of device, and what else decides how it is compiled."""
        text = hashlib.sha256(lowered.as_text().encode()).hexdigest()
        return fingerprint_of([text, device.device_kind, jax.__version__, os.environ.get("XLA_FLAGS", "")])

    def add(self, known: dict[str, Memory]) -> None:
        """Keeps what programs take, by their keys."""
        self._known |= known
        if self._path is None or not is_first_process():
            return
        # Another process may have written since. A finished workdir may be read-only.
        with contextlib.suppress(OSError):
            everything = {key: dataclasses.asdict(memory) for key, memory in (self._read() | self._known).items()}
            write_json(self._path, {"format": _FORMAT, "programs": everything})

    def _read(self) -> dict[str, Memory]:
        if self._path is None:
            return {}
        try:
            content = read_json(self._path, "it is made anew")
            if content["format"] != _FORMAT:
                return {}
            return {str(key): Memory(**fields) for key, fields in content["programs"].items()}
        except (ArtefactError, OSError, KeyError, TypeError, AttributeError):
            return {}

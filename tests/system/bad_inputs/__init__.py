"""Bad inputs by the hundred: each goes through a launcher, which must name what is wrong with it in its own words.

`python -m tests.system.bad_inputs` runs all of them, `python -m tests.system.bad_inputs WORD` those whose kind, name or
launcher has the word in it; `tests/system/test_bad_inputs.py` runs a few of each kind. A case is a record: how it is
made, which launcher it is given to, and what must be said. Three things are faults: a traceback, silence (exit code 0
and not a word of it), and an error about something else.
"""

import contextlib
import functools
import io
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile

from tests.support import launchers
from tests.support.house import ROOT

GOLDEN = ROOT / "tests" / "golden" / "before_rooms"
RATE_HZ = 16_000
TABLE = "--config=configs/table.py"
UTTERANCES = """id,audio,speaker,gender,split
a1,wav/a1.wav,anna,female,train
a2,wav/a2.wav,adam,male,train
b1,wav/b1.wav,bea,female,development
b2,wav/b2.wav,ben,male,development
c1,wav/c1.wav,cleo,female,test
c2,wav/c2.wav,carl,male,test
"""
RATINGS = """utterance,rater,primary,valence
a1,r1,angry,2
a1,r2,sad,3
a2,r1,happy,5
b1,r1,angry,1
b2,r2,neutral,4
c1,r1,sad,2
c2,r2,happy,5
"""
ABOUT = '{"corpus": "mine", "attribute_ranges": {"valence": [1, 5]}}'
OUTCOMES = ("told", "traceback", "silent", "something else")


class Place:
    """An empty folder for one case, and good inputs to spoil.

    Attributes:
      folder: The folder.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def corpus(self, **files: str | bytes | None) -> list[str]:
        """A good corpus in tables, in which files are replaced, or left out where they are None; flags to read it.

        Args:
          files: Name, with `__` for the dot of its suffix, -> content.
        """
        root = self.folder / "corpus"
        (root / "wav").mkdir(parents=True)
        for name, content in _recordings().items():
            (root / "wav" / name).write_bytes(content)
        good = {"utterances__csv": UTTERANCES, "ratings__csv": RATINGS, "corpus__json": ABOUT}
        for name, content in (good | files).items():
            if content is not None:
                data = content.encode() if isinstance(content, str) else content
                (root / name.replace("__", ".")).write_bytes(data)
        return [TABLE, f"--config.corpus.root={root}", f"--workdir={self.folder / 'w'}"]

    def recording(self) -> bytes:
        """Content of a good recording."""
        return _recordings()["a1.wav"]

    def workdir(self) -> Path:
        """A trained workdir."""
        return Path(shutil.copytree(GOLDEN / "workdir", self.folder / "trained"))

    def model(self) -> Path:
        """A model folder."""
        return Path(shutil.copytree(GOLDEN / "model", self.folder / "model"))


class Case(NamedTuple):
    """One bad input.

    Attributes:
      kind: Of which kind it is.
      name: What is wrong with it.
      launcher: Who gets it.
      make: Makes it in a folder, and returns the arguments of the launcher.
      word: Pattern of what must be said.
    """

    kind: str
    name: str
    launcher: str
    make: Callable[[Place], Sequence[str]]
    word: str


@functools.cache
def _recordings() -> dict[str, bytes]:
    """Name -> content of half a second of noise."""
    contents = {}
    for place, name in enumerate(("a1", "a2", "b1", "b2", "c1", "c2")):
        samples, file = np.random.default_rng(place).uniform(-0.3, 0.3, RATE_HZ // 2), io.BytesIO()
        soundfile.write(file, samples, RATE_HZ, format="WAV")
        contents[f"{name}.wav"] = file.getvalue()
    return contents


def run(case: Case, folder: Path) -> tuple[str, str]:
    """Gives a case to its launcher.

    Args:
      case: The case.
      folder: Empty folder for it.

    Returns:
      One of `OUTCOMES`, and what was printed.
    """
    with contextlib.chdir(ROOT):
        code, output = launchers.run(case.launcher, *case.make(Place(folder)))
    if "Traceback (most recent call last)" in output:
        return "traceback", output
    if re.search(case.word, output):
        return "told", output
    return ("something else" if code else "silent"), f"exit code {code}\n{output}"

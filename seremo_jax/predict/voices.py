"""Who speaks in recordings, and how they sound: what a model needs whose features are relative to the speaker."""

import csv
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from seremo_jax.core.artefacts import ArtefactError
from seremo_jax.core.progress import Progress
from seremo_jax.features import normalisation
from seremo_jax.predict.export import Speakers


class Voice(NamedTuple):
    """Features of a speaker over all recordings that are known.

    Attributes:
      mean: [K, D] float32 mean over all frames, of the layers of the model.
      variance: [K, D] float32 likewise.
      seconds: Speech that they are of; 0 where the speaker is not known.
    """

    mean: Float[np.ndarray, "K D"]
    variance: Float[np.ndarray, "K D"]
    seconds: float


def of_state(state: normalisation.State, frame_rate_hz: float | int) -> Voice:
    """The voice that moments of frames are of; one of no frames is that of an unknown speaker."""
    return Voice(*normalisation.mean_and_variance(state), state.count / frame_rate_hz)


def together(voices: Sequence[Voice], num_slots: int) -> Speakers:
    """Voices of the utterances of a batch; slots beyond them have an unknown one."""
    first = voices[0]
    seconds = np.zeros(num_slots, np.float32)
    seconds[: len(voices)] = [voice.seconds for voice in voices]
    tables = [np.zeros((len(first.mean), num_slots, first.mean.shape[1]), np.float32) for _ in range(2)]
    for slot, voice in enumerate(voices):
        tables[0][:, slot], tables[1][:, slot] = voice.mean, voice.variance
    return Speakers(*tables, seconds)


def of_files(
    hear: Callable[[Sequence[Path], Callable[[int], None]], Voice],
    paths: Sequence[Path],
    speakers: Sequence[str | None],
    wanted: Sequence[int],
    is_quiet: bool,
) -> dict[str | None, Voice]:
    """Speaker -> voice by all files of the speaker, of the speakers of the files with the numbers `wanted`.

    Args:
      hear: See `predictor.Predictor.voice`.
      paths: The files.
      speakers: Speaker of each, None where not known.
      wanted: Numbers of files.
      is_quiet: Shows no progress.
    """
    own: dict[str | None, list[Path]] = {name: [] for name in sorted({speakers[i] for i in wanted} - {None})}
    for path, name in zip(paths, speakers, strict=True):
        if name in own:
            own[name].append(path)
    with Progress(sum(map(len, own.values())), "hear speakers", "files", is_quiet=is_quiet) as progress:
        return {name: hear(files, progress.update) for name, files in ({None: []} | own).items()}


ONE = "one"
"""What `--speakers` says in place of a table: all recordings are of one speaker."""


def speakers_of(names: Sequence[str], table: str | os.PathLike | None) -> list[str | None] | None:
    """Speaker of each recording, None where it is not known; None altogether where nothing is said of speakers.

    Args:
      names: Recordings, as results call them.
      table: CSV with the columns `file` (a name of these) and `speaker` (empty: not known); `one`; or None.

    Raises:
      ArtefactError: The table cannot be read, lacks a column, gives a recording two speakers, or lacks one.
    """
    if table is None:
        return None
    if table == ONE:
        return [ONE] * len(names)
    try:
        with Path(table).open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            if missing := [name for name in ("file", "speaker") if name not in (reader.fieldnames or ())]:
                raise ArtefactError(f"{table} has no column {missing[0]!r}: it needs file and speaker")
            rows = [(row["file"], (row["speaker"] or "").strip()) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ArtefactError(f"the table of speakers {table} cannot be read: {error}") from None
    speaker_of: dict[str, str] = {}
    for name, speaker in rows:
        if speaker_of.setdefault(name, speaker) != speaker:
            raise ArtefactError(
                f"{table} gives {name!r} two speakers, {speaker_of[name]!r} and {speaker!r}: keep one row"
            )
    if absent := [name for name in names if name not in speaker_of]:
        raise ArtefactError(
            f"{table} has no row for {len(absent)} of the recordings, {absent[0]!r} first: add them, with an empty "
            "speaker where that is not known"
        )
    return [speaker_of[name] or None for name in names]

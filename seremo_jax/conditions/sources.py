"""Folders of recorded noises and of measured room responses, as the conditions of an experiment draw from them."""

import collections
import csv
import functools
import os
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Float

from seremo_jax.conditions import rooms
from seremo_jax.conditions.render import Recording, Response, Sources, Voices
from seremo_jax.core.artefacts import fingerprint_of, sha256_of_file
from seremo_jax.core.condition_names import RECORDED_NOISES, Condition, ConditionError, expand
from seremo_jax.core.config import Config
from seremo_jax.core.folders import walk
from seremo_jax.data import audio
from seremo_jax.data.audio_containers import FOREIGN_SUFFIXES, SUFFIXES

MANIFEST_FILE = "manifest.csv"
STEADY_KINDS = frozenset(
    ("rain", "sea-waves", "helicopter", "chainsaw", "fire-crackling", "exercise-bike", "kitchen-washing-dishes", "wind",
     "engine", "vacuum-cleaner", "washing-machine", "airplane", "train", "steady", "background", "music", "crickets",
     "water-drops", "pouring-water", "hand-saw", "thunderstorm", "traffic", "fan", "street", "cafe", "car", "babble")
)  # fmt: skip
"""Kinds that count as steady backgrounds; every other kind of a folder counts as events."""

_LONGEST_S = 1_800.0
_MOST_HELD = 64
_MOST_NAMED = 5


def load(
    noise_dir: str | os.PathLike = "",
    rir_dir: str | os.PathLike = "",
    voices: Voices | None = None,
    direct_to_tail_db: float = 0.0,
    section: str = "eval",
) -> Sources:
    """What the conditions of an experiment draw from, at 16 kHz.

    The kind of a noise is what `manifest.csv` says (columns `file` and `kind`, and `group`, steady or events, where the
    user wants to say that, too), else the name of its sub-folder. Without a group `STEADY_KINDS` decides.

    Args:
      noise_dir: Folder of noises, with sub-folders; empty for none.
      rir_dir: Folder of room responses; empty for none.
      voices: The split, for babble.
      direct_to_tail_db: Of synthetic rooms.
      section: Section of the config that names the folders, for messages.

    Raises:
      ConditionError: A folder is missing or holds no audio, its manifest names a file that is not there, or a file
        (or a link, or a subfolder) cannot be read or does not decay.
    """
    folders = dict(zip(_fields(section), (noise_dir, rir_dir), strict=True))
    files = {field: _audio_files(field, folder) if folder else [] for field, folder in folders.items()}
    of_noises, of_rooms = files.values()
    kinds = _kinds(Path(noise_dir)) if noise_dir else {}
    held = _Held()
    recordings = tuple(
        Recording(name, _groups(*kinds.get(name, (_folder_name(name), ""))), functools.partial(held.read, path))
        for name, path in of_noises
    )
    responses = tuple(_response(name, path, section) for name, path in of_rooms)
    # Contents and not only names: a folder whose recordings were exchanged makes other renderings. The names of the
    # fields are those of evaluation, so that one folder has one hash.
    hashes = {
        field: [(name, sha256_of_file(path)) for name, path in paths]
        for field, paths in zip(_fields("eval"), (of_noises, of_rooms), strict=True)
    }
    fingerprint = fingerprint_of([hashes, kinds]) if recordings or responses else ""
    return Sources(audio.SAMPLE_RATE_HZ, recordings, responses, voices, direct_to_tail_db, fingerprint, section)


def _fields(section: str) -> tuple[str, str]:
    return f"{section}.noise_dir", f"{section}.rir_dir"


def content_hashes(config: Config, section: str) -> dict[str, str]:
    """Every noise and response of a section's folders: hash of its samples (`audio.content_hash`) -> field and name.

    Args:
      config: The experiment.
      section: `extract` or `eval`.

    Raises:
      ConditionError: See `load`.
    """
    fields = getattr(config, section)
    folders = dict(zip(_fields(section), (fields.noise_dir, fields.rir_dir), strict=True))
    return {
        _decoded(path, is_hashed=True).sha256: f"{name} of {field}"
        for field, folder in folders.items() if folder
        for name, path in _audio_files(field, folder)
    }  # fmt: skip


def require_others(trained: Mapping[str, str], evaluated: Mapping[str, str]) -> None:
    """Refuses noises and rooms of evaluation that heads have heard in training.

    Args:
      trained: Hash -> name of those that copies of training utterances draw from; see `content_hashes`.
      evaluated: Of those of evaluation.

    Raises:
      ConditionError: One recording is among both, in whatever format and under whatever name.
    """
    both = [f"{trained[sha256]} is {evaluated[sha256]}" for sha256 in trained if sha256 in evaluated]
    if both:
        raise ConditionError(
            f"{len(both)} recordings are heard in training and in evaluation, so that scores would be of known noises: "
            f"{'; '.join(both[:_MOST_NAMED])}: take them out of one of the folders"
        )


def load_for(config: Config) -> Sources:
    """Recorded noises and rooms of an experiment; `voices_of` adds a split's own voices.

    Raises:
      ConditionError: See `load`.
    """
    return load(config.eval.noise_dir, config.eval.rir_dir, direct_to_tail_db=config.eval.direct_to_tail_db)


def asked(config: Config, sources: Sources) -> tuple[Condition, ...]:
    """The conditions that `eval.conditions` asks for, the clean one first.

    Raises:
      ConditionError: One needs recordings that are not there.
    """
    section = config.eval
    return expand(
        section.conditions,
        noise_kinds=section.noise_kinds,
        snr_db=(*section.snr_db, *section.curve_snr_db),
        rt60_s=section.rt60_s,
        combined_snr_db=section.combined_snr_db,
        recorded_kinds=sources.recorded_kinds,
        has_responses=bool(sources.responses),
    )


def voices_of(utterances: pa.Table, rows: Sequence[int], decode: Callable[[int], np.ndarray]) -> Voices:
    """Some utterances, for babble.

    Args:
      utterances: Utterance table.
      rows: Which of them.
      decode: Row of the table -> waveform.
    """
    ids, speakers = (utterances[name].to_pylist() for name in ("id", "speaker"))
    return Voices(
        tuple(ids[row] for row in rows), tuple(speakers[row] for row in rows), lambda place: decode(rows[place])
    )


class _Held:
    """Decoded noises, of which those used last are held. Many threads may read at once."""

    def __init__(self):
        self._waveforms: collections.OrderedDict[Path, np.ndarray] = collections.OrderedDict()
        self._lock = threading.Lock()

    def read(self, path: Path) -> Float[np.ndarray, " L"]:
        """The waveform of a file."""
        # Taken out and put back at the end, which makes it the one used last.
        with self._lock:
            waveform = self._waveforms.pop(path, None)
        if waveform is None:
            # Outside the lock: two threads may decode one file twice, but none waits for another's file.
            waveform = _decoded(path).waveform
        with self._lock:
            self._waveforms[path] = waveform
            while len(self._waveforms) > _MOST_HELD:
                self._waveforms.popitem(last=False)
        return waveform


def _decoded(path: Path, is_hashed: bool = False) -> audio.Decoded:
    try:
        decoded = audio.decode(path, max_s=_LONGEST_S, is_hashed=is_hashed)
    except audio.AudioError as error:
        raise ConditionError(f"{error}: take it out of the folder") from None
    if not np.abs(decoded.waveform).max() > audio.SILENCE_PEAK:
        raise ConditionError(f"{path}: nothing above -80 dBFS: take it out of the folder")
    return decoded


def _response(name: str, path: Path, section: str) -> Response:
    response = rooms.from_direct_path(_decoded(path).waveform)
    rt60_s = rooms.rt60_s(response, audio.SAMPLE_RATE_HZ)
    if not rt60_s > 0:
        raise ConditionError(
            f"{path}: does not decay by 35 dB, so it is no room response: take it out of {section}.rir_dir"
        )
    return Response(name, rt60_s, response)


def _audio_files(field: str, folder: str | os.PathLike) -> list[tuple[str, Path]]:
    """Name relative to the folder and path of every audio file in it, in the order of names."""
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise ConditionError(f"{field} = {os.fspath(folder)!r} is no folder")
    files, unreadable = walk(root)
    paths = [path for path in files if path.suffix.lower() in (*SUFFIXES, *FOREIGN_SUFFIXES)]
    if not paths and not unreadable:
        raise ConditionError(f"{field} = {os.fspath(folder)!r} holds no audio ({', '.join(SUFFIXES)})")
    # Recordings are decoded when they are drawn, hours later; whether they can be opened is known now.
    bad = [f"{path} ({detail})" for path, _, detail in unreadable] + [f"{path} ({why})" for path, why in _closed(paths)]
    if bad:
        raise ConditionError(
            f"{field} = {os.fspath(folder)!r}: {len(bad)} things in it cannot be read: {'; '.join(bad[:_MOST_NAMED])}: "
            "mend them, or take them out of the folder"
        )
    return sorted((path.relative_to(root).as_posix(), path) for path in paths)


def _closed(paths: Iterable[Path]) -> Iterator[tuple[Path, str]]:
    """The files that cannot be opened, and why."""
    for path in paths:
        try:
            audio.length_s(path)
        except audio.AudioError as error:
            yield path, error.detail


def _kinds(folder: Path) -> dict[str, tuple[str, str]]:
    """File -> kind and group, where a manifest says so."""
    path = folder.expanduser() / MANIFEST_FILE
    if not path.is_file():
        return {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            rows, columns = list(reader), reader.fieldnames or ()
    except (OSError, UnicodeError, csv.Error) as error:
        raise ConditionError(f"{path} cannot be read ({error}): save it as CSV in UTF-8") from None
    if missing := {"file", "kind"} - set(columns):
        raise ConditionError(f"{path} has no column {', '.join(sorted(missing))}: it needs file and kind")
    kinds = {row["file"]: (row["kind"] or "", row.get("group") or "") for row in rows}
    wrong = sorted({group for _, group in kinds.values()} - {"", *RECORDED_NOISES[:2]})
    if wrong:
        raise ConditionError(f"{path}: group {wrong[0]!r} is neither {' nor '.join(RECORDED_NOISES[:2])}")
    absent = [name for name in kinds if not (path.parent / name).is_file()]
    if absent:
        raise ConditionError(f"{path} names {len(absent)} files that are not there, {absent[0]!r} first")
    return kinds


def _folder_name(name: str) -> str:
    return name.rpartition("/")[0].rpartition("/")[2]


def _groups(kind: str, group: str) -> frozenset[str]:
    """Kinds of noise that a recording may be drawn for."""
    word = re.sub(r"[^a-z0-9_]+", "-", kind.lower()).strip("-")
    if word and not group:
        group = "steady" if word in STEADY_KINDS else "events"
    return frozenset(filter(None, ("recorded", group, word)))

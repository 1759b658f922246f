"""A model adapted to one speaker: enrolled from a folder of recordings, saved in a small file, read with its model.

With labels (`labels.csv` in the folder: columns `file` and `class`) the means of the speaker's classes are learned,
without them how often the speaker shows each class. Source: METHOD.md, sections 8.14 and 8.15.
"""

import csv
import dataclasses
import functools
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from seremo_jax.core import vocab
from seremo_jax.core.artefacts import (
    ArtefactError,
    atomic_path,
    fingerprint_of,
    parsed,
    require_same,
    sealed,
    to_json,
)
from seremo_jax.core.config_fields import EvalConfig
from seremo_jax.data.audio import AudioError
from seremo_jax.evaluation.prototypes import Prototypes
from seremo_jax.metrics import class_priors
from seremo_jax.metrics import prototypes as class_prototypes
from seremo_jax.predict import files
from seremo_jax.predict.predictor import Predictor

LABELS_FILE = "labels.csv"
NEEDS = "export it with python -m launch.export --prototypes"
"""What a model folder takes whose model is to be adapted."""

PRIOR_KAPPA, ENROLMENT_KAPPA, ENROLMENT_WEIGHT = (
    getattr(EvalConfig(), name) for name in ("speaker_prior_kappa", "enrolment_kappa", "enrolment_weight")
)
"""As evaluation has them."""

FORMAT_VERSION = 1
_AT_ONCE = 32
"""Recordings that are heard together."""


@dataclasses.dataclass(frozen=True)
class Speaker:
    """What was learned of a speaker.

    Attributes:
      model: Fingerprint of the model.
      counts: Class -> labelled recordings; empty without labels.
      num_unlabelled: Recordings without labels.
      kappa: Recordings that what the training says counts as.
      weight: Weight of the speaker's means beside the head.
      means: Of each of E members [C, I] means of the speaker's classes; None without labels.
      prior: [C] how often the speaker shows each class; None with labels, for nobody says that they are as frequent.
    """

    model: str
    counts: Mapping[str, int]
    num_unlabelled: int
    kappa: float
    weight: float
    means: np.ndarray | None
    prior: np.ndarray | None

    @property
    def words(self) -> str:
        """What results say of it."""
        if self.means is None:
            return f"prior of the speaker, from {self.num_unlabelled} recordings"
        return f"{sum(self.counts.values())} enrolled"

    def fields(self) -> dict[str, Any]:
        """As plain JSON."""
        arrays = {
            name: None if (value := getattr(self, name)) is None else value.tolist() for name in ("means", "prior")
        }
        return {**vars(self), **arrays, "counts": dict(self.counts), "format_version": FORMAT_VERSION}

    def distribution(
        self, known: Prototypes, distribution: Float[np.ndarray, "E B C"], embedding: Float[np.ndarray, "E B I"]
    ) -> Float[np.ndarray, "E B C"]:
        """What the members say of the speaker's recordings or windows, float32; as it is without labels."""
        if self.means is None:
            return distribution
        adapted = [
            class_prototypes.mixed(q, class_prototypes.evidence(vectors, means, own), self.weight)
            for q, vectors, means, own in zip(distribution, embedding, known.means, self.means, strict=True)
        ]
        return np.stack(adapted).astype(np.float32)

    def priors(self, known: Prototypes) -> tuple[np.ndarray, np.ndarray] | None:
        """[C] of the training, of a model whose members' distributions are averaged, and of the speaker."""
        return None if self.prior is None else (known.prior.mean(axis=0), self.prior)


def require_prototypes(model: str | os.PathLike, known: Prototypes | None) -> Prototypes:
    """Refuses a model that does not know the means of its classes.

    Raises:
      ArtefactError: It does not; the message says what to run.
    """
    if known is None:
        raise ArtefactError(
            f"{os.fspath(model)} has no prototypes of its training classes, by which a model is adapted to a speaker: "
            f"{NEEDS} from its workdir"
        )
    return known


def write(path: str | os.PathLike, speaker: Speaker) -> None:
    """Writes a speaker's file."""
    with atomic_path(path) as temporary:
        temporary.write_text(to_json(sealed(speaker.fields())) + "\n", encoding="utf-8")


def read(path: str | os.PathLike, about: Mapping[str, Any]) -> Speaker:
    """Reads a speaker's file for a model.

    Args:
      path: The file.
      about: What the model is.

    Raises:
      ArtefactError: It is missing, damaged, or of another model.
    """
    remedy = "enrol the speaker with this model: python -m launch.predict --enrol=FOLDER --save_speaker=FILE"
    try:
        fields = parsed(Path(path).read_bytes(), os.fspath(path), remedy)
    except OSError as error:
        raise ArtefactError(f"{os.fspath(path)} cannot be read ({error}): {remedy}") from None
    try:
        require_same(f"format of {path}", fields.pop("format_version"), FORMAT_VERSION, f"Remedy: {remedy}.")
        require_same(f"the model that {path} belongs to", fields["model"], fingerprint_of(about), f"Remedy: {remedy}.")
        num, num_classes, size = len(about["members"]), len(about["classes"]), about["head"].embedding_size
        for name, shape in (("means", (num, num_classes, size)), ("prior", (num_classes,))):
            if fields[name] is not None:
                fields[name] = np.asarray(fields[name], np.float64)
                require_same(f"shape of {name} in {path}", list(fields[name].shape), list(shape), f"Remedy: {remedy}.")
        return Speaker(**fields)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ArtefactError(f"{os.fspath(path)} is no speaker's file ({error}): {remedy}") from None


def enrol(
    predictor: Predictor, folder: str | os.PathLike, kappa: float | None = None, weight: float = ENROLMENT_WEIGHT
) -> Speaker:
    """Hears a folder of recordings of one speaker, relative to all of them together where the model does so.

    Args:
      predictor: The model, with prototypes.
      folder: Labelled by `labels.csv` in it, of which only the files listed there count, or all audio without labels.
      kappa: Recordings that what the training says counts as; None for the defaults.
      weight: Weight of the speaker's means beside the head.

    Raises:
      ArtefactError: The model has no prototypes, `labels.csv` is not what it should be, or a recording cannot be used.
    """
    known, about = require_prototypes("the model", predictor.prototypes), predictor.about
    folder, classes = Path(folder), about["classes"]
    labels = _labels(folder / LABELS_FILE, classes) if (folder / LABELS_FILE).exists() else None
    if labels is None:
        heard = files.find(folder)
        if heard.unreadable:
            name, reason, detail = heard.unreadable[0]
            raise ArtefactError(f"{folder / name} cannot be enrolled: {reason} ({detail}); take it out of the folder")
        paths = sorted(heard.paths)
    else:
        # The order of lines must not decide a digit.
        paths = sorted(labels)
    results, voice = [], predictor.voice(paths) if predictor.is_transductive else None
    for start in range(0, len(paths), _AT_ONCE):
        some = paths[start : start + _AT_ONCE]
        results += predictor.files(some, voices=voice and [voice] * len(some), with_embedding=True)
    for path, result in zip(paths, results, strict=True):
        if isinstance(result, AudioError):
            raise ArtefactError(f"{path} cannot be enrolled: {result.reason} ({result.detail}); take it out")
    model = fingerprint_of(about)
    if kappa is None:
        kappa = PRIOR_KAPPA if labels is None else ENROLMENT_KAPPA
    if labels is None:
        said = np.array([[result.distribution[name] for name in classes] for result in results])
        own = class_priors.fit(said[None], known.prior.mean(axis=0, keepdims=True), kappa)[0]
        return Speaker(model, {}, len(paths), kappa, weight, None, own)
    label = np.array([labels[path] for path in paths])
    embedding = np.stack([result.embedding for result in results], axis=1)
    pairs = zip(known.means, embedding, strict=True)
    means = np.stack([class_prototypes.enrolled(means, vectors, label, kappa) for means, vectors in pairs])
    counts = Counter(classes[c] for c in label)
    return Speaker(model, dict(sorted(counts.items())), 0, kappa, weight, means, None)


def _labels(path: Path, classes: Sequence[str]) -> dict[Path, int]:
    """Recording -> number of its class."""
    labels: dict[Path, int] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ArtefactError(f"{path} cannot be read: {error}") from None
    if not lines or not {"file", "class"} <= set(lines[0]):
        raise ArtefactError(f"{path} needs the columns file and class, and a line a recording")
    for number, line in enumerate(lines, 2):
        word = (line["class"] or "").strip().lower()
        word, audio = vocab.CLASS_SPELLINGS.get(word, word), path.parent / (line["file"] or "").strip()
        if word not in classes:
            raise ArtefactError(f"{path}:{number}: class {word!r} is none of the model's: {', '.join(classes)}")
        if not audio.is_file():
            raise ArtefactError(f"{path}:{number}: there is no file {audio}")
        if audio in labels:
            raise ArtefactError(f"{path}:{number}: {audio.name} is listed twice")
        labels[audio] = list(classes).index(word)
    return labels


Finish = Callable[[list[dict[str, Any]]], list[dict[str, Any]]]
"""What becomes of the records of all recordings, see `files.run`."""


def asked_for(
    predictor: Predictor,
    enrolled: str | os.PathLike | None = None,
    save_to: str | os.PathLike | None = None,
    saved: str | os.PathLike | None = None,
    is_together: bool = False,
) -> tuple[Predictor, Finish | None]:
    """The model as a user wants it for one speaker.

    Args:
      predictor: The model.
      enrolled: Folder to enrol the speaker from.
      save_to: Where what was learned is written.
      saved: File of a speaker who was enrolled before.
      is_together: Whether recordings are corrected by the prior that all of them show.

    Returns:
      The model, and what `files.run` does with the records; None for nothing.

    Raises:
      ArtefactError: See `enrol` and `read`; or the speaker's prior is known from enrolment and asked for again.
    """
    if enrolled is None and saved is None and not is_together:
        return predictor, None
    known = require_prototypes("the model", predictor.prototypes)
    speaker = None
    if enrolled is not None:
        speaker = enrol(predictor, enrolled)
        if save_to is not None:
            write(save_to, speaker)
    elif saved is not None:
        speaker = read(saved, predictor.about)
    if speaker is not None:
        if is_together and speaker.prior is not None:
            raise ArtefactError(
                "the speaker was enrolled without labels, so the prior is known: leave --speaker_prior out"
            )
        predictor = predictor.for_speaker(speaker)
    return predictor, functools.partial(together, about=predictor.about, known=known) if is_together else None


def together(
    records: Sequence[dict[str, Any]], about: Mapping[str, Any], known: Prototypes, kappa: float = PRIOR_KAPPA
) -> list[dict[str, Any]]:
    """Records of recordings of one speaker, corrected by the prior that all of them show: transductive.

    Args:
      records: As `files.to_record` makes them, with `file`, in any order, which decides nothing.
      about: What the model is.
      known: Its prototypes.
      kappa: Recordings that the training prior counts as.
    """
    classes, threshold = about["classes"], about["calibration"]["conformal_threshold"]
    ordered = sorted(records, key=lambda record: record["file"])
    said = np.array([[record["distribution"][name] for name in classes] for record in ordered]).reshape(
        -1, len(classes)
    )
    prior = known.prior.mean(axis=0, keepdims=True)
    own = class_priors.fit(said[None], prior, kappa)
    after = class_priors.corrected(said[None], prior, own[:, None], np.ones(1))[0]
    words = f"prior of the speaker, from all {len(records)} recordings (transductive)"
    before = dict.fromkeys(record["adapted"] for record in ordered if "adapted" in record)
    words = "; ".join([*before, words])
    corrected = {}
    for record, shares in zip(ordered, after, strict=True):
        named = {name: round(float(share), 6) for name, share in zip(classes, shares, strict=True)}
        ranked = sorted(classes, key=lambda name: -named[name])
        sets = None if threshold is None else [name for name in ranked if named[name] >= threshold]
        shown = {"distribution": named, "best": ranked[:3], "conformal_set": sets, "adapted": words}
        corrected[record["file"]] = {**record, **shown}
    return [corrected[record["file"]] for record in records]

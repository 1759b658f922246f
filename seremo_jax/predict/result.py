"""What a model says of a recording: means and spread over members and windows, N-best, conformal set. No JAX."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from seremo_jax.core.artefacts import ArtefactError
from seremo_jax.data import level
from seremo_jax.metrics import calibration, class_priors

RELATIVE = "features relative to the speaker (transductive)"
"""What results of a model say whose features are relative to the speaker."""
_UNKNOWN_SPEAKER = "its speaker is not known: features are relative to all training speakers, and not to its own"


class Segment(NamedTuple):
    """A row of the timeline: from `start_s` to `end_s`, class -> probability, attribute -> value; means of members."""

    start_s: float
    end_s: float
    distribution: dict[str, float]
    attributes: dict[str, float]


@dataclasses.dataclass(frozen=True)
class Result:
    """What a model says of one utterance or recording.

    Attributes:
      duration_s: Its length in seconds.
      distribution: Class -> probability (share of votes), mean over the members, calibrated where the model is.
      distribution_sd: Standard deviation over the members, before calibration; None for a single one.
      attributes: Attribute -> value on the corpus's own scale, mean over the members; those that were trained.
      attributes_sd: Standard deviation over the members; None for a single one.
      ranked: Classes, most probable first: the first N are the N-best.
      conformal_set: Classes of the conformal set, most probable first; None where the model has no threshold.
      timeline: Windows of a long recording; one row for all else.
      level_dbfs: Level of its active speech as recorded, in dB of full scale.
      warnings: What speaks against trusting it: a level outside those that the model was trained on.
      embedding: [E, embedding_size] of every member where it was asked for; those of two members are not comparable.
      adapted: How the model was adapted to the speaker; empty where it was not.
      speaker_s: Seconds of the speaker that features are relative to, 0 where none are known; None where they are not
        relative to speakers.
    """

    duration_s: float
    distribution: dict[str, float]
    distribution_sd: dict[str, float] | None
    attributes: dict[str, float]
    attributes_sd: dict[str, float] | None
    ranked: tuple[str, ...]
    conformal_set: tuple[str, ...] | None
    timeline: tuple[Segment, ...]
    level_dbfs: float
    warnings: tuple[str, ...] = ()
    embedding: np.ndarray | None = None
    adapted: str = ""
    speaker_s: float | None = None


class Adaptation(NamedTuple):
    """What a model was adapted to a speaker by.

    Attributes:
      words: In words; empty where it was not.
      priors: [C] how often each class occurs in training and how often with the speaker; None where the speaker's prior
        is not known.
      speaker_s: Seconds of the speaker that features are relative to; None where they are not.
    """

    words: str = ""
    priors: tuple[np.ndarray, np.ndarray] | None = None
    speaker_s: float | None = None

    def relative(self, speaker_s: float) -> "Adaptation":
        """The same by features that are relative to so many seconds of the speaker."""
        return self._replace(words="; ".join(filter(None, (RELATIVE, self.words))), speaker_s=speaker_s)


NO_ADAPTATION = Adaptation()


class Outputs(NamedTuple):
    """Of every member, for each of B utterances or windows: [E, B, A], [E, B, C], [E, B, embedding_size]."""

    attributes: np.ndarray
    distribution: np.ndarray
    embedding: np.ndarray


def summarise(
    about: dict[str, Any],
    output: Outputs,
    spans_s: Sequence[tuple[float, float]],
    duration_s: float,
    level_dbfs: float,
    with_embedding: bool = False,
    adaptation: Adaptation = NO_ADAPTATION,
) -> Result:
    """One result from what the members say of the windows of one recording, or of all of it at once.

    Args:
      about: What the model is, see `model_folder`.
      output: Of every member and window.
      spans_s: Start and end of each window; windows count by their length.
      duration_s: Length of the recording.
      level_dbfs: Level of its active speech as recorded, in dB of full scale.
      with_embedding: Keeps the embeddings.
      adaptation: To the speaker.

    Raises:
      ArtefactError: A number is not finite.
    """
    if not all(np.isfinite(part).all() for part in output):
        dtype = about["backbone"]["dtype"]
        raise ArtefactError(f"the model gives numbers that are not finite (its backbone runs in {dtype})")
    classes, fitted = about["classes"], about["calibration"]
    trained = [(a, item) for a, item in enumerate(about["attributes"]) if item["is_trained"]]
    names, kept = [item["name"] for _, item in trained], [a for a, _ in trained]
    offset, factor = (np.array([item[key] for _, item in trained]) for key in ("offset", "factor"))
    lengths = np.array([stop - start for start, stop in spans_s])
    # By length, so that a short last window does not count as much as a whole one.
    weight = lengths / lengths.sum()
    attributes = output.attributes[:, :, kept].astype(float) * factor[None, None, :] + offset[None, None, :]
    distribution = output.distribution.astype(float)
    windows = [
        Segment(*span, _named(classes, _calibrated(p, fitted["temperature"], adaptation.priors)), _named(names, a))
        for span, p, a in zip(spans_s, distribution.mean(axis=0), attributes.mean(axis=0), strict=True)
    ]
    shares, values = np.einsum("ebc,b->ec", distribution, weight), np.einsum("eba,b->ea", attributes, weight)
    # The temperature was fitted for the mean distribution of the members, so it is applied after their mean.
    named = _named(classes, _calibrated(shares.mean(axis=0), fitted["temperature"], adaptation.priors))
    ranked = sorted(classes, key=lambda name: -named[name])
    threshold, has_spread = fitted["conformal_threshold"], len(shares) > 1
    return Result(
        duration_s=duration_s,
        distribution=named,
        distribution_sd=_named(classes, shares.std(axis=0, ddof=1)) if has_spread else None,
        attributes=_named(names, values.mean(axis=0)),
        attributes_sd=_named(names, values.std(axis=0, ddof=1)) if has_spread else None,
        ranked=tuple(ranked),
        conformal_set=None if threshold is None else tuple(name for name in ranked if named[name] >= threshold),
        timeline=tuple(windows),
        level_dbfs=level_dbfs,
        warnings=(*_warnings(about, level_dbfs), *([_UNKNOWN_SPEAKER] if adaptation.speaker_s == 0 else [])),
        embedding=np.einsum("ebd,b->ed", output.embedding, weight).astype(np.float32) if with_embedding else None,
        adapted=adaptation.words,
        speaker_s=adaptation.speaker_s,
    )


def _warnings(about: dict[str, Any], level_dbfs: float) -> tuple[str, ...]:
    """Models of earlier versions do not say at which levels they were trained."""
    known, is_levelled = about.get("levels_dbfs"), about["backbone"].get("level", "none") != "none"
    sentence = "" if known is None or is_levelled else level.outside(level_dbfs, known)
    return (sentence,) if sentence else ()


def _calibrated(p: np.ndarray, temperature: float | None, priors: tuple[np.ndarray, np.ndarray] | None) -> np.ndarray:
    shares = calibration.tempered(p[None], 1.0 if temperature is None else temperature)[0]
    if priors is None:
        return shares
    training, own = priors
    return class_priors.corrected(shares[None, None], training[None], own[None, None], np.ones(1))[0, 0]


def _named(names: Sequence[str], values: np.ndarray) -> dict[str, float]:
    return dict(zip(names, values.tolist(), strict=True))

"""Temperatures and conformal thresholds of members and of their mean, fitted on the development split.

`calibration.json` has an entry for every member alone and for the members of every system (and fold) together, whose
mean distribution is calibrated as one model. Early stopping saw the same split, so calibration there is a little
optimistic.
"""

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from seremo_jax.core import ensemble
from seremo_jax.core.artefacts import ArtefactError, finite, place_of, read_json, require_same, write_json
from seremo_jax.data.targets import Targets
from seremo_jax.evaluation import mean_heads
from seremo_jax.metrics import calibration, conformal

FILE = "calibration.json"
_REMEDY = "run python -m launch.evaluate with this --workdir again"


@dataclasses.dataclass(frozen=True)
class Fitted:
    """What the development split says of a model: one member, or several whose mean distribution it is.

    Attributes:
      members: Names of the members.
      num_utterances: Development utterances with votes behind it.
      temperature: Of least log loss.
      log_loss: At temperature 1.
      log_loss_calibrated: At the temperature.
      lac: Threshold of the conformal scores of the calibrated distribution at the level asked for; infinite, and None
        in the file, where there are too few utterances: every class is in the set.
      lac_by_gender: The same of each gender with utterances enough.
    """

    members: tuple[str, ...]
    num_utterances: int
    temperature: float
    log_loss: float
    log_loss_calibrated: float
    lac: float
    lac_by_gender: dict[str, float]


@dataclasses.dataclass(frozen=True)
class Development:
    """What some members say of the development split of their fold.

    Attributes:
      fold: Their fold; None for the splits of the utterance table.
      members: Number of each member.
      distribution: [m, B, C] predicted.
      shares: [B, C] vote shares.
      has_votes: [B] bool.
      genders: [B] gender of each utterance's speaker.
    """

    fold: int | None
    members: Int[np.ndarray, " m"]
    distribution: Float[np.ndarray, "m B C"]
    shares: Float[np.ndarray, "B C"]
    has_votes: Bool[np.ndarray, " B"]
    genders: Sequence[str]


@dataclasses.dataclass(frozen=True)
class Calibrations:
    """All that was fitted for a training.

    Attributes:
      level: Share of votes that conformal sets should hold.
      names: Name of each member of the training.
      members: The members.
      by_members: Names of members -> what was fitted for them, together.
    """

    level: float
    names: tuple[str, ...]
    members: tuple[ensemble.Member, ...]
    by_members: dict[frozenset[str], Fitted]

    def in_folds(self, pooled: Sequence[ensemble.Member], folds: Sequence[int | None]) -> list[Fitted] | None:
        """What was fitted in each fold for the mean of these members, given without folds; None where nothing was.

        A mean of heads (`mean_heads`) stands for all of them.
        """
        fitted = []
        for fold in folds:
            names = {
                name for name, member in zip(self.names, self.members, strict=True)
                if member.fold == fold and any(ensemble.stands_for(evaluated, member) for evaluated in pooled)
            }  # fmt: skip
            fitted.append(self.by_members.get(frozenset(names)))
        return None if any(evaluated is None for evaluated in fitted) else fitted


def development_of(
    predicted: Sequence[Any], members: Sequence[ensemble.Member], targets: Targets, genders: Sequence[str]
) -> list[Development]:
    """Pairs what members say with what raters said.

    Args:
      predicted: `selection.Predicted` of the development split, an entry a fold.
      members: Of the training.
      targets: Of the utterance table.
      genders: [N] of each of its rows.
    """
    return [
        Development(
            members[part.members[0]].fold, part.members, part.distribution, targets.distribution[part.rows],
            targets.has_votes[part.rows], [genders[row] for row in part.rows],
        )
        for part in predicted if len(part.members)
    ]  # fmt: skip


def fit(development: Sequence[Development], members: Sequence[ensemble.Member], level: float) -> Calibrations:
    """Fits every member alone and those behind each mean together, fold by fold; nothing where no utterance has votes.

    Args:
      development: Of each fold.
      members: Of the training.
      level: Share of votes that conformal sets should hold.
    """
    names, by_members = tuple(ensemble.names(members)), {}
    together = [rows for over in mean_heads.MEANS for rows in mean_heads.behind_means(members, over)]
    for part in development:
        if not part.has_votes.any():
            continue
        predicted = {
            m: part.distribution[i, part.has_votes].astype(np.float64) for i, m in enumerate(part.members.tolist())
        }
        # Utterances without votes say nothing of a distribution and are left out before anything is fitted.
        shares = part.shares[part.has_votes].astype(np.float64)
        genders = [gender for gender, has in zip(part.genders, part.has_votes, strict=True) if has]
        # With folds, only those members of a mean are here that hold this development split out.
        in_fold = [[m for m in rows if m in predicted] for rows in together]
        groups = [[m] for m in predicted] + [group for group in in_fold if len(group) > 1]
        for group in groups:
            mean = np.mean([predicted[m] for m in group], axis=0)
            called = tuple(names[m] for m in group)
            by_members[frozenset(called)] = fit_one(called, mean, shares, genders, level)
    return Calibrations(level, names, tuple(members), by_members)


def fit_one(
    members: tuple[str, ...],
    distribution: Float[np.ndarray, "B C"],
    shares: Float[np.ndarray, "B C"],
    genders: Sequence[str],
    level: float,
) -> Fitted:
    """Fits one model from its predictions of utterances with votes; see `fit`."""
    # First the temperature, then the sets of the calibrated distribution: prediction applies them in this order.
    temperature = calibration.fit_temperature(distribution, shares)
    calibrated = calibration.tempered(distribution, temperature)
    scores = conformal.scores(calibrated)
    return Fitted(
        members=members,
        num_utterances=len(distribution),
        temperature=temperature,
        log_loss=float(calibration.log_loss(calibration.tempered(distribution, 1.0), shares).mean()),
        log_loss_calibrated=float(calibration.log_loss(calibrated, shares).mean()),
        lac=conformal.threshold(scores, shares, level),
        lac_by_gender=conformal.thresholds_by_group(scores, shares, genders, level),
    )


@dataclasses.dataclass(frozen=True)
class Applied:
    """What was fitted, as it applies to each of B utterances: the fold decides.

    Attributes:
      temperature: [B].
      lac: [B] threshold.
      lac_by_gender: [B] threshold of the speaker's gender; `lac` where there is none.
    """

    temperature: np.ndarray
    lac: np.ndarray
    lac_by_gender: np.ndarray

    @classmethod
    def of(cls, fitted: Sequence[Fitted], fold: Int[np.ndarray, " B"], genders: Sequence[str]) -> "Applied":
        """Looks up each utterance.

        Args:
          fitted: Of each fold.
          fold: [B] place of each utterance's fold among them.
          genders: [B] gender of its speaker.
        """

        def each(name: str) -> np.ndarray:
            return np.array([getattr(entry, name) for entry in fitted])[fold]

        pairs = zip(fold, genders, strict=True)
        by_gender = [fitted[f].lac_by_gender.get(gender, fitted[f].lac) for f, gender in pairs]
        return cls(each("temperature"), each("lac"), np.array(by_gender))


def write(path: str | os.PathLike, fitted: Calibrations, checkpoint: str) -> None:
    """Writes `calibration.json`; an infinite threshold is None there."""
    entries = [finite(dataclasses.asdict(entry)) for entry in fitted.by_members.values()]
    write_json(path, {"checkpoint": checkpoint, "level": fitted.level, "entries": entries})


NOTHING = {"temperature": None, "conformal_threshold": None, "level": None, "num_utterances": 0}
"""Calibration of a model for which nothing was fitted."""


def is_of(workdir: str | os.PathLike, checkpoint: str) -> bool:
    """Whether a workdir has a whole `calibration.json` of this training."""
    try:
        return read_json(place_of(workdir) / FILE, _REMEDY)["checkpoint"] == checkpoint
    except (ArtefactError, LookupError, TypeError):
        return False


def of_members(workdir: str | os.PathLike, names: Sequence[str], checkpoint: str) -> dict[str, float | None]:
    """Calibration of the mean of these members, for an exported model.

    Returns:
      `temperature`, `conformal_threshold` (least share of a class in the set), `level` (share of votes that the sets
      should hold) and `num_utterances` (of the development split behind them). `NOTHING` where the workdir has no
      `calibration.json` (it was not evaluated) or nothing was fitted for exactly these members; no threshold where
      there were too few utterances for the level.

    Raises:
      ArtefactError: `calibration.json` is damaged, or of another training.
    """
    path = place_of(workdir) / FILE
    if not path.exists():
        return dict(NOTHING)
    record = read_json(path, _REMEDY)
    try:
        require_same(f"checkpoint of {path}", record["checkpoint"], checkpoint, f"Remedy: {_REMEDY}.")
        for entry in record["entries"]:
            if set(entry["members"]) == set(names):
                threshold = None if entry["lac"] is None else -entry["lac"]
                return {"temperature": entry["temperature"], "conformal_threshold": threshold, "level": record["level"],
                        "num_utterances": entry["num_utterances"]}  # fmt: skip
    except (KeyError, TypeError) as error:
        raise ArtefactError(f"{path} is damaged (it lacks {error}); {_REMEDY}") from None
    return dict(NOTHING)


def entries_of(workdir: str | os.PathLike, names: Sequence[str]) -> dict[str, Any]:
    """What `calibration.json` has of these members, alone and together, for an exported model; see `restored`.

    Returns:
      `level` and `entries`; None and none where the workdir was not evaluated. `of_members` says whether the file is
      of this training.

    Raises:
      ArtefactError: `calibration.json` is damaged.
    """
    path = place_of(workdir) / FILE
    if not path.exists():
        return {"level": None, "entries": []}
    record = read_json(path, _REMEDY)
    try:
        return {
            "level": record["level"],
            "entries": [entry for entry in record["entries"] if set(entry["members"]) <= set(names)],
        }
    except (KeyError, TypeError) as error:
        raise ArtefactError(f"{path} is damaged (it lacks {error}); {_REMEDY}") from None


def restored(
    kept: dict[str, Any] | None, members: Sequence[ensemble.Member], names: Sequence[str]
) -> Calibrations | None:
    """The calibrations that `entries_of` kept; None where there are none, as in models of earlier versions.

    Args:
      kept: What it gave.
      members: The members.
      names: Their names in the training.

    Raises:
      ArtefactError: It is not what `entries_of` gives.
    """
    if not kept or not kept.get("entries"):
        return None
    try:
        by_members = {}
        for entry in kept["entries"]:
            # A file has no word for infinity, which stands for too few utterances.
            lac = float("inf") if entry["lac"] is None else float(entry["lac"])
            fitted = Fitted(**entry | {"members": tuple(entry["members"]), "lac": lac})
            by_members[frozenset(fitted.members)] = fitted
        return Calibrations(float(kept["level"]), tuple(names), tuple(members), by_members)
    except (TypeError, ValueError, KeyError) as error:
        raise ArtefactError(f"the calibrations of the model are damaged ({error}): export it again") from None


def described(calibration: dict[str, float | None]) -> str:
    """What `of_members` gave in words."""
    if calibration["temperature"] is None:
        return ("not calibrated: nothing was fitted for exactly these members (python -m launch.evaluate fits each "
                "member alone, and all members of a system and fold)")  # fmt: skip
    words = f"temperature {calibration['temperature']:.2f}"
    if calibration["conformal_threshold"] is None:
        return f"{words}; no conformal sets: too few development utterances for the level"
    return (f"{words}; conformal sets of classes above {calibration['conformal_threshold']:.3f}, to hold "
            f"{100 * calibration['level']:g} % of votes")  # fmt: skip

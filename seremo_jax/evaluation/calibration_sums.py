"""Calibration, conformal sets and abstention as functions of sums over cells: utterances of one unit and group."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from seremo_jax.evaluation.calibration_fit import Applied
from seremo_jax.metrics import abstention, calibration, conformal
from seremo_jax.metrics.catalogue import Metric, metric

NUM_ENTROPIES = 5
"""Bins of equal width of the raters' entropy, from 0 to log C."""
OUTCOMES = ("votes", "consensus")
"""What a prediction is held against."""
VERSIONS = ("plain", "calibrated")
"""A distribution as it is predicted, and at its temperature."""


class Sum(NamedTuple):
    """Which sum over the utterances of a cell.

    Attributes:
      what: `rows`: utterances that count. `bins`: of `calibration.bin_sums`. `steps`: of `abstention.step_sums`.
        `log_loss`. `held`: share of the outcome in the sets. `size`: classes in them. `x`, `y`, `xx`, `yy`, `xy`:
        moments of the raters' entropy and the size of sets. `sizes_by_entropy`: utterances and sizes by bin of entropy.
      which: One of `VERSIONS`, or a kind of sets; empty where there is only one.
      outcome: One of `OUTCOMES`; empty where the sum is of the utterances with votes whatever they are held against.
    """

    what: str
    which: str = ""
    outcome: str = ""


class _Sets(NamedTuple):
    """A kind of sets, and the kinds of its metrics in the catalogue."""

    which: str
    size: str
    held: str


_ONE_THRESHOLD = _Sets("one_threshold", "set_size", "held")
_BY_GENDER = _Sets("by_gender", "set_size_by_gender", "held_by_gender")
_SETS = (_ONE_THRESHOLD, _BY_GENDER)

CalibrationSums = dict[Sum, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Heard:
    """What one model says of B utterances, and what raters said.

    Attributes:
      distribution: [B, C] predicted.
      applied: Temperatures and thresholds.
      shares: [B, C] vote shares.
      has_votes: [B] bool.
      consensus: [B] class, -1 where there is none.
      cell: [B] finest set that a unit (speaker) or a group is made of, see `alignment.Cells`.
      num_cells: Number of all cells.
    """

    distribution: np.ndarray
    applied: Applied
    shares: np.ndarray
    has_votes: np.ndarray
    consensus: np.ndarray
    cell: np.ndarray
    num_cells: int

    @property
    def outcomes(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Of each of `OUTCOMES` what was said of each class [B, C], and which utterances count [B]."""
        one_hot = np.arange(self.shares.shape[1]) == self.consensus[:, None]
        return {
            "votes": (self.shares.astype(np.float64), self.has_votes),
            "consensus": (one_hot.astype(np.float64), self.consensus >= 0),
        }

    def sets(self, calibrated: Float[np.ndarray, "B C"]) -> dict[str, Bool[np.ndarray, "B C"]]:
        """Kind of sets -> which classes are in the set of each utterance."""
        scores = conformal.scores(calibrated)
        return {
            _ONE_THRESHOLD.which: conformal.sets(scores, self.applied.lac),
            _BY_GENDER.which: conformal.sets(scores, self.applied.lac_by_gender),
        }


def cell_sums(heard: Heard) -> CalibrationSums:
    """Sums of each cell, [cells, ...]; those of a unit or a group are the sums over its cells."""

    def summed(values: np.ndarray, is_in: np.ndarray) -> np.ndarray:
        return np.bincount(heard.cell[is_in], values[is_in], heard.num_cells)

    # A temperature may change the order of no two classes, so the 1-best class is the same before and after.
    calibrated = calibration.tempered(heard.distribution, heard.applied.temperature)
    distributions = {"plain": calibration.tempered(heard.distribution, 1.0), "calibrated": calibrated}
    sets, places = heard.sets(calibrated), (heard.cell, heard.num_cells)
    sizes = {which: is_member.sum(axis=1).astype(np.float64) for which, is_member in sets.items()}
    sums: CalibrationSums = {}
    for outcome, (said, counts) in heard.outcomes.items():
        sums[Sum("rows", outcome=outcome)] = summed(np.ones(len(counts)), counts)
        for which, predicted in distributions.items():
            confidence, right = _confidence(predicted, said)
            sums[Sum("bins", which, outcome)] = calibration.bin_sums(confidence, right, counts, *places)
        # Utterances are ranked by calibrated confidence: folds have temperatures of their own, so the order over all of
        # them is not that of the plain distribution.
        confidence, right = _confidence(calibrated, said)
        sums[Sum("steps", outcome=outcome)] = abstention.step_sums(confidence, 1 - right, counts, *places)
        # The share of the votes in the set, and not whether the consensus is in it: that is what the sets were fitted
        # for.
        for which, is_member in sets.items():
            sums[Sum("held", which, outcome)] = summed((said * is_member).sum(axis=1), counts)
    for which, predicted in distributions.items():
        sums[Sum("log_loss", which)] = summed(calibration.log_loss(predicted, heard.shares), heard.has_votes)
    for which, size in sizes.items():
        sums[Sum("size", which)] = summed(size, heard.has_votes)
    return sums | _entropy_sums(heard, sizes[_ONE_THRESHOLD.which], summed)


def _confidence(
    predicted: Float[np.ndarray, "B C"], said: Float[np.ndarray, "B C"]
) -> tuple[Float[np.ndarray, " B"], Float[np.ndarray, " B"]]:
    """Predicted share of the 1-best class, and what raters gave that class."""
    best = predicted.argmax(axis=1)
    return predicted.max(axis=1), np.take_along_axis(said, best[:, None], axis=1)[:, 0]


def _entropy_sums(heard: Heard, size: np.ndarray, summed: Callable[..., np.ndarray]) -> CalibrationSums:
    """Moments of the raters' entropy and the size of sets, and sizes in bins of entropy."""
    share, counts = np.asarray(heard.shares, np.float64), heard.has_votes
    entropy = -(share * np.log(np.maximum(share, np.finfo(float).tiny))).sum(axis=1)
    # Around the mean of the split, so that little cancels in the variance; the correlation does not change by it.
    x = entropy - (entropy[counts].mean() if counts.any() else 0.0)
    pairs = (("x", x), ("y", size), ("xx", x * x), ("yy", size * size), ("xy", x * size))
    sums = {Sum(name): summed(values, counts) for name, values in pairs}
    most = np.log(share.shape[1]) if share.shape[1] > 1 else 1.0
    place = np.clip((entropy / most * NUM_ENTROPIES).astype(int), 0, NUM_ENTROPIES - 1)
    bins = [
        [summed(values, counts & (place == n)) for values in (np.ones(len(counts)), size)] for n in range(NUM_ENTROPIES)
    ]
    return sums | {Sum("sizes_by_entropy"): np.moveaxis(np.array(bins), 2, 0)}


def unit_sums(
    sums: CalibrationSums,
    is_in: Bool[np.ndarray, " cells"],
    unit_of_cell: Int[np.ndarray, " cells"],
    num_units: int,
) -> CalibrationSums:
    """Sums of each unit, [U, ...], over those of its cells that are in."""
    result = {}
    for key, values in sums.items():
        result[key] = np.zeros((num_units, *values.shape[1:]))
        np.add.at(result[key], unit_of_cell[is_in], values[is_in])
    return result


def values(sums: CalibrationSums, level: float) -> dict[Metric, Float[np.ndarray, " R"]]:
    """Metrics of R resamples from their sums, NaN where not defined."""
    percent = 100 * level
    result: dict[Metric, np.ndarray] = {}
    for outcome in OUTCOMES:
        rows = sums[Sum("rows", outcome=outcome)]
        result[metric("ece", outcome=outcome)] = calibration.calibration_error(sums[Sum("bins", "plain", outcome)])
        result[metric("ece_calibrated", outcome=outcome)] = calibration.calibration_error(
            sums[Sum("bins", "calibrated", outcome)]
        )
        if outcome == "votes":
            result[metric("nll")] = _mean(rows, sums[Sum("log_loss", "plain")])
            result[metric("nll_calibrated")] = _mean(rows, sums[Sum("log_loss", "calibrated")])
            for kind in _SETS:
                result[metric(kind.size, level=percent)] = _mean(rows, sums[Sum("size", kind.which)])
        for kind in _SETS:
            held = sums[Sum("held", kind.which, outcome)]
            result[metric(kind.held, outcome=outcome, level=percent)] = _mean(rows, held)
        steps = sums[Sum("steps", outcome=outcome)]
        result[metric("aurc", outcome=outcome)] = abstention.area(steps)
        result[metric("risk", outcome=outcome)] = _mean(*np.moveaxis(steps.sum(axis=1), -1, 0))
    result[metric("set_size_entropy")] = _correlation(sums)
    return result


def _mean(number: Float[np.ndarray, "*R"], total: Float[np.ndarray, "*R"]) -> Float[np.ndarray, "*R"]:
    """NaN of nothing."""
    return np.where(number > 0, total / np.maximum(number, 1), np.nan)


def _correlation(sums: CalibrationSums) -> np.ndarray:
    number = np.maximum(sums[Sum("rows", outcome="votes")], 1)
    x, y = sums[Sum("x")] / number, sums[Sum("y")] / number
    xx, yy = sums[Sum("xx")] / number - x * x, sums[Sum("yy")] / number - y * y
    is_defined = (xx > 1e-9) & (yy > 1e-9)
    covariance = sums[Sum("xy")] / number - x * y
    return np.where(is_defined, covariance / np.sqrt(np.where(is_defined, xx * yy, 1)), np.nan)


class Curve(NamedTuple):
    """Names a curve that figures show."""

    kind: str
    """`risk` at coverages, outcome by bin of confidence (one of `VERSIONS`), or `sizes_by_entropy`."""
    outcome: str
    """What it is held against, one of `OUTCOMES`; sizes of sets go by the entropy of the votes."""


SIZES_BY_ENTROPY = Curve("sizes_by_entropy", "votes")


def curves(sums: CalibrationSums) -> dict[Curve, Float[np.ndarray, "R points"]]:
    """What figures show of R resamples: risk at coverages, outcome by bin of confidence, size of sets by entropy."""
    result = {SIZES_BY_ENTROPY: _mean(*np.moveaxis(sums[Sum("sizes_by_entropy")], -1, 0))}
    for outcome in OUTCOMES:
        result[Curve("risk", outcome)] = abstention.curve(sums[Sum("steps", outcome=outcome)])
        for which in VERSIONS:
            result[Curve(which, outcome)] = calibration.bin_means(sums[Sum("bins", which, outcome)])[..., 1]
    return result

"""Calibration, conformal sets and abstention as functions of sums over cells: utterances of one unit and group."""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Bool, Float, Int

from seremo_jax.evaluation.calibration_fit import Applied
from seremo_jax.metrics import abstention, calibration, conformal, resampling
from seremo_jax.metrics.catalogue import Metric, metric

NUM_ENTROPIES = 5
"""Bins of equal width of the raters' entropy, from 0 to log C."""
OUTCOMES = ("votes", "consensus")
"""What a prediction is held against."""
_KINDS = (("set", ""), ("set by gender", "_by_gender"))
"""Name of the sums of a kind of set, and the end of the key of its metrics."""


@dataclasses.dataclass(frozen=True)
class Heard:
    """What one model says of B utterances, and what raters said.

    Attributes:
      distribution: [B, C] predicted.
      applied: Temperatures and thresholds.
      shares: [B, C] vote shares.
      has_votes: [B] bool.
      consensus: [B] class, -1 where there is none.
      cell: [B] finest set that a unit (speaker) or a group is made of, see `Aligned.cells`.
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
        return {"votes": (self.shares.astype(np.float64), self.has_votes),
                "consensus": (one_hot.astype(np.float64), self.consensus >= 0)}  # fmt: skip

    def sets(self, calibrated: Float[np.ndarray, "B C"]) -> dict[str, Bool[np.ndarray, "B C"]]:
        """All kinds of sets by name."""
        scores = conformal.scores(calibrated)
        return {
            "set": conformal.sets(scores, self.applied.lac),
            "set by gender": conformal.sets(scores, self.applied.lac_by_gender),
        }


def cell_sums(heard: Heard) -> resampling.Sums:
    """Sums of each cell, [cells, ...]; those of a unit or a group are the sums over its cells."""

    def summed(values: np.ndarray, is_in: np.ndarray) -> np.ndarray:
        return np.bincount(heard.cell[is_in], values[is_in], heard.num_cells)

    plain = calibration.tempered(heard.distribution, 1.0)
    calibrated = calibration.tempered(heard.distribution, heard.applied.temperature)
    sets, sums, places = heard.sets(calibrated), {}, (heard.cell, heard.num_cells)
    sizes = {name: is_member.sum(axis=1).astype(np.float64) for name, is_member in sets.items()}
    for outcome, (said, has) in heard.outcomes.items():
        sums[f"num {outcome}"] = summed(np.ones(len(has)), has)
        for name, predicted in (("plain", plain), ("calibrated", calibrated)):
            best, sure = predicted.argmax(axis=1), predicted.max(axis=1)
            right = np.take_along_axis(said, best[:, None], axis=1)[:, 0]
            sums[f"{name} bins {outcome}"] = calibration.bin_sums(sure, right, has, *places)
        sums[f"steps {outcome}"] = abstention.step_sums(sure, 1 - right, has, *places)
        for name, is_member in sets.items():
            sums[f"{name} holds {outcome}"] = summed((said * is_member).sum(axis=1), has)
            sums[f"{name} size {outcome}"] = summed(sizes[name], has)
    for name, predicted in (("plain", plain), ("calibrated", calibrated)):
        sums[f"{name} log loss"] = summed(calibration.log_loss(predicted, heard.shares), heard.has_votes)
    return sums | _entropy_sums(heard, sizes["set"], summed)


def _entropy_sums(heard: Heard, size: np.ndarray, summed: Callable[..., np.ndarray]) -> resampling.Sums:
    """Moments of the raters' entropy and the size of sets, and sizes in bins of entropy."""
    share, has = np.asarray(heard.shares, np.float64), heard.has_votes
    entropy = -(share * np.log(np.maximum(share, np.finfo(float).tiny))).sum(axis=1)
    x = entropy - (entropy[has].mean() if has.any() else 0.0)
    pairs = (("x", x), ("y", size), ("xx", x * x), ("yy", size * size), ("xy", x * size))
    sums = {f"entropy {name}": summed(values, has) for name, values in pairs}
    most = np.log(share.shape[1]) if share.shape[1] > 1 else 1.0
    place = np.clip((entropy / most * NUM_ENTROPIES).astype(int), 0, NUM_ENTROPIES - 1)
    of_bins = [
        [summed(values, has & (place == n)) for values in (np.ones(len(has)), size)] for n in range(NUM_ENTROPIES)
    ]
    return sums | {"entropy sizes": np.moveaxis(np.array(of_bins), 2, 0)}


def of_units(
    sums: resampling.Sums, is_in: Bool[np.ndarray, " cells"], unit_of_cell: Int[np.ndarray, " cells"], num_units: int
) -> resampling.Sums:
    """Sums of each unit, [U, ...], over those of its cells that are in."""
    made = {}
    for name, values in sums.items():
        made[name] = np.zeros((num_units, *values.shape[1:]))
        np.add.at(made[name], unit_of_cell[is_in], values[is_in])
    return made


def values(sums: Mapping[str, np.ndarray], level: float) -> dict[Metric, Float[np.ndarray, " R"]]:
    """Metrics of R resamples from their sums, NaN where not defined."""
    percent = 100 * level
    made: dict[Metric, np.ndarray] = {}
    for outcome in OUTCOMES:
        number = sums[f"num {outcome}"]

        def mean(name: str, number: np.ndarray = number) -> np.ndarray:
            return np.where(number > 0, sums[name] / np.maximum(number, 1), np.nan)

        made[metric("ece", outcome=outcome)] = calibration.calibration_error(sums[f"plain bins {outcome}"])
        made[metric("ece_calibrated", outcome=outcome)] = calibration.calibration_error(
            sums[f"calibrated bins {outcome}"]
        )
        if outcome == "votes":
            made[metric("nll")] = mean("plain log loss")
            made[metric("nll_calibrated")] = mean("calibrated log loss")
            for name, end in _KINDS:
                made[metric(f"set_size{end}", level=percent)] = mean(f"{name} size votes")
        for name, end in _KINDS:
            made[metric(f"held{end}", outcome=outcome, level=percent)] = mean(f"{name} holds {outcome}")
        made[metric("aurc", outcome=outcome)] = abstention.area(sums[f"steps {outcome}"])
        made[metric("risk", outcome=outcome)] = mean_of(sums[f"steps {outcome}"].sum(axis=1))
    made[metric("set_size_entropy")] = _correlation(sums)
    return made


def mean_of(pair: Float[np.ndarray, "*R 2"]) -> Float[np.ndarray, "*R"]:
    """Sum over number, of (number, sum); NaN of nothing."""
    return np.where(pair[..., 0] > 0, pair[..., 1] / np.maximum(pair[..., 0], 1), np.nan)


def _correlation(sums: Mapping[str, np.ndarray]) -> np.ndarray:
    number = np.maximum(sums["num votes"], 1)
    x, y = sums["entropy x"] / number, sums["entropy y"] / number
    xx, yy = sums["entropy xx"] / number - x * x, sums["entropy yy"] / number - y * y
    is_defined = (xx > 1e-9) & (yy > 1e-9)
    return np.where(
        is_defined, (sums["entropy xy"] / number - x * y) / np.sqrt(np.where(is_defined, xx * yy, 1)), np.nan
    )


def curves(sums: Mapping[str, np.ndarray]) -> dict[str, Float[np.ndarray, "R points"]]:
    """What figures show of R resamples: risk at coverages, outcome by bin of confidence, size of sets by entropy."""
    made = {"size by entropy": mean_of(sums["entropy sizes"])}
    for outcome in OUTCOMES:
        made[f"risk {outcome}"] = abstention.curve(sums[f"steps {outcome}"])
        for name in ("plain", "calibrated"):
            made[f"{name} {outcome}"] = calibration.bin_means(sums[f"{name} bins {outcome}"])[..., 1]
    return made

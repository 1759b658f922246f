"""How well a system knows what it knows: calibration, conformal sets and abstention, as entries of result records.

Every number is a function of sums over units (speakers), so its interval is that of all other metrics, with the same
resamples. In `metrics` stand the members, each with its own temperature and thresholds; in `states["calibration"]`
their mean distribution, the model that is exported, and its curves.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from seremo_jax import abstention, calibration, conformal, ensemble, intervals
from seremo_jax.alignment import Aligned
from seremo_jax.calibrated import Applied, Calibrations
from seremo_jax.config_sections import EvalConfig
from seremo_jax.ensemble import Member
from seremo_jax.schema import ResultRecord

NUM_ENTROPIES = 5
"""Bins of equal width of the raters' entropy, from 0 to log C."""
OUTCOMES = ("votes", "consensus")
"""What a prediction is held against."""
STATES = "calibration"
"""Where the curves stand in a record's states."""


@dataclasses.dataclass(frozen=True)
class Heard:
    """What one model says of B utterances, and what raters said.

    Attributes:
      distribution: [B, C] predicted.
      applied: Temperatures and thresholds.
      shares: [B, C] vote shares.
      has_votes: [B] bool.
      consensus: [B] class, -1 where there is none.
      unit: [B] unit that is resampled.
      num_units: Number of all units.
    """

    distribution: np.ndarray
    applied: Applied
    shares: np.ndarray
    has_votes: np.ndarray
    consensus: np.ndarray
    unit: np.ndarray
    num_units: int

    @property
    def outcomes(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Of each of `OUTCOMES` what was said of each class [B, C], and which utterances count [B]."""
        one_hot = np.arange(self.shares.shape[1]) == self.consensus[:, None]
        return {"votes": (self.shares.astype(np.float64), self.has_votes),
                "consensus": (one_hot.astype(np.float64), self.consensus >= 0)}  # fmt: skip

    def sets(self, calibrated: Float[np.ndarray, "B C"]) -> dict[str, Bool[np.ndarray, "B C"]]:
        """All kinds of sets by name."""
        lac, aps = (conformal.scores(calibrated, kind) for kind in conformal.KINDS)
        found = {
            "set": conformal.sets(lac, self.applied.lac),
            "set by gender": conformal.sets(lac, self.applied.lac_by_gender),
            "aps set": conformal.sets(aps, self.applied.aps),
        }
        for n, at in self.applied.lac_of_size.items():
            found |= {f"sets of size {n}": conformal.sets(lac, at), f"{n}-best": conformal.best_sets(calibrated, n)}
        return found


def unit_sums(heard: Heard, is_in: Bool[np.ndarray, " B"]) -> intervals.Sums:
    """Sums of each unit [U, ...] over the utterances that are in."""
    number, unit = heard.num_units, heard.unit

    def summed(values: np.ndarray, is_in: np.ndarray) -> np.ndarray:
        return np.bincount(unit[is_in], values[is_in], number)

    plain = calibration.tempered(heard.distribution, 1.0)
    calibrated = calibration.tempered(heard.distribution, heard.applied.temperature)
    sets, sums = heard.sets(calibrated), {}
    for outcome, (said, has) in heard.outcomes.items():
        counted = is_in & has
        sums[f"num {outcome}"] = summed(np.ones(len(unit)), counted)
        for name, predicted in (("plain", plain), ("calibrated", calibrated)):
            best, sure = predicted.argmax(axis=1), predicted.max(axis=1)
            right = np.take_along_axis(said, best[:, None], axis=1)[:, 0]
            sums[f"{name} bins {outcome}"] = calibration.bin_sums(sure, right, counted, unit, number)
        sums[f"steps {outcome}"] = abstention.step_sums(sure, 1 - right, counted, unit, number)
        for name, is_member in sets.items():
            sums[f"{name} holds {outcome}"] = summed((said * is_member).sum(axis=1), counted)
            sums[f"{name} size {outcome}"] = summed(is_member.sum(axis=1).astype(np.float64), counted)
    counted = is_in & heard.has_votes
    for name, predicted in (("plain", plain), ("calibrated", calibrated)):
        sums[f"{name} log loss"] = summed(calibration.log_loss(predicted, heard.shares), counted)
    share = np.asarray(heard.shares, np.float64)
    entropy = -(share * np.log(np.maximum(share, np.finfo(float).tiny))).sum(axis=1)
    size = sets["set"].sum(axis=1).astype(np.float64)
    x, y = entropy - entropy[heard.has_votes].mean() if heard.has_votes.any() else entropy, size
    for name, values in (("x", x), ("y", y), ("xx", x * x), ("yy", y * y), ("xy", x * y)):
        sums[f"entropy {name}"] = summed(values, counted)
    most = np.log(share.shape[1]) if share.shape[1] > 1 else 1.0
    place = np.clip((entropy / most * NUM_ENTROPIES).astype(int), 0, NUM_ENTROPIES - 1)
    cell = (unit.astype(np.int64) * NUM_ENTROPIES + place)[counted]
    pair = [np.bincount(cell, weight, number * NUM_ENTROPIES) for weight in (np.ones(len(cell)), size[counted])]
    sums["entropy sizes"] = np.stack(pair, axis=-1).reshape(number, NUM_ENTROPIES, 2)
    return sums


def values(sums: Mapping[str, np.ndarray], level: float) -> dict[str, Float[np.ndarray, " R"]]:
    """Metrics of R resamples from their sums, NaN where not defined."""
    percent, made = f"{100 * level:g} %", {}
    for outcome in OUTCOMES:
        number = sums[f"num {outcome}"]

        def mean(name: str, number: np.ndarray = number) -> np.ndarray:
            return np.where(number > 0, sums[name] / np.maximum(number, 1), np.nan)

        made[f"ECE ({outcome})"] = calibration.calibration_error(sums[f"plain bins {outcome}"])
        made[f"ECE ({outcome}, calibrated)"] = calibration.calibration_error(sums[f"calibrated bins {outcome}"])
        if outcome == "votes":
            made |= {"NLL": mean("plain log loss"), "NLL (calibrated)": mean("calibrated log loss")}
            for name, words in (("set", ""), ("set by gender", ", by gender"), ("aps set", ", APS")):
                made[f"set size ({percent}{words})"] = mean(f"{name} size votes")
        for name, words in (("set", ""), ("set by gender", ", by gender"), ("aps set", ", APS")):
            made[f"{outcome} in set ({percent}{words})"] = mean(f"{name} holds {outcome}")
        made[f"AURC ({outcome})"] = abstention.area(sums[f"steps {outcome}"])
        made[f"risk ({outcome})"] = mean_of(sums[f"steps {outcome}"].sum(axis=1))
    made["set size-entropy correlation"] = _correlation(sums)
    return made


def equal_sizes(sums: Mapping[str, np.ndarray], sizes: Sequence[int]) -> dict[str, Float[np.ndarray, " R"]]:
    """N-best sets beside conformal sets whose mean size on the development split was N, and their differences."""
    made = {}
    for n in sizes:
        number = sums["num votes"]
        made[f"{n} size"] = mean_of(np.stack([number, sums[f"sets of size {n} size votes"]], axis=-1))
        for outcome in OUTCOMES:
            number = sums[f"num {outcome}"]
            held = [mean_of(np.stack([number, sums[f"{name} holds {outcome}"]], axis=-1))
                    for name in (f"{n}-best", f"sets of size {n}")]  # fmt: skip
            made |= {f"{n} {outcome} best": held[0], f"{n} {outcome} sets": held[1]}
            made[f"{n} {outcome} gain"] = held[1] - held[0]
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


def _curves(sums: Mapping[str, np.ndarray]) -> dict[str, Float[np.ndarray, "R points"]]:
    """What figures show, one row a resample."""
    made = {"size by entropy": mean_of(sums["entropy sizes"])}
    for outcome in OUTCOMES:
        made[f"risk {outcome}"] = abstention.curve(sums[f"steps {outcome}"])
        for name in ("plain", "calibrated"):
            made[f"{name} {outcome}"] = calibration.bin_means(sums[f"{name} bins {outcome}"])[..., 1]
    return made


@dataclasses.dataclass(frozen=True)
class _Draw:
    num_resamples: int
    seed: int
    level: float


def with_calibration(
    records: Sequence[ResultRecord],
    aligned: Aligned,
    fitted: Calibrations,
    pooled: Sequence[Member],
    rows: Mapping[int | None, np.ndarray],
    ids: np.ndarray,
    section: EvalConfig,
) -> list[ResultRecord]:
    """Records with calibration, conformal sets and abstention added; those of gaps between groups stay as they are.

    Args:
      records: Of one split in one condition.
      aligned: The predictions they are of.
      fitted: On the development split.
      pooled: Member of each row of the predictions, without its fold.
      rows: Fold -> rows of the utterance table that it predicts.
      ids: [N] of the utterance table.
      section: Resamples of speakers and their seed, the same as of other metrics, so that all see the same resamples.
    """
    fold_of = {str(ids[row]): place for place, part in enumerate(rows.values()) for row in part}
    fold = np.array([fold_of[name] for name in sorted(fold_of)])  # the order of `aligned`
    folds, systems = list(rows), {about["system"]: mine for mine, about in ensemble.systems([*map(vars, pooled)])}
    genders = [aligned.genders[unit] for unit in aligned.unit]
    draw, added = _Draw(section.num_resamples, section.seed, fitted.level), []
    for record in records:
        mine = list(systems[record.system])
        found = [fitted.of_folds([pooled[row]], folds) for row in mine]
        together = fitted.of_folds([pooled[row] for row in mine], folds)
        if record.group not in aligned.groups or together is None or None in found:
            added.append(record)
            continue
        distributions = [np.asarray(aligned.predictions_distribution[row], np.float64) for row in mine]
        rest = (aligned.distribution, aligned.has_votes, aligned.consensus, aligned.unit, len(aligned.speakers))
        models = [Heard(one, Applied.of(fit, fold, genders), *rest)
                  for one, fit in zip(distributions, found, strict=True)]  # fmt: skip
        mean = Heard(np.mean(distributions, axis=0), Applied.of(together, fold, genders), *rest)
        is_in = aligned.groups[record.group]
        members = _entries(models, is_in, draw)
        states = {"ensemble": members if len(mine) == 1 else _entries([mean], is_in, draw)}
        if record.group == "all":
            states |= _states(mean, is_in, draw) | {
                "level": fitted.level,
                "fitted": [
                    dataclasses.asdict(one) | {"fold": place} for one, place in zip(together, folds, strict=True)
                ],
            }
        states = _plain(states)
        added.append(dataclasses.replace(
            record, metrics=record.metrics | members, states=record.states | {STATES: states}
        ))  # fmt: skip
    return added


def _entries(models: Sequence[Heard], is_in: Bool[np.ndarray, " B"], draw: _Draw) -> dict[str, dict[str, Any]]:
    """Entries of the mean of every metric over some models."""
    points, resampled = [], []
    for heard in models:  # one after the other: the sums are large
        sums = unit_sums(heard, is_in)
        points.append(values({name: one.sum(axis=0, keepdims=True) for name, one in sums.items()}, draw.level))
        resampled.append(
            intervals.bootstrap(sums, lambda drawn: values(drawn, draw.level), draw.num_resamples, draw.seed)
        )
    num_units = int(intervals.used_units(sums).sum())
    weights = intervals.resample_weights(len(models), draw.num_resamples, draw.seed + 1, draw.num_resamples)
    weights, made = np.concatenate(list(weights)), {}
    for name in points[0]:
        point, drawn = (np.stack([one[name] for one in many], axis=1) for many in (points, resampled))
        outcome = "consensus" if "consensus" in name else "votes"
        count = np.array([sums[f"num {outcome}"].sum()])
        score = intervals.Score(drawn, np.isfinite(drawn).all(axis=1), np.zeros(len(drawn)))
        made[name] = intervals.entry(
            intervals.Score(point, np.isfinite(point).all(axis=1), count), score.means(weights), num_units
        )
    return made


def _states(heard: Heard, is_in: Bool[np.ndarray, " B"], draw: _Draw) -> dict[str, Any]:
    """Curves and the comparison at equal size, each with intervals."""
    sums, sizes = unit_sums(heard, is_in), tuple(heard.applied.lac_of_size)
    whole = {name: one.sum(axis=0, keepdims=True) for name, one in sums.items()}
    num_units = int(intervals.used_units(sums).sum())
    made: dict[str, Any] = {}

    def bounded(name: str, point: np.ndarray, drawn: np.ndarray) -> dict[str, list]:
        bounds = [intervals.interval(column, num_units) for column in drawn.T]
        return {"value": point[0].tolist(), "low": [low for low, _ in bounds], "high": [high for _, high in bounds]}

    points = _curves(whole)
    drawn = intervals.bootstrap(sums, _curves, draw.num_resamples, draw.seed)
    made["curves"] = {name: bounded(name, points[name], drawn[name]) for name in points}
    made["coverages"] = list(abstention.COVERAGES)
    for outcome in OUTCOMES:
        for name in ("plain", "calibrated"):
            bins = whole[f"{name} bins {outcome}"][0]
            made["curves"][f"{name} {outcome}"] |= {
                "num": bins[:, 0].tolist(), "confidence": calibration.bin_means(bins)[:, 0].tolist()
            }  # fmt: skip
    made["curves"]["size by entropy"]["num"] = whole["entropy sizes"][0, :, 0].tolist()
    points = equal_sizes(whole, sizes)
    drawn = intervals.bootstrap(sums, lambda one: equal_sizes(one, sizes), draw.num_resamples, draw.seed)
    made["equal sizes"] = {
        name: {"value": float(points[name][0]), **dict(zip(("low", "high"), intervals.interval(drawn[name], num_units),
                                                           strict=True))} for name in points
    }  # fmt: skip
    return made


def _plain(value: Any) -> Any:
    """The same for JSON: no number that is not finite."""
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value

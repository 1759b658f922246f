"""The question put to every layer, and the answer: which utterances and targets the curves are over, what they say.

Two curves: `ccs`, the mean absolute correlation of single features with the targets, and `probe`, the CCC that ridge
regression on all features reaches on held-out speakers. `saliency.npz` holds the sums with what they were made from;
`saliency.json` the curves, each with its interval over speakers, and the layer chosen.
"""

import dataclasses
import json
import os
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from jaxtyping import Float

from seremo_jax.core import vocab
from seremo_jax.core.artefacts import (
    ArtefactError,
    clear_when_full,
    place_of,
    read_arrays,
    require_same,
    to_json,
    write_arrays,
    write_json,
)
from seremo_jax.core.config import Config, ConfigError
from seremo_jax.data import policies, splits, targets
from seremo_jax.data.tables import read_tables
from seremo_jax.metrics import intervals
from seremo_jax.metrics.moments import Moments
from seremo_jax.saliency import correlation, uncertainty

SUMS_FILE, SUMMARY_FILE = "saliency.npz", "saliency.json"
_REMEDY = f"Use another --workdir, or delete {SUMS_FILE} and run python -m launch.extract again"


@dataclasses.dataclass(frozen=True)
class Question:
    """What saliency is asked for.

    Attributes:
      rows: [n] rows of the utterance table: the seeded draw from the training split, ascending.
      values: [N, Y] float32 targets of every row of the table, attributes then vote shares.
      mask: [N, Y] bool, False where a row has no such target or was not drawn.
      is_drawn: [N] bool, the rows in `rows`.
      fold: [N] int32 fold of the row's speaker, -1 where it was not drawn. Utterances of speaker `unknown` are in one
        fold together: nobody can say who else they are.
      group: [N] int32 group of speakers that the intervals leave out together (one speaker a group up to 100 speakers),
        -1 likewise.
      attribute_names: Names of the attributes.
      class_names: Names of the classes.
      about: Everything that decides `rows`, `values` and `mask`.
    """

    rows: np.ndarray
    values: np.ndarray
    mask: np.ndarray
    is_drawn: np.ndarray
    fold: np.ndarray
    group: np.ndarray
    attribute_names: tuple[str, ...]
    class_names: tuple[str, ...]
    about: dict[str, Any]


class Curves(NamedTuple):
    """What the intervals and the probe are made from, NumPy arrays.

    Attributes:
      without: [K, G, Y] float64 mean absolute correlation without each group of speakers.
      ridge: [K, Y] float64 strength of the probe that did best; NaN where a target's utterances are of one fold.
      probe: [K, V, Y] float64 CCC of the probe for each strength, likewise.
      held_out: Moments [K, G, Y] of the probe's predictions for held-out speakers.
    """

    without: Any
    ridge: Any
    probe: Any
    held_out: Moments


_MOST_GROUPS = 100
_WITHOUT_EFFECT = (
    *("targets.class_target", "targets.attribute_scale", "targets.tie_rule"),
    "targets.predict_variance",
)
"""Correlation knows neither scale nor tie rule, so these settings need no new pass over the audio."""


def ask(config: Config, utterances: pa.Table, ratings: pa.Table, fingerprint: str) -> Question:
    """The question that the config asks of a corpus.

    Args:
      config: Sections `saliency` and `targets` are read, and `data.modality`.
      utterances: Utterance table.
      ratings: Ratings table.
      fingerprint: Fingerprint of both.

    Raises:
      ConfigError: `saliency.targets` names targets that the corpus lacks.
      ArtefactError: The training split has fewer than two utterances.
    """
    asked = {**policies.of_targets(config), "attribute_scale": "centered", "tie_rule": "no_agreement"}
    built = targets.build(utterances, ratings, **asked)
    train = np.flatnonzero(np.array(utterances["split"].to_pylist()) == vocab.TRAIN)
    if len(train) < 2:
        raise ArtefactError(f"the training split has {len(train)} utterances: saliency needs at least 2")
    rows = np.sort(np.random.default_rng(config.saliency.seed).permutation(train)[: config.saliency.num_utterances])
    has_votes = np.repeat(built.has_votes[:, None], len(built.class_names), axis=1)
    is_drawn = np.zeros(len(built.has_votes), bool)
    is_drawn[rows] = True
    mask = np.concatenate([built.has_attribute, has_votes], axis=1) & is_drawn[:, None]
    num_attributes = len(built.attribute_names)
    if config.saliency.targets == "attributes" and not mask[:, :num_attributes].any():
        raise ConfigError(
            "saliency.targets = 'attributes', but no training utterance has any of "
            f"{', '.join(asked['attributes']) or 'them'} (the corpus may have none): rank layers by the shares of "
            "votes with --config.saliency.targets=votes"
        )
    if config.saliency.targets == "votes" and not mask[:, num_attributes:].any():
        raise ConfigError("saliency.targets = 'votes', but no training utterance has a vote in targets.class_set")
    speakers, seed = np.array(utterances["speaker"].to_pylist()), config.saliency.seed
    fold, group = (
        _parts(speakers, is_drawn, most, f"{what}:{seed}")
        for what, most in (("fold", config.saliency.num_folds), ("group", _MOST_GROUPS))
    )
    return Question(
        rows,
        np.concatenate([built.attributes, built.distribution], axis=1).astype(np.float32),
        mask,
        is_drawn,
        fold,
        group,
        built.attribute_names,
        built.class_names,
        {"tables_fingerprint": fingerprint, "split": vocab.TRAIN, **_fields(config)},
    )


def _parts(speakers: np.ndarray, is_drawn: np.ndarray, most: int, salt: str) -> np.ndarray:
    """[N] int32 part that each drawn row's speaker was dealt to, at most `most`; -1 for the other rows."""
    part_of = splits.deal(set(speakers[is_drawn].tolist()), most, salt)
    return np.array([part_of[name] if drawn else -1 for name, drawn in zip(speakers, is_drawn, strict=True)], np.int32)


def _fields(config: Config) -> dict[str, Any]:
    """The config fields that decide a question."""
    fields = config.results_fields("saliency", "targets", "data")
    names = ["saliency.num_utterances", "saliency.seed", "saliency.num_folds", "data.modality", "data.self_reports"]
    names += [name for name in fields if name.startswith("targets.") and name not in _WITHOUT_EFFECT]
    return {name: fields[name] for name in names}


def write(
    workdir: str | os.PathLike, state: correlation.State, curves: Curves, question: Question, backbone: dict[str, Any]
) -> None:
    """Writes `WORKDIR/saliency.npz`.

    Args:
      workdir: Folder of the experiment.
      state: Co-moments of the layers `backbone["layers"]`.
      curves: Of the same layers.
      question: What they answer.
      backbone: Name, revision and layers of what they were computed from.
    """
    about = {
        "question": question.about,
        "backbone": backbone,
        "attributes": question.attribute_names,
        "classes": question.class_names,
        "num_utterances": len(question.rows),
        "num_folds": int(question.fold.max()) + 1,
    }
    arrays = {f"curves.{name}": getattr(curves, name) for name in _PLAIN}
    arrays |= {f"held_out.{name}": leaf for name, leaf in curves.held_out._asdict().items()}
    with clear_when_full(place_of(workdir) / SUMS_FILE):
        write_arrays(
            place_of(workdir) / SUMS_FILE, about=np.array(to_json(about)), **correlation.to_arrays(state), **arrays
        )


_PLAIN = ("without", "ridge", "probe")


def read(workdir: str | os.PathLike) -> tuple[correlation.State, Curves, dict[str, Any]]:
    """The co-moments and curves of `WORKDIR/saliency.npz`, and what they are about.

    Raises:
      ArtefactError: The file is missing or damaged.
    """
    path = place_of(workdir) / SUMS_FILE
    arrays = read_arrays(path, "run python -m launch.extract with this --workdir")
    try:
        held_out = Moments(*(arrays[f"held_out.{name}"] for name in Moments._fields))
        curves = Curves(*(arrays[f"curves.{name}"] for name in _PLAIN), held_out)
        return correlation.from_arrays(arrays), curves, json.loads(str(arrays["about"]))
    except (KeyError, ValueError, ArtefactError) as error:
        raise ArtefactError(f"{path} is damaged or of an older version ({error}). {_REMEDY}") from None


def require(workdir: str | os.PathLike, question: Question, backbone: dict[str, Any]) -> None:
    """Refuses a `saliency.npz` of other settings.

    Raises:
      ArtefactError: Names both sides.
    """
    about = read(workdir)[2]
    path = place_of(workdir) / SUMS_FILE
    require_same(f"{path} (question)", about["question"], json.loads(to_json(question.about)), _REMEDY)
    require_same(f"{path} (backbone)", about["backbone"], json.loads(to_json(backbone)), _REMEDY)


def summarise(workdir: str | os.PathLike, config: Config) -> dict[str, Any]:
    """Ranks the layers by `saliency.npz`, writes `WORKDIR/saliency.json` and returns its content.

    Returns:
      `layers` [K]; `targets` [Y], of which `attributes` and `classes`; `curves`, see below; `kind`, the curve in use,
      and `chosen`, its layer of largest score; `use`, the targets in use; `num_utterances` drawn and `count` [Y] those
      that have each target; `varies` [Y]; `num_folds` and `num_groups` of speakers; `num_features`; `num_constant` [K]
      features that are constant; `backbone`; `warnings`.

      `curves` has `ccs` and `probe` (None where the speakers are too few for it), each with `per_layer` [K][Y] mean
      absolute correlation or CCC; `score` [K], its mean over the targets in use that vary; `low` and `high` [K] its
      95 % interval over speakers; `behind`, `behind_low` and `behind_high` [K] what it lacks to the chosen layer's,
      on the same speakers; `chosen`, the layer of largest score, the lowest of equal ones. `probe` has `ridge` [K][Y],
      too. Its interval is that of the probes as they were fitted: other speakers to predict, not others to fit.

    Raises:
      ArtefactError: `saliency.npz` is missing, damaged, or belongs to other tables or settings.
      ConfigError: None of the targets in use varies, or `saliency.kind` asks for a probe that cannot be.

    Source: method.md section 7; OURS: the probe and all intervals.
    """
    state, sums, about = read(workdir)
    expected = {"tables_fingerprint": read_tables(workdir)[2], "split": vocab.TRAIN, **_fields(config)}
    require_same(f"{place_of(workdir) / SUMS_FILE}", about["question"], json.loads(to_json(expected)), _REMEDY)
    answer, layers, use = correlation.compute(state), about["backbone"]["layers"], config.saliency.targets
    names = [*about["attributes"], *about["classes"]]
    try:
        is_used = correlation.targets_in_use(answer, names, about["attributes"], use)
        curves = {
            "ccs": _curve(layers, np.asarray(answer.per_layer, np.float64), sums.without, is_used),
            "probe": _probe_curve(layers, sums, is_used),
        }
    except ValueError as error:
        raise ConfigError(f"saliency of {workdir}: {error}") from None
    kind, num_constant = config.saliency.kind, np.asarray(answer.num_constant)
    if curves[kind] is None:
        raise ConfigError(
            "saliency.kind = 'probe' looks at held-out speakers, but the targets in use are of one speaker (or of "
            "unknown ones): set --config.saliency.kind=ccs, or --config.data.unknown_speakers=each at ingest"
        )
    chosen = curves[kind]["chosen"]
    summary = {
        "layers": layers,
        "targets": names,
        "attributes": about["attributes"],
        "classes": about["classes"],
        "curves": curves,
        "kind": kind,
        "chosen": chosen,
        "use": use,
        "num_utterances": about["num_utterances"],
        "count": np.asarray(answer.count),
        "varies": np.asarray(answer.is_varying),
        "num_folds": about["num_folds"],
        "num_groups": sums.without.shape[1],
        "num_features": int(answer.correlation.shape[1]),
        "num_constant": num_constant,
        "backbone": about["backbone"],
        "warnings": _warnings(layers, chosen, num_constant, curves["probe"] is None),
    }
    with clear_when_full(place_of(workdir) / SUMMARY_FILE):
        write_json(place_of(workdir) / SUMMARY_FILE, summary)
    return json.loads(to_json(summary))


def _curve(
    layers: list[int], per_layer: Float[np.ndarray, "K Y"], without: Float[np.ndarray, "K G Y"], is_used: np.ndarray
) -> dict[str, Any]:
    score, score_without = per_layer[:, is_used].mean(axis=1), without[..., is_used].mean(axis=2).T
    place = correlation.pick_layer(score)
    low, high = uncertainty.jackknife(score, score_without)
    behind = score[place] - score
    behind_low, behind_high = uncertainty.jackknife(behind, score_without[:, [place]] - score_without)
    bounds = {"low": low, "high": high, "behind_low": behind_low, "behind_high": behind_high}
    return {
        "per_layer": per_layer,
        "score": score,
        "behind": behind,
        **{name: [None if np.isnan(value) else value for value in values.tolist()] for name, values in bounds.items()},
        "chosen": layers[place],
    }


def _probe_curve(layers: list[int], sums: Curves, is_used: np.ndarray) -> dict[str, Any] | None:
    if np.isnan(sums.ridge[:, is_used]).any():
        return None
    by_group = Moments(*(np.swapaxes(leaf, 0, 1) for leaf in sums.held_out))
    own, shift = intervals.moment_sums(by_group, "")
    total = {name: values.sum(axis=0, keepdims=True) for name, values in own.items()}
    others = {name: total[name] - values for name, values in own.items()}
    whole, without = (intervals.moments_of_sums(part, "", shift).compute().ccc for part in (total, others))
    ridge = [[None if np.isnan(value) else value for value in row] for row in sums.ridge.tolist()]
    return {**_curve(layers, whole[0], np.swapaxes(without, 0, 1), is_used), "ridge": ridge}


def _warnings(layers: list[int], chosen: int, num_constant: np.ndarray, lacks_probe: bool) -> list[str]:
    warnings = []
    if chosen == layers[-1]:
        warnings.append(
            f"saliency chose the last layer, {chosen}: published curves peak at intermediate ones, so look at the curve"
        )
    if num_constant.any():
        told = ", ".join(f"{count} in layer {layers[k]}" for k, count in enumerate(num_constant.tolist()) if count)
        warnings.append(f"features that never vary count as saliency 0: {told}")
    if lacks_probe:
        warnings.append("no probe of the layers: the targets in use are of one speaker, or of unknown ones")
    return warnings

"""The answer of the layers: two curves over them, the layer and the features that they choose.

The curve `ccs` is the mean absolute correlation of single features with the targets. The curve `probe` is the CCC that
ridge regression on all features reaches on held-out speakers. `saliency.npz` holds the sums behind both, with the
question that they answer. `saliency.json` holds the curves, each with its interval over speakers, and the layer chosen.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from seremo_jax.core.arrays import read_arrays, write_arrays
from seremo_jax.core.artefacts import (
    ArtefactError,
    clear_when_full,
    place_of,
    read_json,
    remove_leftovers,
    require_same,
    to_json,
    write_json,
)
from seremo_jax.core.config import Config, ConfigError
from seremo_jax.core.ensemble import folds_to_choose_for
from seremo_jax.core.lock import at_work
from seremo_jax.core.sharding import is_first_process
from seremo_jax.data.tables import read_for
from seremo_jax.metrics import intervals
from seremo_jax.metrics.moments import Moments
from seremo_jax.saliency import correlation, uncertainty
from seremo_jax.saliency.question import Question, about

SUMMARY_FILE = "saliency.json"


def sums_file(split_fold: int | None = None) -> str:
    """Name of the file of sums over the training split of the table, or of a fold."""
    return "saliency.npz" if split_fold is None else f"saliency_fold{split_fold}.npz"


SUMS_FILE = sums_file()
_REMEDY = f"Use another --workdir, or delete {SUMS_FILE} and run python -m launch.extract again"


class Curves(NamedTuple):
    """The NumPy arrays behind the intervals and the probe.

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


def write(
    workdir: str | os.PathLike, state: correlation.State, curves: Curves, question: Question, backbone: dict[str, Any]
) -> None:
    """Writes the `sums_file` of a question.

    Args:
      workdir: Folder of the experiment.
      state: Co-moments of the layers `backbone["layers"]`.
      curves: Of the same layers.
      question: The question that they answer.
      backbone: Name, revision and layers of the backbone that they were computed from.
    """
    origin = {
        "question": question.about,
        "backbone": backbone,
        "attributes": question.attribute_names,
        "classes": question.class_names,
        "num_utterances": len(question.rows),
        "num_folds": int(question.fold.max()) + 1,
    }
    arrays = {f"curves.{name}": getattr(curves, name) for name in _PLAIN}
    arrays |= {f"held_out.{name}": leaf for name, leaf in curves.held_out._asdict().items()}
    path = place_of(workdir) / sums_file(question.split_fold)
    with clear_when_full(path):
        write_arrays(path, about=np.array(to_json(origin)), **correlation.to_arrays(state), **arrays)


_PLAIN = ("without", "ridge", "probe")


def read(workdir: str | os.PathLike, split_fold: int | None = None) -> tuple[correlation.State, Curves, dict[str, Any]]:
    """The co-moments and curves of a `sums_file`, and what they are about.

    Args:
      workdir: Folder of the experiment.
      split_fold: Fold whose training split they are of; None for the splits of the utterance table.

    Raises:
      ArtefactError: The file is missing or damaged.
    """
    path = place_of(workdir) / sums_file(split_fold)
    arrays = read_arrays(path, "run python -m launch.extract with this --workdir")
    try:
        held_out = Moments(*(arrays[f"held_out.{name}"] for name in Moments._fields))
        curves = Curves(*(arrays[f"curves.{name}"] for name in _PLAIN), held_out)
        return correlation.from_arrays(arrays), curves, json.loads(str(arrays["about"]))
    except (KeyError, ValueError, ArtefactError) as error:
        raise ArtefactError(f"{path} is damaged or of an older version ({error}). {_REMEDY}") from None


def require(workdir: str | os.PathLike, question: Question, backbone: dict[str, Any]) -> None:
    """Refuses a `sums_file` of other settings.

    Raises:
      ArtefactError: Names both sides.
    """
    origin = read(workdir, question.split_fold)[2]
    path = place_of(workdir) / sums_file(question.split_fold)
    require_same(f"{path} (question)", origin["question"], json.loads(to_json(question.about)), _REMEDY)
    require_same(f"{path} (backbone)", origin["backbone"], json.loads(to_json(backbone)), _REMEDY)


def summarise(workdir: str | os.PathLike, config: Config) -> dict[str, Any]:
    """Ranks the layers by `saliency.npz`, writes `WORKDIR/saliency.json` and returns its content.

    Returns:
      `settings` of the section `saliency`; `layers` [K]; `targets` [Y], of which `attributes` and `classes`; `curves`,
      see below; `kind`, the curve in use, and `chosen`, its layer of largest score; `use`, the targets in use;
      `num_utterances` drawn and `count` [Y] those that have each target; `varies` [Y]; `num_folds` and `num_groups` of
      speakers; `num_features`; `num_constant` [K] features that are constant; `backbone`; `warnings`. Where saliency
      chooses the layer of each fold, `folds` has an entry for each: `fold`, `kind`, `chosen`, `num_utterances`,
      `warnings` and the fields of the curve in use, all over the training split of that fold.

      `curves` has `ccs` and `probe` (None where the speakers are too few for it), each with `per_layer` [K][Y] mean
      absolute correlation or CCC; `score` [K], its mean over the targets in use that vary; `low` and `high` [K] its
      95 % interval over speakers; `behind`, `behind_low` and `behind_high` [K] what it lacks to the chosen layer's,
      on the same speakers; `chosen`, the layer of largest score, the lowest of equal ones. `probe` has `ridge` [K][Y],
      too. Its interval is that of the probes as they were fitted: other speakers to predict, not others to fit.

    Raises:
      ArtefactError: `saliency.npz` is missing, damaged, or belongs to other tables or settings; or another process is
        at work there.
      ConfigError: None of the targets in use varies, or `saliency.kind` asks for a probe that cannot be.

    Source: METHOD.md, section 7; OURS: the probe and all intervals.
    """
    with at_work(workdir, "saliency", is_first_process()):
        return _summarise(place_of(workdir), config)


def _summarise(workdir: PurePath, config: Config) -> dict[str, Any]:
    fingerprint = read_for(config, workdir)[2]
    summary = _answer(workdir, config, fingerprint, None)
    if folds := folds_to_choose_for(config):
        answers = [_answer(workdir, config, fingerprint, fold) for fold in folds]
        about = ("kind", "chosen", "num_utterances", "warnings")
        summary["folds"] = [
            {"fold": fold, **{name: answer[name] for name in about}, **answer["curves"][answer["kind"]]}
            for fold, answer in zip(folds, answers, strict=True)
        ]
    summary, path = json.loads(to_json(summary)), workdir / SUMMARY_FILE
    if is_first_process() and not _is_written(path, summary):
        remove_leftovers(workdir, f"{SUMMARY_FILE}.*")
        with clear_when_full(path):
            write_json(path, summary)
    return summary


def chosen_layers(summary: Mapping[str, Any]) -> tuple[int, ...]:
    """The layers that the content of `saliency.json` chooses, ascending: one, or those of the folds."""
    return tuple(sorted({entry["chosen"] for entry in summary.get("folds", (summary,))}))


def _answer(workdir: PurePath, config: Config, fingerprint: str, split_fold: int | None) -> dict[str, Any]:
    """What `summarise` returns, over the training split of the table or of a fold."""
    state, sums, origin = read(workdir, split_fold)
    expected, path = about(config, fingerprint, split_fold), workdir / sums_file(split_fold)
    require_same(os.fspath(path), origin["question"], json.loads(to_json(expected)), _REMEDY)
    answer, layers, use = correlation.compute(state), origin["backbone"]["layers"], config.saliency.targets
    names = [*origin["attributes"], *origin["classes"]]
    try:
        is_used = correlation.targets_in_use(answer, names, origin["attributes"], use)
        curves = {
            "ccs": _curve(layers, np.asarray(answer.per_layer, np.float64), sums.without, is_used),
            "probe": _probe_curve(layers, sums, is_used),
        }
    except ValueError as error:
        raise ConfigError(f"saliency of {path}: {error}") from None
    kind, num_constant = config.saliency.kind, np.asarray(answer.num_constant)
    if curves[kind] is None:
        raise ConfigError(
            "saliency.kind = 'probe' looks at held-out speakers, but the targets in use are of one speaker (or of "
            "unknown ones): set --config.saliency.kind=ccs, or --config.data.unknown_speakers=each at ingest"
        )
    chosen = curves[kind]["chosen"]
    return {
        "settings": config.results_fields("saliency"),
        "layers": layers,
        "targets": names,
        "attributes": origin["attributes"],
        "classes": origin["classes"],
        "curves": curves,
        "kind": kind,
        "chosen": chosen,
        "use": use,
        "num_utterances": origin["num_utterances"],
        "count": np.asarray(answer.count),
        "varies": np.asarray(answer.is_varying),
        "num_folds": origin["num_folds"],
        "num_groups": sums.without.shape[1],
        "num_features": int(answer.correlation.shape[1]),
        "num_constant": num_constant,
        "backbone": origin["backbone"],
        "warnings": _warnings(layers, chosen, num_constant, curves["probe"] is None),
    }


def _is_written(path: PurePath, summary: dict[str, Any]) -> bool:
    """Whether the file says this already: a finished workdir may be one that cannot be written to."""
    try:
        return read_json(path, "") == summary
    except ArtefactError:
        return False


def _curve(
    layers: list[int], per_layer: Float[np.ndarray, "K Y"], without: Float[np.ndarray, "K G Y"], is_used: np.ndarray
) -> dict[str, Any]:
    score, score_without = per_layer[:, is_used].mean(axis=1), without[..., is_used].mean(axis=2).T
    place = uncertainty.pick_layer(score)
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
    sums_of_group, shift = intervals.moment_sums(by_group, "")
    total = {name: values.sum(axis=0, keepdims=True) for name, values in sums_of_group.items()}
    others = {name: total[name] - values for name, values in sums_of_group.items()}
    whole, without = (intervals.moments_of_sums(part, "", shift).compute().ccc for part in (total, others))
    ridge = [[None if np.isnan(value) else value for value in row] for row in sums.ridge.tolist()]
    return {**_curve(layers, whole[0], np.swapaxes(without, 0, 1), is_used), "ridge": ridge}


def top_features(workdir: str | os.PathLike, config: Config, layers: Sequence[int]) -> dict[int, np.ndarray]:
    """Layer -> its `model.top_features` features of largest saliency, ascending; empty where all features are kept.

    Args:
      workdir: Folder of the experiment, with `saliency.npz`.
      config: The experiment.
      layers: Layers that heads read, in the order of the result.

    Raises:
      ArtefactError: No saliency was computed, or the backbone has fewer features.

    Source: METHOD.md, section 7 (KNOWN idea of the predecessor; of equal features the lower one is kept).
    """
    num = config.model.top_features
    if not num:
        return {}
    state, _, origin = read(workdir)
    answer = correlation.compute(state)
    num_features = answer.correlation.shape[1]
    if num > num_features:
        raise ArtefactError(f"model.top_features = {num}: the backbone has {num_features} features")
    names = [*origin["attributes"], *origin["classes"]]
    is_used = correlation.targets_in_use(answer, names, origin["attributes"], config.saliency.targets)
    scores = np.asarray(answer.correlation)[:, :, is_used].mean(axis=2)
    slots = {layer: origin["backbone"]["layers"].index(layer) for layer in layers}
    return {layer: np.sort(np.argsort(-scores[slot], kind="stable")[:num]) for layer, slot in slots.items()}


def _warnings(layers: list[int], chosen: int, num_constant: np.ndarray, lacks_probe: bool) -> list[str]:
    warnings = []
    if chosen == layers[-1]:
        warnings.append(
            f"saliency chose the last layer, {chosen}: published curves peak at intermediate ones, so look at the curve"
        )
    if num_constant.any():
        listed = ", ".join(f"{count} in layer {layers[k]}" for k, count in enumerate(num_constant.tolist()) if count)
        warnings.append(f"features that never vary count as saliency 0: {listed}")
    if lacks_probe:
        warnings.append("no probe of the layers: the targets in use are of one speaker, or of unknown ones")
    return warnings

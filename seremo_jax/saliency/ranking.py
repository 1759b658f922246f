"""The answer of the layers: three curves over them, the layer and the features that they choose.

The curve `ccs` is the mean absolute correlation of single features with the targets. The curve `dccs` is the multiple
correlation with all features together. The curve `probe` is the CCC that ridge regression on all features reaches on
held-out speakers. `saliency.npz` holds what lies behind them, with the question that they answer. `saliency.json` holds
the curves, each with its interval over speakers, the layer chosen, and what else every layer holds.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

import jax
import numpy as np

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
from seremo_jax.metrics.moments import Moments
from seremo_jax.saliency import correlation, curve_records
from seremo_jax.saliency.curve_records import Curves
from seremo_jax.saliency.question import Question, about

SUMMARY_FILE = "saliency.json"

# Compiled: operation by operation it would be dozens of programs, which take a second.
_correlations = jax.jit(correlation.compute)


def sums_file(split_fold: int | None = None) -> str:
    """Name of the file of sums over the training split of the table, or of a fold."""
    return "saliency.npz" if split_fold is None else f"saliency_fold{split_fold}.npz"


SUMS_FILE = sums_file()
_RENEW = f"delete {SUMS_FILE} and run python -m launch.extract again, or set --config.saliency.kind=ccs or probe"
_REMEDY = f"Use another --workdir, or delete {SUMS_FILE} and run python -m launch.extract again"


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
        "num_values": {name: len(np.unique(value[value >= 0])) for name, value in question.factors.items()},
    }
    arrays = {f"curves.{name}": getattr(curves, name) for name in (*_PLAIN, *_TOGETHER)}
    arrays |= {} if curves.feature_scores is None else {_SCORES: curves.feature_scores}
    arrays |= {f"shares.{name}": values for name, values in curves.shares.items()}
    arrays |= {f"held_out.{name}": leaf for name, leaf in curves.held_out._asdict().items()}
    path = place_of(workdir) / sums_file(question.split_fold)
    with clear_when_full(path):
        write_arrays(path, about=np.array(to_json(origin)), **correlation.to_arrays(state), **arrays)


_PLAIN = ("without", "ridge", "probe")
_TOGETHER = ("multiple", "multiple_without", "shrinkage")
_SCORES = "curves.feature_scores"


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
        origin = json.loads(str(arrays["about"]))
        plain = [arrays[f"curves.{name}"] for name in _PLAIN]
        # Files that were made before the multiple correlation lack it, and serve the other curves as they did.
        together, shares = [None] * len(_TOGETHER), None
        if "num_values" in origin:
            together = [arrays[f"curves.{name}"] for name in _TOGETHER]
            shares = {name: arrays[f"shares.{name}"] for name in origin["num_values"]}
        return correlation.from_arrays(arrays), Curves(*plain, held_out, *together, arrays.get(_SCORES), shares), origin
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

      `curves` has `ccs`, `dccs` (None where an older version wrote `saliency.npz`) and `probe` (None where the speakers
      are too few for it), each with `per_layer` [K, Y] mean absolute correlation, multiple correlation or CCC; `score`
      [K], its mean over the targets in use that vary; `low` and `high` [K] its 95 % interval over speakers; `behind`,
      `behind_low` and `behind_high` [K] what it lacks to the chosen layer's, on the same speakers; `chosen`, the layer
      of largest score, the lowest of equal ones. `dccs` has `shrinkage` [K, Y] and `probe` has `ridge` [K, Y], too. The
      probe's interval is that of the probes as they were fitted: other speakers to predict, not others to fit.

      `variance_shares` has for each of `variance_shares.FACTORS` `num_values`, `share`, `low` and `high` [K], or only
      `absent`, a sentence that says why there is none.

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
    answer, layers, use = _correlations(state), origin["backbone"]["layers"], config.saliency.targets
    names = [*origin["attributes"], *origin["classes"]]
    try:
        is_used = correlation.targets_in_use(answer, names, origin["attributes"], use)
        curves = {
            "ccs": curve_records.curve(layers, np.asarray(answer.per_layer, np.float64), sums.without, is_used),
            "dccs": curve_records.dccs_curve(layers, sums, is_used),
            "probe": curve_records.probe_curve(layers, sums, is_used),
        }
    except ValueError as error:
        raise ConfigError(f"saliency of {path}: {error}") from None
    kind, num_constant = config.saliency.kind, np.asarray(answer.num_constant)
    if curves[kind] is None and kind == "dccs":
        raise ConfigError(f"saliency.kind = 'dccs', but {path} was made before there was such a curve: {_RENEW}")
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
        "variance_shares": curve_records.variance_shares(sums.shares, origin.get("num_values", {})),
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
        "warnings": _warnings(layers, chosen, num_constant, curves),
    }


def _is_written(path: PurePath, summary: dict[str, Any]) -> bool:
    """Whether the file says this already: a finished workdir may be one that cannot be written to."""
    try:
        return read_json(path, "") == summary
    except ArtefactError:
        return False


def top_features(workdir: str | os.PathLike, config: Config, layers: Sequence[int]) -> dict[int, np.ndarray]:
    """Layer -> its `model.top_features` features of largest saliency, ascending; empty where all features are kept.

    Where `saliency.kind` is `dccs`, a feature's saliency is the mean over the targets in use of its squared
    `decorrelation.feature_scores`, else of its absolute correlations.

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
    state, curves, origin = read(workdir)
    answer = _correlations(state)
    num_features = answer.correlation.shape[1]
    if num > num_features:
        raise ArtefactError(f"model.top_features = {num}: the backbone has {num_features} features")
    names = [*origin["attributes"], *origin["classes"]]
    is_used = correlation.targets_in_use(answer, names, origin["attributes"], config.saliency.targets)
    by_feature = np.asarray(answer.correlation)
    if config.saliency.kind == "dccs":
        if curves.feature_scores is None:
            raise ArtefactError(f"{place_of(workdir) / SUMS_FILE} lacks scores of features by dccs: {_RENEW}")
        by_feature = np.square(curves.feature_scores, dtype=np.float64)
    scores = by_feature[:, :, is_used].mean(axis=2)
    slots = {layer: origin["backbone"]["layers"].index(layer) for layer in layers}
    return {layer: np.sort(np.argsort(-scores[slot], kind="stable")[:num]) for layer, slot in slots.items()}


def _warnings(layers: list[int], chosen: int, num_constant: np.ndarray, curves: Mapping[str, Any]) -> list[str]:
    warnings = []
    if chosen == layers[-1]:
        warnings.append(
            f"saliency chose the last layer, {chosen}: published curves peak at intermediate ones, so look at the curve"
        )
    if num_constant.any():
        listed = ", ".join(f"{count} in layer {layers[k]}" for k, count in enumerate(num_constant.tolist()) if count)
        warnings.append(f"features that never vary count as saliency 0: {listed}")
    if curves["dccs"] is None:
        warnings.append(f"{SUMS_FILE} was made before there was a curve dccs, or shares of variance: {_RENEW}")
    if curves["probe"] is None:
        warnings.append("no probe of the layers: the targets in use are of one speaker, or of unknown ones")
    return warnings

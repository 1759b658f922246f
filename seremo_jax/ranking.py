"""The question put to every layer, and the answer: which utterances and targets saliency is over, and what it says.

`saliency.npz` holds the co-moments with what they were made from; `saliency.json` the curves and the layer chosen.
"""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from seremo_jax import policies, saliency, targets, vocab
from seremo_jax.artefacts import ArtefactError, require_same, to_json, write_json
from seremo_jax.config import Config, ConfigError
from seremo_jax.manifest import clear_when_full, read_arrays, write_arrays
from seremo_jax.tables import read_tables

SUMS_FILE, SUMMARY_FILE = "saliency.npz", "saliency.json"
_REMEDY = f"Use another --workdir, or delete {SUMS_FILE} and run python -m launch.extract again"


@dataclasses.dataclass(frozen=True)
class Question:
    """What saliency is asked for.

    Attributes:
      rows: [n] rows of the utterance table: the seeded draw from the training split, ascending.
      values: [N, Y] float32 targets of every row of the table, attributes then vote shares.
      mask: [N, Y] bool, False where a row has no such target or was not drawn.
      attribute_names: Names of the attributes.
      class_names: Names of the classes.
      about: Everything that decides `rows`, `values` and `mask`.
    """

    rows: np.ndarray
    values: np.ndarray
    mask: np.ndarray
    attribute_names: tuple[str, ...]
    class_names: tuple[str, ...]
    about: dict[str, Any]


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
    return Question(
        rows,
        np.concatenate([built.attributes, built.distribution], axis=1).astype(np.float32),
        mask,
        built.attribute_names,
        built.class_names,
        {"tables_fingerprint": fingerprint, "split": vocab.TRAIN, **_fields(config)},
    )


def _fields(config: Config) -> dict[str, Any]:
    """The config fields that decide a question."""
    fields = config.results_fields("saliency", "targets", "data")
    names = ["saliency.num_utterances", "saliency.seed", "data.modality", "data.self_reports"]
    names += [name for name in fields if name.startswith("targets.") and name not in _WITHOUT_EFFECT]
    return {name: fields[name] for name in names}


def write(workdir: str | os.PathLike, state: saliency.State, question: Question, backbone: dict[str, Any]) -> None:
    """Writes `WORKDIR/saliency.npz`.

    Args:
      workdir: Folder of the experiment.
      state: Co-moments of the layers `backbone["layers"]`.
      question: What they answer.
      backbone: Name, revision and layers of what they were computed from.
    """
    about = {
        "question": question.about,
        "backbone": backbone,
        "attributes": question.attribute_names,
        "classes": question.class_names,
        "num_utterances": len(question.rows),
    }
    with clear_when_full(Path(workdir) / SUMS_FILE):
        write_arrays(Path(workdir) / SUMS_FILE, about=np.array(to_json(about)), **saliency.to_arrays(state))


def read(workdir: str | os.PathLike) -> tuple[saliency.State, dict[str, Any]]:
    """The co-moments of `WORKDIR/saliency.npz`, and what they are about.

    Raises:
      ArtefactError: The file is missing or damaged.
    """
    path = Path(workdir) / SUMS_FILE
    arrays = read_arrays(path, "run python -m launch.extract with this --workdir")
    try:
        return saliency.from_arrays(arrays), json.loads(str(arrays["about"]))
    except (KeyError, ValueError, ArtefactError) as error:
        raise ArtefactError(f"{path} is damaged ({error}). {_REMEDY}") from None


def require(workdir: str | os.PathLike, question: Question, backbone: dict[str, Any]) -> None:
    """Refuses a `saliency.npz` of other settings.

    Raises:
      ArtefactError: Names both sides.
    """
    about = read(workdir)[1]
    path = Path(workdir) / SUMS_FILE
    require_same(f"{path} (question)", about["question"], json.loads(to_json(question.about)), _REMEDY)
    require_same(f"{path} (backbone)", about["backbone"], json.loads(to_json(backbone)), _REMEDY)


def summarise(workdir: str | os.PathLike, config: Config) -> dict[str, Any]:
    """Ranks the layers by `saliency.npz`, writes `WORKDIR/saliency.json` and returns its content.

    Returns:
      `layers` [K]; `targets` [Y], of which `attributes` and `classes`; `per_layer` [K][Y] mean absolute correlation;
      `score` [K], its mean over the targets in `use` that vary; `chosen`, the layer of largest score (lowest of equal
      ones); `num_utterances` drawn and `count` [Y] those that have each target; `varies` [Y]; `num_features`;
      `num_constant` [K] features that are constant; `backbone`; `warnings`.

    Raises:
      ArtefactError: `saliency.npz` is missing, damaged, or belongs to other tables or settings.
      ConfigError: None of the targets in use varies.

    Source: method.md section 7.
    """
    state, about = read(workdir)
    expected = {"tables_fingerprint": read_tables(workdir)[2], "split": vocab.TRAIN, **_fields(config)}
    require_same(f"{Path(workdir) / SUMS_FILE}", about["question"], json.loads(to_json(expected)), _REMEDY)
    answer, layers, use = saliency.compute(state), about["backbone"]["layers"], config.saliency.targets
    names = [*about["attributes"], *about["classes"]]
    try:
        score = saliency.layer_score(answer, names, about["attributes"], use)
        chosen = layers[saliency.pick_layer(score)]
    except ValueError as error:
        raise ConfigError(f"saliency of {workdir}: {error}") from None
    num_constant = np.asarray(answer.num_constant)
    warnings = []
    if chosen == layers[-1]:
        warnings.append(
            f"saliency chose the last layer, {chosen}: published curves peak at intermediate ones, so look at the curve"
        )
    if num_constant.any():
        told = ", ".join(f"{count} in layer {layers[k]}" for k, count in enumerate(num_constant.tolist()) if count)
        warnings.append(f"features that never vary count as saliency 0: {told}")
    summary = {
        "layers": layers,
        "targets": names,
        "attributes": about["attributes"],
        "classes": about["classes"],
        "per_layer": np.asarray(answer.per_layer),
        "score": score,
        "chosen": chosen,
        "use": use,
        "num_utterances": about["num_utterances"],
        "count": np.asarray(answer.count),
        "varies": np.asarray(answer.is_varying),
        "num_features": int(answer.correlation.shape[1]),
        "num_constant": num_constant,
        "backbone": about["backbone"],
        "warnings": warnings,
    }
    with clear_when_full(Path(workdir) / SUMMARY_FILE):
        write_json(Path(workdir) / SUMMARY_FILE, summary)
    return json.loads(to_json(summary))

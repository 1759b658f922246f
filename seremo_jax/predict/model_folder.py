"""A model as one self-contained folder: all that prediction needs of a trained workdir, and nothing else.

model.json            classes, attributes and their scale, backbone, members, calibration, protocol card, hashes
weights.safetensors   parameters of the heads [E, ...] and the statistics of their features
head.stablehlo        the heads as a `jax.export` module, which runs without this package
prototypes.safetensors  means of the classes of the training, on demand, for speakers
head.onnx, model.onnx where asked for: the heads, and the heads behind their backbone, see `onnx_files`
"""

import dataclasses
import fnmatch
import os
from collections.abc import Callable, Sequence
from pathlib import PurePath
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from jaxtyping import Bool
from safetensors import SafetensorError
from safetensors.numpy import load as load_safetensors
from safetensors.numpy import save as save_safetensors

from seremo_jax import __version__
from seremo_jax.core import ensemble, sharding
from seremo_jax.core.artefacts import ArtefactError, atomic_path, fingerprint_of, place_of, read_json, to_json
from seremo_jax.core.config import CONFIG_FILE, Config, read_config
from seremo_jax.core.lock import at_work, writing
from seremo_jax.data.policies import target_policies
from seremo_jax.data.tables import read_tables
from seremo_jax.data.targets import Targets
from seremo_jax.data.targets import build as build_targets
from seremo_jax.evaluation import calibration_fit, prototypes
from seremo_jax.evaluation.prototypes import Prototypes
from seremo_jax.evaluation.speaker_priors import TrainingPriors
from seremo_jax.features.store import Reader
from seremo_jax.predict import export as head_lib
from seremo_jax.predict import hub_folder, model_record
from seremo_jax.predict.model_record import FORMAT_VERSION, PROTOTYPES_FILE, RECORD_FILE, STABLEHLO_FILE, WEIGHTS_FILE
from seremo_jax.training import predictions, protocol
from seremo_jax.training.dataset import Data
from seremo_jax.training.model import Sizes
from seremo_jax.training.selection import LOSS

_TABLES = ("norm.mean", "norm.sd", "columns")
_OF_THE_LOSS = (
    "class_target", "class_kind", "label_smoothing", "attribute_task_weight", "class_task_weight", "closeness_weight"
)  # fmt: skip
"""Fields of a member that decide what its loss is."""


class Model(NamedTuple):
    """A model read from a folder or a workdir.

    Attributes:
      about: Content of `model.json` but for its hashes, see `from_workdir`.
      heads: Parameters and feature statistics.
      prototypes: What the members know of the classes of their training; None where nobody asked.
    """

    about: dict[str, Any]
    heads: head_lib.Heads
    prototypes: Prototypes | None = None


def read(path: str | os.PathLike, members: Sequence[str] = ()) -> Model:
    """Reads a folder that `export` wrote, or a workdir (or its folder `train`) whose training is finished.

    Args:
      path: The folder; or `hf://ORG/NAME[@REVISION]`, see `hub_folder.place`.
      members: Which members, of a workdir only: see `pick`.

    Raises:
      ArtefactError: It is neither, a file is missing or damaged, or belongs to other settings.
    """
    path = hub_folder.place(path)
    if (path / RECORD_FILE).exists():
        if members:
            raise ArtefactError(f"{path} is an exported model: export the members wanted from its workdir instead")
        return _read_folder(path)
    for workdir in (path, path.parent):
        if (workdir / "train" / predictions.STAMP_FILE).exists() and path in (workdir, workdir / "train"):
            return from_workdir(workdir, members)
    raise ArtefactError(
        f"{path} is no model: it has neither {RECORD_FILE} (python -m launch.export writes it) nor a finished training "
        f"(train/{predictions.STAMP_FILE}, python -m launch.train)"
    )


def from_workdir(workdir: str | os.PathLike, members: Sequence[str] = (), *, with_prototypes: bool = False) -> Model:
    """The members of a finished training with all that is needed to use them.

    Args:
      workdir: Its workdir.
      members: Which members, see `pick`.
      with_prototypes: Also what adapting them to a speaker takes, from one pass over the training utterances.

    Raises:
      ArtefactError: An artefact is missing or belongs to other settings, or `members` names none.
    """
    workdir = place_of(workdir)
    folder = workdir / "train"
    trained = read_json(folder / predictions.STAMP_FILE, "run python -m launch.train with this --workdir")
    config = read_config(folder)
    utterances, ratings, fingerprint = read_tables(workdir)
    store = Reader(workdir / "store")
    store.require(tables_fingerprint=fingerprint)
    all_members = ensemble.members_in(workdir, config)
    fields = [vars(member) for member in all_members]
    run = protocol.run_identity(config, store, fields, trained["run"].get("copies"))
    remedy = f"{folder / CONFIG_FILE} is not the config of this training: train again into another --workdir."
    protocol.require_run(f"the training in {folder}", trained["run"], run, store, remedy)
    data = Data.of(config, store, (utterances, ratings), all_members)
    settings = predictions.settings_of(config, data)
    mesh = sharding.make_mesh(1)
    params = predictions.load_members(folder, settings, all_members, mesh)
    names = ensemble.names(all_members)
    picked = pick(trained, names, members)
    wanted = [all_members[i] for i in picked]
    layers = sorted({layer for member in wanted for layer in data.layers_of(member)})
    arrays = {name: array[np.array(picked)] for name, array in head_lib.flatten(params).items()}
    is_heard, sizes = data.is_heard(wanted), settings.sizes
    about = {
        "format_version": FORMAT_VERSION,
        "code_version": __version__,
        "head": sizes,
        "members": [{"name": names[i], **vars(all_members[i])} for i in picked],
        "layers": list(layers),
        "classes": list(data.targets.class_names),
        "attributes": describe_attributes(config, utterances, ratings, data.targets, is_heard),
        "backbone": _describe_backbone(config, store),
        "levels_dbfs": _levels_dbfs(data, is_heard),
        "longest_s": float(utterances["duration_s"].to_numpy()[is_heard].max()),
        "shortest_s": config.data.min_seconds,
        "calibration": calibration_fit.of_members(workdir, [names[i] for i in picked], trained["checkpoint_id"]),
        "calibrations": calibration_fit.entries_of(workdir, [names[i] for i in picked]),
        "checkpoint": trained["checkpoint_id"],
        "protocol": protocol.card(config, workdir, utterances, store, trained),
        # Whoever scores the model in noise must know which recordings it has heard.
        **({"copies": trained["copies"]} if "copies" in trained else {}),
    }
    statistics = data.normalisation(list(data.splits))
    mean, sd = (np.stack([statistics[key][i] for key in _norm_keys(about)]) for i in range(2))
    whole = np.arange(store.manifest["num_features"])
    columns = np.stack([data.columns.get(layer, whole) for layer in layers]).astype(np.int32)
    own = head_lib.unflatten(sizes, arrays, len(wanted))
    heads = head_lib.Heads(own, *_slots(about), mean, sd, columns, head_lib.kappas_s(about["members"]))
    known = None
    if with_prototypes:
        priors = TrainingPriors.of(data, all_members)
        known = prototypes.of_training(data, priors, params, mesh).of_members(picked)
    return Model(about, heads, known)


def pick(trained: dict[str, Any], names: Sequence[str], wanted: Sequence[str]) -> list[int]:
    """Numbers of the members wanted, in the order of the training.

    Args:
      trained: Content of `train/finished.json`.
      names: Names of all members.
      wanted: Names, or patterns such as `layer03-votes-*`; `best` is the one with the best development score. None
        takes all, which must then differ in nothing but their seed: their mean is reported as one model.

    Raises:
      ArtefactError: Something wanted matches nothing, or nothing is wanted and the members are several systems.
    """
    if not wanted:
        if len(ensemble.systems(trained["members"])) > 1:
            raise ArtefactError(
                f"the members of this training differ in more than their seed, so their mean is no model: name those "
                f"wanted, e.g. --member '{names[0].rpartition('-')[0]}-*' or --member best, of {', '.join(names)}"
            )
        return list(range(len(names)))
    picked: set[int] = set()
    for pattern in wanted:
        if pattern == "best":
            _require_comparable(trained)
            matching = {int(np.argmax(trained["best_score"]))}
        else:
            matching = {i for i, name in enumerate(names) if fnmatch.fnmatchcase(name, pattern)}
        if not matching:
            raise ArtefactError(f"no member is called {pattern!r}; there are: {', '.join(names)}")
        picked |= matching
    return sorted(picked)


def _require_comparable(trained: dict[str, Any]) -> None:
    """Refuses to pick the best of members by their losses where these are of several kinds."""
    kinds = {tuple((ensemble.SINCE | member)[name] for name in _OF_THE_LOSS) for member in trained["members"]}
    if trained["run"].get("train.selection") == LOSS and len(kinds) > 1:
        raise ArtefactError(
            "best: the epochs of this training were selected by the loss, and its members have losses of several "
            "kinds, which do not compare: name the member wanted"
        )


def export(
    workdir: str | os.PathLike,
    to: str | os.PathLike,
    members: Sequence[str] = (),
    *,
    with_prototypes: bool = False,
    more: Callable[[Model], dict[str, bytes]] | None = None,
) -> PurePath:
    """Writes a model folder from a finished workdir; it appears whole or not at all.

    Args:
      workdir: Workdir with a finished training.
      to: The folder to write; it must not exist.
      members: Which members, see `pick`; one makes a single model, several an ensemble.
      with_prototypes: See `from_workdir`.
      more: Gives name and content of further files of the model, which are listed in `model.json` and never read here.

    Raises:
      ArtefactError: See `from_workdir`; or `to` is there already; or another process is at work in this workdir, or
        writes this folder.
    """
    to = place_of(to)
    with at_work(workdir, "export"), writing(to, "export"):
        model = from_workdir(workdir, members, with_prototypes=with_prototypes)
        if to.exists():
            raise ArtefactError(f"{to} is there already: give another folder, or delete it")
        write(model, to, more)
    return to


def write(model: Model, to: str | os.PathLike, more: Callable[[Model], dict[str, bytes]] | None = None) -> None:
    """Writes the files of a model folder, all together; see `export`."""
    about, heads, known = model
    arrays = head_lib.flatten(heads.params) | dict(
        zip(_TABLES, map(np.asarray, (heads.mean, heads.sd, heads.columns)), strict=True)
    )
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    units = [(attribute["offset"], attribute["factor"]) for attribute in about["attributes"]]
    is_trained = [attribute["is_trained"] for attribute in about["attributes"]]
    contents = {
        WEIGHTS_FILE: save_safetensors(arrays),
        STABLEHLO_FILE: head_lib.to_stablehlo(
            about["head"], heads, about["backbone"]["num_features"], units, is_trained
        ),
    }
    if known is not None:
        contents[PROTOTYPES_FILE] = save_safetensors(known.arrays())
    further = {} if more is None else more(model)
    with atomic_path(to) as folder:
        folder.mkdir()
        for name, content in (contents | further).items():
            (folder / name).write_bytes(content)
        record = dict(about, files={name: model_record.describe(content) for name, content in contents.items()})
        if further:
            record["further_files"] = {name: model_record.describe(content) for name, content in further.items()}
        record["fingerprint"] = fingerprint_of(record)
        (folder / RECORD_FILE).write_text(to_json(record, indent=2) + "\n", encoding="utf-8")


def _read_folder(path: PurePath) -> Model:
    record, contents = model_record.read(path, hub_folder.blobs_of(path))
    try:
        record["head"] = Sizes(**record["head"] | {"levels": tuple(record["head"]["levels"])})
        arrays = load_safetensors(contents[WEIGHTS_FILE])
        tables = [arrays.pop(name) for name in _TABLES]
        params = head_lib.unflatten(record["head"], arrays, len(record["members"]))
        heads, known = head_lib.Heads(params, *_slots(record), *tables, head_lib.kappas_s(record["members"])), None
        if PROTOTYPES_FILE in contents:
            shape = (len(record["members"]), len(record["classes"]), record["head"].embedding_size)
            known = Prototypes.from_arrays(load_safetensors(contents[PROTOTYPES_FILE]), shape)
        return Model(record, heads, known)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ArtefactError(
            f"{path / WEIGHTS_FILE}, or a file beside it, does not fit {RECORD_FILE} ({error}); {model_record.REMEDY}"
        ) from None


def _read_by(about: dict[str, Any], member: dict[str, Any]) -> list[int]:
    return about["layers"] if member["layer"] == ensemble.SUM else [member["layer"]]


def _norm_keys(about: dict[str, Any]) -> list[tuple[int | None, int]]:
    """(fold, layer) of each entry of the feature statistics, those of one member next to each other."""
    return list(dict.fromkeys((m.get("fold"), layer) for m in about["members"] for layer in _read_by(about, m)))


def _slots(about: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """[E] position of each member's layer among the layers of the model, and of its feature statistics."""
    keys, first = _norm_keys(about), [(m.get("fold"), _read_by(about, m)[0]) for m in about["members"]]
    layer_slot = [about["layers"].index(layer) for _, layer in first]
    return np.array(layer_slot, np.int32), np.array([keys.index(key) for key in first], np.int32)


def _describe_backbone(config: Config, store: Reader) -> dict[str, Any]:
    """Which backbone, where it was, and how it heard the training split."""
    manifest, section = store.manifest, config.backbone
    location = os.path.abspath(section.name) if os.path.isdir(section.name) else section.name
    return {
        "location": location,
        "name": manifest["backbone"],
        "revision": manifest["backbone_revision"],
        "final_norm": manifest["final_norm"],
        "final_norm_asked_for": section.final_norm,
        "dtype": manifest["config"]["backbone.dtype"],
        "stored_dtype": manifest["dtype"],
        "num_features": manifest["num_features"],
        "frame_rate_hz": manifest["frame_rate_hz"],
        "window": section.window,
        "window_seconds": section.window_seconds,
        "overlap_seconds": section.overlap_seconds,
        "level": section.level,
        "level_dbfs": section.level_dbfs,
    }


def _levels_dbfs(data: Data, is_heard: Bool[np.ndarray, " N"]) -> list[float] | None:
    """Lowest and highest level of the utterances trained on, as they were recorded; None where the store lacks them."""
    if "level.npz" not in data.store.manifest["files"]:
        return None
    dbfs = data.store.arrays("level")["dbfs"][data.store_rows[is_heard]]
    return [float(dbfs.min()), float(dbfs.max())]


def describe_attributes(
    config: Config, utterances: pa.Table, ratings: pa.Table, targets: Targets, is_heard: Bool[np.ndarray, " N"]
) -> list[dict[str, Any]]:
    """Name of each attribute, whether training saw it, and how to get from what is predicted to the corpus's scale.

    Args:
      config: The experiment.
      utterances: The utterance table.
      ratings: The ratings table.
      targets: Their targets.
      is_heard: Utterances that the members were trained on, see `Data.is_heard`.
    """
    scale, unit = config.targets.attribute_scale, None
    if scale == "minmax":
        unit = build_targets(utterances, ratings, dataclasses.replace(target_policies(config), attribute_scale="unit"))
    described = []
    for a, name in enumerate(targets.attribute_names):
        rated = is_heard & targets.has_attribute[:, a]
        low, high = targets.attribute_ranges.get(name, (0.0, 1.0))
        offset, factor = 0.0, 1.0
        if scale == "centered":
            offset, factor = (low + high) / 2, (high - low) / 2
        elif scale == "unit":
            offset, factor = low, high - low
        elif unit is not None and rated.any():
            least, most = (float(value) for value in (unit.attributes[rated, a].min(), unit.attributes[rated, a].max()))
            offset, factor = low + least * (high - low), (most - least) * (high - low)
        described.append({"name": name, "is_trained": bool(rated.any()), "offset": offset, "factor": factor})
    return described

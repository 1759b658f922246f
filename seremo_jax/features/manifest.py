"""The manifest of a store: settings, names of its files, their sizes and hashes."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

import numpy as np

from seremo_jax.core.artefacts import ArtefactError, read_json, require_same, to_json
from seremo_jax.core.config import Config

FORMAT_VERSION = 1
MANIFEST_FILE = "manifest.json"
DTYPES = {"float16": np.dtype("<f2"), "float32": np.dtype("<f4")}
"""Names of the dtypes that a store may have -> NumPy dtype, little-endian on every machine."""

REMEDY = "delete the folder store of this workdir and run python -m launch.extract again"
UNFINISHED = "extraction did not finish: run python -m launch.extract with this --workdir"


@dataclasses.dataclass(frozen=True)
class Settings:
    """The settings that a store is made from. Equal settings make equal stores, to the rounding of the backbone's pass.

    Attributes:
      tables_fingerprint: Fingerprint of the label tables, whose utterances the store holds in their order.
      backbone: Name of the backbone.
      backbone_revision: Its revision.
      final_norm: Whether the last layer was taken after the backbone's final norm.
      layers: Layers stored, ascending.
      num_features: D.
      frame_rate_hz: Frames per second of audio.
      dtype: float16 or float32.
      condition: Acoustic condition that the utterances were heard in.
      shard_utterances: Utterances in a shard.
      config: Other config fields that change the numbers.
    """

    tables_fingerprint: str
    backbone: str
    backbone_revision: str
    final_norm: bool
    layers: tuple[int, ...]
    num_features: int
    frame_rate_hz: float
    dtype: str
    condition: str
    shard_utterances: int
    config: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """The settings as they stand in the manifest."""
        return {**dataclasses.asdict(self), "layers": list(self.layers)}


IN_MANIFEST = {"backbone.final_norm": "final_norm", "extract.dtype": "dtype"}
"""Field of the config -> its name in the manifest, for those that do not stand under `config` there."""
ELSEWHERE = ("backbone.name", "extract.layers")
"""Fields of the config that a manifest has as the name of the backbone and the layers that there are."""

OF_COPIES = ("extract.conditions", "extract.num_copies", "extract.condition_seed")
"""Fields of the config that say what copies of utterances are heard in; the clean utterances know nothing of them."""


def identity(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """What the frames of a store are frames of: two stores of one identity differ in nothing but rounding.

    How audio was put into batches and shards is no part of it: padding moves the last digits of a backbone's float32
    frames (METHOD.md, section 11), and a training goes on from a store that was extracted again in batches of another
    size.
    """
    fields = {field: value for field, value in _fields(manifest).items() if field not in (*ELSEWHERE, *IN_MANIFEST)}
    names = {field.name for field in dataclasses.fields(Settings)} - {"shard_utterances", "config"}
    return json.loads(to_json({name: manifest[name] for name in sorted(names)} | fields))


def _fields(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of the sections `backbone` and `extract` that change results, as the manifest has them."""
    defaults = Config().results_fields("backbone", "extract")
    # A field that the version before did not know had its default then, and one that is none any more says nothing.
    there = defaults | {field: value for field, value in manifest["config"].items() if field in defaults}
    return there | {field: manifest[name] for field, name in IN_MANIFEST.items()}


def require_config(path: PurePath, manifest: Mapping[str, Any], config: Config) -> None:
    """Refuses a store that was made under other settings than the config's sections `backbone` and `extract`.

    It may have more layers than the config asks for, and the folder of the backbone may have moved.

    Raises:
      ArtefactError: Names both sides.
    """
    asked, there = config.results_fields("backbone", "extract"), _fields(manifest)
    if asked["backbone.dtype"] == "auto":
        del asked["backbone.dtype"]
    for field in (*ELSEWHERE, *OF_COPIES):
        asked.pop(field, None)
    present = {field: there[field] for field in asked}
    name, layers = config.backbone.name, config.extract.layers
    if manifest["backbone"] not in (name, name.partition("@")[0], PurePath(name).name):
        asked["backbone.name"], present["backbone.name"] = name, manifest["backbone"]
    if isinstance(layers, tuple) and not set(layers) <= set(manifest["layers"]):
        asked["extract.layers"], present["extract.layers"] = list(layers), manifest["layers"]
    remedy = "Give the --config that it was made with, or another --workdir."
    require_same(f"the store {path}", present, json.loads(to_json(asked)), remedy)


def shards_of(num_utterances: int, shard_utterances: int) -> list[range]:
    """Rows of each shard."""
    starts = range(0, num_utterances, shard_utterances)
    return [range(start, min(start + shard_utterances, num_utterances)) for start in starts]


def shards_of_process(num_shards: int, process: int, num_processes: int) -> range:
    """Shards that one of several processes writes."""
    return range(process, num_shards, num_processes)


def layer_folder(layer: int) -> str:
    """Name of the folder of a layer."""
    return f"layer_{layer:02d}"


def shard_file(layer: int, shard: int, num_shards: int) -> str:
    """Path of a shard of a layer inside the store."""
    return f"{layer_folder(layer)}/shard-{shard:05d}-of-{num_shards:05d}.array_record"


def read_manifest(path: PurePath) -> dict[str, Any]:
    """The manifest of the store in folder `path`.

    Raises:
      ArtefactError: The store is missing, unfinished, damaged or of another format.
    """
    manifest = read_json(path / MANIFEST_FILE, UNFINISHED)
    require_same(f"format of {path}", manifest.get("format_version"), FORMAT_VERSION, REMEDY)
    missing = {field.name for field in dataclasses.fields(Settings)} | {"files", "shards", "num_utterances"}
    missing -= manifest.keys()
    if missing or manifest["dtype"] not in DTYPES:
        raise ArtefactError(f"{path / MANIFEST_FILE} lacks {', '.join(sorted(missing)) or 'a known dtype'}; {REMEDY}")
    return manifest

"""Published checkpoints: config, preprocessor and tensors, from a folder or the model hub, without PyTorch."""

import collections
import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from seremo_jax.backbones.hub import CheckpointError, Place, fetch_weights, locate
from seremo_jax.backbones.preprocessors import read_preprocessor
from seremo_jax.backbones.published_config import CONFIG, read_config
from seremo_jax.backbones.safetensors_files import SafetensorsFile
from seremo_jax.backbones.settings import is_there, read_object, require_file
from seremo_jax.backbones.torch_files import TorchFile
from seremo_jax.core.artefacts import fingerprint_of, sha256_of_file

WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
"""Weight files, or indices of shards, in the order they are looked for."""
_LISTED = 20
FLOATING = ("float64", "float32", "float16", "bfloat16")
"""Dtypes of weights that are read."""


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A published checkpoint. Its weights are fetched when they are first asked for.

    Attributes:
      place: Where its files are.
      config: The published config, as transformers names its fields.
      preprocessor: Settings of the published feature extractor; None where there are none.
      settings: Files that config and preprocessor were read from.
      is_outline: Its weights are left where they are, and a model of it has shapes in their place.
    """

    place: Place
    config: Any
    preprocessor: Any | None
    settings: tuple[Path, ...]
    is_outline: bool = False

    @property
    def name(self) -> str:
        """The hub's id, or the name of the folder."""
        return self.place.name

    @property
    def folder(self) -> Path:
        """Where its files are."""
        return self.place.folder

    @property
    def commit(self) -> str | None:
        """The hub's commit; None for a folder placed by hand."""
        return self.place.commit

    @functools.cached_property
    def files(self) -> tuple[Path, ...]:
        """Weight files.

        Raises:
          CheckpointError: They are missing, or damaged, or cannot be downloaded.
        """
        fetch_weights(self.place)
        return weight_files(self.folder)

    @functools.cached_property
    def revision(self) -> str:
        """Hash of weights, config and preprocessor: the same however they came here; of an outline a word."""
        if self.is_outline:
            return "outline"
        return fingerprint_of([sha256_of_file(path) for path in (*self.settings, *self.files)])

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Published name -> shape of every tensor, none of them read."""
        return {name: shape for path in self.files for name, shape in open_weights(path).shapes().items()}


def open_checkpoint(path_or_id: str) -> Checkpoint:
    """Finds a checkpoint and reads its settings, no weights.

    Args:
      path_or_id: A folder, or an id on the model hub: `org/name` or `org/name@revision`.

    Raises:
      CheckpointError: It is not there, or one of its settings is missing, damaged or of an unknown kind.
    """
    place = locate(path_or_id)
    config = read_config(place.folder)
    source, preprocessor = read_preprocessor(place.folder, config.model_type)
    settings = (place.folder / CONFIG,) if source is None else (place.folder / CONFIG, source)
    return Checkpoint(place, config, preprocessor, settings)


class Tensors(Mapping):
    """Canonical name -> array in the dtype of its file. Each is read from its file when it is asked for, and not kept.

    Args:
      sources: Canonical name -> the file and the published name in it.

    Raises:
      CheckpointError: On reading, a tensor is damaged or has numbers that are not finite.
    """

    def __init__(self, sources: Mapping[str, tuple[Any, str]]):
        self._sources = sources

    def __getitem__(self, key: str) -> np.ndarray:
        reader, name = self._sources[key]
        array = reader.read(name)
        if num_wrong := array.size - int(np.count_nonzero(np.isfinite(array))):
            raise CheckpointError(
                f"{reader.path}: {name} has {num_wrong} numbers that are not finite: compare the size and hash of the "
                "file with the published ones, or take a checkpoint from before its training failed"
            )
        return array

    def __iter__(self) -> Iterator[str]:
        return iter(self._sources)

    def __len__(self) -> int:
        return len(self._sources)


def read_tensors(
    checkpoint: Checkpoint, wanted: Mapping[str, tuple[int, ...]], canonical: Callable[[str], str | None]
) -> Tensors | None:
    """The tensors a model needs, their names and shapes checked and none of them read; None for an outline.

    Whatever a training script put before all the names (`wav2vec2.`, `module.wav2vec2.`) is taken off: it is what
    stands before the first of `wanted`.

    Args:
      checkpoint: Where to read.
      wanted: Canonical name -> shape.
      canonical: Published name -> canonical name, None for a tensor of something else, or "" for one of this model that
        is knowingly left alone.

    Raises:
      CheckpointError: Tensors are missing, unexpected, there twice, of another shape or no floating-point numbers. All
        of them are named at once.
    """
    if checkpoint.is_outline:
        return None
    readers = [open_weights(path) for path in checkpoint.files]
    problems: dict[str, list[str]] = collections.defaultdict(list)
    sources: dict[str, tuple[Any, str]] = {}
    prefix = _prefix([name for reader in readers for name in reader.shapes()], wanted, canonical)
    for reader in readers:
        problems["no tensor"] += [name for name in reader.others if canonical(name.removeprefix(prefix))]
        for name, shape in reader.shapes().items():
            key = canonical(name.removeprefix(prefix)) if name.startswith(prefix) else None
            if key is None:
                # A second model in the file, a teacher or an average, leaves open which one is meant.
                key = next((key for key in map(canonical, _endings(name)) if key in wanted), None)
            if not key:
                continue
            if key not in wanted:
                problems["unexpected"].append(name)
                continue
            if key in sources:
                problems["given twice"].append(f"{name} ({sources[key][1]})")
            sources.setdefault(key, (reader, name))
            if shape != tuple(wanted[key]):
                problems["of another shape"].append(f"{name} {shape}, should be {tuple(wanted[key])}")
            if reader.dtype_name(name) not in FLOATING:
                problems["no floating-point numbers"].append(f"{name} ({reader.dtype_name(name)})")
    problems["missing"] = sorted(wanted.keys() - sources.keys())
    if any(problems.values()):
        raise CheckpointError(f"{checkpoint.folder}: the tensors do not fit its config.json:\n  " + _list(problems))
    return Tensors(sources)


def _prefix(names: list[str], wanted: Mapping[str, Any], canonical: Callable[[str], str | None]) -> str:
    """What most of the tensors wanted have before their names."""
    prefixes = collections.Counter(
        name.removesuffix(ending) for name in names for ending in (name, *_endings(name)) if canonical(ending) in wanted
    )
    return max(prefixes, key=prefixes.get, default="")


def _endings(name: str) -> list[str]:
    """The name without its first part, without its first two, and so on."""
    parts = name.split(".")
    return [".".join(parts[start:]) for start in range(1, len(parts))]


def _list(problems: Mapping[str, list[str]]) -> str:
    lines = []
    for kind, names in problems.items():
        if names:
            more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
            lines.append(f"{len(names)} {kind}: {', '.join(names[:_LISTED])}{more}")
    return "\n  ".join(lines)


def open_weights(path: Path) -> Any:
    """A reader of one weight file, by its suffix: safetensors, or what `torch.save` wrote."""
    return SafetensorsFile(path) if path.suffix == ".safetensors" else TorchFile(path)


def weight_files(folder: Path) -> tuple[Path, ...]:
    """The weight files of one format, whole or sharded."""
    for name in WEIGHTS:
        path = folder / name
        if not is_there(path):
            continue
        if path.suffix != ".json":
            require_file(path)
            return (path,)
        shards = read_object(path).get("weight_map")
        if not isinstance(shards, dict) or not shards:
            raise CheckpointError(f"{path} has no weight_map: download it again")
        for shard in shards.values():
            if not _is_shard(shard):
                raise CheckpointError(f"{path} names {shard!r:.80}, no weight file beside it: download it again")
        files = tuple(folder / shard for shard in sorted(set(shards.values())))
        missing = [file.name for file in files if not is_there(file)]
        if missing:
            raise CheckpointError(
                f"{path} names {', '.join(missing[:_LISTED])}, not in {folder}: place these files there, too"
            )
        _require_indexed(path, shards, files)
        return files
    raise CheckpointError(
        f"{folder} has no weights: place {' or '.join(WEIGHTS[::2])} there (or shards with their index)"
    )


def _is_shard(name: Any) -> bool:
    return (
        isinstance(name, str)
        and name.isprintable()
        and Path(name).name == name
        and len(name) < 200
        and name.endswith((".safetensors", ".bin"))
    )


def _require_indexed(index: Path, shards: Mapping[str, str], files: tuple[Path, ...]) -> None:
    """Refuses shards that lack a tensor which the index promises."""
    for file in files:
        held = open_weights(file).shapes().keys()
        lacking = sorted(name for name, shard in shards.items() if shard == file.name and name not in held)
        if lacking:
            raise CheckpointError(
                f"{file} lacks {len(lacking)} tensors that {index.name} promises, {lacking[0]:.80} first"
            )

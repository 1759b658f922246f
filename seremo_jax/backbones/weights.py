"""Published checkpoints: config, preprocessor and tensors, from a folder or the model hub, without PyTorch."""

import collections
import contextlib
import dataclasses
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from seremo_jax.backbones.hub import CheckpointError, locate
from seremo_jax.backbones.torch_files import TorchFile
from seremo_jax.core.artefacts import LFS_POINTER, fingerprint_of, sha256_of_file

CONFIG, PREPROCESSOR = "config.json", "preprocessor_config.json"
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
"""Weight files, or indices of shards, in the order they are looked for."""
_LISTED = 20
_FLOATING = ("float64", "float32", "float16", "bfloat16")
_LONG_NAMES = {"BF": "bfloat", "F": "float", "I": "int", "U": "uint"}


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A published checkpoint.

    Attributes:
      name: The hub's id, or the name of the folder.
      folder: Where its files are.
      commit: The hub's commit; None for a folder placed by hand.
      revision: Hash of weights, config and preprocessor: the same however they came here.
      config: The published config, as transformers reads it.
      preprocessor: The published feature extractor, likewise; None where there is none.
      files: Weight files.
    """

    name: str
    folder: Path
    commit: str | None
    revision: str
    config: Any
    preprocessor: Any | None
    files: tuple[Path, ...]

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Published name -> shape of every tensor, none of them read."""
        return {name: shape for path in self.files for name, shape in _open(path).shapes().items()}


def open_checkpoint(path_or_id: str) -> Checkpoint:
    """Finds a checkpoint and reads everything but its tensors.

    Args:
      path_or_id: A folder, or an id on the model hub: `org/name` or `org/name@revision`.

    Raises:
      CheckpointError: It is not there, or one of its files is missing, damaged or of an unknown kind.
    """
    place = locate(path_or_id)
    config = read_config(place.folder)
    preprocessor = _read_preprocessor(place.folder, config.model_type)
    files = _weight_files(place.folder)
    settings = [place.folder / name for name in (CONFIG, PREPROCESSOR) if (place.folder / name).exists()]
    revision = fingerprint_of([sha256_of_file(path) for path in (*settings, *files)])
    return Checkpoint(place.name, place.folder, place.commit, revision, config, preprocessor, files)


def read_tensors(
    checkpoint: Checkpoint, wanted: Mapping[str, tuple[int, ...]], canonical: Callable[[str], str | None]
) -> dict[str, np.ndarray]:
    """The tensors a model needs, each in the dtype of its file.

    Args:
      checkpoint: Where to read.
      wanted: Canonical name -> shape.
      canonical: Published name -> canonical name, or None for a tensor that is knowingly left alone.

    Returns:
      Canonical name -> array.

    Raises:
      CheckpointError: Tensors are missing, unexpected, there twice, of another shape or no floating-point numbers. All
        of them are named at once.
    """
    readers = {path: _open(path) for path in checkpoint.files}
    problems: dict[str, list[str]] = collections.defaultdict(list)
    source: dict[str, tuple[Path, str]] = {}
    for path, reader in readers.items():
        problems["no tensor"] += [name for name in reader.others if canonical(name) is not None]
        for name, shape in reader.shapes().items():
            key = canonical(name)
            if key is None:
                continue
            if key not in wanted:
                problems["unexpected"].append(name)
                continue
            if key in source:
                problems["given twice"].append(f"{name} ({source[key][1]})")
            source.setdefault(key, (path, name))
            if shape != tuple(wanted[key]):
                problems["of another shape"].append(f"{name} {shape}, should be {tuple(wanted[key])}")
            if reader.dtype_name(name) not in _FLOATING:
                problems["no floating-point numbers"].append(f"{name} ({reader.dtype_name(name)})")
    problems["missing"] = sorted(wanted.keys() - source.keys())
    if any(problems.values()):
        raise CheckpointError(f"{checkpoint.folder}: the tensors do not fit its config.json:\n  " + _list(problems))
    return {key: readers[path].read(name) for key, (path, name) in source.items()}


def _list(problems: Mapping[str, list[str]]) -> str:
    lines = []
    for kind, names in problems.items():
        if names:
            more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
            lines.append(f"{len(names)} {kind}: {', '.join(names[:_LISTED])}{more}")
    return "\n  ".join(lines)


class _Safetensors:
    """A safetensors file, with the methods of `TorchFile`."""

    def __init__(self, path: Path):
        self.path, self.others = path, []
        with path.open("rb") as file:
            if file.read(len(LFS_POINTER)) == LFS_POINTER:
                raise CheckpointError(f"{path} is a Git LFS pointer: run git lfs pull in its folder")
        try:
            self._file = safe_open(path, "np")
        except (SafetensorError, OSError) as error:
            raise _damaged(path, error) from error

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape."""
        return {name: tuple(self._file.get_slice(name).get_shape()) for name in self._file.keys()}  # noqa: SIM118

    def dtype_name(self, name: str) -> str:
        """NumPy's name of a tensor's dtype."""
        dtype = self._file.get_slice(name).get_dtype()
        kind = dtype.rstrip("0123456789")
        return _LONG_NAMES.get(kind, kind.lower()) + dtype.removeprefix(kind)

    def read(self, name: str) -> np.ndarray:
        """A tensor in its own dtype."""
        try:
            return self._file.get_tensor(name)
        except (SafetensorError, OSError, TypeError) as error:
            raise _damaged(self.path, error) from error


def _open(path: Path) -> Any:
    if path.suffix == ".safetensors":
        return _Safetensors(path)
    return TorchFile(path)


def _damaged(path: Path, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"{path} is damaged ({error}): compare its size and hash with the published ones, and download it again"
    )


def _weight_files(folder: Path) -> tuple[Path, ...]:
    """The weight files of one format, whole or sharded."""
    for name in WEIGHTS:
        path = folder / name
        if not path.exists():
            continue
        if path.suffix != ".json":
            return (path,)
        shards = _read_json(path).get("weight_map")
        if not isinstance(shards, dict) or not shards:
            raise CheckpointError(f"{path} has no weight_map: download it again")
        for shard in shards.values():
            if not (isinstance(shard, str) and Path(shard).name == shard and shard.endswith((".safetensors", ".bin"))):
                raise CheckpointError(f"{path} names {shard!r}, no weight file beside it: download it again")
        files = tuple(folder / shard for shard in sorted(set(shards.values())))
        missing = [file.name for file in files if not file.exists()]
        if missing:
            raise CheckpointError(f"{path} names {', '.join(missing)}, not in {folder}: place these files there, too")
        _require_indexed(path, shards, files)
        return files
    raise CheckpointError(
        f"{folder} has no weights: place {' or '.join(WEIGHTS[::2])} there (or shards with their index)"
    )


def _require_indexed(index: Path, shards: Mapping[str, str], files: tuple[Path, ...]) -> None:
    """Refuses shards that lack a tensor which the index promises."""
    for file in files:
        held = _open(file).shapes().keys()
        lacking = sorted(name for name, shard in shards.items() if shard == file.name and name not in held)
        if lacking:
            raise CheckpointError(f"{file} lacks {len(lacking)} tensors that {index.name} promises, {lacking[0]} first")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing: place the published file there") from None
    except (ValueError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}): place the published file there again") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds no JSON object: place the published file there again")
    return content


def read_config(folder: Path) -> Any:
    """The published config in a folder, as transformers reads it.

    Raises:
      CheckpointError: It is missing, damaged or of an unknown kind.
    """
    with _without_advice():
        from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    path = folder / CONFIG
    content = _read_json(path)
    kind = content.get("model_type")
    if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
        raise CheckpointError(f"{path}: model_type {kind!r} is not known")
    try:
        # The class itself and not AutoConfig, which offers to run Python files that lie beside a config.
        return CONFIG_MAPPING[kind].from_dict(content)
    except Exception as error:  # transformers validates with half a dozen exception types
        raise CheckpointError(f"{path} is not what a {kind} config should be: {error}") from error


def _read_preprocessor(folder: Path, model_type: str) -> Any | None:
    import transformers
    from transformers.models.auto.feature_extraction_auto import FEATURE_EXTRACTOR_MAPPING_NAMES

    path = folder / PREPROCESSOR
    if not path.exists():
        return None
    content = _read_json(path)
    # Early checkpoints do not name it.
    kind = content.get("feature_extractor_type") or FEATURE_EXTRACTOR_MAPPING_NAMES.get(model_type)
    if kind not in FEATURE_EXTRACTOR_MAPPING_NAMES.values():
        raise CheckpointError(f"{path}: feature_extractor_type {kind!r} is not known")
    try:
        return getattr(transformers, kind).from_dict(content)
    except Exception as error:  # transformers validates with half a dozen exception types
        raise CheckpointError(f"{path} is not what a feature extractor's settings should be: {error}") from error


@contextlib.contextmanager
def _without_advice() -> Iterator[None]:
    """Keeps transformers from saying at its import that PyTorch had better be there."""

    def is_kept(record: logging.LogRecord) -> bool:
        return "PyTorch was not found" not in record.getMessage()

    logger = logging.getLogger("transformers")
    logger.addFilter(is_kept)
    try:
        yield
    finally:
        logger.removeFilter(is_kept)

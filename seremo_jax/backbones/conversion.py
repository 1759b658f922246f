"""A backbone out of a wrapper: tensors under a prefix, LoRA merged, as a folder like a published one.

Checkpoints of challenges and of fine-tuned models hold the backbone inside a larger model, under names with a prefix,
often without the backbone's own `config.json`, and with low-rank changes beside the weights. What is written here is
read by `load`, and by transformers, like any published folder.
"""

import json
import os
import shutil
import struct
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from seremo_jax.backbones import lora, sizes
from seremo_jax.backbones.hub import CheckpointError, fetch_weights, locate
from seremo_jax.backbones.preprocessors import PREPROCESSOR, read_preprocessor
from seremo_jax.backbones.published_config import CONFIG, FIELDS
from seremo_jax.backbones.settings import is_there, read_object
from seremo_jax.backbones.weights import FLOATING, Tensors, open_weights, weight_files
from seremo_jax.core.artefacts import sha256_of_file, write_json

WEIGHTS, ORIGIN = "model.safetensors", "origin.json"
"""The files of a converted folder beside its settings; `origin.json` says what it was made of."""
_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")
_DTYPES = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16"}


class Change(NamedTuple):
    """What is done to the tensors of a checkpoint.

    Attributes:
      prefix: What stands before the names of the backbone; "" finds it, where there is only one backbone.
      adapter: Folder of LoRA weights in the layout of PEFT; "" for none.
      lora_alpha: For factors that lie in the checkpoint itself, the numerator of their scale, 0 if they are merged
        already; None reads `adapter_config.json` beside the checkpoint.
    """

    prefix: str = ""
    adapter: str = ""
    lora_alpha: float | None = None


def convert(source: str, to: str | os.PathLike, kind: str = "", change: Change | None = None) -> Path:
    """Writes the backbone of a checkpoint as a folder that `load` reads.

    Args:
      source: A folder, a weight file in it, or an id on the hub.
      to: Folder to write, which must not be there.
      kind: `model_type` of the backbone, where `config.json` does not say it or is that of the wrapper.
      change: Where the backbone lies, and what is merged.

    Raises:
      CheckpointError: Files are missing or damaged, the prefix fits nothing or more than one backbone, or the kind
        cannot be made out.
    """
    target, change = Path(to), change or Change()
    if is_there(target):
        raise CheckpointError(f"{target} is there already: give another folder, or remove it")
    folder, files = _files(source)
    given = _given_config(folder, kind)
    kind = kind or (given or {}).get("model_type", "")
    landmark = sizes.LANDMARKS.get(kind)
    if given is None and landmark is None:
        known = f"kind must be one of {', '.join(sizes.LANDMARKS)}; {kind!r} is none of them, and needs its config.json"
        raise CheckpointError(f"{folder} has no {CONFIG} of a backbone that is known here: {known}")
    readers = [open_weights(path) for path in files]
    names = {name: reader for reader in readers for name in reader.shapes()}
    prefix = lora.plain(change.prefix) or _found_prefix(names, landmark, folder)
    tensors, factors = _split(names, prefix, folder)
    if not tensors:
        raise CheckpointError(f"{folder} has no tensor under {prefix!r}, but under {', '.join(_prefixes(names))}")
    changes, adapted = _changes(folder, change, tensors, factors, prefix)
    shapes = {name: reader.shapes()[own] for name, (reader, own) in tensors.items()}
    config = given or sizes.config_of(kind, shapes, str(files[0]))
    origin = {
        "files": {path.name: sha256_of_file(path) for path in (*files, *adapted)},
        "kind": kind, "prefix": prefix, "num_merged": len(changes),
        "config": "its own" if given else "from shapes",
    }  # fmt: skip
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as name:
        written = Path(name) / target.name
        written.mkdir()
        write_json(written / CONFIG, config)
        _write_preprocessor(folder, written, kind, config, is_given=given is not None)
        write_json(written / ORIGIN, origin)
        _write_tensors(written / WEIGHTS, tensors, shapes, changes)
        written.rename(target)
    return target


def _files(source: str) -> tuple[Path, tuple[Path, ...]]:
    """The folder with the settings, and the weight files."""
    path = Path(os.path.expanduser(source))
    if path.is_file():
        return path.parent, (path,)
    place = locate(source)
    fetch_weights(place)
    try:
        return place.folder, weight_files(place.folder)
    except CheckpointError:
        others = sorted(file for file in place.folder.iterdir() if file.suffix in _SUFFIXES)
        if len(others) != 1:
            raise
        return place.folder, tuple(others)


def _given_config(folder: Path, kind: str) -> dict[str, Any] | None:
    """The content of `config.json` where it is that of the backbone."""
    if not is_there(folder / CONFIG):
        return None
    content = read_object(folder / CONFIG)
    model_type = content.get("model_type")
    return content if model_type in FIELDS and kind in ("", model_type) else None


def _found_prefix(names: Iterable[str], landmark: str | None, folder: Path) -> str:
    """What stands before the one tensor that each backbone of a kind has once."""
    if landmark is None:
        return ""
    ends = [name for name in map(lora.plain, names) if name == landmark or name.endswith(f".{landmark}")]
    if len(ends) != 1:
        held = ", ".join(ends[:10]) or "no such tensor"
        raise CheckpointError(f"{folder} has {len(ends)} backbones ({held}): give the prefix of the one that is meant")
    return ends[0].removesuffix(landmark)


def _prefixes(names: Iterable[str]) -> list[str]:
    return sorted({f"{name.partition('.')[0]}." for name in names})[:20]


Place = tuple[Any, str]
"""A reader and the name of a tensor in its file."""


def _split(names: Mapping[str, Any], prefix: str, folder: Path) -> tuple[dict[str, Place], dict[str, dict[str, Place]]]:
    """Tensors of the backbone, and factors of LoRA by path, both by their names without the prefix."""
    tensors, factors = {}, {}
    for name, reader in names.items():
        if not lora.plain(name).startswith(prefix):
            continue
        if (part := lora.part_of(name)) is not None:
            factors.setdefault(part[0].removeprefix(prefix), {})[part[1]] = (reader, name)
        elif reader.dtype_name(name) in FLOATING:
            short = lora.plain(name).removeprefix(prefix)
            if short in tensors:
                raise CheckpointError(f"{folder}: {name} and {tensors[short][1]} are one tensor of the backbone")
            tensors[short] = (reader, name)
    return tensors, factors


def _changes(
    folder: Path, change: Change, tensors: Mapping[str, Place], factors: dict[str, dict[str, Place]], prefix: str
) -> tuple[dict[str, Callable[[np.ndarray], np.ndarray]], list[Path]]:
    """Name of a tensor -> what is done to it, and the files that are read for that beside the checkpoint."""
    files, where = [], folder
    if change.adapter:
        if factors:
            raise CheckpointError(
                f"{folder} holds factors of LoRA already: merge them first, then those of {change.adapter}"
            )
        where = Path(os.path.expanduser(change.adapter))
        settings, files = lora.read_settings(where), [lora.weights_of(where), where / lora.CONFIG]
        reader = open_weights(files[0])
        for name in reader.shapes():
            if (part := lora.part_of(name)) is None:
                continue  # a head that was trained beside the factors
            path = _in_backbone(part[0].removeprefix(prefix), tensors)
            factors.setdefault(path, {})[part[1]] = (reader, name)
    elif not factors or change.lora_alpha == 0:
        return {}, []
    elif change.lora_alpha is not None:
        settings = lora.Settings(change.lora_alpha)
    elif is_there(folder / lora.CONFIG):
        settings = lora.read_settings(folder)
    else:
        raise CheckpointError(
            f"{folder} holds factors of LoRA ({next(iter(factors))}), and no {lora.CONFIG} says their alpha: give it "
            "(lora_alpha), or 0 if the weights have been merged already"
        )
    lora.require_pairs(factors, tensors, str(where))

    def of(path: str, parts: Mapping[str, Place]) -> Callable[[np.ndarray], np.ndarray]:
        def changed(weight: np.ndarray) -> np.ndarray:
            a, b = (parts[part][0].read(parts[part][1]) for part in "AB")
            return lora.merged(weight, a, b, settings.scale(path, a.shape[0]), path)

        return changed

    return {f"{path}.weight": of(path, parts) for path, parts in factors.items()}, files


def _in_backbone(path: str, tensors: Mapping[str, Place]) -> str:
    """The path without what another wrapper put before it."""
    parts = path.split(".")
    endings = (".".join(parts[start:]) for start in range(len(parts)))
    return next((ending for ending in endings if f"{ending}.weight" in tensors), path)


def _write_preprocessor(folder: Path, written: Path, kind: str, config: Mapping[str, Any], is_given: bool) -> None:
    """The feature extractor's settings, those beside the checkpoint where they are there."""
    source, _ = read_preprocessor(folder, kind)
    if source is not None:
        shutil.copyfile(source, written / source.name)
    if source is not None or is_given:
        return
    if kind == "whisper":
        seconds = config["max_source_positions"] // 50
        content = {"feature_extractor_type": "WhisperFeatureExtractor", "feature_size": config["num_mel_bins"],
                   "chunk_length": seconds}  # fmt: skip
    else:
        # WavLM base is the one published kind that hears waveforms as they are.
        is_normalised = not (kind == "wavlm" and config["feat_extract_norm"] == "group")
        content = {"feature_extractor_type": "Wav2Vec2FeatureExtractor", "do_normalize": is_normalised,
                   "sampling_rate": 16_000}  # fmt: skip
    write_json(written / PREPROCESSOR, content)


def _write_tensors(
    path: Path,
    tensors: Mapping[str, Place],
    shapes: Mapping[str, tuple[int, ...]],
    changes: Mapping[str, Callable[[np.ndarray], np.ndarray]],
) -> None:
    """A safetensors file, tensor by tensor: no more than one of them is in memory."""
    header, end = {"__metadata__": {"format": "pt"}}, 0
    kinds = {name: "float32" if name in changes else reader.dtype_name(own) for name, (reader, own) in tensors.items()}
    for name, shape in shapes.items():
        begin, end = end, end + int(np.prod(shape)) * {"float64": 8, "float32": 4}.get(kinds[name], 2)
        header[name] = {"dtype": _DTYPES[kinds[name]], "shape": list(shape), "data_offsets": [begin, end]}
    content = json.dumps(header).encode()
    content += b" " * (-len(content) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(content)) + content)
        for array in _arrays(tensors, changes):
            file.write(np.ascontiguousarray(array).tobytes())


def _arrays(tensors: Mapping[str, Place], changes: Mapping[str, Any]) -> Iterator[np.ndarray]:
    read = Tensors(tensors)
    for name in tensors:
        yield changes[name](read[name]) if name in changes else read[name]

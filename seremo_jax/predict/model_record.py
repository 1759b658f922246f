"""`model.json` and the files that it lists: read as something that a stranger may have written."""

import hashlib
import os
from pathlib import Path, PurePath
from typing import Any

from seremo_jax.core.artefacts import ArtefactError, fingerprint_of, read_json, require_same

FORMAT_VERSION = 1
RECORD_FILE = "model.json"
WEIGHTS_FILE, STABLEHLO_FILE, PROTOTYPES_FILE = "weights.safetensors", "head.stablehlo", "prototypes.safetensors"
REMEDY = "export it again with python -m launch.export, or copy the folder again"

_FIELDS: dict[str, Any] = {
    **dict.fromkeys(("head", "backbone", "calibration", "protocol", "files"), dict),
    **dict.fromkeys(("members", "layers", "classes", "attributes"), list),
    **dict.fromkeys(("longest_s", "shortest_s"), int | float),
}
_BACKBONE_FIELDS: dict[str, Any] = {
    **dict.fromkeys(("location", "name", "revision", "dtype", "stored_dtype", "window"), str),
    **dict.fromkeys(("num_features", "frame_rate_hz", "window_seconds", "overlap_seconds"), int | float),
    **dict.fromkeys(("final_norm", "final_norm_asked_for"), bool),
}
_ATTRIBUTE_FIELDS: dict[str, Any] = {"name": str, "is_trained": bool, "offset": int | float, "factor": int | float}
_CALIBRATION_FIELDS: dict[str, Any] = dict.fromkeys(("temperature", "conformal_threshold"), int | float | None)
_ITEMS: dict[str, type] = {"members": dict, "attributes": dict, "classes": str, "layers": int}
"""What prediction reads of a record, of which type it is, and of which type the items of its lists are."""


def describe(content: bytes) -> dict[str, Any]:
    """Size and hash of a file, as the record lists them."""
    return {"num_bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def without_places(content: Any) -> Any:
    """The content of a record, with the names of folders of this machine in the place of their paths."""
    if isinstance(content, dict):
        return {name: without_places(value) for name, value in content.items()}
    if isinstance(content, list):
        return [without_places(value) for value in content]
    return PurePath(content).name if isinstance(content, str) and os.path.isabs(content) else content


def read(folder: PurePath, blobs: Path | None = None) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The record without its hashes, and the bytes of each file that it lists.

    Args:
      folder: The folder.
      blobs: Another folder that its files may be links into; None forbids links out of it.

    Raises:
      ArtefactError: It is damaged, of another format, or no record of a model; or a file lies outside the folder, is
        missing, or is another one than the record says.
    """
    path = folder / RECORD_FILE
    record = read_json(path, REMEDY)
    if not isinstance(record, dict):
        raise ArtefactError(f"{path} is no object; {REMEDY}")
    remedy = f"Use the version that wrote it, or {REMEDY}."
    require_same(f"format of {folder}", record.get("format_version"), FORMAT_VERSION, remedy)
    stated = record.pop("fingerprint", None)
    require_same(f"fingerprint of {path}", stated, fingerprint_of(record), f"The file was changed: {REMEDY}.")
    _require_fields(path, record)
    record.pop("further_files", None)
    return record, {name: _content(folder, name, file, blobs) for name, file in record.pop("files").items()}


def _require_fields(path: PurePath, record: dict[str, Any]) -> None:
    """Refuses a record that is whole, but was written by something else."""
    wrong = _of_wrong_type(record, _FIELDS)
    wrong = wrong or {name: record[name] for name, kind in _ITEMS.items() if not _is_list_of(kind, record[name])}
    if not wrong:
        wrong = _of_wrong_type(record["backbone"], _BACKBONE_FIELDS, "backbone.")
        wrong |= _of_wrong_type(record["calibration"], _CALIBRATION_FIELDS, "calibration.")
        for place, attribute in enumerate(record["attributes"]):
            wrong |= _of_wrong_type(attribute, _ATTRIBUTE_FIELDS, f"attributes[{place}].")
        wrong |= _wrong_levels(record)
    for name, value in wrong.items():
        raise ArtefactError(f"{path}: {name} is {value!r}, which no model has; {REMEDY}")
    for name in ("classes", "attributes"):
        stated = record["head"].get(f"num_{name}")
        require_same(f"number of {name} in {path}", len(record[name]), stated, f"The head says so: {REMEDY}.")


def _of_wrong_type(content: dict[str, Any], fields: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    return {f"{prefix}{name}": content.get(name) for name, kind in fields.items()
            if not isinstance(content.get(name), kind)}  # fmt: skip


def _wrong_levels(record: dict[str, Any]) -> dict[str, Any]:
    """What is said of level that no model says. Earlier versions said nothing of it."""
    backbone, known = record["backbone"], record.get("levels_dbfs")
    wrong = {}
    if backbone.get("level", "none") not in ("none", "rms"):
        wrong["backbone.level"] = backbone["level"]
    if not isinstance(backbone.get("level_dbfs", 0.0), int | float):
        wrong["backbone.level_dbfs"] = backbone["level_dbfs"]
    if known is not None and not (isinstance(known, list) and len(known) == 2 and _is_list_of(int | float, known)):
        wrong["levels_dbfs"] = known
    return wrong


def _is_list_of(kind: Any, items: list[Any]) -> bool:
    return all(isinstance(item, kind) for item in items) and (bool(items) or kind is dict)


def _content(folder: PurePath, name: str, file: Any, blobs: Path | None) -> bytes:
    """The bytes of a file, which lies in the folder itself: no name and no link leads out of it, but into `blobs`."""
    path = folder / name
    homes = {place.resolve() for place in (folder, blobs) if isinstance(place, Path)}
    if name != PurePath(name).name or (homes and path.resolve().parent not in homes):
        raise ArtefactError(
            f"{folder / RECORD_FILE}: files names {name!r}, which does not lie in this folder; a model folder holds "
            f"all that belongs to it: {REMEDY}"
        )
    if not path.is_file():
        raise ArtefactError(f"{path} is missing, though {RECORD_FILE} lists it; {REMEDY}")
    content = path.read_bytes()
    stated, present = file if isinstance(file, dict) else {}, describe(content)
    for field, what, why in (("num_bytes", "size", "cut off or foreign"), ("sha256", "SHA-256", "damaged")):
        unit = " in bytes" if field == "num_bytes" else ""
        require_same(f"{what} of {path}{unit}", present[field], stated.get(field), f"It is {why}: {REMEDY}.")
    return content

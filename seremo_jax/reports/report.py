"""Result records -> `report/`: one HTML page, Markdown, CSV and figures. Reads artefacts only; computes no score."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any

from seremo_jax.core.artefacts import ArtefactError, parsed, place_of, read_json, remove_leftovers, require_same
from seremo_jax.core.cells import one_line
from seremo_jax.core.hashed import renewed, require_files
from seremo_jax.core.lock import at_work
from seremo_jax.evaluation import records as result_records
from seremo_jax.reports import (
    blocks,
    calibration_section,
    condition_scores,
    condition_section,
    failure_signs,
    overview,
    page,
    score_tables,
    table,
)
from seremo_jax.reports.blocks import Block, ReportError
from seremo_jax.reports.overview import Artefacts

__all__ = ["ArtefactError", "ReportError", "load", "markdown_summary", "run"]

FOLDER = "report"
_TRAIN = "delete the folder train and run python -m launch.train with this --workdir"
_INGEST = "run python -m launch.ingest with this --workdir"


def load(workdir: str | os.PathLike) -> Artefacts:
    """Reads and checks what the stages left in `workdir`.

    Raises:
      ArtefactError: `results.jsonl` or `ingest.json` is missing or damaged, or they tell of different splits.
      ReportError: Records cannot stand in one table.
    """
    workdir = place_of(workdir)
    records = result_records.read(workdir / result_records.FILE)
    ingest = read_json(workdir / "ingest.json", _INGEST)
    for record in records:
        if "split_hash" in record.protocol:
            require_same(
                f"split_hash in {workdir / 'results.jsonl'} (there) and ingest.json (asked for)",
                record.protocol["split_hash"], ingest.get("split_hash"), f"Remedy: {result_records.EVALUATE}.",
            )  # fmt: skip
    saliency_path = workdir / "saliency.json"
    saliency = read_json(saliency_path, "run python -m launch.saliency") if saliency_path.exists() else None
    is_simulated = bool(ingest.get("corpus", {}).get("is_simulated")) or any(
        record.protocol.get("is_simulated") for record in records
    )
    return Artefacts(tuple(blocks.blocks(records, is_simulated)), ingest, saliency, _training_of(workdir / "train"))


def _training_of(folder: PurePath) -> tuple[list[dict[str, Any]], list[dict[str, Any]]] | None:
    """Lines of the training log and the members; None where there are none. `log` would import TensorBoard: slow."""
    path, stamp = folder / "log.jsonl", folder / "finished.json"
    if not (folder / "members.json").exists() or not path.exists():
        return None
    if stamp.exists():
        # A log that lost its last lines would read as that of a shorter training.
        require_files(folder, read_json(stamp, _TRAIN).get("beside", {}), _TRAIN)
    lines = [parsed(line, f"{path}:{n}", _TRAIN) for n, line in enumerate(path.read_bytes().splitlines(), 1)]
    return (lines, read_json(folder / "members.json", _TRAIN)) if lines else None


def run(workdir: str | os.PathLike) -> PurePath:
    """Writes `WORKDIR/report/` anew, whole or not at all; returns the path of the page.

    A report that is there and would be the same is left alone.

    Raises:
      ArtefactError: See `load`; or another process is at work in this workdir.
      ReportError: See `load`.
    """
    workdir = place_of(workdir)
    with at_work(workdir, "report"):
        remove_leftovers(workdir, f"{FOLDER}.*")
        artefacts = load(workdir)
        with renewed(workdir / FOLDER) as temporary:
            temporary.mkdir()
            content = overview.page_of(artefacts, temporary)
            (temporary / "index.html").write_text(page.html(content), encoding="utf-8")
            (temporary / "report.md").write_text(page.markdown(content), encoding="utf-8")
            _write_csv(temporary / "results.csv", _result_rows(artefacts))
            _write_csv(temporary / "speakers.csv", _speaker_rows(artefacts))
            if artefacts.saliency is not None:
                _write_csv(temporary / "saliency.csv", _saliency_rows(artefacts.saliency, artefacts.is_simulated))
    return workdir / FOLDER / "index.html"


def markdown_summary(workdir: str | os.PathLike) -> str:
    """The main tables and the signs to heed as Markdown, for a terminal.

    Raises:
      ArtefactError: See `load`.
      ReportError: See `load`.
    """
    artefacts = load(workdir)
    parts = []
    for block in artefacts.whole_blocks:
        parts.append(table.markdown(score_tables.summary_table(block)))
        if signs := failure_signs.of_scores(block):
            parts.append("\n".join(f"- {one_line(sign)}" for sign in signs))
    for conditions in condition_scores.gather(artefacts.blocks):
        parts.append(table.markdown(condition_section.condition_table(conditions)))
    return "\n\n".join(parts) + "\n"


def _write_csv(path: Path, rows: Iterator[Mapping[str, Any]]) -> None:
    """Writes rows of the same keys."""
    rows = list(rows)
    path.write_text(table.csv_text(list(rows[0]) if rows else [], rows), encoding="utf-8")


def _origin(artefacts: Artefacts, block: Block, system: str) -> dict[str, Any]:
    record = block.whole(system)
    return {
        "corpus": artefacts.protocol.get("corpus"),
        "release": artefacts.protocol.get("release"),
        "is_simulated": artefacts.is_simulated,
        "split": block.split,
        "condition": block.condition,
        "system": record.system,
        "layer": record.layer,
        "seeds": " ".join(map(str, record.seeds)),
    }


def _result_rows(artefacts: Artefacts) -> Iterator[dict[str, Any]]:
    """One row a metric x system x group, unrounded."""
    for block in artefacts.blocks:
        for (system, group), record in block.by_key.items():
            for name, entry in sorted((record.metrics | dict(calibration_section.numbers(record))).items()):
                yield {
                    **_origin(artefacts, block, system),
                    "group": group,
                    "num_speakers": record.num_speakers,
                    "num_utterances": record.num_utterances,
                    "num_scored": record.num_scored,
                    "metric": name,
                    **{key: entry.get(key) for key in ("value", "low", "high", "sd", "count", "chance")},
                    "members": " ".join("" if value is None else repr(value) for value in entry.get("members") or ()),
                    "is_defined": entry.get("defined", True),
                }


def _speaker_rows(artefacts: Artefacts) -> Iterator[dict[str, Any]]:
    """One row a system x speaker."""
    for block in artefacts.blocks:
        for system in block.systems:
            for speaker in block.whole(system).speakers:
                yield {
                    **_origin(artefacts, block, system),
                    **{key: speaker[key] for key in ("speaker", "gender", "num_scored", "num_classes")},
                    **{f"uar_{n}_best": value for n, value in zip(block.nbest, speaker["uar"], strict=True)},
                }


def _saliency_rows(saliency: Mapping[str, Any], is_simulated: bool) -> Iterator[dict[str, Any]]:
    """One row a curve x layer x target; the target `score` is what the curve picks its layer by.

    The curve `variance_share` has factors in the place of targets: gender, speaker, sentence.
    """
    for kind, curve in saliency["curves"].items():
        for k, layer in enumerate(saliency["layers"] if curve is not None else ()):
            values: list[tuple[str, Any, Any, Any]] = [
                (name, value, None, None)
                for name, value in zip(saliency["targets"], curve["per_layer"][k], strict=True)
            ]
            values.append(("score", curve["score"][k], curve["low"][k], curve["high"][k]))
            for target, value, low, high in values:
                yield {
                    "is_simulated": is_simulated,
                    "curve": kind,
                    "layer": layer,
                    "target": target,
                    "value": value,
                    "low": low,
                    "high": high,
                    "is_chosen": kind == saliency["kind"] and layer == saliency["chosen"],
                }
    for factor, entry in saliency.get("variance_shares", {}).items():
        for k, layer in enumerate(saliency["layers"] if "absent" not in entry else ()):
            yield {
                "is_simulated": is_simulated,
                "curve": "variance_share",
                "layer": layer,
                "target": factor,
                "value": entry["share"][k],
                "low": entry["low"][k],
                "high": entry["high"][k],
                "is_chosen": False,
            }

"""The result of a sweep: one leaderboard of all its systems, as Markdown, CSV and a figure. No JAX.

Members that differ only in seeds or fold are one system, a row; its columns are the fields that the sweep varies.
"""

import csv
import dataclasses
import io
import json
import pprint
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from seremo_jax.core import members as ensemble
from seremo_jax.core import vocab
from seremo_jax.core.artefacts import read_json, write_text
from seremo_jax.core.config import from_config_dict
from seremo_jax.core.schema import ResultRecord
from seremo_jax.evaluation import records
from seremo_jax.reports import look, page, score_tables
from seremo_jax.sweeps import leaderboard_figure, plan

MANIFEST_FILE, RESULTS_FILE, STATUS_FILE = "manifest.json", "development.jsonl", "status.json"
BEST_FOLDER, RECIPE_FILE = "best", "recipe.py"
_STEM, _REMEDY = "leaderboard", "delete the folder of this program: it is run anew"
_METRICS = ("UAR", "2-best UAR", "3-best UAR", "macro-F1 (present)", "macro-F1 (all)", "class CCC mean", "CCC mean")
_SEEDS = ("train.seed", "train.data_seed", "data.fold")
_AXES_OF = {path: f"ensemble.{ensemble.MEMBER_AXES[field]}" for field, path in ensemble.MEMBER_FIELDS.items()}


class Entry(NamedTuple):
    """A row of the leaderboard.

    Attributes:
      program: Number of its program.
      settings: Field that the sweep varies -> value.
      members: Places of its members among those of the program.
      record: Its scores over all speakers.
    """

    program: int
    settings: dict[str, Any]
    members: tuple[int, ...]
    record: ResultRecord


def run_folder(index: int) -> str:
    """Folder of a program below that of the sweep."""
    return f"runs/{index:03d}"


def entries(folder: Path, manifest: Mapping[str, Any]) -> list[Entry]:
    """Every system that has been evaluated so far, by its scores on the development split, best first.

    Args:
      folder: Folder of the sweep.
      manifest: Content of its manifest.
    """
    found = []
    for index, program in enumerate(manifest["programs"]):
        tree = program["config"]
        run = folder / run_folder(index)
        parts = read_json(run / STATUS_FILE, _REMEDY)["parts"] if (run / STATUS_FILE).exists() else ()
        for part in parts:
            path = run / part["folder"] / RESULTS_FILE
            if not path.exists():
                continue
            members = json.loads((path.parent / "train" / "members.json").read_text(encoding="utf-8"))
            members = [vars(ensemble.Member(**member)) for member in members]
            of_system = {about["system"]: rows for rows, about in ensemble.systems(members)}
            for record in records.read(path):
                if (record.group, record.split) != ("all", vocab.DEVELOPMENT):
                    continue
                rows = of_system[record.system]
                settings = {path: _value(tree, members[rows[0]], path) for path in _varied(manifest)}
                found.append(Entry(index, settings, tuple(part["members"][row] for row in rows), record))
    return sorted(found, key=lambda entry: -(score(entry.record, metric_of(entry.record)) or 0.0))


def _varied(manifest: Mapping[str, Any]) -> list[str]:
    """Fields that differ between the systems: those swept, and axes that the recipe itself has; no seeds."""
    single = {axis: path for path, axis in _AXES_OF.items()}
    paths = [single.get(path, path) for path in manifest["swept"]]
    for path, axis in _AXES_OF.items():
        if any(len(program["config"]["ensemble"][axis.partition(".")[2]]) > 1 for program in manifest["programs"]):
            paths.append(path)
    return [path for path in dict.fromkeys(paths) if path not in _SEEDS]


def _value(tree: Mapping[str, Any], member: Mapping[str, Any], path: str) -> Any:
    for field, single in ensemble.MEMBER_FIELDS.items():
        if path == single:
            return "sum" if field == "layer" and member[field] == ensemble.SUM else member[field]
    section, name = path.split(".")
    value = tree[section][name]
    return tuple(value) if isinstance(value, list) else value


def metric_of(record: ResultRecord) -> str:
    """What the leaderboard is sorted by: UAR, or the mean CCC of attributes where nothing has classes."""
    return next(name for name in ("UAR", "CCC mean", *sorted(record.metrics)) if score(record, name) is not None)


def score(record: ResultRecord, name: str) -> float | None:
    """Value of a metric; None where it is not defined."""
    metric = record.metrics.get(name, {"defined": False})
    return metric["value"] if metric.get("defined", True) else None


def write(folder: Path, manifest: Mapping[str, Any]) -> list[Entry]:
    """Writes `leaderboard.md`, `.csv`, where scores can be drawn `.svg` and `.png`, and the recipe of the best.

    Args:
      folder: Folder of the sweep.
      manifest: Content of its manifest.

    Returns:
      The rows.
    """
    found = entries(folder, manifest)
    if found:
        write_text(folder / BEST_FOLDER / RECIPE_FILE, _recipe(manifest, found))
    write_text(folder / f"{_STEM}.md", markdown(folder, manifest, found))
    write_text(folder / f"{_STEM}.csv", _csv(found))
    if found and found[0].settings:
        name = metric_of(found[0].record)
        shown = [entry for entry in found if score(entry.record, name) is not None]
        settings = [entry.settings for entry in shown]
        values = [score(entry.record, name) for entry in shown]
        origin = f"{found[0].record.protocol['corpus']}, {found[0].record.split} split"

        def draw(theme: look.Theme) -> Any:
            return leaderboard_figure.draw(look.Look(theme, origin, ()), manifest["sweep"], name, settings, values)

        write_text(folder / f"{_STEM}.svg", look.render(draw, folder / f"{_STEM}.png")[0])
    return found


def markdown(folder: Path, manifest: Mapping[str, Any], found: Sequence[Entry]) -> str:
    """The leaderboard as Markdown, with what is not in it."""
    lines = [f"# Sweep {manifest['sweep']}: {len(found)} systems, {len(manifest['points'])} points", ""]
    if found:
        metrics = [name for name in _METRICS if any(score(entry.record, name) is not None for entry in found)]
        paths = list(found[0].settings)
        header = (*paths, "seeds", *metrics, "program")
        rows = []
        for entry in found:
            cells = [score_tables.cell(name, entry.record.metrics.get(name)) for name in metrics]
            settings = [str(entry.settings[path]) for path in paths]
            rows.append(page.Row((*settings, str(len(entry.record.seeds)), *cells, str(entry.program))))
        caption = (
            f"Split {found[0].record.split}, sorted by {metric_of(found[0].record)}; mean ± standard deviation over "
            "seeds [95 % interval over speakers]. The best of many systems on a split is better there than elsewhere: "
            "the test split was not looked at, and is for the one that is chosen here."
        )
        lines.append(page.table_markdown(page.Table("Leaderboard", header, tuple(rows), caption)))
        best = folder / BEST_FOLDER
        lines.append("\nThe first one anew, and on the test split (then launch.evaluate, launch.report):\n")
        lines.append(f"    python -m launch.train --config={best / RECIPE_FILE} --workdir={best}\n")
    for index, _ in enumerate(manifest["programs"]):
        path = folder / run_folder(index) / STATUS_FILE
        status = read_json(path, _REMEDY) if path.exists() else {"status": "waiting"}
        if status["status"] != "finished":
            lines.append(f"- program {index}: {status['status']} {status.get('error', '')}".rstrip())
        if status.get("left_out"):
            lines.append(f"- program {index}: {len(status['left_out'])} members left out, as their loss was not finite")
    return "\n".join(lines) + "\n"


def _recipe(manifest: Mapping[str, Any], found: Sequence[Entry]) -> str:
    """A recipe that trains the members of the first row, and evaluates as the recipe of the sweep says."""
    best, name = found[0], metric_of(found[0].record)
    config = from_config_dict(manifest["programs"][best.program]["config"])
    tree = dataclasses.asdict(plan.alone(config, best.members, manifest["eval"]))
    return (
        f'"""The best of {len(found)} systems of the sweep {manifest["sweep"]}: {name} '
        f'{score(best.record, name):.3f} on the development split."""\n\n'
        "from seremo_jax.core.config import from_config_dict, to_config_dict\n\n"
        f"CONFIG = {pprint.pformat(tree, width=100, sort_dicts=False)}\n\n\n"
        'def get_config(arg: str = ""):\n    """The recipe."""\n    return to_config_dict(from_config_dict(CONFIG))\n'
    )


def _csv(found: Sequence[Entry]) -> str:
    """One row a system: settings, then value, sd and interval of every metric, unrounded."""
    metrics = list(dict.fromkeys(name for entry in found for name in sorted(entry.record.metrics)))
    columns = [f"{name} {part}" for name in metrics for part in ("value", "sd", "low", "high")]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["program", *(found[0].settings if found else ()), "seeds", *columns])
    for entry in found:
        values = [
            entry.record.metrics.get(name, {}).get(part) for name in metrics for part in ("value", "sd", "low", "high")
        ]
        seeds = " ".join(map(str, entry.record.seeds))
        writer.writerow([entry.program, *entry.settings.values(), seeds, *values])
    return buffer.getvalue()

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

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure

from seremo_jax.core import members as ensemble
from seremo_jax.core import vocab
from seremo_jax.core.artefacts import write_text
from seremo_jax.core.config import from_config_dict
from seremo_jax.core.schema import ResultRecord
from seremo_jax.evaluation import records
from seremo_jax.reports import look, page, score_tables
from seremo_jax.reports.look import Look, canvas
from seremo_jax.sweeps import plan
from seremo_jax.sweeps.status import FINISHED, read_status

MANIFEST_FILE, RESULTS_FILE = "manifest.json", "development.jsonl"
BEST_FOLDER, RECIPE_FILE = "best", "recipe.py"
_STEM = "leaderboard"
_METRICS = ("UAR", "2-best UAR", "3-best UAR", "macro-F1 (present)", "macro-F1 (all)", "class CCC mean", "CCC mean")
_SEEDS = [ensemble.MEMBER_FIELDS[field] for field in ensemble.WITHIN_A_SYSTEM]
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
    systems = []
    for index, program in enumerate(manifest["programs"]):
        tree, run = program["config"], folder / run_folder(index)
        if not (run / RESULTS_FILE).exists():
            continue
        places = read_status(run).trained(program["num_members"])
        members = json.loads((run / "train" / "members.json").read_text(encoding="utf-8"))
        members = [vars(ensemble.Member(**member)) for member in members]
        rows_of = {about["system"]: rows for rows, about in ensemble.systems(members)}
        for record in records.read(run / RESULTS_FILE):
            if (record.group, record.split) != ("all", vocab.DEVELOPMENT):
                continue
            rows = rows_of[record.system]
            settings = {path: _value(tree, members[rows[0]], path) for path in _varied(manifest)}
            systems.append(Entry(index, settings, tuple(places[row] for row in rows), record))
    return sorted(systems, key=lambda entry: -(score(entry.record, metric_of(entry.record)) or 0.0))


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

        def in_theme(theme: look.Theme) -> Figure:
            return draw(look.Look(theme, origin, ()), manifest["sweep"], name, settings, values)

        write_text(folder / f"{_STEM}.svg", look.render(in_theme, folder / f"{_STEM}.png")[0])
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
        status = read_status(folder / run_folder(index))
        if status.word != FINISHED:
            lines.append(f"- program {index}: {status.word} {status.error}".rstrip())
        if status.left_out:
            lines.append(f"- program {index}: {len(status.left_out)} members left out, as their loss was not finite")
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


_MOST_CELLS = 20
_FAN = 0.35
"""Width of the lines through a level, of the distance between levels."""


def draw(look: Look, title: str, metric: str, settings: Sequence[Mapping[str, Any]], values: Sequence[float]) -> Figure:
    """A figure of all systems.

    Args:
      look: Theme and words.
      title: Name of the sweep.
      metric: Name of the score.
      settings: Of each system, field -> value; the same fields for all.
      values: Score of each system.
    """
    fields = {field: _ordered([system[field] for system in settings]) for field in settings[0]}
    varied = {field: levels for field, levels in fields.items() if len(levels) > 1} or fields
    sizes = [len(levels) for levels in varied.values()]
    if len(varied) == 2 and max(sizes) <= _MOST_CELLS and np.prod(sizes) == len(settings):
        return _heat_map(look, title, metric, varied, settings, values)
    return _parallel(look, title, metric, varied, settings, values)


def _ordered(values: Sequence[Any]) -> list[Any]:
    """Levels of a field: numbers ascending, then words in the order they come in."""
    levels = list(dict.fromkeys(values))
    numbers = sorted(level for level in levels if isinstance(level, int | float))
    return [*numbers, *(level for level in levels if not isinstance(level, int | float))]


def _colors(look: Look, values: Sequence[float]) -> tuple[LinearSegmentedColormap, Normalize]:
    # The lightest end of the map is the paper itself, on which a line would not be seen.
    shades = LinearSegmentedColormap.from_list("heat", look.theme.heat[1:])
    low, high = min(values), max(values)
    return shades, Normalize(low, high if high > low else low + 1e-6)


def _heat_map(
    look: Look,
    title: str,
    metric: str,
    fields: Mapping[str, Sequence[Any]],
    settings: Sequence[Mapping[str, Any]],
    values: Sequence[float],
) -> Figure:
    (across, columns), (down, rows) = sorted(fields.items(), key=lambda item: -len(item[1]))
    size = (2.6 + 0.85 * len(columns), 2.2 + 0.5 * len(rows))
    figure, axes = canvas(look, f"Sweep {title}", metric, (max(size[0], 5.4), size[1]), (1, 1))
    ax, cells = axes[0, 0], np.full((len(rows), len(columns)), np.nan)
    for system, value in zip(settings, values, strict=True):
        cells[rows.index(system[down]), columns.index(system[across])] = value
    shades, norm = _colors(look, values)
    image = ax.imshow(cells, cmap=shades, norm=norm, aspect="auto")
    for (row, column), value in np.ndenumerate(cells):
        red, green, blue, _ = shades(norm(value))
        ink = "#000000" if 0.3 * red + 0.59 * green + 0.11 * blue > 0.5 else "#ffffff"
        weight = "bold" if value == max(values) else "normal"
        ax.text(column, row, f"{value:.3f}", ha="center", va="center", color=ink, size=10, weight=weight)
    ax.grid(False)
    ax.set_xticks(range(len(columns)), list(map(_word, columns)))
    ax.set_yticks(range(len(rows)), list(map(_word, rows)))
    ax.set(xlabel=across, ylabel=down)
    figure.colorbar(image, ax=ax, label=metric)
    return figure


def _parallel(
    look: Look,
    title: str,
    metric: str,
    fields: Mapping[str, Sequence[Any]],
    settings: Sequence[Mapping[str, Any]],
    values: Sequence[float],
) -> Figure:
    """One upright axis a field, its levels evenly apart, the score on the last; a line a system, the best on top.

    Lines through one level fan out by their scores, as crossed fields would else lay all of them onto each other.
    """
    size = (2.6 + 1.9 * len(fields), 5.0)
    figure, axes = canvas(look, f"Sweep {title}", metric, (max(size[0], 6.0), size[1]), (1, 1))
    ax, (shades, norm) = axes[0, 0], _colors(look, values)
    order = np.argsort(values, kind="stable")
    for rank, i in enumerate(order):
        share = float(norm(values[i]))
        heights = [
            _height(levels, settings[i][field]) + _FAN * (share - 0.5) / max(len(levels) - 1, 1)
            for field, levels in fields.items()
        ]
        is_best = rank == len(order) - 1
        ax.plot(
            range(len(fields) + 1),
            [*heights, share],
            color=look.theme.systems[1] if is_best else shades(share),
            linewidth=2.6 if is_best else 1.3,
            alpha=1.0 if is_best else 0.75,
            label="best" if is_best else None,
        )
    for place, levels in enumerate(fields.values()):
        ax.axvline(place, color=look.theme.muted, linewidth=1)
        for level in levels:
            text = ax.text(place - 0.05, _height(levels, level), _word(level), ha="right", va="center", size=9)
            text.set_bbox({"facecolor": look.theme.paper, "edgecolor": "none", "alpha": 0.75, "pad": 0.8})
    ax.axvline(len(fields), color=look.theme.muted, linewidth=1)
    ax.set_xticks(range(len(fields) + 1), [*(field.replace(".", ".\n") for field in fields), metric])
    ax.set_yticks([])
    ax.set(xlim=(-0.45, len(fields) + 0.1), ylim=(-0.2, 1.2))
    ax.grid(False)
    ax.spines[["left", "bottom"]].set_visible(False)
    ax.legend(loc="upper left", bbox_to_anchor=(0.0, 1.1))
    figure.colorbar(ScalarMappable(norm, shades), ax=ax, label=metric)
    return figure


def _height(levels: Sequence[Any], level: Any) -> float:
    return levels.index(level) / (len(levels) - 1) if len(levels) > 1 else 0.5


def _word(level: Any) -> str:
    return f"{level:g}" if isinstance(level, float) else str(level)

"""The result of a sweep: one leaderboard of all its systems, as Markdown, CSV and a figure. No JAX.

Members that differ only in seeds or fold are one system, a row; its columns are the fields that the sweep varies.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure

from seremo_jax.core import commands, ensemble, vocab
from seremo_jax.core.artefacts import read_json
from seremo_jax.core.cells import one_line
from seremo_jax.core.hashed import renewed
from seremo_jax.core.schema import ResultRecord
from seremo_jax.evaluation import records
from seremo_jax.metrics import catalogue
from seremo_jax.metrics.catalogue import Metric
from seremo_jax.reports import look, rater_rows, table
from seremo_jax.reports.blocks import ordered, value_of
from seremo_jax.reports.look import Look, canvas
from seremo_jax.sweeps import recipes
from seremo_jax.sweeps.status import FINISHED, read_status

MANIFEST_FILE, RESULTS_FILE = "manifest.json", "development.jsonl"
BEST_FOLDER = "best"
_STEM = "leaderboard"
_UAR, _CCC_MEAN = catalogue.metric("uar"), catalogue.metric("ccc_mean")
_SEEDS = [ensemble.MEMBER_FIELDS[field] for field in ensemble.WITHIN_A_SYSTEM]
_AXES_OF = {path: f"ensemble.{ensemble.MEMBER_AXES[field]}" for field, path in ensemble.MEMBER_FIELDS.items()}


class Entry(NamedTuple):
    """A row of the leaderboard.

    Attributes:
      program: Number of its program.
      settings: Field that the sweep varies -> value.
      members: Places of its members among those of the program.
      record: Its scores over all speakers.
      scores: Metric -> entry of the record.
    """

    program: int
    settings: dict[str, Any]
    members: tuple[int, ...]
    record: ResultRecord
    scores: Mapping[Metric, Mapping[str, Any]]

    def score(self, metric: Metric) -> float | None:
        """Value of a metric; None where it is not there or not defined."""
        return value_of(self.scores.get(metric))

    @property
    def main_metric(self) -> Metric:
        """What the leaderboard is sorted by: UAR, or the mean CCC of attributes where nothing has classes."""
        defined = [metric for metric in ordered(tuple(self.scores)) if self.score(metric) is not None]
        return next((metric for metric in (_UAR, _CCC_MEAN, *defined) if metric in defined), _UAR)

    @property
    def rank(self) -> float:
        """Sort key: the best system first."""
        return -(self.score(self.main_metric) or 0.0) * (self.main_metric.about.direction or 1)


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
        members = read_json(run / "train" / "members.json", "delete the folder of this program: it is run anew")
        members = [vars(ensemble.Member(**member)) for member in members]
        rows_of = {about["system"]: rows for rows, about in ensemble.systems(members)}
        for record in records.read(run / RESULTS_FILE):
            if (record.group, record.split) != ("all", vocab.DEVELOPMENT):
                continue
            rows = rows_of[record.system]
            settings = {path: _value(tree, members[rows[0]], path) for path in _varied(manifest)}
            metrics = catalogue.entries_by_metric(record.metrics)
            systems.append(Entry(index, settings, tuple(places[row] for row in rows), record, metrics))
    return sorted(systems, key=lambda entry: entry.rank)


def _varied(manifest: Mapping[str, Any]) -> list[str]:
    """Fields that differ between the systems: those swept, and axes that the recipe itself has; no seeds."""
    single = {axis: path for path, axis in _AXES_OF.items()}
    paths = [single.get(path, path) for path in manifest["swept"]]
    for path, axis in _AXES_OF.items():
        name = axis.partition(".")[2]
        # Sweeps of earlier versions lack the axes that came later.
        if any(len(program["config"]["ensemble"].get(name, ())) > 1 for program in manifest["programs"]):
            paths.append(path)
    return [path for path in dict.fromkeys(paths) if path not in _SEEDS]


def _value(tree: Mapping[str, Any], member: Mapping[str, Any], path: str) -> Any:
    for field, single in ensemble.MEMBER_FIELDS.items():
        if path == single:
            return ensemble.layer_word(member[field]) if field == "layer" and member[field] < 0 else member[field]
    section, name = path.split(".")
    value = tree[section][name]
    return tuple(value) if isinstance(value, list) else value


def write(folder: Path, manifest: Mapping[str, Any]) -> list[Entry]:
    """Writes `leaderboard.md`, `.csv`, where scores can be drawn `.svg` and `.png`, and the recipe of the best.

    Args:
      folder: Folder of the sweep.
      manifest: Content of its manifest.

    Returns:
      The rows.
    """
    systems = entries(folder, manifest)
    if systems:
        _renew(folder / BEST_FOLDER / recipes.FILE, _recipe(manifest, systems))
    for index in sorted({entry.program for entry in systems}):
        program, run = manifest["programs"][index], folder / run_folder(index)
        about = f"Program {index} of the sweep {manifest['sweep']}, as it was trained."
        members = read_status(run).trained(program["num_members"])
        _renew(run / recipes.FILE, recipes.of_program(program, members, manifest["eval"], about))
    _renew(folder / f"{_STEM}.md", commands.as_called(markdown(folder, manifest, systems)))
    _renew(folder / f"{_STEM}.csv", _csv(systems))
    if systems and systems[0].settings:
        metric = systems[0].main_metric
        shown = [entry for entry in systems if entry.score(metric) is not None]
        settings = [entry.settings for entry in shown]
        values = [entry.score(metric) for entry in shown]
        origin = f"{systems[0].record.protocol['corpus']}, {systems[0].record.split} split"

        def in_theme(theme: look.Theme) -> Figure:
            return draw(look.Look(theme, origin, ()), manifest["sweep"], metric.name, settings, values)

        with renewed(folder / f"{_STEM}.png") as png:
            text, _ = look.render(in_theme, png)
        _renew(folder / f"{_STEM}.svg", text)
    return systems


def _renew(path: Path, text: str) -> None:
    with renewed(path) as place:
        place.write_text(text, encoding="utf-8")


def markdown(folder: Path, manifest: Mapping[str, Any], systems: Sequence[Entry]) -> str:
    """The leaderboard as Markdown, with what is not in it. Its CSV has further scores."""
    lines = [f"# Sweep {manifest['sweep']}: {len(systems)} systems, {len(manifest['points'])} points", ""]
    if systems:
        defined = {metric for entry in systems for metric in entry.scores if entry.score(metric) is not None}
        metrics = [metric for metric in catalogue.compared(defined) if metric.about.table == "scores"]
        paths = list(systems[0].settings)
        columns = ("seeds", *table.names(metrics), "program")
        rows = []
        for entry in systems:
            cells = (table.measured(entry.scores.get(metric), metric) for metric in metrics)
            settings = tuple(str(entry.settings[path]) for path in paths)
            ends = table.plain(len(entry.record.seeds)), table.plain(entry.program)
            rows.append(table.Row(settings, (*ends[0], *cells, *ends[1])))
        states = next((entry.record.states for entry in systems if "raters" in entry.record.states), {})
        rows += rater_rows.row_of(states, metrics, 1, 1, len(paths))
        caption = (
            f"Split {systems[0].record.split}, sorted by {systems[0].main_metric.name}; mean ± standard deviation over "
            "seeds [95 % interval over speakers]. The best of many systems on a split is better there than elsewhere: "
            "the test split was not looked at, and is for the one that is chosen here."
            f"{f' {rater_rows.READING}' if 'rows' in states.get('raters', {}) else ''}"
        )
        lines.append(table.markdown(table.Table("Leaderboard", tuple(paths), columns, tuple(rows), caption)))
        best = folder / BEST_FOLDER
        lines.append("\nThe first one anew, and on the test split (then launch.evaluate, launch.report):\n")
        lines.append(f"    python -m launch.train --config={best / recipes.FILE} --workdir={best}\n")
        run = folder / run_folder(systems[0].program)
        lines.append(
            "All systems of a program on the test split, for a table of what each of them does; who then chooses by it "
            "has no test split any more:\n"
        )
        lines.append(f"    python -m launch.evaluate --config={run / recipes.FILE} --workdir={run}\n")
    for index, _ in enumerate(manifest["programs"]):
        status = read_status(folder / run_folder(index))
        if status.word != FINISHED:
            lines.append(f"- program {index}: {status.word} {one_line(status.error)}".rstrip())
        if status.left_out:
            lines.append(f"- program {index}: {len(status.left_out)} members left out, as their loss was not finite")
    return "\n".join(lines) + "\n"


def _recipe(manifest: Mapping[str, Any], systems: Sequence[Entry]) -> str:
    """A recipe that trains the members of the first row, and evaluates as the recipe of the sweep says."""
    best, metric = systems[0], systems[0].main_metric
    about = (
        f"The best of {len(systems)} systems of the sweep {manifest['sweep']}: {metric.name} "
        f"{best.score(metric) or 0.0:.3f} on the development split."
    )
    return recipes.of_system(manifest["programs"][best.program], best.members, manifest["eval"], about)


def _csv(systems: Sequence[Entry]) -> str:
    """One row a system: settings, then value, sd and interval of every metric, unrounded."""
    class_names = systems[0].record.states.get("class_names", ()) if systems else ()
    metrics = ordered([metric for entry in systems for metric in entry.scores], class_names)
    rows = tuple(
        table.Row(
            (str(entry.program), *map(str, entry.settings.values()), " ".join(map(str, entry.record.seeds))),
            tuple(table.measured(entry.scores.get(metric), metric) for metric in metrics),
        )
        for entry in systems
    )
    labels = ("program", *(systems[0].settings if systems else ()), "seeds")
    whole = table.Table("Leaderboard", labels, table.names(metrics), rows)
    return table.csv_text(*table.rows_of_numbers(whole, ("value", "sd", "low", "high")))


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

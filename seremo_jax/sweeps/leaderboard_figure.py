"""The figure of a sweep: a heat map of two fields, parallel coordinates of any other number. No JAX."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure

from seremo_jax.reports.look import Look, canvas

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
    fields = {field: _ordered([one[field] for one in settings]) for field in settings[0]}
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
    for one, value in zip(settings, values, strict=True):
        cells[rows.index(one[down]), columns.index(one[across])] = value
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

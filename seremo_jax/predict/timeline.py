"""The timeline of a long recording as a table and a figure. No JAX."""

import csv
import os
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from seremo_jax.core.artefacts import ArtefactError, atomic_path, clear_when_full, fingerprint_of
from seremo_jax.core.cells import disarmed
from seremo_jax.core.folders import printable
from seremo_jax.predict.result import Result
from seremo_jax.reports.look import Look, Theme, canvas, render

_IN_MINUTES_S = 300.0
_MOST_NAME_BYTES = 250


def write(stem: str | os.PathLike, name: str, result: Result) -> None:
    """Writes `STEM.csv`, one row a window, and `STEM.png`.

    Args:
      stem: Path of both files without their suffix.
      name: What the figure calls the recording.
      result: Its result.
    """
    first = result.timeline[0]
    columns = ["start_s", "end_s", *(f"p_{c}" for c in first.distribution), *first.attributes]
    with atomic_path(f"{os.fspath(stem)}.csv") as path, path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(map(disarmed, columns))
        for segment in result.timeline:
            values = (*segment.distribution.values(), *segment.attributes.values())
            writer.writerow([f"{value:.6g}" for value in (segment.start_s, segment.end_s, *values)])
    with atomic_path(f"{os.fspath(stem)}.png") as path:
        render(lambda theme: figure(theme, name, result), path)


def figure(theme: Theme, name: str, result: Result) -> Figure:
    """Class probabilities over time, stacked, and below them the attributes where there are any."""
    in_minutes = result.duration_s > _IN_MINUTES_S
    factor, unit = (1 / 60, "min") if in_minutes else (1.0, "s")
    segments, attributes = result.timeline, list(result.attributes)
    middle = np.array([(segment.start_s + segment.end_s) / 2 for segment in segments]) * factor
    num_rows = 2 if attributes else 1
    num_windows, length_s = len(segments), segments[0].end_s - segments[0].start_s
    figure, axes = canvas(
        Look(theme, Path(name).name, ()),
        "Emotion over time",
        f"{num_windows} windows of {length_s:g} s",
        (9.6, 3.6 + 1.8 * num_rows),
        (num_rows, 1),
        sharex=True,
    )
    shares = np.array([list(segment.distribution.values()) for segment in segments])
    classes = axes[0, 0]
    classes.stackplot(middle, shares.T, labels=list(result.distribution), colors=_colors(theme, shares.shape[1]))
    classes.set(ylim=(0, 1), ylabel="probability", xlim=(middle[0], middle[-1]) if num_windows > 1 else None)
    classes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    if attributes:
        for attribute, color in zip(attributes, theme.systems, strict=False):
            values = [segment.attributes[attribute] for segment in segments]
            axes[1, 0].plot(middle, values, color=color, label=attribute)
        axes[1, 0].set(ylabel="the corpus's scale")
        axes[1, 0].legend(loc="center left", bbox_to_anchor=(1, 0.5))
    axes[-1, 0].set(xlabel=f"middle of the window, {unit}")
    return figure


def _colors(theme: Theme, number: int) -> list[str]:
    return [theme.targets[i % len(theme.targets)] for i in range(number)]


def write_beside(out: str | os.PathLike, name: str, result: Result) -> dict[str, list[str]]:
    """Writes a timeline to `OUT.timeline`; what stops it concerns one file, unless it is the disk that is full.

    Args:
      out: The file of all results.
      name: What results call the recording.
      result: Its result.

    Returns:
      Nothing, or under `bad` the reason and detail of what stopped it.
    """
    try:
        with clear_when_full(out):
            write(_stem(out, name), printable(name), result)
    except ArtefactError:
        raise
    except Exception as error:
        return {"bad": ["timeline", f"its timeline cannot be written: {type(error).__name__}: {error}"]}
    return {}


def _stem(out: str | os.PathLike, name: str) -> Path:
    parts = ["__" if part == ".." else part for part in Path(name).parts if part != Path(name).anchor]
    if len(os.fsencode(parts[-1])) > _MOST_NAME_BYTES:  # the suffix would make it longer than a name may be
        parts[-1] = f"{printable(parts[-1])[: _MOST_NAME_BYTES // 8]}-{fingerprint_of(parts[-1])}"
    return Path(f"{os.fspath(out)}.timeline", *parts)

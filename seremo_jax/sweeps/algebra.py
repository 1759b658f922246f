"""The algebra of sweeps: lists of points, a point being field of the config -> value. No JAX.

A sweep is a generator beside a recipe:

    def sweep_layers():
        yield from product(axis("model.layer", range(13)), axis("train.seed", range(5)))
"""

import importlib.util
import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

Point = dict[str, Any]
PREFIX = "sweep_"


class SweepError(ValueError):
    """A sweep cannot be made or run. The message names the sweep, the point and the field."""


def axis(path: str, values: Iterable[Any]) -> list[Point]:
    """One point for each value of one field.

    Args:
      path: Field of the config, `section.name`.
      values: Its values.

    Raises:
      SweepError: There is no value.
    """
    points = [{path: value} for value in values]
    if not points:
        raise SweepError(f"axis {path!r} has no values")
    return points


def product(*parts: Iterable[Point]) -> list[Point]:
    """Every point of each part with every point of the others; the last part varies fastest.

    Raises:
      SweepError: Two parts set the same field.
    """
    return [_merged(points) for points in itertools.product(*map(list, parts))]


def zipped(*parts: Iterable[Point]) -> list[Point]:
    """The first points of all parts as one, the second ones, and so on.

    Raises:
      SweepError: The parts differ in length, or two set the same field.
    """
    lists = [list(part) for part in parts]
    if len({len(points) for points in lists}) > 1:
        raise SweepError(f"zipped: the parts have {', '.join(str(len(points)) for points in lists)} points")
    return [_merged(points) for points in zip(*lists, strict=True)]


def chain(*parts: Iterable[Point]) -> list[Point]:
    """The points of all parts, one part after the other."""
    return list(itertools.chain(*parts))


def _merged(points: Iterable[Point]) -> Point:
    merged: Point = {}
    for point in points:
        if both := sorted(merged.keys() & point.keys()):
            raise SweepError(f"two parts of a sweep set {both[0]!r}: {merged[both[0]]!r} and {point[both[0]]!r}")
        merged |= point
    return merged


def read(recipe: str | Path, name: str) -> list[Point]:
    """The points of `sweep_NAME()` in the file of a recipe.

    Raises:
      SweepError: There is no such generator (the message lists those there are), or it has no points.
    """
    # By its path, since a recipe need not lie in a package.
    spec = importlib.util.spec_from_file_location(f"recipe_{Path(recipe).stem}", recipe)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    known = sorted(key.removeprefix(PREFIX) for key in vars(module) if key.startswith(PREFIX))
    if name.removeprefix(PREFIX) not in known:
        there = f"it has: {', '.join(known)}" if known else f"it has none; a sweep is a generator {PREFIX}NAME()"
        raise SweepError(f"{recipe} has no sweep {name!r}; {there}")
    points = [dict(point) for point in getattr(module, PREFIX + name.removeprefix(PREFIX))()]
    if not points:
        raise SweepError(f"{recipe}: sweep {name!r} has no points")
    return points

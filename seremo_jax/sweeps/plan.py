"""From the points of a sweep to programs: which points train together, on which extraction. No JAX.

Every point is read and validated before anything starts. Points that differ in fields of a member only are members of
one program, others make programs of their own. Programs that hear the same speech in the same way share a stage: the
folder with tables, hidden states and saliency.
"""

import dataclasses
import json
import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

from seremo_jax.core import members as ensemble
from seremo_jax.core import vocab
from seremo_jax.core.artefacts import fingerprint_of, to_json
from seremo_jax.core.config import Config, ConfigError, from_config_dict
from seremo_jax.data import policies
from seremo_jax.sweeps.algebra import Point, SweepError

_MOST_ERRORS = 10
_OF_SEED = ("seed", "data_seed", "fold")
_EVAL = {"splits": (vocab.DEVELOPMENT,), "conditions": (vocab.CLEAN,), "num_permutations": 0, "means": ()}
"""How points are scored: who looks at the test split to choose has no test split any more."""
Tree = dict[str, dict[str, Any]]
Fields = tuple[Any, ...]
"""Values of a member's fields, in the order of `members.MEMBER_AXES`."""


@dataclasses.dataclass(frozen=True)
class Program:
    """A training of one or more members, and all that leads to it and comes after.

    Attributes:
      config: Its settings.
      points: Numbers of the points of the sweep with a member here.
      stage: Folder of its extraction, below the workdir of the sweep.
      num_members: Members trained at once.
    """

    config: Config
    points: tuple[int, ...]
    stage: str
    num_members: int


@dataclasses.dataclass(frozen=True)
class Plan:
    """The programs of a sweep.

    Attributes:
      points: The points as they were given.
      swept: Fields that some point sets, in order of appearance.
      programs: The programs.
      evaluation: Section `eval` of the recipe, for the system that is chosen.
      fingerprint: Hash of what all points ask for; the packing into programs does not change it.
    """

    points: tuple[Point, ...]
    swept: tuple[str, ...]
    programs: tuple[Program, ...]
    evaluation: dict[str, Any]
    fingerprint: str


def plan(base: Config, points: Sequence[Point], most_members: Callable[[Config], int] | None = None) -> Plan:
    """Validates all points and packs them into programs.

    Args:
      base: The recipe, which points override. A point that sets the single value of a member (`train.seed`) takes the
        recipe's axis (`ensemble.seeds`) away.
      points: The points.
      most_members: Config of a program -> members that may train at once; None does not limit them.

    Raises:
      SweepError: Some points are no valid settings; the message names each with its reason.
    """
    evaluation = dataclasses.asdict(base.eval)
    base = dataclasses.replace(base, eval=dataclasses.replace(base.eval, **_EVAL))
    configs = _resolve(base, points)
    groups: dict[str, dict[Fields, list[int]]] = {}
    trees: dict[str, Tree] = {}
    for number, tree in enumerate(_with_layers(configs)):
        rest, members = _split(tree)
        key = to_json([rest, _is_alone(members)])
        trees.setdefault(key, rest)
        for member in members:
            groups.setdefault(key, {}).setdefault(member, []).append(number)
    merged = []
    for key, members in groups.items():
        for piece in _by_folds(list(members)):
            most = None if most_members is None else most_members(_join(trees[key], piece))
            for part in _pack(piece, most):
                numbers = tuple(sorted({number for member in part for number in members[member]}))
                merged.append((_join(trees[key], part), numbers, len(part)))
    keys = [fingerprint_of(_stage_of(config)) for config, _, _ in merged]
    names = {fingerprint_of(_stage_of(base)): "."}
    for key in keys:
        names.setdefault(key, f"stages/{len([name for name in names.values() if name != '.']):02d}")
    programs = [Program(*parts[:2], names[key], parts[2]) for key, parts in zip(keys, merged, strict=True)]
    swept = tuple(dict.fromkeys(path for point in points for path in point))
    asked = fingerprint_of([config.results_fields() for config in configs])
    return Plan(tuple(json.loads(to_json(point)) for point in points), swept, tuple(programs), evaluation, asked)


def _resolve(base: Config, points: Sequence[Point]) -> list[Config]:
    configs, errors = [], []
    for number, point in enumerate(points):
        try:
            configs.append(_override(base, point))
        except ConfigError as error:
            text = ", ".join(f"{path}={value!r}" for path, value in point.items())
            errors.append(f"  point {number} ({text}): {error}")
    if errors:
        more = [f"  and {len(errors) - _MOST_ERRORS} more"] if len(errors) > _MOST_ERRORS else []
        listed = "\n".join(errors[:_MOST_ERRORS] + more)
        raise SweepError(f"{len(errors)} of {len(points)} points are no valid settings; nothing was started:\n{listed}")
    return configs


def _override(base: Config, point: Point) -> Config:
    tree = dataclasses.asdict(base)
    for path, value in point.items():
        section, _, name = path.partition(".")
        if section == "eval":
            raise ConfigError(f"{path}: points are compared by their scores on the development split, all in one way")
        for item in value if isinstance(value, list | tuple) else (value,):
            if isinstance(item, float) and not math.isfinite(item):
                raise ConfigError(f"{path} = {value!r} is not finite")
        tree.setdefault(section, {})[name] = value
    for field, path in ensemble.MEMBER_FIELDS.items():
        if path in point and f"ensemble.{ensemble.MEMBER_AXES[field]}" not in point:
            tree["ensemble"][ensemble.MEMBER_AXES[field]] = ()
    config = from_config_dict(tree)
    if "data.fold" in point and not config.ensemble.folds:
        tree["ensemble"]["folds"], tree["data"]["fold"] = (config.data.fold,), base.data.fold
        try:
            return from_config_dict(tree)
        except ConfigError:  # saliency picks the layer of each fold anew: tables of its own
            return config
    return config


def _with_layers(configs: Sequence[Config]) -> list[Tree]:
    """The settings as trees; points that store their own single layer share a store of all such layers."""
    trees = [dataclasses.asdict(config) for config in configs]
    stored: dict[str, list[tuple[Tree, int]]] = {}
    for config, tree in zip(configs, trees, strict=True):
        if config.extract.layers == "saliency" and not ensemble.needs_chosen_layer(config):
            key = to_json(_stage_of(config) | {"model.layer": None})
            stored.setdefault(key, []).append((tree, config.model.layer))
    for found in stored.values():
        if len(layers := sorted({layer for _, layer in found})) > 1:
            for tree, _ in found:
                tree["extract"]["layers"] = tuple(layers)
    return trees


def _stage_of(config: Config) -> dict[str, Any]:
    """The settings that tables, hidden states and saliency depend on."""
    fields = config.results_fields("corpus", "data", "backbone", "extract", "saliency")
    fields["policies"] = dataclasses.replace(policies.target_policies(config), has_levels=False)
    # Without a list of layers, what is stored depends on the layer to train on.
    return fields | {"model.layer": config.model.layer if config.extract.layers == "saliency" else None}


def _split(tree: Tree) -> tuple[Tree, list[Fields]]:
    """What the members of a point share, and the members; the order of members is that of `members.members`."""
    config = from_config_dict(tree)
    # Which layer a word stands for is not known yet, and stays a setting that all members of the point share.
    is_word = ensemble.needs_chosen_layer(config) or ensemble.reads_layer_sum(config)
    listed = ensemble.members(config, ensemble.SUM)
    members = [tuple(vars(member)[field] for field in ensemble.MEMBER_AXES) for member in listed]
    rest = json.loads(to_json(tree))
    del rest["ensemble"]
    for field, path in ensemble.MEMBER_FIELDS.items():
        section, name = path.split(".")
        if not (field == "fold" or (field == "layer" and is_word)):
            del rest[section][name]
    return rest, members


def _is_alone(members: Sequence[Fields]) -> bool:
    """Whether the class loss allows members of its own kind only, see the rules of the config."""
    return any("hard_ce" in member for member in members)


def _by_folds(members: list[Fields]) -> list[list[Fields]]:
    """Members of the same folds together: predictions of folds are pooled, so that no fold may be missing."""
    fold = list(ensemble.MEMBER_AXES).index("fold")
    folds: dict[Fields, list[Fields]] = {}
    for member in members:
        folds.setdefault(_without(member, ("fold",)), []).append(member)
    pieces: dict[Hashable, list[Fields]] = {}
    for same in folds.values():
        pieces.setdefault(frozenset(member[fold] for member in same), []).extend(same)
    return list(pieces.values())


def _without(member: Fields, fields: Sequence[str]) -> Fields:
    return tuple(value for field, value in zip(ensemble.MEMBER_AXES, member, strict=True) if field not in fields)


def _grouped(members: Iterable[Fields], fields: Sequence[str]) -> list[list[Fields]]:
    groups: dict[Fields, list[Fields]] = {}
    for member in members:
        groups.setdefault(_without(member, fields), []).append(member)
    return list(groups.values())


def _pack(members: list[Fields], most: int | None) -> list[list[Fields]]:
    """Members in parts of at most `most`, those of one system together where they fit; folds are never parted."""
    if most is None or len(members) <= most:
        return [members]
    units = []
    for system in _grouped(members, _OF_SEED):
        units += [system] if len(system) <= most else _grouped(system, ("fold",))
    num_parts = -(-len(members) // most)
    even = -(-len(members) // num_parts)
    parts: list[list[Fields]] = [[]]
    for unit in units:
        if parts[-1] and len(parts[-1]) + len(unit) > even:
            parts.append([])
        parts[-1] += unit
    return parts


def _join(rest: Tree, members: Sequence[Fields]) -> Config:
    """The config whose members are these, in the order of `members.members`."""
    tree: Tree = json.loads(to_json(rest)) | {"ensemble": {}}
    axes = [list(dict.fromkeys(column)) for column in zip(*members, strict=True)]
    for (field, name), values in zip(ensemble.MEMBER_AXES.items(), axes, strict=True):
        section, single = ensemble.MEMBER_FIELDS[field].split(".")
        if field == "fold":
            if values != [None]:
                tree["ensemble"][name] = values
        elif len(values) > 1:
            tree["ensemble"][name] = values
        elif single not in tree[section]:
            tree[section][single] = values[0]
    sizes = [len(values) for values in axes]
    numbers = []
    for member in members:
        number = 0
        for value, values in zip(member, axes, strict=True):
            number = number * len(values) + values.index(value)
        numbers.append(number)
    if len(numbers) < math.prod(sizes):
        tree["ensemble"]["only"] = sorted(numbers)
    return from_config_dict(tree)


def halves(config: Config, numbers: Sequence[int]) -> list[list[int]]:
    """Members in smaller parts, systems whole where that can be; one part where folds of a system must stay together.

    Args:
      config: The config of a program.
      numbers: Places among its members.
    """
    place = {fields: number for number, fields in enumerate(_fields(config)) if number in set(numbers)}
    parts = _pack(list(place), max(-(-len(numbers) // 2), 1))
    return [[place[fields] for fields in part] for part in parts]


def in_all_folds(config: Config, numbers: Sequence[int]) -> list[int]:
    """These members and those that differ from one of them in nothing but the fold, ascending.

    Args:
      config: The config of a program.
      numbers: Places among its members.
    """
    whole = _fields(config)
    wanted = {_without(whole[number], ("fold",)) for number in numbers}
    return [number for number, fields in enumerate(whole) if _without(fields, ("fold",)) in wanted]


def alone(config: Config, numbers: Sequence[int], evaluation: dict[str, Any]) -> Config:
    """The config of a training of these members, in any order, as a recipe would have it.

    Args:
      config: The config of a program.
      numbers: Places among its members.
      evaluation: Its section `eval`.
    """
    rest, members = _split(dataclasses.asdict(config))
    return _join(rest | {"eval": evaluation}, [members[number] for number in numbers])


def _fields(config: Config) -> list[Fields]:
    return [tuple(vars(member)[field] for field in ensemble.MEMBER_AXES) for member in ensemble.members(config, 0)]


def keep(config: Config, numbers: Sequence[int]) -> Config:
    """The config with some of its members only.

    Args:
      config: The config of a program.
      numbers: Places among its members.
    """
    axes = dataclasses.asdict(config.ensemble)
    whole = axes.pop("only") or range(math.prod(max(len(values), 1) for values in axes.values()))
    only = tuple(whole[i] for i in numbers)
    return dataclasses.replace(config, ensemble=dataclasses.replace(config.ensemble, only=only)).validate()

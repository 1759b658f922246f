"""From the points of a sweep to programs: which points train together, on which extraction. No JAX.

Every point is read and validated before anything starts. Points that differ in fields of a member only are members of
one program, others make programs of their own. Programs that hear the same speech in the same way share a stage: the
folder with tables, hidden states and saliency.
"""

import dataclasses
import json
import math
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, NamedTuple

from seremo_jax.core import ensemble, vocab
from seremo_jax.core.artefacts import fingerprint_of, to_json
from seremo_jax.core.config import Config, ConfigError, from_config_dict
from seremo_jax.core.ensemble import Member
from seremo_jax.data import policies
from seremo_jax.sweeps.algebra import Point, SweepError

_MOST_ERRORS = 10
_EVAL = {"splits": (vocab.DEVELOPMENT,), "conditions": (vocab.CLEAN,), "num_permutations": 0}
_EVAL |= dict.fromkeys(("means", "speaker_prior", "enrolment"), ())
"""How points are scored: who looks at the test split to choose has no test split any more, and members are compared as
they were trained."""
Tree = dict[str, dict[str, Any]]


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


class _Training(NamedTuple):
    """A config taken apart.

    Attributes:
      shared: What its members share: the settings without `ensemble` and without the fields that members have.
      members: Its members, in the order of `ensemble.members`.
    """

    shared: Tree
    members: list[Member]

    @classmethod
    def of(cls, tree: Tree) -> "_Training":
        """Takes the settings of a config apart."""
        config = from_config_dict(tree)
        # Which layer a word stands for is not known yet, and stays a setting that all members of the point share.
        is_word = ensemble.needs_chosen_layer(config) or ensemble.reads_layer_sum(config)
        members = ensemble.members(config, ensemble.SUM)
        shared = json.loads(to_json(tree))
        del shared["ensemble"]
        for field, path in ensemble.MEMBER_FIELDS.items():
            section, name = path.split(".")
            if not (field == "fold" or (field == "layer" and is_word)):
                del shared[section][name]
        return cls(shared, members)


@dataclasses.dataclass
class _Group:
    """Points whose members may train in one program.

    Attributes:
      shared: What the members share, see `_Training`.
      points: Member -> numbers of the points that ask for it.
    """

    shared: Tree
    points: dict[Member, list[int]] = dataclasses.field(default_factory=dict)

    def points_of(self, members: Iterable[Member]) -> tuple[int, ...]:
        """Numbers of the points that ask for any of these members, ascending."""
        return tuple(sorted({number for member in members for number in self.points[member]}))

    def parts(self, most_members: Callable[[Config], int] | None) -> list[list[Member]]:
        """The members of each program: all at once where that many may train at once."""
        parts = []
        for members in _by_folds(self.points):
            most = None if most_members is None else most_members(_join(self.shared, members))
            parts += _pack(members, most)
        return parts


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
    # Points are compared on the development split alone, so that the test split has no say in the choice.
    base = dataclasses.replace(base, eval=dataclasses.replace(base.eval, **_EVAL))
    configs = _resolve(base, points)
    programs: list[Program] = []
    stages = {fingerprint_of(_stage_of(base)): "."}
    for group in _grouped(_with_layers(configs)):
        for members in group.parts(most_members):
            config = _join(group.shared, members)
            stage = stages.setdefault(fingerprint_of(_stage_of(config)), f"stages/{len(stages) - 1:02d}")
            programs.append(Program(config, group.points_of(members), stage, len(members)))
    return Plan(
        points=tuple(json.loads(to_json(point)) for point in points),
        swept=tuple(dict.fromkeys(path for point in points for path in point)),
        programs=tuple(programs),
        evaluation=evaluation,
        fingerprint=fingerprint_of([config.results_fields() for config in configs]),
    )


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
        except ConfigError:  # a scale or features of one training split: tables of its own
            return config
    return config


def _with_layers(configs: Sequence[Config]) -> list[Tree]:
    """The settings as trees; points that store their own single layer share a store of all such layers."""
    trees = [dataclasses.asdict(config) for config in configs]
    alike: dict[str, list[int]] = {}
    for number, config in enumerate(configs):
        if config.extract.layers == "saliency" and not ensemble.needs_chosen_layer(config):
            alike.setdefault(to_json(_stage_of(config) | {"model.layer": None}), []).append(number)
    for numbers in alike.values():
        if len(layers := sorted({configs[number].model.layer for number in numbers})) > 1:
            for number in numbers:
                trees[number]["extract"]["layers"] = tuple(layers)
    return trees


def _stage_of(config: Config) -> dict[str, Any]:
    """The settings that tables, hidden states and saliency depend on."""
    fields = config.results_fields("corpus", "data", "backbone", "extract", "saliency")
    fields["policies"] = dataclasses.replace(policies.target_policies(config), has_levels=False)
    # Without a list of layers, what is stored depends on the layer to train on.
    fields["ensemble.folds"] = list(ensemble.folds_to_choose_for(config))
    if config.extract.conditions:
        # Copies are made of what the training of some fold hears.
        fields["ensemble.folds"] = list(config.ensemble.folds)
    return fields | {"model.layer": config.model.layer if config.extract.layers == "saliency" else None}


def _grouped(trees: Iterable[Tree]) -> list[_Group]:
    """The points, given as their settings, by what their members share."""
    groups: dict[str, _Group] = {}
    for number, tree in enumerate(trees):
        shared, members = _Training.of(tree)
        group = groups.setdefault(to_json([shared, _is_apart(members)]), _Group(shared))
        for member in members:
            group.points.setdefault(member, []).append(number)
    return list(groups.values())


def _is_apart(members: Sequence[Member]) -> bool:
    """Whether the class loss allows members of its own kind only, see the rules of the config."""
    return any(vocab.CLASS_LOSSES[member.class_kind].is_on_consensus for member in members)


def _by_folds(members: Iterable[Member]) -> list[list[Member]]:
    """Members of the same folds together: predictions of folds are pooled, so that no fold may be missing."""
    pieces: dict[frozenset, list[Member]] = {}
    for folds in _apart_from(members, ("fold",)):
        pieces.setdefault(frozenset(member.fold for member in folds), []).extend(folds)
    return list(pieces.values())


def _apart_from(members: Iterable[Member], fields: Collection[str]) -> list[list[Member]]:
    """Members that differ in nothing but these fields together, in order of first appearance."""
    alike: dict[tuple, list[Member]] = {}
    for member in members:
        same = tuple(value for field, value in vars(member).items() if field not in fields)
        alike.setdefault(same, []).append(member)
    return list(alike.values())


def _pack(members: list[Member], most: int | None) -> list[list[Member]]:
    """Members in parts of at most `most`, those of one system together where they fit; folds are never parted."""
    if most is None or len(members) <= most:
        return [members]
    units = []
    for system in _apart_from(members, ensemble.WITHIN_A_SYSTEM):
        units += [system] if len(system) <= most else _apart_from(system, ("fold",))
    num_parts = -(-len(members) // most)
    # Parts of about one size: a last part of few members would compile a program of its own for them.
    even = -(-len(members) // num_parts)
    parts: list[list[Member]] = [[]]
    for unit in units:
        if parts[-1] and len(parts[-1]) + len(unit) > even:
            parts.append([])
        parts[-1] += unit
    return parts


def _join(shared: Tree, members: Sequence[Member]) -> Config:
    """The config whose members are these, in the order of `ensemble.members`."""
    tree: Tree = json.loads(to_json(shared)) | {"ensemble": {}}
    axes = {field: list(dict.fromkeys(getattr(member, field) for member in members)) for field in ensemble.MEMBER_AXES}
    for field, values in axes.items():
        section, single = ensemble.MEMBER_FIELDS[field].split(".")
        if field == "fold":
            if values != [None]:
                tree["ensemble"][ensemble.MEMBER_AXES[field]] = values
        elif len(values) > 1:
            tree["ensemble"][ensemble.MEMBER_AXES[field]] = values
        elif single not in tree[section]:
            tree[section][single] = values[0]
    numbers = []
    for member in members:
        # Its place in the product of all values, the last axis innermost, as `ensemble.members` counts.
        number = 0
        for field, values in axes.items():
            number = number * len(values) + values.index(getattr(member, field))
        numbers.append(number)
    if len(numbers) < math.prod(map(len, axes.values())):
        # Not every combination of the values is wanted: `only` names those that are.
        tree["ensemble"]["only"] = sorted(numbers)
    return from_config_dict(tree)


def in_all_folds(config: Config, numbers: Sequence[int]) -> list[int]:
    """These members and those that differ from one of them in nothing but the fold, ascending.

    Args:
      config: The config of a program.
      numbers: Places among its members.
    """
    without_fold = [ensemble.without_fold(member) for member in ensemble.members(config, 0)]
    wanted = {without_fold[number] for number in numbers}
    return [number for number, member in enumerate(without_fold) if member in wanted]


def alone(config: Config, numbers: Sequence[int], evaluation: dict[str, Any]) -> Config:
    """The config of a training of these members, in any order, as a recipe would have it.

    Args:
      config: The config of a program.
      numbers: Places among its members.
      evaluation: Its section `eval`.
    """
    shared, members = _Training.of(dataclasses.asdict(config))
    return _join(shared | {"eval": evaluation}, [members[number] for number in numbers])


def keep(config: Config, numbers: Sequence[int]) -> Config:
    """The config with some of its members only.

    Args:
      config: The config of a program.
      numbers: Places among its members.
    """
    axes = dataclasses.asdict(config.ensemble)
    # The config may keep some members of its product already; `only` counts those of the product.
    places = axes.pop("only") or range(math.prod(max(len(values), 1) for values in axes.values()))
    only = tuple(places[number] for number in numbers)
    return dataclasses.replace(config, ensemble=dataclasses.replace(config.ensemble, only=only)).validate()

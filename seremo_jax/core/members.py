"""The member axis: which members a config asks for, in which order, under which names."""

import dataclasses
import itertools
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from seremo_jax.core.artefacts import ArtefactError, place_of, read_json
from seremo_jax.core.config import Config

SUM = -1
"""Layer of a member that reads a learned weighted sum of all stored layers."""

MEAN = -1
"""Seed of a member that is the mean prediction of several heads (`mean_heads`)."""

JOINER = " + "
"""Between the class losses of the heads behind a mean."""


WITHIN_A_SYSTEM = ("seed", "data_seed", "fold")
"""Fields in which members of one system differ."""


@dataclasses.dataclass(frozen=True)
class Member:
    """One head of the ensemble axis.

    Attributes:
      layer: Backbone layer it reads, or `SUM`.
      class_target: `votes` or `consensus`.
      seed: Seed of its initial parameters and dropout, or `MEAN`.
      class_kind: Class loss.
      label_smoothing: Share of the class target spread evenly over the classes.
      attribute_task_weight: Weight of the attribute loss.
      class_task_weight: Weight of the class loss.
      learning_rate: Step size.
      weight_decay: Decoupled weight decay.
      dropout: Probability of dropping.
      data_seed: Seed of the order of utterances.
      fold: Fold whose test part it never sees; None for the splits of the utterance table.
    """

    layer: int
    class_target: str
    seed: int
    class_kind: str
    label_smoothing: float
    attribute_task_weight: float
    class_task_weight: float
    learning_rate: float
    weight_decay: float
    dropout: float
    data_seed: int
    fold: int | None = None


# Axis of `ensemble`, the member's field, and the single value it stands for; outermost first.
AXES = (
    ("layers", "layer", "model.layer"),
    ("folds", "fold", "data.fold"),
    ("class_targets", "class_target", "targets.class_target"),
    ("class_kinds", "class_kind", "loss.class_kind"),
    ("label_smoothings", "label_smoothing", "loss.label_smoothing"),
    ("attribute_task_weights", "attribute_task_weight", "loss.attribute_task_weight"),
    ("class_task_weights", "class_task_weight", "loss.class_task_weight"),
    ("learning_rates", "learning_rate", "optim.learning_rate"),
    ("weight_decays", "weight_decay", "optim.weight_decay"),
    ("dropouts", "dropout", "model.dropout"),
    ("data_seeds", "data_seed", "train.data_seed"),
    ("seeds", "seed", "train.seed"),
)
MEMBER_FIELDS = {field: path for _, field, path in AXES}
"""Field of a member -> field of the config with its single value. (Without folds, a member has None.)"""
MEMBER_AXES = {field: axis for axis, field, _ in AXES}
"""Field of a member -> its axis of the section `ensemble`, in the order of the product, outermost first."""


def members(config: Config, chosen_layer: int | None) -> list[Member]:
    """The product of the ensemble axes, layers outermost, seeds innermost; of it those of `ensemble.only`.

    Args:
      config: The experiment.
      chosen_layer: Layer of largest saliency; needed where `model.layer` is `saliency`.

    Raises:
      ArtefactError: `model.layer` is `saliency`, and no layer was chosen.
    """
    layer = {"saliency": chosen_layer, "sum": SUM}.get(config.model.layer, config.model.layer)
    if layer is None and not config.ensemble.layers:
        raise ArtefactError("model.layer is 'saliency', but no saliency was computed: run python -m launch.saliency")
    fields, values = [], []
    for axis, field, path in AXES:
        section, name = path.split(".")
        single = {"layer": layer, "fold": None}.get(field, getattr(getattr(config, section), name))
        fields.append(field)
        values.append(getattr(config.ensemble, axis) or (single,))
    if only := config.ensemble.only:
        # Points of a sweep may lie so sparsely in their product that it cannot be listed.
        places = np.stack(np.unravel_index(only, [len(axis) for axis in values]), axis=1).tolist()
        points = [[axis[i] for axis, i in zip(values, place, strict=True)] for place in places]
    else:
        points = itertools.product(*values)
    return [Member(**dict(zip(fields, point, strict=True))) for point in points]


def names(wanted: Sequence[Member | dict[str, Any]]) -> list[str]:
    """A name for each member, for logs: layer, class target, seed, and whatever else tells these members apart."""
    wanted = [member if isinstance(member, dict) else vars(member) for member in wanted]
    told = [
        field
        for _, field, _ in AXES
        if field not in ("layer", "class_target", "seed") and len({member[field] for member in wanted}) > 1
    ]
    return [
        "-".join(
            [
                "layers" if member["layer"] == SUM else f"layer{member['layer']:02d}",
                member["class_target"],
                *(f"{field}{member[field]}" for field in told),
                f"seed{member['seed']}",
            ]
        )
        for member in wanted
    ]


def systems(members: Sequence[Mapping[str, Any]]) -> list[tuple[list[int], dict[str, Any]]]:
    """Members that differ only in seeds or fold, in order of first appearance; means of heads are their own systems.

    Returns:
      Of each system its members, and what a record says of it: `system` (its axes in words), `layer`, `seeds` (of the
      heads behind it), `axes` (see `schema.ResultRecord`).
    """
    rows_of: dict[tuple, list[int]] = {}
    for i, member in enumerate(members):
        same = tuple((k, v) for k, v in member.items() if k not in WITHIN_A_SYSTEM)
        rows_of.setdefault((same, member["seed"] == MEAN), []).append(i)
    fields = [dict(same) for same, _ in rows_of]
    told = [name for name in fields[0] if len({one[name] for one in fields}) > 1 and name != "class_target"]
    described = []
    for values, ((_, is_mean), rows) in zip(fields, rows_of.items(), strict=True):
        heads = rows
        if is_mean:
            kinds = values["class_kind"].split(JOINER)
            behind = [(tuple((values | {"class_kind": kind}).items()), False) for kind in kinds]
            heads = [i for key in behind for i in rows_of[key]]
        axes = {"model": "mean" if is_mean else "head", "num_heads": len(heads), "told": told, **values}
        seeds = tuple(dict.fromkeys(members[i]["seed"] for i in heads))
        described.append((rows, {"system": label(axes), "layer": values["layer"], "seeds": seeds, "axes": axes}))
    return described


def label(axes: Mapping[str, Any]) -> str:
    """A system in words: whatever tells it from the others of its evaluation, its class target last."""
    words = [f"{name.replace('_', ' ')} {axes[name]}" for name in axes["told"]]
    if axes["model"] == "mean":
        words.append(f"mean of {axes['num_heads']} heads")
    return ", ".join([*words, axes["class_target"]])


def behind_means(members: Sequence[Member], over: str) -> list[list[int]]:
    """Members that one mean is over.

    Args:
      members: With or without folds, which do not tell them apart.
      over: `seeds`: the members of each system of several. `class_kinds`: those of all systems that differ in nothing
        but their class loss.
    """
    own = [rows for rows, _ in systems([vars(member) for member in members])]
    if over == "seeds":
        return [rows for rows in own if len(rows) > 1]
    found: dict[Member, list[int]] = {}
    for rows in own:
        found.setdefault(_alike(members[rows[0]]), []).extend(rows)
    return [rows for rows in found.values() if len({members[row].class_kind for row in rows}) > 1]


def stands_for(one: Member, member: Member) -> bool:
    """Whether a member of an evaluation, where folds are pooled, is this member of the training, or a mean over it."""
    if one.seed != MEAN:
        return one == dataclasses.replace(member, fold=None)
    return member.class_kind in one.class_kind.split(JOINER) and _alike(one) == _alike(member)


def _alike(member: Member) -> Member:
    return dataclasses.replace(member, seed=0, data_seed=0, fold=None, class_kind="")


def layers(wanted: Sequence[Member]) -> tuple[int, ...]:
    """Layers the members read, ascending, without `SUM`."""
    return tuple(sorted({member.layer for member in wanted} - {SUM}))


def chosen_layer(workdir: str | os.PathLike) -> int | None:
    """Layer of largest saliency as `saliency.json` has it; None where no saliency was ranked."""
    path = place_of(workdir) / "saliency.json"
    return read_json(path, "run python -m launch.saliency again")["chosen"] if path.exists() else None

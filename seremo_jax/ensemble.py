"""The member axis: which members a config asks for, in which order, under which names."""

import dataclasses
import itertools
import os
from collections.abc import Mapping, Sequence
from typing import Any

from seremo_jax.artefacts import ArtefactError, place_of, read_json
from seremo_jax.config import Config

SUM = -1
"""Layer of a member that reads a learned weighted sum of all stored layers."""


@dataclasses.dataclass(frozen=True)
class Member:
    """One head of the ensemble axis.

    Attributes:
      layer: Backbone layer it reads, or `SUM`.
      class_target: `votes` or `consensus`.
      seed: Seed of its initial parameters and dropout.
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


def members(config: Config, chosen_layer: int | None) -> list[Member]:
    """The product of the ensemble axes, layers outermost, seeds innermost.

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
    return [Member(**dict(zip(fields, point, strict=True))) for point in itertools.product(*values)]


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
    """Members that differ only in seeds or fold, in order of first appearance.

    Returns:
      Of each system its members, and what a record says of it: `system` (whatever tells these systems apart, the class
      target last), `layer`, `seeds`.
    """
    found: dict[tuple, list[int]] = {}
    for i, member in enumerate(members):
        same = tuple((k, v) for k, v in member.items() if k not in ("seed", "data_seed", "fold"))
        found.setdefault(same, []).append(i)
    fields = [dict(key) for key in found]
    told = [name for name in fields[0] if len({one[name] for one in fields}) > 1 and name != "class_target"]
    named = []
    for one, rows in zip(fields, found.values(), strict=True):
        words = [f"{name.replace('_', ' ')} {one[name]}" for name in told]
        seeds = tuple(members[i]["seed"] for i in rows)
        named.append(
            (rows, {"system": ", ".join([*words, one["class_target"]]), "layer": one["layer"], "seeds": seeds})
        )
    return named


def layers(wanted: Sequence[Member]) -> tuple[int, ...]:
    """Layers the members read, ascending, without `SUM`."""
    return tuple(sorted({member.layer for member in wanted} - {SUM}))


def chosen_layer(workdir: str | os.PathLike) -> int | None:
    """Layer of largest saliency as `saliency.json` has it; None where no saliency was ranked."""
    path = place_of(workdir) / "saliency.json"
    return read_json(path, "run python -m launch.saliency again")["chosen"] if path.exists() else None

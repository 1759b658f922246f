"""The member axis: which members a config asks for, which layer each reads, in which order, under which names."""

import dataclasses
import itertools
import os
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from seremo_jax.core.artefacts import ArtefactError, place_of, read_json, require_same
from seremo_jax.core.config import Config
from seremo_jax.core.vocab import CHOSEN_LAYER, LAYER_SUM, NO_SPEAKER

SUM = -1
"""Layer of a member that reads a learned weighted sum of all stored layers."""

BY_FOLD = -2
"""Layer of a system whose members each read the layer that saliency chose for their own fold."""

EVERY_LAYER = -3
"""Layer of a mean over heads of several layers."""
MEAN = -1
"""Seed of a member that is the mean prediction of several heads (`mean_heads`)."""
REGRESSION, BALANCED = "logistic regression", "classes balanced"
"""How the system that every user would pick instead of a head is written, and one whose classes weigh the same."""

WITHIN_A_SYSTEM = ("seed", "data_seed", "fold")
"""Fields in which members of one system differ, and in `layer` where saliency chose that fold by fold."""


@dataclasses.dataclass(frozen=True)
class Member:
    """One head of the ensemble axis.

    Attributes:
      layer: Backbone layer it reads, or `SUM`; of a mean over heads of several layers `EVERY_LAYER`.
      class_target: `votes` or `consensus`.
      seed: Seed of its initial parameters and dropout, or `MEAN`.
      class_kind: Class loss; of a mean over heads of several class losses all of them.
      label_smoothing: Share of the class target spread evenly over the classes.
      attribute_task_weight: Weight of the attribute loss.
      class_task_weight: Weight of the class loss.
      learning_rate: Step size.
      weight_decay: Decoupled weight decay.
      dropout: Probability of dropping.
      data_seed: Seed of the order of utterances.
      fold: Fold whose test part it never sees; None for the splits of the utterance table.
      is_layer_by_fold: Whether saliency chose its layer for its fold, so that members of one system differ in it, too.
      speaker_balance: Power of the number of a speaker's utterances that its utterances weigh less by.
      group_balance: How far the dependence of classes on groups is weighed out.
      corpus_balance: Power of the number of a corpus's utterances that its utterances weigh less by.
      closeness_weight: Weight of the expected distance between votes and prediction.
      objective: What is made of the losses of groups.
      objective_group: What the groups of the objective are.
      mixup: a of Beta(a, a), by which states and labels of two speakers are mixed; 0 mixes nothing.
      speaker_kappa_s: Seconds of a speaker that the training split counts as in the z-score, or `NO_SPEAKER`.
      copy_share: How often it hears an utterance as one of its copies in noise or a room.
    """

    layer: int
    class_target: str
    seed: int
    class_kind: str | tuple[str, ...]
    label_smoothing: float
    attribute_task_weight: float
    class_task_weight: float
    learning_rate: float
    weight_decay: float
    dropout: float
    data_seed: int
    fold: int | None = None
    is_layer_by_fold: bool = False
    speaker_balance: float = 0.0
    group_balance: float = 0.0
    closeness_weight: float = 0.0
    objective: str = "mean"
    objective_group: str = "speaker"
    mixup: float = 0.0
    corpus_balance: float = 0.0
    speaker_kappa_s: float | str = NO_SPEAKER
    copy_share: float = 0.0


# Axis of `ensemble`, the member's field, and the config field with the single value that an empty axis takes; outermost
# first. This order is that of the product, so it decides the number of a member and thus its place in checkpoints.
AXES = (
    ("layers", "layer", "model.layer"),
    ("folds", "fold", "data.fold"),
    ("class_targets", "class_target", "targets.class_target"),
    ("class_kinds", "class_kind", "loss.class_kind"),
    ("label_smoothings", "label_smoothing", "loss.label_smoothing"),
    ("attribute_task_weights", "attribute_task_weight", "loss.attribute_task_weight"),
    ("class_task_weights", "class_task_weight", "loss.class_task_weight"),
    ("speaker_balances", "speaker_balance", "loss.speaker_balance"),
    ("group_balances", "group_balance", "loss.group_balance"),
    ("corpus_balances", "corpus_balance", "loss.corpus_balance"),
    ("closeness_weights", "closeness_weight", "loss.closeness_weight"),
    ("objectives", "objective", "loss.objective"),
    ("objective_groups", "objective_group", "loss.objective_group"),
    ("mixups", "mixup", "train.mixup"),
    ("speaker_kappas_s", "speaker_kappa_s", "model.speaker_kappa_s"),
    ("copy_shares", "copy_share", "train.copy_share"),
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
SINCE = {
    field.name: field.default
    for field in dataclasses.fields(Member)
    if field.name in MEMBER_FIELDS and field.name != "fold" and field.default is not dataclasses.MISSING
}
"""Fields that members of earlier versions lack, and what stands for them."""


def values_of(config: Config, field: str) -> tuple[Any, ...]:
    """The values of a member's field that some point of the product has."""
    section, name = MEMBER_FIELDS[field].split(".")
    return getattr(config.ensemble, MEMBER_AXES[field]) or (getattr(getattr(config, section), name),)


def is_transductive(member: Mapping[str, Any]) -> bool:
    """Whether a member, or the axes of a system, has z-scores by all audio of a speaker, test speakers included."""
    return member.get("speaker_kappa_s", NO_SPEAKER) != NO_SPEAKER


def needs_chosen_layer(config: Config) -> bool:
    """Whether the members wait for saliency to choose their layer."""
    return config.model.layer == CHOSEN_LAYER and not config.ensemble.layers


def reads_layer_sum(config: Config) -> bool:
    """Whether the members read a learned weighted sum of all stored layers."""
    return config.model.layer == LAYER_SUM and not config.ensemble.layers


def folds_to_choose_for(config: Config) -> tuple[int, ...]:
    """The folds for each of which saliency chooses a layer anew, from its training speakers; none without folds."""
    return config.ensemble.folds if needs_chosen_layer(config) else ()


def chosen_layer(workdir: str | os.PathLike, config: Config | None = None) -> int | dict[int, int] | None:
    """Layer of largest saliency as `saliency.json` has it; None where no saliency was ranked.

    Args:
      workdir: Folder of the experiment.
      config: Refuses a layer that was chosen under other settings of `saliency`; None asks for none. Where it has
        folds, the result is fold -> layer.

    Raises:
      ArtefactError: The file is damaged, or of other settings.
    """
    path = place_of(workdir) / "saliency.json"
    if not path.exists():
        return None
    summary = read_json(path, "run python -m launch.saliency again")
    if config is not None:
        asked = config.results_fields("saliency")
        remedy = "Run python -m launch.saliency again, or give the --config that the layer was chosen with."
        require_same(f"the choice of layer in {path}", summary.get("settings", asked), asked, remedy)
        if folds := folds_to_choose_for(config):
            by_fold = {entry["fold"]: entry["chosen"] for entry in summary.get("folds", ())}
            there = f"the folds that {path} chose layers for"
            require_same(
                there, sorted(by_fold), sorted(folds), "Run python -m launch.saliency with this --config again."
            )
            return by_fold
    return summary["chosen"]


def members_in(workdir: str | os.PathLike, config: Config) -> list[Member]:
    """`members` with the layer that saliency chose in this workdir, where they need it.

    Raises:
      ArtefactError: They need it, and no saliency was computed.
    """
    return members(config, chosen_layer(workdir, config) if needs_chosen_layer(config) else None)


def members(config: Config, chosen_layer: int | Mapping[int, int] | None) -> list[Member]:
    """The product of the ensemble axes, layers outermost, seeds innermost; of it those of `ensemble.only`.

    Args:
      config: The experiment.
      chosen_layer: Layer of largest saliency, or that of each fold; read where `needs_chosen_layer`.

    Raises:
      ArtefactError: `model.layer` is `saliency`, and no layer was chosen.
    """
    layer = {CHOSEN_LAYER: chosen_layer, LAYER_SUM: SUM}.get(config.model.layer, config.model.layer)
    if chosen_layer is None and needs_chosen_layer(config):
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
    wanted = [dict(zip(fields, point, strict=True)) for point in points]
    if folds_to_choose_for(config):
        layer_of = chosen_layer if isinstance(chosen_layer, Mapping) else dict.fromkeys(config.ensemble.folds, layer)
        wanted = [item | {"layer": layer_of[item["fold"]], "is_layer_by_fold": True} for item in wanted]
    return [Member(**item) for item in wanted]


def without_fold(member: Member) -> Member:
    """What a member is once the folds are pooled: without its fold, and without a layer that was chosen for it."""
    return dataclasses.replace(member, fold=None, layer=BY_FOLD if member.is_layer_by_fold else member.layer)


def layer_word(layer: int) -> str:
    """A layer of a member or a record as readers see it: its number, `sum`, `by fold` or `several`."""
    return {SUM: "sum", BY_FOLD: "by fold", EVERY_LAYER: "several"}.get(layer, str(layer))


def names(wanted: Sequence[Member | dict[str, Any]]) -> list[str]:
    """A name for each member, for logs: layer, class target, seed, and the fields in which these members differ."""
    wanted = [SINCE | (member if isinstance(member, dict) else vars(member)) for member in wanted]
    varying = [
        field
        for _, field, _ in AXES
        if field not in ("layer", "class_target", "seed") and len({member[field] for member in wanted}) > 1
    ]
    return [
        "-".join(
            [
                _LAYER_NAMES.get(member["layer"], f"layer{member['layer']:02d}"),
                member["class_target"],
                *(f"{field}{member[field]}" for field in varying),
                f"seed{member['seed']}",
            ]
        )
        for member in wanted
    ]


_LAYER_NAMES = {SUM: "layers", BY_FOLD: "layerbyfold", EVERY_LAYER: "layerseveral"}


def systems(members: Sequence[Mapping[str, Any]]) -> list[tuple[list[int], dict[str, Any]]]:
    """Members that differ only in seeds or fold, in order of first appearance; means of heads are their own systems.

    Returns:
      Of each system its members, and what a record says of it: `system` (its axes in words), `layer`, `seeds` (of the
      heads behind it), `axes` (see `schema.ResultRecord`).
    """
    rows_of: dict[tuple, list[int]] = {}
    for i, member in enumerate(members):
        fields = {k: v for k, v in member.items() if k not in WITHIN_A_SYSTEM}
        # Members of earlier versions lack the field.
        if fields.pop("is_layer_by_fold", False):
            fields["layer"] = BY_FOLD
        same = tuple(fields.items())
        # A mean of heads has the settings of the heads behind it, and only its seed tells that it is none of them.
        rows_of.setdefault((same, member["seed"] == MEAN), []).append(i)
    settings = [dict(same) for same, _ in rows_of]
    varying = [name for name in settings[0] if len({fields[name] for fields in settings}) > 1]
    varying = [name for name in varying if name != "class_target"]
    described = []
    for values, ((_, is_mean), rows) in zip(settings, rows_of.items(), strict=True):
        heads = rows
        if is_mean:
            heads = [
                i for other, (_, is_other_mean), behind in zip(settings, rows_of, rows_of.values(), strict=True)
                if not is_other_mean and _is_behind(other, values) for i in behind
            ]  # fmt: skip
        axes = {"model": "mean" if is_mean else "head", "num_heads": len(heads), "varying": varying, **values}
        seeds = tuple(dict.fromkeys(members[i]["seed"] for i in heads))
        described.append((rows, {"system": label(axes), "layer": values["layer"], "seeds": seeds, "axes": axes}))
    return described


def label(axes: Mapping[str, Any]) -> str:
    """A system in words: whatever tells it from the others of its evaluation, its class target last."""
    return ", ".join([*words(axes), axes["class_target"]])


def words(axes: Mapping[str, Any], hidden: Collection[str] = ()) -> list[str]:
    """Whatever tells a system from the others of its evaluation, but for its class target.

    Args:
      axes: Of the system, see `schema.ResultRecord`.
      hidden: Names of axes that the words leave out.
    """
    shown = [name for name in axes["varying"] if name not in hidden]
    result = [REGRESSION] if axes["model"] == "regression" else ["transductive"] * is_transductive(axes)
    for name in shown:
        if name == "layer":
            result.append("several layers" if axes[name] == EVERY_LAYER else f"layer {layer_word(axes[name])}")
        elif name != "is_balanced":
            value = class_loss_words(axes) if name == "class_kind" else axes[name]
            result.append(f"{name.replace('_', ' ')} {value}")
    # Of a mean over several regressions it is a list, and what is balanced in part has no word.
    if "is_balanced" in shown and axes["is_balanced"] is True:
        result.append(BALANCED)
    if axes["model"] == "mean":
        result.append(f"mean of {axes['num_heads']} heads")
    elif axes["model"] == "regression" and axes["num_heads"] > 1:
        result.append(f"mean of {axes['num_heads']}")
    # Of a system as it was trained there is nothing more to say.
    return [*result, axes["adaptation"]] if "adaptation" in axes else result


def class_losses(axes: Mapping[str, Any]) -> list[str]:
    """Class losses of the heads behind a system: one of a head, several of a mean over class losses."""
    kind = axes["class_kind"]
    return [kind] if isinstance(kind, str) else list(kind)


def class_loss_words(axes: Mapping[str, Any]) -> str:
    """`class_losses` as readers see them."""
    return " + ".join(class_losses(axes))


def stands_for(evaluated: Member, member: Member) -> bool:
    """Whether a member of an evaluation, where folds are pooled, is this member of the training, or a mean over it."""
    if evaluated.seed != MEAN:
        return evaluated == without_fold(member)
    return _is_behind(vars(without(member, ())), vars(without(evaluated, ())))


def _is_behind(head: Mapping[str, Any], mean: Mapping[str, Any]) -> bool:
    """Whether a mean is over this head, given by their fields without folds and seeds."""
    if head["class_kind"] not in class_losses(mean):
        return False
    may_differ = {"class_kind"} | ({"layer"} if mean["layer"] == EVERY_LAYER else set())
    return all(head[name] == mean[name] for name in mean if name not in may_differ)


def without(member: Member, fields: Sequence[str]) -> Member:
    """The member without its fold, its seeds and these fields: members of equal rest may be in one mean."""
    nothing = {"layer": EVERY_LAYER, "class_kind": ""}
    return dataclasses.replace(without_fold(member), seed=0, data_seed=0, **{name: nothing[name] for name in fields})


def layers(wanted: Sequence[Member]) -> tuple[int, ...]:
    """Layers the members read, ascending, without `SUM`."""
    return tuple(sorted({member.layer for member in wanted} - {SUM}))

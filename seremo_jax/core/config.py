"""The frozen, typed experiment config: strict reading from a ConfigDict, cross-field rules, fingerprints.

Every field has its default here and nowhere else. Names of fields follow `method.md`, section 12.
"""

import dataclasses
import difflib
import math
import os
import types
import typing
from collections.abc import Mapping
from typing import Any

import ml_collections

from seremo_jax.core import condition_names, vocab
from seremo_jax.core.artefacts import ArtefactError, fingerprint_of, place_of, read_json, write_json
from seremo_jax.core.config_fields import (
    CHOICES,
    LOWEST,
    BackboneConfig,
    CorpusConfig,
    DataConfig,
    EnsembleConfig,
    EvalConfig,
    ExtractConfig,
    LossConfig,
    ModelConfig,
    OptimConfig,
    SaliencyConfig,
    TargetsConfig,
    TrainConfig,
)


class ConfigError(ValueError):
    """A config field is unknown, of the wrong type, or contradicts another one. The message gives its full path."""


@dataclasses.dataclass(frozen=True)
class Config:
    """An experiment. Built by `from_config_dict`; `validate` has passed."""

    corpus: CorpusConfig = dataclasses.field(default_factory=CorpusConfig)
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    targets: TargetsConfig = dataclasses.field(default_factory=TargetsConfig)
    backbone: BackboneConfig = dataclasses.field(default_factory=BackboneConfig)
    extract: ExtractConfig = dataclasses.field(default_factory=ExtractConfig)
    saliency: SaliencyConfig = dataclasses.field(default_factory=SaliencyConfig)
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    loss: LossConfig = dataclasses.field(default_factory=LossConfig)
    optim: OptimConfig = dataclasses.field(default_factory=OptimConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    ensemble: EnsembleConfig = dataclasses.field(default_factory=EnsembleConfig)
    eval: EvalConfig = dataclasses.field(default_factory=EvalConfig)

    def validate(self) -> "Config":
        """Checks the rules that span fields and returns self.

        Raises:
          ConfigError: One rule is broken; the message gives the field and the reason.
        """
        for path, choices in CHOICES.items():
            section, name = path.split(".")
            values = getattr(getattr(self, section), name)
            for value in values if isinstance(values, tuple) else (values,):
                if value not in choices:
                    raise ConfigError(f"{path} = {value!r}: choose one of {', '.join(map(str, choices))}")
        for path, lowest in LOWEST.items():
            section, name = path.split(".")
            values = getattr(getattr(self, section), name)
            for value in values if isinstance(values, tuple) else (values,):
                if value < lowest:
                    raise ConfigError(f"{path} must be at least {lowest}, is {value}")
        for holds, message in self._rules():
            if not holds:
                raise ConfigError(message)
        self._validate_conditions()
        return self

    def _rules(self) -> list[tuple[bool, str]]:
        """Whether each rule holds, and what to say where it does not."""
        rules = [
            (isinstance(self.model.layer, int) or self.model.layer in ("saliency", "sum"),
             f"model.layer = {self.model.layer!r}: give a layer number, 'saliency', or 'sum'"),
            (self.model.layer != "sum" or (self.extract.layers != "saliency" and not self.ensemble.layers),
             "model.layer = 'sum' reads every stored layer: set extract.layers to 'all' or to a list, and leave "
             "ensemble.layers empty"),
            (self.model.layer != "sum" or not self.model.top_features,
             "model.top_features picks features of one layer, model.layer = 'sum' adds layers up: choose one"),
            (isinstance(self.extract.layers, tuple) or self.extract.layers in ("all", "saliency"),
             f"extract.layers = {self.extract.layers!r}: give 'all', 'saliency' or a list of layer numbers"),
            (len(self.data.split_shares) == 3 and abs(sum(self.data.split_shares) - 1) < 1e-6
             and min(self.data.split_shares) > 0,
             "data.split_shares must be three positive shares (train, development, test) that sum to 1"),
            (self.data.min_seconds < self.data.max_seconds, "data.min_seconds must be below data.max_seconds"),
            (self.data.fold == 0 or self.data.split_kind in ("session", "kfold", "published"),
             f"data.fold = {self.data.fold} means nothing for data.split_kind = {self.data.split_kind}"),
            (self.data.split_kind != "kfold" or self.data.fold < self.data.num_folds,
             f"data.fold = {self.data.fold}: the folds are 0 to {self.data.num_folds - 1} (data.num_folds)"),
            (self.model.conv_kernel == 0 or self.model.conv_kernel % 2 == 1,
             "model.conv_kernel must be odd (or 0), so that the convolution is centred"),
            (max((self.model.dropout, *self.ensemble.dropouts)) < 1, "model.dropout must be in [0, 1)"),
            (max((self.loss.label_smoothing, *self.ensemble.label_smoothings)) < 1,
             "loss.label_smoothing must be below 1"),
            (not self.ensemble.folds or self.data.split_kind in ("session", "kfold", "published"),
             f"ensemble.folds means nothing for data.split_kind = {self.data.split_kind}: set it to kfold"),
            (self.data.split_kind != "kfold" or max(self.ensemble.folds, default=0) < self.data.num_folds,
             f"ensemble.folds = {self.ensemble.folds}: the folds are 0 to {self.data.num_folds - 1} (data.num_folds)"),
            (not self.ensemble.folds or (self.ensemble.layers or self.model.layer != "saliency"),
             "ensemble.folds: saliency saw speakers that are test in other folds: give model.layer or ensemble.layers"),
            (not self.ensemble.folds or not self.model.top_features,
             "model.top_features: saliency saw speakers that are test in other folds of ensemble.folds"),
            (self.loss.attribute_kind == "ccc" or self.targets.attribute_scale != "minmax",
             "loss.attribute_kind = 'emd' needs steps of the rating scale: targets.attribute_scale must not be minmax"),
            ("hard_ce" not in (self.ensemble.class_kinds or (self.loss.class_kind,))
             or set(self.ensemble.class_targets or (self.targets.class_target,)) == {"consensus"},
             "loss.class_kind = 'hard_ce' is cross-entropy on the consensus: set targets.class_target (or "
             "ensemble.class_targets) to consensus, or choose soft_ce"),
            (not self.loss.attribute_weights or (len(self.loss.attribute_weights) == len(self.targets.attributes)
             and abs(sum(self.loss.attribute_weights) - 1) < 1e-6),
             "loss.attribute_weights needs one weight for each of targets.attributes, summing to 1"),
            (len(set(self.targets.attributes)) == len(self.targets.attributes),
             "targets.attributes names an attribute twice"),
            ("arousal" not in self.targets.attributes, "targets.attributes: this project says 'activation'"),
            (all(0 < threshold < 100 for threshold in self.eval.pa_uar_thresholds),
             "eval.pa_uar_thresholds are percentages between 0 and 100"),
            (0 < self.eval.coverage < 1, "eval.coverage is a share of votes between 0 and 1"),
            (self.targets.smoothing == 0 or self.targets.distribution_of == "shares",
             "targets.smoothing adds to counts of votes: it means nothing for targets.distribution_of = 'dawid_skene'"),
            (all(0 < n <= len(vocab.CLASS_SETS[self.targets.class_set]) for n in self.eval.nbest)
             and 1 in self.eval.nbest,
             "eval.nbest must include 1, and no N can exceed the number of classes"),
            (not (self.ensemble.layers and self.extract.layers == "saliency"),
             "ensemble.layers needs those layers in the store: set extract.layers to 'all' or to a list"),
            (not (isinstance(self.extract.layers, tuple)
                  and not set(self.ensemble.layers or ([self.model.layer] if isinstance(self.model.layer, int) else []))
                  <= set(self.extract.layers)),
             "the layers to train on are not among extract.layers, so they would not be in the store"),
        ]  # fmt: skip
        axes = dataclasses.asdict(self.ensemble)
        num_members = math.prod(max(len(values), 1) for axis, values in axes.items() if axis != "only")
        message = f"ensemble.only names a member beyond the {num_members} of the product (0 is the first)"
        rules.append((max(self.ensemble.only, default=0) < num_members, message))
        for axis, values in axes.items():
            rules.append((len(set(values)) == len(values), f"ensemble.{axis} names a value twice"))
        return rules

    def _validate_conditions(self) -> None:
        section = self.eval
        asked = [("conditions", word, word) for word in section.conditions if word not in condition_names.FAMILIES]
        noises = [(kind, kind if kind == condition_names.BABBLE else f"noise:{kind}") for kind in section.noise_kinds]
        asked += [("noise_kinds", kind, f"{noise}:0db") for kind, noise in noises]
        asked += [("rt60_s", rt60, f"reverb:synthetic:{rt60:g}s") for rt60 in section.rt60_s]
        for name in ("snr_db", "curve_snr_db"):
            asked += [(name, snr, f"noise:white:{snr:g}db") for snr in getattr(section, name)]
        asked += [("combined_snr_db", section.combined_snr_db, f"noise:white:{section.combined_snr_db:g}db")]
        for name, value, text in asked:
            try:
                condition_names.parse(text)
            except condition_names.ConditionError as error:
                families = f", or a family: {', '.join(condition_names.FAMILIES)}" if name == "conditions" else ""
                raise ConfigError(f"eval.{name} has {value!r}: {error}{families}") from None

    def fingerprint(self, *sections: str) -> str:
        """Hash of the fields that change results, of the named sections (all if none)."""
        return fingerprint_of(self.results_fields(*sections))

    def results_fields(self, *sections: str) -> dict[str, Any]:
        """The fields that change results, `section.name` -> value, of the named sections (all if none)."""
        fields = {}
        for section in sections or [field.name for field in dataclasses.fields(self)]:
            part = getattr(self, section)
            for field in dataclasses.fields(part):
                if field.metadata["changes_results"]:
                    value = getattr(part, field.name)
                    fields[f"{section}.{field.name}"] = list(value) if isinstance(value, tuple) else value
        return fields


def from_config_dict(tree: Mapping[str, Any] | ml_collections.ConfigDict) -> Config:
    """Reads a (nested) ConfigDict or dict strictly; fields left out take their defaults.

    Raises:
      ConfigError: Unknown section or key (the message gives the full path and the nearest name), value of the wrong
        type, or a broken rule of `Config.validate`.
    """
    if isinstance(tree, ml_collections.ConfigDict):
        tree = tree.to_dict()
    sections = {field.name: field.type for field in dataclasses.fields(Config)}
    parts = {}
    for section, values in tree.items():
        _require_known(section, sections, "")
        if not isinstance(values, Mapping):
            raise ConfigError(f"{section} must be a section with fields, is {values!r}")
        hints = typing.get_type_hints(sections[section])
        for name in values:
            _require_known(name, hints, f"{section}.")
        parts[section] = sections[section](
            **{name: _convert(value, hints[name], f"{section}.{name}") for name, value in values.items()}
        )
    return Config(**parts).validate()


def to_config_dict(config: Config) -> ml_collections.ConfigDict:
    """The ConfigDict that recipes start from and flags override."""
    return ml_collections.ConfigDict(dataclasses.asdict(config))


def describe() -> str:
    """One line a field: path, default, meaning. For `--help`."""
    lines = []
    for section in dataclasses.fields(Config):
        for field in dataclasses.fields(section.type):
            lines.append(f"  --config.{section.name}.{field.name}={field.default!r}\n      {field.metadata['doc']}")
    return "\n".join(lines)


def _require_known(name: str, known: Mapping[str, Any], prefix: str) -> None:
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f"; did you mean {prefix}{near[0]}?" if near else f"; known here: {', '.join(sorted(known))}"
        raise ConfigError(f"unknown config field {prefix}{name}{hint}")


def _convert(value: Any, hint: Any, path: str) -> Any:
    """`value` as the type `hint`, or ConfigError. Converts only int -> float, list -> tuple, and text of a union."""
    if isinstance(hint, types.UnionType):
        options = typing.get_args(hint)
        if isinstance(value, str) and int in options and value.lstrip("-").isdigit():
            return int(value)
        if isinstance(value, str) and any(typing.get_origin(option) is tuple for option in options):
            items = value.strip("()[] ").rstrip(",").split(",")
            if all(item.strip().isdigit() for item in items):
                return tuple(int(item) for item in items)
        for option in options:
            try:
                return _convert(value, option, path)
            except ConfigError:
                continue
    elif typing.get_origin(hint) is tuple:
        if isinstance(value, list | tuple):
            return tuple(_convert(item, typing.get_args(hint)[0], f"{path}[{i}]") for i, item in enumerate(value))
    elif hint is float:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
    elif isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    name = getattr(hint, "__name__", str(hint)) if not typing.get_origin(hint) else str(hint)
    raise ConfigError(f"{path} must be {name}, is {value!r} ({type(value).__name__})")


CONFIG_FILE = "config.json"
_FILE_REMEDY = "delete the folder train of this workdir and run python -m launch.train again"


def write_config(folder: str | os.PathLike, config: Config) -> None:
    """Writes `FOLDER/config.json`, every field."""
    write_json(place_of(folder) / CONFIG_FILE, dataclasses.asdict(config))


def read_config(folder: str | os.PathLike) -> Config:
    """Reads it back.

    Raises:
      ArtefactError: The file is missing, damaged, or has fields that this version does not know.
    """
    path = place_of(folder) / CONFIG_FILE
    try:
        return from_config_dict(
            read_json(path, f"it says which settings the members were trained with: {_FILE_REMEDY}")
        )
    except ConfigError as error:
        raise ArtefactError(f"{path} does not fit this version ({error}); {_FILE_REMEDY}") from None

"""The frozen, typed config of an experiment: strict reading from a ConfigDict, its file, and fingerprints.

The fields and their defaults stand in `config_fields` and `config_head_fields`, the rules between them in
`config_rules`. METHOD.md, section 12, says which choice of the method each field stands for.
"""

import contextlib
import dataclasses
import difflib
import math
import os
import sys
import types
import typing
from collections.abc import Mapping
from typing import Any

import ml_collections

from seremo_jax.core.artefacts import ArtefactError, fingerprint_of, place_of, read_json, write_json
from seremo_jax.core.config_fields import (
    FOLDERS,
    BackboneConfig,
    CorpusConfig,
    DataConfig,
    EvalConfig,
    ExtractConfig,
    SaliencyConfig,
    TargetsConfig,
)
from seremo_jax.core.config_head_fields import EnsembleConfig, LossConfig, ModelConfig, OptimConfig, TrainConfig
from seremo_jax.core.config_rules import broken_rules


class ConfigError(ValueError):
    """A config field is unknown, of the wrong type, or contradicts another field. The message gives its full path."""


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
        """Checks all rules and returns self.

        Raises:
          ConfigError: A rule is broken; the message gives the field and the reason.
        """
        for problem in broken_rules(self):
            raise ConfigError(problem)
        return self

    def fingerprint(self, *sections: str) -> str:
        """Hash of the fields that change results, of the named sections (all if none)."""
        return fingerprint_of(self.results_fields(*sections))

    def results_fields(self, *sections: str) -> dict[str, Any]:
        """The fields that change results, `section.name` -> value, of the named sections (all if none).

        Silent fields (`config_field.field`) are left out where they have their default.
        """
        fields = {}
        for section in sections or [field.name for field in dataclasses.fields(self)]:
            part = getattr(self, section)
            for field in dataclasses.fields(part):
                value, about = getattr(part, field.name), field.metadata
                if about["changes_results"] and not (about["is_silent"] and value == field.default):
                    fields[f"{section}.{field.name}"] = list(value) if isinstance(value, tuple) else value
        return fields


CHOICES: dict[str, tuple[str, ...]] = {
    f"{section.name}.{field.name}": tuple(field.metadata["choices"])
    for section in dataclasses.fields(Config)
    for field in dataclasses.fields(section.type)
    if field.metadata["choices"]
}
"""Field -> the words it takes; where it holds several, the words that each may be."""


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
    for path in FOLDERS:
        section, name = path.split(".")
        if section in parts:
            value = getattr(parts[section], name)
            folder = tuple(map(_at_home, value)) if isinstance(value, tuple) else _at_home(value)
            parts[section] = dataclasses.replace(parts[section], **{name: folder})
    return Config(**parts).validate()


def _at_home(folder: str) -> str:
    """The folder with that of the user in place of `~`."""
    return os.path.expanduser(folder) if folder.startswith("~") else folder


def to_config_dict(config: Config) -> ml_collections.ConfigDict:
    """The ConfigDict that recipes start from and flags override."""
    return ml_collections.ConfigDict(dataclasses.asdict(config))


def describe() -> str:
    """Of every field its path and default, its meaning, and the words it takes. For `--help`."""
    lines = []
    for section in dataclasses.fields(Config):
        for field in dataclasses.fields(section.type):
            lines.append(f"  --config.{section.name}.{field.name}={field.default!r}\n      {field.metadata['doc']}")
            choices = field.metadata["choices"].items()
            if choices:
                words = [f"{word} ({meaning})" if meaning else word for word, meaning in choices]
                lines.append(f"      one of: {', '.join(words)}")
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
        if isinstance(value, str) and int in options and value.removeprefix("-").isdecimal():
            return int(value)
        if isinstance(value, str) and float in options:
            with contextlib.suppress(ValueError):
                number = float(value)
                # What is no finite number stays a word, which the rules know or refuse.
                value = number if math.isfinite(number) else value
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
            # A comparison with NaN is false, so it would slip through every rule.
            if abs(value) <= sys.float_info.max:
                return float(value)
            raise ConfigError(f"{path} must be a finite number, is {value!r}")
    elif isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    name = getattr(hint, "__name__", str(hint)) if not typing.get_origin(hint) else str(hint)
    raise ConfigError(f"{path} must be {name}, is {value!r} ({type(value).__name__})")


CONFIG_FILE = "config.json"
_FILE_REMEDY = "delete the folder train of this workdir and run python -m launch.train again"
_NO_LONGER_FIELDS = (("eval", "num_utterance_resamples"),)
"""Fields that earlier versions wrote beside a training and that say nothing of it: they are read over."""


def write_config(folder: str | os.PathLike, config: Config) -> None:
    """Writes `FOLDER/config.json`, every field."""
    write_json(place_of(folder) / CONFIG_FILE, dataclasses.asdict(config))


def read_config(folder: str | os.PathLike) -> Config:
    """Reads it back.

    Raises:
      ArtefactError: The file is missing, damaged, or has fields that this version does not know.
    """
    path = place_of(folder) / CONFIG_FILE
    tree = read_json(path, f"it says which settings the members were trained with: {_FILE_REMEDY}")
    for section, name in _NO_LONGER_FIELDS:
        if isinstance(tree, dict) and isinstance(tree.get(section), dict):
            tree[section].pop(name, None)
    try:
        return from_config_dict(tree)
    except ConfigError as error:
        raise ArtefactError(f"{path} does not fit this version ({error}); {_FILE_REMEDY}") from None

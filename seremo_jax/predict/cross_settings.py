"""Settings of a model on another corpus: which the model has settled, and which the config of the corpus says."""

import dataclasses
import json
from collections.abc import Collection, Mapping
from typing import Any

from seremo_jax.core.artefacts import ArtefactError, to_json
from seremo_jax.core.config import Config, from_config_dict
from seremo_jax.predict import model_backbone

_SECTIONS = ("backbone", "saliency", "model", "loss", "optim", "train", "ensemble")
_FIELDS = (
    "extract.layers",
    "extract.dtype",
    *(f"targets.{name}" for name in ("class_set", "class_target", "attributes", "attribute_scale")),
    *(f"targets.{name}" for name in ("other_votes", "predict_variance")),
)
"""What the model has settled: how it hears, what it answers, how it was trained. All else is of the other corpus."""

_HEARD = ("backbone.name", "targets.class_set", "targets.attributes")
"""Of these, what a user may have expected from the recipe of the other corpus."""

_COMPARABLE_SCALES = ("centered", "unit")
"""Scales of attributes on which two corpora compare: those of the ends of each one's own rating scale."""


def is_of_the_model(path: str) -> bool:
    """Whether the model has settled a field, `section.name`."""
    return path.partition(".")[0] in _SECTIONS or path in _FIELDS


def settled_by(about: Mapping[str, Any]) -> dict[str, Any]:
    """What a model has settled: `section.name` -> value, as JSON has it.

    Args:
      about: What the model is, see `model_folder`.

    Raises:
      ArtefactError: The model does not say which classes it was trained on.
    """
    known = _results_fields(Config())
    card = about["protocol"].get("settings", {})
    # Fields that the version of the model did not know had their defaults then.
    settled = {path: card.get(path, known[path]) for path in known if is_of_the_model(path)}
    if "targets.class_set" not in card:
        raise ArtefactError(
            "the model does not say which class set it was trained on (protocol.settings in model.json): export it "
            "again with python -m launch.export"
        )
    hearing = {f"backbone.{name}": value for name, value in model_backbone.section_of(dict(about)).items()}
    return settled | hearing | {"extract.dtype": about["backbone"]["stored_dtype"]}


def heard_config(config: Config, about: Mapping[str, Any], asked: Collection[str] = ()) -> tuple[Config, list[str]]:
    """The config under which another corpus is heard and scored.

    Args:
      config: That of the other corpus. What it says of what the model has settled is left alone.
      about: What the model is.
      asked: Fields that the user asked for expressly, beyond the recipe.

    Returns:
      The config: what the model hears and answers is the model's, and the rest that of `config`, but for sections of
      the head and its training, which are read by nothing behind and have their defaults. And a sentence for each
      field of which a recipe may have led the user to expect otherwise.

    Raises:
      ArtefactError: The user asked for something else than the model has settled.
      ConfigError: Settings contradict.
    """
    settled, written = settled_by(about), _results_fields(config)
    for path in sorted(asked):
        if not is_of_the_model(path) or (path in settled and settled[path] == written.get(path)):
            continue
        section, name = path.split(".")
        value = getattr(getattr(config, section), name)
        if path == "backbone.shards_params":
            continue
        there = f"the model has {settled[path]!r}" if path in settled else "it is a setting of training"
        hint = "; where its backbone lies is said by --backbone" if path == "backbone.name" else ""
        raise ArtefactError(
            f"--config.{path}={value!r} cannot be asked of a model that is trained ({there}): leave it out{hint}"
        )
    tree = {name: part for name, part in dataclasses.asdict(config).items() if name not in _SECTIONS}
    tree["backbone"] = {"shards_params": config.backbone.shards_params}
    for path, value in settled.items():
        section, name = path.split(".")
        if section in tree and path != "extract.layers":
            tree[section][name] = value
    tree["extract"]["layers"] = "all"
    # Targets of other scales are made of the training split, or do not compare with what the model says.
    if tree["targets"]["attribute_scale"] not in _COMPARABLE_SCALES:
        tree["targets"]["attribute_scale"] = "centered"
    differing = [path for path in _HEARD if settled[path] != written[path]]
    told = [f"{path} is the model's, {settled[path]!r}, and not the recipe's, {written[path]!r}" for path in differing]
    return from_config_dict(tree), told


def has_comparable_attributes(about: Mapping[str, Any]) -> bool:
    """Whether what a model says of attributes is on a scale that two corpora share."""
    return settled_by(about)["targets.attribute_scale"] in _COMPARABLE_SCALES


def card_settings(heard: Config, about: Mapping[str, Any], ingested: Mapping[str, Any]) -> dict[str, Any]:
    """All settings behind the numbers: those that the model has settled, and those of the other corpus.

    Args:
      heard: From `heard_config`.
      about: What the model is.
      ingested: Settings that the tables of the other corpus were made under.
    """
    own = {path: value for path, value in _results_fields(heard).items() if not is_of_the_model(path)}
    # As the model's own card has them, so that its scores on both corpora can stand in one table.
    of_the_model = {path: value for path, value in about["protocol"]["settings"].items() if is_of_the_model(path)}
    return own | settled_by(about) | of_the_model | dict(ingested)


def trained_on(about: Mapping[str, Any]) -> dict[str, Any]:
    """The corpus that a model was trained on, by its own card: name, release, split, and settings of its labels."""
    card = about["protocol"]
    settings = {
        path: value
        for path, value in card.get("settings", {}).items()
        if path.partition(".")[0] in ("corpus", "data") or (path.startswith("targets.") and not is_of_the_model(path))
    }
    names = ("corpus", "release", "is_simulated", "split_hash")
    further = {"corpora": card["corpora"]} if "corpora" in card else {}
    return {name: card.get(name) for name in names} | further | {"settings": settings}


def corpora_of(about: Mapping[str, Any]) -> set[tuple[str, str]]:
    """Name and release of each corpus of a card, or of what an ingest says of its corpora."""
    return {(entry["corpus"], entry["release"]) for entry in about.get("corpora") or (about,)}


def _results_fields(config: Config) -> dict[str, Any]:
    return json.loads(to_json(config.results_fields()))

"""The backbone that belongs to a model: how it hears, where it is, and the refusal of any other one."""

import os
from typing import Any

from seremo_jax import backbones
from seremo_jax.core.artefacts import ArtefactError, require_same
from seremo_jax.core.config import ConfigError, from_config_dict
from seremo_jax.core.config_fields import BackboneConfig
from seremo_jax.features import forward
from seremo_jax.predict.model_folder import Model


def section_of(about: dict[str, Any]) -> dict[str, Any]:
    """Fields of the config's section `backbone` under which a model hears; `name` is where it was in training."""
    backbone, defaults = about["backbone"], BackboneConfig()
    fields = {name: backbone[name] for name in ("dtype", "window", "window_seconds", "overlap_seconds")}
    # Models of earlier versions heard everything as it was recorded, and say nothing of level.
    fields |= {name: backbone.get(name, getattr(defaults, name)) for name in ("level", "level_dbfs")}
    return {"name": backbone["location"], "final_norm": backbone["final_norm_asked_for"], **fields}


def require_here(path: str | os.PathLike, about: dict[str, Any], backbone: str | os.PathLike | None = None) -> str:
    """Where the backbone of a model is.

    A model folder may come from anybody. What it names must not be downloaded without being asked for.

    Args:
      path: Where the model was read, for messages.
      about: What the model is.
      backbone: Where the backbone is, if not where the model says.

    Raises:
      ArtefactError: The model names one that is not on this machine, or what was given is no place of one.
    """
    place = os.fspath(backbone) if backbone is not None else about["backbone"]["location"]
    if place not in backbones.LOADERS and not backbones.may_be_asked_for(place):
        raise ArtefactError(
            f"the backbone of {path}: {place} is no folder here, and no id of the model hub (org/name[@revision]); say "
            "where it is (--backbone, backbone=)"
        )
    if backbone is None and not backbones.is_here(place):
        raise ArtefactError(
            f"{path} says that its backbone is {place}, which is not on this machine: to download it from the model "
            f"hub, ask for it yourself with --backbone={place} (backbone=), or give the folder that holds it"
        )
    return place


def load(path: str | os.PathLike, model: Model, backbone: str | os.PathLike | None = None) -> backbones.Backbone:
    """The backbone of a model, for the layers that the model reads.

    Args:
      path: Where the model was read, for messages.
      model: The model.
      backbone: Where the backbone is, if not where the model says. What a model names itself is downloaded from the
        hub only where it is named here, too.

    Raises:
      ArtefactError: It is not on this machine, or another one than the model was trained on; both sides are named.
    """
    about, place = model.about["backbone"], require_here(path, model.about, backbone)
    config = from_config_dict({"backbone": section_of(model.about) | {"name": place}})
    try:
        loaded = forward.load_backbone(config, model.about["layers"])
    except ConfigError as error:
        raise ArtefactError(f"the backbone of {path}: {error}; say where it is (--backbone, backbone=)") from error
    # A head reads the features of one backbone. With those of another it would give numbers that mean nothing.
    names = ("revision", "dtype", "final_norm", "num_features", "frame_rate_hz")
    present = {name: getattr(loaded, name) for name in names} | {"layers": list(loaded.layers)}
    expected = {name: about[name] for name in names} | {"layers": model.about["layers"]}
    remedy = f"{path} was trained on {about['name']!r} as asked for here: give its place with --backbone (backbone=)."
    require_same(f"the backbone {place}", present, expected, remedy)
    return loaded

"""The config that a training was made with, as a file beside it. No JAX."""

import dataclasses
import os

from seremo_jax.core.artefacts import ArtefactError, place_of, read_json, write_json
from seremo_jax.core.config import Config, ConfigError, from_config_dict

CONFIG_FILE = "config.json"
_REMEDY = "delete the folder train of this workdir and run python -m launch.train again"


def write(folder: str | os.PathLike, config: Config) -> None:
    """Writes `FOLDER/config.json`, every field."""
    write_json(place_of(folder) / CONFIG_FILE, dataclasses.asdict(config))


def read(folder: str | os.PathLike) -> Config:
    """Reads it back.

    Raises:
      ArtefactError: The file is missing, damaged, or has fields that this version does not know.
    """
    path = place_of(folder) / CONFIG_FILE
    try:
        return from_config_dict(read_json(path, f"it says which settings the members were trained with: {_REMEDY}"))
    except ConfigError as error:
        raise ArtefactError(f"{path} does not fit this version ({error}); {_REMEDY}") from None

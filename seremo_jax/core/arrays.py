"""Plain arrays in NPZ files, on disk or in a bucket."""

import os
from collections.abc import Collection
from typing import Any

import numpy as np

from seremo_jax.core.artefacts import ArtefactError, atomic_path, place_of
from seremo_jax.core.copies import on_disk


def write_arrays(path: str | os.PathLike, **arrays: Any) -> None:
    """Writes arrays as NPZ, whole or not at all."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)


def read_arrays(path: str | os.PathLike, remedy: str, names: Collection[str] = ()) -> dict[str, np.ndarray]:
    """Reads an NPZ file of plain arrays, or those of `names` only.

    Raises:
      ArtefactError: The file is missing or damaged; the message ends with `remedy`.
    """
    try:
        with on_disk(place_of(path)).open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in names or arrays}
    except FileNotFoundError:
        raise ArtefactError(f"{path} is missing; {remedy}") from None
    except ArtefactError:
        raise
    except Exception as error:  # zipfile, zlib and NumPy raise a dozen types for damaged files
        raise ArtefactError(f"{path} is damaged ({error}); {remedy}") from None

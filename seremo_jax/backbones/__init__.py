"""Frozen models from audio to hidden states. A new architecture is one module here and one entry in `LOADERS`."""

import difflib
import os
from collections.abc import Callable, Iterable

from seremo_jax.backbones import logmel
from seremo_jax.backbones.base import Backbone, bucket_lengths, pick_layers

__all__ = ["LOADERS", "Backbone", "bucket_lengths", "load", "pick_layers"]

LOADERS: dict[str, Callable[[str, Iterable[int] | None, str], Backbone]] = {"logmel": logmel.load}
"""Name -> function of (path or id, layers, dtype) that makes the backbone."""


def load(path_or_id: str | os.PathLike, layers: Iterable[int] | None = None, dtype: str = "float32") -> Backbone:
    """Makes a backbone ready to call.

    Args:
      path_or_id: Name of a backbone without weights (`logmel`).
      layers: Layers to return, in this order; None returns all. Nothing else is computed.
      dtype: Compute dtype, `float32` or `bfloat16`; `logmel` computes in float32 whatever this says.

    Raises:
      ValueError: Unknown name, dtype or layer.
    """
    name = os.fspath(path_or_id)
    if name not in LOADERS:
        near = difflib.get_close_matches(name.lower(), LOADERS, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"unknown backbone {name!r}: known are {', '.join(sorted(LOADERS))}{hint}")
    if dtype not in ("float32", "bfloat16"):
        raise ValueError(f"unknown dtype {dtype!r} for backbone {name!r}: choose float32 or bfloat16")
    return LOADERS[name](name, layers, dtype)

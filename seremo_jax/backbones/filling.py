"""From published tensors to the parameters of a module tree, in little more memory than these take.

Shapes are compared before any memory is taken, and tensors are read one after another into the array that is kept. An
outline has no tensors: its parameters stay shapes, from which programs can be compiled.
"""

import math
from collections.abc import Callable, Mapping

import jax
import numpy as np
from flax import nnx

from seremo_jax.backbones.hub import CheckpointError
from seremo_jax.backbones.layers import Leaf, walk

_ALIGNMENT = 64


def published_shapes(module: nnx.Module, published_name: Callable[[str], str]) -> dict[str, tuple[int, ...]]:
    """Published name -> shape of every tensor that `fill` needs.

    Args:
      module: The model.
      published_name: Path of a tensor in this module tree -> its published name.
    """
    shapes = {}
    for leaf in walk(module):
        for names in leaf.names(published_name):
            shapes |= dict(zip(names, leaf.source.shapes.values(), strict=True))
    return shapes


def fill(
    module: nnx.Module, tensors: Mapping[str, np.ndarray] | None, published_name: Callable[[str], str], dtype: str
) -> None:
    """Fills the parameters of `module` from published tensors, one after another.

    Args:
      module: Made of empty parameters.
      tensors: Those of `published_shapes`; each is asked for once and let go of. None leaves shapes, in the dtypes that
        the parameters would have.
      published_name: As there.
      dtype: Compute dtype; modules that say `STAYS_FLOAT32` keep float32, spectra complex64.

    Raises:
      CheckpointError: Numbers that are finite as published are not finite in the dtype that is computed in.
    """
    for leaf in walk(module):
        if tensors is None:
            leaf.param.set_value(jax.ShapeDtypeStruct(leaf.param.get_value().shape, leaf.kind(dtype)))
        else:
            leaf.param.set_value(jax.device_put(_filled(leaf, tensors, published_name, dtype)).block_until_ready())


def _filled(
    leaf: Leaf, tensors: Mapping[str, np.ndarray], published_name: Callable[[str], str], dtype: str
) -> np.ndarray:
    value = _aligned(leaf.param.get_value().shape, leaf.kind(dtype))
    for number, names in enumerate(leaf.names(published_name)):
        part = value[...] if leaf.depth is None else value[number]
        with np.errstate(all="ignore"):
            part[...] = leaf.source.convert([np.asarray(tensors[name], np.float32) for name in names])
        if not np.isfinite(part).all():
            raise CheckpointError(f"{' and '.join(names)}: what is computed of them in {value.dtype} is not finite")
    return value


def _aligned(shape: tuple[int, ...], kind: np.dtype) -> np.ndarray:
    """Memory that begins where JAX on CPU takes it over as it is. Elsewhere in memory it would be copied."""
    num_bytes = math.prod(shape) * kind.itemsize
    memory = np.empty(num_bytes + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + num_bytes].view(kind).reshape(shape)

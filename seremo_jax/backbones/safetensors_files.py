"""Reads `model.safetensors`: a header of JSON that says where tensors lie, and their numbers one after another.

A tensor is read into memory of its own when it is asked for. The file is never mapped into memory, because the pages
of a mapped file count as memory of the process beside the arrays that are made of them.

Source: KNOWN: the format, https://github.com/huggingface/safetensors#format
"""

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from seremo_jax.backbones.hub import CheckpointError
from seremo_jax.backbones.settings import require_file
from seremo_jax.core.artefacts import LFS_POINTER

_MOST_HEADER_BYTES = 100_000_000
"""As in the published reader."""
_MOST_AXES = 32
_FLOATING = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}
_OTHER_BITS = {"BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "U32": 32, "I32": 32, "U64": 64, "I64": 64}
_LONG_NAMES = {"BF": "bfloat", "F": "float", "I": "int", "U": "uint"}


class _Tensor(NamedTuple):
    """Where the bytes of a tensor lie, from the end of the header."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


class SafetensorsFile:
    """A safetensors file, with the methods of `TorchFile`.

    Args:
      path: The file.

    Attributes:
      others: Names of entries that are no tensors: none.

    Raises:
      CheckpointError: It is missing or damaged.
    """

    def __init__(self, path: Path):
        self.path, self.others = path, []
        require_file(path)
        try:
            with path.open("rb") as file:
                start = file.read(len(LFS_POINTER))
                if start == LFS_POINTER:
                    raise CheckpointError(f"{path} is a Git LFS pointer: run git lfs pull in its folder")
                num_bytes = int.from_bytes(start[:8], "little")
                self._start = 8 + num_bytes
                if num_bytes > _MOST_HEADER_BYTES or self._start > path.stat().st_size:
                    raise ValueError("it has no header")
                file.seek(8)
                header = json.loads(file.read(num_bytes).decode("utf-8"))
            self._tensors = _tensors_of(header, path.stat().st_size - self._start)
        except CheckpointError:
            raise
        except (ValueError, OSError, RecursionError) as error:
            raise self._damaged(error) from error

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape."""
        return {name: tensor.shape for name, tensor in self._tensors.items()}

    def dtype_name(self, name: str) -> str:
        """NumPy's name of a tensor's dtype."""
        dtype = self._tensors[name].dtype
        kind = dtype.rstrip("0123456789")
        return _LONG_NAMES.get(kind, kind.lower()) + dtype.removeprefix(kind)

    def read(self, name: str) -> np.ndarray:
        """A tensor of floating-point numbers in its own dtype.

        Raises:
          CheckpointError: The file changed, or cannot be read.
        """
        tensor = self._tensors[name]
        array = np.empty(tensor.shape, _FLOATING[tensor.dtype])
        try:
            with self.path.open("rb", buffering=0) as file:
                file.seek(self._start + tensor.begin)
                rest = memoryview(array.reshape(-1).view(np.uint8))
                while rest:
                    if not (num_read := file.readinto(rest)):
                        raise ValueError(f"it ends inside {name}")
                    rest = rest[num_read:]
        except (ValueError, OSError) as error:
            raise self._damaged(error) from error
        return array

    def _damaged(self, error: Exception) -> CheckpointError:
        return CheckpointError(
            f"{self.path} is damaged ({str(error)[:200] or type(error).__name__}): compare its size and hash with the "
            "published ones, and download it again"
        )


def _tensors_of(header: Any, num_bytes: int) -> dict[str, _Tensor]:
    """The tensors that a header describes; they fill the bytes behind it without a gap."""
    if not isinstance(header, dict):
        raise ValueError("its header is no JSON object")
    tensors = {name: _tensor_of(name, entry) for name, entry in header.items() if name != "__metadata__"}
    end = 0
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].end)):
        if tensor.begin != end:
            raise ValueError(f"{name:.80} begins at byte {tensor.begin}, should at {end}")
        end = tensor.end
    if end != num_bytes:
        raise ValueError(f"it has {num_bytes} bytes of numbers, should have {end}")
    return tensors


def _tensor_of(name: str, entry: Any) -> _Tensor:
    match entry:
        case {"dtype": str() as dtype, "shape": list() as shape, "data_offsets": [int() as begin, int() as end]} if len(
            shape
        ) <= _MOST_AXES and all(type(n) is int and 0 <= n < 1 << 62 for n in (*shape, begin, end)):
            tensor = _Tensor(dtype, tuple(shape), begin, end)
        case _:
            raise ValueError(f"its header does not say where {name:.80} lies")
    num_bits = _OTHER_BITS.get(dtype) or (_FLOATING[dtype].itemsize * 8 if dtype in _FLOATING else None)
    # Other dtypes are none of weights; whoever wants such a tensor is told its dtype.
    if num_bits is not None and math.prod(shape) * num_bits != (end - begin) * 8:
        raise ValueError(f"{name:.80} {tensor.shape} has {end - begin} bytes")
    return tensor

"""`pytorch_model.bin` without PyTorch, and without running what it says: only tensor storages are ever made.

The format is a ZIP archive with a pickle that tells how tensors lie in storages, and one entry a storage. The pickle is
read by an unpickler that knows a handful of names and has stand-ins of its own for them; any other name is refused
before anything is imported.
"""

import math
import os
import pickle
import zipfile
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from seremo_jax.backbones.hub import CheckpointError

_DTYPES = {
    "DoubleStorage": np.dtype("<f8"),
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}


class Storage(NamedTuple):
    """A flat array in the archive."""

    key: str
    dtype: np.dtype
    size: int


class StoredTensor(NamedTuple):
    """A view of a storage; offset and strides count elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _RefusedError(Exception):
    """The pickle asks for something that is no tensor."""


class _Unpickler(pickle.Unpickler):
    """Knows the names that tensors need, and no others. Stand-ins are made anew for each file: it may alter them."""

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in for a name.

        Raises:
          _RefusedError: Every other name.
        """
        if (module, name) == ("collections", "OrderedDict"):
            return lambda *items: _Mapping(*items)
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda storage, offset, shape, strides, *_: _checked(storage, offset, shape, strides)
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return lambda tensor, *_: tensor
        if module in ("torch", "torch.storage") and name in _DTYPES:
            return _DTYPES[name]
        raise _RefusedError(f"{module}.{name}")

    def persistent_load(self, pid: Any) -> Storage:
        """The storage of a reference.

        Raises:
          _RefusedError: The reference is none to a storage of known dtype.
        """
        match pid:
            case ("storage", np.dtype() as dtype, str() as key, str(), int() as size) if size >= 0:
                return Storage(key, dtype, size)
        raise _RefusedError(f"the reference {pid!r}")


class _Mapping(dict):
    """A dict that takes the attributes which PyTorch hangs on a state dict, and forgets them."""

    def __setstate__(self, state: Any) -> None:
        del state


def _checked(storage: Any, offset: Any, shape: Any, strides: Any) -> StoredTensor:
    """The view, if it lies inside its storage."""
    numbers = [offset, *shape, *strides]
    if not isinstance(storage, Storage) or not all(type(n) is int and n >= 0 for n in numbers):
        raise _RefusedError("a tensor that is no view of a storage")
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    if 0 not in shape and last >= storage.size:
        raise _RefusedError(f"a tensor of shape {tuple(shape)} that reaches beyond its storage of {storage.size}")
    return StoredTensor(storage, offset, tuple(shape), tuple(strides))


class TorchFile:
    """A file written by `torch.save`.

    Args:
      path: The file.

    Attributes:
      tensors: Name -> where the tensor lies.
      others: Names of entries that are no tensors.

    Raises:
      CheckpointError: It is damaged, of a format before PyTorch 1.6, or its pickle asks for anything but tensors.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        if not zipfile.is_zipfile(self.path):
            raise CheckpointError(
                f"{self.path} is no ZIP archive: it is truncated or damaged (compare size and hash with the published "
                "ones), or PyTorch before 1.6 wrote it (save it again as safetensors)"
            )
        try:
            self._archive = zipfile.ZipFile(self.path)
            pickles = [name for name in self._archive.namelist() if name == "data.pkl" or name.endswith("/data.pkl")]
            if len(pickles) != 1:
                raise CheckpointError(
                    f"{self.path} holds no tensors: {len(pickles)} entries data.pkl where one should be"
                )
            self._prefix = pickles[0].removesuffix("data.pkl")
            self._require_little_endian()
            with self._archive.open(pickles[0]) as file:
                state = _Unpickler(file).load()
        except _RefusedError as error:
            raise CheckpointError(
                f"{self.path} asks for {error}, and this project makes nothing but plain tensors from a pickle; it was "
                "not run. Use the checkpoint's model.safetensors, or save its state dict again"
            ) from None
        except CheckpointError:
            raise
        except Exception as error:  # a damaged pickle can raise nearly anything
            raise self._damaged(error) from error
        if (
            isinstance(state, dict)
            and set(state) & {"model", "state_dict"}
            and isinstance(next(iter(state.values())), dict)
        ):
            state = state.get("state_dict", state.get("model"))
        if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
            raise CheckpointError(f"{self.path} holds {type(state).__name__}, not tensors by name")
        self.tensors = {name: value for name, value in state.items() if isinstance(value, StoredTensor)}
        self.others = sorted(state.keys() - self.tensors.keys())

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape of every tensor."""
        return {name: tensor.shape for name, tensor in self.tensors.items()}

    def read(self, name: str) -> np.ndarray:
        """A tensor, contiguous, in its own dtype.

        Raises:
          CheckpointError: Its storage is missing or damaged.
        """
        tensor = self.tensors[name]
        entry = f"{self._prefix}data/{tensor.storage.key}"
        try:
            flat = np.frombuffer(self._archive.read(entry), tensor.storage.dtype)
        except (KeyError, ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise self._damaged(error) from error
        if len(flat) < tensor.storage.size:
            raise CheckpointError(
                f"{self.path}: storage {entry} has {len(flat)} numbers, "
                f"{tensor.storage.size} are promised; it is damaged"
            )
        strides = [stride * flat.itemsize for stride in tensor.strides]
        if not math.prod(tensor.shape):
            return np.zeros(tensor.shape, flat.dtype)
        view = np.lib.stride_tricks.as_strided(flat[tensor.offset :], tensor.shape, strides, writeable=False)
        return np.ascontiguousarray(view).reshape(tensor.shape)

    def _require_little_endian(self) -> None:
        entry = f"{self._prefix}byteorder"
        if entry in self._archive.namelist() and self._archive.read(entry) != b"little":
            raise CheckpointError(f"{self.path} was written on a big-endian machine: save it again as safetensors")

    def _damaged(self, error: Exception) -> CheckpointError:
        return CheckpointError(
            f"{self.path} is damaged ({type(error).__name__}: {error}): compare its size and hash with the published "
            "ones, and download it again"
        )

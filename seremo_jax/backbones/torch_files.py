"""Reads `pytorch_model.bin` without PyTorch, and without running the code that a pickle can contain.

The format is a ZIP archive with a pickle that says how tensors lie in storages, and one entry for each storage. Before
PyTorch 1.6 it was a stream: some pickles, then the storages in the order of a list of their keys. The unpickler here
knows a handful of names and has stand-ins of its own for them; any other name is refused before anything is imported.
A pickle can also load state into every object that it was given, which for a NumPy dtype rewrites it for the whole
process. So it is never given an object that has state.
"""

import math
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import ml_dtypes
import numpy as np

from seremo_jax.backbones.hub import CheckpointError

_STREAM = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""How files before PyTorch 1.6 begin: a magic number, pickled."""
_WRAPPERS = ("state_dict", "model")
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


class StorageKind(NamedTuple):
    """Stands for a class of storages. It is not their dtype, because a pickle can rewrite a dtype."""

    name: str


class Storage(NamedTuple):
    """A flat array in the file; its size counts elements."""

    key: str
    kind: StorageKind
    size: int

    @property
    def dtype(self) -> np.dtype:
        """Of its elements."""
        return _DTYPES[self.kind.name]


class StoredTensor(NamedTuple):
    """A view of a storage; offset and strides count elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _RefusedError(Exception):
    """The pickle asks for something that is no tensor."""


class _Function:
    """A function that a pickle may call. It takes no state, so that a file cannot alter how the next one is read."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]):
        self._function = function

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise _RefusedError("a change of a function")


class _Mapping(dict):
    """A dict that takes the attributes which PyTorch hangs on a state dict, and forgets them."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        del state


class _Unpickler(pickle.Unpickler):
    """Knows the names that tensors need, and no others."""

    def __init__(self, file: Any):
        super().__init__(file)
        self.storages: dict[str, Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in for a name.

        Raises:
          _RefusedError: Every other name.
        """
        if (module, name) in _FUNCTIONS:
            return _FUNCTIONS[module, name]
        if module in ("torch", "torch.cuda") and name in _DTYPES:
            return StorageKind(name)
        raise _RefusedError(f"{module}.{name}"[:80])

    def persistent_load(self, pid: Any) -> Storage:
        """The storage of a reference.

        Raises:
          _RefusedError: The reference is none to a storage of known dtype.
        """
        match pid:
            # The last element, in streams only, would be a part of another storage.
            case ("storage", StorageKind() as kind, str() as key, str(), int() as size, *rest) if (
                size >= 0 and rest in ([], [None])
            ):
                self.storages[key] = Storage(key, kind, size)
                return self.storages[key]
        raise _RefusedError(f"the reference {pid!r:.80}")


def _checked(storage: Any, offset: Any, shape: Any, strides: Any) -> StoredTensor:
    """The view, if it lies inside its storage."""
    numbers = [offset, *shape, *strides]
    if not isinstance(storage, Storage) or not all(type(n) is int and n >= 0 for n in numbers):
        raise _RefusedError("a tensor that is no view of a storage")
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    if 0 not in shape and last >= storage.size:
        raise _RefusedError(f"a tensor of shape {tuple(shape)} that reaches beyond its storage of {storage.size}")
    return StoredTensor(storage, offset, tuple(shape), tuple(strides))


_FUNCTIONS = {
    ("collections", "OrderedDict"): _Function(lambda *items: _Mapping(*items)),
    ("torch._utils", "_rebuild_tensor_v2"): _Function(
        lambda storage, offset, shape, strides, *_: _checked(storage, offset, shape, strides)
    ),
    ("torch._utils", "_rebuild_parameter"): _Function(lambda tensor, *_: tensor),
}


class TorchFile:
    """A file written by `torch.save`.

    Args:
      path: The file.

    Attributes:
      tensors: Name -> where the tensor lies.
      others: Names of entries that are no tensors.

    Raises:
      CheckpointError: It is damaged, or its pickle asks for anything but tensors.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        self._last: tuple[str, np.ndarray] | None = None
        try:
            state = self._open()
        except _RefusedError as error:
            raise CheckpointError(
                f"{self.path} asks for {error}, and this project makes nothing but plain tensors from a pickle; it was "
                "not run. Use the checkpoint's model.safetensors, or save its state dict again"
            ) from None
        except CheckpointError:
            raise
        except Exception as error:  # a damaged pickle can raise nearly anything
            raise self._damaged(error) from error
        if isinstance(state, dict):  # training scripts wrap the state dict
            state = next((state[name] for name in _WRAPPERS if isinstance(state.get(name), dict)), state)
        if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
            raise CheckpointError(f"{self.path} holds {type(state).__name__}, not tensors by name")
        self.tensors = {name: value for name, value in state.items() if isinstance(value, StoredTensor)}
        self.others = sorted(state.keys() - self.tensors.keys())

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape of every tensor."""
        return {name: tensor.shape for name, tensor in self.tensors.items()}

    def dtype_name(self, name: str) -> str:
        """NumPy's name of a tensor's dtype."""
        return self.tensors[name].storage.dtype.name

    def read(self, name: str) -> np.ndarray:
        """A tensor, contiguous, in its own dtype.

        Raises:
          CheckpointError: Its storage is missing or damaged.
        """
        tensor = self.tensors[name]
        flat = self._read_storage(tensor.storage)
        if not math.prod(tensor.shape):
            return np.zeros(tensor.shape, flat.dtype)
        strides = [stride * flat.itemsize for stride in tensor.strides]
        view = np.lib.stride_tricks.as_strided(flat[tensor.offset :], tensor.shape, strides, writeable=False)
        # A part is copied, so that it does not keep the rest of its storage in memory.
        return np.ascontiguousarray(view).reshape(tensor.shape) if view.size == flat.size else view.copy("C")

    def _read_storage(self, storage: Storage) -> np.ndarray:
        """The flat array. The last one is kept: tensors that share a storage follow each other."""
        if self._last is not None and self._last[0] == storage.key and self._last[1].dtype == storage.dtype:
            flat = self._last[1]
        else:
            try:
                flat = np.frombuffer(self._bytes_of(storage), storage.dtype)
            except Exception as error:  # zipfile's own errors have no common class
                raise self._damaged(error) from error
            self._last = storage.key, flat
        if flat.size != storage.size:
            raise self._damaged(ValueError(f"storage {storage.key} has two sizes"))
        return flat

    def _open(self) -> Any:
        """The content of the pickle, with tensors still in the file."""
        with self.path.open("rb") as file:
            start = file.read(len(_STREAM))
            if start == _STREAM:
                return self._open_stream(file)
        if start.startswith(b"version"):
            raise CheckpointError(f"{self.path} is a Git LFS pointer: run git lfs pull in its folder")
        if not zipfile.is_zipfile(self.path):
            raise CheckpointError(
                f"{self.path} is no ZIP archive: it is truncated or damaged (compare size and hash with the published "
                "ones), or torch.save did not write it (save it again as safetensors)"
            )
        return self._open_archive()

    def _open_archive(self) -> Any:
        self._archive = zipfile.ZipFile(self.path)
        pickles = [name for name in self._archive.namelist() if name == "data.pkl" or name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise CheckpointError(f"{self.path} holds no tensors: {len(pickles)} entries data.pkl where one should be")
        prefix = pickles[0].removesuffix("data.pkl")
        order = f"{prefix}byteorder"
        if order in self._archive.namelist() and self._archive.read(order) != b"little":
            raise self._big_endian()

        def bytes_of(storage: Storage) -> bytes:
            entry = self._archive.getinfo(f"{prefix}data/{storage.key}")
            if entry.file_size != storage.size * storage.dtype.itemsize:
                num_held = entry.file_size // storage.dtype.itemsize
                raise ValueError(f"{entry.filename} has {num_held} numbers, {storage.size} are promised")
            return self._archive.read(entry)

        self._bytes_of = bytes_of
        with self._archive.open(pickles[0]) as file:
            return _Unpickler(file).load()

    def _open_stream(self, file: BinaryIO) -> Any:
        """The same for a file before PyTorch 1.6, after its magic number."""
        version, system = _Unpickler(file).load(), _Unpickler(file).load()
        if version != 1001:
            raise ValueError(f"version {version!r}")
        if system["little_endian"] is not True:
            raise self._big_endian()
        unpickler = _Unpickler(file)
        state, starts = unpickler.load(), {}
        for key in _Unpickler(file).load():
            storage = unpickler.storages[key]
            num_held = int.from_bytes(file.read(8), "little")
            if num_held != storage.size:
                raise ValueError(f"storage {key} has {num_held} numbers, {storage.size} are promised")
            starts[key] = file.tell()
            file.seek(storage.size * storage.dtype.itemsize, os.SEEK_CUR)
        if file.tell() != self.path.stat().st_size:
            raise ValueError(f"{self.path.stat().st_size} bytes, should be {file.tell()}")

        def bytes_of(storage: Storage) -> bytes:
            with self.path.open("rb") as file:
                file.seek(starts[storage.key])
                return file.read(storage.size * storage.dtype.itemsize)

        self._bytes_of = bytes_of
        return state

    def _big_endian(self) -> CheckpointError:
        return CheckpointError(f"{self.path} was written on a big-endian machine: save it again as safetensors")

    def _damaged(self, error: Exception) -> CheckpointError:
        return CheckpointError(
            f"{self.path} is damaged ({type(error).__name__}: {error}): compare its size and hash with the published "
            "ones, and download it again"
        )

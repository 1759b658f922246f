"""Reads `pytorch_model.bin` without PyTorch, and without running the code that a pickle can contain.

The format is a ZIP archive with a pickle that says how tensors lie in storages, and one entry for each storage. Before
PyTorch 1.6 it was a stream: some pickles, then the storages in the order of a list of their keys.
"""

import io
import math
import os
import reprlib
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np

from seremo_jax.backbones import torch_pickles
from seremo_jax.backbones.hub import CheckpointError
from seremo_jax.backbones.torch_pickles import Storage, StoredTensor

_STREAM = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""How files before PyTorch 1.6 begin: a magic number, pickled."""
_WRAPPERS = ("state_dict", "model")


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
        except torch_pickles.RefusedError as error:
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
        if self._archive.getinfo(pickles[0]).file_size > torch_pickles.MOST_BYTES:
            raise torch_pickles.RefusedError(f"more than {torch_pickles.MOST_BYTES} bytes of a pickle")
        return torch_pickles.load(io.BytesIO(self._archive.read(pickles[0])))[0]

    def _open_stream(self, file: IO[bytes]) -> Any:
        """The same for a file before PyTorch 1.6, after its magic number."""
        (version, _), (system, _) = torch_pickles.load(file), torch_pickles.load(file)
        if not isinstance(version, int) or version != 1001:
            raise ValueError(f"version {reprlib.repr(version)}")
        if system["little_endian"] is not True:
            raise self._big_endian()
        state, storages = torch_pickles.load(file)
        (keys, _), starts = torch_pickles.load(file), {}
        if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
            raise ValueError("its storages are not listed")
        for key in keys:
            storage = storages[key]
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

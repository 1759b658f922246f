"""The reader of safetensors against the library that writes them, and headers that are not what they should be."""

import json
import struct

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from seremo_jax.backbones.hub import CheckpointError
from seremo_jax.backbones.safetensors_files import SafetensorsFile


def written(path, header, num_bytes):
    """A file of a header and some bytes behind it."""
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(num_bytes))
    return path


def entry(begin, end, shape=(2,), dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


def test_what_the_library_writes_is_read_bit_for_bit(tmp_path):
    rng = np.random.default_rng(0)
    kinds = (np.float64, np.float32, np.float16, ml_dtypes.bfloat16)
    tensors = {np.dtype(kind).name: rng.standard_normal((3, 2)).astype(kind) for kind in kinds}
    tensors |= {"scalar": np.array(1.5, np.float32), "empty": np.zeros((0, 3), np.float32), "é": np.ones(5, np.float32)}
    others = {name: np.zeros(2, name) for name in ("bool", "int8", "uint8", "int16", "int32", "int64", "uint64")}
    safetensors.numpy.save_file(tensors | others, tmp_path / "x.safetensors", {"format": "pt"})
    file = SafetensorsFile(tmp_path / "x.safetensors")
    assert file.shapes() == {name: array.shape for name, array in (tensors | others).items()}
    for name, array in tensors.items():
        assert file.dtype_name(name) == array.dtype.name
        assert file.read(name).dtype == array.dtype
        assert file.read(name).tobytes() == array.tobytes()
    assert {file.dtype_name(name) for name in others} == set(others)


def test_dtypes_that_are_none_of_weights_are_named(tmp_path):
    header = {"a": entry(0, 2, dtype="F8_E4M3"), "b": entry(2, 10)}
    file = SafetensorsFile(written(tmp_path / "x.safetensors", header, 10))
    assert (file.dtype_name("a"), file.read("b").tolist()) == ("f8_e4m3", [0, 0])


@pytest.mark.parametrize(
    ("header", "num_bytes"),
    [
        ([], 0),
        ({"a": 3}, 0),
        ({"a": {}}, 0),
        ({"a": entry(0, 8) | {"shape": [-2]}}, 8),
        ({"a": entry(0, 8) | {"shape": [True, 2]}}, 8),
        ({"a": entry(0, 8) | {"shape": [2.0]}}, 8),
        ({"a": entry(0, 8) | {"shape": [1] * 100 + [2]}}, 8),
        ({"a": entry(0, 8) | {"data_offsets": [0, 8, 9]}}, 8),
        ({"a": entry(0, 8) | {"dtype": None}}, 8),
        ({"a": entry(0, 8)}, 7),
        ({"a": entry(0, 8)}, 9),
        ({"a": entry(0, 12)}, 12),
        ({"a": entry(0, 8, shape=(1 << 61, 1 << 61))}, 8),
        ({"a": entry(1, 9)}, 9),
        ({"a": entry(0, 8), "b": entry(4, 12)}, 12),
        ({"a": entry(0, 8), "b": entry(0, 8)}, 8),
        ({"a": entry(0, 8), "b": entry(12, 20)}, 20),
        (b"{", 0),
        (b"\xff\xfe", 0),
        (b"[" * 100_000, 0),
        (b'{"a": ' + b"9" * 5_000 + b"}", 0),
    ],
)
def test_a_header_that_does_not_describe_the_file_is_refused(header, num_bytes, tmp_path):
    with pytest.raises(CheckpointError, match=r"x\.safetensors is damaged \(.*download it again"):
        SafetensorsFile(written(tmp_path / "x.safetensors", header, num_bytes))


@pytest.mark.parametrize("num_bytes", [0, 7, 8, 20, 60])
def test_a_file_cut_off_is_refused(num_bytes, tmp_path):
    path = written(tmp_path / "x.safetensors", {"a": entry(0, 8)}, 8)
    path.write_bytes(path.read_bytes()[:num_bytes])
    with pytest.raises(CheckpointError, match=r"x\.safetensors is damaged"):
        SafetensorsFile(path)


def test_a_file_cut_off_while_it_is_read_is_noticed(tmp_path):
    path = written(tmp_path / "x.safetensors", {"a": entry(0, 8)}, 8)
    file = SafetensorsFile(path)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(CheckpointError, match=r"x\.safetensors is damaged \(it ends inside a\)"):
        file.read("a")


def test_a_header_longer_than_any_takes_no_memory(tmp_path):
    (tmp_path / "x.safetensors").write_bytes(struct.pack("<Q", 1 << 62) + b"{}")
    with pytest.raises(CheckpointError, match=r"x\.safetensors is damaged \(it has no header\)"):
        SafetensorsFile(tmp_path / "x.safetensors")

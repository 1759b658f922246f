"""Files of `torch.save` read without PyTorch: every kind of tensor bit for bit, and whatever a pickle may try."""

import collections
import contextlib
import io
import itertools
import os
import pickle
import shutil
import struct
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from seremo_jax.backbones.hub import CheckpointError
from seremo_jax.backbones.torch_files import TorchFile

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "torch"
REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"


def archive_of(path, pickled, storages=(), prefix="archive/", compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr(f"{prefix}data.pkl", pickled)
        for key, content in storages:
            archive.writestr(f"{prefix}data/{key}", content)
    return path


def number(n):
    return b"J" + struct.pack("<i", n)


def text(words):
    return b"X" + struct.pack("<I", len(words)) + words.encode()


def storage(size, key="0", kind=b"ctorch\nFloatStorage\n"):
    return b"(" + text("storage") + kind + text(key) + text("cpu") + number(size) + b"tQ"


def tensor(size, offset, shape, strides, **names):
    numbers = [b"(" + b"".join(map(number, values)) + b"t" for values in (shape, strides)]
    return REBUILD + b"(" + storage(size, **names) + number(offset) + b"".join(numbers) + b"\x89}tR"


def state_of(**values):
    """Pickle of a dict of pickled values."""
    return b"\x80\x02}" + b"".join(text(name) + value + b"s" for name, value in values.items()) + b"."


def parts_of(path):
    """The pickle and the storages of an archive."""
    with zipfile.ZipFile(path) as archive:
        names = {name.partition("/")[2]: name for name in archive.namelist()}
        keys = sorted(name.removeprefix("data/") for name in names if name.startswith("data/"))
        return archive.read(names["data.pkl"]), {key: archive.read(names[f"data/{key}"]) for key in keys}


def stream_of(path, pickled, storages, itemsizes, system=None):
    """A file as PyTorch before 1.6 wrote it."""
    system = {"protocol_version": 1001, "little_endian": True} if system is None else system
    parts = [0x1950A86A20F9469CFC6C, 1001, system]
    content = b"".join(pickle.dumps(part, protocol=2) for part in parts) + pickled
    content += pickle.dumps(list(storages), protocol=2)
    for key, held in storages.items():
        content += struct.pack("<q", len(held) // itemsizes[key]) + held
    path.write_bytes(content)
    return path


def bits(array):
    return array.dtype.name, array.shape, np.ascontiguousarray(array).tobytes()


def itemsizes_of(file):
    return {t.storage.key: t.storage.dtype.itemsize for t in file.tensors.values()}


# ---- what is read


def torch_state():
    """Every dtype and every kind of view, with NaN and infinities among the numbers."""
    import torch

    torch.manual_seed(0)
    base = torch.randn(5, 7)
    base[0, 0], base[1, 1], base[2, 2] = float("nan"), float("inf"), -0.0
    floats = {str(kind)[6:]: base.to(kind) for kind in (torch.float16, torch.bfloat16, torch.float64)}
    kinds = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)
    whole = {str(kind)[6:]: torch.arange(-3, 4).to(kind) for kind in kinds}
    return collections.OrderedDict(
        base=base, transposed=base.T, sliced=base[1:4, ::2], row=base[2], expanded=base[:1].expand(4, 7),
        column=base[:, 3], flipped=base.flip(0), three=torch.randn(2, 3, 4).permute(2, 0, 1), scalar=torch.tensor(3.5),
        empty=torch.zeros(0, 3), parameter=torch.nn.Parameter(base), frozen=torch.nn.Parameter(base, False),
        diagonal=base.diagonal(), overlapping=base.flatten().unfold(0, 4, 2), **floats, **whole,
    )  # fmt: skip


@pytest.mark.parametrize("is_archive", [True, False])
def test_torch_reads_the_same_bits(is_archive, tmp_path):
    torch = pytest.importorskip("torch", reason="needs PyTorch")
    path = tmp_path / "x.bin"
    torch.save(torch_state(), path, _use_new_zipfile_serialization=is_archive)
    theirs, file = torch.load(path, weights_only=True), TorchFile(path)
    assert list(file.tensors) == list(theirs)
    assert file.others == []
    for name, value in theirs.items():
        value = value.detach().contiguous()
        as_bytes = value.reshape(-1).view(torch.uint8).numpy().tobytes()
        assert bits(file.read(name)) == (str(value.dtype)[6:], tuple(value.shape), as_bytes), name
        assert file.dtype_name(name) == str(value.dtype)[6:]


def test_a_module_saves_what_is_read(tmp_path):
    """A state dict with the attributes PyTorch hangs on it, of a module with a weight-normed convolution."""
    torch = pytest.importorskip("torch", reason="needs PyTorch")
    module = torch.nn.Sequential(
        torch.nn.utils.parametrizations.weight_norm(torch.nn.Conv1d(4, 4, 3, groups=2), dim=2), torch.nn.BatchNorm1d(4)
    )
    torch.save(module.state_dict(), tmp_path / "x.bin")
    file = TorchFile(tmp_path / "x.bin")
    assert file.shapes() == {name: tuple(value.shape) for name, value in module.state_dict().items()}


@pytest.mark.parametrize("prefix", ["", "pytorch_model/", "a/b/"])
@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_archives_of_any_folder_name_and_compression_read_the_same(prefix, compression, tmp_path):
    pickled, storages = parts_of(GOLDEN / "tensors.bin")
    path = archive_of(tmp_path / "x.bin", pickled, storages.items(), prefix, compression)
    golden, copy = TorchFile(GOLDEN / "tensors.bin"), TorchFile(path)
    assert golden.tensors
    assert all(bits(golden.read(name)) == bits(copy.read(name)) for name in golden.tensors)


def test_a_stream_of_old_reads_as_the_archive(tmp_path):
    golden = TorchFile(GOLDEN / "tensors.bin")
    pickled, storages = parts_of(GOLDEN / "tensors.bin")
    sizes = itemsizes_of(golden)
    stream = TorchFile(stream_of(tmp_path / "x.bin", pickled, storages, sizes))
    assert golden.tensors.keys() == stream.tensors.keys()
    assert all(bits(golden.read(name)) == bits(stream.read(name)) for name in reversed(golden.tensors))
    whole = (tmp_path / "x.bin").read_bytes()
    for end in (len(whole) - 1, len(whole) - 200, len(pickled), 40, 16):
        (tmp_path / "x.bin").write_bytes(whole[:end])
        with pytest.raises(CheckpointError, match=r"x\.bin is damaged"):
            TorchFile(tmp_path / "x.bin")
    (tmp_path / "x.bin").write_bytes(whole + b"\0")
    with pytest.raises(CheckpointError, match=r"x\.bin is damaged"):
        TorchFile(tmp_path / "x.bin")


def test_a_stream_that_miscounts_a_storage_is_refused(tmp_path):
    pickled, storages = parts_of(GOLDEN / "tensors.bin")
    sizes = itemsizes_of(TorchFile(GOLDEN / "tensors.bin"))
    key = max(storages, key=lambda key: len(storages[key]))
    with pytest.raises(CheckpointError, match=rf"x\.bin is damaged .*storage {key} has \d+ numbers, \d+ are promised"):
        TorchFile(stream_of(tmp_path / "x.bin", pickled, storages, sizes | {key: 1}))


def test_another_byte_order_is_refused(tmp_path):
    pickled, storages = parts_of(GOLDEN / "tensors.bin")
    path = archive_of(tmp_path / "x.bin", pickled, storages.items())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("archive/byteorder", "big")
    with pytest.raises(CheckpointError, match="big-endian"):
        TorchFile(path)
    sizes = itemsizes_of(TorchFile(GOLDEN / "tensors.bin"))
    with pytest.raises(CheckpointError, match="big-endian"):
        TorchFile(stream_of(path, pickled, storages, sizes, {"little_endian": False}))


@pytest.mark.parametrize("wrapper", ["model", "state_dict"])
def test_a_wrapped_state_dict_is_unwrapped_wherever_it_stands(wrapper, tmp_path):
    inner = b"}" + text("w") + tensor(2, 0, (2,), (1,)) + b"s"
    pickled = state_of(**{"epoch": number(3), wrapper: inner, "args": b"}"})
    file = TorchFile(archive_of(tmp_path / "x.bin", pickled, [("0", bytes(8))]))
    assert file.shapes() == {"w": (2,)}


def test_a_storage_that_many_share_is_read_once(tmp_path, monkeypatch):
    numbers = np.arange(40, dtype="<f4")
    values = {f"w{i}": tensor(40, 10 * i, (10,), (1,)) for i in range(4)}
    file = TorchFile(archive_of(tmp_path / "x.bin", state_of(**values), [("0", numbers.tobytes())]))
    count, real = itertools.count(), zipfile.ZipFile.read
    monkeypatch.setattr(zipfile.ZipFile, "read", lambda *args, **kwargs: (next(count), real(*args, **kwargs))[1])
    parts = [file.read(f"w{i}") for i in range(4)]
    assert next(count) == 1
    np.testing.assert_array_equal(np.concatenate(parts), numbers)
    assert not any(np.shares_memory(a, b) or a.base is not None for a, b in itertools.pairwise(parts))


# ---- what is damaged


def test_a_pointer_and_what_is_no_file_of_torch_are_named(tmp_path):
    path = tmp_path / "pytorch_model.bin"
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin is a Git LFS pointer: run git lfs pull"):
        TorchFile(path)
    for content in (b"", b"<html>", (GOLDEN / "tensors.bin").read_bytes()[:-30]):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"pytorch_model\.bin is no ZIP archive"):
            TorchFile(path)


@pytest.mark.parametrize("num_bytes", [0, 15, 17, 1 << 24])
def test_a_storage_of_another_size_is_refused_before_it_is_unpacked(num_bytes, tmp_path, monkeypatch):
    content = [("0", bytes(num_bytes))]
    pickled = state_of(w=tensor(4, 0, (4,), (1,)))
    file = TorchFile(archive_of(tmp_path / "x.bin", pickled, content, compression=zipfile.ZIP_DEFLATED))
    monkeypatch.setattr(zipfile.ZipFile, "read", None)
    with pytest.raises(CheckpointError, match=r"x\.bin is damaged .*, 4 are promised"):
        file.read("w")


def test_a_flipped_bit_is_noticed(tmp_path):
    numbers = np.full(4, 1.5, "<f4").tobytes()
    path = archive_of(tmp_path / "x.bin", state_of(w=tensor(4, 0, (4,), (1,))), [("0", numbers)])
    content = path.read_bytes()
    assert content.count(numbers) == 1
    path.write_bytes(content.replace(numbers, numbers[:-1] + b"\x3e"))
    with pytest.raises(CheckpointError, match=r"x\.bin is damaged"):
        TorchFile(path).read("w")


def test_one_storage_of_two_sizes_is_refused(tmp_path):
    values = {"a": tensor(4, 0, (4,), (1,)), "b": tensor(400, 0, (400,), (1,))}
    file = TorchFile(archive_of(tmp_path / "x.bin", state_of(**values), [("0", bytes(16))]))
    assert file.read("a").tolist() == [0.0] * 4
    with pytest.raises(CheckpointError, match=r"x\.bin is damaged"):
        file.read("b")


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [
        *[(0, (5,), (1,)), (3, (2,), (1,)), (0, (2, 2), (3, 1)), (-1, (2,), (1,)), (0, (2,), (-1,)), (0, (-2,), (1,))],
        *[(4, (), ()), (0, (2, 2), (2,)), (2**31 - 1, (1,), (1,)), (0, (2,), (2**31 - 1,))],
    ],
)
def test_a_view_beyond_its_storage_is_refused(offset, shape, strides, tmp_path):
    """Reading past the end, or before the start, of memory."""
    pickled = state_of(w=tensor(4, offset, shape, strides))
    path = archive_of(tmp_path / "x.bin", pickled, [("0", bytes(16))])
    with pytest.raises(CheckpointError, match=r"asks for a tensor|is damaged"):
        TorchFile(path)


@pytest.mark.parametrize("shape", [(65_536, 65_536), (1 << 30,), (1 << 30,) * 32])
def test_a_tensor_that_repeats_its_storage_without_end_is_refused(shape, tmp_path):
    path = archive_of(tmp_path / "x.bin", state_of(w=tensor(4, 0, shape, (0,) * len(shape))), [("0", bytes(16))])
    with pytest.raises(CheckpointError, match=r"x\.bin asks for a tensor that makes \d+ numbers of a storage of 4"):
        TorchFile(path)


# ---- what is planted


class _Runs:
    """Pickles to a call of anything."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def in_a_tensor(planted):
    """The call as an argument of a tensor, a reference to a storage, and what a dict is built with."""
    inner = pickle.dumps(planted, protocol=2)[2:-1]
    return {
        "offset": state_of(w=REBUILD + b"(" + storage(4) + inner + b")))}tR"),
        "storage": state_of(w=REBUILD + b"(" + inner + number(0) + b"))\x89}tR"),
        "kind": state_of(w=storage(4, kind=inner)),
        "parameter": state_of(w=b"ctorch._utils\n_rebuild_parameter\n(" + inner + b"\x89}tR"),
        "mapping": state_of(w=b"ccollections\nOrderedDict\n(" + inner + b"tR"),
        "state": state_of(w=b"ccollections\nOrderedDict\n)R" + inner + b"b"),
    }


@pytest.mark.parametrize("place", ["offset", "storage", "kind", "parameter", "mapping", "state"])
@pytest.mark.parametrize("is_archive", [True, False])
def test_a_call_inside_a_tensor_is_refused_and_never_runs(place, is_archive, tmp_path):
    trap = tmp_path / "trap"
    pickled = in_a_tensor(_Runs(os.mkdir, str(trap)))[place]
    path = tmp_path / "pytorch_model.bin"
    archive_of(path, pickled) if is_archive else stream_of(path, pickled, {}, {})
    with pytest.raises(CheckpointError, match=rf"pytorch_model\.bin asks for {os.name}\.mkdir, .*it was not run"):
        TorchFile(path)
    assert not trap.exists()


@pytest.mark.parametrize("position", range(5))
def test_every_pickle_of_a_stream_is_read_with_the_same_care(position, tmp_path):
    trap = tmp_path / "trap"
    parts = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}, {}, []]
    parts[position] = _Runs(os.mkdir, str(trap))
    path = tmp_path / "pytorch_model.bin"
    path.write_bytes(b"".join(pickle.dumps(part, protocol=2) for part in parts))
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin"):
        TorchFile(path)
    assert not trap.exists()


@pytest.mark.parametrize("protocol", range(6))
def test_every_protocol_is_refused_the_same_call(protocol, tmp_path):
    trap = tmp_path / "trap"
    path = archive_of(tmp_path / "x.bin", pickle.dumps({"w": _Runs(os.mkdir, str(trap))}, protocol=protocol))
    with pytest.raises(CheckpointError, match=rf"x\.bin asks for {os.name}\.mkdir"):
        TorchFile(path)
    assert not trap.exists()


@pytest.mark.parametrize(
    "opcodes",
    [
        b"(X\x01\0\0\0aios\nsystem\n",  # INST
        b"(cos\nsystem\nX\x01\0\0\0ao",  # OBJ
        b"cos\nsystem\nX\x01\0\0\0a\x85\x81",  # NEWOBJ
        b"\x8c\x02os\x8c\x06system\x93",  # STACK_GLOBAL
        b"ctorch._utils\n_import_dotted_name\nX\x09\0\0\0os.system\x85R",
        b"ctorch.serialization\nload\nX\x01\0\0\0a\x85R",
        b"ctorch._utils\n_rebuild_tensor_v2.__globals__\n",
        b"ccollections\nOrderedDict.__class__\n",
        b"cseremo_jax.backbones.torch_files\nos.system\n",
        b"cnumpy\nload\n",
        b"cbuiltins\ngetattr\n",
        b"c__builtin__\neval\n",
    ],
)
def test_every_way_to_a_name_is_refused_by_name(opcodes, tmp_path):
    path = archive_of(tmp_path / "x.bin", b"\x80\x04}X\x01\0\0\0w" + opcodes + b"s.")
    with pytest.raises(CheckpointError, match=r"x\.bin asks for [\w.]+, and this project makes nothing but"):
        TorchFile(path)


def test_names_are_refused_before_they_are_imported(tmp_path, monkeypatch):
    (tmp_path / "planted_module.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    path = archive_of(tmp_path / "x.bin", b"\x80\x02cplanted_module\nthing\n.")
    with pytest.raises(CheckpointError, match=r"x\.bin asks for planted_module\.thing"):
        TorchFile(path)


REWRITE = pickle.dumps((3, "<", None, ("a",), {"a": (1, 0)}, 64, 1, 0), protocol=2)[2:-1]
"""State that makes of a dtype another: 64 bytes an element."""


@pytest.mark.parametrize(
    ("given", "state"),
    [
        (b"ctorch\nBFloat16Storage\n", REWRITE),
        (b"ctorch\nBFloat16Storage\n", pickle.dumps((3, ">", None, None, None, -1, -1, 0), protocol=2)[2:-1]),
        (b"ctorch\nFloatStorage\n", b"}X\x04\0\0\0nameX\x01\0\0\0as"),
        (REBUILD, b"N}X\x0c\0\0\0__defaults__)s\x86"),
        (REBUILD, b"}X\x09\0\0\0_functionNs"),
        (REBUILD, b"N}X\x09\0\0\0_functionNs\x86"),
        (b"ctorch._utils\n_rebuild_parameter\n", b"N}X\x0a\0\0\0__kwdefaults__}s\x86"),
        (b"ccollections\nOrderedDict\n", b"}X\x05\0\0\0itemsNs"),
        (storage(4), b"N}X\x04\0\0\0sizeK\x63s\x86"),
        (tensor(4, 0, (4,), (1,)), b"N}X\x06\0\0\0offsetK\x63s\x86"),
    ],
    ids=itertools.count(),
)
def test_nothing_a_pickle_is_given_can_be_changed(given, state, tmp_path):
    """A pickle may load state into an object: into a dtype, that would rewrite it for the whole process."""
    before = {name: bits(TorchFile(GOLDEN / "tensors.bin").read(name)) for name in ("bfloat16", "transposed")}
    pickled = state_of(w=given + state + b"b", x=tensor(4, 0, (4,), (1,)))
    with pytest.raises(CheckpointError, match=r"asks for a change of an object|is damaged"):
        TorchFile(archive_of(tmp_path / "x.bin", pickled, [("0", bytes(16))]))
    assert np.dtype(ml_dtypes.bfloat16).itemsize == 2
    assert np.dtype(ml_dtypes.bfloat16).fields is None
    assert {name: bits(TorchFile(GOLDEN / "tensors.bin").read(name)) for name in before} == before


def test_attributes_of_a_mapping_are_forgotten(tmp_path):
    """PyTorch hangs `_metadata` on a state dict; an attribute named as a method must not take its place."""
    mapping = b"ccollections\nOrderedDict\n)R" + text("w") + tensor(4, 0, (4,), (1,)) + b"s"
    for state in (b"}" + text("items") + b"Ns", b"N}" + text("items") + b"Ns\x86", b"}" + text("_metadata") + b"}s"):
        path = archive_of(tmp_path / "x.bin", b"\x80\x02" + mapping + state + b"b.", [("0", bytes(16))])
        assert TorchFile(path).shapes() == {"w": (4,)}


@pytest.mark.parametrize(
    "pid",
    [
        number(3),
        text("storage"),
        b"(" + text("storage") + text("torch.FloatStorage") + text("0") + text("cpu") + number(4) + b"t",
        b"(" + text("module") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + number(4) + b"t",
        b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + number(-1) + b"t",
        b"(" + text("storage") + b"ctorch\nFloatStorage\n" + number(0) + text("cpu") + number(4) + b"t",
        b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + number(4) + b"(K\x01tt",
    ],
)
def test_references_to_anything_but_storages_are_refused(pid, tmp_path):
    path = archive_of(tmp_path / "x.bin", b"\x80\x02}" + text("w") + pid + b"Qs.")
    with pytest.raises(CheckpointError, match=r"x\.bin asks for the reference"):
        TorchFile(path)


def test_a_key_cannot_lead_out_of_the_archive(tmp_path):
    (tmp_path / "secret").write_bytes(bytes(16))
    path = archive_of(tmp_path / "x.bin", state_of(w=tensor(4, 0, (4,), (1,), key="../../secret")))
    with pytest.raises(CheckpointError, match=r"x\.bin is damaged .*secret"):
        TorchFile(path).read("w")


def test_a_pickle_with_python_s_own_unpickler_would_have_run(tmp_path):
    """The plants are live ones: what is refused above would run elsewhere."""
    trap = tmp_path / "trap"
    pickled = in_a_tensor(_Runs(os.mkdir, str(trap)))["state"]
    pickle.load(io.BytesIO(pickled))
    assert trap.exists()
    shutil.rmtree(trap)


# ---- what would take for ever


NESTED = b")" + b"2\x86" * 64
"""A tuple of two of the tuple before, 64 times: 2**64 values when hashed, compared or written out."""
ONE = number(1)


@pytest.mark.parametrize(
    "opcodes",
    [
        text("w") + NESTED + b"Q",  # a reference
        NESTED + b"Ns" + text("w") + b"N",  # a key
        text("w") + b"}(" + NESTED + b"Nu",
        text("w") + b"(" + NESTED + b"Nd",
        text("w") + b"ccollections\nOrderedDict\n](" + NESTED + b"N\x86e\x85R",
        text("w") + REBUILD + b"(" + storage(4) + number(0) + NESTED + b")\x89}tR",  # a shape
        text("w") + REBUILD + b"(" + storage(4) + NESTED + b"))\x89}tR",
        text("w") + b"ccollections\nOrderedDict\n)R" + NESTED + b"b",  # a state, which is forgotten
        text("w") + NESTED + b"N\x93",  # a name
        text("w") + b"(" + ONE * 1_000 + b"tr\xff\xff\xff\x7f",  # a place in the memo that is no place in memory
        text("w") + b"](" + ONE + b"\x85" + b"2" * 10 + b"e",
        text("w") + b"N" + b"\x85" * 5_000,
        text("w") + REBUILD + b"(" + ONE * 40 + b"tR",
        text("w")
        + b"](" + (text("a") + b"N\x86") * 50 + b"eq\x000"
        + b"((" + b"ccollections\nOrderedDict\nh\x00\x85R" * 50 + b"tt",  # one list copied many times
        text("w") + b"\x8e" + struct.pack("<Q", 1 << 62),  # more bytes than there are
    ],
    ids=itertools.count(),
)  # fmt: skip
@pytest.mark.parametrize("is_archive", [True, False])
def test_every_opcode_costs_what_it_is_long(opcodes, is_archive, tmp_path):
    """Python's unpickler takes minutes for 26 nested tuples, and longer than there is time for 64."""
    pickled, path = b"\x80\x02}" + opcodes + b"s.", tmp_path / "x.bin"
    archive_of(path, pickled) if is_archive else stream_of(path, pickled, {}, {})
    with contextlib.suppress(CheckpointError):
        assert TorchFile(path).shapes() == {}


def test_a_pickle_longer_than_any_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    path = archive_of(tmp_path / "x.bin", b"N0" * (1 << 24) + b".", compression=zipfile.ZIP_DEFLATED)
    monkeypatch.setattr(zipfile.ZipFile, "read", None)
    with pytest.raises(CheckpointError, match=r"x\.bin asks for more than \d+ bytes of a pickle"):
        TorchFile(path)


def test_what_stands_beside_tensors_is_read_as_what_it_is(tmp_path):
    """A training script's file: numbers, texts, lists, sets and mappings by number."""
    beside = {"epoch": 3, "loss": [0.5, None, True], "groups": {0: {"lr": 1.0}}}
    for protocol in range(6):
        sets = {"seen": {1, 2}, "frozen": frozenset("ab")} if protocol >= 4 else {}  # a call of `set` before
        file = TorchFile(archive_of(tmp_path / "x.bin", pickle.dumps(beside | sets, protocol=protocol)))
        assert file.others == sorted([*beside, *sets])
        assert file.shapes() == {}

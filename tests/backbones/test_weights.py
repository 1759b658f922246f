"""Published checkpoints read without PyTorch: formats, key maps, damage, and pickles that want to run something."""

import collections
import contextlib
import json
import os
import pickle
import shutil
import struct
import weakref
import zipfile

import jax
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from seremo_jax import backbones
from seremo_jax.backbones import hub, weights
from seremo_jax.backbones.safetensors_files import SafetensorsFile
from seremo_jax.backbones.torch_files import TorchFile
from seremo_jax.backbones.weights import CheckpointError, open_checkpoint, read_tensors
from tests.support.small_models import GOLDEN

pytestmark = pytest.mark.stack

WAVLM, WHISPER, TORCH = GOLDEN / "wavlm-large", GOLDEN.parent / "whisper", GOLDEN.parent / "torch"


@pytest.fixture
def folder(tmp_path):
    """A checkpoint to damage."""
    return shutil.copytree(WAVLM, tmp_path / "wavlm")


def test_the_real_folders_open_as_they_are(shared):
    checkpoint = open_checkpoint(str(shared / "weights" / "whisper-base-encoder"))
    assert checkpoint.name == "whisper-base-encoder"
    assert checkpoint.config.model_type == "whisper"
    assert checkpoint.preprocessor.sampling_rate == 16_000
    assert checkpoint.commit is None
    shapes = checkpoint.shapes()
    assert shapes["encoder.conv1.weight"] == (512, 80, 3)
    assert sum(int(np.prod(shape)) for shape in shapes.values()) == 20_590_592


def test_the_revision_follows_the_content_and_not_the_place(folder):
    revision = open_checkpoint(str(folder)).revision
    assert revision == open_checkpoint(str(WAVLM)).revision
    settings = json.loads((folder / "preprocessor_config.json").read_text()) | {"do_normalize": False}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    assert open_checkpoint(str(folder)).revision != revision


def test_shards_give_what_the_whole_file_gives(folder):
    whole = safetensors.numpy.load_file(folder / "model.safetensors")
    names = sorted(whole)
    parts = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, held in parts.items():
        safetensors.numpy.save_file({name: whole[name] for name in held}, folder / file)
    index = {"weight_map": {name: file for file, held in parts.items() for name in held}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model.safetensors").unlink()
    checkpoint = open_checkpoint(str(folder))
    tensors = read_tensors(checkpoint, {name: array.shape for name, array in whole.items()}, lambda name: name)
    assert all((tensors[name] == whole[name]).all() for name in names)
    safetensors.numpy.save_file({names[1]: whole[names[1]]}, folder / "model-00002-of-00002.safetensors")
    with pytest.raises(CheckpointError, match=r"model-00002-of-00002\.safetensors lacks \d+ tensors that model\.safe"):
        open_checkpoint(str(folder)).shapes()
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"names model-00002-of-00002\.safetensors, not in"):
        open_checkpoint(str(folder)).shapes()


def test_half_precision_keeps_its_values(folder):
    whole = safetensors.numpy.load_file(folder / "model.safetensors")
    for kind in (np.float16, ml_dtypes.bfloat16):
        safetensors.numpy.save_file({n: a.astype(kind) for n, a in whole.items()}, folder / "model.safetensors")
        tensors = read_tensors(open_checkpoint(str(folder)), {n: a.shape for n, a in whole.items()}, lambda name: name)
        assert all(a.dtype == kind and (a == whole[n].astype(kind)).all() for n, a in tensors.items())


def test_everything_wrong_with_the_keys_is_said_at_once(folder):
    tensors = safetensors.numpy.load_file(folder / "model.safetensors")
    del tensors["encoder.layers.1.final_layer_norm.bias"]
    tensors["encoder.layers.0.attention.q_proj.weight"] = np.zeros((3, 4), np.float32)
    tensors["encoder.layers.0.attention.x_proj.weight"] = np.zeros(3, np.float32)
    tensors["wavlm.feature_projection.projection.bias"] = tensors["feature_projection.projection.bias"]
    tensors["lm_head.weight"] = np.zeros(3, np.float32)
    safetensors.numpy.save_file(tensors, folder / "model.safetensors")
    with pytest.raises(CheckpointError) as caught:
        backbones.load(folder)
    message = str(caught.value)
    assert "1 missing: encoder.layers.1.final_layer_norm.bias" in message
    assert "1 unexpected: encoder.layers.0.attention.x_proj.weight" in message
    assert "1 of another shape: encoder.layers.0.attention.q_proj.weight (3, 4), should be (24, 24)" in message
    assert "1 given twice: wavlm.feature_projection.projection.bias" in message
    assert "lm_head" not in message


def test_whole_numbers_are_no_weights(folder):
    tensors = safetensors.numpy.load_file(folder / "model.safetensors")
    tensors["encoder.layer_norm.bias"] = np.zeros(24, np.int32)
    safetensors.numpy.save_file(tensors, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"no floating-point numbers: encoder\.layer_norm\.bias \(int32\)"):
        backbones.load(folder, final_norm=True)


def test_damaged_and_missing_files_are_named(folder):
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged.*download it again"):
        backbones.load(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"has no weights: place model\.safetensors or pytorch_model\.bin"):
        backbones.load(folder)
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin is damaged"):
        backbones.load(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"config\.json cannot be read"):
        backbones.load(folder)
    (folder / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"config\.json is missing"):
        backbones.load(folder)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model_type": "mamba-ser"}, "model_type 'mamba-ser' is not known here; known: .*wavlm.*whisper"),
        ({"hidden_act": "mish"}, "hidden_act = 'mish', should be one of gelu, "),
        ({"num_attention_heads": 5}, "hidden_size = 24 is no multiple of num_attention_heads"),
        ({"conv_dim": [8, 10]}, "conv_dim, conv_kernel and conv_stride differ in length"),
    ],
)
def test_configs_that_are_not_known_are_refused(folder, settings, message):
    changed = json.loads((folder / "config.json").read_text()) | settings
    (folder / "config.json").write_text(json.dumps(changed))
    with pytest.raises(CheckpointError, match=message):
        backbones.load(folder)


def test_another_sampling_rate_is_refused_by_the_experiment(folder):
    from seremo_jax.core.config import Config, ConfigError, from_config_dict
    from seremo_jax.features.forward import load_backbone

    settings = json.loads((folder / "preprocessor_config.json").read_text()) | {"sampling_rate": 8_000}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    config = from_config_dict({"backbone": {"name": str(folder)}})
    assert isinstance(config, Config)
    with pytest.raises(ConfigError, match="hears 8000 Hz, audio is decoded to 16000 Hz"):
        load_backbone(config)


@pytest.mark.parametrize("prefix", ["", "wavlm.", "module.wavlm.", "model.module.speech-encoder.", "encoder."])
def test_whatever_stands_before_all_names_is_taken_off(prefix, folder):
    tensors = safetensors.numpy.load_file(folder / "model.safetensors")
    named = {prefix + name: array for name, array in tensors.items()} | {"module.head.weight": np.zeros(3, np.float32)}
    safetensors.numpy.save_file(named, folder / "model.safetensors")
    ours, published = backbones.load(folder, final_norm=True), backbones.load(WAVLM, final_norm=True)
    assert all(map(np.array_equal, jax.tree.leaves(ours), jax.tree.leaves(published)))


def test_a_whole_model_of_whisper_in_a_wrapper_is_found(tmp_path):
    folder = shutil.copytree(WHISPER, tmp_path / "whisper")
    tensors = safetensors.numpy.load_file(folder / "model.safetensors")
    named = {f"module.model.{name.removeprefix('model.')}": array for name, array in tensors.items()}
    safetensors.numpy.save_file(named, folder / "model.safetensors")
    leaves = [jax.tree.leaves(backbones.load(path)) for path in (folder, WHISPER)]
    assert all(map(np.array_equal, *leaves))


def test_a_block_of_a_number_beyond_all_is_unexpected(folder):
    tensors = safetensors.numpy.load_file(folder / "model.safetensors")
    tensors[f"encoder.layers.{'9' * 5_000}.bias"] = np.zeros(3, np.float32)
    safetensors.numpy.save_file(tensors, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"1 unexpected: encoder\.layers\.9+"):
        backbones.load(folder)


def test_two_models_in_one_file_leave_open_which_is_meant(folder):
    tensors = safetensors.numpy.load_file(folder / "model.safetensors")
    named = {f"{who}.{name}": array for who in ("student", "teacher") for name, array in tensors.items()}
    safetensors.numpy.save_file(named, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"given twice: (student|teacher)\..*\((student|teacher)\."):
        backbones.load(folder)


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("is_safe", [True, False])
def test_numbers_that_are_not_finite_are_refused_by_name(number, is_safe, folder):
    tensors = safetensors.numpy.load_file(folder / "model.safetensors")
    name = "encoder.layers.2.feed_forward.output_dense.weight"
    tensors[name][3, 5] = number
    safetensors.numpy.save_file(tensors, folder / "model.safetensors")
    if not is_safe:
        torch = pytest.importorskip("torch", reason="needs PyTorch")
        torch.save({key: torch.from_numpy(array) for key, array in tensors.items()}, folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=rf"{name} has 1 numbers that are not finite"):
        backbones.load(folder)
    assert backbones.load(folder, layers=(2,)).layers == (2,)  # the block is not read


@pytest.mark.parametrize(
    ("variant", "name", "array"),
    [
        (
            "wavlm-large",
            "encoder.pos_conv_embed.conv.parametrizations.weight.original1",
            np.zeros((24, 6, 9), np.float32),
        ),
        ("hubert-batch-norm", "encoder.pos_conv_embed.batch_norm.running_var", np.full(24, -1, np.float32)),
        ("wavlm-large", "feature_projection.projection.bias", np.full(24, 1e300)),
    ],
)
def test_what_is_not_finite_once_computed_is_refused_by_its_names(variant, name, array, tmp_path):
    folder = shutil.copytree(WAVLM.parent / variant, tmp_path / variant)
    tensors = safetensors.numpy.load_file(folder / "model.safetensors")
    assert tensors[name].shape == array.shape
    safetensors.numpy.save_file(tensors | {name: array}, folder / "model.safetensors")
    part = name.rpartition(".")[0].removesuffix(".parametrizations.weight")
    with pytest.raises(CheckpointError, match=rf"{part}\..*: what is computed of them in \w+ is not finite"):
        backbones.load(folder)


@pytest.mark.parametrize("name", weights.WEIGHTS)
@pytest.mark.parametrize(("make", "message"), [(os.mkdir, "is a folder"), (os.mkfifo, "is no file")])
def test_a_folder_or_a_pipe_in_the_place_of_weights_is_said_so(name, make, message, folder):
    (folder / "model.safetensors").unlink()
    make(folder / name)
    with pytest.raises(CheckpointError, match=rf"{name} {message}: place the published file there"):
        backbones.load(folder)


def test_weights_are_read_one_after_another(folder, monkeypatch):
    """At no time are there more published arrays than one parameter of one block is made of."""
    references, most, read = [], [], SafetensorsFile.read

    def counted(self, name):
        array = read(self, name)
        references.append(weakref.ref(array))
        most.append(sum(reference() is not None for reference in references))
        return array

    monkeypatch.setattr(SafetensorsFile, "read", counted)
    backbones.load(folder)
    assert len(most) > 30
    assert max(most) <= 3  # the maps of queries, keys and values


# ---- the hub


def test_no_folder_and_no_network_says_how_to_place_the_files():
    """HF_HUB_OFFLINE is set for the tests: a download fails as it does without a network."""
    with pytest.raises(CheckpointError) as caught:
        backbones.load("microsoft/wavlm-none")
    assert "\n" not in str(caught.value)
    assert "microsoft/wavlm-none is not cached and cannot be downloaded" in str(caught.value)
    assert "place its config.json, preprocessor_config.json and model.safetensors" in str(caught.value)


@pytest.mark.parametrize("name", ["./nowhere/here", "a/b/c", "/nowhere/at-all", "a b/c"])
def test_what_is_neither_folder_nor_id_is_said_so(name):
    with pytest.raises(CheckpointError, match="is no folder here, and no id of the model hub"):
        backbones.load(name)


def test_a_hub_id_is_downloaded_in_one_format_with_its_commit(tmp_path, monkeypatch):
    import huggingface_hub

    commit, asked = "0123456789abcdef0123456789abcdef01234567", []
    published = shutil.copytree(WAVLM, tmp_path / "snapshots" / commit)
    weight_file = published / "model.safetensors"

    def download(repository, revision, allow_patterns):
        asked.append((repository, revision, tuple(allow_patterns)))
        if "pytorch_model.bin" in allow_patterns:
            weight_file.write_bytes((WAVLM / "model.safetensors").read_bytes())
        return str(published)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    checkpoint = open_checkpoint("microsoft/wavlm@main")
    assert (checkpoint.name, checkpoint.commit) == ("microsoft/wavlm", commit)
    assert checkpoint.revision == open_checkpoint(str(WAVLM)).revision
    assert [call[:2] for call in asked] == [("microsoft/wavlm", "main"), ("microsoft/wavlm", commit)]
    assert "processor_config.json" in asked[0][2]
    weight_file.unlink()
    assert open_checkpoint("microsoft/wavlm").files == (weight_file,)
    assert "pytorch_model.bin" in asked[-1][2]


# ---- pytorch_model.bin


def test_the_golden_torch_file_holds_what_its_twin_says():
    """Written by PyTorch, read without: all dtypes, a transposed, a sliced and a shared tensor, a parameter."""
    file = TorchFile(TORCH / "tensors.bin")
    with np.load(TORCH / "tensors.npz") as twin:
        assert set(file.tensors) == set(twin.files)
        for name in twin.files:
            ours = file.read(name)
            assert ours.shape == twin[name].shape
            assert file.shapes()[name] == twin[name].shape
            np.testing.assert_array_equal(ours.astype(np.float64), twin[name].astype(np.float64))
    assert file.read("bfloat16").dtype == ml_dtypes.bfloat16
    assert file.read("half").dtype == np.float16


def test_torch_reads_the_same(tmp_path):
    torch = pytest.importorskip("torch", reason="needs PyTorch")
    base = torch.randn(5, 7)
    state = collections.OrderedDict(
        a=base, b=base.T, c=base[1:4, ::2], d=base[2], e=torch.nn.Parameter(base), f=torch.zeros(0, 3),
        g=torch.tensor(3.5), h=base.bfloat16(), i=base.half(), j=base.double(), k=torch.arange(4), l=base > 0,
    )  # fmt: skip
    torch.save(state, tmp_path / "x.bin")
    theirs = torch.load(tmp_path / "x.bin", weights_only=True)
    file = TorchFile(tmp_path / "x.bin")
    assert set(file.tensors) == set(theirs)
    for name, tensor in theirs.items():
        ours = file.read(name)
        assert ours.shape == tuple(tensor.shape)
        np.testing.assert_array_equal(ours.astype(np.float64), tensor.detach().double().numpy())
    torch.save({"model": state, "epoch": 3}, tmp_path / "wrapped.bin")
    assert set(TorchFile(tmp_path / "wrapped.bin").tensors) == set(theirs)
    torch.save({**state, "epoch": 3}, tmp_path / "mixed.bin")
    assert TorchFile(tmp_path / "mixed.bin").others == ["epoch"]


def test_a_bin_checkpoint_loads_like_its_safetensors(folder):
    torch = pytest.importorskip("torch", reason="needs PyTorch")
    tensors = safetensors.numpy.load_file(folder / "model.safetensors")
    torch.save({name: torch.from_numpy(array) for name, array in tensors.items()}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    checkpoint = open_checkpoint(str(folder))
    read = read_tensors(checkpoint, {name: array.shape for name, array in tensors.items()}, lambda name: name)
    assert all((read[name] == tensors[name]).all() for name in tensors)
    assert backbones.load(folder).num_layers == 4


class _Runs:
    """Pickles to a call of anything."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def archive_of(path, pickled, storages=()):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        for key, content in storages:
            archive.writestr(f"archive/data/{key}", content)
    return path


@pytest.mark.parametrize("place", ["whole", "value", "key"])
@pytest.mark.parametrize(
    ("function", "arguments", "named"),
    [
        (os.system, ("touch {trap}",), "system"),
        (eval, ("__import__('os').mkdir({trap!r})",), "eval"),
        (exec, ("import os; os.mkdir({trap!r})",), "exec"),
        (getattr, ("x", "upper"), "getattr"),
        (os.mkdir, ("{trap}",), "mkdir"),
        (shutil.copy, (__file__, "{trap}"), "copy"),
    ],
)
def test_code_in_a_pickle_is_refused_by_name_and_never_runs(function, arguments, named, place, tmp_path):
    trap = tmp_path / "trap"
    arguments = tuple(a.format(trap=str(trap)) if isinstance(a, str) else a for a in arguments)
    bomb = _Runs(function, *arguments)
    content = {"whole": bomb, "value": {"encoder.w": bomb}, "key": {"encoder.w": [bomb]}}[place]
    path = archive_of(tmp_path / "pytorch_model.bin", pickle.dumps(content, protocol=2))
    with pytest.raises(CheckpointError, match=rf"pytorch_model\.bin asks for [\w.]*{named}, .*it was not run"):
        TorchFile(path)
    assert not trap.exists()
    pickle.loads(pickle.dumps(content, protocol=2))
    assert trap.exists() or function is getattr  # the plant is a live one


def test_stand_ins_cannot_be_bent_from_inside_a_file(tmp_path):
    """BUILD on what a name gives must not change how the next file is read."""
    bend = b"\x80\x02ccollections\nOrderedDict\n(dU\x0c__defaults__I1\ns\x86b0}."
    with contextlib.suppress(CheckpointError):
        TorchFile(archive_of(tmp_path / "bent.bin", bend))
    assert set(TorchFile(TORCH / "tensors.bin").tensors)


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [(0, (5,), (1,)), (3, (2,), (1,)), (0, (2, 2), (3, 1)), (-1, (2,), (1,)), (0, (2,), (-1,))],
)
def test_a_view_beyond_its_storage_is_refused(offset, shape, strides, tmp_path):
    """Reading past the end, or before the start, of memory."""

    def number(n):
        return b"J" + struct.pack("<i", n)

    def numbers(values):
        return b"(" + b"".join(map(number, values)) + b"t"

    storage = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpu" + number(4) + b"tQ"
    tensor = (
        b"ctorch._utils\n_rebuild_tensor_v2\n("
        + storage
        + number(offset)
        + numbers(shape)
        + numbers(strides)
        + b"\x89}tR"
    )
    path = archive_of(tmp_path / "x.bin", b"\x80\x02}X\x01\0\0\0w" + tensor + b"s.", [("0", bytes(16))])
    with pytest.raises(CheckpointError, match="asks for a tensor"):
        TorchFile(path)


def test_a_view_inside_its_storage_is_read_and_a_short_storage_noticed(tmp_path):
    inside = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x04tQ"
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + inside + b"K\x01K\x03\x85K\x01\x85\x89}tR"
    pickled = b"\x80\x02}X\x01\0\0\0w" + tensor + b"s."
    storage = np.arange(4, dtype="<f4").tobytes()
    assert TorchFile(archive_of(tmp_path / "a.bin", pickled, [("0", storage)])).read("w").tolist() == [1, 2, 3]
    with pytest.raises(CheckpointError, match="has 2 numbers, 4 are promised"):
        TorchFile(archive_of(tmp_path / "b.bin", pickled, [("0", storage[:8])])).read("w")
    with pytest.raises(CheckpointError, match="damaged"):
        TorchFile(archive_of(tmp_path / "c.bin", pickled)).read("w")


@pytest.mark.parametrize("keep", [0.3, 0.7, 0.95])
def test_a_truncated_torch_file_is_one_clear_error(keep, tmp_path):
    whole = (TORCH / "tensors.bin").read_bytes()
    path = tmp_path / "pytorch_model.bin"
    path.write_bytes(whole[: int(len(whole) * keep)])
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin is no ZIP archive: it is truncated"):
        TorchFile(path)


def test_a_damaged_pickle_is_one_clear_error(tmp_path):
    for pickled in (b"", b"\x80\x02}q", b"garbage", pickle.dumps([1, 2]), pickle.dumps({1: 2})):
        with pytest.raises(CheckpointError, match=r"x\.bin"):
            TorchFile(archive_of(tmp_path / "x.bin", pickled))


def test_every_source_of_weights_is_in_the_list_of_formats():
    assert all(any(name == pattern for patterns in hub._FORMATS for pattern in patterns) for name in weights.WEIGHTS)
